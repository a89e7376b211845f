//! Element-wise operators of one input that stand between layers.

mod parametric;
mod special;

pub use parametric::{
    Clamp, Gelu, Gelu2, GeluMode, HardSigmoid, PRelu, Round, RoundMode, Selu, Swish, slope_as_channels,
};
pub use special::erf;

use super::{
    InferContext, OpEntry, OpResult, OpRules, OutputType, arithmetic::Number, unsupported_type,
};
use crate::{
    dispatch_float, dispatch_numeric,
    tensor::{Element, ElementType, Tensor, TensorBuffer},
};

/// Applies `f` in `f64` to every element of a floating-point tensor.
///
/// # Errors
/// [`OpError::Unsupported`](super::OpError::Unsupported) for other element types.
pub fn map_float(input: &Tensor, f: impl Fn(f64) -> f64) -> OpResult<Tensor> {
    let ty = input.element_type();
    dispatch_float!(ty, T => map::<T, T>(input, |v| T::from_f64(f(v.to_f64()))), else Err(unsupported_type(ty)))
}

/// Applies `f` to every element.
///
/// # Errors
/// When the element type is not `A`.
pub fn map<A: Element, B: Element>(input: &Tensor, f: impl Fn(A) -> B) -> OpResult<Tensor>
where
    Vec<B>: TensorBuffer,
{
    let input = input.to_contiguous();
    let data: Vec<B> = input.as_slice::<A>()?.iter().map(|v| f(*v)).collect();
    Ok(Tensor::from_vec(input.shape().clone(), data)?)
}

/// Infers one output like the one input, which must be of a floating-point type.
///
/// # Errors
/// [`OpError::InputCount`](super::OpError::InputCount) and [`OpError::Input`](super::OpError::Input).
pub fn infer_float_unary(cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(1..=1)?;
    cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
    Ok(vec![cx.same_as(0)])
}

/// Infers one output like the one input, which must be of a numeric type.
fn infer_numeric_unary(cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(1..=1)?;
    cx.expect_type(0, "a numeric type", |t| t.is_float() || t.is_integer())?;
    Ok(vec![cx.same_as(0)])
}

