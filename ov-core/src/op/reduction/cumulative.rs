//! Running sums and products.

use crate::{
    dispatch_float, dispatch_numeric,
    op::{InferContext, OpError, OpResult, OpRules, OutputType, arithmetic::Number, normalize_axis, unsupported_type},
    tensor::{Element, ElementType, Tensor, TensorBuffer},
};

fn infer(cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(1..=2)?;
    cx.expect_type(1, "an integer type", ElementType::is_integer)?;
    if let (Some([axis]), Some(rank)) = (cx.i64s(1)?.as_deref(), cx.shape(0).rank()) {
        normalize_axis(*axis, rank)?;
    }
    Ok(vec![cx.same_as(0)])
}

fn run<T: Element, A: Copy>(
    inputs: &[Tensor],
    exclusive: bool,
    reverse: bool,
    init: A,
    f: impl Fn(A, T) -> A,
    narrow: impl Fn(A) -> T,
) -> OpResult<Vec<Tensor>>
where
    Vec<T>: TensorBuffer,
{
    let input = inputs[0].to_contiguous();
    let axis = match inputs.get(1).map(Tensor::to_i64_vec).transpose()?.as_deref() {
        None => 0,
        Some([axis]) => *axis,
        Some(axes) => {
            return Err(OpError::Input { index: 1, got: format!("{axes:?}"), expected: "one axis".to_owned() });
        }
    };
    let shape = input.shape().clone();
    let axis = normalize_axis(axis, shape.rank())?;
    let (extent, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let source = input.as_slice::<T>()?;
    let mut out = source.to_vec();
    for start in (0..source.len()).step_by((extent * inner).max(1)) {
        for offset in 0..inner {
            let mut total = init;
            for i in 0..extent {
                let at = start + offset + inner * if reverse { extent - 1 - i } else { i };
                let next = f(total, source[at]);
                out[at] = narrow(if exclusive { total } else { next });
                total = next;
            }
        }
    }
    Ok(vec![Tensor::from_vec(shape, out)?])
}

macro_rules! cumulative {
    ($($(#[$meta:meta])* $name:ident($text:literal, $opset:literal) = $start:literal, $float:expr, $init:ident, $method:ident;)*) => {$(
        define_op! {
            $(#[$meta])*
            pub struct $name($text, $opset) {
                /// Whether an element itself is left out of its result.
                exclusive: bool = false,
                /// Whether the direction is from the end.
                reverse: bool = false,
            }
        }

        impl OpRules for $name {
            fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                infer(cx)
            }

            fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                let (ty, exclusive, reverse) = (inputs[0].element_type(), self.exclusive, self.reverse);
                if ty.is_float() {
                    let f: fn(f64, f64) -> f64 = $float;
                    return dispatch_float!(ty, T => run::<T, f64>(inputs, exclusive, reverse, $start,
                        |a, v| f(a, v.to_f64()), T::from_f64), else Err(unsupported_type(ty)));
                }
                dispatch_numeric!(ty, T => run::<T, T>(inputs, exclusive, reverse, T::$init, T::$method, |v| v),
                    else Err(unsupported_type(ty)))
            }
        }
    )*};
}

cumulative! {
    /// Sums of the elements up to each along an axis (the second input, 0 when left out).
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/cumsum-3.html>
    CumSum("CumSum", 3) = 0.0, |a, v| a + v, ZERO, plus;
    /// Products of the elements up to each along an axis (the second input, 0 when left out).
    /// <https://onnx.ai/onnx/operators/onnx__CumProd.html>
    CumProd("CumProd", 0) = 1.0, |a, v| a * v, ONE, times;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_run_in_both_directions_with_and_without_the_element() {
        let x = Tensor::from_vec([2, 3], vec![1i32, 2, 3, 4, 5, 6]).expect("fits");
        for (axis, exclusive, reverse, expected) in [
            (1, false, false, [1, 3, 6, 4, 9, 15]),
            (-1, true, false, [0, 1, 3, 0, 4, 9]),
            (1, false, true, [6, 5, 3, 15, 11, 6]),
            (1, true, true, [5, 3, 0, 11, 6, 0]),
            (0, false, false, [1, 2, 3, 5, 7, 9]),
        ] {
            let op = CumSum { exclusive, reverse };
            let got = op.evaluate(&[x.clone(), Tensor::scalar(i64::from(axis))]).expect("valid");
            assert_eq!(got[0].as_slice::<i32>().expect("i32"), expected, "{axis} {exclusive} {reverse}");
        }
        let got = CumProd { exclusive: true, reverse: false }.evaluate(&[x.clone(), Tensor::scalar(1i32)]);
        assert_eq!(got.expect("valid")[0].as_slice::<i32>().expect("i32"), [1, 1, 2, 1, 4, 20]);
        assert!(CumSum::default().evaluate(&[x, Tensor::scalar(2i64)]).is_err());
        let empty = Tensor::zeros(ElementType::F32, [2, 0]).expect("small");
        assert_eq!(CumSum::default().evaluate(&[empty, Tensor::scalar(1i64)]).expect("valid")[0].len(), 0);
    }
}
