//! Operators of `com.microsoft` in a few steps each: products, complex numbers, transforms, windows, dropout.

use super::{
    super::super::{Attr, ConvertError, NodeContext},
    ConvertResult, WINDOW, activate, add_inputs, channels_first, channels_last, matmul, quantized,
};
use crate::{
    model::Value,
    op::{
        OpError,
        matmul::Inverse,
        text::{BifurcationDetector, MurmurHash3, NGramRepeatBlock, Tokenizer},
        vision::{CropAndResize, CropMode},
    },
    tensor::Tensor,
};

const TO_I32: [(&str, Attr<'static>); 1] = [("to", Attr::Int(6))];

fn unsupported<T>(what: String) -> Result<T, ConvertError> {
    Err(OpError::Unsupported(what).into())
}

pub(super) fn inverse(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![cx.add(Inverse::default(), &[x])?])
}

pub(super) fn murmur_hash(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let op = MurmurHash3 { seed: cx.i64("seed", 0)?, positive: cx.bool("positive", true)? };
    Ok(vec![cx.add(op, &[x])?])
}

pub(super) fn crop_and_resize(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.input(3)?];
    let mode = match cx.str("mode", "bilinear")? {
        "bilinear" => CropMode::Bilinear,
        "nearest" => CropMode::Nearest,
        other => {
            return Err(OpError::Attribute {
                name: "mode",
                got: other.to_owned(),
                expected: "bilinear or nearest".to_owned(),
            }
            .into());
        }
    };
    let extrapolation_value = f64::from(cx.f32("extrapolation_value", 0.0)?);
    Ok(vec![cx.add(CropAndResize { mode, extrapolation_value }, &inputs)?])
}

pub(super) fn ngram_repeat_block(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?];
    let op = NGramRepeatBlock { ngram_size: cx.i64("ngram_size", 0)? };
    Ok(vec![cx.add(op, &inputs)?])
}

pub(super) fn bifurcation_detector(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut inputs = vec![cx.input(0)?, cx.input(1)?, cx.input(2)?];
    inputs.extend(cx.optional_input(3));
    let op = BifurcationDetector {
        min_ngram_size: cx.i64("min_ngram_size", 1)?,
        max_ngram_size: cx.i64("max_ngram_size", 3)?,
    };
    cx.add_multi(op, &inputs)
}

pub(super) fn fused_matmul_activation(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let y = matmul::fused_matmul(cx)?[0];
    let name = cx.str("activation", "")?.to_owned();
    let (alpha, beta) =
        (cx.optional_f32("activation_alpha")?, cx.optional_f32("activation_beta")?);
    Ok(vec![activate(cx, &name, y, alpha, beta)?])
}

/// Integers as `i32`, without their zero point.
fn centred(
    cx: &mut NodeContext<'_, '_>,
    index: usize,
    zero: Option<usize>,
) -> Result<Value, ConvertError> {
    let value = cx.input(index)?;
    let value = cx.compose("Cast", &[value], &TO_I32)?;
    let Some(zero) = zero.and_then(|zero| cx.optional_input(zero)) else { return Ok(value) };
    let zero = cx.compose("Cast", &[zero], &TO_I32)?;
    cx.compose("Sub", &[value, zero], &[])
}

pub(super) fn mul_integer(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (a, b) = (centred(cx, 0, Some(1))?, centred(cx, 2, Some(3))?);
    Ok(vec![cx.compose("Mul", &[a, b], &[])?])
}

pub(super) fn matmul_integer_16(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (a, b) = (centred(cx, 0, None)?, centred(cx, 1, None)?);
    Ok(vec![cx.compose("MatMul", &[a, b], &[])?])
}

pub(super) fn quantized_mean(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = quantized::dequantized(cx, 0)?;
    let mut inputs = vec![x];
    if let Some(axes) = cx.optional_i64s("axes")?.filter(|a| !a.is_empty()) {
        inputs.push(cx.i64s_constant(&axes));
    }
    let keeps = i64::from(cx.bool("keepdims", true)?);
    let y = cx.compose("ReduceMean", &inputs, &[("keepdims", Attr::Int(keeps))])?;
    Ok(vec![quantized::quantized(cx, y, 3)?])
}

