//! Interpolation along axes.

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType,
    movement::{FILL, checked_len, gather_axes},
    normalize_axis,
    pad::Pad,
    present,
    reshape::{target_shape, usizes},
};
use crate::{
    choice, dispatch_numeric,
    tensor::{Dimension, PartialShape, Tensor},
};

choice! {
    /// How values between elements are found.
    pub enum InterpolateMode {
        /// The nearest element.
        Nearest = "nearest",
        /// A triangle filter over the elements inside.
        Linear = "linear",
        /// Linear between the two neighbours along each axis, the outermost repeated.
        LinearOnnx = "linear_onnx",
        /// Cubic over four neighbours along each axis, the outermost repeated.
        Cubic = "cubic",
        /// As Pillow's bilinear filter.
        BilinearPillow = "bilinear_pillow",
        /// As Pillow's bicubic filter.
        BicubicPillow = "bicubic_pillow",
    }
}

choice! {
    /// What the second input of Interpolate holds.
    pub enum ShapeCalculation {
        /// Extents.
        Sizes = "sizes",
        /// Ratios of output to input extents.
        Scales = "scales",
    }
}

choice! {
    /// Where an output position lies in the input.
    pub enum CoordinateMode {
        /// `(x + 0.5) / scale − 0.5`.
        HalfPixel = "half_pixel",
        /// As `half_pixel`, 0 for an output of one element.
        PytorchHalfPixel = "pytorch_half_pixel",
        /// `x / scale`.
        Asymmetric = "asymmetric",
        /// `(x + 0.5) / scale`.
        TfHalfPixelForNn = "tf_half_pixel_for_nn",
        /// Corners meet corners.
        AlignCorners = "align_corners",
        /// As `align_corners`, for the extent `input × scale` with its fraction (ONNX only).
        AlignCornersScaled = "align_corners_scaled",
        /// As `half_pixel` about the centre of the input (ONNX only).
        HalfPixelSymmetric = "half_pixel_symmetric",
        /// Of a region given by the fourth input, starts then ends in units of the extent less one (ONNX only).
        TfCropAndResize = "tf_crop_and_resize",
    }
}

choice! {
    /// How `nearest` rounds.
    pub enum NearestMode {
        /// Halves down.
        RoundPreferFloor = "round_prefer_floor",
        /// Halves up.
        RoundPreferCeil = "round_prefer_ceil",
        /// Down.
        Floor = "floor",
        /// Up.
        Ceil = "ceil",
        /// Up when the axis shrinks, else down.
        Simple = "simple",
    }
}

choice! {
    /// What extents mean.
    pub enum AspectRatio {
        /// The output's extents.
        Stretch = "stretch",
        /// Bounds: the largest output of the input's proportions that is within all (ONNX only).
        NotLarger = "not_larger",
        /// Bounds: the smallest output of the input's proportions that is beyond none (ONNX only).
        NotSmaller = "not_smaller",
    }
}

