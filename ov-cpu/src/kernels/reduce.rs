//! Reductions over the middle axis of `[outer, axis, inner]`.
#![allow(unsafe_code, reason = "vector loads and stores at computed offsets")]

use std::ops::Range;

use crate::kernels::out::Out;
use crate::simd::lanes::{Simd, instantiate};

/// What is computed along the axis; over no elements: 0 for sums and norms, 1 for the product,
/// -inf and inf for max and min, NaN for the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the operations")]
pub enum ReduceOp {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    /// Sum of absolute values.
    L1,
    /// Square root of the sum of squares.
    L2,
    SumSquare,
    /// Logarithm of the sum.
    LogSum,
}

/// A tensor collapsed around its reduced axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReduceShape {
    /// Product of the dimensions before the axis.
    pub outer: usize,
    /// Product of the reduced dimensions.
    pub axis: usize,
    /// Product of the dimensions after the axis.
    pub inner: usize,
}

/// Columns of a work item where `inner > 1`.
const COLS: usize = 64;

/// Elements after which a partial sum is put aside, to bound the rounding error of long axes.
const BLOCK: usize = 64;

impl ReduceShape {
    /// Work items: rows where `inner` is 1, else blocks of 64 columns.
    #[must_use]
    pub fn items(&self) -> usize {
        if self.inner == 1 { self.outer } else { self.outer * self.inner.div_ceil(COLS) }
    }

    /// The outer index and the columns of an item where `inner > 1`.
    #[inline(always)]
    pub(crate) fn column_block(&self, item: usize) -> (usize, Range<usize>) {
        let blocks = self.inner.div_ceil(COLS);
        let start = item % blocks * COLS;
        (item / blocks, start..self.inner.min(start + COLS))
    }
}

trait Step: Copy {
    const START: f32;
    fn step<S: Simd>(s: S, acc: S::F, x: S::F) -> S::F;
    fn join<S: Simd>(s: S, a: S::F, b: S::F) -> S::F;
    fn lanes<S: Simd>(s: S, a: S::F) -> f32;
}

macro_rules! step {
    ($name:ident, $start:expr, |$s:ident, $a:ident, $x:ident| $step:expr, $join:ident, $lanes:ident) => {
        #[derive(Clone, Copy)]
        struct $name;
        impl Step for $name {
            const START: f32 = $start;
            #[inline(always)]
            fn step<S: Simd>($s: S, $a: S::F, $x: S::F) -> S::F {
                $step
            }
            #[inline(always)]
            fn join<S: Simd>(s: S, a: S::F, b: S::F) -> S::F {
                s.$join(a, b)
            }
            #[inline(always)]
            fn lanes<S: Simd>(s: S, a: S::F) -> f32 {
                $lanes(s, a)
            }
        }
    };
}

#[inline(always)]
fn lanes_sum<S: Simd>(s: S, a: S::F) -> f32 {
    s.sum(a)
}
#[inline(always)]
fn lanes_max<S: Simd>(s: S, a: S::F) -> f32 {
    if s.bits(s.eq(a, a)).count_ones() as usize == S::LEN { s.max_lane(a) } else { f32::NAN }
}
#[inline(always)]
fn lanes_min<S: Simd>(s: S, a: S::F) -> f32 {
    if s.bits(s.eq(a, a)).count_ones() as usize == S::LEN { s.min_lane(a) } else { f32::NAN }
}
#[inline(always)]
fn lanes_prod<S: Simd>(s: S, a: S::F) -> f32 {
    let mut buffer = [1.0f32; 16];
    s.store_slice(&mut buffer, a);
    buffer.iter().product()
}

step!(Sum, 0.0, |s, a, x| s.add(a, x), add, lanes_sum);
step!(AbsSum, 0.0, |s, a, x| s.add(a, s.abs(x)), add, lanes_sum);
step!(SquareSum, 0.0, |s, a, x| s.fma(x, x, a), add, lanes_sum);
step!(Prod, 1.0, |s, a, x| s.mul(a, x), mul, lanes_prod);
step!(Max, f32::NEG_INFINITY, |s, a, x| s.select(s.eq(a, a), s.max(a, x), a), max, lanes_max);
step!(Min, f32::INFINITY, |s, a, x| s.select(s.eq(a, a), s.min(a, x), a), min, lanes_min);

