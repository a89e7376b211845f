//! Sequences and optionals.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
