//! Losses and optimiser steps.

use super::OnnxOp;

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[];
