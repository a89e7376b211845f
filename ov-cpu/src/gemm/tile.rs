//! Register tiles: a few rows of A times one packed panel of B, and the fused store.
#![allow(
    clippy::absurd_extreme_comparisons,
    reason = "extents of tiles are constants, some of them 1"
)]
#![allow(unsafe_code, reason = "micro-kernels on raw pointers, compiled per instruction-set level")]

use std::{mem, ops::Range, ptr};

use crate::simd::Isa;
use crate::simd::lanes::{Portable, Simd};

#[cfg(target_arch = "x86_64")]
use crate::simd::lanes::{Avx2, Avx512};

/// How one element of A meets a vector of B.
trait Product<S: Simd> {
    /// `acc + x y`
    fn add(s: S, x: S::F, y: S::F, acc: S::F) -> S::F;
}

/// Elements are f32.
struct OfF32;

impl<S: Simd> Product<S> for OfF32 {
    #[inline(always)]
    fn add(s: S, x: S::F, y: S::F, acc: S::F) -> S::F {
        s.fma(x, y, acc)
    }
}

/// Elements are pairs of bf16 in the place of an f32; both products are added in f32.
#[cfg(target_arch = "x86_64")]
struct OfBf16Pairs;

#[cfg(target_arch = "x86_64")]
impl Product<Avx512> for OfBf16Pairs {
    #[inline(always)]
    fn add(
        _: Avx512,
        x: <Avx512 as Simd>::F,
        y: <Avx512 as Simd>::F,
        acc: <Avx512 as Simd>::F,
    ) -> <Avx512 as Simd>::F {
        use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};
        // SAFETY: any bits are a vector of bf16, and `tile_avx512_bf16`, the only user, is compiled for the
        // instruction.
        unsafe {
            let (x, y) =
                (mem::transmute::<__m512, __m512bh>(x), mem::transmute::<__m512, __m512bh>(y));
            _mm512_dpbf16_ps(acc, x, y)
        }
    }
}

/// A run of consecutive k that every row of a tile reads contiguously.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    /// First row of the panel.
    pub(crate) start: usize,
    /// Rows of the panel.
    pub(crate) len: usize,
}

/// Operands of one tile of `rows` rows: `C = clamp(Σ segments A B + bias + residual)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    /// `[n_segments][rows]` pointers to the first element that a row reads in a segment.
    pub(crate) a: *const *const f32,
    /// The segments.
    pub(crate) segments: *const Segment,
    /// Number of segments.
    pub(crate) n_segments: usize,
    /// The panel.
    pub(crate) b: *const f32,
    /// First element of the result.
    pub(crate) c: *mut f32,
    /// Elements from one row of the result to the next.
    pub(crate) c_stride: usize,
    /// Columns to store, at most the panel's width.
    pub(crate) cols: usize,
    /// Bias of the first column, or null.
    pub(crate) bias: *const f32,
    /// Residual of the first element, or null; may be `c`.
    pub(crate) residual: *const f32,
    /// Elements from one row of the residual to the next.
    pub(crate) residual_stride: usize,
    /// Lower bound of the result.
    pub(crate) low: f32,
    /// Upper bound of the result.
    pub(crate) high: f32,
}

impl Tile {
    /// A tile without operands, to be filled in.
    pub(crate) const EMPTY: Self = Self {
        a: ptr::null(),
        segments: ptr::null(),
        n_segments: 0,
        b: ptr::null(),
        c: ptr::null_mut(),
        c_stride: 0,
        cols: 0,
        bias: ptr::null(),
        residual: ptr::null(),
        residual_stride: 0,
        low: f32::NEG_INFINITY,
        high: f32::INFINITY,
    };
}

/// Computes a [`Tile`].
///
/// # Safety
/// Every pointer of the tile must be valid for the elements that its fields describe, for the
/// rows and panel width that the function was compiled for, and the level must exist.
pub(crate) type TileFn = unsafe fn(&Tile);

/// Most rows of any tile.
pub(crate) const MAX_ROWS: usize = 12;
/// Most columns of any tile.
pub(crate) const MAX_COLS: usize = 48;

/// The tiles of one level.
#[derive(Debug)]
pub(crate) struct Tiles {
    lanes: usize,
    /// `by_vectors[v - 1][r - 1]`: `r` rows by `v` vectors.
    by_vectors: [&'static [TileFn]; 3],
}

impl Tiles {
    /// The tiles of `isa` for rows of `k` elements.
    #[inline]
    pub(crate) fn of(isa: Isa, k: usize) -> &'static Self {
        let long = usize::from(k >= LONG);
        #[cfg(target_arch = "x86_64")]
        {
            if isa.has_avx512() {
                return &AVX512[long];
            }
            if isa.has_avx2() {
                return &AVX2[long];
            }
        }
        let _ = isa;
        &PORTABLE[long]
    }

