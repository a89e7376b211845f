//! Gathering by index.

use super::OnnxOp;

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[];
