//! Sine and cosine on vectors.

use crate::simd::bits::Bits;
use crate::simd::math::polynomial;

/// Beyond it the three-part reduction loses accuracy and f64 arithmetic takes over.
const LIMIT: f32 = 4096.0;

/// Sine: within 1.5e-7 of the exact value up to |x| of 4096, 1 ulp of the f64 sine beyond.
#[inline(always)]
pub fn sin<S: Bits>(s: S, x: S::F) -> S::F {
    patched(s, x, quadrant(s, x, 0.0), f64::sin)
}

/// Cosine: errors as for [`sin`].
#[inline(always)]
pub fn cos<S: Bits>(s: S, x: S::F) -> S::F {
    patched(s, x, quadrant(s, x, 1.0), f64::cos)
}

/// `y` with the lanes whose `x` is beyond the limit replaced by `f(x)`.
#[inline(always)]
fn patched<S: Bits>(s: S, x: S::F, y: S::F, f: impl Fn(f64) -> f64) -> S::F {
    let inside = s.le(s.abs(x), s.splat(LIMIT));
    if s.bits(inside).count_ones() as usize == S::LEN {
        return y;
    }
    s.select(inside, y, each(s, x, f))
}

/// sin(x + shift π/2): `x = n π/2 + r` with π/2 in three parts of which the first two have few
/// bits, then the polynomial of the quadrant.
#[inline(always)]
fn quadrant<S: Bits>(s: S, x: S::F, shift: f32) -> S::F {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::FRAC_2_PI)));
    let r = s.fma(n, s.splat(-HALF_PI[0]), x);
    let r = s.fma(n, s.splat(-HALF_PI[1]), r);
    let r = s.fma(n, s.splat(-HALF_PI[2]), r);
    let z = s.mul(r, r);
    let sine = s.fma(s.mul(r, z), polynomial(s, z, &SIN), r);
    let cosine = s.fma(s.mul(z, z), polynomial(s, z, &COS), s.fma(z, s.splat(-0.5), s.splat(1.0)));
    let q = s.add(n, s.splat(shift));
    let half = s.mul(q, s.splat(0.5));
    let quarter = s.mul(q, s.splat(0.25));
    let even = s.eq(half, s.floor(half));
    let y = s.select(even, sine, cosine);
    let negative = s.le(s.splat(0.5), s.sub(quarter, s.floor(quarter)));
    s.select(negative, s.neg(y), y)
}

/// `f` lane by lane in f64.
#[inline(always)]
pub(super) fn each<S: Bits>(s: S, x: S::F, f: impl Fn(f64) -> f64) -> S::F {
    let mut lanes = [0.0f32; 16];
    s.store_slice(&mut lanes, x);
    for v in &mut lanes[..S::LEN] {
        *v = f(f64::from(*v)) as f32;
    }
    s.load_slice(&lanes)
}

/// π/2 as 10 bits, 11 bits and the rest.
const HALF_PI: [f32; 3] = [1.570_312_5, 0.000_483_751_3, 7.549_79e-8];

/// (sin r - r) / r³ in r², minimax on |r| ≤ π/4.
const SIN: [f32; 4] = [-0.166_666_67, 0.008_333_329, -0.000_198_391_76, 2.716_81e-6];

/// (cos r - 1 + r²/2) / r⁴ in r².
const COS: [f32; 4] = [0.041_666_668, -0.001_388_888_3, 2.479_935e-5, -2.719_630_5e-7];
