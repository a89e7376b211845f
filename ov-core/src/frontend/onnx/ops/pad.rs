//! Padding.

use super::{
    super::{compose::Attr, context::ConvertError, NodeContext},
    ConvertResult, OnnxOp,
};
use crate::{
    model::Value,
    op::{
        OpError,
        concat::Split,
        normalize_axis,
        pad::{Pad, PadMode},
        scatter::ScatterElementsUpdate,
        slice::Slice,
    },
    tensor::Tensor,
};

fn mode(cx: &NodeContext<'_, '_>) -> Result<PadMode, ConvertError> {
    Ok(match cx.str("mode", "constant")? {
        "constant" => PadMode::Constant,
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Edge,
        "wrap" => PadMode::Wrap,
        other => {
            return Err(OpError::Attribute {
                name: "mode",
                got: other.to_owned(),
                expected: "constant, reflect, edge or wrap".to_owned(),
            }
            .into());
        }
    })
}

fn constant_pads(
    cx: &mut NodeContext<'_, '_>,
    x: Value,
    pads: &[i64],
    axes: Option<&[i64]>,
) -> Result<(Value, Value), ConvertError> {
    let n = pads.len() / 2;
    let (mut begin, mut end) = (pads[..n].to_vec(), pads[n..].to_vec());
    if !pads.len().is_multiple_of(2) {
        return Err(OpError::Invalid(format!("{} pads, expected an even number", pads.len())).into());
    }
    if let Some(axes) = axes {
        let rank = cx.rank(x)?;
        if axes.len() != n {
            return Err(OpError::Invalid(format!("{n} pairs of pads for {} axes", axes.len())).into());
        }
        let (mut all_begin, mut all_end) = (vec![0; rank], vec![0; rank]);
        for (i, axis) in axes.iter().enumerate() {
            let axis = normalize_axis(*axis, rank)?;
            (all_begin[axis], all_end[axis]) = (begin[i], end[i]);
        }
        (begin, end) = (all_begin, all_end);
    }
    Ok((cx.i64s_constant(&begin), cx.i64s_constant(&end)))
}

fn crop(
    cx: &mut NodeContext<'_, '_>,
    x: Value,
    begin: Value,
    end: Value,
) -> Result<(Value, Value, Value), ConvertError> {
    let (Some(b), Some(e)) = (cx.constant_value(begin), cx.constant_value(end)) else {
        return Ok((x, begin, end));
    };
    let (b, e) = (b.to_i64_vec()?, e.to_i64_vec()?);
    if b.iter().chain(&e).all(|v| *v >= 0) {
        return Ok((x, begin, end));
    }
    let starts: Vec<i64> = b.iter().map(|v| (-v).max(0)).collect();
    let stops: Vec<i64> = e.iter().map(|v| if *v < 0 { *v } else { i64::from(i32::MAX) }).collect();
    let inputs = [
        x,
        cx.i64s_constant(&starts),
        cx.i64s_constant(&stops),
        cx.i64s_constant(&vec![1; b.len()]),
    ];
    let x = cx.add(Slice {}, &inputs)?;
    let b: Vec<i64> = b.iter().map(|v| *v.max(&0)).collect();
    let e: Vec<i64> = e.iter().map(|v| *v.max(&0)).collect();
    Ok((x, cx.i64s_constant(&b), cx.i64s_constant(&e)))
}

fn finish(
    cx: &mut NodeContext<'_, '_>,
    x: Value,
    (begin, end): (Value, Value),
    fill: Option<Value>,
) -> ConvertResult {
    let pad_mode = mode(cx)?;
    let (x, begin, end) =
        if pad_mode == PadMode::Constant { (x, begin, end) } else { crop(cx, x, begin, end)? };
    let mut inputs = vec![x, begin, end];
    if pad_mode == PadMode::Constant {
        inputs.extend(fill);
    }
    Ok(vec![cx.add(Pad { pad_mode }, &inputs)?])
}

