//! The largest and smallest elements.

use super::{
    super::NodeContext,
    ConvertResult, OnnxOp,
};
use crate::{
    op::{
        gather::Gather,
        normalize_axis,
        reshape::{ShapeOf, Squeeze},
        topk::{TopK, TopKMode, TopKSort},
        transpose::{Reverse, ReverseMode},
    },
    tensor::{ElementType, Tensor},
};

fn top(axis: i64, mode: TopKMode, sort: TopKSort) -> TopK {
    TopK { axis, mode, sort, index_element_type: ElementType::I64, stable: true }
}

fn topk(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, axis) = (cx.input(0)?, cx.i64("axis", -1)?);
    let mode = if cx.bool("largest", true)? { TopKMode::Max } else { TopKMode::Min };
    let sort = if cx.bool("sorted", true)? { TopKSort::Value } else { TopKSort::None };
    let k = match cx.optional_input(1) {
        Some(k) => {
            let scalar = cx.i64s_constant(&[]);
            cx.compose("Reshape", &[k, scalar], &[])?
        }
        None => {
            let k = cx.i64("k", 0)?;
            cx.constant(Tensor::scalar(k))
        }
    };
    cx.add_multi(top(axis, mode, sort), &[x, k])
}

fn arg(cx: &mut NodeContext<'_, '_>, mode: TopKMode) -> ConvertResult {
    let (mut x, axis) = (cx.input(0)?, cx.i64("axis", 0)?);
    let last = cx.bool("select_last_index", false)?;
    let axes = cx.i64s_constant(&[axis]);
    if last {
        x = cx.add(Reverse { mode: ReverseMode::Index }, &[x, axes])?;
    }
    let one = cx.constant(Tensor::scalar(1i64));
    let mut indices = cx.add_multi(top(axis, mode, TopKSort::Value), &[x, one])?[1];
    if last {
        let shape = cx.shape(x);
        let extent = match shape.rank() {
            Some(rank) => shape.dim(normalize_axis(axis, rank)?).value(),
            None => None,
        };
        let extent = match extent {
            Some(v) => cx.constant(Tensor::scalar(v as i64)),
            None => {
                let shape = cx.add(ShapeOf { output_type: ElementType::I64 }, &[x])?;
                let (at, zero) = (cx.constant(Tensor::scalar(axis)), cx.constant(Tensor::scalar(0i64)));
                cx.add(Gather::default(), &[shape, at, zero])?
            }
        };
        let end = cx.compose("Sub", &[extent, one], &[])?;
        indices = cx.compose("Sub", &[end, indices], &[])?;
    }
    if cx.bool("keepdims", true)? {
        return Ok(vec![indices]);
    }
    Ok(vec![cx.add(Squeeze {}, &[indices, axes])?])
}

fn arg_max(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    arg(cx, TopKMode::Max)
}

fn arg_min(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    arg(cx, TopKMode::Min)
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] =
    &[("", "TopK", 1, topk), ("", "ArgMax", 1, arg_max), ("", "ArgMin", 1, arg_min)];
