//! Joining and splitting.

use super::{super::NodeContext, ConvertResult, OnnxOp};
use crate::{
    op::{
        OpError,
        concat::{Concat, Split, VariadicSplit},
        normalize_axis,
    },
    tensor::Tensor,
};

fn concat(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (axis, inputs) = (cx.i64("axis", 1)?, cx.all_inputs());
    Ok(vec![cx.add(Concat { axis }, &inputs)?])
}

fn split(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, axis) = (cx.input(0)?, cx.i64("axis", 0)?);
    let lengths = match cx.optional_input(1) {
        Some(lengths) => Some(lengths),
        None => cx.optional_i64s("split")?.map(|l| cx.i64s_constant(&l)),
    };
    let axis_value = cx.constant(Tensor::scalar(axis));
    if let Some(lengths) = lengths {
        return cx.add_multi(VariadicSplit {}, &[x, axis_value, lengths]);
    }
    let parts = cx.i64("num_outputs", cx.output_count() as i64)?;
    let shape = cx.shape(x);
    let extent = match shape.rank() {
        Some(rank) => shape.dim(normalize_axis(axis, rank)?).value(),
        None => None,
    };
    let extent = extent.and_then(|e| i64::try_from(e).ok());
    match extent {
        Some(extent) if parts > 0 && extent % parts != 0 => {
            if parts > cx.output_count().max(1) as i64 {
                return Err(OpError::Attribute {
                    name: "num_outputs",
                    got: parts.to_string(),
                    expected: format!("{} outputs", cx.output_count()),
                }
                .into());
            }
            let chunk = extent / parts + 1;
            let lengths: Vec<i64> =
                (0..parts).map(|i| (extent - i * chunk).clamp(0, chunk)).collect();
            let lengths = cx.i64s_constant(&lengths);
            cx.add_multi(VariadicSplit {}, &[x, axis_value, lengths])
        }
        _ => cx.add_multi(Split { num_splits: parts }, &[x, axis_value]),
    }
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[("", "Concat", 1, concat), ("", "Split", 2, split)];
