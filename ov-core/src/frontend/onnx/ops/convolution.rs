//! Convolutions.

use super::{
    super::{compose::Attr, context::ConvertError, NodeContext},
    ConvertResult, OnnxOp,
};
use crate::{
    model::Value,
    op::{
        OpError,
        concat::Concat,
        convolution::{
            Convolution, ConvolutionBackpropData, GroupConvolution, GroupConvolutionBackpropData,
        },
        deformable::{Col2Im, DeformableConvolution},
        reshape::{Reshape, ShapeOf},
        slice::Slice,
        window::AutoPad,
    },
    tensor::ElementType,
};

/// Window attributes of a node with `n` spatial axes.
pub(super) struct Windows {
    pub(super) strides: Vec<i64>,
    pub(super) dilations: Vec<i64>,
    pub(super) begin: Vec<i64>,
    pub(super) end: Vec<i64>,
    pub(super) auto_pad: AutoPad,
}

pub(super) fn windows(cx: &NodeContext<'_, '_>, n: usize) -> Result<Windows, ConvertError> {
    let list = |name: &'static str, default: i64, len: usize| {
        let v = cx.i64s(name, &[])?;
        if v.is_empty() {
            return Ok(vec![default; len]);
        }
        if v.len() == len {
            return Ok(v);
        }
        Err(ConvertError::from(OpError::Attribute {
            name,
            got: format!("{v:?}"),
            expected: format!("{len} values"),
        }))
    };
    let auto_pad = match cx.str("auto_pad", "NOTSET")? {
        "NOTSET" | "" => AutoPad::Explicit,
        "SAME_UPPER" => AutoPad::SameUpper,
        "SAME_LOWER" => AutoPad::SameLower,
        "VALID" => AutoPad::Valid,
        other => {
            return Err(OpError::Attribute {
                name: "auto_pad",
                got: other.to_owned(),
                expected: "NOTSET, SAME_UPPER, SAME_LOWER or VALID".to_owned(),
            }
            .into());
        }
    };
    let pads = list("pads", 0, 2 * n)?;
    let (begin, end) = if auto_pad == AutoPad::Explicit {
        if pads.iter().any(|p| *p < 0) {
            return Err(OpError::Attribute {
                name: "pads",
                got: format!("{pads:?}"),
                expected: "values from 0 on (a Slice or Pad before the node crops)".to_owned(),
            }
            .into());
        }
        (pads[..n].to_vec(), pads[n..].to_vec())
    } else {
        (vec![0; n], vec![0; n])
    };
    Ok(Windows {
        strides: list("strides", 1, n)?,
        dilations: list("dilations", 1, n)?,
        begin,
        end,
        auto_pad,
    })
}

/// Filters `[a, b, k…]` as `[groups, a / groups, b, k…]`.
fn grouped(cx: &mut NodeContext<'_, '_>, filters: Value, groups: i64) -> Result<Value, ConvertError> {
    if let Some(shape) = cx.shape(filters).to_shape() {
        let first = shape.first().copied().unwrap_or(0) as i64;
        if groups < 1 || first % groups != 0 {
            return Err(OpError::Attribute {
                name: "group",
                got: groups.to_string(),
                expected: format!("a divisor of the filters' first extent {first}"),
            }
            .into());
        }
        let mut target = vec![groups, first / groups];
        target.extend(shape[1..].iter().map(|d| *d as i64));
        if let Some(value) = cx.constant_value(filters) {
            let shape: Vec<usize> = target.iter().map(|d| *d as usize).collect();
            return Ok(cx.constant(value.reshape(shape)?));
        }
        return cx.reshape(filters, &target);
    }
    let shape = cx.add(ShapeOf { output_type: ElementType::I64 }, &[filters])?;
    let (one, end) = (cx.i64s_constant(&[1]), cx.i64s_constant(&[i64::from(i32::MAX)]));
    let rest = cx.add(Slice {}, &[shape, one, end, one])?;
    let head = cx.i64s_constant(&[groups, -1]);
    let target = cx.add(Concat { axis: 0 }, &[head, rest])?;
    cx.add(Reshape { special_zero: false, ..Reshape::default() }, &[filters, target])
}

fn spatial_axes(cx: &NodeContext<'_, '_>, data: Value, filters: Value) -> Result<usize, ConvertError> {
    let rank = cx.shape(filters).rank().map_or_else(|| cx.rank(data), Ok)?;
    let n = rank.checked_sub(2).filter(|n| *n > 0).ok_or_else(|| {
        ConvertError::from(OpError::Invalid(format!("filters have rank {rank}, expected 3 or more")))
    })?;
    if let Some(kernel) = cx.optional_i64s("kernel_shape")?.filter(|k| !k.is_empty()) {
        let shape = cx.shape(filters);
        let same = kernel.len() == n
            && kernel.iter().enumerate().all(|(i, k)| {
                *k > 0 && shape.dim(i + 2).value().is_none_or(|d| i64::try_from(d) == Ok(*k))
            });
        if !same {
            return Err(OpError::Attribute {
                name: "kernel_shape",
                got: format!("{kernel:?}"),
                expected: format!("the last {n} extents of the filters {shape}"),
            }
            .into());
        }
    }
    Ok(n)
}

