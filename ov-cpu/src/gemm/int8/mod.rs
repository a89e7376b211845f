//! Products of u8 and s8 with exact sums in i32.
//!
//! Rows are unsigned bytes (signed ones have their sign bit flipped, which moves the zero point by 128), read through
//! pointers in groups of four. Columns are packed signed bytes, `[panel][k / 4][width][4]`. Zero points cost nothing in
//! the loop: with `w` the packed weights of a column, `shift` what was taken from them to fit s8, and `z` the zero
//! point of the row, `Σ (a - z) (w + shift) = Σ a w - z Σ (w + shift) + shift Σ a`.
#![allow(unsafe_code, reason = "sums of bytes through raw pointers")]

mod dot;
mod finish;
pub(crate) mod tile;

pub(crate) use finish::{ByteFinish, Sums, Target};

use crate::gemm::PackedLayout;
use crate::simd::Isa;

/// How one matrix of weights is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteLayout {
    /// Panels of groups of four: an element of this layout stands for four bytes.
    panels: PackedLayout,
    k: usize,
}

impl ByteLayout {
    /// The packing of `[k, n]`.
    ///
    /// # Panics
    /// If an extent exceeds `u32::MAX`.
    pub(crate) fn new(isa: Isa, k: usize, n: usize) -> Self {
        Self { panels: PackedLayout::new(isa, k.div_ceil(4), n), k }
    }

    /// Bytes of the packed matrix.
    pub(crate) fn len(&self) -> usize {
        self.panels.len() * 4
    }

    /// Bytes of a row, padded to whole groups.
    pub(crate) fn row_len(&self) -> usize {
        self.panels.k() * 4
    }

    /// The panels, counting groups of four bytes.
    pub(crate) fn panels(&self) -> PackedLayout {
        self.panels
    }

    /// Packs what `column(n, …)` writes, the k weights of a column less their zero points, to `out`, with the sum of each column to `sums` and what
    /// was taken from its weights to `shifts`, if that is not empty.
    ///
    /// # Panics
    /// If a slice is too short or the weights of a column span more than 256 values.
    pub(crate) fn pack(
        &self,
        column: impl Fn(usize, &mut [i32]),
        out: &mut [i8],
        sums: &mut [i32],
        shifts: &mut [i32],
    ) {
        let n = self.panels.n();
        let mut weights = vec![0; self.k];
        for p in self.panels.all_panels() {
            let panel = self.panels.panel(p);
            let packed = &mut out[panel.offset * 4..][..self.panels.k() * panel.width * 4];
            packed.fill(0);
            for j in 0..panel.cols {
                let col = panel.col + j;
                column(col, &mut weights);
                let shift = if shifts.is_empty() { 0 } else { shift_of(weights.iter().copied()) };
                let mut sum = 0i32;
                for (i, w) in weights.iter().copied().enumerate() {
                    sum = sum.wrapping_add(w);
                    packed[((i / 4) * panel.width + j) * 4 + i % 4] =
                        i8::try_from(w - shift).expect("the weights of a column span 256 values");
                }
                sums[col] = sum;
                if let Some(s) = shifts.get_mut(col) {
                    *s = shift;
                }
            }
        }
        debug_assert!(sums.len() >= n);
    }
}

/// What is taken from weights so that they fit s8: 0 if they do.
fn shift_of(weights: impl Iterator<Item = i32>) -> i32 {
    let (low, high) = weights.fold((0, 0), |(l, h), w| (w.min(l), w.max(h)));
    if low >= i32::from(i8::MIN) && high <= i32::from(i8::MAX) {
        0
    } else {
        high - i32::from(i8::MAX)
    }
}

/// Sum of `len` bytes.
///
/// # Safety
/// The bytes must be readable.
pub(crate) unsafe fn sum_bytes(isa: Isa, p: *const u8, len: usize) -> i32 {
    // SAFETY: the caller gives that many readable bytes.
    let bytes = unsafe { std::slice::from_raw_parts(p, len) };
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx2() {
        #[target_feature(enable = "avx2")]
        fn avx2(bytes: &[u8]) -> i32 {
            use std::arch::x86_64 as arch;
            let mut sum = arch::_mm256_setzero_si256();
            let (whole, rest) = bytes.split_at(bytes.len() / 32 * 32);
            for chunk in whole.chunks_exact(32) {
                // SAFETY: the chunk holds 32 bytes.
                let x = unsafe { chunk.as_ptr().cast::<arch::__m256i>().read_unaligned() };
                let part = arch::_mm256_sad_epu8(x, arch::_mm256_setzero_si256());
                sum = arch::_mm256_add_epi64(sum, part);
            }
            let sum = arch::_mm_add_epi64(
                arch::_mm256_castsi256_si128(sum),
                arch::_mm256_extracti128_si256::<1>(sum),
            );
            let sum = arch::_mm_cvtsi128_si64(sum) + arch::_mm_extract_epi64::<1>(sum);
            sum as i32 + rest.iter().map(|b| i32::from(*b)).sum::<i32>()
        }
        // SAFETY: the ISA token proves AVX2.
        return unsafe { avx2(bytes) };
    }
    let _ = isa;
    bytes.iter().map(|b| i32::from(*b)).sum()
}

#[cfg(test)]
mod tests;
