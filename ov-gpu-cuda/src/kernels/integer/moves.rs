//! Operators that bytes pass through as they are.

use ov_core::op::{
    Op, OpAttributes, OpKind,
    concat::{Concat, Split, VariadicSplit},
    pooling::{MaxPool, MaxPool1, MaxPool8},
    reshape::{Broadcast, Reshape, Squeeze, Squeeze15, Tile, Unsqueeze},
    resize::{Interpolate, Interpolate4, InterpolateMode},
    slice::{Slice, StridedSlice},
    transpose::{DepthToSpace, ShuffleChannels, SpaceToDepth, Transpose},
};

/// Operators that give nothing but elements of their inputs.
const MOVES: &[OpKind] = &[
    Broadcast::KIND,
    Concat::KIND,
    DepthToSpace::KIND,
    MaxPool1::KIND,
    MaxPool8::KIND,
    MaxPool::KIND,
    Reshape::KIND,
    ShuffleChannels::KIND,
    Slice::KIND,
    SpaceToDepth::KIND,
    Split::KIND,
    Squeeze15::KIND,
    Squeeze::KIND,
    StridedSlice::KIND,
    Tile::KIND,
    Transpose::KIND,
    Unsqueeze::KIND,
    VariadicSplit::KIND,
];

/// Whether kernels compute an operator in bytes that gives nothing but elements of its inputs.
pub(crate) fn moves_bytes(op: &dyn Op) -> bool {
    let newer = op.downcast::<Interpolate4>().map(Interpolate4::newer);
    MOVES.contains(&op.kind())
        || newer.as_ref().or_else(|| op.downcast()).is_some_and(|op: &Interpolate| {
            let pads = op.pads_begin.iter().chain(&op.pads_end).any(|p| *p != 0);
            op.mode == InterpolateMode::Nearest && !op.antialias && !pads
        })
}