/// `value + bias[1, -1, 1…]`.
fn add_bias(cx: &mut NodeContext<'_, '_>, value: Value, bias: Option<Value>, n: usize) -> ConvertResult {
    let Some(bias) = bias else { return Ok(vec![value]) };
    let channels = cx.shape(value).dim(1).value();
    if let Some((len, channels)) = cx.shape(bias).to_shape().map(|s| s.elements()).zip(channels).filter(|(a, b)| a != b) {
        return Err(OpError::Invalid(format!("the bias has {len} values, expected one for each of {channels} output channels")).into());
    }
    let mut shape = vec![1i64; n + 2];
    shape[1] = -1;
    let bias = match cx.constant_value(bias) {
        Some(b) => {
            let mut shape = vec![1usize; n + 2];
            shape[1] = b.len();
            let b = b.reshape(shape)?;
            cx.constant(b)
        }
        None => cx.reshape(bias, &shape)?,
    };
    Ok(vec![cx.compose("Add", &[value, bias], &[])?])
}

fn convolve(cx: &mut NodeContext<'_, '_>, data: Value, filters: Value) -> Result<Value, ConvertError> {
    let n = spatial_axes(cx, data, filters)?;
    let Windows { strides, dilations, begin: pads_begin, end: pads_end, auto_pad } = windows(cx, n)?;
    let groups = cx.i64("group", 1)?;
    if groups == 1 {
        let op = Convolution { strides, dilations, pads_begin, pads_end, auto_pad };
        return cx.add(op, &[data, filters]);
    }
    let filters = grouped(cx, filters, groups)?;
    cx.add(GroupConvolution { strides, dilations, pads_begin, pads_end, auto_pad }, &[data, filters])
}

fn conv(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, w, bias) = (cx.input(0)?, cx.input(1)?, cx.optional_input(2));
    let n = spatial_axes(cx, x, w)?;
    let y = convolve(cx, x, w)?;
    add_bias(cx, y, bias, n)
}

fn conv_transpose(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, w, bias) = (cx.input(0)?, cx.input(1)?, cx.optional_input(2));
    let n = spatial_axes(cx, x, w)?;
    let Windows { strides, dilations, mut begin, mut end, mut auto_pad } = windows(cx, n)?;
    let mut output_padding = cx.i64s("output_padding", &[])?;
    if output_padding.is_empty() {
        output_padding = vec![0; n];
    }
    if output_padding.len() != n {
        return Err(OpError::Attribute {
            name: "output_padding",
            got: format!("{output_padding:?}"),
            expected: format!("{n} values"),
        }
        .into());
    }
    let wanted = cx.i64s("output_shape", &[])?;
    let wanted = wanted.len().checked_sub(n).filter(|_| !wanted.is_empty()).map(|skip| wanted[skip..].to_vec());
    let mut inputs = vec![x, w];
    if auto_pad == AutoPad::Valid {
        auto_pad = AutoPad::Explicit;
    }
    let (data, filters) = (cx.shape(x), cx.shape(w));
    for i in 0..n {
        if auto_pad == AutoPad::Explicit && wanted.is_none() {
            break;
        }
        let (stride, dilation) = (strides[i], dilations[i]);
        let kernel = filters.dim(i + 2).value().and_then(|k| i64::try_from(k).ok());
        let extent = data.dim(i + 2).value().and_then(|d| i64::try_from(d).ok());
        let span = kernel.and_then(|k| (k - 1).checked_mul(dilation)?.checked_add(1 + output_padding[i]));
        let total = match &wanted {
            Some(wanted) => extent.zip(span).and_then(|(extent, span)| {
                (extent - 1).checked_mul(stride)?.checked_add(span)?.checked_sub(wanted[i])
            }),
            None => span.and_then(|span| span.checked_sub(stride)),
        };
        let Some(total) = total else {
            let Some(wanted) = &wanted else {
                return Err(OpError::Unsupported("auto_pad with filters of unknown extent".to_owned()).into());
            };
            inputs.push(cx.i64s_constant(wanted));
            break;
        };
        let small = total.div_euclid(2);
        (begin[i], end[i]) =
            if auto_pad == AutoPad::SameUpper { (small, total - small) } else { (total - small, small) };
    }
    let auto_pad = if inputs.len() > 2 {
        if auto_pad == AutoPad::SameUpper { AutoPad::SameUpper } else { AutoPad::SameLower }
    } else {
        AutoPad::Explicit
    };
    let groups = cx.i64("group", 1)?;
    let (pads_begin, pads_end) = (begin, end);
    let y = if groups == 1 {
        let op = ConvolutionBackpropData { strides, dilations, pads_begin, pads_end, auto_pad, output_padding };
        cx.add(op, &inputs)?
    } else {
        inputs[1] = grouped(cx, w, groups)?;
        let op =
            GroupConvolutionBackpropData { strides, dilations, pads_begin, pads_end, auto_pad, output_padding };
        cx.add(op, &inputs)?
    };
    add_bias(cx, y, bias, n)
}