    /// The tiles of `isa` for elements that are pairs of bf16, where it has such.
    #[inline]
    pub(crate) fn of_bf16(isa: Isa) -> Option<&'static Self> {
        #[cfg(target_arch = "x86_64")]
        if isa.has_bf16() {
            return Some(&AVX512_BF16);
        }
        let _ = isa;
        None
    }

    /// Tiles for panels of `width` columns, index `rows - 1`.
    #[inline]
    pub(crate) fn of_width(&self, width: usize) -> &'static [TileFn] {
        self.by_vectors[width / self.lanes - 1]
    }
}

/// Repeats a statement for each constant `$i` below `$n`, at most 12 times, so that arrays indexed
/// by it become registers whatever the optimiser thinks of unrolling.
macro_rules! unroll {
    ($i:ident < $n:ident, $body:expr) => {
        unroll!(@ $i $n $body; 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $i:ident $n:ident $body:expr; $($c:literal)*) => {{
        $(if $c < $n {
            #[allow(non_upper_case_globals, reason = "stands for a loop variable")]
            const $i: usize = $c;
            $body
        })*
    }};
}

pub(crate) use unroll;

/// Products that a tile of long rows sums in registers before it adds them to those before: the rounding error of a sum
/// grows with its length (Higham, "The accuracy of floating point summation", 1993), and an addition in memory once in
/// this many costs about one per cent.
const PART: usize = 768;
/// Rows from this length on are summed in parts.
const LONG: usize = 1024;

/// `KU` sets of accumulators take turns over k, so that tiles of few rows are not bound by the
/// latency of FMA.
#[inline(always)]
unsafe fn tile_body<S: Simd, P: Product<S>, const MR: usize, const NV: usize, const KU: usize>(
    s: S,
    t: &Tile,
) {
    let width = NV * S::LEN;
    // SAFETY: the caller gives rows of A that are readable for each segment's length, a panel
    // that covers the segments, and for the first `cols` columns bias, residual and result.
    // A vector of f32 may be all zero bytes.
    unsafe {
        let mut acc: [[[S::F; NV]; MR]; KU] = mem::zeroed();
        for g in 0..t.n_segments {
            let segment = *t.segments.add(g);
            let mut a = [ptr::null::<f32>(); MR];
            unroll!(r < MR, a[r] = *t.a.add(g * MR + r));
            let b = t.b.add(segment.start * width);
            steps::<S, P, MR, NV, KU>(s, &a, 0..segment.len, b, &mut acc);
        }
        fold(s, &mut acc);
        put(s, t, &acc[0]);
    }
}

/// [`tile_body`] with sums in parts of about [`PART`] products.
#[inline(always)]
unsafe fn long_body<S: Simd, P: Product<S>, const MR: usize, const NV: usize, const KU: usize>(
    s: S,
    t: &Tile,
) {
    let width = NV * S::LEN;
    // SAFETY: as in `tile_body`.
    unsafe {
        let mut total: [[S::F; NV]; MR] = mem::zeroed();
        let mut acc: [[[S::F; NV]; MR]; KU] = mem::zeroed();
        let mut summed = 0;
        for g in 0..t.n_segments {
            let segment = *t.segments.add(g);
            let mut a = [ptr::null::<f32>(); MR];
            unroll!(r < MR, a[r] = *t.a.add(g * MR + r));
            let mut from = 0;
            while from < segment.len {
                if summed >= PART {
                    fold(s, &mut acc);
                    unroll!(
                        r < MR,
                        unroll!(v < NV, total[r][v] = s.add(total[r][v], acc[0][r][v]))
                    );
                    acc = mem::zeroed();
                    summed = 0;
                }
                let to = segment.len.min(from + PART);
                let b = t.b.add((segment.start + from) * width);
                steps::<S, P, MR, NV, KU>(s, &a, from..to, b, &mut acc);
                summed += to - from;
                from = to;
            }
        }
        fold(s, &mut acc);
        unroll!(r < MR, unroll!(v < NV, acc[0][r][v] = s.add(total[r][v], acc[0][r][v])));
        put(s, t, &acc[0]);
    }
}

/// The products of elements `range` of each row with the rows of the panel from `b` on.
#[inline(always)]
unsafe fn steps<S: Simd, P: Product<S>, const MR: usize, const NV: usize, const KU: usize>(
    s: S,
    a: &[*const f32; MR],
    range: Range<usize>,
    mut b: *const f32,
    acc: &mut [[[S::F; NV]; MR]; KU],
) {
    let width = NV * S::LEN;
    let Range { start: mut i, end } = range;
    // SAFETY: the elements of `range` and as many rows of the panel are readable, by the caller.
    unsafe {
        while i + 4 <= end {
            step::<S, P, MR, NV>(s, a, i, b, &mut acc[0]);
            step::<S, P, MR, NV>(s, a, i + 1, b.add(width), &mut acc[1 % KU]);
            step::<S, P, MR, NV>(s, a, i + 2, b.add(2 * width), &mut acc[2 % KU]);
            step::<S, P, MR, NV>(s, a, i + 3, b.add(3 * width), &mut acc[3 % KU]);
            b = b.add(4 * width);
            i += 4;
        }
        while i < end {
            step::<S, P, MR, NV>(s, a, i, b, &mut acc[0]);
            b = b.add(width);
            i += 1;
        }
    }
}

/// Adds every set of accumulators to the first.
#[inline(always)]
fn fold<S: Simd, const MR: usize, const NV: usize, const KU: usize>(
    s: S,
    acc: &mut [[[S::F; NV]; MR]; KU],
) {
    unroll!(
        u < KU,
        if u > 0 {
            unroll!(r < MR, unroll!(v < NV, acc[0][r][v] = s.add(acc[0][r][v], acc[u][r][v])));
        }
    );
}

#[inline(always)]
unsafe fn put<S: Simd, const MR: usize, const NV: usize>(s: S, t: &Tile, acc: &[[S::F; NV]; MR]) {
    // SAFETY: passed on from the caller; `FULL` where the columns are the whole width.
    unsafe {
        if t.cols == NV * S::LEN {
            store::<S, MR, NV, true>(s, t, acc);
        } else {
            store::<S, MR, NV, false>(s, t, acc);
        }
    }
}

#[inline(always)]
unsafe fn step<S: Simd, P: Product<S>, const MR: usize, const NV: usize>(
    s: S,
    a: &[*const f32; MR],
    i: usize,
    b: *const f32,
    acc: &mut [[S::F; NV]; MR],
) {
    // SAFETY: element i of every row and one row of the panel are readable, by the caller. A
    // vector of f32 may be all zero bytes.
    unsafe {
        let mut y: [S::F; NV] = mem::zeroed();
        unroll!(v < NV, y[v] = s.load(b.add(v * S::LEN)));
        unroll!(r < MR, {
            let x = s.splat(*a[r].add(i));
            unroll!(v < NV, acc[r][v] = P::add(s, x, y[v], acc[r][v]));
        });
    }
}

#[inline(always)]
unsafe fn store<S: Simd, const MR: usize, const NV: usize, const FULL: bool>(
    s: S,
    t: &Tile,
    acc: &[[S::F; NV]; MR],
) {
    // SAFETY: `cols` columns of bias, residual and result are valid, by the caller; `FULL` means
    // that `cols` is the whole width. A vector of f32 may be all zero bytes.
    unsafe {
        let mut bias: [S::F; NV] = mem::zeroed();
        if !t.bias.is_null() {
            unroll!(
                v < NV,
                bias[v] = load_lanes::<S, FULL>(s, t.bias.add(v * S::LEN), lanes::<S>(t, v))
            );
        }
        let (low, high) = (s.splat(t.low), s.splat(t.high));
        unroll!(
            r < MR,
            unroll!(v < NV, {
                let mut x = s.add(acc[r][v], bias[v]);
                if !t.residual.is_null() {
                    let p = t.residual.add(r * t.residual_stride + v * S::LEN);
                    x = s.add(x, load_lanes::<S, FULL>(s, p, lanes::<S>(t, v)));
                }
                x = s.min(high, s.max(low, x));
                let p = t.c.add(r * t.c_stride + v * S::LEN);
                if FULL {
                    s.store(p, x);
                } else {
                    s.store_n(p, x, lanes::<S>(t, v));
                }
            })
        );
    }
}

#[inline(always)]
fn lanes<S: Simd>(t: &Tile, v: usize) -> usize {
    t.cols.saturating_sub(v * S::LEN).min(S::LEN)
}

#[inline(always)]
unsafe fn load_lanes<S: Simd, const FULL: bool>(s: S, p: *const f32, n: usize) -> S::F {
    // SAFETY: the caller gives n readable elements, and LEN if `FULL`.
    unsafe { if FULL { s.load(p) } else { s.load_n(p, n) } }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[inline(never)]
unsafe fn tile_avx512<const MR: usize, const NV: usize, const KU: usize>(t: &Tile) {
    // SAFETY: the level exists where this function is called, and the tile is valid, by the
    // contract of `TileFn`.
    unsafe { tile_body::<_, OfF32, MR, NV, KU>(Avx512::new_unchecked(), t) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[inline(never)]
unsafe fn tile_avx512_long<const MR: usize, const NV: usize, const KU: usize>(t: &Tile) {
    // SAFETY: as in `tile_avx512`.
    unsafe { long_body::<_, OfF32, MR, NV, KU>(Avx512::new_unchecked(), t) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
#[inline(never)]
unsafe fn tile_avx512_bf16<const MR: usize, const NV: usize, const KU: usize>(t: &Tile) {
    // SAFETY: as in `tile_avx512`.
    unsafe { tile_body::<_, OfBf16Pairs, MR, NV, KU>(Avx512::new_unchecked(), t) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn tile_avx2<const MR: usize, const NV: usize, const KU: usize>(t: &Tile) {
    // SAFETY: as in `tile_avx512`.
    unsafe { tile_body::<_, OfF32, MR, NV, KU>(Avx2::new_unchecked(), t) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn tile_avx2_long<const MR: usize, const NV: usize, const KU: usize>(t: &Tile) {
    // SAFETY: as in `tile_avx512`.
    unsafe { long_body::<_, OfF32, MR, NV, KU>(Avx2::new_unchecked(), t) }
}

#[inline(never)]
unsafe fn tile_portable<const MR: usize, const NV: usize, const KU: usize>(t: &Tile) {
    // SAFETY: the tile is valid, by the contract of `TileFn`.
    unsafe { tile_body::<_, OfF32, MR, NV, KU>(Portable, t) }
}

#[inline(never)]
unsafe fn tile_portable_long<const MR: usize, const NV: usize, const KU: usize>(t: &Tile) {
    // SAFETY: the tile is valid, by the contract of `TileFn`.
    unsafe { long_body::<_, OfF32, MR, NV, KU>(Portable, t) }
}

macro_rules! tiles {
    ($f:ident, $nv:literal: $($mr:literal * $ku:literal),*) => {
        &[$($f::<$mr, $nv, $ku>),*]
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! avx512_tiles {
    ($f:ident) => {
        Tiles {
            lanes: 16,
            by_vectors: [
                tiles!($f, 1: 1 * 4, 2 * 4, 3 * 4, 4 * 2, 5 * 2, 6 * 2, 7 * 2, 8 * 1, 9 * 1, 10 * 1, 11 * 1, 12 * 1),
                tiles!($f, 2: 1 * 4, 2 * 4, 3 * 2, 4 * 2, 5 * 1, 6 * 1, 7 * 1, 8 * 1, 9 * 1, 10 * 1, 11 * 1, 12 * 1),
                tiles!($f, 3: 1 * 4, 2 * 2, 3 * 2, 4 * 1, 5 * 1, 6 * 1, 7 * 1, 8 * 1, 9 * 1),
            ],
        }
    };
}

#[cfg(target_arch = "x86_64")]
static AVX512: [Tiles; 2] = [avx512_tiles!(tile_avx512), avx512_tiles!(tile_avx512_long)];

#[cfg(target_arch = "x86_64")]
static AVX512_BF16: Tiles = Tiles {
    lanes: 16,
    by_vectors: [
        tiles!(tile_avx512_bf16, 1: 1 * 4, 2 * 4, 3 * 4, 4 * 2, 5 * 2, 6 * 2, 7 * 2, 8 * 2, 9 * 1, 10 * 1, 11 * 1, 12 * 1),
        tiles!(tile_avx512_bf16, 2: 1 * 4, 2 * 4, 3 * 4, 4 * 2, 5 * 2, 6 * 1, 7 * 1, 8 * 1, 9 * 1, 10 * 1, 11 * 1, 12 * 1),
        tiles!(tile_avx512_bf16, 3: 1 * 4, 2 * 4, 3 * 2, 4 * 1, 5 * 1, 6 * 1, 7 * 1, 8 * 1, 9 * 1),
    ],
};

#[cfg(target_arch = "x86_64")]
macro_rules! avx2_tiles {
    ($f:ident) => {
        Tiles {
            lanes: 8,
            by_vectors: [
                tiles!($f, 1: 1 * 4, 2 * 4, 3 * 2, 4 * 2, 5 * 2, 6 * 2),
                tiles!($f, 2: 1 * 4, 2 * 2, 3 * 2, 4 * 1, 5 * 1, 6 * 1),
                &[],
            ],
        }
    };
}

#[cfg(target_arch = "x86_64")]
static AVX2: [Tiles; 2] = [avx2_tiles!(tile_avx2), avx2_tiles!(tile_avx2_long)];

macro_rules! portable_tiles {
    ($f:ident) => {
        Tiles {
            lanes: 8,
            by_vectors: [tiles!($f, 1: 1 * 4, 2 * 2, 3 * 1, 4 * 1), &[], &[]],
        }
    };
}

static PORTABLE: [Tiles; 2] = [portable_tiles!(tile_portable), portable_tiles!(tile_portable_long)];
