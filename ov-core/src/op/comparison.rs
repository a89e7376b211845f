//! Equal, Less, Greater and the other comparisons.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
