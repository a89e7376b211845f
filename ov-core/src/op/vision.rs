//! Boxes, regions and sampling grids.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
