//! Add, Subtract, Multiply, Divide, Power, Mod and the other element-wise arithmetic.

use super::OnnxOp;

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[];
