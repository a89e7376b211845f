//! Softmax and log-softmax over the middle axis of `[outer, axis, inner]`.
#![allow(unsafe_code, reason = "vector loads and stores at computed offsets")]

use std::ops::Range;

use crate::kernels::out::Out;
use crate::kernels::reduce::ReduceShape;
use crate::simd::bits::Bits;
use crate::simd::lanes::instantiate;
use crate::simd::math;

/// Which function is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SoftmaxKind {
    /// `e^(x - max) / sum`
    Softmax,
    /// `x - max - ln(sum)`
    LogSoftmax,
}

/// The largest element; NaN may be lost.
#[inline(always)]
pub(crate) fn row_max<S: Bits>(s: S, x: &[f32]) -> f32 {
    let mut m = [s.splat(f32::NEG_INFINITY); 4];
    let mut i = 0;
    // SAFETY: every load reads below the slice's end.
    unsafe {
        while i + 4 * S::LEN <= x.len() {
            for (v, m) in m.iter_mut().enumerate() {
                *m = s.max(*m, s.load(x.as_ptr().add(i + v * S::LEN)));
            }
            i += 4 * S::LEN;
        }
        while i + S::LEN <= x.len() {
            m[0] = s.max(m[0], s.load(x.as_ptr().add(i)));
            i += S::LEN;
        }
    }
    let m = s.max_lane(s.max(s.max(m[0], m[1]), s.max(m[2], m[3])));
    x[i..].iter().fold(m, |m, x| if *x > m { *x } else { m })
}

/// `y = e^(x - shift)`, returning the sum; `x` may be `y`.
///
/// # Safety
/// `n` elements must be readable at `x` and writable at `y`.
#[inline(always)]
pub(crate) unsafe fn exp_sum<S: Bits>(
    s: S,
    x: *const f32,
    y: *mut f32,
    n: usize,
    shift: f32,
) -> f32 {
    let m = s.splat(shift);
    let mut sum = [s.zero(); 2];
    let mut i = 0;
    // SAFETY: every access is below n.
    unsafe {
        while i + 2 * S::LEN <= n {
            for (v, sum) in sum.iter_mut().enumerate() {
                let at = i + v * S::LEN;
                let e = math::exp(s, s.sub(s.load(x.add(at)), m));
                s.store(y.add(at), e);
                *sum = s.add(*sum, e);
            }
            i += 2 * S::LEN;
        }
        while i < n {
            let k = S::LEN.min(n - i);
            let e = math::exp(s, s.sub(s.load_n(x.add(i), k), m));
            s.store_n(y.add(i), e, k);
            if k == S::LEN {
                sum[0] = s.add(sum[0], e);
            } else {
                let mut lanes = [0.0; 16];
                s.store_n(lanes.as_mut_ptr(), e, k);
                sum[1] = s.add(sum[1], s.load_slice(&lanes));
            }
            i += k;
        }
    }
    s.sum(s.add(sum[0], sum[1]))
}

/// `y = scale * x + shift`; `x` may be `y`.
///
/// # Safety
/// `n` elements must be readable at `x` and writable at `y`.
#[inline(always)]
unsafe fn affine<S: Bits>(s: S, x: *const f32, y: *mut f32, n: usize, scale: f32, shift: f32) {
    let (a, b) = (s.splat(scale), s.splat(shift));
    let mut i = 0;
    while i < n {
        let k = S::LEN.min(n - i);
        // SAFETY: k elements are left.
        unsafe {
            if k == S::LEN {
                s.store(y.add(i), s.fma(s.load(x.add(i)), a, b));
            } else {
                s.store_n(y.add(i), s.fma(s.load_n(x.add(i), k), a, b), k);
            }
        }
        i += k;
    }
}

#[inline(always)]
fn row<S: Bits>(s: S, kind: SoftmaxKind, x: &[f32], y: &mut [f32]) {
    let n = x.len();
    assert!(y.len() == n, "rows of equal length");
    let max = row_max(s, x);
    // SAFETY: both slices have n elements.
    unsafe {
        let sum = exp_sum(s, x.as_ptr(), y.as_mut_ptr(), n, max);
        match kind {
            SoftmaxKind::Softmax => affine(s, y.as_ptr(), y.as_mut_ptr(), n, 1.0 / sum, 0.0),
            SoftmaxKind::LogSoftmax => {
                let shift = s.splat(max);
                let log = s.splat(sum.ln());
                let mut i = 0;
                while i < n {
                    let k = S::LEN.min(n - i);
                    let v = s.sub(s.sub(s.load_n(x.as_ptr().add(i), k), shift), log);
                    s.store_n(y.as_mut_ptr().add(i), v, k);
                    i += k;
                }
            }
        }
    }
}

