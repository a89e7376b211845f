//! Interpolation along one axis or two neighbouring ones.

use std::ops::Range;

use ov_core::op::{
    Op, OpAttributes, OpResult, normalize_axis,
    resize::{
        AspectRatio, CoordinateMode, Interpolate, Interpolate4, InterpolateMode, NearestMode,
        ShapeCalculation,
    },
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, cost, reference};
use crate::{
    kernels::resize::{
        AxisOptions, AxisTable, Coordinates, Interpolation, NearestRounding, resize_axis,
        resize_image, scratch_len,
    },
    simd::Isa,
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[KernelEntry {
    name: "interpolate_f32",
    ops: &[Interpolate::KIND, Interpolate4::KIND],
    select,
    bind,
}];

/// What both versions of the operator say.
struct Attributes {
    options: AxisOptions,
    /// Whether the scales are given, instead of following from the extents.
    scales: bool,
    /// Inputs that hold the scales and the axes.
    inputs: [usize; 2],
}

fn coordinates(mode: CoordinateMode) -> Result<Coordinates, Reject> {
    Ok(match mode {
        CoordinateMode::HalfPixel => Coordinates::HalfPixel,
        CoordinateMode::PytorchHalfPixel => Coordinates::PytorchHalfPixel,
        CoordinateMode::Asymmetric => Coordinates::Asymmetric,
        CoordinateMode::TfHalfPixelForNn => Coordinates::TfHalfPixelForNn,
        CoordinateMode::AlignCorners => Coordinates::AlignCorners,
        CoordinateMode::HalfPixelSymmetric => Coordinates::HalfPixelSymmetric,
        CoordinateMode::AlignCornersScaled | CoordinateMode::TfCropAndResize => {
            return Err("takes no scaled corners and no regions".into());
        }
    })
}

fn rounding(mode: NearestMode) -> NearestRounding {
    match mode {
        NearestMode::RoundPreferFloor => NearestRounding::RoundPreferFloor,
        NearestMode::RoundPreferCeil => NearestRounding::RoundPreferCeil,
        NearestMode::Floor => NearestRounding::Floor,
        NearestMode::Ceil => NearestRounding::Ceil,
        NearestMode::Simple => NearestRounding::Simple,
    }
}

fn attributes(op: &dyn Op) -> Result<Attributes, Reject> {
    macro_rules! read {
        ($op:expr, $exclude:expr, $inputs:expr) => {{
            let op = $op;
            if op.pads_begin.iter().chain(&op.pads_end).any(|p| *p != 0) {
                return Err("takes no padding".into());
            }
            let a = op.cube_coeff;
            let pillow =
                matches!(op.mode, InterpolateMode::BilinearPillow | InterpolateMode::BicubicPillow);
            let interpolation = match op.mode {
                InterpolateMode::Nearest => Interpolation::Nearest(rounding(op.nearest_mode)),
                InterpolateMode::Linear
                | InterpolateMode::LinearOnnx
                | InterpolateMode::BilinearPillow => Interpolation::Linear,
                InterpolateMode::Cubic | InterpolateMode::BicubicPillow => {
                    Interpolation::Cubic { a }
                }
            };
            let options = AxisOptions {
                scale: 1.0,
                coordinates: if pillow {
                    Coordinates::HalfPixel
                } else {
                    coordinates(op.coordinate_transformation_mode)?
                },
                interpolation,
                exclude_outside: $exclude || pillow || op.mode == InterpolateMode::Linear,
                antialias: op.antialias || pillow,
            };
            let scales = op.shape_calculation_mode == ShapeCalculation::Scales;
            Ok(Attributes { options, scales, inputs: $inputs })
        }};
    }
    if let Some(op) = op.downcast::<Interpolate4>() {
        return read!(op, false, [2, 3]);
    }
    let op: &Interpolate =
        op.downcast().expect("the table lists this kernel for these operators only");
    if op.keep_aspect_ratio_policy != AspectRatio::Stretch {
        return Err("keeps no aspect ratio".into());
    }
    read!(op, op.exclude_outside, [1, 2])
}

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    view.expect_f32(&[1, 2, 3])?;
    attributes(view.op)?;
    Ok(Choice::default())
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    match plan(cx)? {
        Some(step) => Bound::step(step),
        None => (reference::KERNELS[0].bind)(cx),
    }
}

