//! Packing of byte weights, from columns or from rows of the matrix.

use std::ops::Range;

use super::ByteLayout;
use crate::gemm::tile::MAX_COLS;

/// What the packing finds out about a panel's columns.
struct Columns {
    low: [i32; MAX_COLS],
    high: [i32; MAX_COLS],
    sum: [i32; MAX_COLS],
}

impl Columns {
    fn new() -> Self {
        Self { low: [0; MAX_COLS], high: [0; MAX_COLS], sum: [0; MAX_COLS] }
    }

    /// Counts a row of the panel in.
    fn add(&mut self, row: &[i32]) {
        for (((low, high), sum), w) in
            self.low.iter_mut().zip(&mut self.high).zip(&mut self.sum).zip(row)
        {
            *low = (*low).min(*w);
            *high = (*high).max(*w);
            *sum = sum.wrapping_add(*w);
        }
    }
}

/// What is taken from weights between `low` and `high` so that they fit s8: 0 if they do, or if nothing may be taken.
///
/// # Panics
/// If they do not fit in any case.
fn shift_of(low: i32, high: i32, may_shift: bool) -> i32 {
    if low >= i32::from(i8::MIN) && high <= i32::from(i8::MAX) {
        return 0;
    }
    assert!(may_shift && high - low <= 255, "the weights of a column span 256 values at most");
    high - i32::from(i8::MAX)
}

impl ByteLayout {
    /// Packs what `column(n, …)` writes, the k weights of a column less their zero points, to `out`, with the sum of
    /// each column to `sums` and what was taken from its weights to `shifts`, if that is not empty.
    ///
    /// # Panics
    /// If a slice is too short, the weights of a column span more than 256 values, or they do not fit s8 and `shifts`
    /// is empty.
    pub(crate) fn pack(
        &self,
        column: impl Fn(usize, &mut [i32]),
        out: &mut [i8],
        sums: &mut [i32],
        shifts: &mut [i32],
    ) {
        let mut weights = vec![0; self.k];
        for p in self.panels.all_panels() {
            let panel = self.panels.panel(p);
            let packed = &mut out[panel.offset * 4..][..self.panels.k() * panel.width * 4];
            packed.fill(0);
            for j in 0..panel.cols {
                let col = panel.col + j;
                column(col, &mut weights);
                let (low, high) = weights
                    .iter()
                    .fold((0, 0), |(low, high): (i32, i32), w| (low.min(*w), high.max(*w)));
                let shift = shift_of(low, high, !shifts.is_empty());
                let groups = packed.chunks_exact_mut(panel.width * 4);
                for (quad, group) in weights.chunks(4).zip(groups) {
                    for (y, w) in group[4 * j..][..4].iter_mut().zip(quad) {
                        *y = (w - shift) as i8;
                    }
                }
                sums[col] = weights.iter().fold(0i32, |sum, w| sum.wrapping_add(*w));
                if let Some(s) = shifts.get_mut(col) {
                    *s = shift;
                }
            }
        }
    }

    /// [`ByteLayout::pack`] of a matrix that is read by rows: `row(k, columns, …)` writes the weights of these columns
    /// of row k. Each is asked for twice.
    ///
    /// # Panics
    /// As [`ByteLayout::pack`].
    pub(crate) fn pack_rows(
        &self,
        row: impl Fn(usize, Range<usize>, &mut [i32]),
        out: &mut [i8],
        sums: &mut [i32],
        shifts: &mut [i32],
    ) {
        for p in self.panels.all_panels() {
            let panel = self.panels.panel(p);
            let columns = panel.col..panel.col + panel.cols;
            let mut found = Columns::new();
            let mut lines = [[0; MAX_COLS]; 4];
            for k in 0..self.k {
                let line = &mut lines[0][..panel.cols];
                row(k, columns.clone(), line);
                found.add(line);
            }
            let mut taken = [0; MAX_COLS];
            for (j, shift) in taken.iter_mut().enumerate().take(panel.cols) {
                *shift = shift_of(found.low[j], found.high[j], !shifts.is_empty());
            }
            sums[columns.clone()].copy_from_slice(&found.sum[..panel.cols]);
            if !shifts.is_empty() {
                shifts[columns.clone()].copy_from_slice(&taken[..panel.cols]);
            }
            let packed = &mut out[panel.offset * 4..][..self.panels.k() * panel.width * 4];
            packed.fill(0);
            for (q, group) in packed.chunks_exact_mut((panel.width * 4).max(1)).enumerate() {
                let ks = 4 * q..self.k.min(4 * q + 4);
                for (line, k) in lines.iter_mut().zip(ks.clone()) {
                    row(k, columns.clone(), &mut line[..panel.cols]);
                    for (w, shift) in line.iter_mut().zip(&taken) {
                        *w -= shift;
                    }
                }
                lines[ks.len()..].fill([0; MAX_COLS]);
                for (j, quad) in group.chunks_exact_mut(4).enumerate().take(panel.cols) {
                    for (y, line) in quad.iter_mut().zip(&lines) {
                        *y = line[j] as i8;
                    }
                }
            }
        }
    }
}
