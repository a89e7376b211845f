//! Graph passes: device-independent simplification of a model, in one fixed order that can be read here.

mod body_invariants;
pub mod chain;
mod common_subexpression;
mod constant_folding;
mod convert_precision;
mod dead_code;
pub mod fuse;
pub mod integer;
pub mod layout;
mod manager;
mod pattern;
pub mod recurrent;
mod rewrite;
mod rewrites;
mod shape_folding;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use body_invariants::BodyInvariants;
pub use common_subexpression::CommonSubexpressions;
pub use constant_folding::{ConstantFolding, FOLD_LIMIT};
pub use convert_precision::ConvertPrecision;
pub use dead_code::DeadCode;
pub use manager::{PassManager, PassStats, Stats};
pub use pattern::{Pattern, close};
pub use rewrite::{NoMatch, Patch, Rewrite, RewritePass, Rewriter};
pub use rewrites::{CANONICAL, FUSIONS};
pub use shape_folding::ShapeFolding;

use crate::{error::Result, model::Model};

/// A change of a whole model that keeps what it computes.
pub trait Pass {
    /// Name, for statistics and logs.
    fn name(&self) -> &'static str;

    /// Runs the pass and returns how many changes it made; 0 means that the model is as it was.
    ///
    /// # Errors
    /// When the model is not valid; a pass that merely does not apply returns 0.
    fn run(&self, model: &mut Model) -> Result<usize>;
}

/// Simplifies a model for every device: folds constants and shape arithmetic, removes what has no effect, and replaces
/// compositions with the operators that they spell out. Running it again changes nothing.
///
/// # Errors
/// When the model is not valid.
pub fn simplify(model: &mut Model) -> Result<Stats> {
    PassManager::simplification().run(model)
}
