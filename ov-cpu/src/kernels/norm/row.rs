//! Normalisation of rows, with the residual addition before it.
#![allow(unsafe_code, reason = "vector loads and stores at computed offsets")]

use std::ops::Range;

use crate::kernels::out::Out;
use crate::simd::lanes::{Simd, instantiate};

/// What is taken out of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowStatistics {
    /// `(x - mean) / sqrt(variance + eps)`
    MeanVariance,
    /// `(x - mean) / (sqrt(variance) + eps)`
    MeanVarianceOutside,
    /// `x - mean`
    Mean,
    /// `x / sqrt(mean(x²) + eps)`
    Rms,
}

/// The scale and the bias after normalisation.
#[derive(Clone, Copy, Debug, Default)]
pub enum Affine<'a> {
    /// Neither.
    #[default]
    None,
    /// One of each per column: `[n]`.
    Columns {
        /// Factors.
        scale: &'a [f32],
        /// Addends, or none.
        bias: Option<&'a [f32]>,
    },
    /// A row is `per_row` segments of equal length, and segment `s` of all rows has entry `s % scale.len()`: groups of
    /// planar channels, of which a row has one for instance normalisation.
    Segments {
        /// Factors.
        scale: &'a [f32],
        /// Addends, or none.
        bias: Option<&'a [f32]>,
        /// Segments of a row.
        per_row: usize,
    },
}

/// A normalisation of rows of `n` elements.
#[derive(Clone, Copy, Debug)]
pub struct RowNorm<'a> {
    /// Elements of a row.
    pub n: usize,
    /// Added to the variance.
    pub eps: f32,
    /// What is taken out.
    pub statistics: RowStatistics,
    /// Scale and bias.
    pub affine: Affine<'a>,
    /// Added to the input first, shaped like it.
    pub residual: Option<&'a [f32]>,
}

/// Sum of `f(x)` over the row, in four accumulators.
#[inline(always)]
fn sum<S: Simd>(s: S, x: &[f32], f: impl Fn(S::F) -> S::F, tail: impl Fn(f32) -> f32) -> f32 {
    let mut total = s.zero();
    let mut i = 0;
    while i + 4 * S::LEN <= x.len() {
        let end = x.len().min(i + 64 * 4 * S::LEN);
        let mut acc = [s.zero(); 4];
        while i + 4 * S::LEN <= end {
            for (v, a) in acc.iter_mut().enumerate() {
                // SAFETY: 4 vectors fit before the end of the slice.
                *a = s.add(*a, f(unsafe { s.load(x.as_ptr().add(i + v * S::LEN)) }));
            }
            i += 4 * S::LEN;
        }
        total = s.add(total, s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3])));
    }
    while i + S::LEN <= x.len() {
        // SAFETY: a vector fits before the end of the slice.
        total = s.add(total, f(unsafe { s.load(x.as_ptr().add(i)) }));
        i += S::LEN;
    }
    x[i..].iter().fold(s.sum(total), |t, x| t + tail(*x))
}

/// Mean of `(x - mean)²` over the row.
#[inline(always)]
fn variance<S: Simd>(s: S, row: &[f32], mean: f32) -> f32 {
    let m = s.splat(mean);
    let total = sum(
        s,
        row,
        #[inline(always)]
        |v| {
            let d = s.sub(v, m);
            s.mul(d, d)
        },
        #[inline(always)]
        |v| (v - mean) * (v - mean),
    );
    total / row.len() as f32
}

/// `y = f(x, position, lanes)` by vectors; `x` may be `y`.
///
/// # Safety
/// `n` elements must be readable at `x` and writable at `y`.
#[inline(always)]
unsafe fn map<S: Simd>(
    s: S,
    x: *const f32,
    y: *mut f32,
    n: usize,
    f: impl Fn(S::F, usize, usize) -> S::F,
) {
    let mut i = 0;
    // SAFETY: every access is below n.
    unsafe {
        while i + S::LEN <= n {
            s.store(y.add(i), f(s.load(x.add(i)), i, S::LEN));
            i += S::LEN;
        }
        if i < n {
            s.store_n(y.add(i), f(s.load_n(x.add(i), n - i), i, n - i), n - i);
        }
    }
}

