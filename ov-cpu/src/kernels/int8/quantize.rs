//! Conversion between f32 and bytes.
#![allow(unsafe_code, reason = "vector loads and stores through raw pointers")]

use crate::simd::Isa;
use crate::simd::activation::{Activation, Visitor, dispatch};
use crate::simd::bytes::Bytes;
use crate::simd::lanes::instantiate;
use crate::simd::math::Unary;

/// Scales and zero points of a run of elements: one, or one per element.
#[derive(Clone, Copy, Debug)]
pub struct Steps<'a> {
    /// Scales; one, or as many as elements.
    pub scale: &'a [f32],
    /// Zero points as numbers; none, one, or as many as elements.
    pub zero: &'a [f32],
}

impl Steps<'_> {
    #[inline(always)]
    fn at<S: Bytes>(&self, s: S, i: usize, n: usize) -> (S::F, S::F) {
        let pick = |v: &[f32]| match v {
            [] => s.zero(),
            [x] => s.splat(*x),
            _ => s.load_part(&v[i..i + n]),
        };
        (pick(self.scale), pick(self.zero))
    }
}

instantiate! {
    /// `saturate(round(x / scale) + zero)` in u8, or in i8 if `signed`, halves to even.
    ///
    /// # Panics
    /// If the lengths differ, or scales are neither one nor as many.
    pub fn quantize(x: &[f32], steps: Steps<'_>, signed: bool, y: &mut [u8]) = quantize_body;
    /// `(x - zero) scale` of u8, or of i8 if `signed`.
    ///
    /// # Panics
    /// If the lengths differ, or scales are neither one nor as many.
    pub fn dequantize(x: &[u8], steps: Steps<'_>, signed: bool, y: &mut [f32]) = dequantize_body;
    /// The least and the greatest of 0 and the elements; NaN is passed over.
    pub fn range(x: &[f32]) -> (f32, f32) = range_body;
}

/// One tensor of a sum: scale, zero point, and whether it is i8.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// Size of a step.
    pub scale: f32,
    /// Zero point.
    pub zero: f32,
    /// Whether bytes are signed.
    pub signed: bool,
}

/// `act(a + b)` of dequantized bytes, quantized as `to` says.
///
/// # Panics
/// If the lengths differ.
pub fn add(
    isa: Isa,
    (a, a_term): (&[u8], Term),
    (b, b_term): (&[u8], Term),
    activation: Activation,
    to: Term,
    y: &mut [u8],
) {
    struct Sum<'a>(Isa, (&'a [u8], Term), (&'a [u8], Term), Term, &'a mut [u8]);
    impl Visitor for Sum<'_> {
        #[inline(always)]
        fn visit<U: Unary>(self, u: U) {
            add_of(self.0, u, self.1, self.2, self.3, self.4);
        }
    }
    dispatch(activation, Sum(isa, (a, a_term), (b, b_term), to, y));
}

instantiate! {
    fn add_of<U: Unary>(u: U, a: (&[u8], Term), b: (&[u8], Term), to: Term, y: &mut [u8]) = add_body;
}

#[inline(always)]
fn add_body<S: Bytes, U: Unary>(
    s: S,
    u: U,
    (a, a_term): (&[u8], Term),
    (b, b_term): (&[u8], Term),
    to: Term,
    y: &mut [u8],
) {
    assert!(a.len() == y.len() && b.len() == y.len(), "lengths differ");
    let (low, high) = if to.signed { (-128.0, 127.0) } else { (0.0, 255.0) };
    let (low, high) = (s.splat(low), s.splat(high));
    let (scale, zero) = (s.splat(to.scale), s.splat(to.zero));
    let mut i = 0;
    while i < y.len() {
        let n = S::LEN.min(y.len() - i);
        // SAFETY: n elements are left in the equally long slices.
        unsafe {
            let real = |x: &[u8], term: Term| {
                let p = x.as_ptr().add(i);
                let v = if term.signed { s.load_i8(p.cast(), n) } else { s.load_u8(p, n) };
                s.mul(s.sub(v, s.splat(term.zero)), s.splat(term.scale))
            };
            let v = u.eval(s, s.add(real(a, a_term), real(b, b_term)));
            let q = s.add(s.round(s.div(v, scale)), zero);
            s.store_byte(y.as_mut_ptr().add(i), s.min(high, s.max(low, q)), n);
        }
        i += n;
    }
}

