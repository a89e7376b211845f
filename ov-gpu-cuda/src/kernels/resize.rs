//! Interpolation along up to four axes, with every mode of coordinates.

use std::borrow::Cow;

use ov_core::{
    ElementType, Tensor,
    op::{
        Op,
        resize::{
            CoordinateMode, Interpolate, Interpolate4, InterpolateMode, NearestMode, ResizedAxis,
        },
    },
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{compute_type, storage_type, unsupported},
    host::{choice, ensure, value},
    walk::{MAX_RANK, Record, count, dense_strides},
};

/// The family.
pub(super) const RESIZE: Kernel = Kernel { name: "resize", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/index.cuh"),
    include_str!("cuda/resize.cu"),
);

const BLOCK: u32 = 128;

/// Most axes that are resized.
const MAX_AXES: usize = 4;

/// The operator as its newest version, and where its inputs stand.
fn newest(op: &dyn Op) -> Option<(Interpolate, Vec<usize>)> {
    if let Some(op) = op.downcast::<Interpolate4>() {
        return Some((op.newer(), op.order().to_vec()));
    }
    op.downcast::<Interpolate>().map(|op| (op.clone(), vec![0, 1, 2, 3]))
}

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let (op, _) = newest(node.op)?;
    let ty = node.inputs.first()?.element_type;
    if ty == ElementType::Boolean {
        return Some(Err(unsupported(ty)));
    }
    if op.pads_begin.iter().chain(&op.pads_end).any(|p| *p != 0) {
        return Some(Err("takes no padding".into()));
    }
    Some(choice(node, &[1, 2, 3]))
}

fn is_pillow(op: &Interpolate) -> bool {
    matches!(op.mode, InterpolateMode::BilinearPillow | InterpolateMode::BicubicPillow)
}

fn is_cubic(op: &Interpolate) -> bool {
    matches!(op.mode, InterpolateMode::Cubic | InterpolateMode::BicubicPillow)
}

/// Most elements that a place of the axis is made of.
fn taps(op: &Interpolate, axis: &ResizedAxis) -> usize {
    if op.mode == InterpolateMode::Nearest {
        return 1;
    }
    let squeeze = if op.antialias || is_pillow(op) { axis.scale.min(1.0) } else { 1.0 };
    let reach = if is_cubic(op) { 2.0 } else { 1.0 } / squeeze;
    (2.0 * reach) as usize + 2
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let (op, order) = newest(node.op).ok_or("is another operator")?;
    let (x, y) = (node.inputs[0].shape, node.outputs[0].shape);
    if y.elements() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    ensure(x.elements() > 0, "enlarges nothing")?;
    let mut inputs = vec![Tensor::scalar(0f32)];
    for place in order.iter().skip(1).filter(|p| **p < node.inputs.len()) {
        inputs.push(value(node, *place)?.cloned().unwrap_or_else(Tensor::absent));
    }
    let axes = op.resized_axes(x, &inputs).map_err(|e| Reject::from(e.to_string()))?;
    let mut axes: Vec<ResizedAxis> = axes.into_iter().filter(|a| !op.is_identity(a)).collect();
    axes.sort_by_key(|a| a.axis);
    if axes.is_empty() {
        return Ok(Bound::Alias(0));
    }
    if axes.len() > MAX_AXES {
        return Err(format!("resizes up to {MAX_AXES} axes, not {}", axes.len()).into());
    }
    Ok(Bound::Step(step(node, &op, &axes)?))
}

