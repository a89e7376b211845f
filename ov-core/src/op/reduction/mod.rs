//! Reductions over axes.

mod axes;
mod cumulative;

pub use axes::AxesOrAll;
pub use cumulative::{CumProd, CumSum};

use super::{
    BroadcastPlan, InferContext, OpEntry, OpResult, OpRules, OutputType, arithmetic::Number, normalize_axes,
    unsupported_type,
};
use crate::{
    dispatch_float, dispatch_numeric,
    tensor::{Dimension, Element, ElementType, PartialShape, Shape, Tensor, TensorBuffer},
};

/// Shape after reducing `axes` (`None`: not known) of `shape`.
///
/// # Errors
/// When an axis is out of range.
pub fn reduced_shape(shape: &PartialShape, axes: Option<&[i64]>, keep_dims: bool) -> OpResult<PartialShape> {
    let Some(dims) = shape.dims() else { return Ok(PartialShape::dynamic()) };
    let Some(axes) = axes else {
        return Ok(if keep_dims { PartialShape::dynamic_rank(dims.len()) } else { PartialShape::dynamic() });
    };
    let axes = normalize_axes(axes, dims.len())?;
    let reduced = |i: &usize| axes.contains(i);
    Ok(dims
        .iter()
        .enumerate()
        .filter(|(i, _)| keep_dims || !reduced(i))
        .map(|(i, d)| if reduced(&i) { Dimension::fixed(1) } else { *d })
        .collect())
}

fn infer_reduction(cx: &InferContext<'_>, keep_dims: bool) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(2..=2)?;
    cx.expect_type(1, "an integer type", ElementType::is_integer)?;
    let axes = cx.i64s(1)?;
    let mut shape = reduced_shape(&cx.shape(0), axes.as_deref(), keep_dims)?;
    if let (None, false, Some(rank), Some(count)) =
        (&axes, keep_dims, cx.shape(0).rank(), cx.shape(1).to_shape().map(|s| s.elements()))
        && count == rank
    {
        shape = PartialShape::dynamic_rank(0);
    }
    Ok(vec![OutputType::new(cx.element_type(0), shape)])
}

/// A reduction under way: the shape with reduced axes of extent 1, the shape given out, elements per result.
struct Reduction {
    kept: Shape,
    output: Shape,
    count: usize,
}

impl Reduction {
    fn new(inputs: &[Tensor], keep_dims: bool) -> OpResult<Self> {
        let input = inputs[0].shape();
        let axes = inputs[1].to_i64_vec()?;
        let shape = |keep| -> OpResult<Shape> {
            Ok(reduced_shape(&input.into(), Some(&axes), keep)?.to_shape().unwrap_or_default())
        };
        let count = normalize_axes(&axes, input.rank())?.iter().map(|a| input[*a]).product();
        Ok(Self { kept: shape(true)?, output: shape(keep_dims)?, count })
    }

    /// Folds the elements of each result in row-major order.
    fn fold<T: Element, A: Copy>(&self, input: &Tensor, init: A, f: impl Fn(A, T, usize) -> A) -> OpResult<Vec<A>> {
        let input = input.to_contiguous();
        let data = input.as_slice::<T>()?;
        let mut totals = vec![init; self.kept.elements()];
        BroadcastPlan::new([input.shape(), &self.kept])?.for_each_run(|[i, o], [s, t], n| {
            if t == 0 && s == 1 {
                totals[o] = data[i..i + n].iter().fold(totals[o], |a, v| f(a, *v, o));
            } else {
                for k in 0..n {
                    totals[o + t * k] = f(totals[o + t * k], data[i + s * k], o + t * k);
                }
            }
        });
        Ok(totals)
    }

    fn finish<A: Copy, T: Element>(self, totals: &[A], f: impl Fn(A) -> T) -> OpResult<Vec<Tensor>>
    where
        Vec<T>: TensorBuffer,
    {
        Ok(vec![Tensor::from_vec(self.output, totals.iter().map(|a| f(*a)).collect::<Vec<T>>())?])
    }
}

