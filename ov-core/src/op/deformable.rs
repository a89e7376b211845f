//! Convolution at displaced positions, and the assembly of an image from its columns.

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType,
    movement::checked_len,
    present,
    reshape::{target_shape, usizes},
    window::{AutoPad, Rounding, Window, advance},
};
use crate::{
    dispatch_float, dispatch_numeric,
    tensor::{Dimension, PartialShape, Tensor},
};

define_op! {
    /// Convolution whose every filter element reads at a position moved by an offset; inputs data `[n, c, h, w]`,
    /// offsets `[n, 2 d kh kw, oh, ow]`, filters `[o, c / g, kh, kw]` and weights of the positions `[n, d kh kw, oh, ow]`.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/convolution/deformable-convolution-8.html>
    pub struct DeformableConvolution("DeformableConvolution", 8) {
        /// Distance of neighbouring windows.
        strides: Vec<i64> = Vec::new(),
        /// Padding before the data.
        pads_begin: Vec<i64> = Vec::new(),
        /// Padding after the data.
        pads_end: Vec<i64> = Vec::new(),
        /// Distance of neighbouring filter elements.
        dilations: Vec<i64> = Vec::new(),
        /// How padding is found.
        auto_pad: AutoPad = AutoPad::Explicit,
        /// Groups of channels.
        group: i64 = 1,
        /// Groups of channels that share offsets.
        deformable_group: i64 = 1,
        /// Whether positions up to one element outside are interpolated with zeros instead of being zero.
        bilinear_interpolation_pad: bool = false,
    }
}

impl DeformableConvolution {
    fn groups(&self) -> OpResult<(usize, usize)> {
        let count = |name: &'static str, v: i64| {
            usize::try_from(v).ok().filter(|v| (1..1 << 20).contains(v)).ok_or(OpError::Attribute {
                name,
                got: v.to_string(),
                expected: "a positive number".to_owned(),
            })
        };
        Ok((count("group", self.group)?, count("deformable_group", self.deformable_group)?))
    }

    fn windows(&self, kernel: &[usize]) -> OpResult<Vec<Window>> {
        Window::from_attributes(kernel, &self.strides, &self.dilations, &self.pads_begin, &self.pads_end)
    }

    /// The value at a position between elements of a plane.
    fn sample(&self, plane: &[f64], (h, w): (usize, usize), (y, x): (f64, f64)) -> f64 {
        let (bottom, right) = (h as f64, w as f64);
        let inside = if self.bilinear_interpolation_pad {
            y > -1.0 && x > -1.0 && y < bottom && x < right
        } else {
            y >= 0.0 && x >= 0.0 && y < bottom && x < right
        };
        if !inside {
            return 0.0;
        }
        let (top, left) = (y.floor(), x.floor());
        let (fy, fx) = (y - top, x - left);
        let at = |r: f64, c: f64| {
            let (r, c) = if self.bilinear_interpolation_pad {
                (r, c)
            } else {
                (r.min(bottom - 1.0), c.min(right - 1.0))
            };
            if r < 0.0 || c < 0.0 || r >= bottom || c >= right { 0.0 } else { plane[r as usize * w + c as usize] }
        };
        (1.0 - fy) * ((1.0 - fx) * at(top, left) + fx * at(top, left + 1.0))
            + fy * ((1.0 - fx) * at(top + 1.0, left) + fx * at(top + 1.0, left + 1.0))
    }
}

