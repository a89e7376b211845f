//! Internal fused operators, made by passes only.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
