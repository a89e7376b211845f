//! Softmax, `LogSoftmax` and Hardmax; before opset 13 every axis from `axis` on counts as one.

use super::{super::{ConvertError, NodeContext}, ConvertResult, OnnxOp};
use crate::{
    model::Value,
    op::{
        activation::{Exp, Log},
        arithmetic::{Divide, Subtract},
        normalize_axis,
        reduction::{ReduceMax, ReduceSum},
        softmax::{Hardmax, LogSoftmax, SoftMax},
    },
    tensor::Dimension,
};

fn softmax(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, axis) = (cx.input(0)?, cx.i64("axis", -1)?);
    Ok(vec![cx.add(SoftMax { axis }, &[x])?])
}

fn log_softmax(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, axis) = (cx.input(0)?, cx.i64("axis", -1)?);
    Ok(vec![cx.add(LogSoftmax { axis }, &[x])?])
}

fn hardmax(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, axis) = (cx.input(0)?, cx.i64("axis", -1)?);
    Ok(vec![cx.add(Hardmax { axis, flatten: false }, &[x])?])
}

/// How the axes from `axis` on count as one.
enum Flattened {
    /// Only this one has an extent other than 1.
    Axis(i64),
    /// Several have; `x - max(x)` and the axes.
    Several { shifted: Value, axes: Value },
}

fn flatten(cx: &mut NodeContext<'_, '_>, x: Value) -> Result<Flattened, ConvertError> {
    let axis = cx.i64("axis", 1)?;
    let rank = cx.rank(x)?;
    let first = if usize::try_from(axis) == Ok(rank) { rank } else { normalize_axis(axis, rank.max(1))? };
    let shape = cx.shape(x);
    let wide: Vec<i64> =
        (first..rank).filter(|a| shape.dim(*a) != Dimension::fixed(1)).map(|a| a as i64).collect();
    match wide[..] {
        [only] => return Ok(Flattened::Axis(only)),
        [] if first < rank => return Ok(Flattened::Axis(first as i64)),
        _ => {}
    }
    let axes = cx.i64s_constant(&(first..rank).map(|a| a as i64).collect::<Vec<_>>());
    let max = cx.add(ReduceMax { keep_dims: true }, &[x, axes])?;
    Ok(Flattened::Several { shifted: cx.add(Subtract {}, &[x, max])?, axes })
}

fn softmax_flattened(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![match flatten(cx, x)? {
        Flattened::Axis(axis) => cx.add(SoftMax { axis }, &[x])?,
        Flattened::Several { shifted, axes } => {
            let exp = cx.add(Exp {}, &[shifted])?;
            let sum = cx.add(ReduceSum { keep_dims: true }, &[exp, axes])?;
            cx.add(Divide::default(), &[exp, sum])?
        }
    }])
}

fn log_softmax_flattened(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![match flatten(cx, x)? {
        Flattened::Axis(axis) => cx.add(LogSoftmax { axis }, &[x])?,
        Flattened::Several { shifted, axes } => {
            let exp = cx.add(Exp {}, &[shifted])?;
            let sum = cx.add(ReduceSum { keep_dims: true }, &[exp, axes])?;
            let log = cx.add(Log {}, &[sum])?;
            cx.add(Subtract {}, &[shifted, log])?
        }
    }])
}

fn hardmax_flattened(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, axis) = (cx.input(0)?, cx.i64("axis", 1)?);
    Ok(vec![cx.add(Hardmax { axis, flatten: true }, &[x])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "Softmax", 1, softmax_flattened),
    ("", "Softmax", 13, softmax),
    ("", "LogSoftmax", 1, log_softmax_flattened),
    ("", "LogSoftmax", 13, log_softmax),
    ("", "Hardmax", 1, hardmax_flattened),
    ("", "Hardmax", 13, hardmax),
];
