//! Pooling over regions of interest.

use crate::{
    choice, dispatch_float,
    op::{InferContext, OpError, OpResult, OpRules, OutputType, movement::checked_len, unsupported_type},
    tensor::{Dimension, Element as _, ElementType, PartialShape, Tensor},
};

choice! {
    /// What a bin of a region becomes.
    pub enum PoolMode {
        /// The mean of its samples.
        Avg = "avg",
        /// The greatest of the four weighted pixels of any of its samples.
        Max = "max",
    }
}

choice! {
    /// How coordinates of regions are meant.
    pub enum AlignMode {
        /// Pixel centres at whole numbers; regions are at least one pixel wide.
        Asymmetric = "asymmetric",
        /// Pixel centres at halves; regions are at least one pixel wide.
        HalfPixelForNn = "half_pixel_for_nn",
        /// Pixel centres at halves.
        HalfPixel = "half_pixel",
    }
}

define_op! {
    /// Regions (input 1, `[r, 4]`: left, top, right, bottom) of images (input 0, `[n, c, h, w]`) that input 2 (`[r]`)
    /// names, cut into bins whose samples are interpolated.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/detection/roi-align-9.html>
    pub struct RoiAlign("ROIAlign", 9) {
        /// Rows of bins.
        pooled_h: i64 = 1,
        /// Columns of bins.
        pooled_w: i64 = 1,
        /// Samples per bin along each axis; 0 for as many as a bin has pixels, rounded up.
        sampling_ratio: i64 = 0,
        /// Pixels of the input per unit of the regions.
        spatial_scale: f64 = 1.0,
        /// What a bin becomes.
        mode: PoolMode = PoolMode::Avg,
        /// How coordinates are meant.
        aligned_mode: AlignMode = AlignMode::Asymmetric,
    }
}

/// Samples of one region at most: their number follows from coordinates, which may be anything.
const MAX_SAMPLES: usize = 1 << 26;

fn bins(h: i64, w: i64) -> OpResult<(usize, usize)> {
    let count = |name: &'static str, v: i64| {
        usize::try_from(v).ok().filter(|v| (1..=1 << 20).contains(v)).ok_or(OpError::Attribute {
            name,
            got: v.to_string(),
            expected: "a positive number".to_owned(),
        })
    };
    Ok((count("pooled_h", h)?, count("pooled_w", w)?))
}

fn infer_regions(cx: &InferContext<'_>, columns: usize, h: i64, w: i64) -> OpResult<Vec<OutputType>> {
    let (h, w) = bins(h, w)?;
    cx.expect_rank(0, 4..=4)?;
    cx.expect_rank(1, 2..=2)?;
    cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
    let regions = cx.shape(1);
    if !regions.dim(1).admits(columns) {
        return Err(OpError::Input {
            index: 1,
            got: format!("shape {regions}"),
            expected: format!("{columns} numbers per region"),
        });
    }
    let shape = [regions.dim(0), cx.shape(0).dim(1), Dimension::fixed(h), Dimension::fixed(w)];
    Ok(vec![OutputType::new(cx.element_type(0), PartialShape::new(&shape))])
}

/// A sample: four pixels of a plane with their weights.
type Sample = [(usize, f64); 4];

fn sample(y: f64, x: f64, h: usize, w: usize) -> Sample {
    let inside = |v: f64, extent: usize| v >= -1.0 && v <= extent as f64;
    if !inside(y, h) || !inside(x, w) {
        return [(0, 0.0); 4];
    }
    let between = |v: f64, extent: usize| {
        let low = (v.max(0.0) as usize).min(extent - 1);
        if low + 1 >= extent { (low, low, 0.0) } else { (low, low + 1, v.max(0.0) - low as f64) }
    };
    let ((top, bottom, fy), (left, right, fx)) = (between(y, h), between(x, w));
    [
        (top * w + left, (1.0 - fy) * (1.0 - fx)),
        (top * w + right, (1.0 - fy) * fx),
        (bottom * w + left, fy * (1.0 - fx)),
        (bottom * w + right, fy * fx),
    ]
}

