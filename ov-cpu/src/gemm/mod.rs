//! Matrix product of f32 with fused epilogue: `C[m, n] = epilogue(A[m, k] B[k, n])`.
//!
//! A is row-major with any row stride and is never copied. B is packed into column panels
//! ([`PackedLayout`]), weights once and activations on the fly ([`run_unpacked`]). A call
//! computes a range of rows and panels, so that a team of threads can share one product
//! ([`Partition`]). Tiles of 12 rows by 32 columns (AVX-512), 6 by 16 (AVX2) or 4 by 8 (portable)
//! keep the result in registers over all of k; products of few rows use the same panels, streamed
//! once with several sets of accumulators.
//!
//! With [`Gemm::bf16_pairs`] the elements of A and B are pairs of bf16, two along k; sums and result
//! stay f32.
#![allow(unsafe_code, reason = "disjoint ranges of one result are written through a raw pointer")]

mod bf16;
mod epilogue;
pub(crate) mod int8;
mod layout;
mod pack;
mod partition;
pub(crate) mod tile;

use std::ops::Range;
use std::ptr;

pub use bf16::{pack_pairs, pair_rows, pairs_layout};
pub use epilogue::{Epilogue, Residual, ResidualPlace};
pub use layout::{PackedLayout, Panel};
pub use pack::{BView, Stored, pack, pack_panel};
pub use partition::{Cost, Partition};

pub(crate) use epilogue::Finish;
use tile::{MAX_ROWS, Segment, Tile, Tiles};

use crate::simd::Isa;

/// Bytes of A that one pass over the panels works on, so that they stay in L2.
const A_BLOCK_BYTES: usize = 384 * 1024;

/// Operands of a product with packed B.
#[derive(Clone, Copy, Debug)]
pub struct Gemm<'a> {
    /// Rows of A and C.
    pub m: usize,
    /// A `[m, k]`, row-major.
    pub a: *const f32,
    /// Elements from one row of A to the next.
    pub a_stride: usize,
    /// Shape and panels of B.
    pub layout: PackedLayout,
    /// The packed B.
    pub b: &'a [f32],
    /// C `[m, n]`, row-major.
    pub c: *mut f32,
    /// Elements from one row of C to the next.
    pub c_stride: usize,
    /// Whether an element of A and B is a pair of bf16 along k, see [`pairs_layout`].
    pub bf16_pairs: bool,
    /// Applied to the product.
    pub epilogue: Epilogue<'a>,
}

/// Computes the `rows` of C in the columns of `panels`.
///
/// # Safety
/// `a` and a residual must be readable and `c` writable for the given rows and columns with their
/// strides; no other thread may access that part of C meanwhile. C must not overlap A.
///
/// # Panics
/// If `b` or the bias is shorter than the layout says, or a range is out of bounds.
pub unsafe fn run(isa: Isa, g: &Gemm<'_>, rows: Range<usize>, panels: Range<usize>) {
    assert!(rows.end <= g.m && panels.end <= g.layout.panels(), "range out of bounds");
    assert!(g.b.len() >= g.layout.len(), "packed matrix is too short");
    check_epilogue(&g.epilogue, g.layout.n());
    let finish = Finish::new(isa, &g.epilogue);
    let tiles = tiles(isa, g);
    let k = g.layout.k();
    let block = (A_BLOCK_BYTES / 4 / k.max(1)).max(8 * MAX_ROWS);
    let mut start = rows.start;
    while start < rows.end {
        let end = if rows.end - start < block + block / 2 { rows.end } else { start + block };
        for p in panels.clone() {
            let panel = g.layout.panel(p);
            let b = &g.b[panel.offset..panel.offset + k * panel.width];
            // SAFETY: passed on from the caller; the panel is whole.
            unsafe {
                run_panel(
                    tiles,
                    &finish,
                    k,
                    panel,
                    b,
                    g.a,
                    g.a_stride,
                    g.c,
                    g.c_stride,
                    start..end,
                );
            };
        }
        start = end;
    }
}

