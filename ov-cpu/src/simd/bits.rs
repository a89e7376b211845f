//! Vector operations on the representation of f32: exponents, signs and table look-up.
#![allow(unsafe_code, reason = "intrinsics")]

use crate::simd::lanes::{Portable, Simd};

/// Operations that the polynomial and table functions of `math` need beyond [`Simd`].
pub trait Bits: Simd {
    /// A lane to read for each lane.
    type Lanes: Copy;
    /// For each lane, the lane `i` of its group of `group` neighbours; `group` divides [`Simd::LEN`].
    fn lane_of_group(self, group: usize, i: usize) -> Self::Lanes;
    /// Lane `l` is lane `i[l]` of `x`.
    fn permute(self, x: Self::F, i: Self::Lanes) -> Self::F;
    /// `x * 2^n` for integer-valued `n` in -252..=254, rounded once.
    fn scale2(self, x: Self::F, n: Self::F) -> Self::F;
    /// `(m, e)` with `x = m * 2^e` and `m` in [√½, √2), for positive finite `x`; subnormal
    /// numbers too. Other values of `x` give unspecified numbers.
    fn split(self, x: Self::F) -> (Self::F, Self::F);
    /// `table[i]` for integer-valued lanes `i` in 0..16; NaN picks some entry.
    fn lookup16(self, table: &[f32; 16], i: Self::F) -> Self::F;
    /// The magnitude of `a` with the sign of `b`.
    fn copysign(self, a: Self::F, b: Self::F) -> Self::F;
    /// The first `min(LEN, x.len())` lanes from `x`, the others zero.
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> Self::F {
        // SAFETY: at most x.len() elements are read.
        unsafe { self.load_n(x.as_ptr(), x.len().min(Self::LEN)) }
    }
    /// Stores the first `min(LEN, x.len())` lanes to `x`.
    #[inline(always)]
    fn store_part(self, x: &mut [f32], v: Self::F) {
        // SAFETY: at most x.len() elements are written.
        unsafe { self.store_n(x.as_mut_ptr(), v, x.len().min(Self::LEN)) }
    }
}

const SQRT_HALF_BITS: i32 = 0x3f35_04f3;
const TWO_23: f32 = 8_388_608.0;

impl Bits for Portable {
    type Lanes = [usize; Self::LEN];

    #[inline(always)]
    fn scale2(self, x: Self::F, n: Self::F) -> Self::F {
        let mut r = x;
        for (r, n) in r.iter_mut().zip(n) {
            let n = n as i32;
            let half = n >> 1;
            *r = *r * pow2(half) * pow2(n - half);
        }
        r
    }
    #[inline(always)]
    fn split(self, x: Self::F) -> (Self::F, Self::F) {
        let (mut m, mut e) = (x, x);
        for i in 0..Self::LEN {
            let small = x[i] < f32::MIN_POSITIVE;
            let y = if small { x[i] * TWO_23 } else { x[i] };
            let bits = y.to_bits().cast_signed();
            let k = bits.wrapping_sub(SQRT_HALF_BITS) >> 23;
            m[i] = f32::from_bits(bits.wrapping_sub(k << 23).cast_unsigned());
            e[i] = k as f32 - if small { 23.0 } else { 0.0 };
        }
        (m, e)
    }
    #[inline(always)]
    fn lane_of_group(self, group: usize, i: usize) -> Self::Lanes {
        let mut r = [0; Self::LEN];
        for (l, r) in r.iter_mut().enumerate() {
            *r = l / group * group + i;
        }
        r
    }
    #[inline(always)]
    fn permute(self, x: Self::F, i: Self::Lanes) -> Self::F {
        let mut r = x;
        for (r, i) in r.iter_mut().zip(i) {
            *r = x[i];
        }
        r
    }
    #[inline(always)]
    fn lookup16(self, table: &[f32; 16], i: Self::F) -> Self::F {
        let mut r = i;
        for r in &mut r {
            *r = table[*r as usize & 15];
        }
        r
    }
    #[inline(always)]
    fn copysign(self, a: Self::F, b: Self::F) -> Self::F {
        let mut r = a;
        for (r, b) in r.iter_mut().zip(b) {
            *r = r.copysign(b);
        }
        r
    }
}

