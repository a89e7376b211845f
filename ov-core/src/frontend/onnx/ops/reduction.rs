//! Reductions, running sums and products.

use super::{super::{ConvertError, NodeContext}, ConvertResult, OnnxOp, activation::in_f64};
use crate::{
    model::Value,
    op::{
        Op,
        activation::Log,
        reshape::ShapeOf,
        arithmetic::Multiply,
        reduction::{
            AxesOrAll, CumProd, CumSum, ReduceL1, ReduceL2, ReduceLogSumExp, ReduceLogicalAnd, ReduceLogicalOr, ReduceMax,
            ReduceMean, ReduceMin, ReduceProd, ReduceSum,
        },
    },
    tensor::ElementType,
};

/// The axes: an attribute in older opsets, an input in newer ones; `None` when the node changes nothing.
fn axes(cx: &mut NodeContext<'_, '_>, x: Value) -> Result<Option<Value>, ConvertError> {
    let noop = cx.bool("noop_with_empty_axes", false)?;
    if let Some(axes) = cx.optional_i64s("axes")?.filter(|a| !a.is_empty()) {
        return Ok(Some(cx.i64s_constant(&axes)));
    }
    if let Some(axes) = cx.optional_input(1) {
        match cx.shape(axes).to_shape().map(|s| s.elements()) {
            Some(0) => {}
            Some(_) => return Ok(Some(axes)),
            None if noop => return Ok(Some(axes)),
            None => {
                let shape = cx.add(ShapeOf::default(), &[x])?;
                return Ok(Some(cx.add(AxesOrAll {}, &[axes, shape])?));
            }
        }
    }
    if noop {
        return Ok(None);
    }
    let rank = i64::try_from(cx.rank(x)?).unwrap_or(i64::MAX);
    Ok(Some(cx.i64s_constant(&(0..rank).collect::<Vec<_>>())))
}

fn reduce<O: Op>(cx: &mut NodeContext<'_, '_>, op: impl FnOnce(bool) -> O) -> ConvertResult {
    let x = cx.input(0)?;
    let keep_dims = cx.bool("keepdims", true)?;
    Ok(vec![match axes(cx, x)? {
        Some(axes) => cx.add(op(keep_dims), &[x, axes])?,
        None => x,
    }])
}

macro_rules! reductions {
    ($($f:ident = $op:ident;)*) => {$(
        fn $f(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
            reduce(cx, |keep_dims| $op { keep_dims })
        }
    )*};
}

reductions! {
    sum = ReduceSum;
    mean = ReduceMean;
    prod = ReduceProd;
}

fn max(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    if cx.element_type(cx.input(0)?) == ElementType::Boolean {
        return reduce(cx, |keep_dims| ReduceLogicalOr { keep_dims });
    }
    reduce(cx, |keep_dims| ReduceMax { keep_dims })
}

fn min(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    if cx.element_type(cx.input(0)?) == ElementType::Boolean {
        return reduce(cx, |keep_dims| ReduceLogicalAnd { keep_dims });
    }
    reduce(cx, |keep_dims| ReduceMin { keep_dims })
}

/// Reductions that change the elements even over no axes: these are then an empty list.
fn reduce_changed<O: Op>(
    cx: &mut NodeContext<'_, '_>,
    x: Value,
    op: impl FnOnce(bool) -> O,
) -> Result<Value, ConvertError> {
    let keep_dims = cx.bool("keepdims", true)?;
    let axes = match axes(cx, x)? {
        Some(axes) => axes,
        None => cx.i64s_constant(&[]),
    };
    cx.add(op(keep_dims), &[x, axes])
}

fn l1(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![reduce_changed(cx, x, |keep_dims| ReduceL1 { keep_dims })?])
}

fn l2(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![reduce_changed(cx, x, |keep_dims| ReduceL2 { keep_dims })?])
}

fn log_sum_exp(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![reduce_changed(cx, x, |keep_dims| ReduceLogSumExp { keep_dims })?])
}

fn sum_square(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let square = cx.add(Multiply {}, &[x, x])?;
    Ok(vec![reduce_changed(cx, square, |keep_dims| ReduceSum { keep_dims })?])
}

fn log_sum(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let log = in_f64(cx, x, |cx, x| {
        let sum = reduce_changed(cx, x, |keep_dims| ReduceSum { keep_dims })?;
        cx.add(Log {}, &[sum])
    })?;
    Ok(vec![log])
}

fn cum_sum(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, axis) = (cx.input(0)?, cx.input(1)?);
    let op = CumSum { exclusive: cx.bool("exclusive", false)?, reverse: cx.bool("reverse", false)? };
    Ok(vec![cx.add(op, &[x, axis])?])
}

fn cum_prod(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, axis) = (cx.input(0)?, cx.input(1)?);
    let op = CumProd { exclusive: cx.bool("exclusive", false)?, reverse: cx.bool("reverse", false)? };
    Ok(vec![cx.add(op, &[x, axis])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "ReduceSum", 1, sum),
    ("", "ReduceMean", 1, mean),
    ("", "ReduceProd", 1, prod),
    ("", "ReduceMax", 1, max),
    ("", "ReduceMin", 1, min),
    ("", "ReduceL1", 1, l1),
    ("", "ReduceL2", 1, l2),
    ("", "ReduceSumSquare", 1, sum_square),
    ("", "ReduceLogSum", 1, log_sum),
    ("", "ReduceLogSumExp", 1, log_sum_exp),
    ("", "CumSum", 11, cum_sum),
    ("", "CumProd", 26, cum_prod),
];
