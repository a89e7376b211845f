//! Operators of `com.microsoft` that `ai.onnx` has under the same or another name, or expresses in a few steps.

use super::{
    super::super::{Attr, ConvertError, NodeContext},
    ConvertResult, WINDOW, channels_first, channels_last,
};
use crate::{model::Value, op::OpError};

const TO_I64: [(&str, Attr<'static>); 1] = [("to", Attr::Int(7))];

fn unsupported<T>(what: String) -> Result<T, ConvertError> {
    Err(OpError::Unsupported(what).into())
}

pub(super) fn quantize_linear(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (inputs, attributes) = (cx.all_inputs(), cx.own_attributes(&["axis"]));
    cx.compose_with("QuantizeLinear", &inputs, attributes, 1)
}

pub(super) fn dequantize_linear(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (inputs, attributes) = (cx.all_inputs(), cx.own_attributes(&["axis"]));
    cx.compose_with("DequantizeLinear", &inputs, attributes, 1)
}

/// The convolution of `ai.onnx`, whose image may have its channels last.
pub(super) fn qlinear_conv(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let last = cx.bool("channels_last", false)?;
    let mut inputs = cx.all_inputs();
    let rank = cx.rank(inputs[0])? as i64;
    if last {
        inputs[0] = channels_first(cx, inputs[0], rank)?;
    }
    let attributes = cx.own_attributes(WINDOW);
    let y = cx.compose_with("QLinearConv", &inputs, attributes, 1)?[0];
    Ok(vec![if last { channels_last(cx, y, rank)? } else { y }])
}

/// A convolution with image and filters (`[filters, ..., channels]`) channels-last.
pub(super) fn nhwc_conv(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.rank(x)? as i64;
    let mut inputs = vec![channels_first(cx, x, rank)?, channels_first(cx, weights, rank)?];
    inputs.extend(cx.optional_input(2));
    let attributes = cx.own_attributes(WINDOW);
    let y = cx.compose_with("Conv", &inputs, attributes, 1)?[0];
    Ok(vec![channels_last(cx, y, rank)?])
}

fn group_normalized(
    cx: &mut NodeContext<'_, '_>,
    x: Value,
) -> Result<Value, ConvertError> {
    let (scale, bias) = (cx.input(1)?, cx.input(2)?);
    let rank = cx.rank(x)? as i64;
    let last = cx.bool("channels_last", true)?;
    let image = if last { channels_first(cx, x, rank)? } else { x };
    let attributes =
        [("num_groups", Attr::Int(cx.i64("groups", 0)?)), ("epsilon", Attr::Float(cx.f32("epsilon", 1e-5)?))];
    let mut y = cx.compose("GroupNormalization", &[image, scale, bias], &attributes)?;
    match cx.i64("activation", 0)? {
        0 => {}
        1 => {
            let gate = cx.compose("Sigmoid", &[y], &[])?;
            y = cx.compose("Mul", &[y, gate], &[])?;
        }
        other => return unsupported(format!("activation {other} of a group normalization")),
    }
    if last { channels_last(cx, y, rank) } else { Ok(y) }
}

pub(super) fn group_norm(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![group_normalized(cx, x)?])
}

/// Normalizes `x + skip + bias`; `skip` is an image or one value per sample and channel.
pub(super) fn skip_group_norm(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, mut skip) = (cx.input(0)?, cx.input(3)?);
    if cx.rank(skip)? == 2 && cx.rank(x)? == 4 {
        let axes = cx.i64s_constant(&[1, 2]);
        skip = cx.compose("Unsqueeze", &[skip, axes], &[])?;
    }
    let sum = cx.compose("Add", &[x, skip], &[])?;
    let sum = super::add_inputs(cx, sum, &[4])?;
    let y = group_normalized(cx, sum)?;
    Ok(vec![y, sum])
}

/// The first half of `x + bias` times the GELU of the second.
pub(super) fn bias_split_gelu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let x = super::add_inputs(cx, x, &[1])?;
    let attributes = [("axis", Attr::Int(-1)), ("num_outputs", Attr::Int(2))];
    let halves = cx.compose_multi("Split", &[x], &attributes, 2)?;
    let gate = cx.compose("Gelu", &[halves[1]], &[])?;
    Ok(vec![cx.compose("Mul", &[halves[0], gate], &[])?])
}

