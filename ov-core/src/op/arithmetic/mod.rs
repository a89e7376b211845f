//! Element-wise arithmetic of two operands that broadcast.

mod number;

pub use number::Number;

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType, infer_binary, unsupported_type, zip_map,
};
use crate::{
    dispatch_numeric,
    tensor::{Dimension, Element as _, Tensor},
};

macro_rules! binary {
    ($($(#[$meta:meta])* $name:ident($text:literal, $opset:literal) = $method:ident, $divides:literal, $dims:expr;)*) => {$(
        define_op! {
            $(#[$meta])*
            pub struct $name($text, $opset) {}
        }

        impl OpRules for $name {
            fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                infer_binary(cx, $dims)
            }

            fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                if $divides {
                    refuse_zero_divisor(&inputs[1])?;
                }
                let ty = inputs[0].element_type();
                dispatch_numeric!(ty, T => Ok(vec![zip_map::<T, T, T>(&inputs[0], &inputs[1], T::$method)?]),
                    else Err(unsupported_type(ty)))
            }
        }
    )*};
}

binary! {
    /// `a + b`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/add-1.html>
    Add("Add", 1) = plus, false, |a, b| Some(a.add(b));
    /// `a - b`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/subtract-1.html>
    Subtract("Subtract", 1) = minus, false, subtract_dims;
    /// `a b`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/multiply-1.html>
    Multiply("Multiply", 1) = times, false, |a, b| Some(a.mul(b));
    /// `a` to the power of `b`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/power-1.html>
    Power("Power", 1) = power, false, |_, _| None;
    /// The greater of both, NaN when either is. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/maximum-1.html>
    Maximum("Maximum", 1) = greater, false, |a, b| Some(combine(a, b, usize::max));
    /// The lesser of both, NaN when either is. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/minimum-1.html>
    Minimum("Minimum", 1) = lesser, false, |a, b| Some(combine(a, b, usize::min));
    /// Remainder with the sign of the dividend. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/mod-1.html>
    Mod("Mod", 1) = remainder, true, remainder_dims;
    /// Remainder with the sign of the divisor. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/floormod-1.html>
    FloorMod("FloorMod", 1) = floor_remainder, true, remainder_dims;
    /// `(a - b)²`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/squared-difference-1.html>
    SquaredDifference("SquaredDifference", 1) = squared_difference, false, |_, _| None;
}

define_op! {
    /// `a / b`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/divide-1.html>
    pub struct Divide("Divide", 1) {
        /// Whether integer quotients round down rather than towards zero.
        m_pythondiv: bool = true,
    }
}

impl OpRules for Divide {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_binary(cx, divide_dims)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        refuse_zero_divisor(&inputs[1])?;
        let ty = inputs[0].element_type();
        let floor = self.m_pythondiv;
        dispatch_numeric!(ty, T => {
            let divide = if floor { T::floor_over } else { T::over };
            Ok(vec![zip_map::<T, T, T>(&inputs[0], &inputs[1], divide)?])
        }, else Err(unsupported_type(ty)))
    }
}

/// Integers have no quotient by zero.
fn refuse_zero_divisor(divisor: &Tensor) -> OpResult<()> {
    let ty = divisor.element_type();
    if !ty.is_integer() {
        return Ok(());
    }
    let t = divisor.to_contiguous();
    let zero = dispatch_numeric!(ty, T => t.as_slice::<T>()?.iter().any(|v| v.to_i64() == 0), else false);
    if zero { Err(OpError::Invalid("integer division by zero".to_owned())) } else { Ok(()) }
}

fn subtract_dims(a: Dimension, b: Dimension) -> Option<Dimension> {
    match (a.value(), b.value()) {
        (_, Some(0)) => Some(a),
        (Some(a), Some(b)) => a.checked_sub(b).map(Dimension::fixed),
        (None, Some(b)) => Some(a.map(|a| a.saturating_sub(b))),
        _ => Some(Dimension::bounded(0, a.max())),
    }
}

fn divide_dims(a: Dimension, b: Dimension) -> Option<Dimension> {
    match b.value() {
        Some(0) => None,
        Some(1) => Some(a),
        Some(b) => Some(a.map(|a| a / b)),
        None => Some(Dimension::bounded(0, a.max())),
    }
}

fn remainder_dims(a: Dimension, b: Dimension) -> Option<Dimension> {
    match (a.value(), b.value()) {
        (_, Some(0)) => None,
        (Some(a), Some(b)) => Some(Dimension::fixed(a % b)),
        _ => Some(Dimension::bounded(0, b.max())),
    }
}