impl OpRules for DeformableConvolution {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=4)?;
        for i in 0..cx.len() {
            cx.expect_rank(i, 4..=4)?;
        }
        self.groups()?;
        let ty = cx.common_type([0, 1, 2])?;
        let (data, filters) = (cx.shape(0), cx.shape(2));
        let mut out = vec![data.dim(0), filters.dim(0)];
        for i in 2..4 {
            out.push(match filters.dim(i).value().filter(|k| *k > 0) {
                Some(kernel) => {
                    let window = self.windows(&[kernel, kernel])?[i - 2];
                    window.output_dim(data.dim(i), self.auto_pad, Rounding::Floor)?
                }
                None => Dimension::DYNAMIC,
            });
        }
        Ok(vec![OutputType::new(ty, PartialShape::new(&out))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (data, offsets, filters) = (inputs[0].shape(), inputs[1].shape(), inputs[2].shape());
        op_ensure!(
            [data, offsets, filters].iter().all(|s| s.rank() == 4),
            "data {data}, offsets {offsets} and filters {filters} are not all of rank 4"
        );
        let (groups, shared) = self.groups()?;
        let [n, c, h, w] = [data[0], data[1], data[2], data[3]];
        let [o, ins, kh, kw] = [filters[0], filters[1], filters[2], filters[3]];
        op_ensure!(
            ins.checked_mul(groups) == Some(c) && o % groups == 0 && c % shared == 0,
            "{groups} groups and {shared} offset groups do not suit data {data} and filters {filters}"
        );
        let windows: Vec<Window> = self
            .windows(&[kh, kw])?
            .iter()
            .zip(&data[2..])
            .map(|(w, d)| w.padded(self.auto_pad, *d))
            .collect();
        let oh = windows[0].outputs(h, Rounding::Floor)?;
        let ow = windows[1].outputs(w, Rounding::Floor)?;
        let taps = kh * kw;
        op_ensure!(
            offsets[..] == [n, 2 * shared * taps, oh, ow],
            "offsets have shape {offsets}, expected [{n},{},{oh},{ow}]",
            2 * shared * taps
        );
        let weights = present(inputs, 3);
        op_ensure!(
            weights.is_none_or(|m| m.shape()[..] == [n, shared * taps, oh, ow]),
            "weights of positions do not have shape [{n},{},{oh},{ow}]",
            shared * taps
        );
        let len = checked_len(&[n, o, oh, ow])?;
        let (x, moved, f) = (inputs[0].to_f64_vec()?, inputs[1].to_f64_vec()?, inputs[2].to_f64_vec()?);
        let weights = weights.map(Tensor::to_f64_vec).transpose()?;
        let mut out = vec![0.0; len];
        let (plane, spots) = (h * w, oh * ow);
        for (b, channel) in (0..n).flat_map(|b| (0..c).map(move |k| (b, k))) {
            let source = &x[(b * c + channel) * plane..][..plane];
            let (group, offset_group) = (channel / ins, channel / (c / shared));
            for (tap, spot) in (0..taps).flat_map(|t| (0..spots).map(move |s| (t, s))) {
                let at = ((b * shared + offset_group) * taps + tap) * 2 * spots + spot;
                let position = |axis: usize, output: usize, k: usize| {
                    let window = &windows[axis];
                    (output * window.stride + k * window.dilation) as f64 - window.begin as f64
                };
                let y = position(0, spot / ow, tap / kw) + moved[at];
                let x = position(1, spot % ow, tap % kw) + moved[at + spots];
                let weight = weights
                    .as_ref()
                    .map_or(1.0, |m| m[((b * shared + offset_group) * taps + tap) * spots + spot]);
                let value = weight * self.sample(source, (h, w), (y, x));
                for k in group * (o / groups)..(group + 1) * (o / groups) {
                    out[(b * o + k) * spots + spot] += value * f[(k * ins + channel % ins) * taps + tap];
                }
            }
        }
        let ty = inputs[0].element_type();
        let out = dispatch_float!(ty, T => Tensor::from_f64s::<T>([n, o, oh, ow], &out), else {
            return Err(OpError::Unsupported(format!("element type {ty}")));
        })?;
        Ok(vec![out])
    }
}

define_op! {
    /// The image whose windows were laid out as columns, overlapping ones added; inputs columns `[n, c Π kernel, l]`,
    /// the spatial extents and the kernel. Any number of spatial axes.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/col2im-15.html>
    pub struct Col2Im("Col2Im", 15) {
        /// Distance of neighbouring windows.
        strides: Vec<i64> = Vec::new(),
        /// Distance of neighbouring window elements.
        dilations: Vec<i64> = Vec::new(),
        /// Padding before the image.
        pads_begin: Vec<i64> = Vec::new(),
        /// Padding after the image.
        pads_end: Vec<i64> = Vec::new(),
    }
}

