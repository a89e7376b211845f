//! Comparison of two operands that broadcast, and tests of single floats.

use super::{
    InferContext, OpEntry, OpResult, OpRules, OutputType, activation::map, broadcast_shapes, unsupported_type,
    zip_dims, zip_test, BroadcastPlan,
};
use crate::{
    dispatch_float, dispatch_numeric,
    tensor::{Dimension, Element as _, ElementType, Tensor},
};

/// Values of a small integer input as far as known, negative constants included.
fn partly_known(cx: &InferContext<'_>, index: usize) -> Option<Vec<Result<i64, Dimension>>> {
    if let Some(dims) = cx.dims(index) {
        let known = |d: Dimension| d.value().and_then(|v| i64::try_from(v).ok()).ok_or(d);
        return Some(dims.into_iter().map(known).collect());
    }
    let value = cx.value(index).filter(|v| v.rank() <= 1 && v.element_type().is_integer())?;
    Some(value.to_i64_vec().ok()?.into_iter().map(Ok).collect())
}

/// Whether a dimension (which is never negative) compares true with a value; `None` when that is open.
fn compare_known(
    a: Result<i64, Dimension>,
    b: Result<i64, Dimension>,
    compare: fn(i64, i64) -> bool,
) -> Option<bool> {
    let both = |f: &dyn Fn(i64) -> bool, d: Dimension| {
        let min = i64::try_from(d.min()).ok()?;
        let max = d.max().and_then(|m| i64::try_from(m).ok()).unwrap_or(i64::MAX);
        // Comparisons with a constant change at most twice, next to the constant.
        (f(min) == f(max)).then(|| f(min))
    };
    let outside = |d: Dimension, v: i64| usize::try_from(v).map_or(true, |v| !d.admits(v));
    match (a, b) {
        (Ok(a), Ok(b)) => Some(compare(a, b)),
        (Err(d), Ok(v)) if outside(d, v) => both(&|d| compare(d, v), d),
        (Ok(v), Err(d)) if outside(d, v) => both(&|d| compare(v, d), d),
        (Err(x), Err(y)) if x.same(y) => Some(compare(0, 0)),
        _ => None,
    }
}

fn infer_comparison(cx: &InferContext<'_>, compare: fn(i64, i64) -> bool) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(2..=2)?;
    cx.common_type(0..2)?;
    let shape = broadcast_shapes(&cx.shape(0), &cx.shape(1))?;
    let known = zip_dims(partly_known(cx, 0), partly_known(cx, 1), &shape, |a, b| {
        Some(compare_known(a, b, compare).map_or_else(
            || Dimension::bounded(0, Some(1)),
            |v| Dimension::fixed(usize::from(v)),
        ))
    });
    Ok(vec![OutputType::new(ElementType::Boolean, shape).with_dims(known)])
}

macro_rules! comparisons {
    ($($(#[$meta:meta])* $name:ident($text:literal) = $op:tt;)*) => {$(
        define_op! {
            $(#[$meta])*
            pub struct $name($text, 1) {}
        }

        impl OpRules for $name {
            fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                infer_comparison(cx, |a, b| a $op b)
            }

            fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                let (a, b) = (&inputs[0], &inputs[1]);
                let result = match a.element_type() {
                    ElementType::Boolean => zip_test::<u8>(a, b, |a, b| a $op b)?,
                    ElementType::String => compare_texts(a, b, |a, b| a $op b)?,
                    ty => dispatch_numeric!(ty, T => zip_test::<T>(a, b, |a, b| a $op b)?,
                        else return Err(unsupported_type(ty))),
                };
                Ok(vec![result])
            }
        }
    )*};
}

comparisons! {
    /// `a == b`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/comparison/equal-1.html>
    Equal("Equal") = ==;
    /// `a != b`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/comparison/not-equal-1.html>
    NotEqual("NotEqual") = !=;
    /// `a < b`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/comparison/less-1.html>
    Less("Less") = <;
    /// `a <= b`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/comparison/lessequal-1.html>
    LessEqual("LessEqual") = <=;
    /// `a > b`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/comparison/greater-1.html>
    Greater("Greater") = >;
    /// `a >= b`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/comparison/greater-equal-1.html>
    GreaterEqual("GreaterEqual") = >=;
}

fn compare_texts(a: &Tensor, b: &Tensor, f: impl Fn(&str, &str) -> bool) -> OpResult<Tensor> {
    let plan = BroadcastPlan::new([a.shape(), b.shape()])?;
    let (a, b) = (a.as_strings()?, b.as_strings()?);
    let mut out = Vec::with_capacity(plan.shape.elements());
    plan.for_each_run(|[i, j], [s, t], n| {
        out.extend((0..n).map(|k| f(&a[i + s * k], &b[j + t * k])));
    });
    Ok(Tensor::from_bools(plan.shape, &out)?)
}

fn infer_test(cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(1..=1)?;
    cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
    Ok(vec![OutputType::new(ElementType::Boolean, cx.shape(0))])
}

