//! Values made from shapes and numbers: Range, Eye, OneHot.

use super::OnnxOp;

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[];