#[inline(always)]
fn pow2(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23).cast_unsigned())
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64 as arch;

    use super::{Bits, SQRT_HALF_BITS, TWO_23};
    use crate::simd::lanes::{Avx2, Avx512, Simd};

    impl Bits for Avx2 {
        type Lanes = arch::__m256i;

        #[inline(always)]
        fn lane_of_group(self, group: usize, i: usize) -> Self::Lanes {
            // SAFETY: the token proves AVX2.
            unsafe {
                let all = arch::_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                let first = arch::_mm256_set1_epi32(-(group as i32));
                arch::_mm256_add_epi32(
                    arch::_mm256_and_si256(all, first),
                    arch::_mm256_set1_epi32(i as i32),
                )
            }
        }
        #[inline(always)]
        fn permute(self, x: Self::F, i: Self::Lanes) -> Self::F {
            // SAFETY: the token proves AVX2.
            unsafe { arch::_mm256_permutevar8x32_ps(x, i) }
        }
        #[inline(always)]
        fn scale2(self, x: Self::F, n: Self::F) -> Self::F {
            // SAFETY: the token proves AVX2.
            unsafe {
                let n = arch::_mm256_cvtps_epi32(n);
                let half = arch::_mm256_srai_epi32::<1>(n);
                let rest = arch::_mm256_sub_epi32(n, half);
                let bias = arch::_mm256_set1_epi32(127);
                let a = arch::_mm256_slli_epi32::<23>(arch::_mm256_add_epi32(half, bias));
                let b = arch::_mm256_slli_epi32::<23>(arch::_mm256_add_epi32(rest, bias));
                self.mul(self.mul(x, arch::_mm256_castsi256_ps(a)), arch::_mm256_castsi256_ps(b))
            }
        }
        #[inline(always)]
        fn split(self, x: Self::F) -> (Self::F, Self::F) {
            let small = self.lt(x, self.splat(f32::MIN_POSITIVE));
            let x = self.select(small, self.mul(x, self.splat(TWO_23)), x);
            // SAFETY: the token proves AVX2.
            let (m, e) = unsafe {
                let bits = arch::_mm256_castps_si256(x);
                let k = arch::_mm256_sub_epi32(bits, arch::_mm256_set1_epi32(SQRT_HALF_BITS));
                let k = arch::_mm256_srai_epi32::<23>(k);
                let m = arch::_mm256_sub_epi32(bits, arch::_mm256_slli_epi32::<23>(k));
                (arch::_mm256_castsi256_ps(m), arch::_mm256_cvtepi32_ps(k))
            };
            (m, self.sub(e, self.select(small, self.splat(23.0), self.zero())))
        }
        #[inline(always)]
        fn lookup16(self, table: &[f32; 16], i: Self::F) -> Self::F {
            // SAFETY: both halves of the table hold 8 elements; the token proves AVX2.
            unsafe {
                let i = arch::_mm256_cvtps_epi32(i);
                let low = arch::_mm256_permutevar8x32_ps(self.load(table.as_ptr()), i);
                let high = arch::_mm256_permutevar8x32_ps(self.load(table.as_ptr().add(8)), i);
                let bit3 = arch::_mm256_castsi256_ps(arch::_mm256_slli_epi32::<28>(i));
                arch::_mm256_blendv_ps(low, high, bit3)
            }
        }
        #[inline(always)]
        fn copysign(self, a: Self::F, b: Self::F) -> Self::F {
            // SAFETY: the token proves AVX2.
            unsafe {
                let sign = arch::_mm256_set1_ps(-0.0);
                arch::_mm256_or_ps(arch::_mm256_andnot_ps(sign, a), arch::_mm256_and_ps(sign, b))
            }
        }
    }

    impl Bits for Avx512 {
        type Lanes = arch::__m512i;

        #[inline(always)]
        fn lane_of_group(self, group: usize, i: usize) -> Self::Lanes {
            // SAFETY: the token proves AVX-512 F.
            unsafe {
                let all =
                    arch::_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                let first = arch::_mm512_set1_epi32(-(group as i32));
                arch::_mm512_add_epi32(
                    arch::_mm512_and_si512(all, first),
                    arch::_mm512_set1_epi32(i as i32),
                )
            }
        }
        #[inline(always)]
        fn permute(self, x: Self::F, i: Self::Lanes) -> Self::F {
            // SAFETY: the token proves AVX-512 F.
            unsafe { arch::_mm512_permutexvar_ps(i, x) }
        }
        #[inline(always)]
        fn scale2(self, x: Self::F, n: Self::F) -> Self::F {
            // SAFETY: the token proves AVX-512 F.
            unsafe { arch::_mm512_scalef_ps(x, n) }
        }
        #[inline(always)]
        fn split(self, x: Self::F) -> (Self::F, Self::F) {
            let small = self.lt(x, self.splat(f32::MIN_POSITIVE));
            let x = self.select(small, self.mul(x, self.splat(TWO_23)), x);
            // SAFETY: the token proves AVX-512 F.
            let (m, e) = unsafe {
                let bits = arch::_mm512_castps_si512(x);
                let k = arch::_mm512_sub_epi32(bits, arch::_mm512_set1_epi32(SQRT_HALF_BITS));
                let k = arch::_mm512_srai_epi32::<23>(k);
                let m = arch::_mm512_sub_epi32(bits, arch::_mm512_slli_epi32::<23>(k));
                (arch::_mm512_castsi512_ps(m), arch::_mm512_cvtepi32_ps(k))
            };
            (m, self.sub(e, self.select(small, self.splat(23.0), self.zero())))
        }
        #[inline(always)]
        fn lookup16(self, table: &[f32; 16], i: Self::F) -> Self::F {
            // SAFETY: the table holds 16 elements; the token proves AVX-512 F.
            unsafe {
                arch::_mm512_permutexvar_ps(arch::_mm512_cvtps_epi32(i), self.load(table.as_ptr()))
            }
        }
        #[inline(always)]
        fn copysign(self, a: Self::F, b: Self::F) -> Self::F {
            // SAFETY: the token proves AVX-512 F and DQ.
            unsafe {
                let sign = arch::_mm512_set1_ps(-0.0);
                arch::_mm512_or_ps(arch::_mm512_andnot_ps(sign, a), arch::_mm512_and_ps(sign, b))
            }
        }
    }
}