macro_rules! reductions {
    ($($(#[$meta:meta])* $name:ident($text:literal, $opset:literal) = $evaluate:ident;)*) => {$(
        define_op! {
            $(#[$meta])*
            pub struct $name($text, $opset) {
                /// Whether reduced axes stay with extent 1.
                keep_dims: bool = false,
            }
        }

        impl OpRules for $name {
            fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                infer_reduction(cx, self.keep_dims)
            }

            fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                $evaluate(&inputs[0], Reduction::new(inputs, self.keep_dims)?)
            }
        }
    )*};
}

reductions! {
    /// Sum over axes (the second input). <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/reduction/reduce-sum-1.html>
    ReduceSum("ReduceSum", 1) = sum;
    /// Arithmetic mean over axes (the second input). <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/reduction/reduce-mean-1.html>
    ReduceMean("ReduceMean", 1) = mean;
    /// Product over axes (the second input). <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/reduction/reduce-prod-1.html>
    ReduceProd("ReduceProd", 1) = prod;
    /// Greatest over axes (the second input). <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/reduction/reduce-max-1.html>
    ReduceMax("ReduceMax", 1) = max;
    /// Least over axes (the second input). <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/reduction/reduce-min-1.html>
    ReduceMin("ReduceMin", 1) = min;
    /// Sum of absolute values over axes (the second input). <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/reduction/reduce-l1-4.html>
    ReduceL1("ReduceL1", 4) = l1;
    /// Root of the sum of squares over axes (the second input). <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/reduction/reduce-l2-4.html>
    ReduceL2("ReduceL2", 4) = l2;
    /// `ln(sum(exp(x)))` over axes (the second input), without overflow. <https://onnx.ai/onnx/operators/onnx__ReduceLogSumExp.html>
    ReduceLogSumExp("ReduceLogSumExp", 0) = log_sum_exp;
    /// Whether all are true over axes (the second input). <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/reduction/reduce-logical-and-1.html>
    ReduceLogicalAnd("ReduceLogicalAnd", 1) = all;
    /// Whether any is true over axes (the second input). <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/reduction/reduce-logical-or-1.html>
    ReduceLogicalOr("ReduceLogicalOr", 1) = any;
}

fn sum(input: &Tensor, r: Reduction) -> OpResult<Vec<Tensor>> {
    let ty = input.element_type();
    if ty.is_float() {
        return dispatch_float!(ty, T => {
            let totals = r.fold::<T, f64>(input, 0.0, |a, v, _| a + v.to_f64())?;
            r.finish(&totals, T::from_f64)
        }, else Err(unsupported_type(ty)));
    }
    dispatch_numeric!(ty, T => {
        let totals = r.fold::<T, T>(input, T::ZERO, |a, v, _| a.plus(v))?;
        r.finish(&totals, |v| v)
    }, else Err(unsupported_type(ty)))
}

fn mean(input: &Tensor, r: Reduction) -> OpResult<Vec<Tensor>> {
    let ty = input.element_type();
    if ty.is_float() {
        let count = r.count as f64;
        return dispatch_float!(ty, T => {
            let totals = r.fold::<T, f64>(input, 0.0, |a, v, _| a + v.to_f64())?;
            r.finish(&totals, |v| T::from_f64(v / count))
        }, else Err(unsupported_type(ty)));
    }
    let count = r.count.max(1) as i128;
    dispatch_numeric!(ty, T => {
        let totals = r.fold::<T, i128>(input, 0, |a, v, _| a + i128::from(v.to_i64()))?;
        r.finish(&totals, |v| T::from_i64((v / count) as i64))
    }, else Err(unsupported_type(ty)))
}

fn prod(input: &Tensor, r: Reduction) -> OpResult<Vec<Tensor>> {
    let ty = input.element_type();
    if ty.is_float() {
        return dispatch_float!(ty, T => {
            let totals = r.fold::<T, f64>(input, 1.0, |a, v, _| a * v.to_f64())?;
            r.finish(&totals, T::from_f64)
        }, else Err(unsupported_type(ty)));
    }
    dispatch_numeric!(ty, T => {
        let totals = r.fold::<T, T>(input, T::ONE, |a, v, _| a.times(v))?;
        r.finish(&totals, |v| v)
    }, else Err(unsupported_type(ty)))
}

