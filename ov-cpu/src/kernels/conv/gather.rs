//! Turning lines of a planar input channels-last.
#![allow(unsafe_code, reason = "reads planes through raw pointers")]

use crate::simd::lanes::{Simd, instantiate};

/// A planar input, from the first channel of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    pub(crate) base: *const f32,
    /// Channels of the group.
    pub(crate) channels: usize,
    /// Elements from one channel to the next: lines of all depths.
    pub(crate) plane: usize,
    /// Elements from one image to the next.
    pub(crate) image_stride: usize,
    /// Elements of a line.
    pub(crate) width: usize,
}

instantiate! {
    /// Writes `[width, channels]` of each of the `lines` from `first`, counted over all images, to `out`.
    ///
    /// The input must cover the lines; `out` has their elements.
    pub(crate) fn interleave(x: &Planes, first: usize, lines: usize, out: &mut [f32]) = interleave_body;
}

#[inline(always)]
fn interleave_body<S: Simd>(_: S, x: &Planes, first: usize, lines: usize, out: &mut [f32]) {
    let per_image = x.plane / x.width.max(1);
    let line_len = x.width * x.channels;
    for (i, out) in out[..lines * line_len].chunks_exact_mut(line_len.max(1)).enumerate() {
        let (image, line) = ((first + i) / per_image, (first + i) % per_image);
        let source = |c: usize| {
            let at = image * x.image_stride + c * x.plane + line * x.width;
            // SAFETY: the input covers the line in every channel, by the caller.
            unsafe { std::slice::from_raw_parts(x.base.add(at), x.width) }
        };
        match x.channels {
            1 => out.copy_from_slice(source(0)),
            3 => {
                let planes = source(0).iter().zip(source(1)).zip(source(2));
                for (pixel, ((r, g), b)) in out.as_chunks_mut::<3>().0.iter_mut().zip(planes) {
                    *pixel = [*r, *g, *b];
                }
            }
            4 => {
                let planes = source(0).iter().zip(source(1)).zip(source(2)).zip(source(3));
                for (pixel, (((r, g), b), a)) in out.as_chunks_mut::<4>().0.iter_mut().zip(planes) {
                    *pixel = [*r, *g, *b, *a];
                }
            }
            channels => {
                for c in 0..channels {
                    for (pixel, v) in out.chunks_exact_mut(channels).zip(source(c)) {
                        pixel[c] = *v;
                    }
                }
            }
        }
    }
}
