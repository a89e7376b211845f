//! The CPU device's own operators, which its lowering makes and no file holds.

pub(crate) mod activation;
pub mod convolution;
pub(crate) mod fused;
pub mod integer;
pub(crate) mod layout;
pub mod matmul;
pub mod pooling;
pub mod quantize;
pub mod recurrent;
pub mod transposed;

use ov_core::op::{self, OpEntry};

/// The CPU device's own operators.
const OPS: &[&[OpEntry]] = &[
    convolution::OPS,
    integer::OPS,
    matmul::OPS,
    pooling::OPS,
    quantize::OPS,
    recurrent::OPS,
    transposed::OPS,
];

/// An operator by exact name and version.
#[must_use]
pub fn find(name: &str, opset: u32) -> Option<&'static OpEntry> {
    let mut every = OPS.iter().copied().flatten().chain(op::all());
    every.find(|e| e.kind.name == name && e.kind.opset == opset)
}
