//! Depthwise convolution of unsigned bytes with weights that fit s8: four taps at a time.
//!
//! The bytes of four taps are interleaved channel by channel, so that one dot product of four bytes takes them all.
#![allow(unsafe_code, reason = "intrinsics, and reads and writes through raw pointers")]

use std::ops::Range;

use crate::gemm::int8::ByteFinish;
use crate::kernels::conv::ConvParams;
use crate::simd::Isa;

/// Channels of a block.
const BLOCK: usize = 32;
/// Most taps of a filter.
const MAX_TAPS: usize = 64;

/// A depthwise convolution bound to its sizes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteQuads {
    isa: Isa,
    p: ConvParams,
}

/// Whether filters with this many taps are taken on `isa`.
pub(crate) fn fits(isa: Isa, taps: usize) -> bool {
    isa.has_avx2() && taps <= MAX_TAPS
}

/// Bytes of packed weights.
pub(crate) fn packed_len(channels: usize, taps: usize) -> usize {
    channels.div_ceil(BLOCK) * taps.div_ceil(4) * 4 * BLOCK
}

/// Packs `weight(channel, tap)` as `[block][four taps][16 channels in turn][4 taps]`, and the sum of each channel's.
pub(crate) fn pack(
    (channels, taps): (usize, usize),
    weight: impl Fn(usize, usize) -> i8,
    out: &mut [i8],
    sums: &mut [i32],
) {
    let quads = taps.div_ceil(4);
    out[..packed_len(channels, taps)].fill(0);
    for c in 0..channels {
        // Within a block, vector q holds channels 4 q to 4 q + 3 of each half of 16.
        let (block, within) = (c / BLOCK, c % BLOCK);
        let (half, vector, lane) = (within / 16, within % 16 / 4, within % 4);
        let mut sum = 0;
        for t in 0..taps {
            let at = ((block * quads + t / 4) * 4 + vector) * BLOCK + half * 16 + lane * 4 + t % 4;
            out[at] = weight(c, t);
            sum += i32::from(weight(c, t));
        }
        sums[c] = sum;
    }
}

impl ByteQuads {
    /// Binds a convolution with as many groups and outputs as channels; `None` where [`fits`] says no.
    pub(crate) fn new(isa: Isa, p: &ConvParams) -> Option<Self> {
        fits(isa, p.taps()).then_some(Self { isa, p: *p })
    }

    /// Work items: rows of the output.
    pub(crate) fn work_items(&self) -> usize {
        self.p.batch * self.p.output[0] * self.p.output[1]
    }

    /// Bytes of scratch per thread: a pixel of padding.
    pub(crate) fn scratch_len(&self) -> usize {
        self.p.channels.next_multiple_of(BLOCK)
    }

