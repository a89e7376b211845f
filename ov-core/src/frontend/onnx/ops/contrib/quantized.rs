//! Operators on quantized tensors: dequantize, compute, quantize.

use super::{
    super::super::{Attr, ConvertError, NodeContext},
    channels_first, channels_last, ConvertResult,
};
use crate::{model::Value, op::OpError};

/// Input `index` with scale and zero point in the two inputs after it, as real numbers.
pub(super) fn dequantized(cx: &mut NodeContext<'_, '_>, index: usize) -> Result<Value, ConvertError> {
    let mut inputs = vec![cx.input(index)?, cx.input(index + 1)?];
    inputs.extend(cx.optional_input(index + 2));
    cx.compose("DequantizeLinear", &inputs, &[])
}

/// `y` quantized with the scale in input `index` and the zero point after it.
pub(super) fn quantized(cx: &mut NodeContext<'_, '_>, y: Value, index: usize) -> Result<Value, ConvertError> {
    let mut inputs = vec![y, cx.input(index)?];
    inputs.extend(cx.optional_input(index + 1));
    cx.compose("QuantizeLinear", &inputs, &[])
}

fn binary(cx: &mut NodeContext<'_, '_>, op: &str) -> ConvertResult {
    let (a, b) = (dequantized(cx, 0)?, dequantized(cx, 3)?);
    let y = cx.compose(op, &[a, b], &[])?;
    Ok(vec![quantized(cx, y, 6)?])
}

pub(super) fn add(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    binary(cx, "Add")
}

pub(super) fn multiply(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    binary(cx, "Mul")
}

fn unary(cx: &mut NodeContext<'_, '_>, op: &str, attributes: &[(&str, Attr<'_>)]) -> ConvertResult {
    let x = dequantized(cx, 0)?;
    let y = cx.compose(op, &[x], attributes)?;
    Ok(vec![quantized(cx, y, 3)?])
}

pub(super) fn sigmoid(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    unary(cx, "Sigmoid", &[])
}

pub(super) fn leaky_relu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let alpha = cx.f32("alpha", 0.01)?;
    unary(cx, "LeakyRelu", &[("alpha", Attr::Float(alpha))])
}

/// The older meaning of Softmax, over all axes from one on, is the newer one when that axis is the last.
pub(super) fn softmax(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let axis = cx.i64("axis", -1)?;
    let x = cx.input(0)?;
    if cx.i64("opset", 13)? < 13 && axis != -1 && cx.rank(x)? as i64 != axis + 1 {
        return Err(OpError::Unsupported("QLinearSoftmax over several axes".to_owned()).into());
    }
    unary(cx, "Softmax", &[("axis", Attr::Int(axis))])
}

fn pool(
    cx: &mut NodeContext<'_, '_>,
    op: &str,
    attributes: &[&str],
) -> ConvertResult {
    let mut x = dequantized(cx, 0)?;
    let last = cx.bool("channels_last", false)?;
    let rank = cx.rank(x)? as i64;
    if last {
        x = channels_first(cx, x, rank)?;
    }
    let attributes = cx.own_attributes(attributes);
    let mut y = cx.compose_with(op, &[x], attributes, 1)?[0];
    if last {
        y = channels_last(cx, y, rank)?;
    }
    Ok(vec![quantized(cx, y, 3)?])
}

pub(super) fn global_average_pool(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    pool(cx, "GlobalAveragePool", &[])
}

pub(super) fn average_pool(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let names = ["auto_pad", "kernel_shape", "strides", "pads", "ceil_mode", "count_include_pad"];
    pool(cx, "AveragePool", &names)
}

pub(super) fn concat(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let axis = cx.i64("axis", 1)?;
    let parts = (2..cx.input_count())
        .step_by(3)
        .map(|i| dequantized(cx, i))
        .collect::<Result<Vec<_>, _>>()?;
    let y = cx.compose("Concat", &parts, &[("axis", Attr::Int(axis))])?;
    Ok(vec![quantized(cx, y, 0)?])
}

/// `alpha (A B + C sₐ s_b)`; `C` counts in products of the scales.
pub(super) fn gemm(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let transposed = cx.bool("transB", false)?;
    let a = dequantized(cx, 0)?;
    let channel_axis = if transposed { 0 } else { 1 };
    let b = [cx.input(3)?, cx.input(4)?, cx.input(5)?];
    let b = cx.compose("DequantizeLinear", &b, &[("axis", Attr::Int(channel_axis))])?;
    let alpha = cx.f32("alpha", 1.0)?;
    let mut inputs = vec![a, b];
    if let Some(c) = cx.optional_input(6) {
        let (a_scale, b_scale) = (cx.input(1)?, cx.input(4)?);
        let scale = cx.compose("Mul", &[a_scale, b_scale], &[])?;
        let c = cx.compose("Cast", &[c], &[("to", Attr::Int(1))])?;
        inputs.push(cx.compose("Mul", &[c, scale], &[])?);
    }
    let mut attributes = cx.own_attributes(&["transA", "transB"]);
    attributes.push(Attr::Float(alpha).to_proto("alpha"));
    attributes.push(Attr::Float(alpha).to_proto("beta"));
    let y = cx.compose_with("Gemm", &inputs, attributes, 1)?[0];
    if cx.optional_input(7).is_none() {
        return Ok(vec![y]);
    }
    Ok(vec![quantized(cx, y, 7)?])
}
