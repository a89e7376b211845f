//! Losses and optimiser steps.

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[];
