//! The CUDA driver library: typed handles over its functions. The only place that calls it, and with unsafe code.
//!
//! Every call gives an error with the driver's words. A code after which a context is corrupt marks the [`Device`] as
//! lost for good: from then on nothing calls the driver for it, not even to free memory.
#![allow(unsafe_code, reason = "calls the CUDA driver library")]

mod api;
mod device;
mod error;
mod graph;
mod memory;
mod module;
mod stream;

pub(crate) use api::Api;
pub(crate) use device::{About, Context, Device, Driver};
pub(crate) use error::{DriverError, ErrorKind};
pub(crate) use graph::{Graph, GraphBuilder, KernelNode, Side, Transfer};
pub(crate) use memory::{DeviceMemory, Pinned};
pub(crate) use module::{Function, Module};
pub(crate) use stream::{Event, Patience, Stream, Wait};
