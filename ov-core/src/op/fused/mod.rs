//! Fused operators, which the lowering of devices makes and no file holds: the layout pass makes the channels-last ones,
//! and products absorb what follows them. Each has its shape rule and its exact evaluation.

pub mod activation;
pub mod convolution;
pub mod common;
pub mod element_wise;
pub mod group_norm;
pub mod integer;
pub mod layout;
pub mod matmul;
pub mod pooling;
pub mod quantize;
pub mod recurrent;
pub mod transposed;

use super::{OpEntry, OpKind};

/// Operators that front ends may make: none.
pub const OPS: &[OpEntry] = &[];

/// The fused operators.
const FUSED: &[&[OpEntry]] = &[
    convolution::OPS,
    element_wise::OPS,
    group_norm::OPS,
    integer::OPS,
    matmul::OPS,
    pooling::OPS,
    quantize::OPS,
    recurrent::OPS,
    transposed::OPS,
];

/// Whether an operator is one of the fused ones, whose exact evaluation takes `f32`.
#[must_use]
pub fn contains(kind: OpKind) -> bool {
    FUSED.iter().copied().flatten().any(|e| e.kind == kind)
}

/// An operator by exact name and version, the fused ones among them.
#[must_use]
pub fn find(name: &str, opset: u32) -> Option<&'static OpEntry> {
    let mut every = FUSED.iter().copied().flatten().chain(super::all());
    every.find(|e| e.kind.name == name && e.kind.opset == opset)
}
