//! Products of groups of four bytes with sums in i32, per instruction set. All of them are exact.
#![allow(unsafe_code, reason = "intrinsics and unaligned vector loads")]

/// Vector operations of an 8-bit product: every lane of a sum takes four products of u8 and s8 at a time.
pub(crate) trait Dot: Copy {
    /// Lanes of a sum.
    const LEN: usize;
    /// A vector of sums.
    type I: Copy;
    /// Four bytes of a row, in all lanes.
    type A: Copy;
    /// Four bytes of each of `LEN` columns.
    type B: Copy;

    /// Sums of zero.
    fn zero(self) -> Self::I;
    /// Four bytes from `p`.
    ///
    /// # Safety
    /// Four bytes must be readable.
    unsafe fn row(self, p: *const u8) -> Self::A;
    /// Four bytes for each column from `p`.
    ///
    /// # Safety
    /// `4 LEN` bytes must be readable.
    unsafe fn columns(self, p: *const i8) -> Self::B;
    /// `sum + Σ a b`
    fn dot(self, sum: Self::I, a: Self::A, b: Self::B) -> Self::I;
    /// Stores `LEN` sums.
    ///
    /// # Safety
    /// `LEN` elements must be writable.
    unsafe fn store(self, p: *mut i32, sum: Self::I);
}

/// Plain Rust on eight columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain;

impl Dot for Plain {
    const LEN: usize = 8;
    type I = [i32; 8];
    type A = [u8; 4];
    type B = [[i8; 4]; 8];

