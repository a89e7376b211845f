//! NVIDIA GPUs as the device `CUDA`. Add the crate and name it once: `use ov_gpu_cuda as _;`.
//!
//! `CUDA` is every GPU of the kind of the first, with one plan and an idle-first queue; `CUDA.0`, `CUDA.1` … are single
//! ones. Nothing but the driver is needed to run a compiled model; compiling one needs NVRTC. Where a driver, a GPU or a
//! function is missing, the device is empty and says why.
//!
//! The way of a model: `lower` turns it channels-last, fuses, chooses kernels and packs weights; the blob holds the
//! program, the weights and the compiled modules; `plan` binds the program to shapes; a `slot` makes graphs of the plan
//! on a GPU and runs them. Operators without a kernel run on the host by their reference evaluation, between graphs.

#[allow(dead_code, reason = "used when models are compiled")]
mod compile;
mod config;
mod device_model;
mod driver;
mod images;
#[allow(dead_code, reason = "filled family by family")]
mod kernels;
mod loaded;
mod lower;
mod plan;
mod plugin;
mod pool;
mod precision;
mod program;
mod request;
mod runner;
mod slot;
mod states;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use plugin::{CudaPlugin, DEVICE_NAME};

ov_core::register_plugin!("CUDA", CudaPlugin::create);