fn pad(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, pads) = (cx.input(0)?, cx.input(1)?);
    let (fill, axes) = (cx.optional_input(2), cx.optional_input(3));
    let known_axes = axes.map(|a| cx.constant_value(a).map(|t| t.to_i64_vec()));
    let known_axes = match known_axes {
        None => Some(None),
        Some(None) => None,
        Some(Some(a)) => Some(Some(a?)),
    };
    if let (Some(pads), Some(axes)) = (cx.constant_value(pads), known_axes) {
        let pair = constant_pads(cx, x, &pads.to_i64_vec()?, axes.as_deref())?;
        return finish(cx, x, pair, fill);
    }
    let axis = cx.constant(Tensor::scalar(0i64));
    let halves = cx.add_multi(Split { num_splits: 2 }, &[pads, axis])?;
    let (mut begin, mut end) = (halves[0], halves[1]);
    if let Some(axes) = axes {
        let rank = cx.rank(x)?;
        let zeros = cx.i64s_constant(&vec![0; rank]);
        let axes = cx.compose("Cast", &[axes], &[("to", Attr::Int(7))])?;
        begin = cx.add(ScatterElementsUpdate::default(), &[zeros, axes, begin, axis])?;
        end = cx.add(ScatterElementsUpdate::default(), &[zeros, axes, end, axis])?;
    }
    finish(cx, x, (begin, end), fill)
}

fn pad_1(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let pads = match cx.optional_i64s("pads")? {
        Some(pads) => pads,
        None => cx.i64s("paddings", &[])?,
    };
    let value = f64::from(cx.f32("value", 0.0)?);
    let fill = cx.scalar_like(value, x)?;
    let pair = constant_pads(cx, x, &pads, None)?;
    finish(cx, x, pair, Some(fill))
}

/// Crops or pads to given extents, the centre kept: `begin` elements go in front (or off, if negative), half the
/// difference rounded down.
fn center_crop_pad(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, wanted) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.rank(x)?;
    let axes = cx.i64s("axes", &(0..rank as i64).collect::<Vec<_>>())?;
    let axes: Vec<i64> =
        axes.iter().map(|a| normalize_axis(*a, rank).map(|a| a as i64)).collect::<Result<_, _>>()?;
    let axes_value = cx.i64s_constant(&axes);
    let zero = cx.i64s_constant(&[0]);
    let two = cx.i64s_constant(&[2]);
    let wanted = cx.compose("Cast", &[wanted], &[("to", Attr::Int(7))])?;
    let shape = cx.compose("Shape", &[x], &[])?;
    let extents = cx.compose("Gather", &[shape, axes_value], &[])?;
    let difference = cx.compose("Sub", &[wanted, extents], &[])?;
    let grow = cx.compose("Max", &[difference, zero], &[])?;
    let shrink = cx.compose("Neg", &[difference], &[])?;
    let shrink = cx.compose("Max", &[shrink, zero], &[])?;
    let start = cx.compose("Div", &[shrink, two], &[])?;
    let kept = cx.compose("Min", &[wanted, extents], &[])?;
    let stop = cx.compose("Add", &[start, kept], &[])?;
    let steps = cx.i64s_constant(&vec![1; axes.len()]);
    let x = cx.add(Slice {}, &[x, start, stop, steps, axes_value])?;
    let before = cx.compose("Div", &[grow, two], &[])?;
    let after = cx.compose("Sub", &[grow, before], &[])?;
    let pads = cx.compose("Concat", &[before, after], &[("axis", Attr::Int(0))])?;
    let fill = Tensor::zeros(cx.element_type(x), [])?;
    let fill = cx.constant(fill);
    Ok(vec![cx.compose("Pad", &[x, pads, fill, axes_value], &[])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[("", "Pad", 1, pad_1), ("", "Pad", 11, pad), ("", "CenterCropPad", 18, center_crop_pad)];
