//! Activations.

use super::{super::{ConvertError, NodeContext}, ConvertResult, OnnxOp};
use crate::{
    model::Value,
    op::{
        OpError,
        activation::{
            Abs, Acos, Acosh, Asin, Asinh, Atan, Atanh, Ceiling, Clamp, Cos, Cosh, Elu, Erf, Exp, Floor, Gelu, GeluMode,
            HSwish, HardSigmoid, Log, Mish, Negative, PRelu, Relu, Round, Selu, Sigmoid, Sign, Sin, Sinh, SoftPlus,
            SoftSign, Sqrt, Swish, Tan, Tanh,
        },
        arithmetic::{Add, Divide, Maximum, Minimum, Multiply, Subtract},
        comparison::{Greater, Less},
        convert::Convert,
        select::Select,
    },
    tensor::ElementType,
};

macro_rules! unary {
    ($($f:ident = $op:ident;)*) => {$(
        fn $f(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
            let x = cx.input(0)?;
            Ok(vec![cx.add($op::default(), &[x])?])
        }
    )*};
}

unary! {
    relu = Relu;
    sigmoid = Sigmoid;
    tanh = Tanh;
    exp = Exp;
    log = Log;
    sqrt = Sqrt;
    abs = Abs;
    negative = Negative;
    sign = Sign;
    floor = Floor;
    ceiling = Ceiling;
    round = Round;
    sin = Sin;
    cos = Cos;
    tan = Tan;
    asin = Asin;
    acos = Acos;
    atan = Atan;
    sinh = Sinh;
    cosh = Cosh;
    asinh = Asinh;
    acosh = Acosh;
    atanh = Atanh;
    hard_swish = HSwish;
    mish = Mish;
    softplus = SoftPlus;
    softsign = SoftSign;
}

/// Integers are allowed; their values are those of `f64`, cut off.
fn erf(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![in_f64(cx, x, |cx, x| cx.add(Erf {}, &[x]))?])
}

/// `f` of a value, through `f64` when it is of an integer type.
pub(super) fn in_f64<'a, 'c>(
    cx: &mut NodeContext<'a, 'c>,
    x: Value,
    f: impl FnOnce(&mut NodeContext<'a, 'c>, Value) -> Result<Value, ConvertError>,
) -> Result<Value, ConvertError> {
    let ty = cx.element_type(x);
    if !ty.is_integer() {
        return f(cx, x);
    }
    let wide = cx.add(Convert { destination_type: ElementType::F64 }, &[x])?;
    let value = f(cx, wide)?;
    cx.add(Convert { destination_type: ty }, &[value])
}

fn elu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, alpha) = (cx.input(0)?, f64::from(cx.f32("alpha", 1.0)?));
    Ok(vec![cx.add(Elu { alpha }, &[x])?])
}

fn leaky_relu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let slope = cx.scalar_like(f64::from(cx.f32("alpha", 0.01)?), x)?;
    Ok(vec![cx.add(PRelu {}, &[x, slope])?])
}

/// The slope broadcasts as in numpy; [`PRelu`] reads one of rank 1 as one per channel unless its shape says otherwise.
fn prelu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, slope) = (cx.input(0)?, cx.input(1)?);
    let one_per_channel = cx.shape(slope).rank() == Some(1) && cx.shape(x).rank().is_some_and(|r| r > 2);
    let last = cx.shape(x).dims().and_then(|d| d.last().copied());
    if one_per_channel && last.is_some_and(|d| d.intersect(cx.shape(slope).dim(0)).is_some()) {
        // Broadcasting along the last axis: `max(x, 0) + slope min(x, 0)` does not depend on the slope's rank.
        let zero = cx.scalar_like(0.0, x)?;
        let (positive, negative) = (cx.add(Maximum {}, &[x, zero])?, cx.add(Minimum {}, &[x, zero])?);
        let scaled = cx.add(Multiply {}, &[slope, negative])?;
        return Ok(vec![cx.add(Add {}, &[positive, scaled])?]);
    }
    Ok(vec![cx.add(PRelu {}, &[x, slope])?])
}

/// `alpha elu(x / alpha)`.
fn celu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, alpha) = (cx.input(0)?, f64::from(cx.f32("alpha", 1.0)?));
    if alpha == 1.0 {
        return Ok(vec![cx.add(Elu { alpha }, &[x])?]);
    }
    let alpha = cx.scalar_like(alpha, x)?;
    let scaled = cx.add(Divide::default(), &[x, alpha])?;
    let elu = cx.add(Elu { alpha: 1.0 }, &[scaled])?;
    Ok(vec![cx.add(Multiply {}, &[elu, alpha])?])
}

fn selu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let alpha = cx.scalar_like(f64::from(cx.f32("alpha", 1.673_263_2)?), x)?;
    let gamma = cx.scalar_like(f64::from(cx.f32("gamma", 1.050_701)?), x)?;
    Ok(vec![cx.add(Selu {}, &[x, alpha, gamma])?])
}

fn hard_sigmoid(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let alpha = cx.scalar_like(f64::from(cx.f32("alpha", 0.2)?), x)?;
    let beta = cx.scalar_like(f64::from(cx.f32("beta", 0.5)?), x)?;
    Ok(vec![cx.add(HardSigmoid {}, &[x, alpha, beta])?])
}

fn thresholded_relu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let alpha = cx.scalar_like(f64::from(cx.f32("alpha", 1.0)?), x)?;
    let zero = cx.scalar_like(0.0, x)?;
    let above = cx.add(Greater {}, &[x, alpha])?;
    Ok(vec![cx.add(Select {}, &[above, x, zero])?])
}