/// Softmax over all axes from one on, of scores and a bias that broadcasts.
pub(super) fn bias_softmax(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?];
    let rank = cx.rank(inputs[0])?;
    let sum = cx.compose("Add", &inputs, &[])?;
    let axis = crate::op::normalize_axis(cx.i64("axis", 1)?, rank)?;
    if axis + 1 == rank {
        return Ok(vec![cx.compose("Softmax", &[sum], &[("axis", Attr::Int(-1))])?]);
    }
    let shape = cx.compose("Shape", &[sum], &[])?;
    let flat = cx.compose("Flatten", &[sum], &[("axis", Attr::Int(axis as i64))])?;
    let y = cx.compose("Softmax", &[flat], &[("axis", Attr::Int(-1))])?;
    Ok(vec![cx.compose("Reshape", &[y, shape], &[])?])
}

/// Outside of training nothing is dropped.
pub(super) fn bias_dropout(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let y = add_inputs(cx, x, &[1, 2])?;
    let _ratio = cx.optional_input(3);
    if let Some(training) = cx.optional_input(4) {
        let off = cx.constant_value(training).is_some_and(|t| t.element_as_i64(0) == Some(0));
        if !off {
            return unsupported("dropout while training".to_owned());
        }
    }
    let kept = cx.compose("Equal", &[y, y], &[])?;
    let one = cx.compose("Not", &[kept], &[])?;
    let mask = cx.compose("Or", &[kept, one], &[])?;
    Ok(vec![y, mask])
}

/// `[q cos + q_rot sin, k cos + k_rot sin]` of angles `[batch, length, width]`.
pub(super) fn gemma_rotary(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let angles = cx.input(0)?;
    let axis = cx.i64s_constant(&[1]);
    let mut factors = Vec::new();
    for op in ["Cos", "Sin"] {
        let factor = cx.compose(op, &[angles], &[])?;
        let like = cx.input(1)?;
        let factor = cx.compose("CastLike", &[factor, like], &[])?;
        factors.push(cx.compose("Unsqueeze", &[factor, axis], &[])?);
    }
    let mut turned = Vec::new();
    for index in [1, 3] {
        let (x, rotated) = (cx.input(index)?, cx.input(index + 1)?);
        let x = cx.compose("Mul", &[x, factors[0]], &[])?;
        let rotated = cx.compose("Mul", &[rotated, factors[1]], &[])?;
        turned.push(cx.compose("Add", &[x, rotated], &[])?);
    }
    Ok(turned)
}

/// Real and imaginary parts, which alternate on the last axis.
fn parts(cx: &mut NodeContext<'_, '_>, value: Value) -> ConvertResult {
    let attributes = [("axis", Attr::Int(-1)), ("num_outputs", Attr::Int(2))];
    cx.compose_multi("Split", &[value], &attributes, 2)
}

/// The product of complex numbers, the second conjugated if `conjugates`: `[…, 2]` each.
fn complex_product(cx: &mut NodeContext<'_, '_>, conjugates: bool) -> ConvertResult {
    let (x, y) = (cx.input(0)?, cx.input(1)?);
    let (a, b) = (parts(cx, x)?, parts(cx, y)?);
    let mut product = |i: usize, j: usize| cx.compose("Mul", &[a[i], b[j]], &[]);
    let [rr, ii, ri, ir] = [product(0, 0)?, product(1, 1)?, product(0, 1)?, product(1, 0)?];
    let (first, second) = if conjugates { ("Add", "Sub") } else { ("Sub", "Add") };
    let real = cx.compose(first, &[rr, ii], &[])?;
    let imaginary = cx.compose(second, &[ir, ri], &[])?;
    Ok(vec![cx.compose("Concat", &[real, imaginary], &[("axis", Attr::Int(-1))])?])
}

pub(super) fn complex_mul(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    complex_product(cx, false)
}

pub(super) fn complex_mul_conj(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    complex_product(cx, true)
}

