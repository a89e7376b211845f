//! Operations on one tensor, element by element.
#![allow(unsafe_code, reason = "each call writes its own part of a shared output")]

use std::ops::Range;

use crate::kernels::eltwise::trig;
use crate::kernels::out::Out;
use crate::simd::Isa;
use crate::simd::activation::{self, Activation, Visitor};
use crate::simd::bits::Bits;
use crate::simd::math::{self, Unary, unary};

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the operations")]
pub enum UnaryOp {
    Activation(Activation),
    Abs,
    Neg,
    Exp,
    Log,
    Sqrt,
    /// `1 / sqrt(x)`
    Rsqrt,
    /// `1 / x`
    Reciprocal,
    Floor,
    Ceil,
    /// To the nearest integer, halves to even.
    Round,
    /// To the nearest integer, halves away from zero.
    RoundAway,
    /// -1, 0 or 1.
    Sign,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    /// `x` to the power.
    Pow(f32),
    /// `scale * x + shift`
    Affine(f32, f32),
    /// `x / (1 + |x|)`
    Softsign,
    /// `x` where `|x| > lambda`, moved towards zero by `bias`, else 0.
    Shrink {
        lambd: f32,
        bias: f32,
    },
    /// `x` where `x > alpha`, else 0.
    ThresholdedRelu(f32),
    /// `scale * (x > 0 ? x : alpha * (e^x - 1))`
    Selu {
        alpha: f32,
        scale: f32,
    },
    /// `max(x, 0) + min(alpha * (e^(x / alpha) - 1), 0)`
    Celu(f32),
}

