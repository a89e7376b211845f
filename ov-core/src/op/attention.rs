//! Attention and rotary embedding.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