    /// Computes the work `items`. `finish` has the sums of the packed weights, and the zero point of the input.
    ///
    /// # Safety
    /// The input must be readable and the pointers of `finish` valid for the sizes of the plan, and no other thread may
    /// access the output of the items meanwhile.
    ///
    /// # Panics
    /// If the weights or the scratch are too short or `items` is out of bounds.
    pub(crate) unsafe fn run(
        &self,
        input: *const u8,
        weights: &[i8],
        finish: &ByteFinish,
        items: Range<usize>,
        scratch: &mut [u8],
    ) {
        let p = &self.p;
        assert!(items.end <= self.work_items(), "work items {items:?} of {}", self.work_items());
        assert!(weights.len() >= packed_len(p.channels, p.taps()), "weights are too short");
        let padding = &mut scratch[..self.scratch_len()];
        padding.fill(finish.row_zero as u8);
        #[cfg(target_arch = "x86_64")]
        for item in items {
            let line = x86::Line { p, input, weights, finish, padding, item };
            // SAFETY: passed on from the caller; the ISA token proves AVX2 and AVX-512, VNNI is asked for.
            unsafe {
                if self.isa.has_avx512() && is_x86_feature_detected!("avx512vnni") {
                    x86::line_vnni(&line);
                } else {
                    x86::line_avx2(&line);
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (input, items, self.isa);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64 as arch;

    use super::{BLOCK, ByteFinish, ConvParams, MAX_TAPS};
    use crate::gemm::int8::Sums;
    use crate::gemm::tile::{MAX_COLS, MAX_ROWS};

    pub(super) struct Line<'a> {
        pub(super) p: &'a ConvParams,
        pub(super) input: *const u8,
        pub(super) weights: &'a [i8],
        pub(super) finish: &'a ByteFinish,
        pub(super) padding: &'a [u8],
        pub(super) item: usize,
    }

    /// `sum + Σ x w` over groups of four bytes.
    trait Quad: Copy {
        /// # Safety
        /// The level must exist.
        unsafe fn dot(sum: arch::__m256i, x: arch::__m256i, w: arch::__m256i) -> arch::__m256i;
    }

    #[derive(Clone, Copy)]
    struct Vnni;
    #[derive(Clone, Copy)]
    struct Madd;

    impl Quad for Vnni {
        #[inline(always)]
        unsafe fn dot(sum: arch::__m256i, x: arch::__m256i, w: arch::__m256i) -> arch::__m256i {
            // SAFETY: the level exists, by the caller.
            unsafe { arch::_mm256_dpbusd_epi32(sum, x, w) }
        }
    }

    impl Quad for Madd {
        #[inline(always)]
        unsafe fn dot(sum: arch::__m256i, x: arch::__m256i, w: arch::__m256i) -> arch::__m256i {
            // SAFETY: the level exists, by the caller.
            unsafe {
                let low = arch::_mm256_set1_epi16(255);
                let w_even = arch::_mm256_srai_epi16::<8>(arch::_mm256_slli_epi16::<8>(w));
                let w_odd = arch::_mm256_srai_epi16::<8>(w);
                let even = arch::_mm256_madd_epi16(arch::_mm256_and_si256(x, low), w_even);
                let odd = arch::_mm256_madd_epi16(arch::_mm256_srli_epi16::<8>(x), w_odd);
                arch::_mm256_add_epi32(sum, arch::_mm256_add_epi32(even, odd))
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
    pub(super) unsafe fn line_vnni(t: &Line<'_>) {
        // SAFETY: passed on from the caller.
        unsafe { body::<Vnni>(t) }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn line_avx2(t: &Line<'_>) {
        // SAFETY: passed on from the caller.
        unsafe { body::<Madd>(t) }
    }

    #[inline(always)]
    unsafe fn load(p: *const u8, n: usize) -> arch::__m256i {
        // SAFETY: the caller gives n readable bytes; the buffer holds 32.
        unsafe {
            if n >= BLOCK {
                return p.cast::<arch::__m256i>().read_unaligned();
            }
            let mut bytes = [0u8; BLOCK];
            std::ptr::copy_nonoverlapping(p, bytes.as_mut_ptr(), n);
            bytes.as_ptr().cast::<arch::__m256i>().read_unaligned()
        }
    }

    #[inline(always)]
    unsafe fn body<Q: Quad>(t: &Line<'_>) {
        let p = t.p;
        let [d, h, w] = p.output;
        let (image, z, y) = (t.item / (d * h), t.item / h % d, t.item % h);
        let inside = |axis: usize, q: usize, k: usize| {
            let at = (q * p.stride[axis] + k * p.dilation[axis]).checked_sub(p.pad[axis])?;
            (at < p.input[axis]).then_some(at)
        };
        let quads = p.taps().div_ceil(4);
        let mut pointers = [[t.padding.as_ptr(); MAX_TAPS]; MAX_ROWS];
        let mut sums = Sums([0; MAX_ROWS * MAX_COLS]);
        let mut x0 = 0;
        while x0 < w {
            let pixels = MAX_ROWS.min(w - x0);
            for (r, taps) in pointers.iter_mut().enumerate().take(pixels) {
                let mut slots = taps.iter_mut();
                for kz in 0..p.kernel[0] {
                    let iz = inside(0, z, kz);
                    for ky in 0..p.kernel[1] {
                        let line = iz
                            .zip(inside(1, y, ky))
                            .map(|(z, y)| ((image * p.input[0] + z) * p.input[1] + y) * p.input[2]);
                        for kx in 0..p.kernel[2] {
                            let Some(slot) = slots.next() else { continue };
                            *slot = match line.zip(inside(2, x0 + r, kx)) {
                                Some((line, x)) => t.input.wrapping_add((line + x) * p.channels),
                                None => t.padding.as_ptr(),
                            };
                        }
                    }
                }
            }
            let mut c = 0;
            while c < p.channels {
                let n = BLOCK.min(p.channels - c);
                // SAFETY: `run` checked the packed weights; taps point to pixels of the input, readable by its caller,
                // or to the padding, and both have n channels from c. The buffer has MAX_COLS columns per pixel.
                unsafe {
                    let block = t.weights.as_ptr().add(c / BLOCK * quads * 4 * BLOCK);
                    for (r, taps) in pointers.iter().enumerate().take(pixels) {
                        let mut acc = [arch::_mm256_setzero_si256(); 4];
                        for q in 0..quads {
                            let x: [arch::__m256i; 4] =
                                std::array::from_fn(|i| load(taps[q * 4 + i].wrapping_add(c), n));
                            let a = arch::_mm256_unpacklo_epi8(x[0], x[1]);
                            let b = arch::_mm256_unpackhi_epi8(x[0], x[1]);
                            let e = arch::_mm256_unpacklo_epi8(x[2], x[3]);
                            let f = arch::_mm256_unpackhi_epi8(x[2], x[3]);
                            let v = [
                                arch::_mm256_unpacklo_epi16(a, e),
                                arch::_mm256_unpackhi_epi16(a, e),
                                arch::_mm256_unpacklo_epi16(b, f),
                                arch::_mm256_unpackhi_epi16(b, f),
                            ];
                            let weights = block.add(q * 4 * BLOCK).cast::<arch::__m256i>();
                            for (i, acc) in acc.iter_mut().enumerate() {
                                *acc = Q::dot(*acc, v[i], weights.add(i).read_unaligned());
                            }
                        }
                        let out = sums.0.as_mut_ptr().add(r * MAX_COLS);
                        for (i, acc) in acc.into_iter().enumerate() {
                            let (low, high) = (
                                arch::_mm256_castsi256_si128(acc),
                                arch::_mm256_extracti128_si256::<1>(acc),
                            );
                            out.add(4 * i).cast::<arch::__m128i>().write_unaligned(low);
                            out.add(16 + 4 * i).cast::<arch::__m128i>().write_unaligned(high);
                        }
                    }
                    let pixel = t.item * w + x0;
                    t.finish.store(&sums, pixels, n, pixel, c, std::ptr::null());
                }
                c += n;
            }
            x0 += pixels;
        }
    }
}
