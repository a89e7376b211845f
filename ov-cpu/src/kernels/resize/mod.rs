//! Resizing channels-last images and single axes with coordinate tables computed once.
#![allow(unsafe_code, reason = "vector loads and stores at computed offsets")]

mod table;

use std::ops::Range;

pub use table::{AxisOptions, AxisTable, Coordinates, Interpolation, NearestRounding, TableError};

use crate::kernels::out::Out;
use crate::simd::lanes::{Simd, instantiate};

/// Resizes the middle axis of `x: [outer, axis, inner]`.
///
/// Items are (outer, output position) pairs: `outer * table.len()`.
#[inline(always)]
fn axis_body<S: Simd>(
    s: S,
    table: &AxisTable,
    inner: usize,
    x: &[f32],
    out: &Out<'_, f32>,
    range: Range<usize>,
) {
    let plane = table.input() * inner;
    for item in range {
        let (o, at) = (item / table.len(), item % table.len());
        // SAFETY: each item has its own run of the output.
        let y = unsafe { out.slice(item * inner..(item + 1) * inner) };
        blend(s, table, at, &x[o * plane..(o + 1) * plane], inner, y);
    }
}

/// `y = sum over taps of weight * x[index]` for the runs of `inner` elements in `x`.
#[inline(always)]
fn blend<S: Simd>(s: S, table: &AxisTable, at: usize, x: &[f32], inner: usize, y: &mut [f32]) {
    let (index, weight) = table.taps(at);
    let run = |k: usize| &x[index[k] as usize * inner..(index[k] as usize + 1) * inner];
    match index.len() {
        1 => y.copy_from_slice(run(0)),
        2 if index[0] == index[1] => y.copy_from_slice(run(0)),
        2 => {
            let (a, b) = (run(0), run(1));
            let (u, v) = (s.splat(weight[0]), s.splat(weight[1]));
            each(
                s,
                y,
                #[inline(always)]
                |i, n| {
                    // SAFETY: `each` gives positions inside y, which is as long as the runs.
                    unsafe {
                        let (p, q) = (a.as_ptr().add(i), b.as_ptr().add(i));
                        s.fma(u, s.load_n(p, n), s.mul(v, s.load_n(q, n)))
                    }
                },
            );
        }
        _ => {
            for k in 0..index.len() {
                let _ = run(k);
            }
            each(
                s,
                y,
                #[inline(always)]
                |i, n| {
                    let mut acc = s.zero();
                    for k in 0..index.len() {
                        // SAFETY: the runs were sliced above, and i is inside them.
                        let p = unsafe { x.as_ptr().add(index[k] as usize * inner + i) };
                        // SAFETY: n elements are left in the run.
                        acc = s.fma(s.splat(weight[k]), unsafe { s.load_n(p, n) }, acc);
                    }
                    acc
                },
            );
        }
    }
}

/// One row of bilinear interpolation: every pixel is the sum of its four neighbours times the products of their weights,
/// in reading order and rounded at each step. That is the order of the formula in ONNX's specification and of ONNX
/// Runtime; what is quantized afterwards would show another.
#[inline(always)]
fn bilinear_row<S: Simd>(
    s: S,
    (above, below): (&[f32], &[f32]),
    row_weight: [f32; 2],
    columns: &AxisTable,
    channels: usize,
    y: &mut [f32],
) {
    for (at, y) in y.chunks_exact_mut(channels).enumerate() {
        let (index, weight) = columns.taps(at);
        let pixel = |line: &[f32], k: usize| {
            let from = index[k] as usize * channels;
            line[from..from + channels].as_ptr()
        };
        let from = [pixel(above, 0), pixel(above, 1), pixel(below, 0), pixel(below, 1)];
        let column_weight = shared(index, weight);
        let mut weights = [s.zero(); 4];
        for (k, weight) in weights.iter_mut().enumerate() {
            *weight = s.splat(column_weight[k % 2] * row_weight[k / 2]);
        }
        each(
            s,
            y,
            #[inline(always)]
            |i, n| {
                let mut sum = s.zero();
                for (k, weight) in weights.iter().enumerate() {
                    // SAFETY: `each` gives positions inside y, which is as long as each of the pixels.
                    let product = s.mul(*weight, unsafe { s.load_n(from[k].add(i), n) });
                    sum = if k == 0 { product } else { s.add(sum, product) };
                }
                sum
            },
        );
    }
}

/// Weights of two taps; where both are the same element it is taken by halves.
fn shared(index: &[u32], weight: &[f32]) -> [f32; 2] {
    if index[0] == index[1] { [0.5; 2] } else { [weight[0], weight[1]] }
}

#[inline(always)]
fn each<S: Simd>(s: S, y: &mut [f32], f: impl Fn(usize, usize) -> S::F) {
    let mut i = 0;
    while i + S::LEN <= y.len() {
        let v = f(i, S::LEN);
        s.store_slice(&mut y[i..], v);
        i += S::LEN;
    }
    let n = y.len() - i;
    if n > 0 {
        let v = f(i, n);
        // SAFETY: n elements are left.
        unsafe { s.store_n(y.as_mut_ptr().add(i), v, n) };
    }
}

/// Floats of scratch that [`resize_image`] needs per thread.
#[must_use]
pub fn scratch_len(columns: &AxisTable, channels: usize) -> usize {
    columns.input() * channels
}