    #[inline(always)]
    fn zero(self) -> Self::I {
        [0; 8]
    }
    #[inline(always)]
    unsafe fn row(self, p: *const u8) -> Self::A {
        // SAFETY: passed on from the caller.
        unsafe { p.cast::<[u8; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn columns(self, p: *const i8) -> Self::B {
        // SAFETY: passed on from the caller.
        unsafe { p.cast::<Self::B>().read() }
    }
    #[inline(always)]
    fn dot(self, sum: Self::I, a: Self::A, b: Self::B) -> Self::I {
        let mut r = sum;
        for (r, b) in r.iter_mut().zip(b) {
            let products = a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(b));
            *r = r.wrapping_add(products.sum::<i32>());
        }
        r
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut i32, sum: Self::I) {
        // SAFETY: passed on from the caller.
        unsafe { p.cast::<Self::I>().write_unaligned(sum) }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Madd256, Madd512, Vnni512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64 as arch;

    use super::Dot;

    macro_rules! token {
        ($(#[$meta:meta])* $name:ident: $needs:literal) => {
            $(#[$meta])*
            #[derive(Clone, Copy, Debug)]
            pub(crate) struct $name(());

            impl $name {
                #[doc = concat!("The token.\n\n# Safety\nThe processor must have ", $needs, ".")]
                #[inline(always)]
                pub(crate) unsafe fn new_unchecked() -> Self {
                    Self(())
                }
            }
        };
    }

    token! {
        /// 16 columns with `vpdpbusd`.
        Vnni512: "AVX-512 F, BW and VNNI"
    }
    token! {
        /// 16 columns; even and odd bytes are widened to 16 bits, so that no pair saturates.
        Madd512: "AVX-512 F and BW"
    }
    token! {
        /// 8 columns; even and odd bytes are widened to 16 bits, so that no pair saturates.
        Madd256: "AVX2"
    }

    impl Dot for Vnni512 {
        const LEN: usize = 16;
        type I = arch::__m512i;
        type A = arch::__m512i;
        type B = arch::__m512i;

        #[inline(always)]
        fn zero(self) -> Self::I {
            // SAFETY: the token proves AVX-512 F.
            unsafe { arch::_mm512_setzero_si512() }
        }
        #[inline(always)]
        unsafe fn row(self, p: *const u8) -> Self::A {
            // SAFETY: the caller gives four readable bytes.
            unsafe { arch::_mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
        }
        #[inline(always)]
        unsafe fn columns(self, p: *const i8) -> Self::B {
            // SAFETY: the caller gives 64 readable bytes.
            unsafe { p.cast::<arch::__m512i>().read_unaligned() }
        }
        #[inline(always)]
        fn dot(self, sum: Self::I, a: Self::A, b: Self::B) -> Self::I {
            // SAFETY: the token proves VNNI.
            unsafe { arch::_mm512_dpbusd_epi32(sum, a, b) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut i32, sum: Self::I) {
            // SAFETY: the caller gives 16 writable elements.
            unsafe { p.cast::<arch::__m512i>().write_unaligned(sum) }
        }
    }

    impl Dot for Madd512 {
        const LEN: usize = 16;
        type I = arch::__m512i;
        /// Even and odd bytes.
        type A = [arch::__m512i; 2];
        type B = [arch::__m512i; 2];

        #[inline(always)]
        fn zero(self) -> Self::I {
            // SAFETY: the token proves AVX-512 F.
            unsafe { arch::_mm512_setzero_si512() }
        }
        #[inline(always)]
        unsafe fn row(self, p: *const u8) -> Self::A {
            // SAFETY: the caller gives four readable bytes; the token proves AVX-512 F.
            unsafe {
                let x = p.cast::<u32>().read_unaligned();
                let half = |x: u32| arch::_mm512_set1_epi32((x & 0x00ff_00ff).cast_signed());
                [half(x), half(x >> 8)]
            }
        }
        #[inline(always)]
        unsafe fn columns(self, p: *const i8) -> Self::B {
            // SAFETY: the caller gives 64 readable bytes; the token proves AVX-512 BW.
            unsafe {
                let x = p.cast::<arch::__m512i>().read_unaligned();
                let even = arch::_mm512_srai_epi16::<8>(arch::_mm512_slli_epi16::<8>(x));
                [even, arch::_mm512_srai_epi16::<8>(x)]
            }
        }
        #[inline(always)]
        fn dot(self, sum: Self::I, a: Self::A, b: Self::B) -> Self::I {
            // SAFETY: the token proves AVX-512 BW.
            unsafe {
                let even = arch::_mm512_madd_epi16(a[0], b[0]);
                let odd = arch::_mm512_madd_epi16(a[1], b[1]);
                arch::_mm512_add_epi32(sum, arch::_mm512_add_epi32(even, odd))
            }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut i32, sum: Self::I) {
            // SAFETY: the caller gives 16 writable elements.
            unsafe { p.cast::<arch::__m512i>().write_unaligned(sum) }
        }
    }

    impl Dot for Madd256 {
        const LEN: usize = 8;
        type I = arch::__m256i;
        /// Even and odd bytes.
        type A = [arch::__m256i; 2];
        type B = [arch::__m256i; 2];

        #[inline(always)]
        fn zero(self) -> Self::I {
            // SAFETY: the token proves AVX2.
            unsafe { arch::_mm256_setzero_si256() }
        }
        #[inline(always)]
        unsafe fn row(self, p: *const u8) -> Self::A {
            // SAFETY: the caller gives four readable bytes; the token proves AVX2.
            unsafe {
                let x = p.cast::<u32>().read_unaligned();
                let half = |x: u32| arch::_mm256_set1_epi32((x & 0x00ff_00ff).cast_signed());
                [half(x), half(x >> 8)]
            }
        }
        #[inline(always)]
        unsafe fn columns(self, p: *const i8) -> Self::B {
            // SAFETY: the caller gives 32 readable bytes; the token proves AVX2.
            unsafe {
                let x = p.cast::<arch::__m256i>().read_unaligned();
                let even = arch::_mm256_srai_epi16::<8>(arch::_mm256_slli_epi16::<8>(x));
                [even, arch::_mm256_srai_epi16::<8>(x)]
            }
        }
        #[inline(always)]
        fn dot(self, sum: Self::I, a: Self::A, b: Self::B) -> Self::I {
            // SAFETY: the token proves AVX2.
            unsafe {
                let even = arch::_mm256_madd_epi16(a[0], b[0]);
                let odd = arch::_mm256_madd_epi16(a[1], b[1]);
                arch::_mm256_add_epi32(sum, arch::_mm256_add_epi32(even, odd))
            }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut i32, sum: Self::I) {
            // SAFETY: the caller gives 8 writable elements.
            unsafe { p.cast::<arch::__m256i>().write_unaligned(sum) }
        }
    }
}
