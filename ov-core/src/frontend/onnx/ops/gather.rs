//! Reading elements by index.

use super::{super::NodeContext, ConvertResult, OnnxOp};
use crate::{
    op::{OpError, gather::{Gather, GatherElements, GatherNd}, normalize_axis},
    tensor::Tensor,
};

/// "It is an error if any of the index values are out of bounds": <https://onnx.ai/onnx/operators/onnx__Gather.html>.
const STRICT: Gather = Gather { batch_dims: 0, strict: true };

fn gather(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, indices, axis) = (cx.input(0)?, cx.input(1)?, cx.i64("axis", 0)?);
    let axis = cx.constant(Tensor::scalar(axis));
    Ok(vec![cx.add(STRICT, &[x, indices, axis])?])
}

fn gather_elements(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, indices, axis) = (cx.input(0)?, cx.input(1)?, cx.i64("axis", 0)?);
    Ok(vec![cx.add(GatherElements { axis }, &[x, indices])?])
}

fn gather_nd(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, indices, batch_dims) = (cx.input(0)?, cx.input(1)?, cx.i64("batch_dims", 0)?);
    Ok(vec![cx.add(GatherNd { batch_dims }, &[x, indices])?])
}

fn compress(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, condition, axis) = (cx.input(0)?, cx.input(1)?, cx.optional_i64("axis")?);
    let extent = match axis {
        Some(axis) => cx.shape(x).rank().map(|r| normalize_axis(axis, r)).transpose()?.and_then(|a| cx.shape(x).dim(a).value()),
        None => cx.shape(x).to_shape().and_then(|s| s.checked_len()),
    };
    let len = cx.shape(condition).dim(0).value();
    if let Some((len, extent)) = len.zip(extent).filter(|(len, extent)| len > extent) {
        return Err(OpError::Input {
            index: 1,
            got: format!("{len} conditions"),
            expected: format!("at most one for each of the {extent} slices"),
        }
        .into());
    }
    let found = cx.compose("NonZero", &[condition], &[])?;
    let indices = cx.reshape(found, &[-1])?;
    let x = if axis.is_some() { x } else { cx.reshape(x, &[-1])? };
    let axis = cx.constant(Tensor::scalar(axis.unwrap_or(0)));
    Ok(vec![cx.add(STRICT, &[x, indices, axis])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "Gather", 1, gather),
    ("", "GatherElements", 11, gather_elements),
    ("", "GatherND", 11, gather_nd),
    ("", "Compress", 9, compress),
];