fn max(input: &Tensor, r: Reduction) -> OpResult<Vec<Tensor>> {
    let ty = input.element_type();
    dispatch_numeric!(ty, T => {
        let totals = r.fold::<T, T>(input, T::LEAST, |a, v, _| a.greater(v))?;
        r.finish(&totals, |v| v)
    }, else Err(unsupported_type(ty)))
}

fn min(input: &Tensor, r: Reduction) -> OpResult<Vec<Tensor>> {
    let ty = input.element_type();
    dispatch_numeric!(ty, T => {
        let totals = r.fold::<T, T>(input, T::GREATEST, |a, v, _| a.lesser(v))?;
        r.finish(&totals, |v| v)
    }, else Err(unsupported_type(ty)))
}

fn l1(input: &Tensor, r: Reduction) -> OpResult<Vec<Tensor>> {
    let ty = input.element_type();
    if ty.is_float() {
        return dispatch_float!(ty, T => {
            let totals = r.fold::<T, f64>(input, 0.0, |a, v, _| a + v.to_f64().abs())?;
            r.finish(&totals, T::from_f64)
        }, else Err(unsupported_type(ty)));
    }
    dispatch_numeric!(ty, T => {
        let totals = r.fold::<T, T>(input, T::ZERO, |a, v, _| a.plus(v.absolute()))?;
        r.finish(&totals, |v| v)
    }, else Err(unsupported_type(ty)))
}

fn l2(input: &Tensor, r: Reduction) -> OpResult<Vec<Tensor>> {
    let ty = input.element_type();
    dispatch_numeric!(ty, T => {
        let totals = r.fold::<T, f64>(input, 0.0, |a, v, _| a + v.to_f64() * v.to_f64())?;
        r.finish(&totals, |v| T::from_f64(v.sqrt()))
    }, else Err(unsupported_type(ty)))
}

fn log_sum_exp(input: &Tensor, r: Reduction) -> OpResult<Vec<Tensor>> {
    let ty = input.element_type();
    dispatch_numeric!(ty, T => {
        let largest = r.fold::<T, f64>(input, f64::NEG_INFINITY, |a, v, _| a.max(v.to_f64()))?;
        let shift = |o: usize| if largest[o].is_finite() { largest[o] } else { 0.0 };
        let sums = r.fold::<T, f64>(input, 0.0, |a, v, o| a + (v.to_f64() - shift(o)).exp())?;
        let totals: Vec<f64> = sums.iter().enumerate().map(|(o, s)| s.ln() + shift(o)).collect();
        r.finish(&totals, T::from_f64)
    }, else Err(unsupported_type(ty)))
}

fn truth(input: &Tensor, r: Reduction, init: bool, f: impl Fn(bool, bool) -> bool) -> OpResult<Vec<Tensor>> {
    let totals = r.fold::<u8, bool>(input, init, |a, v, _| f(a, v != 0))?;
    Ok(vec![Tensor::from_bools(r.output, &totals)?])
}

fn all(input: &Tensor, r: Reduction) -> OpResult<Vec<Tensor>> {
    truth(input, r, true, |a, b| a && b)
}

