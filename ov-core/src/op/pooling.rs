//! Pooling over windows.
#![allow(clippy::eq_op, reason = "NaN is what differs from itself, for every element type")]

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType,
    movement::checked_len,
    normalize_axis,
    window::{AutoPad, Rounding, Window, advance, spatial},
};
use crate::{
    dispatch_float, dispatch_numeric,
    tensor::{Dimension, Element, ElementType, PartialShape, Tensor, TensorBuffer},
};

macro_rules! pool_op {
    ($(#[$meta:meta])* $name:ident($text:literal, $opset:literal) { $($(#[$fmeta:meta])* $field:ident $(as $ir:literal)? : $ty:ty = $default:expr),* $(,)? }) => {
        define_op! {
            $(#[$meta])*
            pub struct $name($text, $opset) {
                /// Distance of neighbouring windows.
                strides: Vec<i64> = Vec::new(),
                /// Padding before the data.
                pads_begin: Vec<i64> = Vec::new(),
                /// Padding after the data.
                pads_end: Vec<i64> = Vec::new(),
                /// Extents of a window.
                kernel: Vec<i64> = Vec::new(),
                /// How a fraction of a window at the end counts.
                rounding_type: Rounding = Rounding::Floor,
                /// How padding is found.
                auto_pad: AutoPad = AutoPad::Explicit,
                $($(#[$fmeta])* $field $(as $ir)? : $ty = $default),*
            }
        }
    };
}

pool_op! {
    /// Largest element of each window.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/pooling/max-pool-1.html>
    MaxPool1("MaxPool", 1) {}
}

pool_op! {
    /// Largest element of each window, and where it was.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/pooling/max-pool-8.html>
    MaxPool8("MaxPool", 8) {
        /// Distance of neighbouring window elements.
        dilations: Vec<i64> = Vec::new(),
        /// Element type of the indices.
        index_element_type: ElementType = ElementType::I64,
        /// First axis that indices count from.
        axis: i64 = 0,
    }
}

pool_op! {
    /// Largest element of each window, and where it was; `ceil_torch` rounding too.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/pooling/max-pool-14.html>
    MaxPool("MaxPool", 14) {
        /// Distance of neighbouring window elements.
        dilations: Vec<i64> = Vec::new(),
        /// Element type of the indices.
        index_element_type: ElementType = ElementType::I64,
        /// First axis that indices count from.
        axis: i64 = 0,
    }
}

pool_op! {
    /// Mean of each window.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/pooling/avg-pool-1.html>
    AvgPool1("AvgPool", 1) {
        /// Whether padding counts as zeros or not at all.
        exclude_pad as "exclude-pad": bool = true,
    }
}

pool_op! {
    /// Mean of each window; `ceil_torch` rounding too.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/pooling/avg-pool-14.html>
    AvgPool14("AvgPool", 14) {
        /// Whether padding counts as zeros or not at all.
        exclude_pad as "exclude-pad": bool = true,
    }
}

pool_op! {
    /// Mean of each window, which may be dilated.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/pooling/avg-pool-16.html>
    AvgPool("AvgPool", 16) {
        /// Distance of neighbouring window elements.
        dilations: Vec<i64> = Vec::new(),
        /// Whether padding counts as zeros or not at all.
        exclude_pad as "exclude-pad": bool = true,
    }
}

pool_op! {
    /// `(Σ |x|^p)^(1/p)` of each window, as ONNX's `LpPool`. <https://onnx.ai/onnx/operators/onnx__LpPool.html>
    LpPool("LpPool", 0) {
        /// Distance of neighbouring window elements.
        dilations: Vec<i64> = Vec::new(),
        /// The exponent.
        p: i64 = 2,
    }
}

struct Pool {
    windows: Vec<Window>,
    auto: AutoPad,
    rounding: Rounding,
}

impl Pool {
    fn new(
        kernel: &[i64],
        strides: &[i64],
        dilations: &[i64],
        pads: (&[i64], &[i64]),
        auto: AutoPad,
        rounding: Rounding,
    ) -> OpResult<Self> {
        let extents: Option<Vec<usize>> = kernel
            .iter()
            .map(|k| usize::try_from(*k).ok().filter(|k| *k > 0 && *k <= i32::MAX as usize))
            .collect();
        let extents = extents.ok_or_else(|| OpError::Attribute {
            name: "kernel",
            got: format!("{kernel:?}"),
            expected: "positive extents".to_owned(),
        })?;
        let windows = Window::from_attributes(&extents, strides, dilations, pads.0, pads.1)?;
        Ok(Self { windows, auto, rounding })
    }

    fn infer_shape(&self, cx: &InferContext<'_>) -> OpResult<PartialShape> {
        cx.expect_inputs(1..=1)?;
        let rank = self.windows.len() + 2;
        cx.expect_rank(0, rank..=rank)?;
        let data = cx.shape(0);
        let mut out = vec![data.dim(0), data.dim(1)];
        for (i, w) in self.windows.iter().enumerate() {
            let d = spatial(&data).map_or(Dimension::DYNAMIC, |s| s[i]);
            out.push(w.output_dim(d, self.auto, self.rounding)?);
        }
        Ok(PartialShape::new(&out))
    }

    /// Windows with their padding, and the output extents, for data of `shape`.
    fn resolve(&self, shape: &[usize]) -> OpResult<(Vec<Window>, Vec<usize>)> {
        op_ensure!(
            shape.len() == self.windows.len() + 2,
            "input has rank {}, expected {}",
            shape.len(),
            self.windows.len() + 2
        );
        let windows: Vec<Window> =
            self.windows.iter().zip(&shape[2..]).map(|(w, d)| w.padded(self.auto, *d)).collect();
        let mut out = shape[..2].to_vec();
        for (w, d) in windows.iter().zip(&shape[2..]) {
            out.push(w.output_dim(Dimension::fixed(*d), AutoPad::Explicit, self.rounding)?.min());
        }
        checked_len(&out)?;
        Ok((windows, out))
    }

    /// Calls `window(plane, taps, place)` for each output in order, with the positions of its elements in the plane.
    fn for_each(
        &self,
        shape: &[usize],
        mut window: impl FnMut(usize, &[usize], &[usize]),
    ) -> OpResult<Vec<usize>> {
        let (windows, out) = self.resolve(shape)?;
        if out.contains(&0) {
            return Ok(out);
        }
        let extents = &shape[2..];
        let mut taps = Vec::new();
        for plane in 0..shape[0] * shape[1] {
            let mut at = vec![0usize; windows.len()];
            loop {
                taps.clear();
                let ranges: Vec<_> =
                    windows.iter().zip(&at).zip(extents).map(|((w, o), e)| w.inside(*o, *e)).collect();
                collect_taps(&windows, &ranges, extents, 0, &mut taps);
                window(plane, &taps, &at);
                if !advance(&mut at, &out[2..]) {
                    break;
                }
            }
        }
        Ok(out)
    }
}

fn collect_taps(
    windows: &[Window],
    ranges: &[(std::ops::Range<usize>, i64)],
    extents: &[usize],
    base: usize,
    taps: &mut Vec<usize>,
) {
    let Some(((range, start), rest)) = ranges.split_first() else {
        taps.push(base);
        return;
    };
    for k in range.clone() {
        let at = (*start + (k * windows[0].dilation) as i64) as usize;
        collect_taps(&windows[1..], rest, &extents[1..], base * extents[0] + at, taps);
    }
}

fn max_pool<T: Element>(pool: &Pool, data: &Tensor, axis: usize) -> OpResult<(Tensor, Vec<i64>)>
where
    Vec<T>: TensorBuffer,
{
    let source = data.as_slice::<T>()?;
    let plane_len: usize = data.shape()[2..].iter().product();
    let counted: usize = data.shape()[axis.min(2)..].iter().product();
    let lowest = T::from_f64(f64::NEG_INFINITY);
    let (mut values, mut indices) = (Vec::new(), Vec::new());
    let shape = pool.for_each(data.shape(), |plane, taps, _| {
        let start = plane * plane_len;
        let mut best: Option<(T, usize)> = None;
        for tap in taps {
            let v = source[start + tap];
            let larger = best.is_none_or(|(b, _)| v > b || (v != v && b == b));
            if larger {
                best = Some((v, start + tap));
            }
        }
        let (v, at) = best.unwrap_or((lowest, start));
        values.push(v);
        indices.push((at % counted.max(1)) as i64);
    })?;
    Ok((Tensor::from_vec(shape, values)?, indices))
}

fn evaluate_max(pool: &Pool, data: &Tensor, axis: i64, index_type: Option<ElementType>) -> OpResult<Vec<Tensor>> {
    let data = data.to_contiguous();
    let axis = normalize_axis(axis, data.rank())?;
    op_ensure!(axis <= 2, "indices count from axis {axis}, expected 0 to 2");
    let ty = data.element_type();
    let (values, indices) = dispatch_numeric!(ty, T => max_pool::<T>(pool, &data, axis), else {
        Err(OpError::Unsupported(format!("element type {ty}")))
    })?;
    let Some(index_type) = index_type else { return Ok(vec![values]) };
    let indices = Tensor::from_vec(values.shape().clone(), indices)?.cast(index_type)?;
    Ok(vec![values, indices])
}

/// Mean over each window of floats or integers.
fn evaluate_avg(pool: &Pool, data: &Tensor, exclude_pad: bool) -> OpResult<Vec<Tensor>> {
    fn typed<T: Element>(pool: &Pool, data: &Tensor, exclude_pad: bool) -> OpResult<Tensor>
    where
        Vec<T>: TensorBuffer,
    {
        let source = data.as_slice::<T>()?;
        let extents = &data.shape()[2..];
        let plane_len: usize = extents.iter().product();
        let (windows, _) = pool.resolve(data.shape())?;
        let mut values = Vec::new();
        let shape = pool.for_each(data.shape(), |plane, taps, at| {
            let sum: f64 = taps.iter().map(|t| source[plane * plane_len + t].to_f64()).sum();
            let count = if exclude_pad {
                taps.len()
            } else {
                windows.iter().zip(at).zip(extents).map(|((w, o), e)| padded_taps(w, *o, *e)).product()
            };
            values.push(T::from_f64(if count == 0 { 0.0 } else { sum / count as f64 }));
        })?;
        Ok(Tensor::from_vec(shape, values)?)
    }
    let data = data.to_contiguous();
    let ty = data.element_type();
    dispatch_numeric!(ty, T => typed::<T>(pool, &data, exclude_pad), else {
        Err(OpError::Unsupported(format!("element type {ty}")))
    })
    .map(|t| vec![t])
}

/// Window elements inside the data and its padding; a window that reaches past both counts only what is there.
fn padded_taps(w: &Window, output: usize, extent: usize) -> usize {
    let start = output as i64 * w.stride as i64 - w.begin;
    let room = extent as i64 + w.end - start;
    let dilation = w.dilation as i64;
    usize::try_from((room + dilation - 1).div_euclid(dilation)).unwrap_or(0).min(w.kernel)
}

macro_rules! pool_of {
    ($op:expr, $dilations:expr) => {
        Pool::new(
            &$op.kernel,
            &$op.strides,
            $dilations,
            (&$op.pads_begin, &$op.pads_end),
            $op.auto_pad,
            $op.rounding_type,
        )
    };
}

impl OpRules for MaxPool1 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        let shape = pool_of!(self, &[])?.infer_shape(cx)?;
        Ok(vec![OutputType::new(cx.element_type(0), shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        evaluate_max(&pool_of!(self, &[])?, &inputs[0], 0, None)
    }
}

macro_rules! max_pool_rules {
    ($($op:ident),*) => {$(
        impl OpRules for $op {
            fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                let shape = pool_of!(self, &self.dilations)?.infer_shape(cx)?;
                Ok(vec![
                    OutputType::new(cx.element_type(0), shape.clone()),
                    OutputType::new(self.index_element_type, shape),
                ])
            }

            fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                let pool = pool_of!(self, &self.dilations)?;
                evaluate_max(&pool, &inputs[0], self.axis, Some(self.index_element_type))
            }
        }
    )*};
}
max_pool_rules!(MaxPool8, MaxPool);

macro_rules! avg_pool_rules {
    ($($op:ident: $self:ident => $dilations:expr),*) => {$(
        impl OpRules for $op {
            fn infer(&$self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                let shape = pool_of!($self, $dilations)?.infer_shape(cx)?;
                Ok(vec![OutputType::new(cx.element_type(0), shape)])
            }

            fn evaluate(&$self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                evaluate_avg(&pool_of!($self, $dilations)?, &inputs[0], $self.exclude_pad)
            }
        }
    )*};
}
avg_pool_rules!(AvgPool1: self => &[], AvgPool14: self => &[], AvgPool: self => &self.dilations);

impl OpRules for LpPool {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        let shape = pool_of!(self, &self.dilations)?.infer_shape(cx)?;
        op_ensure!(self.p > 0, "the exponent is {}, expected a positive one", self.p);
        Ok(vec![OutputType::new(cx.element_type(0), shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        fn typed<T: Element>(pool: &Pool, data: &Tensor, p: f64) -> OpResult<Tensor>
        where
            Vec<T>: TensorBuffer,
        {
            let source = data.as_slice::<T>()?;
            let plane_len: usize = data.shape()[2..].iter().product();
            let mut values = Vec::new();
            let shape = pool.for_each(data.shape(), |plane, taps, _| {
                let power = |t: &usize| source[plane * plane_len + t].to_f64().abs().powf(p);
                values.push(T::from_f64(taps.iter().map(power).sum::<f64>().powf(1.0 / p)));
            })?;
            Ok(Tensor::from_vec(shape, values)?)
        }
        let pool = pool_of!(self, &self.dilations)?;
        let data = inputs[0].to_contiguous();
        let ty = data.element_type();
        dispatch_float!(ty, T => typed::<T>(&pool, &data, self.p as f64), else {
            Err(OpError::Unsupported(format!("element type {ty}")))
        })
        .map(|t| vec![t])
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<MaxPool1>(),
    OpEntry::of::<MaxPool8>(),
    OpEntry::of::<MaxPool>(),
    OpEntry::of::<AvgPool1>(),
    OpEntry::of::<AvgPool14>(),
    OpEntry::of::<AvgPool>(),
    OpEntry::of::<LpPool>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn f(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec()).expect("fits")
    }

    #[test]
    fn maxima_with_places() {
        let x = f(&[1, 2, 4], &[1., 5., 5., 2., -1., f32::NAN, -3., -4.]);
        let op = MaxPool { kernel: vec![2], strides: vec![2], pads_begin: vec![1], ..MaxPool::default() };
        let y = op.evaluate(std::slice::from_ref(&x)).expect("valid");
        assert_eq!(y[0].shape().to_vec(), [1, 2, 2]);
        assert_eq!(y[1].to_i64_vec().expect("i64"), [0, 1, 4, 5]);
        assert!(y[0].to_f64_vec().expect("f32")[3].is_nan());
        let axis = MaxPool { axis: 2, ..op };
        assert_eq!(axis.evaluate(&[x]).expect("valid")[1].to_i64_vec().expect("i64"), [0, 1, 0, 1]);
    }

    #[test]
    fn means_count_padding_as_told() {
        let x = f(&[1, 1, 3], &[2., 4., 6.]);
        for (exclude_pad, rounding_type, expected) in [
            (true, Rounding::Floor, &[2., 5.][..]),
            (false, Rounding::Floor, &[1., 5.]),
            (true, Rounding::Ceil, &[2., 5.]),
        ] {
            let op = AvgPool {
                kernel: vec![2],
                strides: vec![2],
                pads_begin: vec![1],
                exclude_pad,
                rounding_type,
                ..AvgPool::default()
            };
            let y = op.evaluate(std::slice::from_ref(&x)).expect("valid");
            assert_eq!(y[0].to_f64_vec().expect("f32"), expected, "{exclude_pad} {rounding_type}");
        }
        let lp = LpPool { kernel: vec![3], p: 1, ..LpPool::default() };
        assert_eq!(lp.evaluate(&[x]).expect("valid")[0].to_f64_vec().expect("f32"), [12.]);
    }

    #[test]
    fn empty_inputs_and_hostile_kernels() {
        let op = MaxPool { kernel: vec![2], ..MaxPool::default() };
        let y = op.evaluate(&[f(&[0, 2, 3], &[])]).expect("valid");
        assert_eq!(y[0].shape().to_vec(), [0, 2, 2]);
        for kernel in [vec![], vec![0], vec![-1], vec![i64::MAX], vec![4], vec![1, 1]] {
            let op = MaxPool { kernel: kernel.clone(), ..MaxPool::default() };
            assert!(op.evaluate(&[f(&[1, 1, 3], &[0.; 3])]).is_err(), "{kernel:?}");
        }
    }
}