macro_rules! float_unary {
    ($($(#[$meta:meta])* $name:ident($text:literal, $opset:literal) = $f:expr;)*) => {
        $(
            define_op! {
                $(#[$meta])*
                pub struct $name($text, $opset) {}
            }

            impl OpRules for $name {
                fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                    infer_float_unary(cx)
                }

                fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                    Ok(vec![map_float(&inputs[0], $f)?])
                }
            }
        )*

        const FLOAT_UNARY: &[OpEntry] = &[$(OpEntry::of::<$name>()),*];
    };
}

float_unary! {
    /// `1 / (1 + exp(-x))`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/sigmoid-1.html>
    Sigmoid("Sigmoid", 1) = sigmoid;
    /// Hyperbolic tangent. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/tanh-1.html>
    Tanh("Tanh", 1) = f64::tanh;
    /// `exp(x)`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/exp-1.html>
    Exp("Exp", 1) = f64::exp;
    /// Natural logarithm. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/log-1.html>
    Log("Log", 1) = f64::ln;
    /// Square root. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/sqrt-1.html>
    Sqrt("Sqrt", 1) = f64::sqrt;
    /// Greatest integer not above. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/floor-1.html>
    Floor("Floor", 1) = f64::floor;
    /// Least integer not below. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/ceiling-1.html>
    Ceiling("Ceiling", 1) = f64::ceil;
    /// Sine. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/sin-1.html>
    Sin("Sin", 1) = f64::sin;
    /// Cosine. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/cos-1.html>
    Cos("Cos", 1) = f64::cos;
    /// Tangent. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/tan-1.html>
    Tan("Tan", 1) = f64::tan;
    /// Arcsine. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/asin-1.html>
    Asin("Asin", 1) = f64::asin;
    /// Arccosine. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/acos-1.html>
    Acos("Acos", 1) = f64::acos;
    /// Arctangent. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/atan-1.html>
    Atan("Atan", 1) = f64::atan;
    /// Hyperbolic sine. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/sinh-1.html>
    Sinh("Sinh", 1) = f64::sinh;
    /// Hyperbolic cosine. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/cosh-1.html>
    Cosh("Cosh", 1) = f64::cosh;
    /// Inverse hyperbolic sine. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/asinh-3.html>
    Asinh("Asinh", 4) = f64::asinh;
    /// Inverse hyperbolic cosine. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/acosh-3.html>
    Acosh("Acosh", 4) = f64::acosh;
    /// Inverse hyperbolic tangent. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/atanh-3.html>
    Atanh("Atanh", 4) = f64::atanh;
    /// Error function. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/erf-1.html>
    Erf("Erf", 1) = erf;
    /// `x min(max(x + 3, 0), 6) / 6`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/hswish-4.html>
    HSwish("HSwish", 4) = |x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0;
    /// `min(max(x + 3, 0), 6) / 6`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/hsigmoid-5.html>
    HSigmoid("HSigmoid", 5) = |x| (x + 3.0).clamp(0.0, 6.0) / 6.0;
    /// `x tanh(ln(1 + exp(x)))`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/mish-4.html>
    Mish("Mish", 4) = |x| x * softplus(x).tanh();
    /// `ln(1 + exp(x))`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/softplus-4.html>
    SoftPlus("SoftPlus", 4) = softplus;
    /// `x / (1 + |x|)`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/softsign-9.html>
    SoftSign("SoftSign", 9) = |x| x / (1.0 + x.abs());
}

/// `1 / (1 + exp(-x))`.
#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `ln(1 + exp(x))` without overflow.
#[must_use]
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

macro_rules! numeric_unary {
    ($($(#[$meta:meta])* $name:ident($text:literal, $opset:literal) = $f:ident;)*) => {$(
        define_op! {
            $(#[$meta])*
            pub struct $name($text, $opset) {}
        }

        impl OpRules for $name {
            fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                infer_numeric_unary(cx)
            }

            fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                let ty = inputs[0].element_type();
                dispatch_numeric!(ty, T => Ok(vec![map::<T, T>(&inputs[0], $f::<T>)?]), else Err(unsupported_type(ty)))
            }
        }
    )*};
}

numeric_unary! {
    /// `max(x, 0)`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/relu-1.html>
    Relu("ReLU", 1) = rectify;
    /// Absolute value. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/abs-1.html>
    Abs("Abs", 1) = absolute;
    /// `-x`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/negative-1.html>
    Negative("Negative", 1) = negated;
    /// −1, 0 or 1. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/arithmetic/sign-1.html>
    Sign("Sign", 1) = sign;
}

fn rectify<T: Number>(v: T) -> T {
    if v < T::ZERO { T::ZERO } else { v }
}

fn absolute<T: Number>(v: T) -> T {
    v.absolute()
}

fn negated<T: Number>(v: T) -> T {
    v.negated()
}

fn sign<T: Number>(v: T) -> T {
    Number::signum(v)
}

define_op! {
    /// `x < 0 ? alpha (exp(x) - 1) : x`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/elu-1.html>
    pub struct Elu("Elu", 1) {
        /// Scale of the negative part.
        alpha: f64 = 1.0,
    }
}

impl OpRules for Elu {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_float_unary(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Ok(vec![map_float(&inputs[0], |x| if x < 0.0 { self.alpha * x.exp_m1() } else { x })?])
    }
}

const OTHERS: &[OpEntry] = &[
    OpEntry::of::<Relu>(),
    OpEntry::of::<Abs>(),
    OpEntry::of::<Negative>(),
    OpEntry::of::<Sign>(),
    OpEntry::of::<Elu>(),
    OpEntry::of::<Clamp>(),
    OpEntry::of::<PRelu>(),
    OpEntry::of::<HardSigmoid>(),
    OpEntry::of::<Selu>(),
    OpEntry::of::<Gelu>(),
    OpEntry::of::<Gelu2>(),
    OpEntry::of::<Swish>(),
    OpEntry::of::<Round>(),
];

/// Operators of this family.
pub const OPS: &[OpEntry] = &{
    let mut all = [OTHERS[0]; FLOAT_UNARY.len() + OTHERS.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = if i < OTHERS.len() { OTHERS[i] } else { FLOAT_UNARY[i - OTHERS.len()] };
        i += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_have_their_known_values() {
        let ln2 = std::f64::consts::LN_2;
        let third = 1.0 / 3.0;
        for (op, x, expected) in [
            (&Relu {} as &dyn crate::op::Op, [-1.0, 0.0, 2.0], [0.0, 0.0, 2.0]),
            (&Sigmoid {}, [0.0, 1e4, -1e4], [0.5, 1.0, 0.0]),
            (&Exp {}, [0.0, 1.0, ln2], [1.0, std::f64::consts::E, 2.0]),
            (&Log {}, [1.0, 2.0, 0.0], [0.0, ln2, f64::NEG_INFINITY]),
            (&Sqrt {}, [0.0, 4.0, 2.25], [0.0, 2.0, 1.5]),
            (&Abs {}, [-1.5, 0.0, 2.0], [1.5, 0.0, 2.0]),
            (&Negative {}, [-1.5, 1.0, 2.0], [1.5, -1.0, -2.0]),
            (&Sign {}, [-1.5, 0.0, 2.0], [-1.0, 0.0, 1.0]),
            (&Floor {}, [-1.5, 0.5, 2.0], [-2.0, 0.0, 2.0]),
            (&Ceiling {}, [-1.5, 0.5, 2.0], [-1.0, 1.0, 2.0]),
            (&HSwish {}, [-4.0, 1.0, 5.0], [0.0, 2.0 * third, 5.0]),
            (&HSigmoid {}, [-4.0, 0.0, 5.0], [0.0, 0.5, 1.0]),
            (&SoftPlus {}, [0.0, 1000.0, -1000.0], [ln2, 1000.0, 0.0]),
            (&SoftSign {}, [0.0, 1.0, -3.0], [0.0, 0.5, -0.75]),
            (&Mish {}, [0.0, 1000.0, 0.0], [0.0, 1000.0, 0.0]),
            (&Elu { alpha: 2.0 }, [0.0, 1.0, -1000.0], [0.0, 1.0, -2.0]),
            (&Atanh {}, [0.0, 0.5, -0.5], [0.0, 0.5 * 3f64.ln(), -0.5 * 3f64.ln()]),
        ] {
            for ty in [ElementType::F32, ElementType::F64, ElementType::F16, ElementType::Bf16] {
                let input = Tensor::from_f64s::<f64>([3], &x).expect("fits").cast(ty).expect("native");
                let got = op.evaluate(&[input]).expect("valid").remove(0);
                assert_eq!(got.element_type(), ty);
                let tolerance = match ty {
                    ElementType::F64 => 1e-12,
                    ElementType::F32 => 1e-6,
                    ElementType::F16 => 2e-3,
                    _ => 1e-2,
                };
                for (got, expected) in got.to_f64_vec().expect("numeric").iter().zip(expected) {
                    let near = (got - expected).abs() <= tolerance * expected.abs().max(1.0);
                    assert!(near || *got == expected, "{:?} {ty}: {got} {expected}", op.kind());
                }
            }
        }
        let empty = Tensor::zeros(ElementType::F32, [0, 3]).expect("small");
        assert_eq!(Exp {}.evaluate(&[empty]).expect("valid")[0].shape()[..], [0, 3]);
    }

    #[test]
    fn integers_keep_their_type_and_floats_are_asked_for() {
        let t = Tensor::from_vec([3], vec![-5i8, 0, i8::MIN]).expect("fits");
        let got = Abs {}.evaluate(std::slice::from_ref(&t)).expect("valid");
        assert_eq!(got[0].as_slice::<i8>().expect("i8"), [5, 0, i8::MIN]);
        assert!(Exp {}.evaluate(&[t]).is_err());
    }
}
