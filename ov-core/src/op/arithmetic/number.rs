//! Arithmetic of every numeric element type: integers wrap, half floats go through `f32`.

use half::{bf16, f16};

use crate::tensor::Element;

/// A numeric element with the arithmetic of the operators.
pub trait Number: Element {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// The least value, −∞ for floats.
    const LEAST: Self;
    /// The greatest value, ∞ for floats.
    const GREATEST: Self;
    /// Sum; integers wrap.
    #[must_use]
    fn plus(self, other: Self) -> Self;
    /// Difference; integers wrap.
    #[must_use]
    fn minus(self, other: Self) -> Self;
    /// Product; integers wrap.
    #[must_use]
    fn times(self, other: Self) -> Self;
    /// Quotient; integers truncate towards zero, and give 0 over 0.
    #[must_use]
    fn over(self, other: Self) -> Self;
    /// Quotient; integers round down, and give 0 over 0.
    #[must_use]
    fn floor_over(self, other: Self) -> Self;
    /// Remainder with the sign of the dividend (`fmod`); 0 for integers over 0.
    #[must_use]
    fn remainder(self, other: Self) -> Self;
    /// Remainder with the sign of the divisor, zeros of floats too; 0 for integers over 0.
    #[must_use]
    fn floor_remainder(self, other: Self) -> Self;
    /// Power; integers wrap, and truncate for negative exponents.
    #[must_use]
    fn power(self, other: Self) -> Self;
    /// Absolute value; integers wrap.
    #[must_use]
    fn absolute(self) -> Self;
    /// The value with the other sign; integers wrap.
    #[must_use]
    fn negated(self) -> Self;
    /// −1, 0 or 1; NaN stays.
    #[must_use]
    fn signum(self) -> Self;
    /// The greater; NaN when either is.
    #[must_use]
    fn greater(self, other: Self) -> Self {
        #[allow(clippy::eq_op, reason = "only NaN differs from itself")]
        if self != self || self > other { self } else { other }
    }
    /// The lesser; NaN when either is.
    #[must_use]
    fn lesser(self, other: Self) -> Self {
        #[allow(clippy::eq_op, reason = "only NaN differs from itself")]
        if self != self || self < other { self } else { other }
    }
    /// The square of the difference; integers wrap.
    #[must_use]
    fn squared_difference(self, other: Self) -> Self {
        let d = self.minus(other);
        d.times(d)
    }
}

macro_rules! integers {
    ($signed:literal: $($t:ty),*) => {$(
        impl Number for $t {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            const LEAST: Self = <$t>::MIN;
            const GREATEST: Self = <$t>::MAX;
            fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
            fn minus(self, other: Self) -> Self { self.wrapping_sub(other) }
            fn times(self, other: Self) -> Self { self.wrapping_mul(other) }
            fn over(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_div(other) }
            }
            fn floor_over(self, other: Self) -> Self {
                if other == 0 {
                    return 0;
                }
                let (q, r) = (self.wrapping_div(other), self.wrapping_rem(other));
                if r != 0 && ((r < Self::ZERO) != (other < Self::ZERO)) { q.wrapping_sub(1) } else { q }
            }
            fn remainder(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_rem(other) }
            }
            fn floor_remainder(self, other: Self) -> Self {
                let r = self.remainder(other);
                if r != 0 && ((r < Self::ZERO) != (other < Self::ZERO)) { r.wrapping_add(other) } else { r }
            }
            fn power(self, other: Self) -> Self {
                if other < Self::ZERO {
                    let odd = other & 1 == 1;
                    return match self {
                        1 => 1,
                        v if $signed && v.wrapping_add(1) == 0 => if odd { v } else { 1 },
                        _ => 0,
                    };
                }
                let (mut result, mut base, mut exponent): (Self, Self, Self) = (1, self, other);
                while exponent > 0 {
                    if exponent & 1 == 1 {
                        result = result.wrapping_mul(base);
                    }
                    base = base.wrapping_mul(base);
                    exponent >>= 1;
                }
                result
            }
            fn absolute(self) -> Self { if self < Self::ZERO { self.wrapping_neg() } else { self } }
            fn negated(self) -> Self { self.wrapping_neg() }
            fn signum(self) -> Self {
                if self > 0 { 1 } else if self == 0 { 0 } else { Self::ZERO.wrapping_sub(1) }
            }
        }
    )*};
}

