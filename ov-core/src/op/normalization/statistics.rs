//! Normalization by mean and variance: given, of groups, of axes.

use crate::{
    choice, dispatch_float, dispatch_numeric,
    op::{
        BroadcastPlan, InferContext, OpError, OpResult, OpRules, OutputType, convert::to_f64, normalize_axes,
        reduction::reduced_shape, unsupported_type,
    },
    tensor::{Dimension, Element, ElementType, Tensor},
};

/// Checks that inputs `indices` have one element per channel (axis 1) of input `data`.
fn expect_channels(cx: &InferContext<'_>, data: usize, indices: &[usize]) -> OpResult<()> {
    let shape = cx.shape(data);
    let Some(rank) = shape.rank() else { return Ok(()) };
    op_ensure!(rank >= 2, "the data have rank {rank}, expected a batch and a channel axis");
    for &index in indices {
        cx.expect_rank(index, 1..=1)?;
        if cx.shape(index).rank().is_some() && shape.dim(1).intersect(cx.shape(index).dim(0)).is_none() {
            return Err(OpError::Input {
                index,
                got: format!("shape {}", cx.shape(index)),
                expected: format!("[{}], one element per channel", shape.dim(1)),
            });
        }
    }
    Ok(())
}

fn channels(tensor: &Tensor, index: usize, count: usize) -> OpResult<Vec<f64>> {
    if tensor.len() == count {
        return to_f64(tensor);
    }
    Err(OpError::Input {
        index,
        got: format!("shape {}", tensor.shape()),
        expected: format!("[{count}], one element per channel"),
    })
}

fn batch_norm(data: &Tensor, parameters: [&Tensor; 4], epsilon: f64) -> OpResult<Vec<Tensor>> {
    let data = data.to_contiguous();
    let shape = data.shape().clone();
    op_ensure!(shape.rank() >= 2, "the data have rank {}, expected a batch and a channel axis", shape.rank());
    let (count, inner) = (shape[1], shape[2..].iter().product::<usize>());
    let [gamma, beta, mean, variance] = parameters;
    let (gamma, beta) = (channels(gamma, 1, count)?, channels(beta, 2, count)?);
    let (mean, variance) = (channels(mean, 3, count)?, channels(variance, 4, count)?);
    let ty = data.element_type();
    dispatch_float!(ty, T => {
        let mut out = data.as_slice::<T>()?.to_vec();
        for (i, line) in out.chunks_exact_mut(inner.max(1)).enumerate() {
            let c = i % count;
            let scale = gamma[c] / (variance[c] + epsilon).sqrt();
            for v in line {
                *v = T::from_f64((v.to_f64() - mean[c]) * scale + beta[c]);
            }
        }
        Ok(vec![Tensor::from_vec(shape, out)?])
    }, else Err(unsupported_type(ty)))
}

define_op! {
    /// `(x - mean) / sqrt(variance + epsilon) gamma + beta` per channel (axis 1); inputs data, gamma, beta, mean, variance.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/normalization/batch-norm-inference-5.html>
    pub struct BatchNormInference("BatchNormInference", 5) {
        /// Added to the variance.
        epsilon: f64 = 1e-5,
    }
}

impl OpRules for BatchNormInference {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(5..=5)?;
        cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
        expect_channels(cx, 0, &[1, 2, 3, 4])?;
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        batch_norm(&inputs[0], [&inputs[1], &inputs[2], &inputs[3], &inputs[4]], self.epsilon)
    }
}

define_op! {
    /// [`BatchNormInference`] with inputs gamma, beta, data, mean, variance.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/normalization/batch-norm-inference-1.html>
    pub struct BatchNormInference1("BatchNormInference", 1) {
        /// Added to the variance.
        epsilon: f64 = 1e-5,
    }
}

impl OpRules for BatchNormInference1 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(5..=5)?;
        cx.expect_type(2, "a floating-point type", ElementType::is_float)?;
        expect_channels(cx, 2, &[0, 1, 3, 4])?;
        Ok(vec![cx.same_as(2)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        batch_norm(&inputs[2], [&inputs[0], &inputs[1], &inputs[3], &inputs[4]], self.epsilon)
    }
}

