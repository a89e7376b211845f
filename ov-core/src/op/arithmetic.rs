//! Add, Subtract, Multiply, Divide, Power, Mod and the other element-wise arithmetic.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