#[inline(always)]
fn body<S: Simd>(
    s: S,
    norm: &RowNorm<'_>,
    x: &[f32],
    sum_out: Option<&Out<'_, f32>>,
    out: &Out<'_, f32>,
    range: Range<usize>,
) {
    let n = norm.n;
    if n == 0 {
        return;
    }
    for item in range {
        let at = item * n..(item + 1) * n;
        let y = out.at(at.start, n);
        let mut input = x[at.clone()].as_ptr();
        if let Some(r) = norm.residual {
            let r = r[at.clone()].as_ptr();
            let to = sum_out.map_or(y, |o| o.at(at.start, n));
            // SAFETY: the rows of input, residual and output have n elements, checked above.
            unsafe {
                map(
                    s,
                    input,
                    to,
                    n,
                    #[inline(always)]
                    |v, i, k| s.add(v, s.load_n(r.add(i), k)),
                );
            };
            input = to;
        }
        // SAFETY: n elements are at `input`, which nobody writes while the slice is used.
        let row = unsafe { std::slice::from_raw_parts(input, n) };
        let mean = match norm.statistics {
            RowStatistics::Rms => 0.0,
            _ => sum(s, row, |v| v, |v| v) / n as f32,
        };
        let scale = match norm.statistics {
            RowStatistics::Mean => 1.0,
            RowStatistics::MeanVarianceOutside => 1.0 / (variance(s, row, mean).sqrt() + norm.eps),
            _ => 1.0 / (variance(s, row, mean) + norm.eps).sqrt(),
        };
        let (k, m) = (s.splat(scale), s.splat(mean));
        // SAFETY: n elements at `input` and `y`, of which segments are parts; scale and bias have n elements (checked
        // here) or one per segment.
        unsafe {
            match norm.affine {
                Affine::None => map(
                    s,
                    input,
                    y,
                    n,
                    #[inline(always)]
                    |v, _, _| s.mul(s.sub(v, m), k),
                ),
                Affine::Columns { scale, bias: None } => {
                    let g = scale[..n].as_ptr();
                    map(
                        s,
                        input,
                        y,
                        n,
                        #[inline(always)]
                        |v, i, l| s.mul(s.mul(s.sub(v, m), k), s.load_n(g.add(i), l)),
                    );
                }
                Affine::Columns { scale, bias: Some(bias) } => {
                    let (g, b) = (scale[..n].as_ptr(), bias[..n].as_ptr());
                    map(
                        s,
                        input,
                        y,
                        n,
                        #[inline(always)]
                        |v, i, l| {
                            let t = s.mul(s.sub(v, m), k);
                            s.fma(t, s.load_n(g.add(i), l), s.load_n(b.add(i), l))
                        },
                    );
                }
                Affine::Segments { scale, bias, per_row } => {
                    let segment = n / per_row;
                    for part in 0..per_row {
                        let at = (item * per_row + part) % scale.len();
                        let k = s.mul(k, s.splat(scale[at]));
                        let b = s.splat(bias.map_or(0.0, |b| b[at]));
                        map(
                            s,
                            input.add(part * segment),
                            y.add(part * segment),
                            segment,
                            #[inline(always)]
                            |v, _, _| s.fma(s.sub(v, m), k, b),
                        );
                    }
                }
            }
        }
    }
}

instantiate! {
    /// Normalises the rows `range` of `x: [rows, n]` into `out`. With a residual the row that is
    /// normalised is their sum, which is also written to `sum_out` if given; `sum_out` may be
    /// the buffer of the residual or of `x`.
    ///
    /// # Panics
    /// If a slice is shorter than its rows.
    pub fn row_norm_f32(
        norm: &RowNorm<'_>, x: &[f32], sum_out: Option<&Out<'_, f32>>, out: &Out<'_, f32>,
        range: Range<usize>,
    ) = body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, values};
    use crate::simd::Isa;

    #[test]
    fn matches_reference() {
        for isa in Isa::available() {
            for (rows, n) in [(3, 1), (2, 7), (4, 64), (3, 129), (1, 5000), (0, 5), (2, 0)] {
                let x: Vec<f32> = values(rows * n, 1).iter().map(|x| x + 50.0).collect();
                let r = values(rows * n, 2);
                let (g, b) = (values(n, 3), values(n, 4));
                let per_row = 2 - n % 2;
                let affines = [
                    Affine::None,
                    Affine::Columns { scale: &g, bias: Some(&b) },
                    Affine::Columns { scale: &g, bias: None },
                    Affine::Segments { scale: &[0.5, -2.0], bias: Some(&[1.0, 3.0]), per_row },
                ];
                for (k, affine) in affines.into_iter().enumerate() {
                    for statistics in [
                        RowStatistics::MeanVariance,
                        RowStatistics::MeanVarianceOutside,
                        RowStatistics::Mean,
                        RowStatistics::Rms,
                    ] {
                        let norm = RowNorm {
                            n,
                            eps: 1e-3,
                            statistics,
                            affine,
                            residual: (k > 0).then_some(&r[..]),
                        };
                        let mut y = vec![7.0; rows * n];
                        let mut sum = vec![7.0; rows * n];
                        let (out, sums) = (Out::new(&mut y), Out::new(&mut sum));
                        let to = (k == 2).then_some(&sums);
                        row_norm_f32(isa, &norm, &x, to, &out, 0..rows / 2);
                        row_norm_f32(isa, &norm, &x, to, &out, rows / 2..rows);
                        let mut e = vec![];
                        for row in 0..rows {
                            let v: Vec<f64> = (0..n)
                                .map(|i| {
                                    let at = row * n + i;
                                    f64::from(if k > 0 { x[at] + r[at] } else { x[at] })
                                })
                                .collect();
                            let mean = v.iter().sum::<f64>() / n as f64;
                            let mean = if statistics == RowStatistics::Rms { 0.0 } else { mean };
                            let var = v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
                            let eps = f64::from(norm.eps);
                            let d = match statistics {
                                RowStatistics::Mean => 1.0,
                                RowStatistics::MeanVarianceOutside => var.sqrt() + eps,
                                _ => (var + eps).sqrt(),
                            };
                            for i in 0..n {
                                let t = (v[i] - mean) / d;
                                e.push(match k {
                                    0 => t,
                                    1 => t * f64::from(g[i]) + f64::from(b[i]),
                                    2 => t * f64::from(g[i]),
                                    _ => {
                                        let at = (row * per_row + i / (n / per_row)) % 2;
                                        t * [0.5, -2.0][at] + [1.0, 3.0][at]
                                    }
                                });
                            }
                        }
                        assert_close(&y, &e, 3e-5, &format!("{isa} {statistics:?} {rows}x{n} {k}"));
                        if k == 2 {
                            let e: Vec<f64> =
                                x.iter().zip(&r).map(|(x, r)| f64::from(x + r)).collect();
                            assert_close(&sum, &e, 0.0, "sums");
                        }
                    }
                }
            }
        }
    }
}
