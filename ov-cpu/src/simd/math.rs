//! Elementary functions on vectors and slices of f32.
//!
//! The vector functions are `#[inline(always)]` and generic, to be called inside a kernel that
//! `lanes::instantiate!` compiles; the slice functions take an [`Isa`]. Polynomials and rational
//! functions are minimax fits (Lawson iteration in f64); the stated errors are measured by the
//! tests against f64 over the whole range, for every level.
#![allow(clippy::approx_constant, reason = "a fitted coefficient, near a constant by chance")]
#![allow(unsafe_code, reason = "calls into functions compiled for a level")]

use crate::simd::Isa;
use crate::simd::bits::Bits;
use crate::simd::lanes::instantiate;

/// A function of one element, for use with [`map`] and [`map_in_place`].
pub trait Unary: Copy {
    /// The function of every lane.
    fn eval<S: Bits>(self, s: S, x: S::F) -> S::F;
}

/// Coefficients from the constant term up, evaluated by Horner's rule.
#[inline(always)]
pub fn polynomial<S: Bits, const N: usize>(s: S, x: S::F, c: &[f32; N]) -> S::F {
    let mut r = s.splat(c[N - 1]);
    for k in (0..N - 1).rev() {
        r = s.fma(r, x, s.splat(c[k]));
    }
    r
}

/// Splits `x` into `n = round(x / ln 2)` and `r = x - n ln 2`, |r| ≤ ln 2 / 2.
#[inline(always)]
fn reduce_ln2<S: Bits>(s: S, x: S::F) -> (S::F, S::F) {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    (n, s.fma(n, s.splat(-LN2_LOW), r))
}

/// e^x: at most 1.1 ulp with FMA, 2 ulp without. Overflow gives infinity, underflow goes through
/// the subnormal numbers to 0; NaN stays.
#[inline(always)]
pub fn exp<S: Bits>(s: S, x: S::F) -> S::F {
    let x = s.min(s.splat(89.0), s.max(s.splat(-104.0), x));
    let (n, r) = reduce_ln2(s, x);
    let q = polynomial(s, r, &EXP);
    let y = s.add(s.splat(1.0), s.fma(s.mul(r, r), q, r));
    s.scale2(y, n)
}

/// e^x - 1 for x ≤ 0 (larger `x` is taken as 0): at most 2 ulp with FMA, 3 without.
#[inline(always)]
pub fn expm1_negative<S: Bits>(s: S, x: S::F) -> S::F {
    let x = s.min(s.zero(), s.max(s.splat(-20.0), x));
    let (n, r) = reduce_ln2(s, x);
    let p = s.fma(s.mul(r, r), polynomial(s, r, &EXPM1), r);
    let t = s.scale2(s.splat(1.0), n);
    s.fma(t, p, s.sub(t, s.splat(1.0)))
}

/// Natural logarithm: at most 2 ulp. 0 gives -infinity, negative numbers NaN.
#[inline(always)]
pub fn log<S: Bits>(s: S, x: S::F) -> S::F {
    let (m, e) = s.split(x);
    let f = s.sub(m, s.splat(1.0));
    let f2 = s.mul(f, f);
    let y = s.mul(s.mul(f, f2), polynomial(s, f, &LOG));
    let y = s.fma(e, s.splat(LN2_LOW), y);
    let y = s.fma(f2, s.splat(-0.5), y);
    let y = s.fma(e, s.splat(LN2_HIGH), s.add(f, y));
    let y = s.select(s.lt(x, s.splat(f32::INFINITY)), y, x);
    let y = s.select(s.eq(x, s.zero()), s.splat(f32::NEG_INFINITY), y);
    s.select(s.lt(x, s.zero()), s.splat(f32::NAN), y)
}

/// ln(1 + y) for y in [0, 1]: at most 3 ulp.
#[inline(always)]
pub fn log1p_unit<S: Bits>(s: S, y: S::F) -> S::F {
    let one = s.splat(1.0);
    let u = s.add(one, y);
    let lost = s.sub(y, s.sub(u, one));
    s.add(log(s, u), s.div(lost, u))
}

/// 1 / (1 + e^-x): at most 3 ulp above 1e-38.
#[inline(always)]
pub fn sigmoid<S: Bits>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.neg(x))))
}

