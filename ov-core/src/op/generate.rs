//! Values made from shapes and numbers: Range, Eye, OneHot.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
