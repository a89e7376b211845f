//! Convolutions, grouped and transposed ones.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