pub(super) fn is_all_finite(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (nan_only, inf_only) = (cx.bool("isnan_only", false)?, cx.bool("isinf_only", false)?);
    let mut all = None;
    for index in 0..cx.input_count() {
        let x = cx.input(index)?;
        let x = cx.compose("Cast", &[x], &[("to", Attr::Int(1))])?;
        let bad = match (nan_only, inf_only) {
            (true, _) => cx.compose("IsNaN", &[x], &[])?,
            (_, true) => cx.compose("IsInf", &[x], &[])?,
            _ => {
                let (nan, inf) = (cx.compose("IsNaN", &[x], &[])?, cx.compose("IsInf", &[x], &[])?);
                cx.compose("Or", &[nan, inf], &[])?
            }
        };
        let bad = cx.reshape(bad, &[-1])?;
        all = Some(match all {
            None => bad,
            Some(before) => cx.compose("Concat", &[before, bad], &[("axis", Attr::Int(0))])?,
        });
    }
    let all = match all {
        Some(all) => all,
        None => cx.input(0)?,
    };
    let counted = cx.compose("Cast", &[all], &[("to", Attr::Int(7))])?;
    let sum = cx.compose("ReduceSum", &[counted], &[("keepdims", Attr::Int(0))])?;
    let zero = cx.constant(Tensor::scalar(0i64));
    Ok(vec![cx.compose("Equal", &[sum, zero], &[])?])
}

/// Rows of a table by index; what training wants to know does not matter.
pub(super) fn torch_embedding(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?];
    let _training_only = (cx.optional_input(2), cx.optional_input(3));
    Ok(vec![cx.compose("Gather", &inputs, &[("axis", Attr::Int(0))])?])
}

pub(super) fn sample_op(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![cx.compose("Identity", &[x], &[])?])
}

/// Every slice of `size` elements along an axis, `step` apart, its elements on a new last axis.
pub(super) fn unfold(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let rank = cx.rank(x)?;
    let axis = crate::op::normalize_axis(cx.i64("dim", -1)?, rank)?;
    let (size, step) = (cx.i64("size", 0)?, cx.i64("step", 1)?);
    let known = cx.shape(x).dim(axis).value().and_then(|d| i64::try_from(d).ok());
    if size < 1 || step < 1 || known.is_some_and(|extent| size > extent) {
        let extent = cx.shape(x).dim(axis);
        return Err(OpError::Invalid(format!(
            "slices of {size} elements, {step} apart, of an axis of {extent}: expected both from 1, and no longer slices"
        ))
        .into());
    }
    // starts * step for every slice, and 0 to size - 1 in it: ranges, so that running decides about memory.
    let scalar = |cx: &mut NodeContext<'_, '_>, v: i64| cx.constant(Tensor::scalar(v));
    let (zero, one) = (scalar(cx, 0), scalar(cx, 1));
    let (size, step) = (scalar(cx, size), scalar(cx, step));
    let shape = cx.compose("Shape", &[x], &[])?;
    let place = scalar(cx, axis as i64);
    let extent = cx.compose("Gather", &[shape, place], &[])?;
    let room = cx.compose("Sub", &[extent, size], &[])?;
    let end = cx.compose("Add", &[room, one], &[])?;
    let starts = cx.compose("Range", &[zero, end, step], &[])?;
    let within = cx.compose("Range", &[zero, size, one], &[])?;
    let column = cx.i64s_constant(&[1]);
    let starts = cx.compose("Unsqueeze", &[starts, column], &[])?;
    let places = cx.compose("Add", &[starts, within], &[])?;
    let y = cx.compose("Gather", &[x, places], &[("axis", Attr::Int(axis as i64))])?;
    // [..., starts, size, ...]: the size goes last.
    let mut order: Vec<i64> = (0..=rank as i64).collect();
    let moved = order.remove(axis + 1);
    order.push(moved);
    Ok(vec![cx.transpose(y, &order)?])
}

fn one_signal_axis(cx: &NodeContext<'_, '_>) -> Result<(), ConvertError> {
    let (axes, onesided) = (cx.i64("signal_ndim", 1)?, cx.bool("onesided", true)?);
    if axes != 1 || !onesided || cx.bool("normalized", false)? {
        return unsupported(format!(
            "a transform of {axes} axes, onesided {onesided}: expected one axis, onesided, not normalized"
        ));
    }
    Ok(())
}

/// `[…, n]` to `[…, n/2 + 1, 2]`.
pub(super) fn rfft(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    one_signal_axis(cx)?;
    let x = cx.input(0)?;
    let (last, axis) = (cx.i64s_constant(&[-1]), cx.constant(Tensor::scalar(-2i64)));
    let x = cx.compose("Unsqueeze", &[x, last], &[])?;
    let none = cx.constant(Tensor::absent());
    Ok(vec![cx.compose("DFT", &[x, none, axis], &[("onesided", Attr::Int(1))])?])
}

