//! Resize and Upsample.

use super::{
    super::{compose::Attr, context::ConvertError, NodeContext},
    ConvertResult, OnnxOp,
};
use crate::{
    model::Value,
    op::{
        OpError, normalize_axis,
        resize::{
            AspectRatio, CoordinateMode, Interpolate, InterpolateMode, NearestMode, ShapeCalculation,
        },
    },
    tensor::Tensor,
};

fn refuse(name: &'static str, got: &str, expected: &str) -> ConvertError {
    OpError::Attribute { name, got: got.to_owned(), expected: expected.to_owned() }.into()
}

fn mode(cx: &NodeContext<'_, '_>) -> Result<InterpolateMode, ConvertError> {
    Ok(match cx.str("mode", "nearest")? {
        "nearest" => InterpolateMode::Nearest,
        "linear" | "bilinear" => InterpolateMode::LinearOnnx,
        "cubic" => InterpolateMode::Cubic,
        other => return Err(refuse("mode", other, "nearest, linear or cubic")),
    })
}

fn coordinates(cx: &NodeContext<'_, '_>) -> Result<CoordinateMode, ConvertError> {
    Ok(match cx.str("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => CoordinateMode::HalfPixel,
        "half_pixel_symmetric" => CoordinateMode::HalfPixelSymmetric,
        "pytorch_half_pixel" => CoordinateMode::PytorchHalfPixel,
        "align_corners" => CoordinateMode::AlignCorners,
        "asymmetric" => CoordinateMode::Asymmetric,
        "tf_crop_and_resize" => CoordinateMode::TfCropAndResize,
        "tf_half_pixel_for_nn" => CoordinateMode::TfHalfPixelForNn,
        other => return Err(refuse("coordinate_transformation_mode", other, "a mode of the specification")),
    })
}

/// Input `index` unless it is left out or empty.
fn given(cx: &NodeContext<'_, '_>, index: usize) -> Option<Value> {
    cx.optional_input(index).filter(|v| cx.shape(*v).to_shape().is_none_or(|s| s.elements() > 0))
}

/// Keeps only the axes along which a constant scale is not 1.
fn fewer_axes(cx: &mut NodeContext<'_, '_>, scales: Value, axes: Vec<i64>) -> Result<(Value, Vec<i64>), ConvertError> {
    let Some(values) = cx.constant_value(scales) else { return Ok((scales, axes)) };
    let values = values.to_f64_vec()?;
    if values.len() != axes.len() || values.iter().all(|s| *s == 1.0) {
        return Ok((scales, axes));
    }
    let (kept, axes): (Vec<f32>, Vec<i64>) =
        values.iter().zip(axes).filter(|(s, _)| **s != 1.0).map(|(s, a)| (*s as f32, a)).unzip();
    let scales = Tensor::from_vec([kept.len()], kept)?;
    Ok((cx.constant(scales), axes))
}

fn whole_numbers(cx: &NodeContext<'_, '_>, x: Value, scales: Value, axes: &[i64]) -> bool {
    let (Some(scales), Some(shape)) = (cx.constant_value(scales), cx.shape(x).to_shape()) else { return false };
    let Ok(scales) = scales.to_f64_vec() else { return false };
    scales.iter().zip(axes).all(|(s, a)| {
        normalize_axis(*a, shape.rank()).is_ok_and(|a| (shape[a] as f64 * s).fract().abs() < 1e-9)
    })
}

fn resize(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, region) = (cx.input(0)?, given(cx, 1));
    let (scales, sizes) = (given(cx, 2), given(cx, 3));
    let mut axes = match cx.optional_i64s("axes")? {
        Some(axes) => axes,
        None => (0..cx.rank(x)? as i64).collect(),
    };
    let mut op = Interpolate {
        mode: mode(cx)?,
        coordinate_transformation_mode: coordinates(cx)?,
        antialias: cx.bool("antialias", false)?,
        cube_coeff: f64::from(cx.f32("cubic_coeff_a", -0.75)?),
        exclude_outside: cx.bool("exclude_outside", false)?,
        extrapolation_value: f64::from(cx.f32("extrapolation_value", 0.0)?),
        ..Interpolate::default()
    };
    op.nearest_mode = match cx.str("nearest_mode", "round_prefer_floor")? {
        "round_prefer_floor" => NearestMode::RoundPreferFloor,
        "round_prefer_ceil" => NearestMode::RoundPreferCeil,
        "floor" => NearestMode::Floor,
        "ceil" => NearestMode::Ceil,
        other => return Err(refuse("nearest_mode", other, "a mode of the specification")),
    };
    op.keep_aspect_ratio_policy = match cx.str("keep_aspect_ratio_policy", "stretch")? {
        "stretch" => AspectRatio::Stretch,
        "not_larger" => AspectRatio::NotLarger,
        "not_smaller" => AspectRatio::NotSmaller,
        other => return Err(refuse("keep_aspect_ratio_policy", other, "a policy of the specification")),
    };
    let region = region.filter(|_| op.coordinate_transformation_mode == CoordinateMode::TfCropAndResize);
    let target = match (scales, sizes) {
        (_, Some(sizes)) => sizes,
        (Some(scales), None) => {
            op.shape_calculation_mode = ShapeCalculation::Scales;
            op.keep_aspect_ratio_policy = AspectRatio::Stretch;
            if op.coordinate_transformation_mode == CoordinateMode::AlignCorners
                && !whole_numbers(cx, x, scales, &axes)
            {
                op.coordinate_transformation_mode = CoordinateMode::AlignCornersScaled;
            }
            if region.is_some() {
                scales
            } else {
                let (scales, kept) = fewer_axes(cx, scales, axes)?;
                axes = kept;
                scales
            }
        }
        (None, None) => return Err(OpError::Invalid("neither scales nor sizes are given".to_owned()).into()),
    };
    let mut inputs = vec![x, target, cx.i64s_constant(&axes)];
    if let Some(region) = region {
        inputs.push(cx.compose("Cast", &[region], &[("to", Attr::Int(1))])?);
    }
    Ok(vec![cx.add(op, &inputs)?])
}

fn by_scales(cx: &mut NodeContext<'_, '_>, scales: Value, nearest_mode: NearestMode) -> ConvertResult {
    let x = cx.input(0)?;
    let axes = (0..cx.rank(x)? as i64).collect();
    let (scales, axes) = fewer_axes(cx, scales, axes)?;
    let op = Interpolate {
        mode: mode(cx)?,
        shape_calculation_mode: ShapeCalculation::Scales,
        coordinate_transformation_mode: CoordinateMode::Asymmetric,
        nearest_mode,
        ..Interpolate::default()
    };
    let inputs = [x, scales, cx.i64s_constant(&axes)];
    Ok(vec![cx.add(op, &inputs)?])
}

fn resize_10(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let scales = cx.input(1)?;
    by_scales(cx, scales, NearestMode::Simple)
}

fn upsample_7(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let scales = cx.optional_f32s("scales")?.unwrap_or_default();
    let scales = Tensor::from_vec([scales.len()], scales)?;
    let scales = cx.constant(scales);
    by_scales(cx, scales, NearestMode::Floor)
}

fn upsample_9(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let scales = cx.input(1)?;
    by_scales(cx, scales, NearestMode::Floor)
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "Resize", 10, resize_10),
    ("", "Resize", 11, resize),
    ("", "Upsample", 7, upsample_7),
    ("", "Upsample", 9, upsample_9),
];
