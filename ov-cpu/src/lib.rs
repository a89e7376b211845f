//! CPU device of ov: `CPU`.
//!
//! Depend on the crate and name it once, so that it is linked: `use ov_cpu as _;`.
//!
//! The way of a model: [`lower`] turns it channels-last, fuses, chooses kernels ([`nodes`]) and writes a [`program`] with
//! packed weights; [`plan`] binds a program to shapes and runs it on a [`team`] of threads; [`kernels`], [`gemm`] and
//! [`simd`] compute.

pub mod affinity;
pub mod compile;
pub mod config;
mod control_flow;
mod device_model;
pub mod gemm;
pub mod kernels;
pub mod lower;
pub mod nodes;
pub mod placement;
pub mod plan;
mod plugin;
mod pool;
pub mod priority;
pub mod program;
mod request;
mod reservation;
pub mod simd;
pub mod team;
mod teams;
pub mod topology;

use ov_core::op::fused as ops;
pub use plugin::CpuPlugin;

/// The name of the device.
pub const DEVICE_NAME: &str = "CPU";

ov_core::register_plugin!("CPU", CpuPlugin::create);
