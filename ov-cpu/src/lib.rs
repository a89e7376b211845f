//! CPU device of ov.

pub mod kernels;
pub mod simd;
