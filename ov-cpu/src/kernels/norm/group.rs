//! Group normalisation, channels last; instance normalisation is a group per channel.
#![allow(unsafe_code, reason = "vector loads and stores at computed offsets")]

use std::fmt;
use std::ops::Range;

use crate::kernels::out::Out;
use crate::simd::lanes::{Simd, instantiate};

/// Normalisation over the pixels and the channels of each group.
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm<'a> {
    /// Pixels of an image.
    pub pixels: usize,
    /// Channels of an image.
    pub channels: usize,
    /// Groups, a divisor of the channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Factors per channel, or none.
    pub scale: Option<&'a [f32]>,
    /// Addends per channel, or none.
    pub bias: Option<&'a [f32]>,
}

/// Channels that an item takes at least, where groups are small.
const BLOCK: usize = 64;

/// Pixels after which partial sums are put aside, to bound rounding errors.
const STRIP: usize = 128;

impl GroupNorm<'_> {
    fn group(&self) -> usize {
        self.channels / self.groups.max(1)
    }

    /// Channels of an item: whole groups.
    fn block(&self) -> usize {
        let group = self.group().max(1);
        (BLOCK.div_ceil(group) * group).min(self.channels.max(1))
    }

    /// Work items of a batch of `n`: blocks of whole groups.
    #[must_use]
    pub fn items(&self, n: usize) -> usize {
        n * self.channels.div_ceil(self.block())
    }

    /// Floats of scratch per thread.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        2 * self.block()
    }

    /// The pixels that thread `part` of `parts` takes in [`group_norm_shared_f32`].
    fn part(&self, part: usize, parts: usize) -> Range<usize> {
        self.pixels * part / parts..self.pixels * (part + 1) / parts
    }

    /// From sums of squared differences per channel and means per channel, of whole groups from channel `first` on, to a
    /// factor and an addend per channel.
    fn coefficients(&self, first: usize, squares: &mut [f32], means: &mut [f32]) {
        let group = self.group();
        let count = (self.pixels * group) as f32;
        let groups = squares.chunks_mut(group).zip(means.chunks_mut(group));
        for (g, (a, b)) in groups.enumerate() {
            let inverse = 1.0 / (a.iter().sum::<f32>() / count + self.eps).sqrt();
            for (i, (a, b)) in a.iter_mut().zip(b).enumerate() {
                let c = first + g * group + i;
                *a = inverse * self.scale.map_or(1.0, |s| s[c]);
                *b = self.bias.map_or(0.0, |b| b[c]) - *b * *a;
            }
        }
    }
}

/// `total[c] = sum over pixels of (x - shift[c])`, or of its square.
///
/// # Safety
/// Every pixel, `stride` elements apart from `x`, must have `total.len()` channels.
#[inline(always)]
unsafe fn sums<S: Simd, const SQUARE: bool>(
    s: S,
    x: *const f32,
    pixels: usize,
    stride: usize,
    shift: &[f32],
    total: &mut [f32],
) {
    let mut c = 0;
    while c < total.len() {
        let n = S::LEN.min(total.len() - c);
        // SAFETY: channels c..c + n exist in every pixel and in both slices of equal length.
        unsafe {
            let m = s.load_n(shift[c..c + n].as_ptr(), n);
            let mut all = s.zero();
            let mut p = 0;
            while p < pixels {
                let end = pixels.min(p + STRIP);
                let mut acc = [s.zero(); 2];
                for p in p..end {
                    let v = x.add(p * stride + c);
                    let v = if n == S::LEN { s.load(v) } else { s.load_n(v, n) };
                    let d = if SQUARE { s.sub(v, m) } else { v };
                    let a = &mut acc[p & 1];
                    *a = if SQUARE { s.fma(d, d, *a) } else { s.add(*a, d) };
                }
                all = s.add(all, s.add(acc[0], acc[1]));
                p = end;
            }
            s.store_n(total[c..c + n].as_mut_ptr(), all, n);
        }
        c += n;
    }
}

#[inline(always)]
fn body<S: Simd>(
    s: S,
    norm: &GroupNorm<'_>,
    x: &[f32],
    scratch: &mut [f32],
    out: &Out<'_, f32>,
    range: Range<usize>,
) {
    let (pixels, channels, group) = (norm.pixels, norm.channels, norm.group());
    if pixels == 0 || group == 0 {
        return;
    }
    let block = norm.block();
    let blocks = channels.div_ceil(block);
    for item in range {
        let (image, first) = (item / blocks, item % blocks * block);
        let width = block.min(channels - first);
        let plane = image * pixels * channels..(image + 1) * pixels * channels;
        let x = x[plane.clone()].as_ptr();
        let y = out.at(plane.start, pixels * channels);
        let (a, rest) = scratch.split_at_mut(width);
        let b = &mut rest[..width];
        let count = (pixels * group) as f32;
        b.fill(0.0);
        // SAFETY: channels first..first + width exist in every pixel of the image.
        unsafe {
            let x = x.add(first);
            sums::<S, false>(s, x, pixels, channels, b, a);
            for (a, b) in a.chunks_mut(group).zip(b.chunks_mut(group)) {
                b.fill(a.iter().sum::<f32>() / count);
            }
            sums::<S, true>(s, x, pixels, channels, b, a);
        }
        norm.coefficients(first, a, b);
        // SAFETY: channels first..first + width exist in every pixel of the image; the item's channels of the output are
        // its own.
        unsafe { apply(s, x.add(first), y.add(first), pixels, channels, a, b) };
    }
}

