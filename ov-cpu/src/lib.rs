//! CPU device of ov.

pub mod simd;
