//! Pooling.

use super::{
    super::{compose::Attr, context::ConvertError, NodeContext},
    ConvertResult, OnnxOp,
    convolution::{Windows, windows},
};
use crate::{
    model::Value,
    op::{
        OpError,
        pooling::{AvgPool, LpPool, MaxPool},
        window::Rounding,
    },
    tensor::ElementType,
};

fn kernel(cx: &NodeContext<'_, '_>) -> Result<Vec<i64>, ConvertError> {
    let kernel = cx.i64s("kernel_shape", &[])?;
    if kernel.is_empty() {
        return Err(OpError::Attribute {
            name: "kernel_shape",
            got: "missing".to_owned(),
            expected: "one extent per spatial axis".to_owned(),
        }
        .into());
    }
    Ok(kernel)
}

/// The windows of a pool: padding is narrower than the kernel, or some windows would hold no elements.
fn pool_windows(cx: &NodeContext<'_, '_>, kernel: &[i64]) -> Result<Windows, ConvertError> {
    let windows = windows(cx, kernel.len())?;
    for (i, k) in kernel.iter().enumerate() {
        let span = (k - 1).saturating_mul(windows.dilations[i]).saturating_add(1);
        let widest = windows.begin[i].max(windows.end[i]);
        if widest > 0 && widest >= span {
            return Err(OpError::Attribute {
                name: "pads",
                got: format!("{widest} on axis {i}"),
                expected: format!("less than the {span} elements that the kernel spans"),
            }
            .into());
        }
    }
    Ok(windows)
}

fn rounding(cx: &NodeContext<'_, '_>) -> Result<Rounding, ConvertError> {
    Ok(if cx.bool("ceil_mode", false)? { Rounding::CeilTorch } else { Rounding::Floor })
}

fn max_pool(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, kernel) = (cx.input(0)?, kernel(cx)?);
    let Windows { strides, dilations, begin, end, auto_pad } = pool_windows(cx, &kernel)?;
    let op = MaxPool {
        strides,
        dilations,
        pads_begin: begin,
        pads_end: end,
        kernel,
        rounding_type: rounding(cx)?,
        auto_pad,
        index_element_type: ElementType::I64,
        axis: 0,
    };
    let mut outputs = cx.add_multi(op, &[x])?;
    if cx.wants_output(1) && cx.i64("storage_order", 0)? == 1 {
        outputs[1] = column_major(cx, x, outputs[1])?;
    }
    Ok(outputs)
}

/// Indices that count planes of `x` column by column instead of row by row.
fn column_major(cx: &mut NodeContext<'_, '_>, x: Value, indices: Value) -> Result<Value, ConvertError> {
    let Some([_, _, h, w]) = cx.shape(x).to_shape().and_then(|s| <[usize; 4]>::try_from(&s[..]).ok()) else {
        return Err(OpError::Unsupported("storage_order 1 for shapes other than [n, c, h, w]".to_owned()).into());
    };
    let scalar = |cx: &mut NodeContext<'_, '_>, v: usize| cx.constant(crate::Tensor::scalar(v as i64));
    let (plane, width, height) = (scalar(cx, h * w), scalar(cx, w), scalar(cx, h));
    let place = cx.compose("Mod", &[indices, plane], &[])?;
    let start = cx.compose("Sub", &[indices, place], &[])?;
    let row = cx.compose("Div", &[place, width], &[])?;
    let column = cx.compose("Mod", &[place, width], &[])?;
    let column = cx.compose("Mul", &[column, height], &[])?;
    let place = cx.compose("Add", &[column, row], &[])?;
    cx.compose("Add", &[start, place], &[])
}

fn average_pool(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, kernel) = (cx.input(0)?, kernel(cx)?);
    let Windows { strides, dilations, begin, end, auto_pad } = pool_windows(cx, &kernel)?;
    let op = AvgPool {
        strides,
        dilations,
        pads_begin: begin,
        pads_end: end,
        kernel,
        rounding_type: rounding(cx)?,
        auto_pad,
        exclude_pad: !cx.bool("count_include_pad", false)?,
    };
    Ok(vec![cx.add(op, &[x])?])
}