/// `y[c] = x[c] * scale[c] + shift[c]` for every pixel.
///
/// # Safety
/// Every pixel, `stride` elements apart from `x` and `y`, must have `scale.len()` channels.
#[inline(always)]
unsafe fn apply<S: Simd>(
    s: S,
    x: *const f32,
    y: *mut f32,
    pixels: usize,
    stride: usize,
    scale: &[f32],
    shift: &[f32],
) {
    for p in 0..pixels {
        let mut c = 0;
        while c < scale.len() {
            let n = S::LEN.min(scale.len() - c);
            // SAFETY: as the caller promises; both slices have the same length.
            unsafe {
                let at = p * stride + c;
                let (k, m) = (s.load_n(scale[c..].as_ptr(), n), s.load_n(shift[c..].as_ptr(), n));
                s.store_n(y.add(at), s.fma(s.load_n(x.add(at), n), k, m), n);
            }
            c += n;
        }
    }
}

/// Replaces this thread's sums per channel with those of all threads, which meet in `wait`; each puts its own into the
/// output's pixel `row` after the first of its part. False when `wait` gives false.
#[inline(always)]
fn exchange<S: Simd>(
    s: S,
    norm: &GroupNorm<'_>,
    share: &Share<'_>,
    plane: usize,
    row: usize,
    sums: &mut [f32],
    out: &Out<'_, f32>,
) -> bool {
    if share.parts == 1 {
        return true;
    }
    let channels = norm.channels;
    let at = |part: usize| {
        let first = norm.part(part, share.parts).start;
        out.at(plane + (first + row) * channels, channels)
    };
    // SAFETY: a part has two pixels at least, which only its thread writes, and all channels of one fit.
    unsafe { sums.as_ptr().copy_to_nonoverlapping(at(share.part), channels) };
    if !(share.wait)() {
        return false;
    }
    sums.fill(0.0);
    for part in 0..share.parts {
        let from = at(part).cast_const();
        let mut c = 0;
        while c < channels {
            let n = S::LEN.min(channels - c);
            // SAFETY: as above; between two waits nobody writes this pixel.
            unsafe {
                let sum = s.add(s.load_n(sums[c..].as_ptr(), n), s.load_n(from.add(c), n));
                s.store_n(sums[c..].as_mut_ptr(), sum, n);
            }
            c += n;
        }
    }
    true
}

/// One of several threads that normalise the same images.
#[derive(Clone, Copy)]
pub struct Share<'a> {
    /// Which one.
    pub part: usize,
    /// Of how many.
    pub parts: usize,
    /// Returns when all have called it; false when one of them failed.
    pub wait: &'a dyn Fn() -> bool,
}

impl fmt::Debug for Share<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "part {} of {}", self.part, self.parts)
    }
}

#[inline(always)]
fn shared_body<S: Simd>(
    s: S,
    norm: &GroupNorm<'_>,
    x: &[f32],
    scratch: &mut [f32],
    out: &Out<'_, f32>,
    share: &Share<'_>,
) {
    let (pixels, channels, group) = (norm.pixels, norm.channels, norm.group());
    if pixels == 0 || group == 0 {
        return;
    }
    let (a, rest) = scratch.split_at_mut(channels);
    let b = &mut rest[..channels];
    let count = (pixels * group) as f32;
    let part = norm.part(share.part, share.parts);
    for (image, x) in x.chunks_exact(pixels * channels).enumerate() {
        let plane = image * pixels * channels;
        let x = x[part.start * channels..part.end * channels].as_ptr();
        // SAFETY: every pixel of the part has all channels.
        unsafe { sums::<S, false>(s, x, part.len(), channels, b, a) };
        if !exchange(s, norm, share, plane, 0, a, out) {
            return;
        }
        for (a, b) in a.chunks_mut(group).zip(b.chunks_mut(group)) {
            b.fill(a.iter().sum::<f32>() / count);
        }
        // SAFETY: as above.
        unsafe { sums::<S, true>(s, x, part.len(), channels, b, a) };
        // The second wait: nobody reads sums in the output any more.
        if !exchange(s, norm, share, plane, 1, a, out) || !(share.parts == 1 || (share.wait)()) {
            return;
        }
        norm.coefficients(0, a, b);
        let y = out.at(plane + part.start * channels, part.len() * channels);
        // SAFETY: as above; the pixels of the part are this thread's.
        unsafe { apply(s, x, y, part.len(), channels, a, b) };
    }
}

