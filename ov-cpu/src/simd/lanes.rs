//! Vectors of f32 behind one trait, so that a kernel is written once for every level.
#![allow(unsafe_code, reason = "intrinsics and unaligned vector loads and stores")]

use std::fmt;

/// A proof that a level's instructions exist, with the vector operations of that level.
///
/// Kernels are generic `#[inline(always)]` functions over `S: Simd` that
/// `lanes::instantiate!` compiles once per level. `min` and `max` follow
/// the x86 rule: the second operand is returned when either is NaN.
pub trait Simd: Copy + Send + Sync + fmt::Debug {
    /// Lanes of a vector.
    const LEN: usize;
    /// A vector of [`Self::LEN`] f32.
    type F: Copy;
    /// The truth of a comparison per lane.
    type M: Copy;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F;
    /// Loads a vector.
    ///
    /// # Safety
    /// `p` must be valid for reading `LEN` elements.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// Loads the first `n <= LEN` lanes; the others are zero.
    ///
    /// # Safety
    /// `p` must be valid for reading `n` elements.
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::F;
    /// Stores a vector.
    ///
    /// # Safety
    /// `p` must be valid for writing `LEN` elements.
    unsafe fn store(self, p: *mut f32, v: Self::F);
    /// Stores the first `n <= LEN` lanes.
    ///
    /// # Safety
    /// `p` must be valid for writing `n` elements.
    unsafe fn store_n(self, p: *mut f32, v: Self::F, n: usize);
    /// `a + b`
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the level has FMA.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller; `b` if either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger; `b` if either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// Square root.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// Absolute value.
    fn abs(self, a: Self::F) -> Self::F;
    /// `-a`, also for zeros.
    fn neg(self, a: Self::F) -> Self::F;
    /// Largest integer not above.
    fn floor(self, a: Self::F) -> Self::F;
    /// Smallest integer not below.
    fn ceil(self, a: Self::F) -> Self::F;
    /// Nearest integer, halves to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `a < b`
    fn lt(self, a: Self::F, b: Self::F) -> Self::M;
    /// `a <= b`
    fn le(self, a: Self::F, b: Self::F) -> Self::M;
    /// `a == b`
    fn eq(self, a: Self::F, b: Self::F) -> Self::M;
    /// `a` where `m`, else `b`.
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F;
    /// One bit per lane, lane 0 lowest.
    fn bits(self, m: Self::M) -> u32;
    /// Sum of the lanes.
    fn sum(self, a: Self::F) -> f32;
    /// Largest lane; unspecified with NaN.
    fn max_lane(self, a: Self::F) -> f32;
    /// Smallest lane; unspecified with NaN.
    fn min_lane(self, a: Self::F) -> f32;

    /// All lanes zero.
    #[inline(always)]
    fn zero(self) -> Self::F {
        self.splat(0.0)
    }
    /// Loads from a slice of at least `LEN` elements.
    ///
    /// # Panics
    /// If the slice is shorter.
    #[inline(always)]
    fn load_slice(self, x: &[f32]) -> Self::F {
        assert!(x.len() >= Self::LEN, "slice shorter than a vector");
        // SAFETY: the length was checked on the line before.
        unsafe { self.load(x.as_ptr()) }
    }
    /// Stores to a slice of at least `LEN` elements.
    ///
    /// # Panics
    /// If the slice is shorter.
    #[inline(always)]
    fn store_slice(self, x: &mut [f32], v: Self::F) {
        assert!(x.len() >= Self::LEN, "slice shorter than a vector");
        // SAFETY: the length was checked on the line before.
        unsafe { self.store(x.as_mut_ptr(), v) }
    }
}

/// Plain Rust on arrays of 8, compiled for the target's baseline.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

const P: usize = 8;

#[inline(always)]
fn each1(a: [f32; P], f: impl Fn(f32) -> f32) -> [f32; P] {
    let mut r = a;
    for x in &mut r {
        *x = f(*x);
    }
    r
}

