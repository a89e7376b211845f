//! Element types: every one of ONNX's and OpenVINO's.

use std::{fmt, str::FromStr};

use half::{bf16, f16};

/// The type of a tensor's elements.
///
/// Names and spellings follow OpenVINO; `F8E4M3Fnuz`, `F8E5M2Fnuz`, `Complex64` and `Complex128` are ONNX's additions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ElementType {
    /// Not known yet.
    #[default]
    Dynamic,
    /// One byte, 0 or 1.
    Boolean,
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
    /// Two-bit signed integer, four to a byte, low bits first.
    I2,
    /// Four-bit signed integer, two to a byte, low nibble first.
    I4,
    /// Signed 8-bit integer.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// One-bit unsigned integer, eight to a byte.
    U1,
    /// Two-bit unsigned integer, four to a byte, low bits first.
    U2,
    /// Four-bit unsigned integer, two to a byte, low nibble first.
    U4,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// Four-bit `NormalFloat`.
    Nf4,
    /// 8-bit float, 4 exponent and 3 mantissa bits, finite and NaN.
    F8E4M3,
    /// 8-bit float, 4 exponent and 3 mantissa bits, finite, NaN and no negative zero.
    F8E4M3Fnuz,
    /// 8-bit float, 5 exponent and 2 mantissa bits.
    F8E5M2,
    /// 8-bit float, 5 exponent and 2 mantissa bits, finite, NaN and no negative zero.
    F8E5M2Fnuz,
    /// 8-bit power-of-two scale.
    F8E8M0,
    /// 4-bit float, 2 exponent and 1 mantissa bit, two to a byte.
    F4E2M1,
    /// Two `f32`.
    Complex64,
    /// Two `f64`.
    Complex128,
    /// UTF-8 text.
    String,
    /// A sequence of tensors: ONNX's value, an element of which is a tensor of any type and shape.
    Sequence,
    /// A map from keys to values: ONNX's value.
    Map,
}

const NAMES: &[(ElementType, &str, &str)] = &[
    (ElementType::Dynamic, "dynamic", "UNSPECIFIED"),
    (ElementType::Boolean, "boolean", "BOOL"),
    (ElementType::Bf16, "bf16", "BF16"),
    (ElementType::F16, "f16", "FP16"),
    (ElementType::F32, "f32", "FP32"),
    (ElementType::F64, "f64", "FP64"),
    (ElementType::I2, "i2", "I2"),
    (ElementType::I4, "i4", "I4"),
    (ElementType::I8, "i8", "I8"),
    (ElementType::I16, "i16", "I16"),
    (ElementType::I32, "i32", "I32"),
    (ElementType::I64, "i64", "I64"),
    (ElementType::U1, "u1", "BIN"),
    (ElementType::U2, "u2", "U2"),
    (ElementType::U4, "u4", "U4"),
    (ElementType::U8, "u8", "U8"),
    (ElementType::U16, "u16", "U16"),
    (ElementType::U32, "u32", "U32"),
    (ElementType::U64, "u64", "U64"),
    (ElementType::Nf4, "nf4", "NF4"),
    (ElementType::F8E4M3, "f8e4m3", "F8E4M3"),
    (ElementType::F8E4M3Fnuz, "f8e4m3fnuz", "F8E4M3FNUZ"),
    (ElementType::F8E5M2, "f8e5m2", "F8E5M2"),
    (ElementType::F8E5M2Fnuz, "f8e5m2fnuz", "F8E5M2FNUZ"),
    (ElementType::F8E8M0, "f8e8m0", "F8E8M0"),
    (ElementType::F4E2M1, "f4e2m1", "F4E2M1"),
    (ElementType::Complex64, "complex64", "COMPLEX64"),
    (ElementType::Complex128, "complex128", "COMPLEX128"),
    (ElementType::String, "string", "STRING"),
    (ElementType::Sequence, "sequence", "SEQUENCE"),
    (ElementType::Map, "map", "MAP"),
];

