//! Floats of 8 bits: they lie in memory as their codes and are computed with as `double`.

use ov_core::{ElementType, op::convert::ScaleRounding};

use super::super::element::storage_type;

/// The C++ type whose `decode` and `encode` are those of an 8-bit float.
pub(super) fn codec(ty: ElementType) -> Option<&'static str> {
    Some(match ty {
        ElementType::F8E4M3 => "ov_small_float<4, 3, 7, 0x7e, -1, 0x7f, false>",
        ElementType::F8E4M3Fnuz => "ov_small_float<4, 3, 8, 0x7f, -1, 0x80, true>",
        ElementType::F8E5M2 => "ov_small_float<5, 2, 15, 0x7b, 0x7c, 0x7e, false>",
        ElementType::F8E5M2Fnuz => "ov_small_float<5, 2, 16, 0x7f, -1, 0x80, true>",
        ElementType::F8E8M0 => "ov_scale_float",
        _ => return None,
    })
}

/// The C++ type in which values lie in memory, codes of 8-bit floats among them.
pub(super) fn stored(ty: ElementType) -> Option<&'static str> {
    if codec(ty).is_some() { Some("unsigned char") } else { storage_type(ty) }
}

/// `name` as a number.
pub(super) fn decoded(ty: ElementType, name: &str) -> String {
    codec(ty).map_or_else(|| name.to_owned(), |c| format!("{c}::decode({name})"))
}

/// The code of a number in an 8-bit float.
pub(super) fn encoded(
    ty: ElementType,
    value: &str,
    saturate: bool,
    rounding: ScaleRounding,
) -> Option<String> {
    let codec = codec(ty)?;
    let rounding = match (ty, rounding) {
        (ElementType::F8E8M0, ScaleRounding::Nearest) => ", ov_scale_float::NEAREST",
        (ElementType::F8E8M0, ScaleRounding::Down) => ", ov_scale_float::DOWN",
        _ => "",
    };
    Some(format!("{codec}::encode({value}, {saturate}{rounding})"))
}
