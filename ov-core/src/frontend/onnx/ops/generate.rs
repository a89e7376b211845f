//! Tensors made of little.

use super::{super::NodeContext, ConvertResult, OnnxOp};
use crate::{
    op::{
        OpError,
        gather::Gather,
        generate::{Eye, NegativeIndices, NonZero, OneHot, Range, Trilu, Unique},
        reshape::{Broadcast, BroadcastMode, ShapeOf},
    },
    tensor::{ElementType, Tensor},
};

fn constant_of_shape(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let shape = cx.input(0)?;
    let value = cx.optional_tensor("value")?.unwrap_or_else(|| Tensor::scalar(0f32));
    if value.len() != 1 {
        return Err(OpError::Attribute {
            name: "value",
            got: format!("shape {}", value.shape()),
            expected: "one element".to_owned(),
        }
        .into());
    }
    let value = value.reshape([])?;
    let value = cx.constant(value);
    Ok(vec![cx.add(Broadcast { mode: BroadcastMode::Numpy }, &[value, shape])?])
}

fn range(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let output_type = cx.element_type(inputs[0]);
    Ok(vec![cx.add(Range { output_type }, &inputs)?])
}

fn eye_like(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, k) = (cx.input(0)?, cx.i64("k", 0)?);
    let output_type = cx.optional_element_type("dtype")?.unwrap_or_else(|| cx.element_type(x));
    let shape = cx.add(ShapeOf { output_type: ElementType::I64 }, &[x])?;
    let zero = cx.constant(Tensor::scalar(0i64));
    let one = cx.constant(Tensor::scalar(1i64));
    let rows = cx.add(Gather::default(), &[shape, zero, zero])?;
    let columns = cx.add(Gather::default(), &[shape, one, zero])?;
    let diagonal = cx.constant(Tensor::scalar(k));
    Ok(vec![cx.add(Eye { output_type }, &[rows, columns, diagonal])?])
}

fn one_hot(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (indices, depth, values, axis) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.i64("axis", -1)?);
    let zero = cx.constant(Tensor::scalar(0i64));
    let one = cx.constant(Tensor::scalar(1i64));
    let off = cx.add(Gather::default(), &[values, zero, zero])?;
    let on = cx.add(Gather::default(), &[values, one, zero])?;
    let op = OneHot { axis, negative_indices_mode: NegativeIndices::Normalize };
    Ok(vec![cx.add(op, &[indices, depth, on, off])?])
}

fn non_zero(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![cx.add(NonZero { output_type: ElementType::I64 }, &[x])?])
}

fn trilu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (upper, inputs) = (cx.bool("upper", true)?, cx.all_inputs());
    Ok(vec![cx.add(Trilu { upper }, &inputs)?])
}

fn unique(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut inputs = vec![cx.input(0)?];
    if let Some(axis) = cx.optional_i64("axis")? {
        inputs.push(cx.constant(Tensor::scalar(axis)));
    }
    let op = Unique { sorted: cx.bool("sorted", true)?, ..Unique::default() };
    cx.add_multi(op, &inputs)
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "ConstantOfShape", 9, constant_of_shape),
    ("", "Range", 11, range),
    ("", "EyeLike", 9, eye_like),
    ("", "OneHot", 9, one_hot),
    ("", "NonZero", 9, non_zero),
    ("", "Trilu", 14, trilu),
    ("", "Unique", 11, unique),
];