pub(super) fn bias_add(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![super::add_inputs(cx, x, &[1, 2])?])
}

/// The distinct values in order of appearance, the place of every element among them, and how often each appears.
pub(super) fn unique(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let given = cx.compose_multi("Unique", &[x], &[("sorted", Attr::Int(0))], 4)?;
    Ok(vec![given[0], given[2], given[3]])
}

/// `start`, `limit` and `delta` (1 when it is left out) are scalars or lists of one element.
pub(super) fn range(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let start = cx.input(0)?;
    let step = match cx.optional_input(2) {
        Some(step) => step,
        None => cx.scalar_like(1.0, start)?,
    };
    let limit = cx.input(1)?;
    let mut inputs = Vec::new();
    for value in [start, limit, step] {
        inputs.push(if cx.rank(value)? == 0 { value } else { cx.reshape(value, &[])? });
    }
    Ok(vec![cx.compose("Range", &inputs, &[])?])
}

pub(super) fn pad(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, pads) = (cx.input(0)?, cx.input(1)?);
    let mut inputs = vec![x, if cx.rank(pads)? == 1 { pads } else { cx.reshape(pads, &[-1])? }];
    if let Some(value) = cx.optional_input(2) {
        inputs.push(if cx.rank(value)? == 0 { value } else { cx.reshape(value, &[])? });
    }
    let attributes = cx.own_attributes(&["mode"]);
    cx.compose_with("Pad", &inputs, attributes, 1)
}

pub(super) fn gather_nd(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, indices) = (cx.input(0)?, cx.input(1)?);
    let indices = cx.compose("Cast", &[indices], &TO_I64)?;
    Ok(vec![cx.compose("GatherND", &[x, indices], &[])?])
}

pub(super) fn expand_dims(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, axis) = (cx.input(0)?, cx.input(1)?);
    let axis = cx.compose("Cast", &[axis], &TO_I64)?;
    let axes = cx.reshape(axis, &[1])?;
    Ok(vec![cx.compose("Unsqueeze", &[x, axes], &[])?])
}

/// The sum of 8-bit integers in 32 bits.
pub(super) fn reduce_sum_integer(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let wide = if cx.element_type(x).is_signed_integer() { 6 } else { 12 };
    let x = cx.compose("Cast", &[x], &[("to", Attr::Int(wide))])?;
    let axes = cx.optional_i64s("axes")?.unwrap_or_default();
    let axes = cx.i64s_constant(&axes);
    let keeps = i64::from(cx.bool("keepdims", true)?);
    Ok(vec![cx.compose("ReduceSum", &[x, axes], &[("keepdims", Attr::Int(keeps))])?])
}

/// Distances of every row of `[m, k]` from every row of `[n, k]`.
pub(super) fn cdist(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let (rows, columns, depth) = (cx.i64s_constant(&[1]), cx.i64s_constant(&[0]), cx.i64s_constant(&[2]));
    let a = cx.compose("Unsqueeze", &[a, rows], &[])?;
    let b = cx.compose("Unsqueeze", &[b, columns], &[])?;
    let apart = cx.compose("Sub", &[a, b], &[])?;
    let keepdims = [("keepdims", Attr::Int(0))];
    match cx.str("metric", "sqeuclidean")? {
        "sqeuclidean" => Ok(vec![cx.compose("ReduceSumSquare", &[apart, depth], &keepdims)?]),
        "euclidean" => Ok(vec![cx.compose("ReduceL2", &[apart, depth], &keepdims)?]),
        other => unsupported(format!("the metric {other}")),
    }
}

/// `x` or `y` by a condition, each with its own scale and zero point.
pub(super) fn qlinear_where(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let condition = cx.input(0)?;
    let (x, y) = (super::quantized::dequantized(cx, 1)?, super::quantized::dequantized(cx, 4)?);
    let z = cx.compose("Where", &[condition, x, y], &[])?;
    Ok(vec![super::quantized::quantized(cx, z, 7)?])
}
