//! Kernels without a GPU: the same text, built for the processor and run by fibers.
#![allow(unsafe_code, reason = "loads what it has compiled and calls it")]
#![allow(dead_code, reason = "help for tests to come: not every knob is turned today")]

mod fake_cuda;
mod fake_cuda_tests;
mod hardware;
mod host_compiler;
mod ladder;
mod memory;
mod module;
mod run;
mod shim_tests;

pub(crate) use fake_cuda::FakeCuda;
pub(crate) use hardware::on_hardware;
pub(crate) use host_compiler::HostCompiler;
pub(crate) use module::{HostModule, Order};
pub(crate) use run::{H100, KernelTest, bind, check, noise};