/// `V` vectors of columns, the last one cut to `n` lanes.
///
/// # Safety
/// Rows `0..axis` at `x` and `y`, `inner` elements apart, must have that many columns.
#[inline(always)]
unsafe fn columns<S: Bits, const V: usize>(
    s: S,
    kind: SoftmaxKind,
    axis: usize,
    inner: usize,
    x: *const f32,
    y: *mut f32,
    n: usize,
) {
    let mut max = [s.splat(f32::NEG_INFINITY); V];
    let mut sum = [s.zero(); V];
    // SAFETY: the caller's contract.
    unsafe {
        let load = |p: *const f32| if n == S::LEN { s.load(p) } else { s.load_n(p, n) };
        let store = |p: *mut f32, v| if n == S::LEN { s.store(p, v) } else { s.store_n(p, v, n) };
        for k in 0..axis {
            for v in 0..V {
                max[v] = s.max(max[v], load(x.add(k * inner + v * S::LEN)));
            }
        }
        for k in 0..axis {
            for v in 0..V {
                let at = k * inner + v * S::LEN;
                let e = math::exp(s, s.sub(load(x.add(at)), max[v]));
                sum[v] = s.add(sum[v], e);
                if kind == SoftmaxKind::Softmax {
                    store(y.add(at), e);
                }
            }
        }
        let scale = sum.map(|a| match kind {
            SoftmaxKind::Softmax => s.div(s.splat(1.0), a),
            SoftmaxKind::LogSoftmax => math::log(s, a),
        });
        for k in 0..axis {
            for v in 0..V {
                let at = k * inner + v * S::LEN;
                let r = match kind {
                    SoftmaxKind::Softmax => s.mul(load(y.add(at)), scale[v]),
                    SoftmaxKind::LogSoftmax => s.sub(s.sub(load(x.add(at)), max[v]), scale[v]),
                };
                store(y.add(at), r);
            }
        }
    }
}

#[inline(always)]
fn body<S: Bits>(
    s: S,
    kind: SoftmaxKind,
    shape: &ReduceShape,
    x: &[f32],
    out: &Out<'_, f32>,
    range: Range<usize>,
) {
    let ReduceShape { axis, inner, .. } = *shape;
    if axis == 0 {
        return;
    }
    for item in range {
        if inner == 1 {
            let at = item * axis..(item + 1) * axis;
            // SAFETY: each item has its own row.
            row(s, kind, &x[at.clone()], unsafe { out.slice(at) });
            continue;
        }
        let (o, columns_at) = shape.column_block(item);
        let x = &x[o * axis * inner..(o + 1) * axis * inner];
        let y = out.at(o * axis * inner, axis * inner);
        let mut c = columns_at.start;
        while c < columns_at.end {
            let rest = columns_at.end - c;
            // SAFETY: the columns of an item belong to it alone and lie in every row.
            unsafe {
                let (x, y) = (x.as_ptr().add(c), y.add(c));
                if rest >= 4 * S::LEN {
                    columns::<S, 4>(s, kind, axis, inner, x, y, S::LEN);
                    c += 4 * S::LEN;
                } else {
                    let n = rest.min(S::LEN);
                    columns::<S, 1>(s, kind, axis, inner, x, y, n);
                    c += n;
                }
            }
        }
    }
}

instantiate! {
    /// Softmax of `x: [outer, axis, inner]` over the axis into `out` of the same shape, items
    /// `range` of [`ReduceShape::items`]. NaN in a row makes the row NaN; so does a row of -inf.
    ///
    /// # Panics
    /// If a slice is shorter than the shape.
    pub fn softmax_f32(
        kind: SoftmaxKind, shape: &ReduceShape, x: &[f32], out: &Out<'_, f32>, range: Range<usize>,
    ) = body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, values};
    use crate::simd::Isa;

    #[test]
    fn matches_reference() {
        let shapes = [
            (3, 1, 1),
            (5, 17, 1),
            (2, 64, 1),
            (2, 1000, 1),
            (2, 0, 1),
            (0, 4, 1),
            (1, 100, 1),
            (2, 5, 3),
            (1, 16, 130),
            (2, 21, 64),
            (2, 0, 3),
            (1, 1, 70),
        ];
        for isa in Isa::available() {
            for (outer, axis, inner) in shapes {
                let shape = ReduceShape { outer, axis, inner };
                let x: Vec<f32> =
                    values(outer * axis * inner, 2).iter().map(|x| x * 20.0).collect();
                for kind in [SoftmaxKind::Softmax, SoftmaxKind::LogSoftmax] {
                    let mut e = vec![0.0; x.len()];
                    for o in 0..outer {
                        for i in 0..inner {
                            let at = |k: usize| (o * axis + k) * inner + i;
                            let max = (0..axis)
                                .fold(f64::NEG_INFINITY, |m, k| m.max(f64::from(x[at(k)])));
                            let sum: f64 =
                                (0..axis).map(|k| (f64::from(x[at(k)]) - max).exp()).sum();
                            for k in 0..axis {
                                let d = f64::from(x[at(k)]) - max;
                                e[at(k)] = match kind {
                                    SoftmaxKind::Softmax => d.exp() / sum,
                                    SoftmaxKind::LogSoftmax => d - sum.ln(),
                                };
                            }
                        }
                    }
                    let mut y = vec![7.0; x.len()];
                    let (out, items) = (Out::new(&mut y), shape.items());
                    softmax_f32(isa, kind, &shape, &x, &out, 0..items / 2);
                    softmax_f32(isa, kind, &shape, &x, &out, items / 2..items);
                    assert_close(&y, &e, 1e-6, &format!("{isa} {kind:?} {shape:?}"));
                }
            }
        }
    }

    #[test]
    fn large_and_masked_values() {
        for isa in Isa::available() {
            let shape = ReduceShape { outer: 1, axis: 20, inner: 1 };
            let mut x = vec![f32::NEG_INFINITY; 20];
            x[3] = 1e30;
            let mut y = vec![0.0; 20];
            softmax_f32(isa, SoftmaxKind::Softmax, &shape, &x, &Out::new(&mut y), 0..1);
            let e: Vec<f64> = (0..20).map(|i| f64::from(u8::from(i == 3))).collect();
            assert_close(&y, &e, 0.0, "one finite value");
            x[19] = f32::NAN;
            softmax_f32(isa, SoftmaxKind::Softmax, &shape, &x, &Out::new(&mut y), 0..1);
            assert!(y[3].is_nan() && y[0].is_nan(), "{isa}");
        }
    }
}