choice! {
    /// Where [`Mvn`] adds epsilon.
    pub enum MvnEpsilon {
        /// To the variance.
        InsideSqrt = "INSIDE_SQRT",
        /// To the standard deviation.
        OutsideSqrt = "OUTSIDE_SQRT",
    }
}

define_op! {
    /// `x - mean`, divided by the standard deviation if asked, over axes (the second input).
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/normalization/mvn-6.html>
    pub struct Mvn("MVN", 6) {
        /// Whether to divide by the standard deviation.
        normalize_variance: bool = true,
        /// Keeps the divisor from zero.
        eps: f64 = 1e-5,
        /// Where `eps` is added.
        eps_mode: MvnEpsilon = MvnEpsilon::InsideSqrt,
    }
}

impl OpRules for Mvn {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
        if let (Some(axes), Some(rank)) = (cx.i64s(1)?, cx.shape(0).rank()) {
            normalize_axes(&axes, rank)?;
        }
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (data, axes) = (inputs[0].to_contiguous(), inputs[1].to_i64_vec()?);
        let shape = data.shape().clone();
        let kept = reduced_shape(&(&shape).into(), Some(&axes), true)?.to_shape().unwrap_or_default();
        let plan = BroadcastPlan::new([&shape, &kept])?;
        let count = (shape.elements() / kept.elements().max(1)) as f64;
        let visit = |f: &mut dyn FnMut(usize, usize)| {
            plan.for_each_run(|[i, o], [s, t], n| (0..n).for_each(|k| f(i + s * k, o + t * k)));
        };
        let mut values = to_f64(&data)?;
        let mut mean = vec![0.0; kept.elements()];
        visit(&mut |i, o| mean[o] += values[i] / count);
        visit(&mut |i, o| values[i] -= mean[o]);
        if self.normalize_variance {
            let mut variance = vec![0.0; kept.elements()];
            visit(&mut |i, o| variance[o] += values[i] * values[i] / count);
            let divisors: Vec<f64> = variance
                .into_iter()
                .map(|v: f64| match self.eps_mode {
                    MvnEpsilon::InsideSqrt => (v + self.eps).sqrt(),
                    MvnEpsilon::OutsideSqrt => v.sqrt() + self.eps,
                })
                .collect();
            visit(&mut |i, o| values[i] /= divisors[o]);
        }
        let ty = data.element_type();
        dispatch_numeric!(ty, T => Ok(vec![Tensor::from_f64s::<T>(shape, &values)?]), else Err(unsupported_type(ty)))
    }
}

define_op! {
    /// Mean and variance normalization of groups of channels (axis 1), then scale and bias per channel; inputs data, scale,
    /// bias. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/normalization/group-normalization-12.html>
    pub struct GroupNormalization("GroupNormalization", 12) {
        /// Number of groups, which divides the number of channels.
        num_groups: i64 = 1,
        /// Added to the variance.
        epsilon: f64 = 1e-5,
    }
}

impl GroupNormalization {
    fn groups(&self, channels: usize) -> OpResult<usize> {
        usize::try_from(self.num_groups)
            .ok()
            .filter(|g| *g > 0 && channels.is_multiple_of(*g))
            .ok_or_else(|| OpError::Attribute {
                name: "num_groups",
                got: self.num_groups.to_string(),
                expected: format!("a divisor of the {channels} channels"),
            })
    }
}

