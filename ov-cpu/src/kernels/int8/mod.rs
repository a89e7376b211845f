//! Quantized convolution and matrix product, and conversion between f32 and bytes.

mod conv;
mod depthwise;
mod lstm;
mod pool;
pub(crate) mod quads;
pub mod quantize;

pub(crate) use conv::{ByteArgs, ByteConv, BytePacking};
pub(crate) use depthwise::ByteDepthwise;
pub(crate) use lstm::lstm_cell;
pub(crate) use pool::{max_pool_i8, max_pool_u8};
