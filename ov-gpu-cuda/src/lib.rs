//! NVIDIA GPUs as the device `CUDA`. Add the crate and name it once: `use ov_gpu_cuda as _;`.
//!
//! Today the crate finds the GPUs and says what is missing where there are none; it compiles no model yet, which
//! [`ov_core::Core::query_model`] and compiling say with a typed error, so that AUTO goes on to the next device.

mod driver;
#[allow(dead_code, reason = "filled family by family")]
mod kernels;
mod plugin;
mod probe;

pub use plugin::{CudaPlugin, DEVICE_NAME};

ov_core::register_plugin!("CUDA", CudaPlugin::create);
