//! Kernels: pure functions over slices, each computing a range of work items.

pub mod attention;
pub mod conv;
pub mod depthwise;
pub mod eltwise;
pub mod gather;
pub mod int8;
pub mod norm;
pub mod out;
pub mod pooling;
pub mod reduce;
pub mod resize;
pub mod rnn;
pub mod softmax;
#[cfg(test)]
pub(crate) mod testing;
pub mod transpose;
pub mod trees;