#[inline(always)]
fn each2(a: [f32; P], b: [f32; P], f: impl Fn(f32, f32) -> f32) -> [f32; P] {
    let mut r = a;
    for i in 0..P {
        r[i] = f(a[i], b[i]);
    }
    r
}

#[inline(always)]
fn test2(a: [f32; P], b: [f32; P], f: impl Fn(f32, f32) -> bool) -> [u32; P] {
    let mut r = [0; P];
    for i in 0..P {
        r[i] = if f(a[i], b[i]) { u32::MAX } else { 0 };
    }
    r
}

/// 1.5 * 2^23: adding and subtracting it rounds |x| < 2^22 to the nearest even integer.
const ROUND_MAGIC: f32 = 12_582_912.0;

impl Simd for Portable {
    const LEN: usize = P;
    type F = [f32; P];
    type M = [u32; P];

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; P] {
        [x; P]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; P] {
        // SAFETY: the caller gives LEN readable elements; any alignment is accepted.
        unsafe { p.cast::<[f32; P]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> [f32; P] {
        debug_assert!(n <= P);
        let mut r = [0.0; P];
        for (i, x) in r.iter_mut().enumerate().take(n) {
            // SAFETY: the caller gives n readable elements.
            *x = unsafe { p.add(i).read() };
        }
        r
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: [f32; P]) {
        // SAFETY: the caller gives LEN writable elements; any alignment is accepted.
        unsafe { p.cast::<[f32; P]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, v: [f32; P], n: usize) {
        debug_assert!(n <= P);
        for (i, x) in v.iter().enumerate().take(n) {
            // SAFETY: the caller gives n writable elements.
            unsafe { p.add(i).write(*x) };
        }
    }
    #[inline(always)]
    fn add(self, a: [f32; P], b: [f32; P]) -> [f32; P] {
        each2(a, b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, a: [f32; P], b: [f32; P]) -> [f32; P] {
        each2(a, b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, a: [f32; P], b: [f32; P]) -> [f32; P] {
        each2(a, b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, a: [f32; P], b: [f32; P]) -> [f32; P] {
        each2(a, b, |x, y| x / y)
    }
    #[inline(always)]
    fn fma(self, a: [f32; P], b: [f32; P], c: [f32; P]) -> [f32; P] {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn min(self, a: [f32; P], b: [f32; P]) -> [f32; P] {
        each2(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn max(self, a: [f32; P], b: [f32; P]) -> [f32; P] {
        each2(a, b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn sqrt(self, a: [f32; P]) -> [f32; P] {
        each1(a, f32::sqrt)
    }
    #[inline(always)]
    fn abs(self, a: [f32; P]) -> [f32; P] {
        each1(a, f32::abs)
    }
    #[inline(always)]
    fn neg(self, a: [f32; P]) -> [f32; P] {
        each1(a, |x| -x)
    }
    #[inline(always)]
    fn floor(self, a: [f32; P]) -> [f32; P] {
        let r = self.round(a);
        each2(a, r, |x, r| if r > x { r - 1.0 } else { r })
    }
    #[inline(always)]
    fn ceil(self, a: [f32; P]) -> [f32; P] {
        let r = self.round(a);
        each2(a, r, |x, r| if r < x { (r + 1.0).copysign(x) } else { r })
    }
    #[inline(always)]
    fn round(self, a: [f32; P]) -> [f32; P] {
        each1(a, |x| {
            let magic = ROUND_MAGIC.copysign(x);
            let r = ((x + magic) - magic).copysign(x);
            if x.abs() < 4_194_304.0 { r } else { x.round_ties_even() }
        })
    }
    #[inline(always)]
    fn lt(self, a: [f32; P], b: [f32; P]) -> [u32; P] {
        test2(a, b, |x, y| x < y)
    }
    #[inline(always)]
    fn le(self, a: [f32; P], b: [f32; P]) -> [u32; P] {
        test2(a, b, |x, y| x <= y)
    }
    #[inline(always)]
    fn eq(self, a: [f32; P], b: [f32; P]) -> [u32; P] {
        test2(a, b, |x, y| x == y)
    }
    #[inline(always)]
    fn select(self, m: [u32; P], a: [f32; P], b: [f32; P]) -> [f32; P] {
        let mut r = b;
        for i in 0..P {
            r[i] = f32::from_bits((a[i].to_bits() & m[i]) | (b[i].to_bits() & !m[i]));
        }
        r
    }
    #[inline(always)]
    fn bits(self, m: [u32; P]) -> u32 {
        m.iter().enumerate().fold(0, |r, (i, x)| r | (x & 1) << i)
    }
    #[inline(always)]
    fn sum(self, a: [f32; P]) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    fn max_lane(self, a: [f32; P]) -> f32 {
        a.iter().fold(f32::NEG_INFINITY, |m, x| if *x > m { *x } else { m })
    }
    #[inline(always)]
    fn min_lane(self, a: [f32; P]) -> f32 {
        a.iter().fold(f32::INFINITY, |m, x| if *x < m { *x } else { m })
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64 as arch;

    use super::Simd;

    /// 8 lanes with AVX2 and FMA.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx2(());

    /// 16 lanes with AVX-512 F, BW, DQ and VL.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx512(());

    impl Avx2 {
        /// The token.
        ///
        /// # Safety
        /// The processor must have AVX2 and FMA.
        #[inline(always)]
        #[must_use]
        pub unsafe fn new_unchecked() -> Self {
            Self(())
        }
        #[inline(always)]
        fn lane_mask(self, n: usize) -> arch::__m256i {
            debug_assert!(n <= 8);
            static ONES_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
            // SAFETY: 8 elements follow index 8 - n for n <= 8; the token proves AVX.
            unsafe {
                ONES_ZEROS.as_ptr().add(8 - n.min(8)).cast::<arch::__m256i>().read_unaligned()
            }
        }
    }

    impl Avx512 {
        /// The token.
        ///
        /// # Safety
        /// The processor must have AVX-512 F, BW, DQ and VL.
        #[inline(always)]
        #[must_use]
        pub unsafe fn new_unchecked() -> Self {
            Self(())
        }
    }

    macro_rules! with_token {
        ($(fn $name:ident($($a:ident: $t:ty),*) -> $r:ty = $e:expr;)*) => {
            $(#[inline(always)]
            fn $name(self, $($a: $t),*) -> $r {
                // SAFETY: the token proves that the level's instructions exist.
                unsafe { $e }
            })*
        };
    }

    impl Simd for Avx2 {
        const LEN: usize = 8;
        type F = arch::__m256;
        type M = arch::__m256;

        #[inline(always)]
        unsafe fn load(self, p: *const f32) -> Self::F {
            // SAFETY: the caller gives LEN readable elements.
            unsafe { p.cast::<arch::__m256>().read_unaligned() }
        }
        #[inline(always)]
        unsafe fn load_n(self, p: *const f32, n: usize) -> Self::F {
            // SAFETY: the caller gives n readable elements; masked lanes are not touched.
            unsafe { arch::_mm256_maskload_ps(p, self.lane_mask(n)) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32, v: Self::F) {
            // SAFETY: the caller gives LEN writable elements.
            unsafe { p.cast::<arch::__m256>().write_unaligned(v) }
        }
        #[inline(always)]
        unsafe fn store_n(self, p: *mut f32, v: Self::F, n: usize) {
            // SAFETY: the caller gives n writable elements; masked lanes are not touched.
            unsafe { arch::_mm256_maskstore_ps(p, self.lane_mask(n), v) }
        }
        with_token! {
            fn splat(x: f32) -> Self::F = arch::_mm256_set1_ps(x);
            fn add(a: Self::F, b: Self::F) -> Self::F = arch::_mm256_add_ps(a, b);
            fn sub(a: Self::F, b: Self::F) -> Self::F = arch::_mm256_sub_ps(a, b);
            fn mul(a: Self::F, b: Self::F) -> Self::F = arch::_mm256_mul_ps(a, b);
            fn div(a: Self::F, b: Self::F) -> Self::F = arch::_mm256_div_ps(a, b);
            fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F = arch::_mm256_fmadd_ps(a, b, c);
            fn min(a: Self::F, b: Self::F) -> Self::F = arch::_mm256_min_ps(a, b);
            fn max(a: Self::F, b: Self::F) -> Self::F = arch::_mm256_max_ps(a, b);
            fn sqrt(a: Self::F) -> Self::F = arch::_mm256_sqrt_ps(a);
            fn abs(a: Self::F) -> Self::F = arch::_mm256_andnot_ps(arch::_mm256_set1_ps(-0.0), a);
            fn neg(a: Self::F) -> Self::F = arch::_mm256_xor_ps(arch::_mm256_set1_ps(-0.0), a);
            fn floor(a: Self::F) -> Self::F = arch::_mm256_floor_ps(a);
            fn ceil(a: Self::F) -> Self::F = arch::_mm256_ceil_ps(a);
            fn round(a: Self::F) -> Self::F = arch::_mm256_round_ps::<8>(a);
            fn lt(a: Self::F, b: Self::F) -> Self::M = arch::_mm256_cmp_ps::<{ arch::_CMP_LT_OQ }>(a, b);
            fn le(a: Self::F, b: Self::F) -> Self::M = arch::_mm256_cmp_ps::<{ arch::_CMP_LE_OQ }>(a, b);
            fn eq(a: Self::F, b: Self::F) -> Self::M = arch::_mm256_cmp_ps::<{ arch::_CMP_EQ_OQ }>(a, b);
            fn select(m: Self::M, a: Self::F, b: Self::F) -> Self::F = arch::_mm256_blendv_ps(b, a, m);
            fn bits(m: Self::M) -> u32 = arch::_mm256_movemask_ps(m).cast_unsigned();
            fn sum(a: Self::F) -> f32 = {
                let h = arch::_mm_add_ps(arch::_mm256_castps256_ps128(a), arch::_mm256_extractf128_ps::<1>(a));
                let h = arch::_mm_add_ps(h, arch::_mm_movehl_ps(h, h));
                arch::_mm_cvtss_f32(arch::_mm_add_ss(h, arch::_mm_movehdup_ps(h)))
            };
            fn max_lane(a: Self::F) -> f32 = {
                let h = arch::_mm_max_ps(arch::_mm256_castps256_ps128(a), arch::_mm256_extractf128_ps::<1>(a));
                let h = arch::_mm_max_ps(h, arch::_mm_movehl_ps(h, h));
                arch::_mm_cvtss_f32(arch::_mm_max_ss(h, arch::_mm_movehdup_ps(h)))
            };
            fn min_lane(a: Self::F) -> f32 = {
                let h = arch::_mm_min_ps(arch::_mm256_castps256_ps128(a), arch::_mm256_extractf128_ps::<1>(a));
                let h = arch::_mm_min_ps(h, arch::_mm_movehl_ps(h, h));
                arch::_mm_cvtss_f32(arch::_mm_min_ss(h, arch::_mm_movehdup_ps(h)))
            };
        }
    }

    #[inline(always)]
    fn mask16(n: usize) -> arch::__mmask16 {
        debug_assert!(n <= 16);
        ((1u32 << n.min(16)) - 1) as arch::__mmask16
    }

    impl Simd for Avx512 {
        const LEN: usize = 16;
        type F = arch::__m512;
        type M = arch::__mmask16;

        #[inline(always)]
        unsafe fn load(self, p: *const f32) -> Self::F {
            // SAFETY: the caller gives LEN readable elements.
            unsafe { p.cast::<arch::__m512>().read_unaligned() }
        }
        #[inline(always)]
        unsafe fn load_n(self, p: *const f32, n: usize) -> Self::F {
            // SAFETY: the caller gives n readable elements; masked lanes are not touched.
            unsafe { arch::_mm512_maskz_loadu_ps(mask16(n), p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32, v: Self::F) {
            // SAFETY: the caller gives LEN writable elements.
            unsafe { p.cast::<arch::__m512>().write_unaligned(v) }
        }
        #[inline(always)]
        unsafe fn store_n(self, p: *mut f32, v: Self::F, n: usize) {
            // SAFETY: the caller gives n writable elements; masked lanes are not touched.
            unsafe { arch::_mm512_mask_storeu_ps(p, mask16(n), v) }
        }
        #[inline(always)]
        fn bits(self, m: Self::M) -> u32 {
            u32::from(m)
        }
        with_token! {
            fn splat(x: f32) -> Self::F = arch::_mm512_set1_ps(x);
            fn add(a: Self::F, b: Self::F) -> Self::F = arch::_mm512_add_ps(a, b);
            fn sub(a: Self::F, b: Self::F) -> Self::F = arch::_mm512_sub_ps(a, b);
            fn mul(a: Self::F, b: Self::F) -> Self::F = arch::_mm512_mul_ps(a, b);
            fn div(a: Self::F, b: Self::F) -> Self::F = arch::_mm512_div_ps(a, b);
            fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F = arch::_mm512_fmadd_ps(a, b, c);
            fn min(a: Self::F, b: Self::F) -> Self::F = arch::_mm512_min_ps(a, b);
            fn max(a: Self::F, b: Self::F) -> Self::F = arch::_mm512_max_ps(a, b);
            fn sqrt(a: Self::F) -> Self::F = arch::_mm512_sqrt_ps(a);
            fn abs(a: Self::F) -> Self::F = arch::_mm512_abs_ps(a);
            fn neg(a: Self::F) -> Self::F = arch::_mm512_xor_ps(arch::_mm512_set1_ps(-0.0), a);
            fn floor(a: Self::F) -> Self::F = arch::_mm512_roundscale_ps::<9>(a);
            fn ceil(a: Self::F) -> Self::F = arch::_mm512_roundscale_ps::<10>(a);
            fn round(a: Self::F) -> Self::F = arch::_mm512_roundscale_ps::<8>(a);
            fn lt(a: Self::F, b: Self::F) -> Self::M = arch::_mm512_cmp_ps_mask::<{ arch::_CMP_LT_OQ }>(a, b);
            fn le(a: Self::F, b: Self::F) -> Self::M = arch::_mm512_cmp_ps_mask::<{ arch::_CMP_LE_OQ }>(a, b);
            fn eq(a: Self::F, b: Self::F) -> Self::M = arch::_mm512_cmp_ps_mask::<{ arch::_CMP_EQ_OQ }>(a, b);
            fn select(m: Self::M, a: Self::F, b: Self::F) -> Self::F = arch::_mm512_mask_blend_ps(m, b, a);
            fn sum(a: Self::F) -> f32 = arch::_mm512_reduce_add_ps(a);
            fn max_lane(a: Self::F) -> f32 = arch::_mm512_reduce_max_ps(a);
            fn min_lane(a: Self::F) -> f32 = arch::_mm512_reduce_min_ps(a);
        }
    }
}

/// Compiles a generic kernel once per level and gives it a name that takes an
/// `Isa`.
///
/// `instantiate! { /// docs
/// pub fn name(x: &[f32]) -> f32 = body; }` makes `name(isa, x)`, which calls
/// `body(simd, x)` compiled for that level; `body` must be `#[inline(always)]` and generic over
/// its first parameter's type. Generic parameters are repeated as `<T: Bound>`.
macro_rules! instantiate {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($g:ident: $bound:path),+>)?
        ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path;)*) => {$(
        $(#[$meta])*
        $vis fn $name $(<$($g: $bound),+>)? (isa: $crate::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[inline(never)]
            fn avx512 $(<$($g: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this function is only compiled with, and only called under, AVX-512.
                let simd = unsafe { $crate::simd::lanes::Avx512::new_unchecked() };
                $body(simd, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[inline(never)]
            fn avx2 $(<$($g: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this function is only compiled with, and only called under, AVX2 and FMA.
                let simd = unsafe { $crate::simd::lanes::Avx2::new_unchecked() };
                $body(simd, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            {
                if isa.has_avx512() {
                    // SAFETY: the ISA token proves AVX-512 F, BW, DQ and VL.
                    return unsafe { avx512($($arg),*) };
                }
                if isa.has_avx2() {
                    // SAFETY: the ISA token proves AVX2 and FMA.
                    return unsafe { avx2($($arg),*) };
                }
            }
            let _ = isa;
            $body($crate::simd::lanes::Portable, $($arg),*)
        }
    )*};
}

pub(crate) use instantiate;

#[cfg(test)]
mod tests {
    use crate::simd::Isa;
    use crate::simd::lanes::Simd;

    #[inline(always)]
    fn body<S: Simd>(s: S, op: usize, a: &[f32], b: &[f32], y: &mut [f32]) {
        let mut i = 0;
        while i < a.len() {
            let n = (a.len() - i).min(S::LEN);
            // SAFETY: n elements are left in the equally long slices.
            unsafe {
                let (u, v) = (s.load_n(a.as_ptr().add(i), n), s.load_n(b.as_ptr().add(i), n));
                let r = match op {
                    0 => s.floor(u),
                    1 => s.ceil(u),
                    2 => s.round(u),
                    3 => s.min(u, v),
                    4 => s.max(u, v),
                    5 => s.select(s.lt(u, v), u, v),
                    6 => s.select(s.le(u, v), u, v),
                    7 => s.neg(s.abs(u)),
                    8 => s.splat(s.sum(u)),
                    9 => s.splat(s.max_lane(u)),
                    10 => s.splat(s.min_lane(u)),
                    _ => s.splat(s.bits(s.eq(u, v)) as f32),
                };
                s.store_n(y.as_mut_ptr().add(i), r, n);
            }
            i += n;
        }
    }
    instantiate! { fn apply(op: usize, a: &[f32], b: &[f32], y: &mut [f32]) = body; }

    #[test]
    fn every_level_agrees_with_scalar() {
        let a: Vec<f32> = vec![
            0.5,
            -0.5,
            1.5,
            -1.5,
            2.5,
            -0.0,
            0.0,
            3.7,
            -3.2,
            8_388_609.0,
            1e30,
            -1e30,
            0.49999997,
            -2.0,
            4_194_305.5,
            f32::INFINITY,
            -7.25,
        ];
        let b: Vec<f32> = a.iter().rev().copied().collect();
        type Scalar = fn(f32, f32) -> f32;
        let table: [(usize, Scalar); 8] = [
            (0, |x, _| x.floor()),
            (1, |x, _| x.ceil()),
            (2, |x, _| x.round_ties_even()),
            (3, |x, y| if x < y { x } else { y }),
            (4, |x, y| if x > y { x } else { y }),
            (5, |x, y| if x < y { x } else { y }),
            (6, |x, y| if x <= y { x } else { y }),
            (7, |x, _| -x.abs()),
        ];
        for isa in Isa::available() {
            for (op, f) in table {
                let mut y = vec![9.0; a.len()];
                apply(isa, op, &a, &b, &mut y);
                for i in 0..a.len() {
                    assert_eq!(
                        y[i].to_bits(),
                        f(a[i], b[i]).to_bits(),
                        "{isa} op {op} of {}",
                        a[i]
                    );
                }
            }
        }
    }

    #[test]
    fn reductions_and_bits() {
        for isa in Isa::available() {
            let a: Vec<f32> = (0..8).map(|i| (i * i) as f32 - 20.0).collect();
            let b: Vec<f32> = a.iter().enumerate().map(|(i, x)| x + (i % 2) as f32).collect();
            let mut y = [0.0; 8];
            apply(isa, 8, &a, &b, &mut y);
            assert_eq!(y[0], 140.0 - 160.0, "{isa}");
            apply(isa, 11, &a[..], &b, &mut y);
            assert_eq!(y[0] as u32 & 0xff, 0b0101_0101, "{isa}");
            let a16: Vec<f32> = a.iter().chain(&a).copied().collect();
            let mut y16 = [0.0; 16];
            apply(isa, 9, &a16, &a16, &mut y16);
            assert_eq!(y16[0], 29.0, "{isa}");
            apply(isa, 10, &a16, &a16, &mut y16);
            assert_eq!(y16[0], -20.0, "{isa}");
        }
    }
}