unary! {
    pub(super) Abs(s, x) = s.abs(x);
    pub(super) Neg(s, x) = s.neg(x);
    pub(super) Sqrt(s, x) = s.sqrt(x);
    pub(super) Rsqrt(s, x) = s.div(s.splat(1.0), s.sqrt(x));
    pub(super) Reciprocal(s, x) = s.div(s.splat(1.0), x);
    pub(super) Floor(s, x) = s.floor(x);
    pub(super) Ceil(s, x) = s.ceil(x);
    pub(super) Round(s, x) = s.round(x);
    pub(super) RoundAway(s, x) = {
        let t = s.floor(s.abs(x));
        let up = s.le(s.splat(0.5), s.sub(s.abs(x), t));
        s.copysign(s.select(up, s.add(t, s.splat(1.0)), s.select(s.eq(x, x), t, x)), x)
    };
    pub(super) Sign(s, x) = {
        let one = s.copysign(s.splat(1.0), x);
        s.select(s.lt(s.zero(), s.abs(x)), one, x)
    };
    pub(super) Sin(s, x) = trig::sin(s, x);
    pub(super) Cos(s, x) = trig::cos(s, x);
    pub(super) Square(s, x) = s.mul(x, x);
    pub(super) Cube(s, x) = s.mul(s.mul(x, x), x);
    pub(super) Softsign(s, x) = s.div(x, s.add(s.splat(1.0), s.abs(x)));
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Pow(pub(super) f32);
impl Unary for Pow {
    #[inline(always)]
    fn eval<S: Bits>(self, s: S, x: S::F) -> S::F {
        let mut lanes = [0.0f32; 16];
        s.store_slice(&mut lanes, x);
        for v in &mut lanes[..S::LEN] {
            *v = v.powf(self.0);
        }
        s.load_slice(&lanes)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Affine(pub(super) f32, pub(super) f32);
impl Unary for Affine {
    #[inline(always)]
    fn eval<S: Bits>(self, s: S, x: S::F) -> S::F {
        s.fma(s.splat(self.0), x, s.splat(self.1))
    }
}

/// A function that is rare enough to be computed lane by lane in f64.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rare(pub(super) fn(f64) -> f64);
impl Unary for Rare {
    #[inline(always)]
    fn eval<S: Bits>(self, s: S, x: S::F) -> S::F {
        trig::each(s, x, self.0)
    }
}

#[derive(Clone, Copy, Debug)]
struct Shrink(f32, f32);
impl Unary for Shrink {
    #[inline(always)]
    fn eval<S: Bits>(self, s: S, x: S::F) -> S::F {
        let (lambd, bias) = (s.splat(self.0), s.splat(self.1));
        let y = s.select(s.lt(lambd, x), s.sub(x, bias), s.zero());
        let y = s.select(s.lt(x, s.neg(lambd)), s.add(x, bias), y);
        s.select(s.eq(x, x), y, x)
    }
}

#[derive(Clone, Copy, Debug)]
struct Thresholded(f32);
impl Unary for Thresholded {
    #[inline(always)]
    fn eval<S: Bits>(self, s: S, x: S::F) -> S::F {
        s.select(s.le(x, s.splat(self.0)), s.zero(), x)
    }
}

/// `scale * (x > 0 ? x : alpha * (e^(x / width) - 1))`
#[derive(Clone, Copy, Debug)]
struct Exponential {
    alpha: f32,
    scale: f32,
    inverse_width: f32,
}
impl Unary for Exponential {
    #[inline(always)]
    fn eval<S: Bits>(self, s: S, x: S::F) -> S::F {
        let low = math::expm1_negative(s, s.mul(x, s.splat(self.inverse_width)));
        let y = s.select(s.lt(s.zero(), x), x, s.mul(low, s.splat(self.alpha)));
        s.mul(y, s.splat(self.scale))
    }
}

/// Calls `v` with the function that `op` stands for.
#[inline(always)]
pub fn dispatch<V: Visitor>(op: UnaryOp, v: V) {
    match op {
        UnaryOp::Activation(act) => activation::dispatch(act, v),
        UnaryOp::Abs => v.visit(Abs),
        UnaryOp::Neg => v.visit(Neg),
        UnaryOp::Exp => v.visit(math::Exp),
        UnaryOp::Log => v.visit(math::Log),
        UnaryOp::Sqrt => v.visit(Sqrt),
        UnaryOp::Rsqrt => v.visit(Rsqrt),
        UnaryOp::Reciprocal => v.visit(Reciprocal),
        UnaryOp::Floor => v.visit(Floor),
        UnaryOp::Ceil => v.visit(Ceil),
        UnaryOp::Round => v.visit(Round),
        UnaryOp::RoundAway => v.visit(RoundAway),
        UnaryOp::Sign => v.visit(Sign),
        UnaryOp::Sin => v.visit(Sin),
        UnaryOp::Cos => v.visit(Cos),
        UnaryOp::Tan => v.visit(Rare(f64::tan)),
        UnaryOp::Asin => v.visit(Rare(f64::asin)),
        UnaryOp::Acos => v.visit(Rare(f64::acos)),
        UnaryOp::Atan => v.visit(Rare(f64::atan)),
        UnaryOp::Sinh => v.visit(Rare(f64::sinh)),
        UnaryOp::Cosh => v.visit(Rare(f64::cosh)),
        UnaryOp::Asinh => v.visit(Rare(f64::asinh)),
        UnaryOp::Acosh => v.visit(Rare(f64::acosh)),
        UnaryOp::Atanh => v.visit(Rare(f64::atanh)),
        UnaryOp::Erf => v.visit(math::Erf),
        UnaryOp::Pow(1.0) => v.visit(activation::Identity),
        UnaryOp::Pow(2.0) => v.visit(Square),
        UnaryOp::Pow(3.0) => v.visit(Cube),
        UnaryOp::Pow(-1.0) => v.visit(Reciprocal),
        UnaryOp::Pow(p) => v.visit(Pow(p)),
        UnaryOp::Affine(scale, shift) => v.visit(Affine(scale, shift)),
        UnaryOp::Softsign => v.visit(Softsign),
        UnaryOp::Shrink { lambd, bias } => v.visit(Shrink(lambd, bias)),
        UnaryOp::ThresholdedRelu(alpha) => v.visit(Thresholded(alpha)),
        UnaryOp::Selu { alpha, scale } => {
            v.visit(Exponential { alpha, scale, inverse_width: 1.0 });
        }
        UnaryOp::Celu(alpha) => {
            v.visit(Exponential { alpha, scale: 1.0, inverse_width: 1.0 / alpha });
        }
    }
}

/// `out = op(x)` for the elements `range`.
///
/// # Panics
/// If a slice is shorter than the range.
pub fn unary_f32(isa: Isa, op: UnaryOp, x: &[f32], out: &Out<'_, f32>, range: Range<usize>) {
    struct Map<'a>(Isa, &'a [f32], &'a mut [f32]);
    impl Visitor for Map<'_> {
        fn visit<U: Unary>(self, u: U) {
            math::map(self.0, u, self.1, self.2);
        }
    }
    // SAFETY: the elements of an item range belong to it alone.
    dispatch(op, Map(isa, &x[range.clone()], unsafe { out.slice(range) }));
}

/// `x = op(x)` for the elements `range`.
///
/// # Panics
/// If the buffer is shorter than the range.
pub fn unary_in_place(isa: Isa, op: UnaryOp, x: &Out<'_, f32>, range: Range<usize>) {
    struct Map<'a>(Isa, &'a mut [f32]);
    impl Visitor for Map<'_> {
        fn visit<U: Unary>(self, u: U) {
            math::map_in_place(self.0, u, self.1);
        }
    }
    // SAFETY: the elements of an item range belong to it alone.
    dispatch(op, Map(isa, unsafe { x.slice(range) }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::values;

    #[test]
    fn matches_reference() {
        type Reference = fn(f64) -> f64;
        let table: [(UnaryOp, Reference); 35] = [
            (UnaryOp::Activation(Activation::Relu), |x| if x < 0.0 { 0.0 } else { x }),
            (UnaryOp::Abs, f64::abs),
            (UnaryOp::Neg, |x| -x),
            (UnaryOp::Exp, f64::exp),
            (UnaryOp::Log, f64::ln),
            (UnaryOp::Sqrt, f64::sqrt),
            (UnaryOp::Rsqrt, |x| 1.0 / x.sqrt()),
            (UnaryOp::Reciprocal, |x| 1.0 / x),
            (UnaryOp::Floor, f64::floor),
            (UnaryOp::Ceil, f64::ceil),
            (UnaryOp::Round, f64::round_ties_even),
            (UnaryOp::RoundAway, f64::round),
            (UnaryOp::Sign, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() }),
            (UnaryOp::Sin, f64::sin),
            (UnaryOp::Cos, f64::cos),
            (UnaryOp::Tan, f64::tan),
            (UnaryOp::Asin, f64::asin),
            (UnaryOp::Acos, f64::acos),
            (UnaryOp::Atan, f64::atan),
            (UnaryOp::Sinh, f64::sinh),
            (UnaryOp::Cosh, f64::cosh),
            (UnaryOp::Asinh, f64::asinh),
            (UnaryOp::Acosh, f64::acosh),
            (UnaryOp::Atanh, f64::atanh),
            (UnaryOp::Pow(2.0), |x| x * x),
            (UnaryOp::Pow(3.0), |x| x * x * x),
            (UnaryOp::Pow(0.5), |x| x.powf(0.5)),
            (UnaryOp::Pow(-1.0), |x| 1.0 / x),
            (UnaryOp::Pow(2.7), |x| x.powf(f64::from(2.7f32))),
            (UnaryOp::Affine(2.0, -0.5), |x| 2.0 * x - 0.5),
            (UnaryOp::Softsign, |x| x / (1.0 + x.abs())),
            (UnaryOp::Shrink { lambd: 0.5, bias: 0.25 }, |x| match x {
                x if x < -0.5 => x + 0.25,
                x if x > 0.5 => x - 0.25,
                x if x.is_nan() => x,
                _ => 0.0,
            }),
            (UnaryOp::ThresholdedRelu(1.0), |x| if x <= 1.0 { 0.0 } else { x }),
            (UnaryOp::Selu { alpha: 1.5, scale: 1.25 }, |x| {
                1.25 * if x > 0.0 { x } else { 1.5 * x.exp_m1() }
            }),
            (UnaryOp::Celu(2.0), |x| if x > 0.0 { x } else { 2.0 * (x / 2.0).exp_m1() }),
        ];
        let mut x = values(61, 1);
        x.extend([
            0.0,
            -0.0,
            0.5,
            -0.5,
            1.5,
            2.5,
            -2.5,
            30.0,
            1000.0,
            -3000.5,
            5000.0,
            1e9,
            f32::NAN,
        ]);
        for isa in Isa::available() {
            for (op, f) in table {
                let mut y = vec![3.0; x.len()];
                let out = Out::new(&mut y);
                unary_f32(isa, op, &x, &out, 0..20);
                unary_f32(isa, op, &x, &out, 20..x.len());
                let mut z = x.clone();
                unary_in_place(isa, op, &Out::new(&mut z), 0..x.len());
                for i in 0..x.len() {
                    let e = f(f64::from(x[i]));
                    let v = f64::from(y[i]);
                    let same = v == e || (v.is_nan() && e.is_nan()) || e.abs() > 3e38;
                    assert!(
                        same || (v - e).abs() <= 4e-7 * (1.0 + e.abs()),
                        "{isa} {op:?} of {} is {v}, expected {e}",
                        x[i]
                    );
                    assert!(z[i] == y[i] || y[i].is_nan(), "{isa} {op:?} in place");
                }
            }
        }
    }
}