fn any(input: &Tensor, r: Reduction) -> OpResult<Vec<Tensor>> {
    truth(input, r, false, |a, b| a || b)
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<ReduceSum>(),
    OpEntry::of::<ReduceMean>(),
    OpEntry::of::<ReduceProd>(),
    OpEntry::of::<ReduceMax>(),
    OpEntry::of::<ReduceMin>(),
    OpEntry::of::<ReduceL1>(),
    OpEntry::of::<ReduceL2>(),
    OpEntry::of::<ReduceLogSumExp>(),
    OpEntry::of::<ReduceLogicalAnd>(),
    OpEntry::of::<ReduceLogicalOr>(),
    OpEntry::of::<AxesOrAll>(),
    OpEntry::of::<CumSum>(),
    OpEntry::of::<CumProd>(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::InputInfo;

    fn f32s(shape: &[usize], v: &[f32]) -> Tensor {
        Tensor::from_vec(shape, v.to_vec()).expect("fits")
    }

    #[test]
    fn axes_are_reduced_in_every_combination() {
        let x = f32s(&[2, 3, 2], &(0..12).map(|v| v as f32).collect::<Vec<_>>());
        for (axes, keep_dims, shape, expected) in [
            (vec![0], false, vec![3, 2], vec![6., 8., 10., 12., 14., 16.]),
            (vec![1], true, vec![2, 1, 2], vec![6., 9., 24., 27.]),
            (vec![-1], false, vec![2, 3], vec![1., 5., 9., 13., 17., 21.]),
            (vec![0, 2], false, vec![3], vec![14., 22., 30.]),
            (vec![2, 1, 0], false, vec![], vec![66.]),
            (vec![], false, vec![2, 3, 2], (0..12).map(|v| v as f32).collect()),
        ] {
            let axes = Tensor::from_i64s(&axes);
            let got = ReduceSum { keep_dims }.evaluate(&[x.clone(), axes.clone()]).expect("valid").remove(0);
            assert_eq!(got, f32s(&shape, &expected), "{axes:?}");
            let (xs, axes_shape) = (x.shape().into(), axes.shape().into());
            let info = |shape, value| InputInfo { element_type: ElementType::F32, shape, value, dims: None };
            let inputs = [
                info(&xs, None),
                InputInfo { element_type: ElementType::I64, ..info(&axes_shape, Some(&axes)) },
            ];
            let inferred = ReduceSum { keep_dims }.infer(&InferContext { inputs: &inputs }).expect("valid");
            assert_eq!(inferred[0].shape, got.shape().into());
        }
        assert!(ReduceSum::default().evaluate(&[x, Tensor::from_i64s(&[3])]).is_err());
    }

    #[test]
    fn reductions_have_their_known_values() {
        let x = f32s(&[4], &[3., -4., 0., 1.]);
        for (op, expected) in [
            (&ReduceSum::default() as &dyn crate::op::Op, 0.),
            (&ReduceMean::default(), 0.),
            (&ReduceProd::default(), 0.),
            (&ReduceMax::default(), 3.),
            (&ReduceMin::default(), -4.),
            (&ReduceL1::default(), 8.),
            (&ReduceL2::default(), 26f32.sqrt()),
            (&ReduceLogSumExp::default(), (3f32.exp() + (-4f32).exp() + 1. + 1f32.exp()).ln()),
        ] {
            let got = op.evaluate(&[x.clone(), Tensor::from_i64s(&[0])]).expect("valid").remove(0);
            assert!((got.as_slice::<f32>().expect("f32")[0] - expected).abs() < 1e-5, "{:?}", op.kind());
        }
        let ints = Tensor::from_vec([3], vec![-7i32, 0, 2]).expect("fits");
        let got = ReduceMean::default().evaluate(&[ints, Tensor::from_i64s(&[0])]).expect("valid");
        assert_eq!(got[0].as_slice::<i32>().expect("i32"), [-1]);
    }

    #[test]
    fn nothing_reduces_to_the_neutral_element() {
        let x = Tensor::zeros(ElementType::F32, [2, 0]).expect("small");
        for (op, expected) in [
            (&ReduceSum::default() as &dyn crate::op::Op, 0.),
            (&ReduceProd::default(), 1.),
            (&ReduceMax::default(), f32::NEG_INFINITY),
            (&ReduceMin::default(), f32::INFINITY),
            (&ReduceLogSumExp::default(), f32::NEG_INFINITY),
        ] {
            let got = op.evaluate(&[x.clone(), Tensor::from_i64s(&[1])]).expect("valid");
            assert_eq!(got[0].as_slice::<f32>().expect("f32"), [expected; 2], "{:?}", op.kind());
        }
        let t = Tensor::from_bools([2, 2], &[true, false, true, true]).expect("fits");
        for (op, expected) in
            [(&ReduceLogicalAnd::default() as &dyn crate::op::Op, [0, 1]), (&ReduceLogicalOr::default(), [1, 1])]
        {
            let got = op.evaluate(&[t.clone(), Tensor::from_i64s(&[1])]).expect("valid");
            assert_eq!(got[0].bytes(), expected);
        }
    }
}