fn combine(a: Dimension, b: Dimension, f: fn(usize, usize) -> usize) -> Dimension {
    if a.same(b) {
        return a;
    }
    let max = f(a.max().unwrap_or(usize::MAX), b.max().unwrap_or(usize::MAX));
    Dimension::bounded(f(a.min(), b.min()), (max != usize::MAX).then_some(max))
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<Add>(),
    OpEntry::of::<Subtract>(),
    OpEntry::of::<Multiply>(),
    OpEntry::of::<Divide>(),
    OpEntry::of::<Power>(),
    OpEntry::of::<Maximum>(),
    OpEntry::of::<Minimum>(),
    OpEntry::of::<Mod>(),
    OpEntry::of::<FloorMod>(),
    OpEntry::of::<SquaredDifference>(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        tensor::{ElementType, TensorBuffer},
    };

    fn run<T: crate::Element>(op: &dyn crate::op::Op, a: &[T], b: &[T]) -> OpResult<Tensor>
    where
        Vec<T>: TensorBuffer,
    {
        let t = |v: &[T]| Tensor::from_vec([v.len()], v.to_vec()).expect("fits");
        op.evaluate(&[t(a), t(b)]).map(|mut o| o.remove(0))
    }

    #[test]
    fn operators_compute_in_their_own_type() {
        let t = |v: &[f32]| Tensor::from_vec([v.len()], v.to_vec()).expect("fits");
        for (op, expected) in [
            (&Add {} as &dyn crate::op::Op, [5f32, -1.]),
            (&Subtract {}, [9., -5.]),
            (&Multiply {}, [-14., -6.]),
            (&Divide::default(), [-3.5, -1.5]),
            (&Power {}, [1. / 49., 9.]),
            (&Maximum {}, [7., 2.]),
            (&Minimum {}, [-2., -3.]),
            (&Mod {}, [1., -1.]),
            (&FloorMod {}, [-1., 1.]),
            (&SquaredDifference {}, [81., 25.]),
        ] {
            assert_eq!(run(op, &[7f32, -3.], &[-2., 2.]).expect("valid"), t(&expected), "{:?}", op.kind());
        }
        let big = i64::MAX - 1;
        assert_eq!(run(&Add {}, &[big], &[1]).expect("valid").as_slice::<i64>().expect("i64"), [i64::MAX]);
        let empty = run::<f32>(&Add {}, &[], &[2.]).expect("valid");
        assert_eq!(empty.shape()[..], [0]);
    }

    #[test]
    fn integer_division_rounds_as_asked_and_refuses_zero() {
        let floor = run(&Divide { m_pythondiv: true }, &[-7i32, 7], &[2, 2]).expect("valid");
        assert_eq!(floor.as_slice::<i32>().expect("i32"), [-4, 3]);
        let truncating = run(&Divide { m_pythondiv: false }, &[-7i32, 7], &[2, 2]).expect("valid");
        assert_eq!(truncating.as_slice::<i32>().expect("i32"), [-3, 3]);
        for op in [&Divide::default() as &dyn crate::op::Op, &Mod {}, &FloorMod {}] {
            assert!(run(op, &[1u8], &[0]).is_err());
        }
        assert!(run(&Divide::default(), &[1f32], &[0.]).is_ok());
    }

    #[test]
    fn shape_arithmetic_keeps_what_is_known() {
        use crate::op::InputInfo;
        let shape = crate::PartialShape::from([2]);
        let (a, b) = (
            [Dimension::DYNAMIC.with_symbol(1), Dimension::fixed(8)],
            [Dimension::fixed(1), Dimension::fixed(2)],
        );
        let info = |dims| InputInfo { element_type: ElementType::I64, shape: &shape, value: None, dims: Some(dims) };
        let inputs = [info(&a[..]), info(&b[..])];
        let cx = InferContext { inputs: &inputs };
        for (op, expected) in [
            (&Multiply {} as &dyn crate::op::Op, [a[0], Dimension::fixed(16)]),
            (&Divide::default(), [a[0], Dimension::fixed(4)]),
            (&Subtract {}, [Dimension::DYNAMIC, Dimension::fixed(6)]),
            (&Maximum {}, [Dimension::bounded(1, None), Dimension::fixed(8)]),
        ] {
            let out = op.infer(&cx).expect("valid").remove(0);
            assert_eq!(out.dims.as_deref(), Some(&expected[..]), "{:?}", op.kind());
        }
    }
}
