//! Errors of the elementary functions against f64.

use super::{Unary, expm1_negative, log1p_unit, map, slice};
use crate::simd::Isa;
use crate::simd::bits::Bits;

/// erf by its Taylor series below 3 and by the continued fraction of erfc above, to about 1e-15.
pub(crate) fn erf_f64(x: f64) -> f64 {
    let a = x.abs();
    let r = if a < 3.0 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term.abs() > 1e-18 * sum {
            n += 1.0;
            term *= -a * a / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut t = 0.0;
        for k in (1..120).rev() {
            t = f64::from(k) / 2.0 / (a + t);
        }
        1.0 - (-a * a).exp() / (std::f64::consts::PI.sqrt() * (a + t))
    };
    r.copysign(x)
}

/// Distance from `y` to `want` in units of the last place of `want`'s f32.
fn ulps(y: f32, want: f64) -> f64 {
    let w = want as f32;
    if y == w || (y.is_nan() && w.is_nan()) {
        return 0.0;
    }
    let exponent = w.abs().max(f32::MIN_POSITIVE).log2().floor();
    (f64::from(y) - want).abs() / f64::from(exponent - 23.0).exp2()
}

fn sweep(low: f32, high: f32) -> Vec<f32> {
    let mut x: Vec<f32> =
        (0..200_003).map(|i| low + (high - low) * (i as f32 / 200_002.0)).collect();
    let mut v = 1e-38f32;
    while v < 1e38 {
        x.extend([v, -v].iter().filter(|v| (low..=high).contains(*v)));
        v *= 1.003;
    }
    x
}

unary! {
    Expm1(s, x) = expm1_negative(s, x);
    Log1p(s, x) = log1p_unit(s, x);
}

fn worst<U: Unary>(isa: Isa, u: U, x: &[f32], f: fn(f64) -> f64) -> (f64, f32) {
    let mut y = vec![0.0; x.len()];
    map(isa, u, x, &mut y);
    x.iter()
        .zip(&y)
        .map(|(x, y)| (ulps(*y, f(f64::from(*x))), *x))
        .fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
}

#[test]
fn errors_are_within_the_documented_bounds() {
    for isa in Isa::available() {
        let check = |name: &str, (error, at): (f64, f32), bound: f64| {
            assert!(
                error <= bound,
                "{isa}: {name}({at}) is off by {error} ulp, documented {bound}"
            );
        };
        let fused = if isa.has_avx2() { 0.0 } else { 1.0 };
        check("exp", worst(isa, super::Exp, &sweep(-87.0, 88.7), f64::exp), 1.1 + fused);
        check("expm1", worst(isa, Expm1, &sweep(-30.0, 0.0), f64::exp_m1), 2.0 + fused);
        check("log", worst(isa, super::Log, &sweep(0.0, 3e38), f64::ln), 2.0);
        check("log near 1", worst(isa, super::Log, &sweep(0.5, 2.0), f64::ln), 2.0);
        check("log1p", worst(isa, Log1p, &sweep(0.0, 1.0), f64::ln_1p), 3.0);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        check("sigmoid", worst(isa, super::Sigmoid, &sweep(-87.0, 50.0), sigmoid), 3.0);
        check("tanh", worst(isa, super::Tanh, &sweep(-12.0, 12.0), f64::tanh), 5.0 + 2.0 * fused);
        check("erf", worst(isa, super::Erf, &sweep(-5.0, 5.0), erf_f64), 3.0);
    }
}

#[test]
fn special_values() {
    let inf = f32::INFINITY;
    for isa in Isa::available() {
        let run = |f: fn(Isa, &[f32], &mut [f32]), x: [f32; 5]| {
            let mut y = [0.0; 5];
            f(isa, &x, &mut y);
            y.map(|v| if v.is_nan() { "nan".to_owned() } else { v.to_string() }).join(" ")
        };
        assert_eq!(run(slice::exp, [inf, -inf, f32::NAN, 0.0, 89.5]), "inf 0 nan 1 inf", "{isa}");
        assert_eq!(run(slice::log, [inf, 0.0, f32::NAN, -1.0, 1.0]), "inf -inf nan nan 0", "{isa}");
        assert_eq!(run(slice::log, [-0.0, -inf, 1.0, 1.0, 1.0]), "-inf nan 0 0 0", "{isa}");
        assert_eq!(run(slice::tanh, [inf, -inf, f32::NAN, 0.0, -0.0]), "1 -1 nan 0 -0", "{isa}");
        assert_eq!(
            run(slice::sigmoid, [inf, -inf, f32::NAN, 0.0, -0.0]),
            "1 0 nan 0.5 0.5",
            "{isa}"
        );
        assert_eq!(run(slice::erf, [inf, -inf, f32::NAN, 0.0, -0.0]), "1 -1 nan 0 -0", "{isa}");
    }
}

#[test]
fn exponents_of_subnormal_numbers() {
    for isa in Isa::available() {
        let x = [1e-45, 1e-40, 1.1754942e-38, f32::MIN_POSITIVE, f32::MAX];
        let mut y = [0.0; 5];
        slice::log(isa, &x, &mut y);
        for (x, y) in x.iter().zip(y) {
            assert!(ulps(y, f64::from(*x).ln()) <= 2.0, "{isa}: log({x}) = {y}");
        }
        let x = [-104.5, -103.0, -100.0, -90.0, -87.5];
        slice::exp(isa, &x, &mut y);
        for (x, y) in x.iter().zip(y) {
            assert!(ulps(y, f64::from(*x).exp()) <= 1.5, "{isa}: exp({x}) = {y}");
        }
    }
}