fn lp_pool(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, kernel) = (cx.input(0)?, kernel(cx)?);
    let Windows { strides, dilations, begin, end, auto_pad } = pool_windows(cx, &kernel)?;
    let op = LpPool {
        strides,
        dilations,
        pads_begin: begin,
        pads_end: end,
        kernel,
        rounding_type: rounding(cx)?,
        auto_pad,
        p: cx.i64("p", 2)?,
    };
    Ok(vec![cx.add(op, &[x])?])
}

/// Every axis after the first two.
fn spatial(cx: &mut NodeContext<'_, '_>, x: Value) -> Result<Value, ConvertError> {
    let rank = cx.rank(x)?;
    let axes: Vec<i64> = (2..rank as i64).collect();
    Ok(cx.i64s_constant(&axes))
}

fn reduce(cx: &mut NodeContext<'_, '_>, op: &str) -> ConvertResult {
    let x = cx.input(0)?;
    if cx.rank(x)? <= 2 {
        return Ok(vec![x]);
    }
    let axes = spatial(cx, x)?;
    Ok(vec![cx.compose(op, &[x, axes], &[("keepdims", Attr::Int(1))])?])
}

fn global_average_pool(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    reduce(cx, "ReduceMean")
}

fn global_max_pool(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    reduce(cx, "ReduceMax")
}

fn global_lp_pool(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let p = cx.i64("p", 2)?;
    match p {
        1 => return reduce(cx, "ReduceL1"),
        2 => return reduce(cx, "ReduceL2"),
        _ => {}
    }
    let x = cx.input(0)?;
    let axes = spatial(cx, x)?;
    let magnitude = cx.compose("Abs", &[x], &[])?;
    let (power, root) = (cx.scalar_like(p as f64, x)?, cx.scalar_like(1.0 / p as f64, x)?);
    let powers = cx.compose("Pow", &[magnitude, power], &[])?;
    let sum = cx.compose("ReduceSum", &[powers, axes], &[("keepdims", Attr::Int(1))])?;
    Ok(vec![cx.compose("Pow", &[sum, root], &[])?])
}

fn max_unpool(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, indices, wanted) = (cx.input(0)?, cx.input(1)?, cx.optional_input(2));
    let kernel = kernel(cx)?;
    let Windows { strides, begin, end, .. } = windows(cx, kernel.len())?;
    let unknown = || ConvertError::from(OpError::Unsupported("MaxUnpool of a dynamic shape".to_owned()));
    let shape = cx.shape(x).to_shape().filter(|s| s.rank() == kernel.len() + 2).ok_or_else(unknown)?;
    let mut plain: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
    for i in 0..kernel.len() {
        let extent = (plain[i + 2] - 1).checked_mul(strides[i]).and_then(|v| v.checked_add(kernel[i]));
        plain[i + 2] = extent.map(|v| v - begin[i] - end[i]).ok_or_else(unknown)?;
    }
    let plain = cx.i64s_constant(&plain);
    let zero = cx.scalar_like(0.0, x)?;
    let flat_x = cx.reshape(x, &[-1])?;
    let flat_indices = cx.reshape(indices, &[-1])?;
    let zeros = cx.compose("Expand", &[zero, plain], &[])?;
    let flat = cx.reshape(zeros, &[-1])?;
    let flat = cx.compose("ScatterElements", &[flat, flat_indices, flat_x], &[])?;
    let out = cx.compose("Reshape", &[flat, plain], &[])?;
    let Some(wanted) = wanted else { return Ok(vec![out]) };
    let after = cx.compose("Sub", &[wanted, plain], &[])?;
    let before = cx.i64s_constant(&vec![0; kernel.len() + 2]);
    let pads = cx.compose("Concat", &[before, after], &[("axis", Attr::Int(0))])?;
    Ok(vec![cx.compose("Pad", &[out, pads, zero], &[])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "MaxPool", 1, max_pool),
    ("", "AveragePool", 1, average_pool),
    ("", "LpPool", 2, lp_pool),
    ("", "GlobalAveragePool", 1, global_average_pool),
    ("", "GlobalMaxPool", 1, global_max_pool),
    ("", "GlobalLpPool", 2, global_lp_pool),
    ("", "MaxUnpool", 9, max_unpool),
];
