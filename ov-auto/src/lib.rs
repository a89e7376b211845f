//! The device `AUTO`: chooses among the other devices. Add the crate and name it once: `use ov_auto as _;`.
//!
//! `AUTO` takes every usable device, accelerators before the CPU; `AUTO:CUDA,CPU` takes these in this order;
//! `AUTO:-CUDA` takes every one but those. The model is compiled for the first that succeeds; that device's own requests
//! are handed out, so that AUTO costs nothing per inference. `DEVICE_PROPERTIES` sets properties of single devices.
//!
//! Serving from the CPU while an accelerator compiles is not built yet.
#![forbid(unsafe_code)]

mod plugin;
mod select;

pub use plugin::{AutoPlugin, DEVICE_NAME};

ov_core::register_plugin!("AUTO", AutoPlugin::create);