impl ElementType {
    /// Every element type.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(t, _, _)| *t)
    }

    /// Its number in blobs.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// The element type of a number in a blob.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        NAMES.get(usize::from(code)).map(|(t, _, _)| *t).filter(|t| t.code() == code)
    }

    /// OpenVINO's lower-case spelling, for example `f32`, `boolean`, `u1`.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(t, _, _)| *t == self).map_or("dynamic", |(_, n, _)| n)
    }

    /// The `precision` spelling of OpenVINO IR ports, for example `FP32`, `BOOL`, `BIN`.
    #[must_use]
    pub fn ir_name(self) -> &'static str {
        NAMES.iter().find(|(t, _, _)| *t == self).map_or("UNSPECIFIED", |(_, _, n)| n)
    }

    /// Bits of one element in memory; 0 for `Dynamic`, `String`, `Sequence` and `Map`.
    #[must_use]
    pub fn bits(self) -> usize {
        match self {
            Self::Dynamic | Self::String | Self::Sequence | Self::Map => 0,
            Self::U1 => 1,
            Self::I2 | Self::U2 => 2,
            Self::I4 | Self::U4 | Self::Nf4 | Self::F4E2M1 => 4,
            Self::Boolean
            | Self::I8
            | Self::U8
            | Self::F8E4M3
            | Self::F8E4M3Fnuz
            | Self::F8E5M2
            | Self::F8E5M2Fnuz
            | Self::F8E8M0 => 8,
            Self::Bf16 | Self::F16 | Self::I16 | Self::U16 => 16,
            Self::F32 | Self::I32 | Self::U32 => 32,
            Self::F64 | Self::I64 | Self::U64 | Self::Complex64 => 64,
            Self::Complex128 => 128,
        }
    }

    /// Bytes that `len` contiguous elements take, or `None` on overflow; sub-byte elements are packed.
    #[must_use]
    pub fn byte_len(self, len: usize) -> Option<usize> {
        Some(len.checked_mul(self.bits())?.div_ceil(8))
    }

    /// Whether several elements share a byte.
    #[must_use]
    pub fn is_sub_byte(self) -> bool {
        (1..8).contains(&self.bits())
    }

    /// Whether this is a real floating-point type of any width.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(
            self,
            Self::Bf16
                | Self::F16
                | Self::F32
                | Self::F64
                | Self::Nf4
                | Self::F8E4M3
                | Self::F8E4M3Fnuz
                | Self::F8E5M2
                | Self::F8E5M2Fnuz
                | Self::F8E8M0
                | Self::F4E2M1
        )
    }

    /// Whether this is a signed or unsigned integer of any width (`Boolean` is not).
    #[must_use]
    pub fn is_integer(self) -> bool {
        self.is_signed_integer() || self.is_unsigned_integer()
    }

    /// Whether this is a signed integer of any width.
    #[must_use]
    pub fn is_signed_integer(self) -> bool {
        matches!(self, Self::I2 | Self::I4 | Self::I8 | Self::I16 | Self::I32 | Self::I64)
    }

    /// Whether this is an unsigned integer of any width.
    #[must_use]
    pub fn is_unsigned_integer(self) -> bool {
        matches!(
            self,
            Self::U1 | Self::U2 | Self::U4 | Self::U8 | Self::U16 | Self::U32 | Self::U64
        )
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no element type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown element type {0:?}, expected one of f32, f16, bf16, f64, i8…i64, u1…u64, boolean, string, f8e4m3, …"
)]
pub struct UnknownElementType(pub String);

impl FromStr for ElementType {
    type Err = UnknownElementType;

    /// Accepts both OpenVINO's lower-case names and the IR's `precision` spellings, in any case.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        NAMES
            .iter()
            .find(|(_, n, ir)| n.eq_ignore_ascii_case(s) || ir.eq_ignore_ascii_case(s))
            .map(|(t, _, _)| *t)
            .ok_or_else(|| UnknownElementType(s.to_owned()))
    }
}

/// A Rust type that is the in-memory form of an element type of at least one byte.
///
/// `Boolean` is stored as `u8` (0 or 1) and read as such; [`bool`] is only used for building tensors.
pub trait Element: bytemuck::Pod + PartialOrd + fmt::Debug + Send + Sync {
    /// The element type.
    const TYPE: ElementType;

    /// Nearest value of this type: floats round to nearest even, integers truncate and wrap as C casts of `i64` do.
    fn from_f64(v: f64) -> Self;

    /// The value as `f64` (`i64` and `u64` may round).
    fn to_f64(self) -> f64;

