//! Shapes: reshaping, inserting and dropping axes, repeating, asking.

use super::{
    super::{compose::Attr, context::ConvertError, NodeContext},
    ConvertResult, OnnxOp,
};
use crate::{
    model::Value,
    op::{
        OpError, normalize_axis,
        reshape::{Broadcast, BroadcastMode, Reshape, ShapeOf, Squeeze, Tile, Unsqueeze},
        slice::Slice,
    },
    tensor::{Dimension, ElementType, Tensor},
};

fn reshape(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, shape) = (cx.input(0)?, cx.input(1)?);
    let special_zero = !cx.bool("allowzero", false)?;
    let op = Reshape { special_zero, strict: !cx.is_composed() };
    Ok(vec![cx.add(op, &[x, shape])?])
}

fn reshape_1(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, shape) = (cx.input(0)?, cx.i64s("shape", &[])?);
    let shape = cx.i64s_constant(&shape);
    Ok(vec![cx.add(Reshape { special_zero: true, strict: !cx.is_composed() }, &[x, shape])?])
}

fn squeeze(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut inputs = vec![cx.input(0)?];
    inputs.extend(cx.optional_input(1));
    Ok(vec![cx.add(Squeeze {}, &inputs)?])
}

fn squeeze_1(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut inputs = vec![cx.input(0)?];
    if let Some(axes) = cx.optional_i64s("axes")? {
        inputs.push(cx.i64s_constant(&axes));
    }
    Ok(vec![cx.add(Squeeze {}, &inputs)?])
}

fn unsqueeze(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, axes) = (cx.input(0)?, cx.input(1)?);
    Ok(vec![cx.add(Unsqueeze {}, &[x, axes])?])
}

fn unsqueeze_1(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, axes) = (cx.input(0)?, cx.i64s("axes", &[])?);
    let axes = cx.i64s_constant(&axes);
    Ok(vec![cx.add(Unsqueeze {}, &[x, axes])?])
}

fn flatten(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, axis) = (cx.input(0)?, cx.i64("axis", 1)?);
    let shape = cx.shape(x);
    let target = match (shape.dims(), axis) {
        (_, 0) => [1, -1],
        (None, 1) => [0, -1],
        (None, _) => return Err(OpError::Unsupported("Flatten of unknown rank".to_owned()).into()),
        (Some(dims), _) => {
            let rank = dims.len();
            let axis = if axis == rank as i64 { rank } else { normalize_axis(axis, rank)? };
            let product = |d: &[Dimension]| {
                d.iter().try_fold(1i64, |a, d| a.checked_mul(i64::try_from(d.value()?).ok()?))
            };
            match (product(&dims[..axis]), product(&dims[axis..])) {
                (Some(a), Some(b)) => [a, b],
                (Some(a), None) if a > 0 => [a, -1],
                (None, Some(b)) if b > 0 => [-1, b],
                _ if axis == 1 => [0, -1],
                _ => return flatten_dynamic(cx, x, axis as i64),
            }
        }
    };
    let special_zero = target == [0, -1] && !shape.is_static();
    let target = cx.i64s_constant(&target);
    Ok(vec![cx.add(Reshape { special_zero, ..Reshape::default() }, &[x, target])?])
}

fn flatten_dynamic(cx: &mut NodeContext<'_, '_>, x: Value, axis: i64) -> ConvertResult {
    let head = shape_part(cx, x, 0, Some(axis))?;
    let rows = cx.compose("ReduceProd", &[head], &[("keepdims", Attr::Int(1))])?;
    let rest = cx.i64s_constant(&[-1]);
    let target = cx.compose("Concat", &[rows, rest], &[("axis", Attr::Int(0))])?;
    Ok(vec![cx.add(Reshape { special_zero: false, ..Reshape::default() }, &[x, target])?])
}

fn shape_part(
    cx: &mut NodeContext<'_, '_>,
    x: Value,
    start: i64,
    end: Option<i64>,
) -> Result<Value, ConvertError> {
    let shape = cx.add(ShapeOf { output_type: ElementType::I64 }, &[x])?;
    if start == 0 && end.is_none() {
        return Ok(shape);
    }
    let start = cx.i64s_constant(&[start]);
    let end = cx.i64s_constant(&[end.unwrap_or_else(|| i64::from(i32::MAX))]);
    let step = cx.i64s_constant(&[1]);
    cx.add(Slice {}, &[shape, start, end, step])
}

fn shape(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, start, end) = (cx.input(0)?, cx.i64("start", 0)?, cx.optional_i64("end")?);
    Ok(vec![shape_part(cx, x, start, end)?])
}

fn size(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    if let Some(len) = cx.shape(x).to_shape().and_then(|s| s.checked_len()) {
        return Ok(vec![cx.constant(Tensor::scalar(len as i64))]);
    }
    let shape = shape_part(cx, x, 0, None)?;
    Ok(vec![cx.compose("ReduceProd", &[shape], &[("keepdims", Attr::Int(0))])?])
}

fn expand(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, shape) = (cx.input(0)?, cx.input(1)?);
    Ok(vec![cx.add(Broadcast { mode: BroadcastMode::Bidirectional }, &[x, shape])?])
}

fn tile(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, repeats) = (cx.input(0)?, cx.input(1)?);
    Ok(vec![cx.add(Tile {}, &[x, repeats])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "Reshape", 1, reshape_1),
    ("", "Reshape", 5, reshape),
    ("", "Squeeze", 1, squeeze_1),
    ("", "Squeeze", 13, squeeze),
    ("", "Unsqueeze", 1, unsqueeze_1),
    ("", "Unsqueeze", 13, unsqueeze),
    ("", "Flatten", 1, flatten),
    ("", "Shape", 1, shape),
    ("", "Size", 1, size),
    ("", "Expand", 8, expand),
    ("", "Tile", 6, tile),
];
