//! Instruction-set levels and the kernels' vector primitives.

use std::fmt;

pub mod activation;
pub mod bits;
mod brand;
pub mod bytes;
pub mod denormals;
pub mod lanes;
pub mod math;

pub use brand::brand;

/// An instruction-set level that kernels are compiled for, from least to most capable.
///
/// A value above [`Isa::PORTABLE`] is a token: it is only handed out by [`Isa::detect`] and
/// [`Isa::available`], after the processor was asked, so holding one proves that the
/// instructions exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Level {
    Portable,
    Avx2,
    Avx512,
}

impl Isa {
    /// Plain Rust, compiled for the target's baseline.
    pub const PORTABLE: Self = Self(Level::Portable);

    /// The best level of the running processor.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("fma")
            {
                return Self(Level::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self(Level::Avx2);
            }
        }
        Self::PORTABLE
    }

    /// Every level that the running processor has, least capable first.
    pub fn available() -> impl Iterator<Item = Self> {
        let best = Self::detect();
        [Level::Portable, Level::Avx2, Level::Avx512]
            .into_iter()
            .map(Self)
            .filter(move |l| *l <= best)
    }

    /// The level called `name` (`portable`, `avx2`, `avx512`), if the processor has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::available().find(|l| l.name() == name)
    }

    /// Numbers in a vector of `f32`.
    #[must_use]
    pub fn f32_lanes(self) -> usize {
        if self.has_avx512() { 16 } else { 8 }
    }

    /// Whether AVX-512 F, BW, DQ and VL are there.
    #[must_use]
    pub fn has_avx512(self) -> bool {
        self.0 == Level::Avx512
    }

    /// Whether dot products of bf16 are there, beside AVX-512.
    #[must_use]
    pub fn has_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            self.has_avx512() && is_x86_feature_detected!("avx512bf16")
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            false
        }
    }

    /// Whether AVX2 and FMA are there.
    #[must_use]
    pub fn has_avx2(self) -> bool {
        self.0 >= Level::Avx2
    }

    /// `portable`, `avx2` or `avx512`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
