//! Transpose and other fixed permutations of elements.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
