//! Concat and Split.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
