//! Register tiles: a few rows of bytes times one packed panel, with the sums left in a buffer.
#![allow(clippy::absurd_extreme_comparisons, reason = "extents of tiles are constants, some 1")]
#![allow(unsafe_code, reason = "micro-kernels on raw pointers, compiled per instruction set")]

use std::mem;

use super::dot::{Dot, Plain};
#[cfg(target_arch = "x86_64")]
use super::dot::{Madd256, Madd512, Vnni512};
use crate::gemm::tile::{MAX_COLS, unroll};
use crate::simd::Isa;

/// Operands of one tile of `rows` rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteTile {
    /// `[segments][rows]` pointers to the first byte that a row reads in a segment.
    pub(crate) a: *const *const u8,
    /// Number of segments.
    pub(crate) segments: usize,
    /// Groups of four bytes of each segment.
    pub(crate) groups: usize,
    /// The panel, `[segments * groups][width][4]`.
    pub(crate) b: *const i8,
    /// The sums, `[rows][MAX_COLS]`.
    pub(crate) sums: *mut i32,
}

/// Computes the sums of a [`ByteTile`].
///
/// # Safety
/// Every pointer of the tile must be valid for the elements that its fields describe, for the rows and panel width
/// that the function was compiled for, and the level must exist.
pub(crate) type ByteTileFn = unsafe fn(&ByteTile);

/// The tiles of one level, `by_vectors[v - 1][r - 1]`: `r` rows by `v` vectors.
#[derive(Debug)]
pub(crate) struct ByteTiles {
    lanes: usize,
    by_vectors: [&'static [ByteTileFn]; 3],
}

impl ByteTiles {
    /// The fastest tiles of `isa` on this processor. All give the same sums from the same packed weights.
    pub(crate) fn of(isa: Isa) -> &'static Self {
        #[cfg(target_arch = "x86_64")]
        {
            if isa.has_avx512() {
                return if is_x86_feature_detected!("avx512vnni") { &VNNI } else { &AVX512 };
            }
            if isa.has_avx2() {
                return &AVX2;
            }
        }
        let _ = isa;
        &PLAIN
    }

    /// Every table that the processor has for panels of `isa`, for tests.
    #[cfg(test)]
    pub(crate) fn all_of(isa: Isa) -> Vec<&'static Self> {
        let mut all = vec![Self::of(isa)];
        #[cfg(target_arch = "x86_64")]
        if isa.has_avx512() {
            all.push(&AVX512);
        }
        all
    }

    /// Tiles for panels of `width` columns, index `rows - 1`.
    #[inline]
    pub(crate) fn of_width(&self, width: usize) -> &'static [ByteTileFn] {
        self.by_vectors[width / self.lanes - 1]
    }
}

#[inline(always)]
unsafe fn tile_body<D: Dot, const MR: usize, const NV: usize>(d: D, t: &ByteTile) {
    let step = NV * D::LEN * 4;
    // SAFETY: the caller gives rows that are readable for each segment, a panel that covers the segments and room for
    // the sums. Vectors of integers may be all zero bytes.
    unsafe {
        let mut acc: [[D::I; NV]; MR] = [[d.zero(); NV]; MR];
        let mut b = t.b;
        for s in 0..t.segments {
            let mut a = [std::ptr::null::<u8>(); MR];
            unroll!(r < MR, a[r] = *t.a.add(s * MR + r));
            for g in 0..t.groups {
                let mut y: [D::B; NV] = mem::zeroed();
                unroll!(v < NV, y[v] = d.columns(b.add(v * D::LEN * 4)));
                unroll!(r < MR, {
                    let x = d.row(a[r].add(g * 4));
                    unroll!(v < NV, acc[r][v] = d.dot(acc[r][v], x, y[v]));
                });
                b = b.add(step);
            }
        }
        unroll!(r < MR, unroll!(v < NV, d.store(t.sums.add(r * MAX_COLS + v * D::LEN), acc[r][v])));
    }
}

macro_rules! level {
    ($name:ident, $features:literal, $token:expr) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        #[inline(never)]
        unsafe fn $name<const MR: usize, const NV: usize>(t: &ByteTile) {
            // SAFETY: the level exists where this function is called and the tile is valid, by the contract of
            // `ByteTileFn`.
            unsafe { tile_body::<_, MR, NV>($token, t) }
        }
    };
}

level!(vnni, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma", Vnni512::new_unchecked());
level!(avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", Madd512::new_unchecked());
level!(avx2, "avx2,fma", Madd256::new_unchecked());

#[inline(never)]
unsafe fn plain<const MR: usize, const NV: usize>(t: &ByteTile) {
    // SAFETY: the tile is valid, by the contract of `ByteTileFn`.
    unsafe { tile_body::<_, MR, NV>(Plain, t) }
}

macro_rules! rows {
    ($f:ident, $nv:literal: $($mr:literal)*) => {
        &[$($f::<$mr, $nv>),*]
    };
}

#[cfg(target_arch = "x86_64")]
static VNNI: ByteTiles = ByteTiles {
    lanes: 16,
    by_vectors: [
        rows!(vnni, 1: 1 2 3 4 5 6 7 8 9 10 11 12),
        rows!(vnni, 2: 1 2 3 4 5 6 7 8 9 10 11 12),
        rows!(vnni, 3: 1 2 3 4 5 6 7 8),
    ],
};

#[cfg(target_arch = "x86_64")]
static AVX512: ByteTiles = ByteTiles {
    lanes: 16,
    by_vectors: [
        rows!(avx512, 1: 1 2 3 4 5 6 7 8 9 10 11 12),
        rows!(avx512, 2: 1 2 3 4 5 6 7 8 9 10 11 12),
        rows!(avx512, 3: 1 2 3 4 5 6 7 8),
    ],
};

#[cfg(target_arch = "x86_64")]
static AVX2: ByteTiles =
    ByteTiles { lanes: 8, by_vectors: [rows!(avx2, 1: 1 2 3 4), rows!(avx2, 2: 1 2 3 4), &[]] };

static PLAIN: ByteTiles = ByteTiles { lanes: 8, by_vectors: [rows!(plain, 1: 1 2 3 4), &[], &[]] };
