//! Largest bytes of windows, channels last.
#![allow(unsafe_code, reason = "compiled per instruction set")]

use std::ops::Range;

use crate::kernels::out::Out;
use crate::kernels::pooling::Window;
use crate::simd::lanes::{Simd, instantiate};

instantiate! {
    /// The largest element of each window of `x: [n, depth, height, width, channels]` into `out`, rows `range` of
    /// [`Window::items`], as u8 and as i8. A window without taps gives the least value.
    ///
    /// # Panics
    /// If a slice is shorter than the geometry needs.
    pub(crate) fn max_pool_u8(
        window: &Window, channels: usize, x: &[u8], out: &Out<'_, u8>, range: Range<usize>,
    ) = body;
    /// The same of i8.
    pub(crate) fn max_pool_i8(
        window: &Window, channels: usize, x: &[i8], out: &Out<'_, i8>, range: Range<usize>,
    ) = body;
}

/// Bytes with a least value.
trait Byte: Copy + Ord {
    const LEAST: Self;
}

impl Byte for u8 {
    const LEAST: Self = Self::MIN;
}

impl Byte for i8 {
    const LEAST: Self = Self::MIN;
}

#[inline(always)]
fn body<S: Simd, T: Byte>(
    _: S,
    window: &Window,
    channels: usize,
    x: &[T],
    out: &Out<'_, T>,
    range: Range<usize>,
) {
    let [od, oh, ow] = window.output;
    let [id, ih, iw] = window.input;
    for row in range {
        let (image, z, y) = (row / (od * oh), row / oh % od, row % oh);
        let (taps_z, taps_y) = (window.taps(0, z).0, window.taps(1, y).0);
        // SAFETY: a row belongs to one item, and items are given to one thread.
        let line = unsafe { out.slice(row * ow * channels..(row + 1) * ow * channels) };
        line.fill(T::LEAST);
        for o in 0..ow {
            let best = &mut line[o * channels..(o + 1) * channels];
            let at = |axis: usize, o: usize, k: usize| {
                o * window.stride[axis] + k * window.dilation[axis] - window.pads_begin[axis]
            };
            for kz in taps_z.clone() {
                for ky in taps_y.clone() {
                    for kx in window.taps(2, o).0 {
                        let pixel = (image * id + at(0, z, kz)) * ih + at(1, y, ky);
                        let pixel = pixel * iw + at(2, o, kx);
                        let source = &x[pixel * channels..(pixel + 1) * channels];
                        for (b, v) in best.iter_mut().zip(source) {
                            *b = (*b).max(*v);
                        }
                    }
                }
            }
        }
    }
}
