//! Writing elements by index.

use super::{
    super::{context::ConvertError, NodeContext},
    ConvertResult, OnnxOp,
};
use crate::{
    op::{
        OpError,
        scatter::{CacheMode, Reduction, ScatterElementsUpdate, ScatterNdUpdate, TensorScatter},
    },
    tensor::Tensor,
};

fn reduction(cx: &NodeContext<'_, '_>) -> Result<Reduction, ConvertError> {
    Ok(match cx.str("reduction", "none")? {
        "none" => Reduction::None,
        "add" => Reduction::Sum,
        "mul" => Reduction::Prod,
        "min" => Reduction::Min,
        "max" => Reduction::Max,
        other => {
            return Err(OpError::Attribute {
                name: "reduction",
                got: other.to_owned(),
                expected: "none, add, mul, min or max".to_owned(),
            }
            .into());
        }
    })
}

fn scatter_elements(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, indices, updates) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let axis = cx.i64("axis", 0)?;
    let axis = cx.constant(Tensor::scalar(axis));
    let op = ScatterElementsUpdate { reduction: reduction(cx)?, use_init_val: true };
    Ok(vec![cx.add(op, &[x, indices, updates, axis])?])
}

fn scatter_nd(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, indices, updates) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let op = ScatterNdUpdate { reduction: reduction(cx)? };
    Ok(vec![cx.add(op, &[x, indices, updates])?])
}

fn tensor_scatter(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = cx.all_inputs();
    let mode = match cx.str("mode", "linear")? {
        "circular" => CacheMode::Circular,
        _ => CacheMode::Linear,
    };
    let op = TensorScatter { axis: cx.i64("axis", -2)?, mode };
    Ok(vec![cx.add(op, &inputs)?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "Scatter", 9, scatter_elements),
    ("", "ScatterElements", 11, scatter_elements),
    ("", "ScatterND", 11, scatter_nd),
    ("", "TensorScatter", 24, tensor_scatter),
];