#[inline(always)]
fn quantize_body<S: Bytes>(s: S, x: &[f32], steps: Steps<'_>, signed: bool, y: &mut [u8]) {
    assert_eq!(x.len(), y.len(), "lengths differ");
    let (low, high) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
    let (low, high) = (s.splat(low), s.splat(high));
    let mut i = 0;
    while i < x.len() {
        let n = S::LEN.min(x.len() - i);
        let (scale, zero) = steps.at(s, i, n);
        // SAFETY: n elements are left in the equally long slices.
        unsafe {
            let v = s.load_n(x.as_ptr().add(i), n);
            let q = s.add(s.round(s.div(v, scale)), zero);
            s.store_byte(y.as_mut_ptr().add(i), s.min(high, s.max(low, q)), n);
        }
        i += n;
    }
}

#[inline(always)]
fn dequantize_body<S: Bytes>(s: S, x: &[u8], steps: Steps<'_>, signed: bool, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "lengths differ");
    let mut i = 0;
    while i < x.len() {
        let n = S::LEN.min(x.len() - i);
        let (scale, zero) = steps.at(s, i, n);
        // SAFETY: n elements are left in the equally long slices.
        unsafe {
            let p = x.as_ptr().add(i);
            let v = if signed { s.load_i8(p.cast(), n) } else { s.load_u8(p, n) };
            s.store_n(y.as_mut_ptr().add(i), s.mul(s.sub(v, zero), scale), n);
        }
        i += n;
    }
}

#[inline(always)]
fn range_body<S: Bytes>(s: S, x: &[f32]) -> (f32, f32) {
    let mut low = [s.zero(); 4];
    let mut high = [s.zero(); 4];
    let mut i = 0;
    while i < x.len() {
        for (low, high) in low.iter_mut().zip(&mut high) {
            if i < x.len() {
                let v = s.load_part(&x[i..]);
                // The second operand is kept where the first is NaN.
                *low = s.min(v, *low);
                *high = s.max(v, *high);
                i += S::LEN;
            }
        }
    }
    let low = s.min(s.min(low[0], low[1]), s.min(low[2], low[3]));
    let high = s.max(s.max(high[0], high[1]), s.max(high[2], high[3]));
    (s.min_lane(low), s.max_lane(high))
}

/// Scale and zero point for values between `low <= 0` and `high >= 0`, as `DynamicQuantizeLinear` defines them.
#[must_use]
pub fn parameters(low: f32, high: f32) -> (f32, u8) {
    let scale = (high - low) / 255.0;
    if scale == 0.0 {
        return (0.0, 0);
    }
    (scale, (-low / scale).clamp(0.0, 255.0).round_ties_even() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{bytes, values};

    #[test]
    fn bytes_and_floats_convert_as_the_formulas_say() {
        for isa in Isa::available() {
            for len in [0, 1, 3, 8, 15, 16, 17, 33, 100] {
                for (signed, per_element) in
                    [(false, false), (true, false), (false, true), (true, true)]
                {
                    let count = if per_element { len } else { 1 };
                    let scale: Vec<f32> = (0..count).map(|i| 0.013 + i as f32 * 0.001).collect();
                    let zero: Vec<f32> = (0..count).map(|i| i as f32 - 4.0).collect();
                    let steps = Steps { scale: &scale, zero: &zero };
                    let at = |v: &[f32], i: usize| if per_element { v[i] } else { v[0] };
                    let x: Vec<f32> = values(len, 3);
                    let (low, high) = if signed { (-128., 127.) } else { (0., 255.) };
                    let mut q = vec![9; len];
                    quantize(isa, &x, steps, signed, &mut q);
                    for i in 0..len {
                        let e = (x[i] / at(&scale, i)).round_ties_even() + at(&zero, i);
                        let e = e.clamp(low, high) as i32 as u8;
                        assert_eq!(q[i], e, "{isa} {len} {signed} {i}");
                    }
                    let x = bytes(len, 8);
                    let mut y = vec![9.0; len];
                    dequantize(isa, &x, steps, signed, &mut y);
                    for i in 0..len {
                        let v = if signed { f32::from(x[i] as i8) } else { f32::from(x[i]) };
                        assert_eq!(y[i], (v - at(&zero, i)) * at(&scale, i), "{isa} {len} {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_range_holds_zero_and_every_number() {
        for isa in Isa::available() {
            for len in [0, 1, 7, 16, 65, 130] {
                let mut x: Vec<f32> = values(len, 4);
                let expected = x.iter().fold((0f32, 0f32), |(l, h), v| (l.min(*v), h.max(*v)));
                assert_eq!(range(isa, &x), expected, "{isa} {len}");
                if len > 1 {
                    x[0] = f32::NAN;
                    let expected =
                        x[1..].iter().fold((0f32, 0f32), |(l, h), v| (l.min(*v), h.max(*v)));
                    assert_eq!(range(isa, &x), expected, "{isa} {len} with NaN");
                }
            }
        }
        assert_eq!(parameters(0.0, 0.0), (0.0, 0));
        assert_eq!(parameters(-3.0, 2.0), (5.0 / 255.0, 153));
    }
}
