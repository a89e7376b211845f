//! Classical machine learning: trees, linear models, encoders.

use super::OnnxOp;

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[];