impl RoiAlign {
    /// The samples of every bin of a region, bin by bin, and how many there are of each bin.
    fn samples(&self, region: &[f64], h: usize, w: usize) -> OpResult<(Vec<Sample>, usize)> {
        let (rows, columns) = bins(self.pooled_h, self.pooled_w)?;
        let half = if self.aligned_mode == AlignMode::Asymmetric { 0.0 } else { 0.5 };
        let edge = |v: f64| v * self.spatial_scale - half;
        let (left, top) = (edge(region[0]), edge(region[1]));
        let (mut width, mut height) = (edge(region[2]) - left, edge(region[3]) - top);
        if self.aligned_mode != AlignMode::HalfPixel {
            (width, height) = (width.max(1.0), height.max(1.0));
        }
        op_ensure!([left, top, width, height].iter().all(|v| v.is_finite()), "region {region:?} is not finite");
        let (bin_h, bin_w) = (height / rows as f64, width / columns as f64);
        let per_axis = |bin: f64| match usize::try_from(self.sampling_ratio) {
            Ok(n) if n > 0 => n,
            _ => bin.ceil().max(0.0) as usize,
        };
        let (ny, nx) = (per_axis(bin_h), per_axis(bin_w));
        let count = ny.saturating_mul(nx);
        let total = count.saturating_mul(rows * columns);
        op_ensure!(total <= MAX_SAMPLES, "region {region:?} has {total} samples, at most {MAX_SAMPLES} are taken");
        let mut samples = Vec::with_capacity(total);
        for (row, column) in (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))) {
            for (iy, ix) in (0..ny).flat_map(|y| (0..nx).map(move |x| (y, x))) {
                let y = top + row as f64 * bin_h + (iy as f64 + 0.5) * bin_h / ny as f64;
                let x = left + column as f64 * bin_w + (ix as f64 + 0.5) * bin_w / nx as f64;
                samples.push(sample(y, x, h, w));
            }
        }
        Ok((samples, count))
    }

    fn pool(&self, plane: &[f64], samples: &[Sample]) -> f64 {
        let parts = |s: &Sample| s.map(|(p, weight)| plane[p] * weight);
        match self.mode {
            PoolMode::Avg => {
                let sum: f64 = samples.iter().map(|s| parts(s).iter().sum::<f64>()).sum();
                sum / samples.len().max(1) as f64
            }
            PoolMode::Max if samples.is_empty() => 0.0,
            PoolMode::Max => samples.iter().flat_map(parts).fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

/// The image that a number names.
fn image(number: f64, images: usize) -> OpResult<usize> {
    let valid = number >= 0.0 && number < images as f64;
    op_ensure!(valid, "a region of image {number} of {images}");
    Ok(number as usize)
}

/// The result of `pool(plane, …)` for every region and channel, in the type of the data.
fn for_each_region(
    data: &Tensor,
    regions: usize,
    (rows, columns): (usize, usize),
    mut pool: impl FnMut(usize, &mut dyn FnMut(usize, &dyn Fn(&[f64], &mut [f64]))) -> OpResult<()>,
) -> OpResult<Tensor> {
    let d = data.shape();
    let (channels, plane, size) = (d[1], d[2] * d[3], rows * columns);
    let shape = [regions, channels, rows, columns];
    let mut out = vec![0.0; checked_len(&shape)?];
    let values = data.to_f64_vec()?;
    for region in 0..regions {
        pool(region, &mut |image, f| {
            for c in 0..channels {
                let from = &values[(image * channels + c) * plane..][..plane];
                f(from, &mut out[(region * channels + c) * size..][..size]);
            }
        })?;
    }
    let ty = data.element_type();
    dispatch_float!(ty, T => {
        Ok(Tensor::from_vec(shape, out.into_iter().map(T::from_f64).collect::<Vec<T>>())?)
    }, else Err(unsupported_type(ty)))
}

fn expect_regions(data: &Tensor, regions: &Tensor, columns: usize) -> OpResult<()> {
    let (d, r) = (data.shape(), regions.shape());
    op_ensure!(
        d.rank() == 4 && r.rank() == 2 && r[1] == columns,
        "data {d} and regions {r}, expected [n, c, h, w] and [r, {columns}]"
    );
    op_ensure!(r[0] == 0 || !d[2..].contains(&0), "regions of images {d}, which are empty");
    Ok(())
}

impl OpRules for RoiAlign {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=3)?;
        infer_regions(cx, 4, self.pooled_h, self.pooled_w)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        expect_regions(&inputs[0], &inputs[1], 4)?;
        let (d, regions) = (inputs[0].shape(), inputs[1].to_f64_vec()?);
        let images = inputs[2].to_f64_vec()?;
        op_ensure!(images.len() * 4 == regions.len(), "{} images for regions {}", images.len(), inputs[1].shape());
        let size = bins(self.pooled_h, self.pooled_w)?;
        let out = for_each_region(&inputs[0], images.len(), size, |r, each| {
            let (samples, count) = self.samples(&regions[r * 4..][..4], d[2], d[3])?;
            each(image(images[r], d[0])?, &|plane, out| {
                for (bin, value) in out.iter_mut().enumerate() {
                    *value = self.pool(plane, &samples[bin * count..][..count]);
                }
            });
            Ok(())
        })?;
        Ok(vec![out])
    }
}

