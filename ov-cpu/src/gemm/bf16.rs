//! Operands of products in bf16: two values along k in the place of one f32.
#![allow(unsafe_code, reason = "vector conversion on raw rows")]

use crate::gemm::layout::PackedLayout;
use crate::gemm::pack::{BView, Stored};
use crate::simd::Isa;

/// The layout of B `[k, n]` as pairs: that of a matrix of half as many rows. An odd k is padded with a zero.
///
/// # Panics
/// As [`PackedLayout::new`].
#[must_use]
pub fn pairs_layout(isa: Isa, k: usize, n: usize) -> PackedLayout {
    PackedLayout::new(isa, k.div_ceil(2), n)
}

/// The upper half of an f32, rounded to nearest, ties to even; NaN stays NaN.
#[inline]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if x.is_nan() { (bits >> 16) | 0x40 } else { rounded }
}

/// A pair, the value of the lower k in the low half.
#[inline]
fn pair(low: f32, high: f32) -> f32 {
    f32::from_bits(round(low) | (round(high) << 16))
}

/// Packs `b` `[k, n]` to `out`, in the layout that [`pairs_layout`] gives.
///
/// # Panics
/// If `out` is shorter than the layout, or `b` has fewer elements than its strides and the shape reach.
pub fn pack_pairs<T: Stored>(layout: PackedLayout, k: usize, b: BView<'_, T>, out: &mut [f32]) {
    assert_eq!(layout.k(), k.div_ceil(2), "the layout is that of pairs");
    let at = |i: usize, col: usize| b.data[i * b.row_stride + col * b.col_stride].get();
    for p in layout.all_panels() {
        let panel = layout.panel(p);
        let packed = &mut out[panel.offset..panel.offset + panel.width * layout.k()];
        if b.col_stride == 1 {
            for (i, row) in packed.chunks_exact_mut(panel.width).enumerate() {
                let line = |i: usize| &b.data[i * b.row_stride + panel.col..][..panel.cols];
                let (row, rest) = row.split_at_mut(panel.cols);
                rest.fill(0.0);
                if 2 * i + 1 < k {
                    for ((y, low), high) in row.iter_mut().zip(line(2 * i)).zip(line(2 * i + 1)) {
                        *y = pair(low.get(), high.get());
                    }
                } else {
                    row.iter_mut().zip(line(2 * i)).for_each(|(y, low)| *y = pair(low.get(), 0.0));
                }
            }
            continue;
        }
        // Blocks of 16 rows keep the lines of all columns that are being read in L1.
        for (block, rows) in packed.chunks_mut(16 * panel.width).enumerate() {
            for j in 0..panel.width {
                for (i, y) in rows.iter_mut().skip(j).step_by(panel.width).enumerate() {
                    let i = 2 * (16 * block + i);
                    *y = if j >= panel.cols {
                        0.0
                    } else {
                        let high = if i + 1 < k { at(i + 1, panel.col + j) } else { 0.0 };
                        pair(at(i, panel.col + j), high)
                    };
                }
            }
        }
    }
}

