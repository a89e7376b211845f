//! Products of u8 and s8 with exact sums in i32.
//!
//! Rows are unsigned bytes (signed ones have their sign bit flipped, which moves the zero point by 128), read through
//! pointers in groups of four. Columns are packed signed bytes, `[panel][k / 4][width][4]`. Zero points cost nothing in
//! the loop: with `w` the packed weights of a column, `shift` what was taken from them to fit s8, and `z` the zero
//! point of the row, `Σ (a - z) (w + shift) = Σ a w - z Σ (w + shift) + shift Σ a`.
#![allow(unsafe_code, reason = "sums of bytes through raw pointers")]

mod dot;
mod finish;
mod pack;
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
