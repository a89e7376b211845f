//! Kernels: pure functions over slices, each computing a range of work items.

pub mod eltwise;
pub mod out;
#[cfg(test)]
mod testing;