/// `None` when the kernels cannot do it in one pass.
fn plan(cx: &BindContext<'_>) -> OpResult<Option<ResizeStep>> {
    let Ok(Attributes { options, scales, inputs }) = attributes(cx.op) else { return Ok(None) };
    let (x, y) = (cx.inputs[0].shape, cx.outputs[0].shape);
    let rank = x.rank();
    let axes = match cx.inputs.get(inputs[1]).map(|i| i.value) {
        Some(Some(t)) if !t.is_absent() => t
            .to_i64_vec()?
            .into_iter()
            .map(|a| normalize_axis(a, rank))
            .collect::<OpResult<Vec<_>>>()?,
        Some(None) => return Ok(None),
        _ => (0..rank).collect(),
    };
    let given = match (scales, cx.inputs.get(inputs[0]).and_then(|i| i.value)) {
        (false, _) => None,
        (true, Some(t)) => Some(t.to_f64_vec()?),
        (true, None) => return Ok(None),
    };
    let mut tables = Vec::new();
    for (i, &axis) in axes.iter().enumerate() {
        let (input, output) = (x[axis], y[axis]);
        let scale = match &given {
            Some(scales) => scales.get(i).copied().unwrap_or(f64::NAN),
            None => output as f64 / input.max(1) as f64,
        };
        let same = input == output && scale == 1.0;
        if same && options.coordinates != Coordinates::TfHalfPixelForNn {
            continue;
        }
        // The reference says what is wrong with a scale that is not valid.
        let Ok(table) = AxisTable::new(input, output, &AxisOptions { scale, ..options }) else {
            return Ok(None);
        };
        tables.push((axis, table));
    }
    tables.sort_by_key(|(axis, _)| *axis);
    let product = |dims: &[usize]| dims.iter().product::<usize>();
    let mut tables = tables.into_iter();
    let (outer, inner, form) = match (tables.next(), tables.next(), tables.next()) {
        (Some((a, table)), None, _) => (product(&x[..a]), product(&x[a + 1..]), Form::Axis(table)),
        (Some((a, rows)), Some((b, columns)), None) if b == a + 1 => {
            (product(&x[..a]), product(&x[b + 1..]), Form::Image(rows, columns))
        }
        _ => return Ok(None),
    };
    let taps = match options.interpolation {
        Interpolation::Nearest(_) => 1.0,
        Interpolation::Linear => 4.0,
        Interpolation::Cubic { .. } => 8.0,
    };
    let narrow = if inner < 8 { 8.0 } else { 1.0 };
    Ok(Some(ResizeStep {
        isa: cx.isa,
        form,
        outer,
        inner,
        cost: cost::element_wise(x.elements().max(y.elements()), 4.0 * taps * narrow),
    }))
}

#[derive(Debug)]
enum Form {
    /// `[outer, axis, inner]`.
    Axis(AxisTable),
    /// `[outer, rows, columns, inner]`.
    Image(AxisTable, AxisTable),
}

#[derive(Debug)]
struct ResizeStep {
    isa: Isa,
    form: Form,
    outer: usize,
    inner: usize,
    cost: f64,
}

