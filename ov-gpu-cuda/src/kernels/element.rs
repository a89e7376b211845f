//! Element types as the kernels spell them.

use ov_core::ElementType;

use super::Reject;

/// The C++ type in which values lie in memory; `None` for types that have no place on the device.
pub(super) fn storage_type(ty: ElementType) -> Option<&'static str> {
    Some(match ty {
        ElementType::F32 => "float",
        ElementType::F64 => "double",
        ElementType::F16 => "ov_f16",
        ElementType::Bf16 => "ov_bf16",
        ElementType::I8 => "signed char",
        ElementType::I16 => "short",
        ElementType::I32 => "int",
        ElementType::I64 => "long long",
        ElementType::U8 | ElementType::Boolean => "unsigned char",
        ElementType::U16 => "unsigned short",
        ElementType::U32 => "unsigned int",
        ElementType::U64 => "unsigned long long",
        _ => return None,
    })
}

/// The C++ type that a value of `ty` is computed in: half floats in `float`, everything else in its own type.
pub(super) fn compute_type(ty: ElementType) -> Option<&'static str> {
    match ty {
        ElementType::F16 | ElementType::Bf16 => Some("float"),
        _ => storage_type(ty),
    }
}

/// An unsigned C++ type of `bytes` bytes, for values that are moved and not looked at.
pub(super) fn opaque_type(bytes: usize) -> Option<&'static str> {
    Some(match bytes {
        1 => "unsigned char",
        2 => "unsigned short",
        4 => "unsigned int",
        8 => "unsigned long long",
        16 => "ov_16_bytes",
        _ => return None,
    })
}

/// Bytes of one element on the device.
///
/// # Errors
/// The reason why values of this type cannot be there.
pub(super) fn element_bytes(ty: ElementType) -> Result<usize, Reject> {
    storage_type(ty).map(|_| ty.bits().div_ceil(8)).ok_or_else(|| unsupported(ty))
}

/// Bytes of one element that is moved and not looked at.
///
/// # Errors
/// For elements of less than a byte, and texts.
pub(super) fn moved_bytes(ty: ElementType) -> Result<usize, Reject> {
    let bytes = ty.bits() / 8;
    opaque_type(bytes)
        .map(|_| bytes)
        .ok_or_else(|| format!("moves elements of 1 to 16 whole bytes, not {ty}").into())
}

/// The rejection of an element type.
pub(super) fn unsupported(ty: ElementType) -> Reject {
    format!("takes floats of 16 to 64 bits, integers of 8 to 64 bits and booleans, not {ty}").into()
}