/// Hyperbolic tangent: at most 5 ulp with FMA, 7 without, never outside [-1, 1].
#[inline(always)]
pub fn tanh<S: Bits>(s: S, x: S::F) -> S::F {
    let a = s.min(s.splat(TANH_LIMIT), s.max(s.splat(-TANH_LIMIT), x));
    let z = s.mul(a, a);
    let p = s.mul(a, polynomial(s, z, &TANH_P));
    let r = s.div(p, polynomial(s, z, &TANH_Q));
    s.min(s.splat(1.0), s.max(s.splat(-1.0), r))
}

/// Error function: at most 3 ulp. Sixteen segments centred on multiples of 33/128, a polynomial
/// of degree 5 each, with coefficients looked up.
#[inline(always)]
pub fn erf<S: Bits>(s: S, x: S::F) -> S::F {
    let a = s.min(s.splat(15.49 * ERF_WIDTH), s.abs(x));
    let i = s.round(s.mul(a, s.splat(1.0 / ERF_WIDTH)));
    let d = s.fma(i, s.splat(-ERF_WIDTH), a);
    let mut r = s.lookup16(&ERF[5], i);
    for k in (0..5).rev() {
        r = s.fma(r, d, s.lookup16(&ERF[k], i));
    }
    s.copysign(r, x)
}

macro_rules! unary {
    ($($(#[$meta:meta])* $vis:vis $name:ident($s:ident, $x:ident) = $e:expr;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        $vis struct $name;
        impl Unary for $name {
            #[inline(always)]
            fn eval<S: Bits>(self, $s: S, $x: S::F) -> S::F {
                $e
            }
        }
    )*};
}
pub(crate) use unary;

unary! {
    /// [`exp`] as a value.
    pub Exp(s, x) = exp(s, x);
    /// [`log`] as a value.
    pub Log(s, x) = log(s, x);
    /// [`tanh`] as a value.
    pub Tanh(s, x) = tanh(s, x);
    /// [`sigmoid`] as a value.
    pub Sigmoid(s, x) = sigmoid(s, x);
    /// [`erf`] as a value.
    pub Erf(s, x) = erf(s, x);
}

#[inline(always)]
fn map_body<S: Bits, U: Unary>(s: S, u: U, src: &[f32], dst: &mut [f32]) {
    let (src_tail, dst_tail) = {
        let (a, b) = (src.chunks_exact(S::LEN), dst.chunks_exact_mut(S::LEN));
        let tail = a.remainder();
        let mut b = b;
        for (x, y) in a.zip(&mut b) {
            let v = u.eval(s, s.load_slice(x));
            s.store_slice(y, v);
        }
        (tail, b.into_remainder())
    };
    let v = u.eval(s, s.load_part(src_tail));
    s.store_part(dst_tail, v);
}

#[inline(always)]
fn map_in_place_body<S: Bits, U: Unary>(s: S, u: U, x: &mut [f32]) {
    let mut chunks = x.chunks_exact_mut(S::LEN);
    for y in &mut chunks {
        let v = u.eval(s, s.load_slice(y));
        s.store_slice(y, v);
    }
    let tail = chunks.into_remainder();
    let v = u.eval(s, s.load_part(tail));
    s.store_part(tail, v);
}

instantiate! {
    fn map_unchecked<U: Unary>(u: U, src: &[f32], dst: &mut [f32]) = map_body;
    /// `x = u(x)` for every element.
    pub fn map_in_place<U: Unary>(u: U, x: &mut [f32]) = map_in_place_body;
}

/// `dst = u(src)` for every element.
///
/// # Panics
/// If the lengths differ.
pub fn map<U: Unary>(isa: Isa, u: U, src: &[f32], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len(), "source and destination differ in length");
    map_unchecked(isa, u, src, dst);
}

macro_rules! slice_functions {
    ($($name:ident, $unary:ident;)*) => {
        /// The functions over slices of equal length.
        pub mod slice {
            use super::{Isa, map};
            $(
                #[doc = concat!("`dst = ", stringify!($name), "(src)`; errors as in [`super::", stringify!($name), "`].")]
                ///
                /// # Panics
                /// If the lengths differ.
                pub fn $name(isa: Isa, src: &[f32], dst: &mut [f32]) {
                    map(isa, super::$unary, src, dst);
                }
            )*
        }
    };
}

slice_functions! {
    exp, Exp;
    log, Log;
    tanh, Tanh;
    sigmoid, Sigmoid;
    erf, Erf;
}

