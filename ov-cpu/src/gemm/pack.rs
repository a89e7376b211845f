//! Packing B into panels.
#![allow(unsafe_code, reason = "tiles are transposed through raw pointers")]

use crate::gemm::layout::{PackedLayout, Panel};
use crate::kernels::transpose::tile;
use crate::simd::Isa;

/// An f32 in memory, of four bytes.
pub trait Stored: Copy {
    /// Its value.
    fn get(self) -> f32;
}

impl Stored for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }
}

/// At any address.
impl Stored for [u8; 4] {
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_ne_bytes(self)
    }
}

/// A strided read-only view of B: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct BView<'a, T = f32> {
    /// The elements.
    pub data: &'a [T],
    /// Elements from one row (k) to the next.
    pub row_stride: usize,
    /// Elements from one column (n) to the next.
    pub col_stride: usize,
}

impl<'a, T> BView<'a, T> {
    /// Row-major `[k, n]`.
    #[must_use]
    pub fn row_major(data: &'a [T], n: usize) -> Self {
        Self { data, row_stride: n, col_stride: 1 }
    }

    /// Row-major `[n, k]`, that is Bᵀ stored.
    #[must_use]
    pub fn transposed(data: &'a [T], k: usize) -> Self {
        Self { data, row_stride: 1, col_stride: k }
    }
}

/// Packs all of `b` to `out`, which has `layout.len()` elements.
///
/// # Panics
/// If `out` is shorter, or `b` has fewer elements than its strides and the layout reach.
pub fn pack<T: Stored>(isa: Isa, layout: PackedLayout, b: BView<'_, T>, out: &mut [f32]) {
    for p in layout.all_panels() {
        let panel = layout.panel(p);
        let len = panel.width * layout.k();
        pack_panel(isa, layout.k(), panel, b, &mut out[panel.offset..panel.offset + len]);
    }
}

/// Packs one panel of `b` to `out`, which has `k * panel.width` elements.
///
/// # Panics
/// As [`pack`].
pub fn pack_panel<T: Stored>(isa: Isa, k: usize, panel: Panel, b: BView<'_, T>, out: &mut [f32]) {
    let Panel { width, col, cols, .. } = panel;
    assert!(out.len() >= k * width, "panel of {} elements, {} given", k * width, out.len());
    if k == 0 {
        return;
    }
    let from = col * b.col_stride;
    if b.col_stride == 1 {
        for (i, row) in out.chunks_exact_mut(width).take(k).enumerate() {
            let start = from + i * b.row_stride;
            let (head, rest) = row.split_at_mut(cols);
            head.iter_mut().zip(&b.data[start..start + cols]).for_each(|(y, x)| *y = x.get());
            rest.fill(0.0);
        }
        return;
    }
    if b.row_stride == 1 {
        const { assert!(size_of::<T>() == 4) };
        let data = &b.data[from..];
        // The last element of every column.
        assert!(cols == 0 || (cols - 1) * b.col_stride + k <= data.len(), "too few elements");
        if cols < width {
            out.chunks_exact_mut(width).take(k).for_each(|row| row[cols..].fill(0.0));
        }
        for i in (0..k).step_by(16) {
            let (x, y) = (data.as_ptr().wrapping_add(i), out[i * width..].as_mut_ptr());
            let (x_stride, y_stride) = ((4 * b.col_stride) as isize, (4 * width) as isize);
            // SAFETY: each of `cols` columns has k elements of four bytes (asserted above), and as many rows of `width`
            // elements are in `out`.
            unsafe {
                tile::rows(isa, 4, x.cast(), x_stride, y.cast(), y_stride, 16.min(k - i), cols);
            };
        }
        return;
    }
    // Blocks of 16 rows keep the lines of all columns that are being read in L1.
    for i0 in (0..k).step_by(16) {
        let rows = 16.min(k - i0);
        for j in 0..width {
            let column = &mut out[i0 * width..(i0 + rows) * width];
            if j >= cols {
                column.iter_mut().skip(j).step_by(width).for_each(|x| *x = 0.0);
            } else {
                for (i, row) in column.chunks_exact_mut(width).enumerate() {
                    row[j] = b.data[from + j * b.col_stride + (i0 + i) * b.row_stride].get();
                }
            }
        }
    }
}
