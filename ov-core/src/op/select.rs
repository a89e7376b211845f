//! Choice between two values.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