#[inline(always)]
fn row<S: Simd, K: Step>(s: S, _: K, x: &[f32]) -> f32 {
    let mut total = [s.splat(K::START); 4];
    let mut i = 0;
    while i + 4 * S::LEN <= x.len() {
        let end = x.len().min(i + 4 * S::LEN * (BLOCK / 4));
        let mut acc = [s.splat(K::START); 4];
        while i + 4 * S::LEN <= end {
            for v in 0..4 {
                // SAFETY: 4 vectors fit before the end of the slice.
                acc[v] = K::step(s, acc[v], unsafe { s.load(x.as_ptr().add(i + v * S::LEN)) });
            }
            i += 4 * S::LEN;
        }
        for v in 0..4 {
            total[v] = nan_join::<S, K>(s, total[v], acc[v]);
        }
    }
    while i + S::LEN <= x.len() {
        // SAFETY: a vector fits before the end of the slice.
        total[0] = K::step(s, total[0], unsafe { s.load(x.as_ptr().add(i)) });
        i += S::LEN;
    }
    let mut tail = [K::START; 16];
    if i < x.len() {
        let mut last = [K::START; 16];
        last[..x.len() - i].copy_from_slice(&x[i..]);
        let r = K::step(s, s.splat(K::START), s.load_slice(&last));
        s.store_slice(&mut tail, r);
    }
    total[0] = nan_join::<S, K>(s, total[0], s.load_slice(&tail));
    let a = nan_join::<S, K>(s, total[0], total[1]);
    let b = nan_join::<S, K>(s, total[2], total[3]);
    K::lanes(s, nan_join::<S, K>(s, a, b))
}

/// Joins partial results, keeping a NaN of either (`min` and `max` keep only that of `b`).
#[inline(always)]
fn nan_join<S: Simd, K: Step>(s: S, a: S::F, b: S::F) -> S::F {
    s.select(s.eq(a, a), K::join(s, a, b), a)
}

#[inline(always)]
fn columns<S: Simd, K: Step>(
    s: S,
    _: K,
    axis: usize,
    inner: usize,
    x: &[f32],
    width: usize,
    y: &mut [f32],
    finish: impl Fn(S::F) -> S::F,
) {
    debug_assert!(width <= COLS && y.len() == width);
    if axis > 0 {
        assert!(x.len() >= (axis - 1) * inner + width, "input shorter than its shape");
    }
    let mut c = 0;
    while c < width {
        let full = width - c >= 4 * S::LEN;
        let (step, n) = if full { (4, S::LEN) } else { (1, S::LEN.min(width - c)) };
        let mut total = [s.splat(K::START); 4];
        let mut k = 0;
        while k < axis {
            let end = axis.min(k + BLOCK);
            let mut acc = [s.splat(K::START); 4];
            for k in k..end {
                // SAFETY: row k has `width` columns from here, checked above; the loads read
                // columns c.. that are left of them.
                unsafe {
                    let p = x.as_ptr().add(k * inner + c);
                    if full {
                        for v in 0..4 {
                            acc[v] = K::step(s, acc[v], s.load(p.add(v * S::LEN)));
                        }
                    } else if n == S::LEN {
                        acc[0] = K::step(s, acc[0], s.load(p));
                    } else {
                        acc[0] = K::step(s, acc[0], s.load_n(p, n));
                    }
                }
            }
            for v in 0..4 {
                total[v] = nan_join::<S, K>(s, total[v], acc[v]);
            }
            k = end;
        }
        for (v, t) in total.iter().enumerate().take(step) {
            // SAFETY: the columns are left of `width`, which is y's length.
            unsafe { s.store_n(y.as_mut_ptr().add(c + v * S::LEN), finish(*t), n) };
        }
        c += step * n;
    }
}

#[inline(always)]
fn with<S: Simd, K: Step>(
    s: S,
    kind: K,
    op: ReduceOp,
    shape: &ReduceShape,
    x: &[f32],
    out: &Out<'_, f32>,
    range: Range<usize>,
) {
    let ReduceShape { axis, inner, .. } = *shape;
    let count = s.splat(axis as f32);
    let finish = |a: S::F| match op {
        ReduceOp::Mean if axis > 0 => s.div(a, count),
        ReduceOp::Mean => s.splat(f32::NAN),
        ReduceOp::L2 => s.sqrt(a),
        _ => a,
    };
    let blocks = inner.div_ceil(COLS);
    for item in range {
        if inner == 1 {
            let r = row(s, kind, &x[item * axis..(item + 1) * axis]);
            let r = match op {
                ReduceOp::Mean => r / axis as f32,
                ReduceOp::L2 => r.sqrt(),
                _ => r,
            };
            let r = if op == ReduceOp::LogSum { r.ln() } else { r };
            // SAFETY: one element per item.
            let y = unsafe { out.slice(item..item + 1) };
            y[0] = r;
            continue;
        }
        let (o, c) = (item / blocks, item % blocks * COLS);
        let width = COLS.min(inner - c);
        // SAFETY: the columns of an item belong to it alone.
        let y = unsafe { out.slice(o * inner + c..o * inner + c + width) };
        let start = if axis == 0 { 0 } else { o * axis * inner + c };
        columns(s, kind, axis, inner, &x[start..], width, y, finish);
        if op == ReduceOp::LogSum {
            y.iter_mut().for_each(|y| *y = y.ln());
        }
    }
}

