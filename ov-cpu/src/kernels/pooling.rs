//! Max and average pooling, channels last, one to three spatial dimensions.
#![allow(unsafe_code, reason = "vector loads and stores at computed offsets")]

use std::ops::Range;

use crate::kernels::out::Out;
use crate::simd::lanes::{Simd, instantiate};

/// Geometry of a window that slides over `[depth, height, width]`; leading dimensions that a
/// model lacks have input, output, kernel, stride and dilation 1 and pads 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Spatial input size.
    pub input: [usize; 3],
    /// Spatial output size; ceil mode is a larger output.
    pub output: [usize; 3],
    /// Taps.
    pub kernel: [usize; 3],
    /// Step between windows.
    pub stride: [usize; 3],
    /// Step between taps.
    pub dilation: [usize; 3],
    /// Padding before the input.
    pub pads_begin: [usize; 3],
    /// Padding after the input.
    pub pads_end: [usize; 3],
}

impl Window {
    /// The taps along `axis` that read inside the input for output `o`, and how many read
    /// inside the padded input.
    #[inline(always)]
    #[must_use]
    pub fn taps(&self, axis: usize, o: usize) -> (Range<usize>, usize) {
        let (begin, dilation) = (self.pads_begin[axis], self.dilation[axis]);
        let start = o * self.stride[axis];
        let before = |limit: usize| limit.saturating_sub(start).div_ceil(dilation);
        let last = before(self.input[axis] + begin).min(self.kernel[axis]);
        let first = before(begin).min(last);
        let padded = before(self.input[axis] + begin + self.pads_end[axis]).min(self.kernel[axis]);
        (first..last, padded)
    }

    /// Work items of a batch of `n`: rows of output pixels.
    #[must_use]
    pub fn items(&self, n: usize) -> usize {
        n * self.output[0] * self.output[1]
    }
}

/// What is computed of the taps in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// The largest.
    Max,
    /// The mean over the taps inside the input.
    Average,
    /// The mean over the taps inside the padded input, padding being zero.
    AverageWithPad,
}

#[inline(always)]
fn pixel<S: Simd, const V: usize, const MAX: bool>(
    s: S,
    window: &Window,
    taps: &[Range<usize>; 3],
    origin: [usize; 3],
    x: *const f32,
    channels: usize,
    tail: usize,
    scale: f32,
    y: *mut f32,
) {
    let mut acc = [s.splat(if MAX { f32::NEG_INFINITY } else { 0.0 }); V];
    let at =
        |axis: usize, k: usize| origin[axis] + k * window.dilation[axis] - window.pads_begin[axis];
    for kd in taps[0].clone() {
        for kh in taps[1].clone() {
            let row = (at(0, kd) * window.input[1] + at(1, kh)) * window.input[2];
            for kw in taps[2].clone() {
                let offset = (row + at(2, kw)) * channels;
                for v in 0..V {
                    // SAFETY: taps lie in the input, whose length the caller checked; the
                    // last vector of a pixel is cut to `tail` channels.
                    let a = unsafe {
                        let p = x.add(offset + v * S::LEN);
                        if tail == 0 { s.load(p) } else { s.load_n(p, tail) }
                    };
                    acc[v] = if MAX { s.max(acc[v], a) } else { s.add(acc[v], a) };
                }
            }
        }
    }
    for v in 0..V {
        let r = if MAX { acc[v] } else { s.mul(acc[v], s.splat(scale)) };
        // SAFETY: as for the loads, in the output row that the caller checked.
        unsafe {
            let p = y.add(v * S::LEN);
            if tail == 0 { s.store(p, r) } else { s.store_n(p, r, tail) }
        }
    }
}

#[inline(always)]
fn rows<S: Simd, const MAX: bool>(
    s: S,
    kind: PoolKind,
    window: &Window,
    channels: usize,
    x: &[f32],
    out: &Out<'_, f32>,
    range: Range<usize>,
) {
    let plane = window.input.iter().product::<usize>() * channels;
    let ow = window.output[2];
    for item in range {
        let oh = item % window.output[1];
        let od = item / window.output[1] % window.output[0];
        let n = item / (window.output[1] * window.output[0]);
        let image = &x[n * plane..(n + 1) * plane];
        let y = out.at(item * ow * channels, ow * channels);
        let (taps_d, pad_d) = window.taps(0, od);
        let (taps_h, pad_h) = window.taps(1, oh);
        for o in 0..ow {
            let (taps_w, pad_w) = window.taps(2, o);
            let inside = taps_d.len() * taps_h.len() * taps_w.len();
            let count = match kind {
                PoolKind::AverageWithPad => pad_d * pad_h * pad_w,
                _ => inside,
            };
            let scale = if count == 0 { 0.0 } else { 1.0 / count as f32 };
            let taps = [taps_d.clone(), taps_h.clone(), taps_w];
            let origin = [od * window.stride[0], oh * window.stride[1], o * window.stride[2]];
            let mut c = 0;
            while c < channels {
                let rest = channels - c;
                // SAFETY: c is below the channels of a pixel of the image and of the row.
                let (xc, yc) = unsafe { (image.as_ptr().add(c), y.add(o * channels + c)) };
                if rest >= 4 * S::LEN {
                    pixel::<S, 4, MAX>(s, window, &taps, origin, xc, channels, 0, scale, yc);
                    c += 4 * S::LEN;
                } else if rest >= S::LEN {
                    pixel::<S, 1, MAX>(s, window, &taps, origin, xc, channels, 0, scale, yc);
                    c += S::LEN;
                } else {
                    pixel::<S, 1, MAX>(s, window, &taps, origin, xc, channels, rest, scale, yc);
                    c = channels;
                }
            }
        }
    }
}