impl OpRules for GroupNormalization {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=3)?;
        cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
        expect_channels(cx, 0, &[1, 2])?;
        if let Some(channels) = cx.shape(0).dims().and_then(|d| d.get(1).copied()).and_then(Dimension::value) {
            self.groups(channels)?;
        }
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let data = inputs[0].to_contiguous();
        let shape = data.shape().clone();
        op_ensure!(shape.rank() >= 2, "the data have rank {}, expected a batch and a channel axis", shape.rank());
        let (count, inner) = (shape[1], shape[2..].iter().product::<usize>());
        let groups = self.groups(count)?;
        let (scale, bias) = (channels(&inputs[1], 1, count)?, channels(&inputs[2], 2, count)?);
        let ty = data.element_type();
        dispatch_float!(ty, T => {
            let mut out = data.as_slice::<T>()?.to_vec();
            let per_group = count / groups * inner;
            for (g, group) in out.chunks_exact_mut(per_group.max(1)).enumerate() {
                let n = group.len() as f64;
                let mean = group.iter().map(|v| v.to_f64()).sum::<f64>() / n;
                let variance = group.iter().map(|v| (v.to_f64() - mean).powi(2)).sum::<f64>() / n;
                let inverse = 1.0 / (variance + self.epsilon).sqrt();
                for (i, v) in group.iter_mut().enumerate() {
                    let c = g % groups * (count / groups) + i / inner;
                    *v = T::from_f64((v.to_f64() - mean) * inverse * scale[c] + bias[c]);
                }
            }
            Ok(vec![Tensor::from_vec(shape, out)?])
        }, else Err(unsupported_type(ty)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(shape: &[usize], v: &[f32]) -> Tensor {
        Tensor::from_vec(shape, v.to_vec()).expect("fits")
    }

    #[test]
    fn batches_are_normalized_per_channel() {
        let x = f32s(&[2, 2, 1], &[1., 2., 3., 4.]);
        let p = |a, b| f32s(&[2], &[a, b]);
        let (gamma, beta, mean, variance) = (p(2., 1.), p(0., 10.), p(1., 2.), p(4., 1.));
        let expected = [0., 10., 2., 12.];
        let new = BatchNormInference { epsilon: 0. };
        let inputs = [x.clone(), gamma.clone(), beta.clone(), mean.clone(), variance.clone()];
        assert_eq!(new.evaluate(&inputs).expect("valid")[0].as_slice::<f32>().expect("f32"), expected);
        let old = BatchNormInference1 { epsilon: 0. };
        let got = old.evaluate(&[gamma, beta, x.clone(), mean.clone(), variance]).expect("valid");
        assert_eq!(got[0].as_slice::<f32>().expect("f32"), expected);
        let three = f32s(&[3], &[0.; 3]);
        assert!(new.evaluate(&[x, three, mean.clone(), mean.clone(), mean]).is_err());
    }

    #[test]
    fn axes_have_mean_zero_and_variance_one() {
        let x = f32s(&[2, 3, 2], &[1., 5., 2., 4., 9., 0., -3., 1., 8., 8., 2., 6.]);
        for axes in [vec![2], vec![0, 2], vec![-1, -2], vec![0, 1, 2]] {
            let op = Mvn { eps: 1e-12, ..Mvn::default() };
            let y = op.evaluate(&[x.clone(), Tensor::from_i64s(&axes)]).expect("valid").remove(0);
            let mut sums = y.view::<f32>().expect("f32").to_owned();
            let mut squares = sums.mapv(|v| v * v);
            for axis in axes.iter().map(|a| a.rem_euclid(3) as usize) {
                sums = sums.mean_axis(ndarray::Axis(axis)).expect("not empty").insert_axis(ndarray::Axis(axis));
                squares = squares.mean_axis(ndarray::Axis(axis)).expect("not empty").insert_axis(ndarray::Axis(axis));
            }
            assert!(sums.iter().all(|v| v.abs() < 1e-6), "{axes:?}");
            assert!(squares.iter().all(|v| (v - 1.).abs() < 1e-5 || *v == 0.), "{axes:?}");
        }
        let centred = Mvn { normalize_variance: false, ..Mvn::default() };
        let got = centred.evaluate(&[f32s(&[1, 2], &[1., 3.]), Tensor::from_i64s(&[1])]).expect("valid");
        assert_eq!(got[0].as_slice::<f32>().expect("f32"), [-1., 1.]);
    }

    #[test]
    fn groups_are_normalized_apart() {
        let x = f32s(&[1, 4, 1], &[0., 2., 10., 30.]);
        let op = GroupNormalization { num_groups: 2, epsilon: 0. };
        let (scale, bias) = (f32s(&[4], &[1., 2., 3., 4.]), f32s(&[4], &[0., 0., 1., 1.]));
        let got = op.evaluate(&[x.clone(), scale.clone(), bias.clone()]).expect("valid");
        assert_eq!(got[0].as_slice::<f32>().expect("f32"), [-1., 2., -2., 5.]);
        let op = GroupNormalization { num_groups: 3, epsilon: 0. };
        assert!(op.evaluate(&[x, scale, bias]).is_err());
    }
}