#[inline(always)]
fn body<S: Simd>(
    s: S,
    op: ReduceOp,
    shape: &ReduceShape,
    x: &[f32],
    out: &Out<'_, f32>,
    range: Range<usize>,
) {
    match op {
        ReduceOp::Sum | ReduceOp::Mean | ReduceOp::LogSum => with(s, Sum, op, shape, x, out, range),
        ReduceOp::Max => with(s, Max, op, shape, x, out, range),
        ReduceOp::Min => with(s, Min, op, shape, x, out, range),
        ReduceOp::Prod => with(s, Prod, op, shape, x, out, range),
        ReduceOp::L1 => with(s, AbsSum, op, shape, x, out, range),
        ReduceOp::L2 | ReduceOp::SumSquare => with(s, SquareSum, op, shape, x, out, range),
    }
}

instantiate! {
    /// Reduces `x: [outer, axis, inner]` to `out: [outer, inner]`, items `range` of
    /// [`ReduceShape::items`].
    ///
    /// # Panics
    /// If a slice is shorter than the shape.
    pub fn reduce_f32(
        op: ReduceOp, shape: &ReduceShape, x: &[f32], out: &Out<'_, f32>, range: Range<usize>,
    ) = body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, values};
    use crate::simd::Isa;

    #[test]
    fn matches_reference() {
        type Reference = fn(&[f64]) -> f64;
        let ops: [(ReduceOp, Reference); 8] = [
            (ReduceOp::Sum, |x| x.iter().sum()),
            (ReduceOp::Mean, |x| x.iter().sum::<f64>() / x.len() as f64),
            (ReduceOp::Max, |x| x.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            (ReduceOp::Min, |x| x.iter().copied().fold(f64::INFINITY, f64::min)),
            (ReduceOp::Prod, |x| x.iter().product()),
            (ReduceOp::L1, |x| x.iter().map(|x| x.abs()).sum()),
            (ReduceOp::L2, |x| x.iter().map(|x| x * x).sum::<f64>().sqrt()),
            (ReduceOp::SumSquare, |x| x.iter().map(|x| x * x).sum()),
        ];
        let shapes = [
            (3, 1, 1),
            (2, 17, 1),
            (5, 64, 1),
            (1, 4097, 1),
            (2, 0, 1),
            (2, 0, 5),
            (0, 3, 1),
            (3, 9, 1),
            (2, 7, 3),
            (1, 49, 130),
            (2, 300, 65),
            (1, 5, 64),
            (2, 3, 16),
            (1, 1, 31),
        ];
        for isa in Isa::available() {
            for (outer, axis, inner) in shapes {
                let shape = ReduceShape { outer, axis, inner };
                let x = values(outer * axis * inner, 3);
                for (op, f) in ops {
                    let mut e = vec![];
                    for o in 0..outer {
                        for i in 0..inner {
                            let v: Vec<f64> = (0..axis)
                                .map(|k| f64::from(x[(o * axis + k) * inner + i]))
                                .collect();
                            e.push(f(&v));
                        }
                    }
                    let mut y = vec![7.0; outer * inner];
                    let (out, items) = (Out::new(&mut y), shape.items());
                    reduce_f32(isa, op, &shape, &x, &out, 0..items / 2);
                    reduce_f32(isa, op, &shape, &x, &out, items / 2..items);
                    assert_close(&y, &e, 2e-5, &format!("{isa} {op:?} {shape:?}"));
                }
            }
        }
    }

    #[test]
    fn max_and_min_keep_nan_anywhere() {
        for isa in Isa::available() {
            for len in [3, 40, 70, 300] {
                for at in [0, len / 2, len - 1] {
                    for (inner, axis) in [(1, len), (2, len)] {
                        let mut x = vec![1.0; axis * inner];
                        x[at * inner] = f32::NAN;
                        let shape = ReduceShape { outer: 1, axis, inner };
                        for op in [ReduceOp::Max, ReduceOp::Min] {
                            let mut y = vec![0.0; inner];
                            reduce_f32(isa, op, &shape, &x, &Out::new(&mut y), 0..1);
                            assert!(y[0].is_nan(), "{isa} {op:?} {len} {at} {inner}");
                        }
                    }
                }
            }
        }
    }
}
