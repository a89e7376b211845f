//! Local response normalization, and normalization to length 1.

use crate::{
    choice, dispatch_float,
    op::{
        BroadcastPlan, InferContext, OpError, OpResult, OpRules, OutputType, convert::to_f64, normalize_axes,
        reduction::reduced_shape, unsupported_type,
    },
    tensor::{ElementType, Tensor},
};

fn infer_over_axes(cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(2..=2)?;
    cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
    if let (Some(axes), Some(rank)) = (cx.i64s(1)?, cx.shape(0).rank()) {
        normalize_axes(&axes, rank)?;
    }
    Ok(vec![cx.same_as(0)])
}

define_op! {
    /// `x / (bias + alpha / size^axes sum(x²))^beta`, the sum over a window of `size` along each of axes (the second input).
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/normalization/lrn-1.html>
    pub struct Lrn("LRN", 1) {
        /// Scale of the mean of squares.
        alpha: f64 = 1e-4,
        /// Exponent.
        beta: f64 = 0.75,
        /// Added to the scaled mean.
        bias: f64 = 1.0,
        /// Extent of the window.
        size: i64 = 1,
    }
}

impl OpRules for Lrn {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        if self.size < 1 {
            return Err(OpError::Attribute { name: "size", got: self.size.to_string(), expected: "at least 1".to_owned() });
        }
        infer_over_axes(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape().clone();
        let axes = normalize_axes(&inputs[1].to_i64_vec()?, shape.rank())?;
        let values = to_f64(&inputs[0])?;
        let size = usize::try_from(self.size).unwrap_or(1).max(1);
        let (before, after) = ((size - 1) / 2, size / 2);
        let mut sums: Vec<f64> = values.iter().map(|v| v * v).collect();
        let strides = shape.strides();
        for &axis in &axes {
            let (extent, stride) = (shape[axis], strides[axis]);
            let squares = sums.clone();
            for (i, sum) in sums.iter_mut().enumerate() {
                let at = i / stride % extent;
                let window = at.saturating_sub(before)..(at.saturating_add(after).saturating_add(1)).min(extent);
                *sum = window.map(|w| squares[i - at * stride + w * stride]).sum();
            }
        }
        let scale = self.alpha / (size as f64).powi(i32::try_from(axes.len()).unwrap_or(1));
        let out: Vec<f64> =
            values.iter().zip(&sums).map(|(v, s)| v / (self.bias + scale * s).powf(self.beta)).collect();
        let ty = inputs[0].element_type();
        dispatch_float!(ty, T => Ok(vec![Tensor::from_f64s::<T>(shape, &out)?]), else Err(unsupported_type(ty)))
    }
}

choice! {
    /// What [`NormalizeL2`] does with epsilon.
    pub enum NormalizeL2Mode {
        /// It is added to the sum of squares.
        Add = "add",
        /// It is the least sum of squares.
        Max = "max",
    }
}

define_op! {
    /// `x / sqrt(sum(x²))` over axes (the second input).
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/normalization/normalize-l2-1.html>
    pub struct NormalizeL2("NormalizeL2", 1) {
        /// Keeps the divisor from zero.
        eps: f64 = 1e-10,
        /// How it does.
        eps_mode: NormalizeL2Mode = NormalizeL2Mode::Add,
    }
}

impl OpRules for NormalizeL2 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_over_axes(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (shape, axes) = (inputs[0].shape().clone(), inputs[1].to_i64_vec()?);
        let kept = reduced_shape(&(&shape).into(), Some(&axes), true)?.to_shape().unwrap_or_default();
        let plan = BroadcastPlan::new([&shape, &kept])?;
        let mut values = to_f64(&inputs[0])?;
        let mut squares = vec![0.0; kept.elements()];
        plan.for_each_run(|[i, o], [s, t], n| {
            (0..n).for_each(|k| squares[o + t * k] += values[i + s * k] * values[i + s * k]);
        });
        let norms: Vec<f64> = squares
            .into_iter()
            .map(|s: f64| match self.eps_mode {
                NormalizeL2Mode::Add => (s + self.eps).sqrt(),
                NormalizeL2Mode::Max => s.max(self.eps).sqrt(),
            })
            .collect();
        plan.for_each_run(|[i, o], [s, t], n| (0..n).for_each(|k| values[i + s * k] /= norms[o + t * k]));
        let ty = inputs[0].element_type();
        dispatch_float!(ty, T => Ok(vec![Tensor::from_f64s::<T>(shape, &values)?]), else Err(unsupported_type(ty)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_their_response() {
        let x = Tensor::from_vec([1, 3, 1], vec![1f32, 2., 3.]).expect("fits");
        let op = Lrn { alpha: 3., beta: 1., bias: 1., size: 3 };
        let got = op.evaluate(&[x.clone(), Tensor::from_i64s(&[1])]).expect("valid");
        for (got, expected) in got[0].as_slice::<f32>().expect("f32").iter().zip([1. / 6., 2. / 15., 3. / 14.]) {
            assert!((got - expected).abs() < 1e-6);
        }
        let huge = Lrn { size: i64::MAX, ..Lrn::default() };
        assert!(huge.evaluate(&[x, Tensor::from_i64s(&[1])]).is_ok());
    }

    #[test]
    fn vectors_get_length_one() {
        let x = Tensor::from_vec([2, 2], vec![3f32, 4., 0., 0.]).expect("fits");
        for eps_mode in [NormalizeL2Mode::Add, NormalizeL2Mode::Max] {
            let op = NormalizeL2 { eps: 1e-12, eps_mode };
            let got = op.evaluate(&[x.clone(), Tensor::from_i64s(&[-1])]).expect("valid");
            for (got, expected) in got[0].as_slice::<f32>().expect("f32").iter().zip([0.6, 0.8, 0., 0.]) {
                assert!((got - expected).abs() < 1e-6);
            }
        }
    }
}