/// `x < -lambd ? x + bias : x > lambd ? x - bias : 0`.
fn shrink(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let (bias, lambda) = (f64::from(cx.f32("bias", 0.0)?), f64::from(cx.f32("lambd", 0.5)?));
    let (bias, zero) = (cx.scalar_like(bias, x)?, cx.scalar_like(0.0, x)?);
    let (low, high) = (cx.scalar_like(-lambda, x)?, cx.scalar_like(lambda, x)?);
    let (raised, lowered) = (cx.add(Add {}, &[x, bias])?, cx.add(Subtract {}, &[x, bias])?);
    let (below, above) = (cx.add(Less {}, &[x, low])?, cx.add(Greater {}, &[x, high])?);
    let positive = cx.add(Select {}, &[above, lowered, zero])?;
    Ok(vec![cx.add(Select {}, &[below, raised, positive])?])
}

fn gelu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let approximation_mode = match cx.str("approximate", "none")? {
        "none" => GeluMode::Erf,
        "tanh" => GeluMode::Tanh,
        other => {
            return Err(OpError::Attribute {
                name: "approximate",
                got: other.to_owned(),
                expected: "none or tanh".to_owned(),
            }
            .into());
        }
    };
    Ok(vec![cx.add(Gelu { approximation_mode }, &[x])?])
}

fn swish_of(cx: &mut NodeContext<'_, '_>, x: Value) -> Result<Value, ConvertError> {
    let alpha = cx.f32("alpha", 1.0)?;
    if alpha == 1.0 {
        return cx.add(Swish {}, &[x]);
    }
    let alpha = cx.scalar_like(f64::from(alpha), x)?;
    cx.add(Swish {}, &[x, alpha])
}

fn swish(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![swish_of(cx, x)?])
}

fn swiglu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (gate, value) = (cx.input(0)?, cx.input(1)?);
    let gate = swish_of(cx, gate)?;
    Ok(vec![cx.add(Multiply {}, &[gate, value])?])
}

fn reciprocal(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let one = cx.scalar_like(1.0, x)?;
    Ok(vec![cx.add(Divide::default(), &[one, x])?])
}

fn clip_attributes(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let min = f64::from(cx.f32("min", f32::MIN)?);
    let max = f64::from(cx.f32("max", f32::MAX)?);
    Ok(vec![cx.add(Clamp { min, max }, &[x])?])
}

/// Constant bounds that `f64` holds exactly become attributes, others are applied one after the other.
fn clip(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let bounds = [cx.optional_input(1), cx.optional_input(2)];
    let mut constant = [f64::NEG_INFINITY, f64::INFINITY];
    let mut exact = true;
    for (value, bound) in constant.iter_mut().zip(bounds) {
        let Some(bound) = bound else { continue };
        match cx.constant_value(bound).filter(|t| t.len() == 1).and_then(|t| t.element_as_f64(0)) {
            Some(v) if !v.is_nan() && (v.is_infinite() || v.abs() < 2f64.powi(53)) => *value = v,
            _ => exact = false,
        }
    }
    if exact {
        return Ok(vec![cx.add(Clamp { min: constant[0], max: constant[1] }, &[x])?]);
    }
    let mut y = x;
    if let Some(min) = bounds[0] {
        y = cx.add(Maximum {}, &[y, min])?;
    }
    if let Some(max) = bounds[1] {
        y = cx.add(Minimum {}, &[y, max])?;
    }
    Ok(vec![y])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "Relu", 6, relu),
    ("", "Elu", 6, elu),
    ("", "LeakyRelu", 6, leaky_relu),
    ("", "PRelu", 7, prelu),
    ("", "Celu", 12, celu),
    ("", "Selu", 6, selu),
    ("", "ThresholdedRelu", 10, thresholded_relu),
    ("", "Sigmoid", 6, sigmoid),
    ("", "HardSigmoid", 6, hard_sigmoid),
    ("", "HardSwish", 14, hard_swish),
    ("", "Swish", 24, swish),
    ("", "SwiGLU", 28, swiglu),
    ("", "Mish", 18, mish),
    ("", "Gelu", 20, gelu),
    ("", "Softplus", 1, softplus),
    ("", "Softsign", 1, softsign),
    ("", "Tanh", 6, tanh),
    ("", "Erf", 9, erf),
    ("", "Exp", 6, exp),
    ("", "Log", 6, log),
    ("", "Sqrt", 6, sqrt),
    ("", "Reciprocal", 6, reciprocal),
    ("", "Abs", 6, abs),
    ("", "Neg", 6, negative),
    ("", "Sign", 9, sign),
    ("", "Floor", 6, floor),
    ("", "Ceil", 6, ceiling),
    ("", "Round", 11, round),
    ("", "Sin", 7, sin),
    ("", "Cos", 7, cos),
    ("", "Tan", 7, tan),
    ("", "Asin", 7, asin),
    ("", "Acos", 7, acos),
    ("", "Atan", 7, atan),
    ("", "Sinh", 9, sinh),
    ("", "Cosh", 9, cosh),
    ("", "Asinh", 9, asinh),
    ("", "Acosh", 9, acosh),
    ("", "Atanh", 9, atanh),
    ("", "Shrink", 9, shrink),
    ("", "Clip", 6, clip_attributes),
    ("", "Clip", 11, clip),
];