choice! {
    /// What a bin of a region becomes.
    pub enum RoiPoolingMethod {
        /// The greatest of its pixels.
        Max = "max",
        /// One interpolated value; coordinates run from 0 to 1.
        Bilinear = "bilinear",
    }
}

define_op! {
    /// Regions (input 1, `[r, 5]`: image, left, top, right, bottom) of images (input 0, `[n, c, h, w]`), cut into bins.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/detection/roi-pooling-1.html>
    pub struct RoiPooling("ROIPooling", 2) {
        /// Rows of bins.
        pooled_h as "output_size_h": i64 = 1,
        /// Columns of bins.
        pooled_w as "output_size_w": i64 = 1,
        /// Pixels of the input per unit of the regions.
        spatial_scale: f64 = 1.0,
        /// What a bin becomes.
        method: RoiPoolingMethod = RoiPoolingMethod::Max,
    }
}

impl RoiPooling {
    fn greatest(&self, region: &[f64], plane: &[f64], (h, w): (usize, usize), out: &mut [f64]) {
        let (rows, columns) = (self.pooled_h as usize, self.pooled_w as usize);
        let edge = |v: f64| (v * self.spatial_scale).round();
        let span = |from: f64, to: f64, bins: usize, bin: usize, extent: usize| {
            let size = (to - from + 1.0).max(1.0) / bins as f64;
            let clip = |v: f64| (v + from).clamp(0.0, extent as f64) as usize;
            clip((bin as f64 * size).floor())..clip(((bin + 1) as f64 * size).ceil())
        };
        let (left, top, right, bottom) = (edge(region[0]), edge(region[1]), edge(region[2]), edge(region[3]));
        for (i, value) in out.iter_mut().enumerate() {
            let ys = span(top, bottom, rows, i / columns, h);
            let xs = span(left, right, columns, i % columns, w);
            let pixels = ys.flat_map(|y| plane[y * w..][..w][xs.clone()].iter().copied());
            *value = pixels.reduce(f64::max).unwrap_or(0.0);
        }
    }

    fn interpolated(&self, region: &[f64], plane: &[f64], (h, w): (usize, usize), out: &mut [f64]) {
        let (rows, columns) = (self.pooled_h as usize, self.pooled_w as usize);
        let place = |from: f64, to: f64, bins: usize, bin: usize, extent: usize| {
            let last = extent as f64 - 1.0;
            if bins > 1 {
                bin as f64 * (to - from) * last / (bins - 1) as f64 + from * last
            } else {
                0.5 * (from + to) * last
            }
        };
        for (i, value) in out.iter_mut().enumerate() {
            let y = place(region[1], region[3], rows, i / columns, h);
            let x = place(region[0], region[2], columns, i % columns, w);
            let inside = y >= 0.0 && x >= 0.0 && y <= h as f64 - 1.0 && x <= w as f64 - 1.0;
            *value = if inside { sample(y, x, h, w).iter().map(|(p, f)| plane[*p] * f).sum() } else { 0.0 };
        }
    }
}

impl OpRules for RoiPooling {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        infer_regions(cx, 5, self.pooled_h, self.pooled_w)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        expect_regions(&inputs[0], &inputs[1], 5)?;
        let (d, regions) = (inputs[0].shape(), inputs[1].to_f64_vec()?);
        let size = bins(self.pooled_h, self.pooled_w)?;
        let out = for_each_region(&inputs[0], inputs[1].shape()[0], size, |r, each| {
            let region = &regions[r * 5..][..5];
            op_ensure!(region.iter().all(|v| v.is_finite()), "region {region:?} is not finite");
            each(image(region[0], d[0])?, &|plane, out| match self.method {
                RoiPoolingMethod::Max => self.greatest(&region[1..], plane, (d[2], d[3]), out),
                RoiPoolingMethod::Bilinear => self.interpolated(&region[1..], plane, (d[2], d[3]), out),
            });
            Ok(())
        })?;
        Ok(vec![out])
    }
}
