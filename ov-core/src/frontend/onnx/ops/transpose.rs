//! Reordering axes and elements.

use super::{
    super::{NodeContext, context::ConvertError},
    ConvertResult, OnnxOp,
};
use crate::{
    op::{
        OpError,
        transpose::{DepthMode, DepthToSpace, ReverseSequence, SpaceToDepth, Transpose},
    },
};

fn transpose(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, order) = (cx.input(0)?, cx.i64s("perm", &[])?);
    let order = match (order.is_empty(), cx.shape(x).rank()) {
        (true, Some(rank)) => (0..rank as i64).rev().collect(),
        _ => order,
    };
    let order = cx.i64s_constant(&order);
    Ok(vec![cx.add(Transpose {}, &[x, order])?])
}

fn depth_mode(cx: &NodeContext<'_, '_>) -> Result<DepthMode, ConvertError> {
    Ok(match cx.str("mode", "DCR")? {
        "DCR" => DepthMode::BlocksFirst,
        "CRD" => DepthMode::DepthFirst,
        other => {
            return Err(OpError::Attribute {
                name: "mode",
                got: other.to_owned(),
                expected: "DCR or CRD".to_owned(),
            }
            .into());
        }
    })
}

fn depth_to_space(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, block_size, mode) = (cx.input(0)?, cx.i64("blocksize", 0)?, depth_mode(cx)?);
    Ok(vec![cx.add(DepthToSpace { block_size, mode }, &[x])?])
}

fn space_to_depth(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, block_size, mode) = (cx.input(0)?, cx.i64("blocksize", 0)?, depth_mode(cx)?);
    Ok(vec![cx.add(SpaceToDepth { block_size, mode }, &[x])?])
}

fn reverse_sequence(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, lengths) = (cx.input(0)?, cx.input(1)?);
    let op = ReverseSequence { batch_axis: cx.i64("batch_axis", 1)?, seq_axis: cx.i64("time_axis", 0)? };
    Ok(vec![cx.add(op, &[x, lengths])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "Transpose", 1, transpose),
    ("", "DepthToSpace", 1, depth_to_space),
    ("", "SpaceToDepth", 1, space_to_depth),
    ("", "ReverseSequence", 10, reverse_sequence),
];
