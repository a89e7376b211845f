//! Layer and root-mean-square normalization over the last axes.

use crate::{
    dispatch_float,
    op::{
        BroadcastPlan, InferContext, OpResult, OpRules, OutputType, broadcast_shapes, convert::to_f64, normalize_axis,
        present, unsupported_type,
    },
    tensor::{Dimension, Element, ElementType, PartialShape, Shape, Tensor},
};

define_op! {
    /// `(x - mean) / sqrt(variance + epsilon) scale + bias`, mean and variance over the axes from `axis` on; inputs x,
    /// scale and optionally bias, which broadcast to x. <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html>
    pub struct LayerNormalization("LayerNormalization", 0) {
        /// First of the normalized axes; negative ones count from the back.
        axis: i64 = -1,
        /// Added to the variance.
        epsilon: f64 = 1e-5,
        /// Whether the mean and the inverse standard deviation are the second and third output, of `statistics_type`
        /// and the shape of x with extent 1 on the normalized axes.
        statistics: bool = false,
        /// Element type of the statistics.
        statistics_type: ElementType = ElementType::F32,
    }
}

define_op! {
    /// `x / sqrt(mean(x²) + epsilon) scale`, the mean over the axes from `axis` on; inputs x and scale, which
    /// broadcasts to x and gives the output its type. <https://onnx.ai/onnx/operators/onnx__RMSNormalization.html>
    pub struct RmsNorm("RMSNorm", 0) {
        /// First of the normalized axes; negative ones count from the back.
        axis: i64 = -1,
        /// Added to the mean of squares.
        epsilon: f64 = 1e-5,
    }
}

fn check(cx: &InferContext<'_>, axis: i64) -> OpResult<Option<usize>> {
    cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
    for index in (1..cx.len()).filter(|i| cx.is_present(*i)) {
        broadcast_shapes(&cx.shape(0), &cx.shape(index))?;
    }
    cx.shape(0).rank().map(|rank| normalize_axis(axis, rank)).transpose()
}

/// Shape of one value per normalized line.
fn statistics_shape(shape: &PartialShape, axis: Option<usize>) -> PartialShape {
    let (Some(dims), Some(axis)) = (shape.dims(), axis) else { return PartialShape::dynamic() };
    dims.iter().enumerate().map(|(i, d)| if i < axis { *d } else { Dimension::fixed(1) }).collect()
}

/// Scale or bias repeated until it runs evenly through x: over the normalized axes, or over all of x.
fn repeated(parameter: &Tensor, x: &Shape, axis: usize) -> OpResult<Vec<f64>> {
    let shape = if parameter.rank() <= x.rank() - axis { Shape::new(&x[axis..]) } else { x.clone() };
    let values = to_f64(parameter)?;
    let plan = BroadcastPlan::new([&shape, parameter.shape()])?;
    crate::op_ensure!(plan.shape == shape, "{} does not broadcast to {shape}", parameter.shape());
    let mut out = Vec::with_capacity(shape.elements());
    plan.for_each_run(|[_, i], [_, s], n| out.extend((0..n).map(|k| values[i + s * k])));
    Ok(out)
}

impl OpRules for LayerNormalization {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=3)?;
        let axis = check(cx, self.axis)?;
        let mut outputs = vec![cx.same_as(0)];
        if self.statistics {
            let statistic = OutputType::new(self.statistics_type, statistics_shape(&cx.shape(0), axis));
            outputs.extend([statistic.clone(), statistic]);
        }
        Ok(outputs)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let x = inputs[0].to_contiguous();
        let shape = x.shape().clone();
        let axis = normalize_axis(self.axis, shape.rank())?;
        let scale = repeated(&inputs[1], &shape, axis)?;
        let bias = present(inputs, 2).map(|b| repeated(b, &shape, axis)).transpose()?;
        let line = shape[axis..].iter().product::<usize>();
        let (mut means, mut inverses) = (Vec::new(), Vec::new());
        let ty = x.element_type();
        let y = dispatch_float!(ty, T => {
            let mut out = x.as_slice::<T>()?.to_vec();
            for (l, values) in out.chunks_exact_mut(line.max(1)).enumerate() {
                let n = values.len() as f64;
                let mean = values.iter().map(|v| v.to_f64()).sum::<f64>() / n;
                let variance = values.iter().map(|v| (v.to_f64() - mean).powi(2)).sum::<f64>() / n;
                let inverse = 1.0 / (variance + self.epsilon).sqrt();
                let (s, b) = (l * line % scale.len(), bias.as_ref().map(|b| &b[l * line % b.len()..]));
                for (i, (v, scale)) in values.iter_mut().zip(&scale[s..]).enumerate() {
                    *v = T::from_f64((v.to_f64() - mean) * inverse * scale + b.map_or(0.0, |b| b[i]));
                }
                means.push(mean);
                inverses.push(inverse);
            }
            Tensor::from_vec(shape.clone(), out)?
        }, else return Err(unsupported_type(ty)));
        if !self.statistics {
            return Ok(vec![y]);
        }
        let kept = statistics_shape(&(&shape).into(), Some(axis)).to_shape().unwrap_or_default();
        means.resize(kept.elements(), f64::NAN);
        inverses.resize(kept.elements(), f64::NAN);
        let statistic = |values| -> OpResult<Tensor> {
            Ok(Tensor::from_vec(kept.clone(), values)?.cast(self.statistics_type)?)
        };
        Ok(vec![y, statistic(means)?, statistic(inverses)?])
    }
}

