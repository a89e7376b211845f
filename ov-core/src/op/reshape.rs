//! Reshape, Squeeze, Unsqueeze, Broadcast, Tile and ShapeOf.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
