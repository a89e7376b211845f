//! Activation functions that kernels fuse into their stores.

pub use ov_core::op::fused::activation::Activation;

use crate::simd::Isa;
use crate::simd::bits::Bits;
use crate::simd::math::{self, Sigmoid, Tanh, Unary, unary};

/// `x = act(x)` for every element.
pub fn apply_slice(isa: Isa, act: Activation, x: &mut [f32]) {
    struct InPlace<'a>(Isa, &'a mut [f32]);
    impl Visitor for InPlace<'_> {
        #[inline(always)]
        fn visit<U: Unary>(self, u: U) {
            math::map_in_place(self.0, u, self.1);
        }
    }
    dispatch(act, InPlace(isa, x));
}

/// `dst = act(src)` for every element.
///
/// # Panics
/// If the lengths differ.
pub fn apply(isa: Isa, act: Activation, src: &[f32], dst: &mut [f32]) {
    struct Map<'a>(Isa, &'a [f32], &'a mut [f32]);
    impl Visitor for Map<'_> {
        #[inline(always)]
        fn visit<U: Unary>(self, u: U) {
            math::map(self.0, u, self.1, self.2);
        }
    }
    dispatch(act, Map(isa, src, dst));
}

/// Work that is compiled once per activation function.
pub trait Visitor {
    /// Does the work with `u`.
    fn visit<U: Unary>(self, u: U);
}

/// Calls `v` with the function that `act` stands for, so that loops inside do not branch on it.
#[inline(always)]
pub fn dispatch<V: Visitor>(act: Activation, v: V) {
    match act {
        Activation::None => v.visit(Identity),
        Activation::Relu => v.visit(Relu),
        Activation::Clamp(low, high) => v.visit(Clamp(low, high)),
        Activation::LeakyRelu(slope) => v.visit(LeakyRelu(slope)),
        Activation::Silu => v.visit(Swish(1.0)),
        Activation::Swish(beta) => v.visit(Swish(beta)),
        Activation::HardSwish => v.visit(HardSwish),
        Activation::HardSigmoid(alpha, beta) => v.visit(HardSigmoid(alpha, beta)),
        Activation::Sigmoid => v.visit(Sigmoid),
        Activation::Tanh => v.visit(Tanh),
        Activation::GeluErf => v.visit(GeluErf),
        Activation::GeluTanh => v.visit(GeluTanh),
        Activation::Elu(alpha) => v.visit(Elu(alpha)),
        Activation::Mish => v.visit(Mish),
        Activation::Softplus => v.visit(Softplus),
        Activation::ScaledRelu(scale, shift) => v.visit(ScaledRelu(scale, shift)),
        Activation::ScaledHardSwish(scale, shift) => v.visit(ScaledHardSwish(scale, shift)),
    }
}

unary! {
    /// [`Activation::None`]
    pub Identity(_s, x) = x;
    /// [`Activation::Relu`]
    pub Relu(s, x) = s.max(s.zero(), x);
    /// [`Activation::HardSwish`]
    pub HardSwish(s, x) = {
        let t = s.fma(x, s.splat(1.0 / 6.0), s.splat(0.5));
        s.mul(x, s.min(s.splat(1.0), s.max(s.zero(), t)))
    };
    /// [`Activation::GeluErf`]
    pub GeluErf(s, x) = {
        let e = math::erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
        let h = s.mul(x, s.splat(0.5));
        s.fma(h, e, h)
    };
    /// [`Activation::GeluTanh`], as `x sigmoid(2u)`
    pub GeluTanh(s, x) = {
        let u = s.fma(s.mul(x, x), s.splat(-2.0 * GELU_SCALE * 0.044_715), s.splat(-2.0 * GELU_SCALE));
        let e = math::exp(s, s.mul(x, u));
        s.div(x, s.add(s.splat(1.0), e))
    };
    /// [`Activation::Mish`]; with `e = e^x`, `tanh(ln(1 + e)) = (e² + 2e) / (e² + 2e + 2)`
    pub Mish(s, x) = {
        let e = math::exp(s, s.min(s.splat(20.0), x));
        let n = s.mul(e, s.add(e, s.splat(2.0)));
        s.mul(x, s.div(n, s.add(n, s.splat(2.0))))
    };
    /// [`Activation::Softplus`]
    pub Softplus(s, x) = {
        let e = math::exp(s, s.neg(s.abs(x)));
        s.add(s.max(s.zero(), x), math::log1p_unit(s, e))
    };
}

/// √(2/π)
const GELU_SCALE: f32 = 0.797_884_6;