/// `[…, n/2 + 1, 2]` to `[…, n]`, divided by `n`: the other half are the conjugates in reverse.
pub(super) fn irfft(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    one_signal_axis(cx)?;
    let x = cx.input(0)?;
    let slice = [[-2i64], [0], [-2], [-1]].map(|v| cx.i64s_constant(&v));
    let half = cx.compose("Slice", &[x, slice[0], slice[1], slice[2], slice[3]], &[])?;
    let signs = Tensor::from_vec([2], vec![1.0f32, -1.0])?.cast(cx.element_type(x))?;
    let signs = cx.constant(signs);
    let conjugates = cx.compose("Mul", &[half, signs], &[])?;
    let whole = cx.compose("Concat", &[x, conjugates], &[("axis", Attr::Int(-2))])?;
    let (none, axis) = (cx.constant(Tensor::absent()), cx.constant(Tensor::scalar(-2i64)));
    let y = cx.compose("DFT", &[whole, none, axis], &[("inverse", Attr::Int(1))])?;
    let real = cx.constant(Tensor::scalar(0i64));
    Ok(vec![cx.compose("Gather", &[y, real], &[("axis", Attr::Int(-1))])?])
}

/// A transposed convolution whose padding is an input: it is cut off the unpadded result.
pub(super) fn conv_transpose_dynamic_pads(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut inputs = vec![cx.input(0)?, cx.input(1)?];
    let (pads, bias) = (cx.optional_input(2), cx.optional_input(3));
    inputs.extend(bias);
    let names = ["auto_pad", "kernel_shape", "strides", "dilations", "group", "output_padding"];
    let mut attributes = cx.own_attributes(&names);
    let axes = cx.rank(inputs[0])?.saturating_sub(2);
    let Some(pads) = pads else {
        return cx.compose_with("ConvTranspose", &inputs, attributes, 1);
    };
    if let Some(pads) = cx.constant_value(pads) {
        attributes.push(Attr::Ints(&pads.to_i64_vec()?).to_proto("pads"));
        return cx.compose_with("ConvTranspose", &inputs, attributes, 1);
    }
    let y = cx.compose_with("ConvTranspose", &inputs, attributes, 1)?[0];
    let halves = [("axis", Attr::Int(0)), ("num_outputs", Attr::Int(2))];
    let halves = cx.compose_multi("Split", &[pads], &halves, 2)?;
    let shape = cx.compose("Shape", &[y], &[("start", Attr::Int(2))])?;
    let ends = cx.compose("Sub", &[shape, halves[1]], &[])?;
    let axes = cx.i64s_constant(&(2..axes as i64 + 2).collect::<Vec<_>>());
    Ok(vec![cx.compose("Slice", &[y, halves[0], ends, axes], &[])?])
}

/// A convolution over images channels-last, of filters `[filters, channels, …]`, with a residual and an activation.
pub(super) fn nhwc_fused_conv(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.rank(x)? as i64;
    let mut inputs = vec![channels_first(cx, x, rank)?, weights];
    inputs.extend(cx.optional_input(2));
    let attributes = cx.own_attributes(WINDOW);
    let y = cx.compose_with("Conv", &inputs, attributes, 1)?[0];
    let y = channels_last(cx, y, rank)?;
    let y = add_inputs(cx, y, &[3])?;
    let parameters = cx.optional_f32s("activation_params")?.unwrap_or_default();
    let name = cx.str("activation", "")?.to_owned();
    let (alpha, beta) = (parameters.first().copied(), parameters.get(1).copied());
    Ok(vec![activate(cx, &name, y, alpha, beta)?])
}

pub(super) fn tokenizer(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let op = Tokenizer::new(
        cx.optional_strs("separators")?.unwrap_or_default(),
        cx.str("tokenexp", "")?.to_owned(),
        cx.i64("mincharnum", 1)?,
        cx.bool("mark", false)?,
        cx.str("pad_value", "")?.to_owned(),
    );
    Ok(vec![cx.add(op, &[x])?])
}
