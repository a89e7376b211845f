//! CPU device of ov.

pub mod affinity;
pub mod gemm;
pub mod kernels;
pub mod simd;
pub mod team;
pub mod topology;
