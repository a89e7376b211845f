//! Reshape, Squeeze, Unsqueeze, Broadcast, Tile and ShapeOf.

use super::OnnxOp;

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[];
