//! Depthwise convolution of bytes, channels last.
#![allow(unsafe_code, reason = "reads and writes through raw pointers")]

use std::ops::Range;

use crate::gemm::int8::{ByteFinish, Sums};
use crate::gemm::tile::{MAX_COLS, MAX_ROWS};
use crate::kernels::conv::ConvParams;
use crate::simd::Isa;
use crate::simd::bytes::Bytes;
use crate::simd::lanes::instantiate;

/// A depthwise convolution bound to its sizes: one filter per channel, weights `[taps][channels]` as f32 less their
/// zero points. Products and sums are integers below 2²⁴ and so exact in f32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteDepthwise {
    isa: Isa,
    p: ConvParams,
    signed: bool,
}

/// Most taps whose sums stay exact: differences of bytes are at most 255.
const MAX_TAPS: usize = (1 << 24) / (255 * 255);

impl ByteDepthwise {
    /// Binds a convolution with as many groups and outputs as channels; `None` if sums may not be exact.
    pub(crate) fn new(isa: Isa, p: &ConvParams, signed: bool) -> Option<Self> {
        Self::fits(p.taps()).then_some(Self { isa, p: *p, signed })
    }

    /// Whether sums over this many taps are exact.
    pub(crate) fn fits(taps: usize) -> bool {
        taps <= MAX_TAPS
    }

    /// Work items: rows of the output.
    pub(crate) fn work_items(&self) -> usize {
        let [d, h, _] = self.p.output;
        self.p.batch * d * h
    }

    /// Computes the work `items`; sums are centred and floats, so `finish` needs neither column sums nor shifts, and its
    /// zero point of the rows is that of the bytes as they lie.
    ///
    /// # Safety
    /// The input must be readable and the pointers of `finish` valid for the sizes of the plan, and no other thread may
    /// access the output of the items meanwhile.
    ///
    /// # Panics
    /// If the weights are too short or `items` is out of bounds.
    pub(crate) unsafe fn run(
        &self,
        input: *const u8,
        weights: &[f32],
        finish: &ByteFinish,
        items: Range<usize>,
    ) {
        assert!(items.end <= self.work_items(), "work items {items:?} of {}", self.work_items());
        assert!(weights.len() >= self.p.taps() * self.p.channels, "weights are too short");
        for item in items {
            let part = Line { p: &self.p, signed: self.signed, input, weights, finish, item };
            line(self.isa, &part);
        }
    }
}

struct Line<'a> {
    p: &'a ConvParams,
    signed: bool,
    input: *const u8,
    weights: &'a [f32],
    finish: &'a ByteFinish,
    item: usize,
}

instantiate! {
    fn line(part: &Line<'_>) = line_body;
}

#[inline(always)]
fn line_body<S: Bytes>(s: S, t: &Line<'_>) {
    if t.signed {
        line_of::<S, true>(s, t);
    } else {
        line_of::<S, false>(s, t);
    }
}

/// Output pixels that are computed together.
const TOGETHER: usize = 4;

#[inline(always)]
fn line_of<S: Bytes, const SIGNED: bool>(s: S, t: &Line<'_>) {
    let p = t.p;
    let [d, h, w] = p.output;
    let (image, z, y) = (t.item / (d * h), t.item / h % d, t.item % h);
    let zero = s.splat(t.finish.row_zero as f32);
    let mut sums = Sums([0; MAX_ROWS * MAX_COLS]);
    let block = MAX_COLS / S::LEN * S::LEN;
    let mut c0 = 0;
    while c0 < p.channels {
        let columns = block.min(p.channels - c0);
        let mut x0 = 0;
        while x0 < w {
            let pixels = MAX_ROWS.min(w - x0);
            let mut j = 0;
            while j < columns {
                let n = S::LEN.min(columns - j);
                let mut r = 0;
                while r < pixels {
                    let count = TOGETHER.min(pixels - r);
                    let mut acc = [s.zero(); TOGETHER];
                    for kz in 0..p.kernel[0] {
                        let Some(iz) = inside(p, 0, z, kz) else { continue };
                        for ky in 0..p.kernel[1] {
                            let Some(iy) = inside(p, 1, y, ky) else { continue };
                            let line = ((image * p.input[0] + iz) * p.input[1] + iy) * p.input[2];
                            let tap = (kz * p.kernel[1] + ky) * p.kernel[2];
                            for kx in 0..p.kernel[2] {
                                let at = (tap + kx) * p.channels + c0 + j;
                                // SAFETY: the weights have an element for each tap and channel, as `run` checked, and
                                // pixels inside the input are readable by its caller.
                                unsafe {
                                    let weight = s.load_n(t.weights.as_ptr().add(at), n);
                                    for (i, acc) in acc.iter_mut().enumerate() {
                                        if i >= count {
                                            break;
                                        }
                                        let Some(ix) = inside(p, 2, x0 + r + i, kx) else {
                                            continue;
                                        };
                                        let at = (line + ix) * p.channels + c0 + j;
                                        let v = if SIGNED {
                                            s.load_i8(t.input.add(at).cast(), n)
                                        } else {
                                            s.load_u8(t.input.add(at), n)
                                        };
                                        *acc = s.fma(s.sub(v, zero), weight, *acc);
                                    }
                                }
                            }
                        }
                    }
                    for (i, acc) in acc.iter().enumerate().take(count) {
                        let at = (r + i) * MAX_COLS + j;
                        // SAFETY: the buffer has MAX_COLS columns for each of MAX_ROWS pixels, and a block of channels
                        // is whole vectors within it.
                        unsafe { s.store(sums.0.as_mut_ptr().add(at).cast(), *acc) };
                    }
                    r += count;
                }
                j += n;
            }
            let pixel = t.item * w + x0;
            // SAFETY: output, scale, bias and residual are valid for the pixels, by the caller of `run`.
            unsafe { t.finish.store(&sums, pixels, columns, pixel, c0, std::ptr::null()) };
            x0 += pixels;
        }
        c0 += columns;
    }
}

#[inline(always)]
fn inside(p: &ConvParams, d: usize, q: usize, k: usize) -> Option<usize> {
    let at = (q * p.stride[d] + k * p.dilation[d]).checked_sub(p.pad[d])?;
    (at < p.input[d]).then_some(at)
}