impl OpRules for RmsNorm {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        check(cx, self.axis)?;
        Ok(vec![OutputType::new(cx.element_type(1), cx.shape(0))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape().clone();
        let axis = normalize_axis(self.axis, shape.rank())?;
        let scale = repeated(&inputs[1], &shape, axis)?;
        let line = shape[axis..].iter().product::<usize>();
        let mut values = to_f64(&inputs[0])?;
        for (l, values) in values.chunks_exact_mut(line.max(1)).enumerate() {
            let square = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
            let inverse = 1.0 / (square + self.epsilon).sqrt();
            for (v, scale) in values.iter_mut().zip(&scale[l * line % scale.len()..]) {
                *v *= inverse * scale;
            }
        }
        let ty = inputs[1].element_type();
        dispatch_float!(ty, T => Ok(vec![Tensor::from_f64s::<T>(shape, &values)?]), else Err(unsupported_type(ty)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(shape: &[usize], v: &[f32]) -> Tensor {
        Tensor::from_vec(shape, v.to_vec()).expect("fits")
    }

    #[test]
    fn layers_are_normalized_scaled_and_shifted() {
        let x = f32s(&[2, 2], &[1., 3., 10., 30.]);
        let op = LayerNormalization { epsilon: 0., statistics: true, ..LayerNormalization::default() };
        let got = op.evaluate(&[x.clone(), f32s(&[2], &[1., 2.]), f32s(&[1], &[5.])]).expect("valid");
        assert_eq!(got[0].as_slice::<f32>().expect("f32"), [4., 7., 4., 7.]);
        assert_eq!(got[1], f32s(&[2, 1], &[2., 20.]));
        assert_eq!(got[2], f32s(&[2, 1], &[1., 0.1]));
        let rows = LayerNormalization { epsilon: 0., ..LayerNormalization::default() };
        let got = rows.evaluate(&[x, f32s(&[2, 1], &[1., 2.])]).expect("valid");
        assert_eq!(got[0].as_slice::<f32>().expect("f32"), [-1., 1., -2., 2.]);
    }

    #[test]
    fn root_mean_squares_divide() {
        let x = f32s(&[1, 2], &[3., 4.]);
        let op = RmsNorm { epsilon: 0., ..RmsNorm::default() };
        let got = op.evaluate(&[x, f32s(&[2], &[1., 10.])]).expect("valid");
        let rms = 12.5f32.sqrt();
        for (got, expected) in got[0].as_slice::<f32>().expect("f32").iter().zip([3. / rms, 40. / rms]) {
            assert!((got - expected).abs() < 1e-5);
        }
    }

    #[test]
    fn empty_layers_stay_empty() {
        for shape in [[0, 3], [3, 0]] {
            let x = f32s(&shape, &[]);
            let scale = f32s(&[shape[1]], &vec![1.; shape[1]]);
            let op = LayerNormalization { statistics: true, ..LayerNormalization::default() };
            let got = op.evaluate(&[x.clone(), scale.clone()]).expect("valid");
            assert_eq!((got[0].shape(), got[1].shape()[..].to_vec()), (x.shape(), vec![shape[0], 1]));
            assert_eq!(RmsNorm::default().evaluate(&[x, scale]).expect("valid")[0].len(), 0);
        }
    }
}
