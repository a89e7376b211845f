//! Splitting a product over threads.

use std::ops::Range;

use crate::gemm::layout::PackedLayout;

/// Estimated work of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Floating-point operations, a multiplication and an addition counted apart.
    pub flops: f64,
    /// Bytes read and written at least once.
    pub bytes: f64,
}

impl Cost {
    /// Of `[m, k] x layout`.
    #[must_use]
    pub fn of_gemm(m: usize, layout: PackedLayout) -> Self {
        let (m, k, n) = (m as f64, layout.k() as f64, layout.n() as f64);
        Self { flops: 2.0 * m * k * n, bytes: 4.0 * (m * k + k * n + m * n) }
    }
}

/// A grid of parts that together cover the rows and panels of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    rows: usize,
    panels: usize,
    row_parts: usize,
    panel_parts: usize,
}

/// Flops that take as long as moving one byte, at about 130 GFLOP/s against 35 GB/s.
const FLOPS_PER_BYTE: f64 = 4.0;
/// Rows that a part should have at least, to use full tiles.
const ROW_GRAIN: usize = 12;

impl Partition {
    /// The grid of at most `threads` parts with the least time of its largest part, counting
    /// arithmetic and the bytes of A and B that a part reads.
    #[must_use]
    pub fn new(m: usize, layout: PackedLayout, threads: usize) -> Self {
        let panels = layout.panels();
        let mut best = Self { rows: m, panels, row_parts: 1, panel_parts: 1 };
        let mut least = best.largest_part(layout);
        for row_parts in 1..=threads.min(m.div_ceil(ROW_GRAIN)).max(1) {
            let panel_parts = (threads / row_parts).min(panels).max(1);
            let grid = Self { rows: m, panels, row_parts, panel_parts };
            let time = grid.largest_part(layout);
            if time < least {
                (best, least) = (grid, time);
            }
        }
        best
    }

    fn largest_part(self, layout: PackedLayout) -> f64 {
        let m = self.rows.div_ceil(self.row_parts) as f64;
        let n = (self.panels.div_ceil(self.panel_parts) * layout.width()) as f64;
        let k = layout.k() as f64;
        2.0 * m * n * k + FLOPS_PER_BYTE * 4.0 * (m * k + n * k)
    }

    /// Number of parts.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.row_parts * self.panel_parts
    }

    /// Rows and panels of part `i`; empty where `i` is not a part.
    #[must_use]
    pub fn part(&self, i: usize) -> (Range<usize>, Range<usize>) {
        if i >= self.parts() {
            return (0..0, 0..0);
        }
        let (r, p) = (i / self.panel_parts, i % self.panel_parts);
        (split(self.rows, self.row_parts, r), split(self.panels, self.panel_parts, p))
    }
}

/// Piece `i` of `0..n` cut into `parts` nearly equal pieces.
fn split(n: usize, parts: usize, i: usize) -> Range<usize> {
    let (low, extra) = (n / parts, n % parts);
    let start = i * low + i.min(extra);
    start..start + low + usize::from(i < extra)
}
