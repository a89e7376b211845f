//! Copying the pixels under a kernel from a planar input to rows.
#![allow(unsafe_code, reason = "vector copies between raw pointers")]

use crate::simd::lanes::{Simd, instantiate};

use super::rows::Geometry;

/// A planar input, from the first channel of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    pub(crate) base: *const f32,
    /// Channels of the group.
    pub(crate) channels: usize,
    /// Elements from one image to the next.
    pub(crate) image_stride: usize,
}

instantiate! {
    /// Writes `[channels, taps]` of `height` output pixels from pixel `p` to `out`.
    ///
    /// The input must cover the geometry; `out` has `height * channels * taps` elements.
    pub(crate) fn gather(g: &Geometry, x: &Planes, p: usize, height: usize, out: &mut [f32]) = gather_body;
}

#[inline(always)]
fn gather_body<S: Simd>(s: S, g: &Geometry, x: &Planes, p: usize, height: usize, out: &mut [f32]) {
    let (taps, width) = (g.taps(), g.offsets[2].len());
    let [depth, rows, columns] = g.input;
    let plane = depth * rows * columns;
    let row_len = x.channels * taps;
    let dense = g.offsets[2].windows(2).all(|w| w[1] == w[0] + 1);
    let inside = |i: isize, n: usize| (i >= 0 && (i as usize) < n).then_some(i as usize);
    for r in 0..height {
        let (image, q) = g.position(p + r);
        let out = &mut out[r * row_len..(r + 1) * row_len];
        let start = |d: usize| (q[d] * g.stride[d]) as isize;
        let first = start(2) + g.offsets[2].first().copied().unwrap_or(0);
        let whole = dense && first >= 0 && first as usize + width <= columns;
        let mut at = 0;
        for c in 0..x.channels {
            for oz in &g.offsets[0] {
                let z = inside(start(0) + oz, depth);
                for oy in &g.offsets[1] {
                    let line = z.zip(inside(start(1) + oy, rows)).map(|(z, y)| {
                        let offset = image * x.image_stride + c * plane + (z * rows + y) * columns;
                        x.base.wrapping_add(offset)
                    });
                    let run = &mut out[at..at + width];
                    at += width;
                    match line {
                        None => run.fill(0.0),
                        Some(line) if whole => {
                            let mut j = 0;
                            while j < width {
                                let n = S::LEN.min(width - j);
                                // SAFETY: `whole` says that the line has `width` elements from
                                // `first`; `run` has `width` elements.
                                unsafe {
                                    let v = s.load_n(line.add(first as usize + j), n);
                                    s.store_n(run.as_mut_ptr().add(j), v, n);
                                }
                                j += n;
                            }
                        }
                        Some(line) => {
                            for (v, ox) in run.iter_mut().zip(&g.offsets[2]) {
                                // SAFETY: the element is inside the line.
                                *v = inside(start(2) + ox, columns)
                                    .map_or(0.0, |i| unsafe { *line.add(i) });
                            }
                        }
                    }
                }
            }
        }
    }
}
