//! Einstein summation.

use super::OnnxOp;

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[];
