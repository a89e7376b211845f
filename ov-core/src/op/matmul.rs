//! MatMul and what is made of it.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
