//! Softmax and its kin along one axis.

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType, arithmetic::Number, normalize_axis, unsupported_type,
};
use crate::{
    dispatch_float, dispatch_numeric,
    tensor::{Element, ElementType, Tensor, TensorBuffer},
};

fn infer_along(cx: &InferContext<'_>, axis: i64) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(1..=1)?;
    if let Some(rank) = cx.shape(0).rank() {
        normalize_axis(axis, rank)?;
    }
    Ok(vec![cx.same_as(0)])
}

/// Runs `f` over every line of the tensor along `axis`, gathered into a buffer and written back.
fn map_lines<T: Element>(input: &Tensor, axis: i64, f: impl Fn(&mut [T])) -> OpResult<Vec<Tensor>>
where
    Vec<T>: TensorBuffer,
{
    let axis = normalize_axis(axis, input.rank())?;
    let input = input.to_contiguous();
    let shape = input.shape().clone();
    let (extent, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let mut data = input.as_slice::<T>()?.to_vec();
    if data.is_empty() {
        return Ok(vec![Tensor::from_vec(shape, data)?]);
    }
    let mut line = vec![T::from_i64(0); extent];
    for block in data.chunks_exact_mut(extent * inner) {
        for offset in 0..inner {
            if inner == 1 {
                f(block);
                continue;
            }
            for (v, x) in line.iter_mut().zip(block[offset..].iter().step_by(inner)) {
                *v = *x;
            }
            f(&mut line);
            for (x, v) in block[offset..].iter_mut().step_by(inner).zip(&line) {
                *x = *v;
            }
        }
    }
    Ok(vec![Tensor::from_vec(shape, data)?])
}

fn largest<T: Element>(line: &[T]) -> f64 {
    line.iter().fold(f64::NEG_INFINITY, |m, v| v.to_f64().max(m))
}

/// Rounds to a type of 16 bits.
pub(crate) type Rounding = fn(f64) -> f64;

/// How results of a 16-bit type are rounded, `None` for other types.
pub(crate) fn rounding(ty: ElementType) -> Option<Rounding> {
    match ty {
        ElementType::F16 => Some(|x| half::f16::from_f64(x).to_f64()),
        ElementType::Bf16 => Some(|x| half::bf16::from_f64(x).to_f64()),
        _ => None,
    }
}

/// Softmax as ONNX's function body computes it in a 16-bit type: every step is rounded. Sums of `f16` are kept in
/// `f32`; those of `bf16` in the type, which ONNX's reference implementation does for rows of any length, here for
/// blocks, as longer sums would stand still.
pub(crate) fn softmax_rounded(line: &mut [f64], ty: ElementType, round: Rounding) {
    const BLOCK: usize = 32;
    let max = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    line.iter_mut().for_each(|x| *x = round(round(*x - max).exp()));
    let sum = if ty == ElementType::Bf16 {
        line.chunks(BLOCK).map(|b| b.iter().fold(0.0, |s, x| round(s + x))).sum::<f64>()
    } else {
        line.iter().sum()
    };
    let sum = round(sum);
    line.iter_mut().for_each(|x| *x = round(*x / sum));
}

fn softmax_line<T: Element>(line: &mut [T]) {
    if let Some(round) = rounding(T::TYPE) {
        let mut wide: Vec<f64> = line.iter().map(|v| v.to_f64()).collect();
        softmax_rounded(&mut wide, T::TYPE, round);
        for (v, x) in line.iter_mut().zip(wide) {
            *v = T::from_f64(x);
        }
        return;
    }
    let max = largest(line);
    let sum: f64 = line.iter().map(|v| (v.to_f64() - max).exp()).sum();
    for v in line {
        *v = T::from_f64((v.to_f64() - max).exp() / sum);
    }
}

fn log_softmax_line<T: Element>(line: &mut [T]) {
    let max = largest(line);
    let log_sum = line.iter().map(|v| (v.to_f64() - max).exp()).sum::<f64>().ln();
    for v in line {
        *v = T::from_f64(v.to_f64() - max - log_sum);
    }
}

macro_rules! softmax_ops {
    ($($(#[$meta:meta])* $name:ident($text:literal, $opset:literal), $axis:literal = $f:ident;)*) => {$(
        define_op! {
            $(#[$meta])*
            pub struct $name($text, $opset) {
                /// The axis; negative ones count from the back.
                axis: i64 = $axis,
            }
        }

        impl OpRules for $name {
            fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
                infer_along(cx, self.axis)
            }

            fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                let ty = inputs[0].element_type();
                dispatch_float!(ty, T => map_lines::<T>(&inputs[0], self.axis, $f::<T>), else Err(unsupported_type(ty)))
            }
        }
    )*};
}

softmax_ops! {
    /// `exp(x) / sum(exp(x))` along an axis. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/softmax-8.html>
    SoftMax("SoftMax", 8), 1 = softmax_line;
    /// [`SoftMax`] of older models. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/softmax-1.html>
    SoftMax1("SoftMax", 1), 1 = softmax_line;
    /// `x - ln(sum(exp(x)))` along an axis. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/log-soft-max-5.html>
    LogSoftmax("LogSoftmax", 5), -1 = log_softmax_line;
}

define_op! {
    /// 1 at the first greatest element along an axis, 0 elsewhere. <https://onnx.ai/onnx/operators/onnx__Hardmax.html>
    pub struct Hardmax("Hardmax", 0) {
        /// The axis; negative ones count from the back.
        axis: i64 = -1,
        /// Whether all axes from `axis` on count as one, as in ONNX before opset 13.
        flatten: bool = false,
    }
}

impl OpRules for Hardmax {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        if self.flatten && self.axis == 0 {
            cx.expect_inputs(1..=1)?;
            return Ok(vec![cx.same_as(0)]);
        }
        infer_along(cx, self.axis)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        fn line<T: Number>(line: &mut [T]) {
            let mut best = 0;
            for (i, v) in line.iter().enumerate() {
                if *v > line[best] {
                    best = i;
                }
            }
            for (i, v) in line.iter_mut().enumerate() {
                *v = if i == best { T::ONE } else { T::ZERO };
            }
        }
        let (input, ty) = (&inputs[0], inputs[0].element_type());
        let (flat, axis) = if self.flatten && !input.is_empty() {
            let axis = if self.axis == 0 { 0 } else { normalize_axis(self.axis, input.rank())? };
            let outer: usize = input.shape()[..axis].iter().product();
            (input.reshape([outer, input.len() / outer])?, 1)
        } else {
            (input.clone(), self.axis)
        };
        let out = dispatch_numeric!(ty, T => map_lines::<T>(&flat, axis, line::<T>)?,
            else return Err(unsupported_type(ty)));
        out.into_iter().map(|t| t.reshape(input.shape().clone()).map_err(OpError::from)).collect()
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] =
    &[OpEntry::of::<SoftMax>(), OpEntry::of::<SoftMax1>(), OpEntry::of::<LogSoftmax>(), OpEntry::of::<Hardmax>()];

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(shape: &[usize], v: &[f32]) -> Tensor {
        Tensor::from_vec(shape, v.to_vec()).expect("fits")
    }

    #[test]
    fn lines_sum_to_one_along_any_axis() {
        for shape in [vec![5], vec![1, 7], vec![2, 3, 5], vec![3, 1, 2], vec![0, 4]] {
            let n = shape.iter().product::<usize>();
            let x = f32s(&shape, &(0..n).map(|i| ((i * 37) % 11) as f32 * 100.).collect::<Vec<_>>());
            for axis in 0..shape.len() {
                let y = SoftMax { axis: axis as i64 }.evaluate(std::slice::from_ref(&x)).expect("valid").remove(0);
                let sums = y.view::<f32>().expect("f32").sum_axis(ndarray::Axis(axis));
                assert!(sums.iter().all(|s| n == 0 || (s - 1.).abs() < 1e-6), "{shape:?} {axis}");
                let negative = SoftMax { axis: axis as i64 - shape.len() as i64 };
                assert_eq!(negative.evaluate(std::slice::from_ref(&x)).expect("valid")[0], y);
                let log = LogSoftmax { axis: axis as i64 }.evaluate(std::slice::from_ref(&x)).expect("valid").remove(0);
                for (l, y) in log.as_slice::<f32>().expect("f32").iter().zip(y.as_slice::<f32>().expect("f32")) {
                    assert!((l.exp() - y).abs() < 1e-6);
                }
            }
        }
        assert!(SoftMax { axis: 1 }.evaluate(&[f32s(&[2], &[0.; 2])]).is_err());
    }

    const BF16_SOFTMAX: [f64; 6] =
        [0.0546875, 0.07861328125, 0.11474609375, 0.166015625, 0.2392578125, 0.34765625];

    #[test]
    fn every_step_of_a_16_bit_softmax_is_rounded() {
        let x: Vec<half::bf16> = (0..6).map(|i| half::bf16::from_f32(i as f32 * 0.37)).collect();
        let x = Tensor::from_vec([6], x).expect("fits");
        let y = SoftMax { axis: 0 }.evaluate(&[x]).expect("valid").remove(0).to_f64_vec().expect("numbers");
        // Computed step by step with NumPy and ml_dtypes.
        assert_eq!(y, BF16_SOFTMAX);
        let ones = Tensor::from_vec([4096], vec![half::bf16::ONE; 4096]).expect("fits");
        let y = SoftMax { axis: 0 }.evaluate(&[ones]).expect("valid").remove(0).to_f64_vec().expect("numbers");
        assert!(y.iter().all(|v| *v == 1.0 / 4096.0), "a long sum does not stand still");
    }

    #[test]
    fn hardmax_marks_the_first_greatest() {
        let x = f32s(&[2, 3], &[1., 3., 3., 2., 0., 2.]);
        let rows = Hardmax::default().evaluate(std::slice::from_ref(&x)).expect("valid");
        assert_eq!(rows[0].as_slice::<f32>().expect("f32"), [0., 1., 0., 1., 0., 0.]);
        let all = Hardmax { axis: 0, flatten: true }.evaluate(&[x]).expect("valid");
        assert_eq!(all[0].as_slice::<f32>().expect("f32"), [0., 1., 0., 0., 0., 0.]);
    }
}