fn step(node: &Binding<'_>, op: &Interpolate, axes: &[ResizedAxis]) -> Result<Step, Reject> {
    let (x, y) = (node.inputs[0].shape, node.outputs[0].shape);
    let ty = node.inputs[0].element_type;
    let storage = storage_type(ty).ok_or_else(|| unsupported(ty))?;
    let nearest = op.mode == InterpolateMode::Nearest;
    // Integers are truncated, so that their sums have to be exact.
    let compute = if ty.is_integer() { "double" } else { compute_type(ty).unwrap_or(storage) };
    let (table, counts, taps) = table(op, axes)?;
    let source = Source {
        body: Cow::Borrowed(TEXT),
        defines: vec![
            ("OV_X", storage.to_owned()),
            ("OV_V", compute.to_owned()),
            ("OV_AXES", axes.len().to_string()),
            ("OV_NEAREST", u8::from(nearest).to_string()),
        ],
    };
    // Tables one after the other: counts, indices, weights.
    let indices_at = (counts * 4).next_multiple_of(16);
    let weights_at = (indices_at + taps * 4).next_multiple_of(16);
    let scratch = weights_at + taps * 8;
    let tables = [0, indices_at, weights_at].map(Arg::Scratch);
    let longest = axes.iter().map(|a| a.output).max().unwrap_or(1);
    let first = Launch {
        source: source.clone(),
        function: "resize_table".into(),
        grid: [count(longest)?.div_ceil(BLOCK), axes.len() as u32, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args: [&tables[..], &[Arg::Bytes(table.clone()), Arg::Bytes(filter(op))]].concat(),
    };
    let outside = op.extrapolation_value.to_le_bytes().to_vec();
    let second = Launch {
        source,
        function: "resize".into(),
        grid: [count(y.elements())?.div_ceil(BLOCK), 1, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args: [
            &[Arg::Input(0), Arg::Output(0)],
            &tables[..],
            &[Arg::Bytes(table), Arg::Bytes(places(x, y, axes)?), Arg::Bytes(outside)],
        ]
        .concat(),
    };
    Ok(Step { launches: vec![first, second], scratch, ..Step::default() })
}

/// The struct `Axes`, and how many counts and taps its tables have.
fn table(op: &Interpolate, axes: &[ResizedAxis]) -> Result<(Vec<u8>, usize, usize), Reject> {
    let mut record = Vec::new();
    let (mut counts, mut total) = (0, 0);
    for axis in axes {
        let taps = taps(op, axis);
        let pillow = is_pillow(op);
        for v in [axis.scale, axis.region.0, axis.region.1] {
            record.extend(v.to_le_bytes());
        }
        let mut numbers = Record::default();
        numbers.u32(count(axis.input)?).u32(count(axis.output)?).u32(count(taps)?);
        numbers.u32(count(counts)?).u32(count(total)?).u32(u32::from(pillow));
        record.extend(numbers.bytes());
        counts += axis.output;
        total += axis.output * taps;
    }
    Ok((record, counts, total))
}

/// The struct `Filter`.
fn filter(op: &Interpolate) -> Vec<u8> {
    let pillow = is_pillow(op);
    let coordinates = match op.coordinate_transformation_mode {
        _ if pillow => 0,
        CoordinateMode::HalfPixel => 0,
        CoordinateMode::PytorchHalfPixel => 1,
        CoordinateMode::Asymmetric => 2,
        CoordinateMode::TfHalfPixelForNn => 3,
        CoordinateMode::AlignCorners => 4,
        CoordinateMode::AlignCornersScaled => 5,
        CoordinateMode::HalfPixelSymmetric => 6,
        CoordinateMode::TfCropAndResize => 7,
    };
    let rounding = match op.nearest_mode {
        NearestMode::RoundPreferFloor => 0,
        NearestMode::RoundPreferCeil => 1,
        NearestMode::Floor => 2,
        NearestMode::Ceil => 3,
        NearestMode::Simple => 4,
    };
    let kind = match op.mode {
        InterpolateMode::Nearest => 0,
        _ if is_cubic(op) => 2,
        _ => 1,
    };
    let dropped = op.exclude_outside || pillow || op.mode == InterpolateMode::Linear;
    let mut record = Record::from(op.cube_coeff.to_le_bytes().to_vec());
    record.u32(coordinates).u32(rounding).u32(kind);
    record.u32(u32::from(op.antialias || pillow)).u32(u32::from(dropped)).u32(0);
    record.bytes()
}

/// The struct `Resize`: runs of axes that are not resized are one dimension.
fn places(x: &[usize], y: &[usize], axes: &[ResizedAxis]) -> Result<Vec<u8>, Reject> {
    let strides = dense_strides(x);
    let mut dims: Vec<(usize, i64, i32)> = Vec::new();
    for i in 0..x.len() {
        let resized = axes.iter().position(|a| a.axis == i);
        match (resized, dims.last_mut()) {
            (Some(a), _) => dims.push((y[i], strides[i], a as i32)),
            (None, Some(last)) if last.2 < 0 => *last = (last.0 * y[i], strides[i], -1),
            (None, _) => dims.push((y[i], strides[i], -1)),
        }
    }
    if dims.len() > MAX_RANK {
        return Err(format!("takes {MAX_RANK} dimensions, not {}", dims.len()).into());
    }
    count(x.iter().product())?;
    let mut record = Record::default();
    record.u32(count(y.iter().product())?).u32(dims.len() as u32);
    let dim = |i: usize| dims.get(i).copied().unwrap_or((1, 0, -1));
    for i in 0..MAX_RANK {
        record.divisor(count(dim(i).0)?);
    }
    for i in 0..MAX_RANK {
        record.i32(dim(i).1 as i32);
    }
    for i in 0..MAX_RANK {
        record.i32(dim(i).2);
    }
    Ok(record.bytes())
}
