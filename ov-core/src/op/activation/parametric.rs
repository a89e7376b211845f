//! Activations with parameters.
#![allow(clippy::absurd_extreme_comparisons, reason = "unsigned types have the rule too")]

use super::{infer_float_unary, infer_numeric_unary, map, map_float, sigmoid, special::erf};
use crate::{
    choice, dispatch_float, dispatch_numeric,
    op::{
        InferContext, OpError, OpResult, OpRules, OutputType, arithmetic::Number, broadcast_shapes, present,
        unsupported_type, zip_map,
    },
    tensor::{Element, ElementType, PartialShape, Shape, Tensor},
};

define_op! {
    /// `min(max(x, min), max)`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/clamp-1.html>
    pub struct Clamp("Clamp", 1) {
        /// Lower bound; rounded up for integers.
        min: f64 = f64::NEG_INFINITY,
        /// Upper bound; rounded down for integers.
        max: f64 = f64::INFINITY,
    }
}

impl OpRules for Clamp {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_numeric_unary(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let ty = inputs[0].element_type();
        let (min, max) =
            if ty.is_integer() { (self.min.ceil(), self.max.floor()) } else { (self.min, self.max) };
        dispatch_numeric!(ty, T => {
            let (min, max) = (T::from_f64(min), T::from_f64(max));
            let clamp = |v: T| {
                let v = if v < min { min } else { v };
                if v > max { max } else { v }
            };
            Ok(vec![map::<T, T>(&inputs[0], clamp)?])
        }, else Err(unsupported_type(ty)))
    }
}

define_op! {
    /// `x < 0 ? slope x : x`; inputs data and slope. A slope of rank 1 and as many elements as the data have channels
    /// (axis 1) applies per channel, any other broadcasts.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/prelu-1.html>
    pub struct PRelu("PReLU", 1) {}
}

/// The shape in which a slope of [`PRelu`] broadcasts to the data.
#[must_use]
pub fn slope_as_channels(slope: &[usize], data: &[usize]) -> Shape {
    match slope {
        [channels] if data.len() > 2 && data[1] == *channels => {
            std::iter::once(*channels).chain(std::iter::repeat_n(1, data.len() - 2)).collect()
        }
        _ => Shape::new(slope),
    }
}

impl OpRules for PRelu {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        cx.common_type(0..2)?;
        if let (Some(data), Some(slope)) = (cx.shape(0).to_shape(), cx.shape(1).to_shape()) {
            let both = broadcast_shapes(
                &PartialShape::from(&data),
                &slope_as_channels(&slope, &data).into(),
            )?;
            crate::op_ensure!(both == PartialShape::from(&data), "slope {slope} does not broadcast to data {data}");
        }
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (x, slope) = (&inputs[0], &inputs[1]);
        let slope = slope.reshape(slope_as_channels(slope.shape(), x.shape()))?;
        let ty = x.element_type();
        dispatch_numeric!(ty, T => {
            Ok(vec![zip_map::<T, T, T>(x, &slope, |x, s| if x < T::ZERO { x.times(s) } else { x })?])
        }, else Err(unsupported_type(ty)))
    }
}

/// Infers an activation whose further inputs are scalars.
fn infer_with_scalars(cx: &InferContext<'_>, inputs: std::ops::RangeInclusive<usize>) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(inputs)?;
    cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
    for index in 1..cx.len() {
        if cx.is_present(index) && cx.shape(index).to_shape().is_some_and(|s| s.elements() != 1) {
            return Err(OpError::Input {
                index,
                got: format!("shape {}", cx.shape(index)),
                expected: "one element".to_owned(),
            });
        }
    }
    Ok(vec![cx.same_as(0)])
}

fn scalar(inputs: &[Tensor], index: usize) -> OpResult<Option<f64>> {
    let Some(t) = present(inputs, index) else { return Ok(None) };
    t.element_as_f64(0).map(Some).ok_or_else(|| OpError::Input {
        index,
        got: format!("{t:?}"),
        expected: "one number".to_owned(),
    })
}

fn expect_scalar(inputs: &[Tensor], index: usize) -> OpResult<f64> {
    scalar(inputs, index)?.ok_or_else(|| OpError::InputCount {
        got: inputs.len(),
        expected: format!("at least {}", index + 1),
    })
}

define_op! {
    /// `max(0, min(1, alpha x + beta))`; inputs data, alpha and beta (scalars).
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/hard-sigmoid-1.html>
    pub struct HardSigmoid("HardSigmoid", 1) {}
}

impl OpRules for HardSigmoid {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_with_scalars(cx, 3..=3)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (alpha, beta) = (expect_scalar(inputs, 1)?, expect_scalar(inputs, 2)?);
        Ok(vec![map_float(&inputs[0], |x| (alpha * x + beta).clamp(0.0, 1.0))?])
    }
}

define_op! {
    /// `lambda (x > 0 ? x : alpha (exp(x) - 1))`; inputs data, alpha and lambda (scalars).
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/selu-1.html>
    pub struct Selu("Selu", 1) {}
}

impl OpRules for Selu {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_with_scalars(cx, 3..=3)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (alpha, lambda) = (expect_scalar(inputs, 1)?, expect_scalar(inputs, 2)?);
        let selu = |x: f64| lambda * if x > 0.0 { x } else { alpha * x.exp_m1() };
        Ok(vec![map_float(&inputs[0], selu)?])
    }
}