#[allow(unused_comparisons, clippy::absurd_extreme_comparisons, reason = "one body serves unsigned integers too")]
mod integer {
    use super::Number;
    integers!(true: i8, i16, i32, i64);
    integers!(false: u8, u16, u32, u64);
}

macro_rules! floats {
    ($($t:ty: |$v:ident| $wide:expr, |$w:ident| $narrow:expr);* $(;)?) => {$(
        impl Number for $t {
            const ZERO: Self = Self::from_bits(0);
            const ONE: Self = { let $w = 1.0; $narrow };
            const LEAST: Self = { let $w = f32::NEG_INFINITY; $narrow };
            const GREATEST: Self = { let $w = f32::INFINITY; $narrow };
            fn plus(self, other: Self) -> Self { self + other }
            fn minus(self, other: Self) -> Self { self - other }
            fn times(self, other: Self) -> Self { self * other }
            fn over(self, other: Self) -> Self { self / other }
            fn floor_over(self, other: Self) -> Self { self / other }
            fn remainder(self, other: Self) -> Self { self % other }
            fn floor_remainder(self, other: Self) -> Self {
                let r = self % other;
                if r == Self::ZERO {
                    return Self::ZERO.copysign(other);
                }
                if (r < Self::ZERO) != (other < Self::ZERO) { r + other } else { r }
            }
            fn power(self, other: Self) -> Self {
                let (a, b) = ({ let $v = self; $wide }, { let $v = other; $wide });
                <Self as Element>::from_f64(a.powf(b))
            }
            fn absolute(self) -> Self { if self.is_sign_negative() { -self } else { self } }
            fn negated(self) -> Self { -self }
            fn signum(self) -> Self {
                if self > Self::ZERO {
                    Self::ONE
                } else if self < Self::ZERO {
                    -Self::ONE
                } else {
                    self
                }
            }
        }
    )*};
}
floats!(
    f32: |v| f64::from(v), |w| w;
    f64: |v| v, |w| w as f64;
    f16: |v| f64::from(v), |w| f16::from_f32_const(w);
    bf16: |v| f64::from(v), |w| bf16::from_f32_const(w);
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_take_the_sign_of_dividend_or_divisor() {
        for (a, b, fmod, floor) in
            [(7, 3, 1, 1), (-7, 3, -1, 2), (7, -3, 1, -2), (-7, -3, -1, -1), (6, 3, 0, 0), (5, 0, 0, 0)]
        {
            assert_eq!(a.remainder(b), fmod);
            assert_eq!(a.floor_remainder(b), floor);
            if b != 0 {
                let (a, b) = (f64::from(a), f64::from(b));
                assert_eq!((a.remainder(b), a.floor_remainder(b)), (f64::from(fmod), f64::from(floor)));
            }
        }
        assert_eq!(i32::MIN.remainder(-1), 0);
        assert_eq!(i32::MIN.over(-1), i32::MIN);
        assert_eq!((-7).floor_over(2), -4);
    }

    #[test]
    fn integer_powers_wrap_and_negative_exponents_truncate() {
        assert_eq!(3i32.power(4), 81);
        assert_eq!(2u8.power(9), 0);
        assert_eq!(2i64.power(-1), 0);
        assert_eq!((-1i64).power(-3), -1);
        assert_eq!((-1i8).power(-2), 1);
        assert_eq!(0u32.power(0), 1);
        assert_eq!(255u8.power(0), 1);
    }

    #[test]
    fn nan_wins_over_numbers() {
        assert!(f32::NAN.greater(1.).is_nan() && 1f32.lesser(f32::NAN).is_nan());
        assert_eq!(f16::from_f32(2.).greater(f16::from_f32(-3.)), f16::from_f32(2.));
    }
}
