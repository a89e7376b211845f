//! Transposition of tiles of up to 16 source-contiguous elements, in registers for 4-byte ones.
#![allow(unsafe_code, reason = "intrinsics and computed offsets")]

use crate::simd::Isa;

/// Writes `n <= 16` rows of `len` elements: row `i`, column `j` is source element `i` of the
/// group at `x + j * x_stride`.
///
/// # Safety
/// For every `j < len`, `n` elements of `size` bytes must be readable at `x + j * x_stride`; for
/// every `i < n`, `len` elements must be writable at `y + i * y_stride`. Strides are in bytes.
#[inline(always)]
pub(crate) unsafe fn rows(
    isa: Isa,
    size: usize,
    x: *const u8,
    x_stride: isize,
    y: *mut u8,
    y_stride: isize,
    n: usize,
    len: usize,
) {
    // SAFETY: the caller's contract, passed on; the ISA token proves the instructions.
    unsafe {
        match size {
            #[cfg(target_arch = "x86_64")]
            4 if n == 16 && isa.has_avx512() => x86::rows16(x, x_stride, y, y_stride, len),
            #[cfg(target_arch = "x86_64")]
            4 if n >= 8 && isa.has_avx2() => {
                x86::rows8(x, x_stride, y, y_stride, len);
                let (x, y) = (x.add(32), y.offset(8 * y_stride));
                if n == 16 {
                    x86::rows8(x, x_stride, y, y_stride, len);
                } else {
                    plain::<u32>(x, x_stride, y, y_stride, n - 8, len);
                }
            }
            1 => plain::<u8>(x, x_stride, y, y_stride, n, len),
            2 => plain::<u16>(x, x_stride, y, y_stride, n, len),
            4 => plain::<u32>(x, x_stride, y, y_stride, n, len),
            _ => plain::<u64>(x, x_stride, y, y_stride, n, len),
        }
    }
    let _ = isa;
}

