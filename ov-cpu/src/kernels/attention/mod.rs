//! Scaled dot-product attention over batched heads, exact softmax per block of query rows.
#![allow(unsafe_code, reason = "vector loads and stores at computed offsets")]

mod block;

use std::ops::Range;

use crate::kernels::out::Out;
use crate::kernels::softmax::{exp_sum, row_max};
use crate::kernels::transpose::tile;
use crate::simd::Isa;
use crate::simd::bits::Bits;
use crate::simd::lanes::{Simd, instantiate};

/// Distances in elements between batches, heads and rows; elements of a row are contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// Between batches.
    pub batch: usize,
    /// Between heads.
    pub head: usize,
    /// Between rows (positions).
    pub row: usize,
}

/// What is added to the scores, `[batch, head, query, key]` with strides of 0 where it repeats.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// The addends; -inf hides a key.
    pub data: &'a [f32],
    /// `row` is the distance between queries; keys are contiguous.
    pub strides: Strides,
}

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Batches.
    pub batch: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`; query head `h` reads `h * kv_heads / heads`.
    pub kv_heads: usize,
    /// Query positions.
    pub queries: usize,
    /// Key positions.
    pub keys: usize,
    /// Elements of a query and a key.
    pub depth: usize,
    /// Elements of a value.
    pub value_depth: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// With `Some(offset)` query `i` sees keys `0..=i + offset` only.
    pub causal: Option<usize>,
    /// Layout of the queries.
    pub q: Strides,
    /// Layout of the keys.
    pub k: Strides,
    /// Layout of the values.
    pub v: Strides,
    /// Layout of the output.
    pub out: Strides,
}

/// Most query rows of an item.
const ROWS: usize = 32;

/// Floats of scores that an item keeps at most, unless one group of 8 rows needs more.
const SCORES: usize = 1 << 16;

/// Keys of a transposed panel.
const PANEL: usize = 32;

/// Up to this many rows the scores are plain dot products, since transposing keys would cost
/// more than it saves.
const DOT_ROWS: usize = 3;

impl Attention {
    fn padded_keys(&self) -> usize {
        self.keys.next_multiple_of(PANEL)
    }

    fn rows(&self) -> usize {
        (SCORES / self.padded_keys().max(1) / 8 * 8).clamp(8, ROWS).min(self.queries.max(1))
    }

    /// Work items: blocks of query rows of every head.
    #[must_use]
    pub fn items(&self) -> usize {
        self.batch * self.heads * self.queries.div_ceil(self.rows())
    }

    /// Floats of scratch per thread.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.rows() * self.padded_keys() + self.depth * PANEL
    }
}

/// Elements that a strided view spans.
fn span(s: Strides, batch: usize, heads: usize, rows: usize, row_len: usize) -> usize {
    if batch == 0 || heads == 0 || rows == 0 {
        return 0;
    }
    (batch - 1) * s.batch + (heads - 1) * s.head + (rows - 1) * s.row + row_len
}

#[inline(always)]
fn body<S: Bits>(
    s: S,
    isa: Isa,
    a: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    mask: Option<&Mask<'_>>,
    scratch: &mut [f32],
    out: &Out<'_, f32>,
    range: Range<usize>,
) {
    let (rows, padded) = (a.rows(), a.padded_keys());
    let blocks = a.queries.div_ceil(rows);
    let (scores, panel) = scratch.split_at_mut(rows * padded);
    assert!(panel.len() >= a.depth * PANEL, "scratch shorter than scratch_len");
    let (scores, panel) = (scores.as_mut_ptr(), panel.as_mut_ptr());
    for item in range {
        let (unit, first) = (item / blocks, item % blocks * rows);
        let (batch, head) = (unit / a.heads, unit % a.heads);
        let kv = head * a.kv_heads / a.heads;
        let m = rows.min(a.queries - first);
        let seen = |row: usize| {
            a.causal.map_or(a.keys, |o| a.keys.min(first.saturating_add(row + 1).saturating_add(o)))
        };
        let keys = seen(m - 1);
        // SAFETY: the spans of all views were checked by `attention_f32`; batch, head, first
        // and rows are inside their counts.
        unsafe {
            let q = q.as_ptr().wrapping_add(batch * a.q.batch + head * a.q.head + first * a.q.row);
            let k = k.as_ptr().wrapping_add(batch * a.k.batch + kv * a.k.head);
            let v = v.as_ptr().wrapping_add(batch * a.v.batch + kv * a.v.head);
            let y = out
                .at(0, 0)
                .wrapping_add(batch * a.out.batch + head * a.out.head + first * a.out.row);
            if m <= DOT_ROWS {
                for row in 0..m {
                    block::dots(
                        s,
                        q.add(row * a.q.row),
                        k,
                        a.k.row,
                        keys,
                        a.depth,
                        a.scale,
                        scores.add(row * padded),
                    );
                }
            } else {
                let mut at = 0;
                while at < keys {
                    let n = (keys - at).min(PANEL);
                    pack_panel(isa, k.add(at * a.k.row), a.k.row, n, a.depth, panel);
                    let c = scores.add(at);
                    let width = n.next_multiple_of(S::LEN);
                    block::multiply(
                        s, m, width, a.depth, q, a.q.row, panel, PANEL, c, padded, a.scale,
                    );
                    at += PANEL;
                }
            }
            for row in 0..m {
                let line = scores.add(row * padded);
                let n = seen(row);
                if let Some(mask) = mask {
                    let t = mask.strides;
                    let at = batch * t.batch + head * t.head + (first + row) * t.row;
                    add(s, mask.data.as_ptr().add(at), line, n);
                }
                probabilities(s, line, n, keys);
            }
            block::multiply(
                s,
                m,
                a.value_depth,
                keys,
                scores,
                padded,
                v,
                a.v.row,
                y,
                a.out.row,
                1.0,
            );
        }
    }
}

/// Writes `n` keys of `depth` elements as columns of `panel: [depth, PANEL]`; other columns up
/// to a whole vector hold finite or stale numbers that nobody reads on.
///
/// # Safety
/// The keys must be readable, `stride` elements apart, and the panel writable.
#[inline(always)]
unsafe fn pack_panel(
    isa: Isa,
    k: *const f32,
    stride: usize,
    n: usize,
    depth: usize,
    panel: *mut f32,
) {
    let mut d = 0;
    while d < depth {
        let rows = (depth - d).min(16);
        // SAFETY: the caller's contract; the tile has `rows` elements of each of n keys.
        unsafe {
            let (x, y) = (k.add(d).cast::<u8>(), panel.add(d * PANEL).cast::<u8>());
            tile::rows(isa, 4, x, (stride * 4) as isize, y, (PANEL * 4) as isize, rows, n);
        }
        d += rows;
    }
}

/// `y += x` for `n` elements.
///
/// # Safety
/// `n` elements must be readable at `x` and writable at `y`.
#[inline(always)]
unsafe fn add<S: Simd>(s: S, x: *const f32, y: *mut f32, n: usize) {
    let mut i = 0;
    while i < n {
        let k = S::LEN.min(n - i);
        // SAFETY: k elements are left.
        unsafe { s.store_n(y.add(i), s.add(s.load_n(x.add(i), k), s.load_n(y.add(i), k)), k) };
        i += k;
    }
}

/// Turns the first `n` scores into probabilities and the rest up to `all` into 0; a row whose
/// scores are all -inf, or that sees no key, becomes 0.
///
/// # Safety
/// `all` elements must be writable at `line`.
#[inline(always)]
unsafe fn probabilities<S: Bits>(s: S, line: *mut f32, n: usize, all: usize) {
    // SAFETY: the caller's contract; the slices do not overlap and none outlives its use.
    unsafe {
        let max = row_max(s, std::slice::from_raw_parts(line, n));
        std::slice::from_raw_parts_mut(line.add(n), all - n).fill(0.0);
        if max == f32::NEG_INFINITY {
            let row = std::slice::from_raw_parts_mut(line, n);
            row.iter_mut().for_each(|x| *x = if x.is_nan() { f32::NAN } else { 0.0 });
            return;
        }
        let inverse = 1.0 / exp_sum(s, line, line, n, max);
        let scale = s.splat(inverse);
        let mut i = 0;
        while i < n {
            let k = S::LEN.min(n - i);
            s.store_n(line.add(i), s.mul(s.load_n(line.add(i), k), scale), k);
            i += k;
        }
    }
}

instantiate! {
    fn items_f32(
        level: Isa, a: &Attention, q: &[f32], k: &[f32], v: &[f32], mask: Option<&Mask<'_>>,
        scratch: &mut [f32], out: &Out<'_, f32>, range: Range<usize>,
    ) = body;
}

/// `out = softmax(scale * q kᵀ + mask) v` for every batch and head, items `range` of
/// [`Attention::items`]. Queries that see no key give 0.
///
/// # Panics
/// If a view spans more than its slice, the mask has fewer keys, the heads are no multiple of
/// the key heads, or `scratch` is shorter than [`Attention::scratch_len`].
pub fn attention_f32(
    isa: Isa,
    a: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    mask: Option<&Mask<'_>>,
    scratch: &mut [f32],
    out: &Out<'_, f32>,
    range: Range<usize>,
) {
    if range.is_empty() {
        return;
    }
    assert!(range.end <= a.items(), "items beyond the attention's");
    assert!(a.kv_heads > 0 && a.heads.is_multiple_of(a.kv_heads), "heads share key heads evenly");
    let fits = |len: usize, s, heads, rows, width| len >= span(s, a.batch, heads, rows, width);
    assert!(fits(q.len(), a.q, a.heads, a.queries, a.depth), "queries shorter than their shape");
    assert!(fits(k.len(), a.k, a.kv_heads, a.keys, a.depth), "keys shorter than their shape");
    assert!(
        fits(v.len(), a.v, a.kv_heads, a.keys, a.value_depth),
        "values shorter than their shape"
    );
    assert!(
        fits(out.len(), a.out, a.heads, a.queries, a.value_depth),
        "output shorter than its shape"
    );
    if let Some(m) = mask {
        assert!(
            fits(m.data.len(), m.strides, a.heads, a.queries, a.keys),
            "mask shorter than its shape"
        );
    }
    items_f32(isa, isa, a, q, k, v, mask, scratch, out, range);
}

#[cfg(test)]
mod tests;
