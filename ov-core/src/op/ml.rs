//! Classical machine learning: trees, linear models, encoders.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