#[inline(always)]
fn image_body<S: Simd>(
    s: S,
    rows: &AxisTable,
    columns: &AxisTable,
    channels: usize,
    x: &[f32],
    scratch: &mut [f32],
    out: &Out<'_, f32>,
    range: Range<usize>,
) {
    let width = columns.input() * channels;
    let plane = rows.input() * width;
    let out_width = columns.len() * channels;
    for item in range {
        let (n, at) = (item / rows.len(), item % rows.len());
        let image = &x[n * plane..(n + 1) * plane];
        // SAFETY: each item has its own row of the output.
        let y = unsafe { out.slice(item * out_width..(item + 1) * out_width) };
        let (index, weight) = rows.taps(at);
        if channels > 0 && index.len() == 2 && !columns.is_empty() && columns.taps(0).0.len() == 2 {
            let line = |k: usize| &image[index[k] as usize * width..][..width];
            let lines = (line(0), line(1));
            bilinear_row(s, lines, shared(index, weight), columns, channels, y);
            continue;
        }
        let line = if index.len() == 1 {
            &image[index[0] as usize * width..(index[0] as usize + 1) * width]
        } else {
            blend(s, rows, at, image, width, &mut scratch[..width]);
            &scratch[..width]
        };
        if channels == 0 {
            continue;
        }
        for (o, y) in y.chunks_exact_mut(channels).enumerate() {
            blend(s, columns, o, line, channels, y);
        }
    }
}

instantiate! {
    /// Resizes the middle axis of `x: [outer, axis, inner]` into `[outer, table.len(), inner]`.
    /// Items are (outer, output position) pairs, `outer * table.len()` of them.
    ///
    /// # Panics
    /// If a slice is shorter than its shape.
    pub fn resize_axis(
        table: &AxisTable, inner: usize, x: &[f32], out: &Out<'_, f32>, range: Range<usize>,
    ) = axis_body;

    /// Resizes `x: [n, height, width, channels]` into `[n, rows.len(), columns.len(), channels]`:
    /// rows are blended into `scratch` ([`scratch_len`]), then its pixels. Items are output
    /// rows, `n * rows.len()` of them.
    ///
    /// # Panics
    /// If a slice is shorter than its shape.
    pub fn resize_image(
        rows: &AxisTable, columns: &AxisTable, channels: usize, x: &[f32], scratch: &mut [f32],
        out: &Out<'_, f32>, range: Range<usize>,
    ) = image_body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, values};
    use crate::simd::Isa;

    #[test]
    fn image_is_the_separable_sum() {
        let kinds = [
            Interpolation::Nearest(NearestRounding::RoundPreferFloor),
            Interpolation::Linear,
            Interpolation::Cubic { a: -0.75 },
        ];
        let sizes = [(4, 5, 8, 10), (7, 3, 3, 9), (1, 1, 4, 2), (5, 6, 5, 6), (3, 3, 0, 4)];
        for isa in Isa::available() {
            for kind in kinds {
                for (h, w, oh, ow) in sizes {
                    for c in [1, 3, 16, 37] {
                        let table = |i: usize, o: usize| {
                            let options = AxisOptions {
                                scale: o as f64 / i as f64,
                                coordinates: Coordinates::HalfPixel,
                                interpolation: kind,
                                exclude_outside: false,
                                antialias: false,
                            };
                            AxisTable::new(i, o, &options)
                        };
                        let rows = table(h, oh).expect("ok");
                        let cols = table(w, ow).expect("ok");
                        let x = values(2 * h * w * c, 4);
                        let mut y = vec![f32::NAN; 2 * oh * ow * c];
                        let mut scratch = vec![0.0; scratch_len(&cols, c)];
                        let out = Out::new(&mut y);
                        let items = 2 * oh;
                        resize_image(isa, &rows, &cols, c, &x, &mut scratch, &out, 0..items / 2);
                        resize_image(
                            isa,
                            &rows,
                            &cols,
                            c,
                            &x,
                            &mut scratch,
                            &out,
                            items / 2..items,
                        );
                        let mut e = vec![];
                        for n in 0..2 {
                            for i in 0..oh {
                                for j in 0..ow {
                                    for ch in 0..c {
                                        let (ri, rw) = rows.taps(i);
                                        let (ci, cw) = cols.taps(j);
                                        let mut sum = 0.0;
                                        for a in 0..ri.len() {
                                            for b in 0..ci.len() {
                                                let at =
                                                    (n * h + ri[a] as usize) * w + ci[b] as usize;
                                                sum += f64::from(rw[a])
                                                    * f64::from(cw[b])
                                                    * f64::from(x[at * c + ch]);
                                            }
                                        }
                                        e.push(sum);
                                    }
                                }
                            }
                        }
                        assert_close(
                            &y,
                            &e,
                            1e-5,
                            &format!("{isa} {kind:?} {h}x{w} {oh}x{ow} {c}"),
                        );
                        if kind == Interpolation::Linear && oh > 0 {
                            let mut mid = vec![0.0; 2 * oh * w * c];
                            let mut z = vec![0.0; 2 * oh * ow * c];
                            resize_axis(isa, &rows, w * c, &x, &Out::new(&mut mid), 0..2 * oh);
                            let out = Out::new(&mut z);
                            resize_axis(isa, &cols, c, &mid, &out, 0..2 * oh * ow);
                            assert_close(
                                &z,
                                &e,
                                1e-5,
                                &format!("{isa} axes {h}x{w} {oh}x{ow} {c}"),
                            );
                        }
                    }
                }
            }
        }
    }
}