#[inline(always)]
fn body<S: Simd>(
    s: S,
    kind: PoolKind,
    window: &Window,
    channels: usize,
    x: &[f32],
    out: &Out<'_, f32>,
    range: Range<usize>,
) {
    match kind {
        PoolKind::Max => rows::<S, true>(s, kind, window, channels, x, out, range),
        _ => rows::<S, false>(s, kind, window, channels, x, out, range),
    }
}

instantiate! {
    /// Pools `x: [n, depth, height, width, channels]` into `out`, rows `range` of
    /// [`Window::items`]. A window without taps gives -inf for max and 0 for averages.
    ///
    /// # Panics
    /// If a slice is shorter than the geometry needs.
    pub fn pool_f32(
        kind: PoolKind, window: &Window, channels: usize, x: &[f32], out: &Out<'_, f32>,
        range: Range<usize>,
    ) = body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, values};
    use crate::simd::Isa;

    fn reference(kind: PoolKind, w: &Window, n: usize, c: usize, x: &[f32]) -> Vec<f64> {
        let mut y = vec![];
        let [d, h, wd] = w.input;
        for b in 0..n {
            for o0 in 0..w.output[0] {
                for o1 in 0..w.output[1] {
                    for o2 in 0..w.output[2] {
                        for ch in 0..c {
                            let (mut m, mut sum, mut count, mut padded) =
                                (f64::NEG_INFINITY, 0.0, 0, 0);
                            for k0 in 0..w.kernel[0] {
                                for k1 in 0..w.kernel[1] {
                                    for k2 in 0..w.kernel[2] {
                                        let p: Vec<isize> = [(o0, k0), (o1, k1), (o2, k2)]
                                            .iter()
                                            .enumerate()
                                            .map(|(a, (o, k))| {
                                                (o * w.stride[a] + k * w.dilation[a]) as isize
                                                    - w.pads_begin[a] as isize
                                            })
                                            .collect();
                                        padded +=
                                            usize::from((0..3).all(|a| {
                                                p[a] < (w.input[a] + w.pads_end[a]) as isize
                                            }));
                                        if (0..3).all(|a| p[a] >= 0 && p[a] < w.input[a] as isize) {
                                            let i = ((b * d + p[0] as usize) * h + p[1] as usize)
                                                * wd
                                                + p[2] as usize;
                                            let v = f64::from(x[i * c + ch]);
                                            m = m.max(v);
                                            sum += v;
                                            count += 1;
                                        }
                                    }
                                }
                            }
                            y.push(match kind {
                                PoolKind::Max => m,
                                PoolKind::Average => sum / f64::from(count.max(1)),
                                PoolKind::AverageWithPad => sum / padded.max(1) as f64,
                            });
                        }
                    }
                }
            }
        }
        y
    }

    #[test]
    fn matches_reference() {
        let flat = |h: usize, w: usize, oh, ow, k, s, p, e, d| Window {
            input: [1, h, w],
            output: [1, oh, ow],
            kernel: [1, k, k],
            stride: [1, s, s],
            dilation: [1, d, d],
            pads_begin: [0, p, p],
            pads_end: [0, e, e],
        };
        let table = [
            (flat(7, 9, 4, 5, 3, 2, 1, 1, 1), 3),
            (flat(8, 8, 4, 4, 3, 2, 0, 0, 1), 16),
            (flat(13, 13, 13, 13, 5, 1, 2, 2, 1), 67),
            (flat(9, 7, 5, 3, 3, 1, 0, 0, 2), 130),
            (flat(1, 1, 1, 1, 1, 1, 0, 0, 1), 1),
            (flat(5, 5, 0, 3, 3, 1, 0, 0, 1), 4),
            (
                Window {
                    input: [4, 5, 6],
                    output: [2, 3, 3],
                    kernel: [2, 3, 2],
                    stride: [2, 2, 2],
                    dilation: [1, 1, 1],
                    pads_begin: [0, 1, 0],
                    pads_end: [0, 1, 0],
                },
                19,
            ),
        ];
        for isa in Isa::available() {
            for (w, c) in table {
                for kind in [PoolKind::Max, PoolKind::Average, PoolKind::AverageWithPad] {
                    let x = values(2 * w.input.iter().product::<usize>() * c, 5);
                    let mut y = vec![f32::NAN; 2 * w.output.iter().product::<usize>() * c];
                    let (items, out) = (w.items(2), Out::new(&mut y));
                    pool_f32(isa, kind, &w, c, &x, &out, 0..items / 2);
                    pool_f32(isa, kind, &w, c, &x, &out, items / 2..items);
                    let e = reference(kind, &w, 2, c, &x);
                    assert_close(&y, &e, 1e-5, &format!("{isa} {kind:?} {w:?} {c}"));
                }
            }
        }
    }
}