/// Computes `rows` of C for one packed panel `b`.
///
/// # Safety
/// As [`run`]; `b` is the panel.
#[inline]
unsafe fn run_panel(
    tiles: &Tiles,
    finish: &Finish,
    k: usize,
    panel: Panel,
    b: &[f32],
    a: *const f32,
    a_stride: usize,
    c: *mut f32,
    c_stride: usize,
    rows: Range<usize>,
) {
    debug_assert_eq!(b.len(), k * panel.width);
    let kernels = tiles.of_width(panel.width);
    let segment = Segment { start: 0, len: k };
    let mut pointers = [ptr::null(); MAX_ROWS];
    let mut tile = Tile {
        a: pointers.as_ptr(),
        segments: &raw const segment,
        n_segments: 1,
        b: b.as_ptr(),
        c_stride,
        cols: panel.cols,
        ..Tile::EMPTY
    };
    for (row, height) in balanced(rows, kernels.len()) {
        for (r, p) in pointers.iter_mut().enumerate().take(height) {
            *p = a.wrapping_add((row + r) * a_stride);
        }
        tile.a = pointers.as_ptr();
        tile.c = c.wrapping_add(row * c_stride + panel.col);
        // SAFETY: rows of A and C and columns of the epilogue are valid, by the caller.
        unsafe { finish.run(kernels[height - 1], &mut tile, height, row, panel.col) };
    }
}

/// Splits `rows` into the fewest pieces of at most `max`, of nearly equal heights: `(row, height)`.
pub(crate) fn balanced(rows: Range<usize>, max: usize) -> impl Iterator<Item = (usize, usize)> {
    let pieces = rows.len().div_ceil(max);
    let (low, extra) = (rows.len() / pieces.max(1), rows.len() % pieces.max(1));
    (0..pieces).map(move |i| {
        let height = low + usize::from(i < extra);
        (rows.start + i * low + i.min(extra), height)
    })
}

/// Elements of scratch that [`run_unpacked`] needs per thread.
#[must_use]
pub fn unpacked_scratch_len(layout: PackedLayout) -> usize {
    layout.width() * layout.k()
}

/// [`run`] for a B that is not packed: each panel is packed to `scratch` first. `g.b` is not
/// read; split the work by panels where possible, since a panel is packed by every thread that
/// uses it.
///
/// # Safety
/// As [`run`].
///
/// # Panics
/// If `scratch` is shorter than [`unpacked_scratch_len`], `b` is shorter than its strides reach,
/// the bias is too short, or a range is out of bounds.
pub unsafe fn run_unpacked(
    isa: Isa,
    g: &Gemm<'_>,
    b: BView<'_>,
    scratch: &mut [f32],
    rows: Range<usize>,
    panels: Range<usize>,
) {
    assert!(rows.end <= g.m && panels.end <= g.layout.panels(), "range out of bounds");
    check_epilogue(&g.epilogue, g.layout.n());
    let finish = Finish::new(isa, &g.epilogue);
    let tiles = tiles(isa, g);
    let k = g.layout.k();
    for p in panels {
        let panel = g.layout.panel(p);
        let packed = &mut scratch[..k * panel.width];
        pack_panel(isa, k, panel, b, packed);
        // SAFETY: passed on from the caller; the panel was just packed.
        unsafe {
            run_panel(
                tiles,
                &finish,
                k,
                panel,
                packed,
                g.a,
                g.a_stride,
                g.c,
                g.c_stride,
                rows.clone(),
            );
        };
    }
}

/// [`run`] on slices, by one thread.
///
/// # Panics
/// If a slice is shorter than the shape and strides say, or a row stride is shorter than a row.
pub fn multiply(
    isa: Isa,
    m: usize,
    a: &[f32],
    a_stride: usize,
    layout: PackedLayout,
    b: &[f32],
    c: &mut [f32],
    c_stride: usize,
    bias: Option<&[f32]>,
    activation: crate::simd::activation::Activation,
) {
    let reach = |stride: usize, cols: usize| if m == 0 { 0 } else { (m - 1) * stride + cols };
    assert!(a.len() >= reach(a_stride, layout.k()), "left matrix is too short");
    assert!(c.len() >= reach(c_stride, layout.n()), "result is too short");
    assert!(m <= 1 || c_stride >= layout.n(), "rows of the result overlap");
    let epilogue = Epilogue { bias, residual: None, activation };
    let (a, c) = (a.as_ptr(), c.as_mut_ptr());
    let g = Gemm { m, a, a_stride, layout, b, c, c_stride, bf16_pairs: false, epilogue };
    // SAFETY: the slices cover the matrices, as checked above, and are borrowed for the call.
    unsafe { run(isa, &g, 0..m, layout.all_panels()) };
}

fn tiles(isa: Isa, g: &Gemm<'_>) -> &'static Tiles {
    if g.bf16_pairs {
        return Tiles::of_bf16(isa)
            .expect("products of bf16 are chosen where there are tiles for them");
    }
    Tiles::of(isa, g.layout.k())
}

fn check_epilogue(e: &Epilogue<'_>, n: usize) {
    assert!(e.bias.is_none_or(|b| b.len() >= n), "bias is shorter than {n}");
}

#[cfg(test)]
pub(crate) mod tests;