impl Step for ResizeStep {
    fn items(&self) -> usize {
        let (Form::Axis(table) | Form::Image(table, _)) = &self.form;
        self.outer * table.len()
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn scratch_len(&self) -> usize {
        match &self.form {
            Form::Axis(_) => 0,
            Form::Image(_, columns) => 4 * scratch_len(columns, self.inner),
        }
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        let (x, out) = (io.input(0), io.output(0));
        match &self.form {
            Form::Axis(table) => resize_axis(self.isa, table, self.inner, x, &out, range),
            Form::Image(rows, columns) => {
                let scratch = bytemuck::cast_slice_mut(scratch);
                resize_image(self.isa, rows, columns, self.inner, x, scratch, &out, range);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{
        Model, Tensor,
        op::{
            Op,
            resize::{
                CoordinateMode, Interpolate, Interpolate4, InterpolateMode, NearestMode,
                ShapeCalculation,
            },
        },
    };

    use crate::nodes::testing::{check, noise, parameter};

    fn compare(op: Box<dyn Op>, shape: &[usize], constants: &[Tensor]) {
        let what = format!("{op:?} {shape:?} {constants:?}");
        let mut m = Model::new("resize");
        let mut inputs = vec![parameter(&mut m, "x", shape)];
        for c in constants {
            inputs.push(m.add_constant(c.clone(), "c"));
        }
        let y = m.add_node(op, &inputs, "resize").expect("valid");
        m.add_output("y", y.into());
        check(&what, &m, &[noise(shape, 3)], "interpolate_f32", 2e-5);
    }

    const MODES: [InterpolateMode; 6] = [
        InterpolateMode::Nearest,
        InterpolateMode::Linear,
        InterpolateMode::LinearOnnx,
        InterpolateMode::Cubic,
        InterpolateMode::BilinearPillow,
        InterpolateMode::BicubicPillow,
    ];

    const COORDINATES: [CoordinateMode; 7] = [
        CoordinateMode::HalfPixel,
        CoordinateMode::PytorchHalfPixel,
        CoordinateMode::Asymmetric,
        CoordinateMode::TfHalfPixelForNn,
        CoordinateMode::AlignCorners,
        CoordinateMode::HalfPixelSymmetric,
        CoordinateMode::TfCropAndResize,
    ];

    #[test]
    fn sizes_give_what_the_reference_gives() {
        for mode in MODES {
            for coordinate_transformation_mode in &COORDINATES[..6] {
                for (sizes, axes) in [([9, 7], [1, 2]), ([3, 2], [1, 2]), ([4, 5], [2, 1])] {
                    let op = Interpolate {
                        mode,
                        coordinate_transformation_mode: *coordinate_transformation_mode,
                        ..Interpolate::default()
                    };
                    let constants = [Tensor::from_i64s(&sizes), Tensor::from_i64s(&axes)];
                    compare(Box::new(op), &[2, 5, 4, 19], &constants);
                }
            }
        }
    }

    #[test]
    fn scales_and_single_axes_give_what_the_reference_gives() {
        for mode in MODES {
            for (axis, scale) in [(0, 1.6), (1, 0.7), (-1, 2.5), (1, 1.0)] {
                let op = Interpolate4 {
                    mode,
                    shape_calculation_mode: ShapeCalculation::Scales,
                    nearest_mode: NearestMode::Simple,
                    antialias: true,
                    ..Interpolate4::default()
                };
                let scales = Tensor::from_vec([1], vec![scale]).expect("fits");
                let constants = [Tensor::from_i64s(&[1]), scales, Tensor::from_i64s(&[axis])];
                compare(Box::new(op), &[3, 5, 6], &constants);
            }
        }
    }

    #[test]
    fn what_the_kernels_cannot_do_is_left_to_the_reference() {
        let op =
            || Box::new(Interpolate { mode: InterpolateMode::Cubic, ..Interpolate::default() });
        let sizes = |s: &[i64]| Tensor::from_i64s(s);
        compare(op(), &[2, 3, 4], &[sizes(&[4, 5, 6])]);
        compare(op(), &[2, 3, 4], &[sizes(&[4, 5]), sizes(&[0, 2])]);
        compare(op(), &[2, 3, 4], &[sizes(&[3, 4]), sizes(&[1, 2])]);
        compare(op(), &[2, 3, 4], &[sizes(&[0, 4]), sizes(&[1, 2])]);
        compare(op(), &[0, 3, 4], &[sizes(&[6, 5]), sizes(&[1, 2])]);
    }

    #[test]
    fn large_images_are_shared_by_threads() {
        let op = Interpolate { mode: InterpolateMode::LinearOnnx, ..Interpolate::default() };
        let constants = [Tensor::from_i64s(&[64, 70]), Tensor::from_i64s(&[1, 2])];
        compare(Box::new(op), &[2, 31, 35, 40], &constants);
    }
}
