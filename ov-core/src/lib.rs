//! Tensors, model graph, operators, front ends, passes, properties, plugin traits and registry of ov.

pub mod blob;
pub mod cache;
mod compiled_model;
mod core;
pub mod error;
pub mod frontend;
mod infer_request;
pub mod io;
pub mod model;
pub mod op;
pub mod pass;
pub mod plugin;
pub mod profiling;
pub mod property;
pub mod reference;
pub mod registry;
pub mod tensor;
#[cfg(feature = "testing")]
pub mod testing;

pub use blob::Blob;
pub use compiled_model::CompiledModel;
pub use core::{Core, DeviceStatus, Format, ReadOptions, Weights};
pub use error::{Error, Result};
pub use half;
pub use infer_request::{Callback, InferRequest, Port};
pub use inventory;
pub use model::Model;
pub use ndarray;
pub use plugin::{CancelToken, ModelSource, NodeSupport, PortInfo};
pub use property::PropertyMap;
pub use tensor::{Dimension, Element, ElementType, PartialShape, Shape, Tensor};
