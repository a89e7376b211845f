//! The device `AUTO`: chooses among the other devices. Add the crate and name it once: `use ov_auto as _;`.
//!
//! `AUTO` takes every usable device, accelerators before the CPU; `AUTO:CUDA,CPU` takes these in this order;
//! `AUTO:-CUDA` takes every one but those. `DEVICE_PROPERTIES` sets properties of single devices.
//!
//! While the preferred device compiles on an idle-class thread, the CPU serves. Then requests move over between two
//! inferences, once the device has shown that it works, agrees and is faster; the CPU's model is released when the last
//! request has left it. A request that fails on a device runs again from its inputs on the next one, and the device is
//! tried again after a rest. `CUMULATIVE_THROUGHPUT` spreads requests over all devices. A single candidate's own requests
//! are handed out, at no cost.
#![forbid(unsafe_code)]

mod executor;
mod fleet;
mod handover;
mod machine;
mod model;
mod options;
mod plugin;
mod priority;
mod request;
mod select;
mod switch;
mod sync;
#[cfg(test)]
mod testing;
mod warming;

pub use plugin::{AutoPlugin, DEVICE_NAME};

ov_core::register_plugin!("AUTO", AutoPlugin::create);