/// Converts `rows` rows of `k` values, `stride` apart, to rows of pairs, one after another at `out`.
///
/// # Safety
/// `a` must be readable for the rows and their stride.
///
/// # Panics
/// If `out` is shorter than `rows * k.div_ceil(2)`.
pub unsafe fn pair_rows(
    isa: Isa,
    a: *const f32,
    stride: usize,
    rows: usize,
    k: usize,
    out: &mut [f32],
) {
    let width = k.div_ceil(2);
    assert!(out.len() >= rows * width, "{} pairs of {}", out.len(), rows * width);
    for r in 0..rows {
        let (from, to) = (a.wrapping_add(r * stride), out[r * width..(r + 1) * width].as_mut_ptr());
        #[cfg(target_arch = "x86_64")]
        if isa.has_bf16() {
            // SAFETY: the level exists; the row is readable by the caller, the pairs were sliced.
            unsafe { row_avx512(from, k, to) };
            continue;
        }
        let _ = isa;
        for i in 0..width {
            // SAFETY: element 2 i is below k, 2 i + 1 only read where it is.
            unsafe {
                let high = if 2 * i + 1 < k { *from.add(2 * i + 1) } else { 0.0 };
                *to.add(i) = pair(*from.add(2 * i), high);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn row_avx512(from: *const f32, k: usize, to: *mut f32) {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_mask_storeu_epi32,
        _mm512_maskz_loadu_ps, _mm512_storeu_si512,
    };
    let mask = |n: usize| ((1u32 << n.min(16)) - 1) as u16;
    let mut i = 0;
    // SAFETY: reads stay below k and writes below the pairs of k, by masks at the end; any bits are integers.
    unsafe {
        while i + 32 <= k {
            let (low, high) = (_mm512_loadu_ps(from.add(i)), _mm512_loadu_ps(from.add(i + 16)));
            let pairs = _mm512_cvtne2ps_pbh(high, low);
            _mm512_storeu_si512(
                to.add(i / 2).cast(),
                std::mem::transmute::<__m512bh, __m512i>(pairs),
            );
            i += 32;
        }
        if i < k {
            let n = k - i;
            let low = _mm512_maskz_loadu_ps(mask(n), from.add(i));
            let high = _mm512_maskz_loadu_ps(mask(n.saturating_sub(16)), from.wrapping_add(i + 16));
            let pairs = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_mask_storeu_epi32(to.add(i / 2).cast(), mask(n.div_ceil(2)), pairs);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::gemm::{Epilogue, Gemm, run, tests::noise};

    fn halves(x: f32) -> (f32, f32) {
        let bits = x.to_bits();
        (f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000))
    }

    #[test]
    fn rounding_is_that_of_the_type() {
        let special = [0.0, -0.0, f32::INFINITY, f32::MAX, 1.003_906_2, 1.011_718_8, -3.0e38];
        for x in noise(2000, 3).into_iter().chain(special) {
            assert_eq!(round(x), u32::from(bf16::from_f32(x).to_bits()), "{x}");
        }
        assert!(halves(pair(f32::NAN, 1.0)).0.is_nan());
    }

    #[test]
    fn rows_become_pairs_on_every_level() {
        for isa in Isa::available() {
            for k in [0, 1, 2, 15, 16, 17, 31, 32, 33, 47, 64, 70] {
                let (rows, stride) = (3, k + 5);
                let a = noise(rows * stride, 4);
                let mut pairs = vec![7.0; rows * k.div_ceil(2) + 1];
                // SAFETY: the rows and strides are those of `a`.
                unsafe { pair_rows(isa, a.as_ptr(), stride, rows, k, &mut pairs) };
                for r in 0..rows {
                    for i in 0..k.div_ceil(2) {
                        let at = |i: usize| if i < k { a[r * stride + i] } else { 0.0 };
                        let expected = pair(at(2 * i), at(2 * i + 1));
                        let got = pairs[r * k.div_ceil(2) + i];
                        assert_eq!(got.to_bits(), expected.to_bits(), "{isa} {k} ({r}, {i})");
                    }
                }
                assert_eq!(pairs.last(), Some(&7.0));
            }
        }
    }

    #[test]
    fn products_of_pairs_match_f64_of_rounded_operands() {
        for isa in Isa::available().filter(|isa| isa.has_bf16()) {
            for m in (0..=13).chain([25]) {
                for (n, k) in [(1, 3), (17, 5), (32, 9), (33, 0), (48, 64), (97, 31), (50, 258)] {
                    let (a, b) = (noise(m * k, 1), noise(k * n, 2));
                    for view in [BView::row_major(&b, n), BView::transposed(&b, k)] {
                        let layout = pairs_layout(isa, k, n);
                        let mut packed = vec![f32::NAN; layout.len()];
                        pack_pairs(layout, k, view, &mut packed);
                        let mut pairs = vec![0.0; m * layout.k()];
                        // SAFETY: the rows are those of `a`.
                        unsafe { pair_rows(isa, a.as_ptr(), k, m, k, &mut pairs) };
                        let mut c = vec![0.0; m * n];
                        let g = Gemm {
                            m,
                            a: pairs.as_ptr(),
                            a_stride: layout.k(),
                            layout,
                            b: &packed,
                            c: c.as_mut_ptr(),
                            c_stride: n,
                            bf16_pairs: true,
                            epilogue: Epilogue::default(),
                        };
                        // SAFETY: the vectors cover the matrices.
                        unsafe { run(isa, &g, 0..m, layout.all_panels()) };
                        for (at, got) in c.iter().enumerate() {
                            let (i, j) = (at / n, at % n);
                            let wanted: f64 = (0..k)
                                .map(|l| {
                                    let y = view.data[l * view.row_stride + j * view.col_stride];
                                    bf16::from_f32(a[i * k + l]).to_f64()
                                        * bf16::from_f32(y).to_f64()
                                })
                                .sum();
                            let error = (f64::from(*got) - wanted).abs();
                            assert!(
                                error <= 1e-6 * (1.0 + k as f64),
                                "{m} {n} {k}: {got}, {wanted}"
                            );
                        }
                    }
                }
            }
        }
    }
}
