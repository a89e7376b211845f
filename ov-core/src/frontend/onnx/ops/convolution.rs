//! Convolutions, grouped and transposed ones.

use super::OnnxOp;

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[];