instantiate! {
    /// Normalises `x: [n, pixels, channels]` into `out`, items `range` of [`GroupNorm::items`].
    ///
    /// # Panics
    /// If a slice is shorter than its shape or [`GroupNorm::scratch_len`].
    pub fn group_norm_f32(
        norm: &GroupNorm<'_>, x: &[f32], scratch: &mut [f32], out: &Out<'_, f32>,
        range: Range<usize>,
    ) = body;

    /// [`group_norm_f32`] of all images by several threads at once, each of which takes a part of the pixels: for few
    /// groups. A part has two pixels at least, `scratch` twice the channels.
    ///
    /// # Panics
    /// If a slice is shorter than its shape.
    pub fn group_norm_shared_f32(
        norm: &GroupNorm<'_>, x: &[f32], scratch: &mut [f32], out: &Out<'_, f32>, share: &Share<'_>,
    ) = shared_body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, values};
    use crate::simd::Isa;

    #[test]
    fn matches_reference() {
        let table = [
            (9, 32, 8),
            (200, 6, 6),
            (5, 130, 130),
            (300, 96, 1),
            (1, 24, 2),
            (0, 8, 2),
            (7, 0, 1),
            (3, 70, 7),
        ];
        for isa in Isa::available() {
            for (pixels, channels, groups) in table {
                let x: Vec<f32> =
                    values(2 * pixels * channels, 1).iter().map(|x| x * 3.0 + 5.0).collect();
                let (scale, bias) = (values(channels, 2), values(channels, 3));
                for with in [false, true] {
                    let norm = GroupNorm {
                        pixels,
                        channels,
                        groups,
                        eps: 1e-4,
                        scale: with.then_some(&scale[..]),
                        bias: with.then_some(&bias[..]),
                    };
                    let mut y = vec![9.0; x.len()];
                    let (out, items) = (Out::new(&mut y), norm.items(2));
                    let mut scratch = vec![f32::NAN; norm.scratch_len()];
                    group_norm_f32(isa, &norm, &x, &mut scratch, &out, 0..items / 2);
                    group_norm_f32(isa, &norm, &x, &mut scratch, &out, items / 2..items);
                    let whole = y.clone();
                    for parts in 1..=3usize.min(pixels / 2).max(1) {
                        y.fill(9.0);
                        let (start, len) = (y.as_mut_ptr() as usize, y.len());
                        let barrier = std::sync::Barrier::new(parts);
                        std::thread::scope(|scope| {
                            for part in 0..parts {
                                let (norm, x, barrier) = (&norm, &x, &barrier);
                                scope.spawn(move || {
                                    // SAFETY: `y` outlives the threads, which write disjoint parts of it.
                                    let out =
                                        unsafe { Out::from_raw_parts(start as *mut f32, len) };
                                    let wait = || {
                                        barrier.wait();
                                        true
                                    };
                                    let share = Share { part, parts, wait: &wait };
                                    let mut scratch = vec![f32::NAN; 2 * channels];
                                    group_norm_shared_f32(isa, norm, x, &mut scratch, &out, &share);
                                });
                            }
                        });
                        let what = format!("{isa} {pixels} {channels} {groups} by {parts}");
                        let whole: Vec<f64> = whole.iter().map(|v| f64::from(*v)).collect();
                        assert_close(&y, &whole, 3e-5, &what);
                    }
                    let group = channels / groups;
                    let mut e = vec![0.0; x.len()];
                    for image in 0..2 {
                        for g in 0..groups {
                            let at = |p: usize, i: usize| {
                                (image * pixels + p) * channels + g * group + i
                            };
                            let all =
                                || (0..pixels).flat_map(|p| (0..group).map(move |i| at(p, i)));
                            let n = (pixels * group) as f64;
                            let mean = all().map(|i| f64::from(x[i])).sum::<f64>() / n;
                            let var =
                                all().map(|i| (f64::from(x[i]) - mean).powi(2)).sum::<f64>() / n;
                            for i in all() {
                                let c = i % channels;
                                let t = (f64::from(x[i]) - mean) / (var + 1e-4).sqrt();
                                e[i] = if with {
                                    t * f64::from(scale[c]) + f64::from(bias[c])
                                } else {
                                    t
                                };
                            }
                        }
                    }
                    assert_close(&y, &e, 3e-5, &format!("{isa} {pixels} {channels} {groups}"));
                }
            }
        }
    }
}
