//! Vector operations on small integers: 32-bit sums, and bytes on their way from and to f32.
#![allow(unsafe_code, reason = "intrinsics and unaligned vector loads and stores")]

use crate::simd::bits::Bits;
use crate::simd::lanes::Portable;

/// Operations of quantized kernels beyond [`Bits`].
pub trait Bytes: Bits {
    /// A vector of `LEN` i32.
    type I: Copy;

    /// All lanes `x`.
    fn splat_i32(self, x: i32) -> Self::I;
    /// Loads the first `n <= LEN` lanes; the others are zero.
    ///
    /// # Safety
    /// `p` must be valid for reading `n` elements.
    unsafe fn load_i32(self, p: *const i32, n: usize) -> Self::I;
    /// Stores the first `n <= LEN` lanes.
    ///
    /// # Safety
    /// `p` must be valid for writing `n` elements.
    unsafe fn store_i32(self, p: *mut i32, v: Self::I, n: usize);
    /// `a + b`, wrapping.
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a * b`, wrapping.
    fn mul_i32(self, a: Self::I, b: Self::I) -> Self::I;
    /// The nearest f32, halves to even.
    fn to_f32(self, a: Self::I) -> Self::F;
    /// The first `n <= LEN` bytes as numbers in 0..=255; the other lanes are zero.
    ///
    /// # Safety
    /// `p` must be valid for reading `n` elements.
    unsafe fn load_u8(self, p: *const u8, n: usize) -> Self::F;
    /// The first `n <= LEN` bytes as numbers in -128..=127; the other lanes are zero.
    ///
    /// # Safety
    /// `p` must be valid for reading `n` elements.
    unsafe fn load_i8(self, p: *const i8, n: usize) -> Self::F;
    /// Stores the low byte of the first `n <= LEN` lanes, which hold integers of at most 31 bits; NaN becomes 0.
    ///
    /// # Safety
    /// `p` must be valid for writing `n` elements.
    unsafe fn store_byte(self, p: *mut u8, v: Self::F, n: usize);
}

impl Bytes for Portable {
    type I = [i32; 8];

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load_i32(self, p: *const i32, n: usize) -> Self::I {
        let mut r = [0; 8];
        for (i, r) in r.iter_mut().enumerate().take(n) {
            // SAFETY: the caller gives n readable elements.
            *r = unsafe { p.add(i).read_unaligned() };
        }
        r
    }
    #[inline(always)]
    unsafe fn store_i32(self, p: *mut i32, v: Self::I, n: usize) {
        for (i, v) in v.iter().enumerate().take(n) {
            // SAFETY: the caller gives n writable elements.
            unsafe { p.add(i).write_unaligned(*v) };
        }
    }
    #[inline(always)]
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I {
        let mut r = a;
        for (r, b) in r.iter_mut().zip(b) {
            *r = r.wrapping_add(b);
        }
        r
    }
    #[inline(always)]
    fn mul_i32(self, a: Self::I, b: Self::I) -> Self::I {
        let mut r = a;
        for (r, b) in r.iter_mut().zip(b) {
            *r = r.wrapping_mul(b);
        }
        r
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        a.map(|x| x as f32)
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8, n: usize) -> Self::F {
        let mut r = [0.0; 8];
        for (i, r) in r.iter_mut().enumerate().take(n) {
            // SAFETY: the caller gives n readable elements.
            *r = f32::from(unsafe { p.add(i).read() });
        }
        r
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8, n: usize) -> Self::F {
        let mut r = [0.0; 8];
        for (i, r) in r.iter_mut().enumerate().take(n) {
            // SAFETY: the caller gives n readable elements.
            *r = f32::from(unsafe { p.add(i).read() });
        }
        r
    }
    #[inline(always)]
    unsafe fn store_byte(self, p: *mut u8, v: Self::F, n: usize) {
        for (i, v) in v.iter().enumerate().take(n) {
            // SAFETY: the caller gives n writable elements.
            unsafe { p.add(i).write(*v as i32 as u8) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64 as arch;

    use super::Bytes;
    use crate::simd::lanes::{Avx2, Avx512};

    /// Up to eight bytes as one number, zeros behind them.
    #[inline(always)]
    unsafe fn low_bytes(p: *const u8, n: usize) -> u64 {
        if n >= 8 {
            // SAFETY: the caller gives at least 8 readable bytes.
            return unsafe { p.cast::<u64>().read_unaligned() };
        }
        let mut bytes = [0; 8];
        for (i, b) in bytes.iter_mut().enumerate().take(n) {
            // SAFETY: the caller gives n readable bytes.
            *b = unsafe { p.add(i).read() };
        }
        u64::from_le_bytes(bytes)
    }

    impl Bytes for Avx2 {
        type I = arch::__m256i;

        #[inline(always)]
        fn splat_i32(self, x: i32) -> Self::I {
            // SAFETY: the token proves AVX2.
            unsafe { arch::_mm256_set1_epi32(x) }
        }
        #[inline(always)]
        unsafe fn load_i32(self, p: *const i32, n: usize) -> Self::I {
            let mut r = [0i32; 8];
            // SAFETY: the caller gives n readable elements; the array holds 8.
            unsafe {
                if n >= 8 {
                    return p.cast::<arch::__m256i>().read_unaligned();
                }
                std::ptr::copy_nonoverlapping(p, r.as_mut_ptr(), n);
                r.as_ptr().cast::<arch::__m256i>().read_unaligned()
            }
        }
        #[inline(always)]
        unsafe fn store_i32(self, p: *mut i32, v: Self::I, n: usize) {
            let mut r = [0i32; 8];
            // SAFETY: the caller gives n writable elements; the array holds 8.
            unsafe {
                if n >= 8 {
                    p.cast::<arch::__m256i>().write_unaligned(v);
                    return;
                }
                r.as_mut_ptr().cast::<arch::__m256i>().write_unaligned(v);
                std::ptr::copy_nonoverlapping(r.as_ptr(), p, n);
            }
        }
        #[inline(always)]
        fn add_i32(self, a: Self::I, b: Self::I) -> Self::I {
            // SAFETY: the token proves AVX2.
            unsafe { arch::_mm256_add_epi32(a, b) }
        }
        #[inline(always)]
        fn mul_i32(self, a: Self::I, b: Self::I) -> Self::I {
            // SAFETY: the token proves AVX2.
            unsafe { arch::_mm256_mullo_epi32(a, b) }
        }
        #[inline(always)]
        fn to_f32(self, a: Self::I) -> Self::F {
            // SAFETY: the token proves AVX2.
            unsafe { arch::_mm256_cvtepi32_ps(a) }
        }
        #[inline(always)]
        unsafe fn load_u8(self, p: *const u8, n: usize) -> Self::F {
            // SAFETY: the caller gives n readable bytes; the token proves AVX2.
            unsafe {
                let x = arch::_mm_cvtsi64_si128(low_bytes(p, n).cast_signed());
                arch::_mm256_cvtepi32_ps(arch::_mm256_cvtepu8_epi32(x))
            }
        }
        #[inline(always)]
        unsafe fn load_i8(self, p: *const i8, n: usize) -> Self::F {
            // SAFETY: the caller gives n readable bytes; the token proves AVX2.
            unsafe {
                let x = arch::_mm_cvtsi64_si128(low_bytes(p.cast(), n).cast_signed());
                arch::_mm256_cvtepi32_ps(arch::_mm256_cvtepi8_epi32(x))
            }
        }
        #[inline(always)]
        unsafe fn store_byte(self, p: *mut u8, v: Self::F, n: usize) {
            // SAFETY: the caller gives n writable bytes; the token proves AVX2.
            unsafe {
                let low = arch::_mm256_and_si256(
                    arch::_mm256_cvtps_epi32(v),
                    arch::_mm256_set1_epi32(255),
                );
                let words = arch::_mm_packus_epi32(
                    arch::_mm256_castsi256_si128(low),
                    arch::_mm256_extracti128_si256::<1>(low),
                );
                let bytes = arch::_mm_cvtsi128_si64(arch::_mm_packus_epi16(words, words));
                if n >= 8 {
                    p.cast::<i64>().write_unaligned(bytes);
                    return;
                }
                let bytes = bytes.to_le_bytes();
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, n);
            }
        }
    }

    #[inline(always)]
    fn mask16(n: usize) -> arch::__mmask16 {
        debug_assert!(n <= 16);
        ((1u32 << n.min(16)) - 1) as arch::__mmask16
    }

    impl Bytes for Avx512 {
        type I = arch::__m512i;

        #[inline(always)]
        fn splat_i32(self, x: i32) -> Self::I {
            // SAFETY: the token proves AVX-512 F.
            unsafe { arch::_mm512_set1_epi32(x) }
        }
        #[inline(always)]
        unsafe fn load_i32(self, p: *const i32, n: usize) -> Self::I {
            // SAFETY: the caller gives n readable elements; masked lanes are not touched.
            unsafe { arch::_mm512_maskz_loadu_epi32(mask16(n), p) }
        }
        #[inline(always)]
        unsafe fn store_i32(self, p: *mut i32, v: Self::I, n: usize) {
            // SAFETY: the caller gives n writable elements; masked lanes are not touched.
            unsafe { arch::_mm512_mask_storeu_epi32(p, mask16(n), v) }
        }
        #[inline(always)]
        fn add_i32(self, a: Self::I, b: Self::I) -> Self::I {
            // SAFETY: the token proves AVX-512 F.
            unsafe { arch::_mm512_add_epi32(a, b) }
        }
        #[inline(always)]
        fn mul_i32(self, a: Self::I, b: Self::I) -> Self::I {
            // SAFETY: the token proves AVX-512 F.
            unsafe { arch::_mm512_mullo_epi32(a, b) }
        }
        #[inline(always)]
        fn to_f32(self, a: Self::I) -> Self::F {
            // SAFETY: the token proves AVX-512 F.
            unsafe { arch::_mm512_cvtepi32_ps(a) }
        }
        #[inline(always)]
        unsafe fn load_u8(self, p: *const u8, n: usize) -> Self::F {
            // SAFETY: the caller gives n readable bytes; masked bytes are not touched.
            unsafe {
                let x = arch::_mm_maskz_loadu_epi8(mask16(n), p.cast());
                arch::_mm512_cvtepi32_ps(arch::_mm512_cvtepu8_epi32(x))
            }
        }
        #[inline(always)]
        unsafe fn load_i8(self, p: *const i8, n: usize) -> Self::F {
            // SAFETY: the caller gives n readable bytes; masked bytes are not touched.
            unsafe {
                let x = arch::_mm_maskz_loadu_epi8(mask16(n), p);
                arch::_mm512_cvtepi32_ps(arch::_mm512_cvtepi8_epi32(x))
            }
        }
        #[inline(always)]
        unsafe fn store_byte(self, p: *mut u8, v: Self::F, n: usize) {
            // SAFETY: the caller gives n writable bytes; masked bytes are not touched.
            unsafe {
                let bytes = arch::_mm512_cvtepi32_epi8(arch::_mm512_cvtps_epi32(v));
                arch::_mm_mask_storeu_epi8(p.cast(), mask16(n), bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::simd::Isa;
    use crate::simd::bytes::Bytes;
    use crate::simd::lanes::instantiate;

    #[inline(always)]
    fn body<S: Bytes>(s: S, x: &[u8], signed: bool, sums: &mut [i32], back: &mut [u8]) {
        let mut i = 0;
        while i < x.len() {
            let n = S::LEN.min(x.len() - i);
            // SAFETY: n elements are left in the equally long slices.
            unsafe {
                let p = x.as_ptr().add(i);
                let v = if signed { s.load_i8(p.cast(), n) } else { s.load_u8(p, n) };
                s.store_byte(back.as_mut_ptr().add(i), v, n);
                let sum = s.load_i32(sums.as_ptr().add(i), n);
                let sum = s.mul_i32(s.add_i32(sum, s.splat_i32(i32::MAX)), s.splat_i32(3));
                s.store_i32(sums.as_mut_ptr().add(i), sum, n);
            }
            i += n;
        }
    }
    instantiate! { fn through(x: &[u8], signed: bool, sums: &mut [i32], back: &mut [u8]) = body; }

    #[test]
    fn bytes_go_through_floats_and_sums_wrap() {
        for isa in Isa::available() {
            for len in [0, 1, 7, 8, 15, 16, 17, 256] {
                for signed in [false, true] {
                    let x: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
                    let mut sums: Vec<i32> = (0..len).map(|i| i - 5).collect();
                    let expected: Vec<i32> =
                        sums.iter().map(|v| v.wrapping_add(i32::MAX).wrapping_mul(3)).collect();
                    let mut back = vec![1; x.len()];
                    through(isa, &x, signed, &mut sums, &mut back);
                    assert_eq!(back, x, "{isa} {len} {signed}");
                    assert_eq!(sums, expected, "{isa} {len}");
                }
            }
        }
    }
}
