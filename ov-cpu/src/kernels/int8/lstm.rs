//! The part of an LSTM step behind its products.
#![allow(unsafe_code, reason = "vector loads and stores")]

use crate::simd::bits::Bits;
use crate::simd::lanes::instantiate;
use crate::simd::math::{Sigmoid, Tanh, Unary};

instantiate! {
    /// New cell state `c` and hidden state `h` from the sums of the gates f, i, c, o in `x` and `r`, each
    /// `[4, hidden]`: sigmoid gates, tanh of candidate and state.
    ///
    /// # Panics
    /// If `x` or `r` is shorter than four times `h`, or `c` is shorter.
    pub(crate) fn lstm_cell(x: &[f32], r: &[f32], c: &mut [f32], h: &mut [f32]) = body;
}

#[inline(always)]
fn body<S: Bits>(s: S, x: &[f32], r: &[f32], c: &mut [f32], h: &mut [f32]) {
    let hidden = h.len();
    let (x, r, c) = (&x[..4 * hidden], &r[..4 * hidden], &mut c[..hidden]);
    let mut j = 0;
    while j < hidden {
        let n = S::LEN.min(hidden - j);
        // SAFETY: each gate has `hidden` elements, of which n are left.
        unsafe {
            let gate = |g: usize| {
                let at = g * hidden + j;
                s.add(s.load_n(x.as_ptr().add(at), n), s.load_n(r.as_ptr().add(at), n))
            };
            let forget = Sigmoid.eval(s, gate(0));
            let input = Sigmoid.eval(s, gate(1));
            let candidate = Tanh.eval(s, gate(2));
            let output = Sigmoid.eval(s, gate(3));
            let kept = s.mul(forget, s.load_n(c.as_ptr().add(j), n));
            let cell = s.fma(input, candidate, kept);
            s.store_n(c.as_mut_ptr().add(j), cell, n);
            s.store_n(h.as_mut_ptr().add(j), s.mul(output, Tanh.eval(s, cell)), n);
        }
        j += n;
    }
}
