//! The core of ov, a runtime for neural networks: tensors, the model graph, operators, front ends, passes, properties,
//! and what devices implement.
//!
//! A program depends on this crate and on the crates of its devices, and names each of those once, so that it is linked:
//! `use ov_cpu as _;`. Then a [`Core`] finds them. This example takes the template device instead, which needs no other
//! crate, and builds its model in code; `core.compile_model("model.onnx", "CPU", &properties)` reads one.
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! use ov_core::{Core, ElementType, Model, PropertyMap, Tensor};
//! use ov_core::property::hint::{self, PerformanceMode};
//! use ov_core::{op::activation::Elu, testing::template_device::TemplatePlugin};
//!
//! let mut model = Model::new("tiny");
//! let x = model.add_parameter("x", ElementType::F32, [1, 3])?;
//! let y = model.add(Elu { alpha: 1.0 }, &[x], "elu")?;
//! model.add_output("y", y);
//!
//! let core = Core::with_plugins([TemplatePlugin::create()])?; // Core::new() takes every linked device
//! let properties = PropertyMap::new().with(hint::PERFORMANCE_MODE, PerformanceMode::Latency);
//! let compiled = core.compile_model(model, "TEMPLATE", &properties)?;
//!
//! let mut request = compiled.create_infer_request()?;
//! request.set_input("x", Tensor::from_vec([1, 3], vec![1.0f32, 0.0, 2.0])?)?;
//! request.infer()?;
//! assert_eq!(request.output("y")?.as_slice::<f32>()?, [1.0, 0.0, 2.0]);
//!
//! request.start_async()?;
//! request.wait()?;
//! # }
//! # Ok::<(), ov_core::Error>(())
//! ```
//!
//! The way of a model: [`frontend`] or [`Model`]'s own methods make a graph of [`op`]erators, [`pass`] simplifies it, a
//! device ([`plugin`]) compiles it into a [`blob`] and runs it. [`property`] holds what can be set, [`cache`] what a model
//! cache owes, [`error`] what can go wrong.

pub mod blob;
pub mod cache;
mod checked;
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
pub mod program;
pub mod property;
pub mod reference;
pub mod registry;
pub mod states;
pub mod tensor;
#[cfg(feature = "testing")]
pub mod testing;

pub use blob::Blob;
pub use compiled_model::CompiledModel;
pub use core::{Core, DeviceStatus, Format, ReadOptions, Weights};
pub use error::{Error, Result};
pub use half;
pub use infer_request::{
    AsyncInferQueue, Callback, IdleRequest, InferFuture, InferRequest, Port, QueueOptions,
    Submission,
};
pub use inventory;
pub use model::Model;
pub use ndarray;
pub use plugin::{CancelToken, ModelSource, NodeSupport, PortInfo};
pub use property::PropertyMap;
pub use tensor::{Dimension, Element, ElementType, PartialShape, Shape, Tensor};