macro_rules! parametric {
    ($($(#[$meta:meta])* $name:ident($($p:ident),*)($s:ident, $x:ident) = $e:expr;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name($(parametric!(@f32 $p)),*);
        impl $name {
            /// The function with these parameters.
            #[must_use]
            pub fn new($($p: f32),*) -> Self {
                Self($($p),*)
            }
        }
        impl Unary for $name {
            #[inline(always)]
            fn eval<S: Bits>(self, $s: S, $x: S::F) -> S::F {
                let Self($($p),*) = self;
                $e
            }
        }
    )*};
    (@f32 $p:ident) => { f32 };
}

parametric! {
    /// [`Activation::Clamp`]
    Clamp(low, high)(s, x) = s.min(s.splat(high), s.max(s.splat(low), x));
    /// [`Activation::LeakyRelu`]
    LeakyRelu(slope)(s, x) = s.select(s.lt(x, s.zero()), s.mul(x, s.splat(slope)), x);
    /// [`Activation::Swish`]
    Swish(beta)(s, x) = {
        let e = math::exp(s, s.mul(x, s.splat(-beta)));
        s.div(x, s.add(s.splat(1.0), e))
    };
    /// [`Activation::HardSigmoid`]
    HardSigmoid(alpha, beta)(s, x) = {
        let t = s.fma(x, s.splat(alpha), s.splat(beta));
        s.min(s.splat(1.0), s.max(s.zero(), t))
    };
    /// [`Activation::ScaledRelu`]
    ScaledRelu(scale, shift)(s, x) = s.fma(s.max(s.zero(), x), s.splat(scale), s.splat(shift));
    /// [`Activation::ScaledHardSwish`]
    ScaledHardSwish(scale, shift)(s, x) = s.fma(HardSwish.eval(s, x), s.splat(scale), s.splat(shift));
    /// [`Activation::Elu`]
    Elu(alpha)(s, x) = {
        let y = s.mul(s.splat(alpha), math::expm1_negative(s, x));
        s.select(s.lt(x, s.zero()), y, x)
    };
}

#[cfg(test)]
mod tests {
    use super::{Activation, apply, apply_slice};
    use crate::simd::Isa;

    fn erf(x: f64) -> f64 {
        crate::simd::math::tests::erf_f64(x)
    }

    type Case = (Activation, fn(f64) -> f64);

    const CASES: [Case; 17] = [
        (Activation::None, |x| x),
        (Activation::Relu, |x| x.max(0.0)),
        (Activation::Clamp(-1.5, 6.0), |x| x.clamp(-1.5, 6.0)),
        (Activation::LeakyRelu(0.125), |x| if x < 0.0 { 0.125 * x } else { x }),
        (Activation::Silu, |x| x / (1.0 + (-x).exp())),
        (Activation::Swish(1.75), |x| x / (1.0 + (-1.75 * x).exp())),
        (Activation::HardSwish, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        (Activation::HardSigmoid(0.25, 0.375), |x| (0.25 * x + 0.375).clamp(0.0, 1.0)),
        (Activation::Sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
        (Activation::Tanh, f64::tanh),
        (Activation::GeluErf, |x| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))),
        (Activation::GeluTanh, |x| {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + u.tanh())
        }),
        (Activation::Elu(1.5), |x| if x < 0.0 { 1.5 * x.exp_m1() } else { x }),
        (Activation::Mish, |x| x * x.exp().ln_1p().tanh()),
        (Activation::Softplus, |x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
        (Activation::ScaledRelu(-0.75, 0.5), |x| -0.75 * x.max(0.0) + 0.5),
        (Activation::ScaledHardSwish(1.25, -0.25), |x| {
            1.25 * x * (x / 6.0 + 0.5).clamp(0.0, 1.0) - 0.25
        }),
    ];

    #[test]
    fn every_activation_is_close_to_f64_on_every_level() {
        for len in [0, 1, 7, 16, 33, 4001] {
            let src: Vec<f32> =
                (0..len).map(|i| (i as f32 - len as f32 / 2.0) * (50.0 / len as f32)).collect();
            for isa in Isa::available() {
                for (act, f) in CASES {
                    let mut dst = vec![f32::NAN; len];
                    apply(isa, act, &src, &mut dst);
                    let mut inplace = src.clone();
                    apply_slice(isa, act, &mut inplace);
                    assert_eq!(dst, inplace, "{isa} {act:?}");
                    for (x, y) in src.iter().zip(&dst) {
                        let want = f(f64::from(*x));
                        let error = (f64::from(*y) - want).abs();
                        assert!(
                            error <= 4e-7 * (1.0 + want.abs()),
                            "{isa} {act:?}({x}) = {y}, want {want}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn nan_stays_and_large_values_saturate() {
        for isa in Isa::available() {
            for (act, f) in CASES {
                let mut x = [f32::NAN, 1e30, -1e30, 0.0];
                apply_slice(isa, act, &mut x);
                assert!(x[0].is_nan(), "{isa} {act:?} of NaN is {}", x[0]);
                for (y, v) in x[1..].iter().zip([1e30f32, -1e30, 0.0]) {
                    let want = f(f64::from(v)) as f32;
                    let tolerance = 1e-6 * want.abs();
                    assert!((y - want).abs() <= tolerance, "{isa} {act:?}({v}) = {y}, want {want}");
                }
            }
        }
    }

    #[test]
    fn scales_and_shifts_add_up() {
        for act in [Activation::Relu, Activation::HardSwish] {
            let both = act.then(2.0, -1.0).and_then(|a| a.then(0.5, 3.0)).expect("scaled");
            let x = [-2.0f32, 0.5, 7.0];
            let (mut plain, mut scaled) = (x, x);
            apply_slice(Isa::PORTABLE, act, &mut plain);
            apply_slice(Isa::PORTABLE, both, &mut scaled);
            for (p, s) in plain.iter().zip(scaled) {
                assert!((p + 2.5 - s).abs() < 1e-6, "{act:?}: {p} and {s}");
            }
        }
        assert_eq!(Activation::Tanh.then(2.0, 0.0), None);
    }

    #[test]
    fn parts_round_trip() {
        for (act, _) in CASES {
            let (id, p) = act.to_parts();
            assert_eq!(Activation::from_parts(id, p), Some(act));
        }
        assert_eq!(Activation::from_parts(17, [0.0; 2]), None);
    }
}