/// ln 2 rounded to 9 bits, so that `n * LN2_HIGH` is exact for |n| < 2^15, and the rest.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// (e^r - 1 - r) / r².
const EXP: [f32; 5] = [0.499_999_94, 0.166_665_2, 0.041_668_393, 0.008_368_781, 0.001_381_446_7];

/// The same, weighted for e^r - 1.
const EXPM1: [f32; 6] =
    [0.5, 0.166_666_66, 0.041_666_36, 0.008_333_39, 0.001_394_072, 0.000_198_458_86];

/// (ln(1 + f) - f + f²/2) / f³.
const LOG: [f32; 8] = [
    0.333_333_3,
    -0.250_008_37,
    0.200_012_92,
    -0.166_227_65,
    0.141_996_95,
    -0.131_641_85,
    0.127_791_15,
    -0.076_461_06,
];

/// Beyond it tanh is 1 in f32.
const TANH_LIMIT: f32 = 9.02;

/// tanh(x) = x P(x²) / Q(x²).
const TANH_P: [f32; 7] = [
    1.0,
    0.130_831_57,
    0.003_103_001_7,
    1.114_426e-5,
    -2.018_398_4e-8,
    5.257_787_6e-11,
    -8.436_069e-14,
];

/// See [`TANH_P`].
const TANH_Q: [f32; 4] = [1.0, 0.464_164_85, 0.024_491_383, 0.000_254_475_16];

const ERF_WIDTH: f32 = 33.0 / 128.0;

/// `ERF[k][i]`: coefficient of d^k in segment i. The last segment starts from 1 so that the
/// function saturates at exactly 1.
static ERF: [[f32; 16]; 6] = [
    [
        0.0,
        0.284_591_44,
        0.534_123,
        0.725_959_84,
        0.855_271_8,
        0.931_698_1,
        0.971_302_1,
        0.989_295_9,
        0.996_463_8,
        0.998_967_1,
        0.999_733_7,
        0.999_939_44,
        0.999_987_84,
        0.999_997_85,
        0.999_999_64,
        1.0,
    ],
    [
        1.128_379_2,
        1.055_817_1,
        0.864_947_2,
        0.620_379_87,
        0.389_576_8,
        0.214_188_26,
        0.103_101_626,
        0.043_451_287,
        0.016_032_713,
        0.005_179_390_3,
        0.001_464_932_8,
        0.000_362_764_05,
        7.864_995e-5,
        1.492_933_6e-5,
        2.481_136_8e-6,
        3.610_185_2e-7,
    ],
    [
        2.602_284_3e-7,
        -0.272_196_6,
        -0.445_980_76,
        -0.479_821_35,
        -0.401_752_23,
        -0.276_105_46,
        -0.159_488_08,
        -0.078_417_05,
        -0.033_067_35,
        -0.012_017_325_5,
        -0.003_776_396,
        -0.001_028_574,
        -0.000_243_242_25,
        -5.001_056_3e-5,
        -8.948_465e-6,
        -1.394_602_8e-6,
    ],
    [
        -0.376_141_22,
        -0.305_177_1,
        -0.135_023_36,
        0.040_606_815,
        0.146_341,
        0.165_879_37,
        0.130_104_15,
        0.079_862_386,
        0.040_124_375,
        0.016_863_637,
        0.006_002_813_6,
        0.001_823_919_6,
        0.000_475_539_04,
        0.000_106_786_14,
        2.071_022_6e-5,
        3.476_183_3e-6,
    ],
    [
        0.000_282_384_2,
        0.129_051_24,
        0.182_244_57,
        0.143_642_19,
        0.058_649_41,
        -0.014_333_001,
        -0.047_025_144,
        -0.045_755_06,
        -0.030_375_125,
        -0.015_635_505,
        -0.006_540_778,
        -0.002_275_820_8,
        -0.000_667_502_7,
        -0.000_166_451_06,
        -3.549_583e-5,
        -6.500_554_7e-6,
    ],
    [
        0.110_978_64,
        0.078_964_41,
        0.003_553_828_5,
        -0.056_014_43,
        -0.067_586_43,
        -0.042_069_413,
        -0.009_859_399,
        0.009_002_654,
        0.012_919_968,
        0.009_375_195,
        0.004_902_57,
        0.002_016_767_4,
        0.000_677_256_9,
        0.000_189_351_82,
        4.460_648_4e-5,
        8.924_424e-6,
    ],
];

#[cfg(test)]
#[path = "math_tests.rs"]
pub(crate) mod tests;