macro_rules! interpolate_op {
    ($(#[$meta:meta])* $name:ident($opset:literal) { $($(#[$fmeta:meta])* $field:ident: $ty:ty = $default:expr),* $(,)? }) => {
        define_op! {
            $(#[$meta])*
            pub struct $name("Interpolate", $opset) {
                /// How values between elements are found.
                mode: InterpolateMode = InterpolateMode::Nearest,
                /// What the second input holds.
                shape_calculation_mode: ShapeCalculation = ShapeCalculation::Sizes,
                /// Where an output position lies in the input.
                coordinate_transformation_mode: CoordinateMode = CoordinateMode::HalfPixel,
                /// How `nearest` rounds.
                nearest_mode: NearestMode = NearestMode::RoundPreferFloor,
                /// Whether a shrinking axis is filtered over all the elements it merges.
                antialias: bool = false,
                /// Zeros before the data.
                pads_begin: Vec<i64> = Vec::new(),
                /// Zeros after the data.
                pads_end: Vec<i64> = Vec::new(),
                /// Coefficient of the cubic.
                cube_coeff: f64 = -0.75,
                $($(#[$fmeta])* $field: $ty = $default),*
            }
        }
    };
}

interpolate_op! {
    /// Resizes along axes; inputs data, sizes, scales, axes.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/image/interpolate-4.html>
    Interpolate4(4) {}
}

interpolate_op! {
    /// Resizes along axes; inputs data, sizes or scales, axes, region.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/image/interpolate-11.html>
    Interpolate(11) {
        /// Whether neighbours outside the input have no weight (ONNX only).
        exclude_outside: bool = false,
        /// What positions outside the region's input become (ONNX only).
        extrapolation_value: f64 = 0.0,
        /// What extents mean (ONNX only).
        keep_aspect_ratio_policy: AspectRatio = AspectRatio::Stretch,
    }
}

/// One axis to resize.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResizedAxis {
    /// The axis.
    pub axis: usize,
    /// Its extent in the input, padding included.
    pub input: usize,
    /// Its extent in the output.
    pub output: usize,
    /// Ratio of output to input extent, as given: the extents may be rounded.
    pub scale: f64,
    /// Start and end of the region in units of the input's extent less one.
    pub region: (f64, f64),
}

/// `floor(extent × scale)` in `f32`, as exporters compute it.
fn scaled(extent: usize, scale: f64) -> usize {
    (extent as f32 * scale as f32).floor().max(0.0) as usize
}

impl Interpolate {
    fn pads(&self, rank: usize) -> (Vec<i64>, Vec<i64>) {
        let full = |p: &[i64]| {
            let mut p = p.to_vec();
            p.resize(rank, 0);
            p
        };
        (full(&self.pads_begin), full(&self.pads_end))
    }

    /// Scales and extents of the resized axes when `sizes` are wanted of `inputs`.
    fn scales_of_sizes(&self, inputs: &[usize], sizes: &[usize]) -> Vec<(usize, f64)> {
        let ratios = || inputs.iter().zip(sizes).map(|(i, s)| *s as f64 / (*i).max(1) as f64);
        let common = match self.keep_aspect_ratio_policy {
            AspectRatio::Stretch => return sizes.iter().copied().zip(ratios()).collect(),
            AspectRatio::NotLarger => ratios().fold(f64::INFINITY, f64::min),
            AspectRatio::NotSmaller => ratios().fold(0.0, f64::max),
        };
        inputs.iter().map(|i| ((common * *i as f64 + 0.5).floor() as usize, common)).collect()
    }

    /// Position of output `x` in the input; `None` outside the region's input.
    fn coordinate(&self, x: f64, plan: &ResizedAxis) -> Option<f64> {
        let (n, m) = (plan.input as f64, plan.output as f64);
        let real = n * plan.scale;
        let half_pixel = (x + 0.5) / plan.scale - 0.5;
        Some(match self.coordinate_transformation_mode {
            CoordinateMode::HalfPixel => half_pixel,
            CoordinateMode::PytorchHalfPixel if plan.output > 1 => half_pixel,
            CoordinateMode::PytorchHalfPixel => 0.0,
            CoordinateMode::Asymmetric => x / plan.scale,
            CoordinateMode::TfHalfPixelForNn => (x + 0.5) / plan.scale,
            CoordinateMode::AlignCorners if plan.output > 1 => x * (n - 1.0) / (m - 1.0),
            CoordinateMode::AlignCornersScaled if real != 1.0 => x * (n - 1.0) / (real - 1.0),
            CoordinateMode::AlignCorners | CoordinateMode::AlignCornersScaled => 0.0,
            CoordinateMode::HalfPixelSymmetric => n / 2.0 * (1.0 - m / real) + half_pixel,
            CoordinateMode::TfCropAndResize => {
                let (start, end) = plan.region;
                let at = if plan.output > 1 {
                    start * (n - 1.0) + x * (end - start) * (n - 1.0) / (m - 1.0)
                } else {
                    0.5 * (start + end) * (n - 1.0)
                };
                if at < 0.0 || at > n - 1.0 {
                    return None;
                }
                at
            }
        })
    }

    fn nearest(&self, x: f64, plan: &ResizedAxis) -> usize {
        let index = match self.nearest_mode {
            NearestMode::RoundPreferFloor => (x - 0.5).ceil(),
            NearestMode::RoundPreferCeil => (x + 0.5).floor(),
            NearestMode::Floor => x.floor(),
            NearestMode::Ceil => x.ceil(),
            NearestMode::Simple if plan.scale < 1.0 => x.ceil(),
            NearestMode::Simple => x.floor(),
        };
        (index.max(0.0) as usize).min(plan.input.saturating_sub(1))
    }

    /// Input elements and their weights for output `x`; none outside the region's input.
    fn taps(&self, x: usize, plan: &ResizedAxis, taps: &mut Vec<(usize, f64)>) {
        taps.clear();
        let pillow = matches!(self.mode, InterpolateMode::BilinearPillow | InterpolateMode::BicubicPillow);
        let cubic = matches!(self.mode, InterpolateMode::Cubic | InterpolateMode::BicubicPillow);
        let at = if pillow {
            Some((x as f64 + 0.5) / plan.scale - 0.5)
        } else {
            self.coordinate(x as f64, plan)
        };
        let Some(at) = at.filter(|v| v.is_finite()) else { return };
        let squeeze = if self.antialias || pillow { plan.scale.min(1.0) } else { 1.0 };
        let reach = if cubic { 2.0 } else { 1.0 } / squeeze;
        let drop = self.exclude_outside || pillow || self.mode == InterpolateMode::Linear;
        let last = plan.input as f64 - 1.0;
        let (low, high) = ((at - reach).floor(), (at + reach).ceil());
        let (low, high) = if drop { (low.max(0.0), high.min(last)) } else { (low.max(-1e9), high.min(1e9)) };
        let mut sum = 0.0;
        let mut i = low;
        while i <= high {
            let d = (i - at).abs() * squeeze;
            let weight = if cubic { cubic_weight(d, self.cube_coeff) } else { (1.0 - d).max(0.0) };
            if weight != 0.0 {
                taps.push((i.clamp(0.0, last) as usize, weight));
                sum += weight;
            }
            i += 1.0;
        }
        if sum != 0.0 {
            taps.iter_mut().for_each(|t| t.1 /= sum);
        }
    }

    /// The axes that are resized of data of `shape` (padding included); of the inputs only those behind the data are
    /// read.
    ///
    /// # Errors
    /// When sizes, scales, axes or region do not suit the shape.
    pub fn resized_axes(&self, shape: &[usize], inputs: &[Tensor]) -> OpResult<Vec<ResizedAxis>> {
        let axes = match present(inputs, 2) {
            Some(axes) => axes.to_i64_vec()?,
            None => (0..shape.len() as i64).collect(),
        };
        let axes: Vec<usize> =
            axes.iter().map(|a| normalize_axis(*a, shape.len())).collect::<OpResult<_>>()?;
        let extents: Vec<usize> = axes.iter().map(|a| shape[*a]).collect();
        let results = match self.shape_calculation_mode {
            ShapeCalculation::Sizes => {
                let sizes = usizes(&inputs[1], "size")?;
                op_ensure!(sizes.len() == axes.len(), "{} sizes for {} axes", sizes.len(), axes.len());
                self.scales_of_sizes(&extents, &sizes)
            }
            ShapeCalculation::Scales => {
                let scales = inputs[1].to_f64_vec()?;
                op_ensure!(scales.len() == axes.len(), "{} scales for {} axes", scales.len(), axes.len());
                op_ensure!(scales.iter().all(|s| *s > 0.0 && s.is_finite()), "scales are {scales:?}");
                extents.iter().zip(&scales).map(|(e, s)| (scaled(*e, *s), *s)).collect()
            }
        };
        let region = match present(inputs, 3) {
            Some(r) => {
                let r = r.to_f64_vec()?;
                op_ensure!(r.len() == 2 * axes.len(), "a region of {} values for {} axes", r.len(), axes.len());
                r
            }
            None => [vec![0.0; axes.len()], vec![1.0; axes.len()]].concat(),
        };
        Ok((0..axes.len())
            .map(|i| ResizedAxis {
                axis: axes[i],
                input: extents[i],
                output: results[i].0,
                scale: results[i].1,
                region: (region[i], region[axes.len() + i]),
            })
            .collect())
    }

    /// Whether resizing the axis changes nothing.
    #[must_use]
    pub fn is_identity(&self, plan: &ResizedAxis) -> bool {
        plan.input == plan.output
            && plan.scale == 1.0
            && self.coordinate_transformation_mode != CoordinateMode::TfCropAndResize
            && self.coordinate_transformation_mode != CoordinateMode::TfHalfPixelForNn
    }
}

fn cubic_weight(d: f64, a: f64) -> f64 {
    if d <= 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    } else {
        0.0
    }
}

impl OpRules for Interpolate {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=4)?;
        let data = cx.shape(0);
        let ty = cx.element_type(0);
        let Some(rank) = data.rank() else { return Ok(vec![cx.same_as(0)]) };
        let axes = if cx.is_present(2) { cx.i64s(2)? } else { Some((0..rank as i64).collect()) };
        let Some(axes) = axes else {
            return Ok(vec![OutputType::new(ty, PartialShape::dynamic_rank(rank))]);
        };
        let axes: Vec<usize> = axes.iter().map(|a| normalize_axis(*a, rank)).collect::<OpResult<_>>()?;
        let (begin, end) = self.pads(rank);
        let mut out: Vec<Dimension> = (0..rank)
            .map(|i| {
                let added = usize::try_from(begin[i].saturating_add(end[i])).unwrap_or(0);
                data.dim(i).add(Dimension::fixed(added))
            })
            .collect();
        match self.shape_calculation_mode {
            ShapeCalculation::Sizes => {
                let sizes = target_shape(cx, 1)?;
                if let Some(s) = sizes.dims() {
                    op_ensure!(s.len() == axes.len(), "{} sizes for {} axes", s.len(), axes.len());
                }
                let known: Option<Vec<usize>> = axes.iter().map(|a| out[*a].value()).collect();
                if self.keep_aspect_ratio_policy == AspectRatio::Stretch {
                    axes.iter().enumerate().for_each(|(i, a)| out[*a] = sizes.dim(i));
                } else if let (Some(inputs), Some(sizes)) = (known, sizes.to_shape()) {
                    let results = self.scales_of_sizes(&inputs, &sizes);
                    axes.iter().zip(results).for_each(|(a, (m, _))| out[*a] = Dimension::fixed(m));
                } else {
                    axes.iter().for_each(|a| out[*a] = Dimension::DYNAMIC);
                }
            }
            ShapeCalculation::Scales => match cx.value(1).map(Tensor::to_f64_vec).transpose()? {
                Some(scales) => {
                    op_ensure!(scales.len() == axes.len(), "{} scales for {} axes", scales.len(), axes.len());
                    for (a, s) in axes.iter().zip(scales) {
                        op_ensure!(s > 0.0 && s.is_finite(), "a scale is {s}");
                        out[*a] = if s == 1.0 { out[*a] } else { out[*a].map(|v| scaled(v, s)) };
                    }
                }
                None => axes.iter().for_each(|a| out[*a] = Dimension::DYNAMIC),
            },
        }
        Ok(vec![OutputType::new(ty, PartialShape::new(&out))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let mut data = inputs[0].to_contiguous();
        let (begin, end) = self.pads(data.rank());
        if begin.iter().chain(&end).any(|p| *p != 0) {
            let padded = [data, Tensor::from_i64s(&begin), Tensor::from_i64s(&end)];
            data = OpRules::evaluate(&Pad::default(), &padded)?.remove(0);
        }
        let plans = self.resized_axes(data.shape(), inputs)?;
        let mut shape = data.shape().clone();
        for plan in &plans {
            shape.dims_mut()[plan.axis] = plan.output;
        }
        let len = checked_len(&shape)?;
        op_ensure!(len == 0 || !data.is_empty(), "cannot enlarge an empty input");
        let ty = data.element_type();
        if len == 0 {
            return Ok(vec![Tensor::zeros(ty, shape)?]);
        }
        if self.mode == InterpolateMode::Nearest {
            let mut maps: Vec<Vec<usize>> = data.shape().iter().map(|d| (0..*d).collect()).collect();
            for plan in plans.iter().filter(|p| !self.is_identity(p)) {
                maps[plan.axis] = (0..plan.output)
                    .map(|x| self.coordinate(x as f64, plan).map_or(FILL, |c| self.nearest(c, plan)))
                    .collect();
            }
            let fill = Tensor::scalar(self.extrapolation_value).cast(ty).ok();
            return Ok(vec![gather_axes(&data, &maps, fill.as_ref())?]);
        }
        let mut values = data.to_f64_vec()?;
        let mut extents = data.shape().to_vec();
        let mut taps = Vec::new();
        for plan in plans.iter().filter(|p| !self.is_identity(p)) {
            let inner: usize = extents[plan.axis + 1..].iter().product();
            let outer: usize = extents[..plan.axis].iter().product();
            extents[plan.axis] = plan.output;
            let mut resized = vec![0.0; checked_len(&extents)?];
            for x in 0..plan.output {
                self.taps(x, plan, &mut taps);
                for o in 0..outer {
                    let target = &mut resized[(o * plan.output + x) * inner..][..inner];
                    if taps.is_empty() {
                        target.fill(self.extrapolation_value);
                    }
                    for (i, weight) in &taps {
                        let source = &values[(o * plan.input + i) * inner..][..inner];
                        target.iter_mut().zip(source).for_each(|(t, s)| *t += weight * s);
                    }
                }
            }
            values = resized;
        }
        let out = dispatch_numeric!(ty, T => Tensor::from_f64s::<T>(shape, &values), else {
            return Err(OpError::Unsupported(format!("element type {ty}")));
        })?;
        Ok(vec![out])
    }
}

impl Interpolate4 {
    /// The same as version 11.
    #[must_use]
    pub fn newer(&self) -> Interpolate {
        Interpolate {
            mode: self.mode,
            shape_calculation_mode: self.shape_calculation_mode,
            coordinate_transformation_mode: self.coordinate_transformation_mode,
            nearest_mode: self.nearest_mode,
            antialias: self.antialias,
            pads_begin: self.pads_begin.clone(),
            pads_end: self.pads_end.clone(),
            cube_coeff: self.cube_coeff,
            ..Interpolate::default()
        }
    }

    /// Positions of the inputs of version 11 among those of version 4.
    #[must_use]
    pub fn order(&self) -> [usize; 3] {
        [0, if self.shape_calculation_mode == ShapeCalculation::Sizes { 1 } else { 2 }, 3]
    }
}

impl OpRules for Interpolate4 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=4)?;
        let inputs: Vec<_> = self.order().iter().filter_map(|i| cx.inputs.get(*i).copied()).collect();
        OpRules::infer(&self.newer(), &InferContext { inputs: &inputs })
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let inputs: Vec<_> = self.order().iter().filter_map(|i| inputs.get(*i).cloned()).collect();
        OpRules::evaluate(&self.newer(), &inputs)
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[OpEntry::of::<Interpolate4>(), OpEntry::of::<Interpolate>()];

#[cfg(test)]
mod tests {
    use super::*;

    fn resize(op: &Interpolate, data: &[f32], size: i64) -> Vec<f64> {
        let x = Tensor::from_vec([data.len()], data.to_vec()).expect("fits");
        let y = op.evaluate(&[x, Tensor::from_i64s(&[size])]).expect("valid");
        y[0].to_f64_vec().expect("f32")
    }

    #[test]
    fn every_coordinate_mode_puts_positions_where_its_formula_says() {
        let ramp = [0f32, 1., 2., 3.];
        for (coordinate_transformation_mode, expected) in [
            (CoordinateMode::HalfPixel, [0.5, 2.5]),
            (CoordinateMode::PytorchHalfPixel, [0.5, 2.5]),
            (CoordinateMode::HalfPixelSymmetric, [0.5, 2.5]),
            (CoordinateMode::Asymmetric, [0.0, 2.0]),
            (CoordinateMode::TfHalfPixelForNn, [1.0, 3.0]),
            (CoordinateMode::AlignCorners, [0.0, 3.0]),
            (CoordinateMode::AlignCornersScaled, [0.0, 3.0]),
            (CoordinateMode::TfCropAndResize, [0.0, 3.0]),
        ] {
            let mode = InterpolateMode::LinearOnnx;
            let op = Interpolate { mode, coordinate_transformation_mode, ..Interpolate::default() };
            assert_eq!(resize(&op, &ramp, 2), expected, "{coordinate_transformation_mode}");
        }
    }

    #[test]
    fn nearest_rounds_as_told() {
        for (nearest_mode, expected) in [
            (NearestMode::RoundPreferFloor, [1., 3.]),
            (NearestMode::RoundPreferCeil, [2., 4.]),
            (NearestMode::Floor, [1., 3.]),
            (NearestMode::Ceil, [2., 4.]),
            (NearestMode::Simple, [2., 4.]),
        ] {
            let op = Interpolate { nearest_mode, ..Interpolate::default() };
            assert_eq!(resize(&op, &[1., 2., 3., 4.], 2), expected, "{nearest_mode}");
        }
    }

    #[test]
    fn antialias_averages_what_it_merges() {
        let op = Interpolate { mode: InterpolateMode::Linear, antialias: true, ..Interpolate::default() };
        let y = resize(&op, &[0., 0., 6., 6.], 1);
        assert!((y[0] - 3.0).abs() < 1e-6, "{y:?}");
        assert!(resize(&op, &[1., 2.], 0).is_empty());
    }

    #[test]
    fn hostile_sizes_and_scales_are_refused() {
        let x = Tensor::from_vec([2], vec![1f32, 2.]).expect("fits");
        let sizes = Interpolate::default();
        assert!(sizes.evaluate(&[x.clone(), Tensor::from_i64s(&[1 << 40])]).is_err());
        assert!(sizes.evaluate(&[x.clone(), Tensor::from_i64s(&[-1])]).is_err());
        let scales = Interpolate { shape_calculation_mode: ShapeCalculation::Scales, ..sizes };
        for s in [0f32, -1., f32::NAN, f32::INFINITY, 1e30] {
            let s = Tensor::from_vec([1], vec![s]).expect("fits");
            assert!(scales.evaluate(&[x.clone(), s]).is_err());
        }
    }
}
