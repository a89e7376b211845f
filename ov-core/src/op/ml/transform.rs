//! What classifiers and regressors do to their scores last.

use crate::{
    choice,
    op::{InferContext, OpResult, OpRules, OutputType},
    tensor::{Element, ElementType, Tensor},
};

choice! {
    /// What becomes of the scores of a row.
    pub enum PostTransform {
        /// Nothing.
        None = "NONE",
        /// `1 / (1 + exp(-x))`.
        Logistic = "LOGISTIC",
        /// `exp(x) / sum(exp(x))`.
        Softmax = "SOFTMAX",
        /// Softmax in which zeros stay zeros.
        SoftmaxZero = "SOFTMAX_ZERO",
        /// The inverse of the normal distribution.
        Probit = "PROBIT",
    }
}

/// `1 / (1 + exp(-x))` without overflow.
pub(super) fn logistic(x: f64) -> f64 {
    let y = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - y } else { y }
}

/// The inverse error function after Winitzki (2008), "A handy approximation for the error function and its inverse",
/// with a = 0.147: the approximation that runtimes of this operator set share, so scores agree.
fn inverse_erf(x: f64) -> f64 {
    const A: f64 = 0.147;
    let product = (1.0 - x) * (1.0 + x);
    if product == 0.0 {
        return 0.0;
    }
    let log = product.ln();
    let half = 2.0 / (std::f64::consts::PI * A) + 0.5 * log;
    let root = (half * half - log / A).sqrt() - half;
    root.sqrt().copysign(x)
}

/// Values up to this size count as zero in [`PostTransform::SoftmaxZero`].
const NEAR_ZERO: f64 = 1e-7;

/// Transforms one row of scores in place.
pub fn transform_scores(kind: PostTransform, row: &mut [f64]) {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match kind {
        PostTransform::None => return,
        PostTransform::Logistic => return row.iter_mut().for_each(|v| *v = logistic(*v)),
        PostTransform::Probit => {
            return row.iter_mut().for_each(|v| {
                *v = std::f64::consts::SQRT_2 * inverse_erf(*v * 2.0 - 1.0);
            });
        }
        PostTransform::Softmax => row.iter_mut().for_each(|v| *v = (*v - max).exp()),
        PostTransform::SoftmaxZero => row.iter_mut().for_each(|v| {
            *v = if v.abs() > NEAR_ZERO { (*v - max).exp() } else { *v * (-max).exp() };
        }),
    }
    let sum: f64 = row.iter().sum();
    if sum == 0.0 {
        row.fill(0.5);
    } else {
        row.iter_mut().for_each(|v| *v /= sum);
    }
}

/// Scores as a tensor of `f32`, or of `f64` when that is asked for.
pub(super) fn scores_tensor(ty: ElementType, shape: &[usize], values: &[f64]) -> OpResult<Tensor> {
    Ok(match ty {
        ElementType::F64 => Tensor::from_f64s::<f64>(shape, values)?,
        ElementType::F16 => Tensor::from_f64s::<half::f16>(shape, values)?,
        _ => Tensor::from_vec(shape, values.iter().map(|v| f32::from_f64(*v)).collect())?,
    })
}

define_op! {
    /// The post transform of a classifier or regressor, along the last axis.
    /// <https://onnx.ai/onnx/operators/onnx_aionnxml_LinearClassifier.html>
    pub struct ScoreTransform("ScoreTransform", 0) {
        /// Which one.
        post_transform: PostTransform = PostTransform::None,
    }
}

impl OpRules for ScoreTransform {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_rank(0, 1..=usize::MAX)?;
        cx.expect_type(0, "f16, f32 or f64", |t| {
            matches!(t, ElementType::F16 | ElementType::F32 | ElementType::F64)
        })?;
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let mut values = inputs[0].to_f64_vec()?;
        let row = inputs[0].shape().last().copied().unwrap_or(1).max(1);
        values.chunks_mut(row).for_each(|r| transform_scores(self.post_transform, r));
        Ok(vec![scores_tensor(inputs[0].element_type(), inputs[0].shape(), &values)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transformed(kind: PostTransform, row: &[f64]) -> Vec<f64> {
        let mut row = row.to_vec();
        transform_scores(kind, &mut row);
        row
    }

    #[test]
    fn scores_are_transformed_as_specified() {
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
        let x = [1.0, 0.0, -2.0];
        assert_eq!(transformed(PostTransform::None, &x), x);
        assert!(close(&transformed(PostTransform::Logistic, &x), &[0.7311, 0.5, 0.1192]));
        assert!(close(&transformed(PostTransform::Softmax, &x), &[0.7054, 0.2595, 0.0351]));
        let zero = transformed(PostTransform::SoftmaxZero, &x);
        assert!(close(&zero, &[0.9526, 0.0, 0.0474]), "{zero:?}");
        let probit = transformed(PostTransform::Probit, &[0.975, 0.5, 0.025]);
        assert!((probit[0] - 1.96).abs() < 0.01 && (probit[0] + probit[2]).abs() < 1e-9);
        assert_eq!(probit[1], 0.0);
        assert_eq!(transformed(PostTransform::SoftmaxZero, &[0.0, 0.0]), [0.5, 0.5]);
    }
}
