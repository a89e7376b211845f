//! Operators of `com.microsoft` that exported models carry.

use super::OnnxOp;

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[];