const INT32: i64 = 6;
const FLOAT: i64 = 1;

/// `value − zero point` as `i32`; the zero point of filters is per output channel.
fn centred(
    cx: &mut NodeContext<'_, '_>,
    value: Value,
    zero: Option<Value>,
    rank: usize,
) -> Result<Value, ConvertError> {
    let value = cx.compose("Cast", &[value], &[("to", Attr::Int(INT32))])?;
    let Some(zero) = zero else { return Ok(value) };
    let zero = cx.compose("Cast", &[zero], &[("to", Attr::Int(INT32))])?;
    let zero = per_channel(cx, zero, rank, 0)?;
    cx.compose("Sub", &[value, zero], &[])
}

/// A vector with one value per channel shaped so that it broadcasts along `axis`; scalars stay.
fn per_channel(
    cx: &mut NodeContext<'_, '_>,
    value: Value,
    rank: usize,
    axis: usize,
) -> Result<Value, ConvertError> {
    if cx.shape(value).rank() == Some(0) {
        return Ok(value);
    }
    let mut shape = vec![1; rank];
    shape[axis] = -1;
    cx.reshape(value, &shape)
}

fn conv_integer(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let rank = spatial_axes(cx, x, w)? + 2;
    let (x_zero, w_zero) = (cx.optional_input(2), cx.optional_input(3));
    let x = centred(cx, x, x_zero, rank)?;
    let w = centred(cx, w, w_zero, rank)?;
    Ok(vec![convolve(cx, x, w)?])
}

fn qlinear_conv(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, x_scale, x_zero) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (w, w_scale, w_zero) = (cx.input(3)?, cx.input(4)?, cx.input(5)?);
    let (y_scale, y_zero, bias) = (cx.input(6)?, cx.input(7)?, cx.optional_input(8));
    let rank = spatial_axes(cx, x, w)? + 2;
    let x = centred(cx, x, Some(x_zero), rank)?;
    let w = centred(cx, w, Some(w_zero), rank)?;
    let y = convolve(cx, x, w)?;
    let y = add_bias(cx, y, bias, rank - 2)?[0];
    let y = cx.compose("Cast", &[y], &[("to", Attr::Int(FLOAT))])?;
    let w_scale = per_channel(cx, w_scale, rank, 1)?;
    let scale = cx.compose("Mul", &[x_scale, w_scale], &[])?;
    let y = cx.compose("Mul", &[y, scale], &[])?;
    Ok(vec![cx.compose("QuantizeLinear", &[y, y_scale, y_zero], &[])?])
}

fn deform_conv(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, w, offsets) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (bias, weights) = (cx.optional_input(3), cx.optional_input(4));
    let n = spatial_axes(cx, x, w)?;
    let Windows { strides, dilations, begin: pads_begin, end: pads_end, auto_pad } = windows(cx, n)?;
    let op = DeformableConvolution {
        strides,
        pads_begin,
        pads_end,
        dilations,
        auto_pad,
        group: cx.i64("group", 1)?,
        deformable_group: cx.i64("offset_group", 1)?,
        bilinear_interpolation_pad: true,
    };
    let mut inputs = vec![x, offsets, w];
    inputs.extend(weights);
    let y = cx.add(op, &inputs)?;
    add_bias(cx, y, bias, n)
}

fn col2im(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, image, kernel) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let n = cx.shape(kernel).dim(0).value().filter(|n| *n <= 8).ok_or_else(|| {
        OpError::Unsupported("Col2Im with an unknown number of spatial axes".to_owned())
    })?;
    let Windows { strides, dilations, begin: pads_begin, end: pads_end, .. } = windows(cx, n)?;
    Ok(vec![cx.add(Col2Im { strides, dilations, pads_begin, pads_end }, &[x, image, kernel])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "Conv", 1, conv),
    ("", "ConvTranspose", 1, conv_transpose),
    ("", "ConvInteger", 10, conv_integer),
    ("", "QLinearConv", 10, qlinear_conv),
    ("", "DeformConv", 19, deform_conv),
    ("", "Col2Im", 18, col2im),
];
