//! Logical and bitwise operators.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
