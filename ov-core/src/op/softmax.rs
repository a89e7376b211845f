//! SoftMax and LogSoftmax.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
