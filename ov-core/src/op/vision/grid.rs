//! Sampling grids.

use smallvec::SmallVec;

use crate::{
    choice, dispatch_numeric,
    op::{
        InferContext, OpError, OpResult, OpRules, OutputType,
        movement::{FILL, checked_len, take_blocks},
        reshape::usizes,
        unsupported_type,
        window::advance,
    },
    tensor::{Dimension, Element, ElementType, PartialShape, Tensor, TensorBuffer},
};

define_op! {
    /// Positions, from -1 to 1 along each axis of images of a size (input 1, `[n, c, h, w]` or `[n, c, d, h, w]`), under
    /// affine maps (input 0, `[n, 2, 3]` or `[n, 3, 4]`). <https://onnx.ai/onnx/operators/onnx__AffineGrid.html>
    pub struct AffineGrid("AffineGrid", 0) {
        /// Whether -1 and 1 are the centres of the outermost pixels; else their outer edges.
        align_corners: bool = false,
    }
}

impl OpRules for AffineGrid {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        cx.expect_rank(0, 3..=3)?;
        cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
        let theta = cx.shape(0);
        let axes = theta.dim(1).value();
        let shape = match (cx.dims(1), axes) {
            (Some(size), _) if size.len() > 2 => {
                let axes = Dimension::fixed(size.len() - 2);
                [theta.dim(0)].into_iter().chain(size[2..].iter().copied()).chain([axes]).collect()
            }
            (None, Some(axes @ 1..=3)) => {
                let mut dims = vec![Dimension::DYNAMIC; axes + 2];
                (dims[0], dims[axes + 1]) = (theta.dim(0), Dimension::fixed(axes));
                PartialShape::new(&dims)
            }
            (None, None) => PartialShape::dynamic(),
            (size, axes) => {
                return Err(OpError::Invalid(format!("an image size {size:?} for maps of {axes:?} axes")));
            }
        };
        Ok(vec![OutputType::new(cx.element_type(0), shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (theta, size) = (inputs[0].shape(), usizes(&inputs[1], "image extent")?);
        let axes = size.len().saturating_sub(2);
        op_ensure!(
            axes > 0 && theta.rank() == 3 && theta[1] == axes && theta[2] == axes + 1,
            "maps of shape {theta} for images of size {size:?}"
        );
        let maps = inputs[0].to_f64_vec()?;
        let shape = [&theta[..1], &size[2..], &[axes]].concat();
        let mut out = Vec::with_capacity(checked_len(&shape)?);
        let position = |i: usize, extent: usize| match (extent, self.align_corners) {
            (0 | 1, _) => 0.0,
            (_, true) => 2.0 * i as f64 / (extent - 1) as f64 - 1.0,
            (_, false) => (2.0 * i as f64 + 1.0) / extent as f64 - 1.0,
        };
        if !shape.contains(&0) {
            for map in maps.chunks_exact(axes * (axes + 1)) {
                let mut index: SmallVec<[usize; 4]> = SmallVec::from_elem(0, axes);
                loop {
                    let at: SmallVec<[f64; 4]> =
                        index.iter().zip(&size[2..]).rev().map(|(i, d)| position(*i, *d)).collect();
                    out.extend(map.chunks_exact(axes + 1).map(|row| {
                        row.iter().zip(&at).map(|(r, p)| r * p).sum::<f64>() + row[axes]
                    }));
                    if !advance(&mut index, &size[2..]) {
                        break;
                    }
                }
            }
        }
        let out = Tensor::from_vec(shape, out)?;
        Ok(vec![out.cast(inputs[0].element_type())?])
    }
}

choice! {
    /// How values between pixels are found.
    pub enum GridMode {
        /// Linear along each axis.
        Bilinear = "bilinear",
        /// Cubic convolution along each axis, with a coefficient of -0.75.
        Bicubic = "bicubic",
        /// The nearest pixel, halves to the even one.
        Nearest = "nearest",
    }
}

choice! {
    /// What is read outside.
    pub enum GridPadding {
        /// Zero.
        Zeros = "zeros",
        /// The nearest pixel at the border.
        Border = "border",
        /// The image mirrored at its border, over and over.
        Reflection = "reflection",
    }
}

define_op! {
    /// Values of images (input 0, `[n, c, …]`) at positions from -1 to 1 (input 1, `[n, …, axes]`, the last axis of the
    /// image first). OpenVINO's has two spatial axes, this one any number.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/image/grid-sample-9.html>
    pub struct GridSample("GridSample", 9) {
        /// Whether -1 and 1 are the centres of the outermost pixels; else their outer edges.
        align_corners: bool = false,
        /// How values between pixels are found.
        mode: GridMode = GridMode::Bilinear,
        /// What is read outside.
        padding_mode: GridPadding = GridPadding::Zeros,
    }
}

/// The pixels along one axis that a value is made of, with their weights; outside of the image there is none.
type Taps = SmallVec<[(usize, f64); 4]>;

impl GridSample {
    /// The place of a position among pixels, in the precision of the grid: which pixel is nearest depends on it.
    fn place(&self, position: f64, extent: usize, double: bool) -> f64 {
        if double {
            let d = extent as f64;
            return if self.align_corners { (position + 1.0) / 2.0 * (d - 1.0) } else { ((position + 1.0) * d - 1.0) / 2.0 };
        }
        let (position, d) = (position as f32, extent as f32);
        f64::from(if self.align_corners {
            (position + 1.0) / 2.0 * (d - 1.0)
        } else {
            ((position + 1.0) * d - 1.0) / 2.0
        })
    }

    fn reflect(&self, place: f64, extent: usize) -> f64 {
        let edge = if self.align_corners { 0.0 } else { -0.5 };
        let (low, high) = (edge, extent as f64 - 1.0 - edge);
        let range = high - low;
        if range <= 0.0 {
            return 0.0;
        }
        let far = (place - low).rem_euclid(2.0 * range);
        low + if far > range { 2.0 * range - far } else { far }
    }

    /// The pixel that stands for pixel `index`, which may be outside.
    fn pixel(&self, index: f64, extent: usize) -> Option<usize> {
        let last = extent as f64 - 1.0;
        let index = match self.padding_mode {
            GridPadding::Zeros if index < 0.0 || index > last => return None,
            GridPadding::Zeros => index,
            GridPadding::Border => index.clamp(0.0, last),
            GridPadding::Reflection => self.reflect(index, extent).clamp(0.0, last),
        };
        Some(index as usize)
    }

    fn taps(&self, position: f64, extent: usize, double: bool) -> Taps {
        let edge = if self.align_corners { 0.0 } else { -0.5 };
        let mut place = self.place(position, extent, double);
        if !place.is_finite() {
            // Further outside than any kernel reaches.
            place = -4.0;
        }
        if self.mode == GridMode::Nearest {
            place = place.round_ties_even();
        }
        if place < edge || place > extent as f64 - 1.0 - edge {
            place = match self.padding_mode {
                GridPadding::Zeros => place,
                // Cubic convolution weighs the repeated border with what is inside, as PyTorch's does.
                GridPadding::Border if self.mode == GridMode::Bicubic => place,
                GridPadding::Border => place.clamp(0.0, extent as f64 - 1.0),
                GridPadding::Reflection => self.reflect(place, extent),
            };
        }
        let first = place.floor();
        let t = place - first;
        let weights: SmallVec<[(f64, f64); 4]> = match self.mode {
            GridMode::Nearest => SmallVec::from_slice(&[(place, 1.0)]),
            GridMode::Bilinear => SmallVec::from_slice(&[(first, 1.0 - t), (first + 1.0, t)]),
            GridMode::Bicubic => {
                let near = |x: f64| (1.25 * x - 2.25) * x * x + 1.0;
                let far = |x: f64| ((-0.75 * x + 3.75) * x - 6.0) * x + 3.0;
                SmallVec::from_slice(&[
                    (first - 1.0, far(t + 1.0)),
                    (first, near(t)),
                    (first + 1.0, near(1.0 - t)),
                    (first + 2.0, far(2.0 - t)),
                ])
            }
        };
        weights.into_iter().filter_map(|(i, w)| Some((self.pixel(i, extent)?, w))).collect()
    }

    /// Calls `f(image, position, pixels)` with the weighted pixels, numbered within a plane, for every position.
    fn for_each_position(
        &self,
        extents: &[usize],
        grid: &Tensor,
        mut f: impl FnMut(usize, usize, &[(usize, f64)]),
    ) -> OpResult<()> {
        let (axes, double) = (extents.len(), grid.element_type() == ElementType::F64);
        let positions = grid.to_f64_vec()?;
        let per_image = positions.len() / axes / grid.shape()[0].max(1);
        let mut pixels: Vec<(usize, f64)> = Vec::new();
        let mut next: Vec<(usize, f64)> = Vec::new();
        for (i, at) in positions.chunks_exact(axes).enumerate() {
            pixels.clear();
            pixels.push((0, 1.0));
            for (extent, position) in extents.iter().zip(at.iter().rev()) {
                let taps = self.taps(*position, *extent, double);
                next.clear();
                for (pixel, weight) in &pixels {
                    next.extend(taps.iter().map(|(tap, w)| (pixel * extent + tap, weight * w)));
                }
                std::mem::swap(&mut pixels, &mut next);
            }
            f(i / per_image, i % per_image, &pixels);
        }
        Ok(())
    }

    fn interpolate<T: Element>(&self, data: &Tensor, grid: &Tensor, shape: &[usize], parts: usize) -> OpResult<Tensor>
    where
        Vec<T>: TensorBuffer,
    {
        let extents = &data.shape()[2..];
        let plane: usize = extents.iter().product::<usize>() * parts;
        let channels = data.shape()[1];
        let values = data.as_slice_of_parts::<T>(parts)?;
        let places: usize = shape[2..].iter().product();
        let mut out = vec![T::from_f64(0.0); checked_len(shape)? * parts];
        self.for_each_position(extents, grid, |image, place, pixels| {
            for c in 0..channels {
                let from = &values[(image * channels + c) * plane..][..plane];
                for part in 0..parts {
                    let sum: f64 = pixels.iter().map(|(p, w)| from[p * parts + part].to_f64() * w).sum();
                    out[((image * channels + c) * places + place) * parts + part] = T::from_f64(sum);
                }
            }
        })?;
        if parts == 1 {
            return Ok(Tensor::from_vec(shape, out)?);
        }
        Ok(Tensor::from_bytes(data.element_type(), shape, bytemuck::cast_slice(&out))?)
    }
}

impl Tensor {
    /// The elements of a contiguous tensor as `parts` numbers each: 2 for complex types.
    fn as_slice_of_parts<T: Element>(&self, parts: usize) -> OpResult<&[T]> {
        if parts == 1 {
            return Ok(self.as_slice::<T>()?);
        }
        bytemuck::try_cast_slice(self.bytes()).map_err(|e| OpError::Invalid(format!("tensor memory: {e}")))
    }
}

impl OpRules for GridSample {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        cx.expect_rank(0, 3..=usize::MAX)?;
        cx.expect_rank(1, 3..=usize::MAX)?;
        cx.expect_type(1, "a floating-point type", ElementType::is_float)?;
        let (data, grid) = (cx.shape(0), cx.shape(1));
        let shape = match grid.dims() {
            Some(dims) => {
                if let Some(rank) = data.rank().filter(|r| *r != dims.len()) {
                    return Err(OpError::Input {
                        index: 1,
                        got: format!("rank {}", dims.len()),
                        expected: format!("rank {rank}, as the data"),
                    });
                }
                let n = data.dim(0).intersect(dims[0]).unwrap_or_else(|| data.dim(0));
                [n, data.dim(1)].into_iter().chain(dims[1..dims.len() - 1].iter().copied()).collect()
            }
            None => data.rank().map_or_else(PartialShape::dynamic, PartialShape::dynamic_rank),
        };
        Ok(vec![OutputType::new(cx.element_type(0), shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (data, grid) = (inputs[0].to_contiguous(), &inputs[1]);
        let (d, g) = (data.shape(), grid.shape());
        let axes = d.rank().saturating_sub(2);
        op_ensure!(
            axes > 0 && g.rank() == d.rank() && g[g.rank() - 1] == axes && g[0] == d[0],
            "data {d} and grid {g} do not suit"
        );
        let shape = [&d[..2], &g[1..g.rank() - 1]].concat();
        let empty = checked_len(&shape)? == 0;
        op_ensure!(empty || !d.contains(&0), "positions in data {d}, which is empty");
        let ty = data.element_type();
        if empty {
            return Ok(vec![Tensor::zeros(ty, shape)?]);
        }
        if self.mode == GridMode::Nearest {
            let (plane, places): (usize, usize) = (d[2..].iter().product(), shape[2..].iter().product());
            let mut starts = vec![FILL; shape.iter().product()];
            self.for_each_position(&d[2..], grid, |image, place, pixels| {
                let Some((pixel, _)) = pixels.first() else { return };
                for c in 0..d[1] {
                    starts[(image * d[1] + c) * places + place] = (image * d[1] + c) * plane + pixel;
                }
            })?;
            return Ok(vec![take_blocks(&data, &shape, 1, &starts)?]);
        }
        Ok(vec![match ty {
            ElementType::Complex64 => self.interpolate::<f32>(&data, grid, &shape, 2)?,
            ElementType::Complex128 => self.interpolate::<f64>(&data, grid, &shape, 2)?,
            ElementType::Boolean => self
                .interpolate::<f32>(&data.cast(ElementType::F32)?, grid, &shape, 1)?
                .cast(ElementType::Boolean)?,
            _ => dispatch_numeric!(ty, T => self.interpolate::<T>(&data, grid, &shape, 1)?, else {
                return Err(unsupported_type(ty));
            }),
        }])
    }
}