    /// The value converted from `i64`, wrapping for narrower integers.
    fn from_i64(v: i64) -> Self;

    /// The value as `i64`, truncating fractions, saturating out-of-range floats.
    fn to_i64(self) -> i64;
}

macro_rules! element {
    ($($rust:ty => $ty:ident),*) => {$(
        impl Element for $rust {
            const TYPE: ElementType = ElementType::$ty;
            fn from_f64(v: f64) -> Self { v as Self }
            fn to_f64(self) -> f64 { self as f64 }
            fn from_i64(v: i64) -> Self { v as Self }
            fn to_i64(self) -> i64 { self as i64 }
        }
    )*};
}

#[allow(clippy::cast_lossless, trivial_numeric_casts, reason = "one body serves every width")]
mod native {
    use super::{Element, ElementType};
    element!(f32 => F32, f64 => F64, i8 => I8, i16 => I16, i32 => I32, i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64);
}

macro_rules! half_element {
    ($($rust:ty => $ty:ident),*) => {$(
        impl Element for $rust {
            const TYPE: ElementType = ElementType::$ty;
            fn from_f64(v: f64) -> Self { Self::from_f64(v) }
            fn to_f64(self) -> f64 { self.to_f64() }
            fn from_i64(v: i64) -> Self { Self::from_f64(v as f64) }
            fn to_i64(self) -> i64 { self.to_f64() as i64 }
        }
    )*};
}
half_element!(f16 => F16, bf16 => Bf16);

/// Calls a generic block with `$T` bound to the Rust type of a numeric element type of at least one byte.
///
/// `dispatch_numeric!(ty, T => { body }, else { fallback })`; `Boolean` is not numeric here.
#[macro_export]
macro_rules! dispatch_numeric {
    ($ty:expr, $T:ident => $body:expr, else $other:expr) => {
        match $ty {
            $crate::ElementType::F32 => {
                type $T = f32;
                $body
            }
            $crate::ElementType::F64 => {
                type $T = f64;
                $body
            }
            $crate::ElementType::F16 => {
                type $T = $crate::half::f16;
                $body
            }
            $crate::ElementType::Bf16 => {
                type $T = $crate::half::bf16;
                $body
            }
            $crate::ElementType::I8 => {
                type $T = i8;
                $body
            }
            $crate::ElementType::I16 => {
                type $T = i16;
                $body
            }
            $crate::ElementType::I32 => {
                type $T = i32;
                $body
            }
            $crate::ElementType::I64 => {
                type $T = i64;
                $body
            }
            $crate::ElementType::U8 => {
                type $T = u8;
                $body
            }
            $crate::ElementType::U16 => {
                type $T = u16;
                $body
            }
            $crate::ElementType::U32 => {
                type $T = u32;
                $body
            }
            $crate::ElementType::U64 => {
                type $T = u64;
                $body
            }
            _ => $other,
        }
    };
}

/// Calls a generic block with `$T` bound to the Rust type of a floating-point element type.
///
/// `dispatch_float!(ty, T => { body }, else { fallback })` covers f32, f64, f16 and bf16.
#[macro_export]
macro_rules! dispatch_float {
    ($ty:expr, $T:ident => $body:expr, else $other:expr) => {
        match $ty {
            $crate::ElementType::F32 => {
                type $T = f32;
                $body
            }
            $crate::ElementType::F64 => {
                type $T = f64;
                $body
            }
            $crate::ElementType::F16 => {
                type $T = $crate::half::f16;
                $body
            }
            $crate::ElementType::Bf16 => {
                type $T = $crate::half::bf16;
                $body
            }
            _ => $other,
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_in_both_spellings() {
        for t in ElementType::all() {
            assert_eq!(ElementType::from_code(t.code()), Some(t));
            assert_eq!(t.name().parse(), Ok(t));
            assert_eq!(t.ir_name().parse(), Ok(t));
        }
        assert!("f31".parse::<ElementType>().is_err());
        assert_eq!(ElementType::from_code(200), None);
    }

    #[test]
    fn sub_byte_elements_are_packed() {
        assert_eq!(ElementType::I4.byte_len(3), Some(2));
        assert_eq!(ElementType::U1.byte_len(9), Some(2));
        assert_eq!(ElementType::F64.byte_len(usize::MAX), None);
    }
}