define_op! {
    /// `x sigmoid(beta x)`; inputs data and optionally beta (scalar, 1 when left out).
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/swish-4.html>
    pub struct Swish("Swish", 4) {}
}

impl OpRules for Swish {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_with_scalars(cx, 1..=2)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let beta = scalar(inputs, 1)?.unwrap_or(1.0);
        Ok(vec![map_float(&inputs[0], |x| x * sigmoid(beta * x))?])
    }
}

choice! {
    /// How [`Gelu`] computes the normal distribution function.
    pub enum GeluMode {
        /// By the error function.
        Erf = "ERF",
        /// By a hyperbolic tangent.
        Tanh = "TANH",
    }
}

define_op! {
    /// `x Φ(x)`, `Φ` the distribution function of the standard normal distribution.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/gelu-7.html>
    pub struct Gelu("Gelu", 7) {
        /// How `Φ` is computed.
        approximation_mode: GeluMode = GeluMode::Erf,
    }
}

fn gelu(mode: GeluMode, x: f64) -> f64 {
    use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};
    match mode {
        GeluMode::Erf => 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)),
        GeluMode::Tanh => 0.5 * x * (1.0 + (FRAC_2_PI.sqrt() * (x + 0.044_715 * x * x * x)).tanh()),
    }
}

impl OpRules for Gelu {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_float_unary(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Ok(vec![map_float(&inputs[0], |x| gelu(self.approximation_mode, x))?])
    }
}

define_op! {
    /// [`Gelu`] by the error function.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/gelu-2.html>
    pub struct Gelu2("Gelu", 2) {}
}

impl OpRules for Gelu2 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_float_unary(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Ok(vec![map_float(&inputs[0], |x| gelu(GeluMode::Erf, x))?])
    }
}

choice! {
    /// Where [`Round`] takes halves.
    pub enum RoundMode {
        /// To the even neighbour.
        HalfToEven = "half_to_even",
        /// Away from zero.
        HalfAwayFromZero = "half_away_from_zero",
    }
}

define_op! {
    /// Nearest integer. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/round-5.html>
    pub struct Round("Round", 5) {
        /// Where halves go.
        mode: RoundMode = RoundMode::HalfToEven,
    }
}

impl OpRules for Round {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_numeric_unary(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let ty = inputs[0].element_type();
        if ty.is_integer() {
            return Ok(vec![inputs[0].to_contiguous()]);
        }
        let round = match self.mode {
            RoundMode::HalfToEven => f64::round_ties_even,
            RoundMode::HalfAwayFromZero => f64::round,
        };
        dispatch_float!(ty, T => Ok(vec![map::<T, T>(&inputs[0], |v| T::from_f64(round(v.to_f64())))?]),
            else Err(unsupported_type(ty)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(shape: &[usize], v: &[f32]) -> Tensor {
        Tensor::from_vec(shape, v.to_vec()).expect("fits")
    }

    #[test]
    fn parametric_activations_have_their_known_values() {
        let x = f32s(&[3], &[-2.5, 0.5, 8.]);
        let scalar = |v: f32| Tensor::scalar(v);
        for (op, extra, expected) in [
            (&Clamp { min: -1., max: 6. } as &dyn crate::op::Op, vec![], [-1., 0.5, 6.]),
            (&PRelu {}, vec![scalar(0.1)], [-0.25, 0.5, 8.]),
            (&HardSigmoid {}, vec![scalar(0.2), scalar(0.5)], [0., 0.6, 1.]),
            (&Selu {}, vec![scalar(0.), scalar(2.)], [0., 1., 16.]),
            (&Swish {}, vec![scalar(0.)], [-1.25, 0.25, 4.]),
            (&Round::default(), vec![], [-2., 0., 8.]),
            (&Round { mode: RoundMode::HalfAwayFromZero }, vec![], [-3., 1., 8.]),
            (&Gelu::default(), vec![], [-0.015_524_163, 0.345_731_23, 8.]),
            (&Gelu { approximation_mode: GeluMode::Tanh }, vec![], [-0.015_084_266, 0.345_714, 8.]),
        ] {
            let inputs: Vec<Tensor> = std::iter::once(x.clone()).chain(extra).collect();
            let got = op.evaluate(&inputs).expect("valid").remove(0);
            for (got, expected) in got.as_slice::<f32>().expect("f32").iter().zip(expected) {
                assert!((got - expected).abs() < 1e-5, "{:?}: {got} {expected}", op.kind());
            }
        }
    }

    #[test]
    fn slopes_of_rank_1_apply_per_channel() {
        let x = f32s(&[1, 2, 3], &[-1.; 6]);
        let got = PRelu {}.evaluate(&[x.clone(), f32s(&[2], &[2., 3.])]).expect("valid");
        assert_eq!(got[0].as_slice::<f32>().expect("f32"), [-2., -2., -2., -3., -3., -3.]);
        let got = PRelu {}.evaluate(&[x, f32s(&[3], &[2., 3., 4.])]).expect("valid");
        assert_eq!(got[0].as_slice::<f32>().expect("f32"), [-2., -3., -4., -2., -3., -4.]);
    }

    #[test]
    fn integer_bounds_round_inwards() {
        let x = Tensor::from_vec([3], vec![-300i64, 5, 300]).expect("fits");
        let got = Clamp { min: -1.5, max: 6.5 }.evaluate(&[x]).expect("valid");
        assert_eq!(got[0].as_slice::<i64>().expect("i64"), [-1, 5, 6]);
    }
}
