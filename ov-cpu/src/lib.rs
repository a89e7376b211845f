//! CPU device of ov.

pub mod affinity;
pub mod compile;
mod control_flow;
pub mod gemm;
pub mod kernels;
pub mod lower;
pub mod nodes;
pub mod ops;
pub mod plan;
pub mod program;
pub mod simd;
pub mod team;
pub mod topology;
