//! Conversion between element types.

use super::{OpEntry, OpError, OpResult};
use crate::tensor::Tensor;

/// Every element as `f64`, whatever the element type.
///
/// # Errors
/// For texts.
pub fn to_f64(tensor: &Tensor) -> OpResult<Vec<f64>> {
    tensor.to_f64_vec().map_err(OpError::from)
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