fn test_floats(input: &Tensor, f: impl Fn(f64) -> bool) -> OpResult<Vec<Tensor>> {
    let ty = input.element_type();
    if ty.is_float() && ty.bits() <= 8 {
        let values: Vec<bool> = super::convert::to_f64(input)?.into_iter().map(f).collect();
        return Ok(vec![Tensor::from_bools(input.shape().clone(), &values)?]);
    }
    let bytes = dispatch_float!(ty, T => map::<T, u8>(input, |v| u8::from(f(v.to_f64())))?,
        else return Err(unsupported_type(ty)));
    Ok(vec![bytes.reinterpret(ElementType::Boolean)?])
}

define_op! {
    /// Whether elements are NaN. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/comparison/isnan-10.html>
    pub struct IsNaN("IsNaN", 10) {}
}

impl OpRules for IsNaN {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_test(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        test_floats(&inputs[0], f64::is_nan)
    }
}

define_op! {
    /// Whether elements are finite. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/comparison/isfinite-10.html>
    pub struct IsFinite("IsFinite", 10) {}
}

impl OpRules for IsFinite {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_test(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        test_floats(&inputs[0], f64::is_finite)
    }
}

define_op! {
    /// Whether elements are infinite. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/comparison/isinf-10.html>
    pub struct IsInf("IsInf", 10) {
        /// Whether −∞ counts.
        detect_negative: bool = true,
        /// Whether ∞ counts.
        detect_positive: bool = true,
    }
}

impl OpRules for IsInf {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_test(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        test_floats(&inputs[0], |v| {
            (self.detect_negative && v == f64::NEG_INFINITY) || (self.detect_positive && v == f64::INFINITY)
        })
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<Equal>(),
    OpEntry::of::<NotEqual>(),
    OpEntry::of::<Less>(),
    OpEntry::of::<LessEqual>(),
    OpEntry::of::<Greater>(),
    OpEntry::of::<GreaterEqual>(),
    OpEntry::of::<IsNaN>(),
    OpEntry::of::<IsInf>(),
    OpEntry::of::<IsFinite>(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::InputInfo;

    #[test]
    fn comparisons_follow_the_order_of_their_type() {
        let (a, b) = ([1.0, 2.0, 3.0, f64::NAN], [2.0, 2.0, 2.0, f64::NAN]);
        for (op, expected) in [
            (&Equal {} as &dyn crate::op::Op, [0, 1, 0, 0]),
            (&NotEqual {}, [1, 0, 1, 1]),
            (&Less {}, [1, 0, 0, 0]),
            (&LessEqual {}, [1, 1, 0, 0]),
            (&Greater {}, [0, 0, 1, 0]),
            (&GreaterEqual {}, [0, 1, 1, 0]),
        ] {
            let t = |v: &[f64]| Tensor::from_f64s::<f32>([4], v).expect("fits");
            let got = op.evaluate(&[t(&a), t(&b)]).expect("valid").remove(0);
            assert_eq!((got.element_type(), got.bytes()), (ElementType::Boolean, &expected[..]), "{:?}", op.kind());
        }
        let t = |v: &[&str]| Tensor::from_strings([v.len()], v.iter().map(|s| (*s).to_owned()).collect()).expect("fits");
        let got = Equal {}.evaluate(&[t(&["a", "b"]), t(&["b"])]).expect("valid");
        assert_eq!(got[0].bytes(), [0, 1]);
    }

    #[test]
    fn floats_are_tested() {
        let t = Tensor::from_vec([4], vec![1f32, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]).expect("fits");
        for (op, expected) in [
            (&IsNaN {} as &dyn crate::op::Op, [0, 1, 0, 0]),
            (&IsFinite {}, [1, 0, 0, 0]),
            (&IsInf::default(), [0, 0, 1, 1]),
            (&IsInf { detect_negative: false, detect_positive: true }, [0, 0, 1, 0]),
        ] {
            assert_eq!(op.evaluate(std::slice::from_ref(&t)).expect("valid")[0].bytes(), expected);
        }
    }

    #[test]
    fn comparisons_of_shapes_are_known_where_they_can_be() {
        let shape = crate::PartialShape::from([3]);
        let dims = [Dimension::fixed(4), Dimension::DYNAMIC, Dimension::bounded(2, Some(5))];
        let minus_one = Tensor::from_i64s(&[-1]);
        let one = crate::PartialShape::from([1]);
        let inputs = [
            InputInfo { element_type: ElementType::I64, shape: &shape, value: None, dims: Some(&dims) },
            InputInfo { element_type: ElementType::I64, shape: &one, value: Some(&minus_one), dims: None },
        ];
        let out = Equal {}.infer(&InferContext { inputs: &inputs }).expect("valid").remove(0);
        assert_eq!(out.dims.expect("known"), vec![Dimension::fixed(0); 3]);
        let four = Tensor::from_i64s(&[4]);
        let inputs = [inputs[0], InputInfo { value: Some(&four), ..inputs[1] }];
        let out = Equal {}.infer(&InferContext { inputs: &inputs }).expect("valid").remove(0);
        let open = Dimension::bounded(0, Some(1));
        assert_eq!(out.dims.expect("known"), [Dimension::fixed(1), open, open]);
    }
}