impl OpRules for Col2Im {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=3)?;
        cx.expect_rank(0, 2..=3)?;
        let (columns, image) = (cx.shape(0), target_shape(cx, 1)?);
        let shape = match (columns.dims(), image.dims(), target_shape(cx, 2)?.to_shape()) {
            (Some(d), Some(image), Some(kernel)) => {
                let volume = kernel.checked_len().filter(|v| *v > 0);
                let volume = volume.ok_or_else(|| OpError::Invalid(format!("a kernel of {kernel}")))?;
                let (batch, rest) = d.split_at(d.len() - 2);
                let channels = rest[0].map(|c| c / volume);
                batch.iter().copied().chain([channels]).chain(image.iter().copied()).collect()
            }
            _ => PartialShape::dynamic(),
        };
        Ok(vec![OutputType::new(cx.element_type(0), shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape();
        let (image, kernel) = (usizes(&inputs[1], "extent")?, usizes(&inputs[2], "kernel extent")?);
        op_ensure!(
            (2..=3).contains(&shape.rank()) && image.len() == kernel.len() && !kernel.contains(&0),
            "columns {shape}, image {image:?} and kernel {kernel:?} do not suit each other"
        );
        let windows =
            Window::from_attributes(&kernel, &self.strides, &self.dilations, &self.pads_begin, &self.pads_end)?;
        let counts: Vec<usize> = windows
            .iter()
            .zip(&image)
            .map(|(w, e)| w.outputs(*e, Rounding::Floor))
            .collect::<OpResult<_>>()?;
        let volume = checked_len(&kernel)?;
        let blocks = checked_len(&counts)?;
        let batch = if shape.rank() == 3 { shape[0] } else { 1 };
        let (rows, columns) = (shape[shape.rank() - 2], shape[shape.rank() - 1]);
        op_ensure!(
            rows % volume == 0 && columns == blocks,
            "columns {shape} are not {blocks} windows of multiples of {volume} elements"
        );
        let channels = rows / volume;
        let mut out_shape = shape[..shape.rank() - 2].to_vec();
        out_shape.push(channels);
        out_shape.extend(&image);
        let len = checked_len(&out_shape)?;
        let plane: usize = image.iter().product();
        let values = inputs[0].to_f64_vec()?;
        let mut out = vec![0.0; len];
        let (mut k, mut at) = (vec![0; kernel.len()], vec![0; kernel.len()]);
        for tap in 0..volume {
            at.fill(0);
            for block in 0..blocks {
                let target = windows.iter().zip(&at).zip(&k).zip(&image).try_fold(0usize, |t, (((w, o), k), e)| {
                    let place = (o * w.stride + k * w.dilation) as i64 - w.begin;
                    usize::try_from(place).ok().filter(|p| p < e).map(|p| t * e + p)
                });
                if let Some(target) = target {
                    for c in 0..batch * channels {
                        out[c * plane + target] += values[(c * volume + tap) * blocks + block];
                    }
                }
                advance(&mut at, &counts);
            }
            advance(&mut k, &kernel);
        }
        let ty = inputs[0].element_type();
        let out = dispatch_numeric!(ty, T => Tensor::from_f64s::<T>(out_shape, &out), else {
            return Err(OpError::Unsupported(format!("element type {ty}")));
        })?;
        Ok(vec![out])
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[OpEntry::of::<DeformableConvolution>(), OpEntry::of::<Col2Im>()];

#[cfg(test)]
mod tests {
    use super::*;

    fn f(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec()).expect("fits")
    }

    #[test]
    fn offsets_move_what_a_filter_reads() {
        let x = f(&[1, 1, 1, 3], &[1., 2., 4.]);
        let filter = f(&[1, 1, 1, 1], &[10.]);
        for (bilinear_interpolation_pad, moves, expected) in [
            (false, [0.0f32, 0., 0.], [10., 20., 40.]),
            (false, [0.5, 0.5, 0.], [15., 30., 40.]),
            (true, [-0.5, 0., 0.5], [5., 20., 20.]),
            (false, [-0.5, 0., 1.0], [0., 20., 0.]),
        ] {
            let op = DeformableConvolution { bilinear_interpolation_pad, ..DeformableConvolution::default() };
            let offsets = f(&[1, 2, 1, 3], &[0., 0., 0., moves[0], moves[1], moves[2]]);
            let y = op.evaluate(&[x.clone(), offsets, filter.clone()]).expect("valid");
            assert_eq!(y[0].to_f64_vec().expect("f32"), expected, "{moves:?}");
        }
        let wrong = f(&[1, 2, 1, 2], &[0.; 4]);
        assert!(DeformableConvolution::default().evaluate(&[x, wrong, filter]).is_err());
    }

    #[test]
    fn overlapping_columns_add_up() {
        let columns = f(&[1, 2, 3], &[1., 2., 3., 4., 5., 6.]);
        let inputs = [columns, Tensor::from_i64s(&[4]), Tensor::from_i64s(&[2])];
        let y = Col2Im::default().evaluate(&inputs).expect("valid");
        assert_eq!(y[0].to_f64_vec().expect("f32"), [1., 6., 8., 6.]);
        for (image, kernel) in [(5, 2), (4, 0), (4, 3), (1 << 40, 1)] {
            let inputs = [inputs[0].clone(), Tensor::from_i64s(&[image]), Tensor::from_i64s(&[kernel])];
            assert!(Col2Im::default().evaluate(&inputs).is_err());
        }
    }
}
