//! Slices.

use super::{
    super::{context::ConvertError, NodeContext},
    ConvertResult, OnnxOp,
};
use crate::{
    model::Value,
    op::{OpError, reshape::ShapeOf, slice::Slice},
    tensor::{ElementType, Tensor},
};

/// As many ones as `starts` has elements.
fn ones(cx: &mut NodeContext<'_, '_>, starts: Value) -> Result<Value, ConvertError> {
    if let Some(n) = cx.shape(starts).dim(0).value() {
        if n > 64 {
            return Err(OpError::Invalid(format!("a slice of {n} axes")).into());
        }
        return Ok(cx.i64s_constant(&vec![1; n]));
    }
    let (one, shape) = (cx.constant(Tensor::scalar(1i64)), cx.add(ShapeOf { output_type: ElementType::I64 }, &[starts])?);
    cx.compose("Expand", &[one, shape], &[])
}

fn slice(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, starts, ends) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (axes, steps) = (cx.optional_input(3), cx.optional_input(4));
    let steps = match steps {
        Some(steps) => steps,
        None => ones(cx, starts)?,
    };
    let mut inputs = vec![x, starts, ends, steps];
    inputs.extend(axes);
    Ok(vec![cx.add(Slice {}, &inputs)?])
}

fn slice_1(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, starts, ends) = (cx.input(0)?, cx.i64s("starts", &[])?, cx.i64s("ends", &[])?);
    let steps = vec![1; starts.len()];
    let mut inputs = vec![x, cx.i64s_constant(&starts), cx.i64s_constant(&ends), cx.i64s_constant(&steps)];
    if let Some(axes) = cx.optional_i64s("axes")? {
        inputs.push(cx.i64s_constant(&axes));
    }
    Ok(vec![cx.add(Slice {}, &inputs)?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[("", "Slice", 1, slice_1), ("", "Slice", 10, slice)];