/// # Safety
/// As for [`rows`], with elements the size of `T`.
#[inline(always)]
unsafe fn plain<T: Copy>(
    x: *const u8,
    x_stride: isize,
    y: *mut u8,
    y_stride: isize,
    n: usize,
    len: usize,
) {
    let mut j = 0;
    while j < len {
        let m = (len - j).min(16);
        for i in 0..n {
            for k in j..j + m {
                // SAFETY: i < n and k < len, within the caller's contract.
                unsafe {
                    let v = x.offset(k as isize * x_stride).cast::<T>().add(i).read_unaligned();
                    y.offset(i as isize * y_stride).cast::<T>().add(k).write_unaligned(v);
                }
            }
        }
        j += m;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64 as arch;

    /// # Safety
    /// As for [`super::rows`] with `size` 4 and `n` 16; the processor must have AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn rows16(
        x: *const u8,
        x_stride: isize,
        y: *mut u8,
        y_stride: isize,
        len: usize,
    ) {
        let mut j = 0;
        while j < len {
            let m = (len - j).min(16);
            let mut r = [arch::_mm512_setzero_ps(); 16];
            for k in 0..m {
                // SAFETY: column j + k < len has 16 readable elements.
                r[k] =
                    unsafe { arch::_mm512_loadu_ps(x.offset((j + k) as isize * x_stride).cast()) };
            }
            let r = transpose16(r);
            let mask = (u32::MAX >> (32 - m)) as arch::__mmask16;
            for (i, r) in r.iter().enumerate() {
                // SAFETY: row i < 16 has `len` writable elements; lanes beyond m are masked.
                unsafe {
                    let p = y.offset(i as isize * y_stride).cast::<f32>().add(j);
                    arch::_mm512_mask_storeu_ps(p, mask, *r);
                }
            }
            j += m;
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn transpose16(r: [arch::__m512; 16]) -> [arch::__m512; 16] {
        let mut t = r;
        for i in 0..8 {
            t[2 * i] = arch::_mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = arch::_mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let mut u = t;
        for i in 0..4 {
            let pd = |v: arch::__m512| arch::_mm512_castps_pd(v);
            let ps = |v: arch::__m512d| arch::_mm512_castpd_ps(v);
            let b = 4 * i;
            u[b] = ps(arch::_mm512_unpacklo_pd(pd(t[b]), pd(t[b + 2])));
            u[b + 1] = ps(arch::_mm512_unpackhi_pd(pd(t[b]), pd(t[b + 2])));
            u[b + 2] = ps(arch::_mm512_unpacklo_pd(pd(t[b + 1]), pd(t[b + 3])));
            u[b + 3] = ps(arch::_mm512_unpackhi_pd(pd(t[b + 1]), pd(t[b + 3])));
        }
        let mut v = u;
        for i in 0..4 {
            v[i] = arch::_mm512_shuffle_f32x4::<0x88>(u[i], u[4 + i]);
            v[4 + i] = arch::_mm512_shuffle_f32x4::<0xdd>(u[i], u[4 + i]);
            v[8 + i] = arch::_mm512_shuffle_f32x4::<0x88>(u[8 + i], u[12 + i]);
            v[12 + i] = arch::_mm512_shuffle_f32x4::<0xdd>(u[8 + i], u[12 + i]);
        }
        let mut w = v;
        for i in 0..4 {
            w[i] = arch::_mm512_shuffle_f32x4::<0x88>(v[i], v[8 + i]);
            w[4 + i] = arch::_mm512_shuffle_f32x4::<0x88>(v[4 + i], v[12 + i]);
            w[8 + i] = arch::_mm512_shuffle_f32x4::<0xdd>(v[i], v[8 + i]);
            w[12 + i] = arch::_mm512_shuffle_f32x4::<0xdd>(v[4 + i], v[12 + i]);
        }
        w
    }

    /// # Safety
    /// As for [`super::rows`] with `size` 4 and `n` 8; the processor must have AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn rows8(
        x: *const u8,
        x_stride: isize,
        y: *mut u8,
        y_stride: isize,
        len: usize,
    ) {
        let mut j = 0;
        while j + 8 <= len {
            let mut r = [arch::_mm256_setzero_ps(); 8];
            for (k, r) in r.iter_mut().enumerate() {
                // SAFETY: column j + k < len has 8 readable elements.
                *r = unsafe { arch::_mm256_loadu_ps(x.offset((j + k) as isize * x_stride).cast()) };
            }
            for (i, r) in transpose8(r).iter().enumerate() {
                // SAFETY: row i < 8 has 8 writable elements from j.
                unsafe {
                    arch::_mm256_storeu_ps(
                        y.offset(i as isize * y_stride).cast::<f32>().add(j),
                        *r,
                    );
                }
            }
            j += 8;
        }
        // SAFETY: the columns from j on, within the caller's contract.
        unsafe {
            let y = y.add(4 * j);
            super::plain::<u32>(x.offset(j as isize * x_stride), x_stride, y, y_stride, 8, len - j);
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn transpose8(r: [arch::__m256; 8]) -> [arch::__m256; 8] {
        let mut t = r;
        for i in 0..4 {
            t[2 * i] = arch::_mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = arch::_mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let mut u = t;
        for i in 0..2 {
            let b = 4 * i;
            u[b] = arch::_mm256_shuffle_ps::<0x44>(t[b], t[b + 2]);
            u[b + 1] = arch::_mm256_shuffle_ps::<0xee>(t[b], t[b + 2]);
            u[b + 2] = arch::_mm256_shuffle_ps::<0x44>(t[b + 1], t[b + 3]);
            u[b + 3] = arch::_mm256_shuffle_ps::<0xee>(t[b + 1], t[b + 3]);
        }
        let mut v = u;
        for i in 0..4 {
            v[i] = arch::_mm256_permute2f128_ps::<0x20>(u[i], u[4 + i]);
            v[4 + i] = arch::_mm256_permute2f128_ps::<0x31>(u[i], u[4 + i]);
        }
        v
    }
}
