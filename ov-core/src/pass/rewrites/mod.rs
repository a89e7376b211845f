//! The rewrites, one per file, in the order in which they are tried.

use super::Rewrite;

/// Rewrites that leave one spelling of everything that has several.
pub const CANONICAL: &[Rewrite] = &[];

/// Rewrites that replace compositions with one operator.
pub const FUSIONS: &[Rewrite] = &[];
