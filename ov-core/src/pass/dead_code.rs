//! Removes nodes that no output depends on.

use super::Pass;
use crate::{error::Result, model::Model};

/// Removes nodes that no output depends on; parameters stay.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadCode;

impl Pass for DeadCode {
    fn name(&self) -> &'static str {
        "dead code"
    }

    fn run(&self, model: &mut Model) -> Result<usize> {
        Ok(model.remove_dead())
    }
}
