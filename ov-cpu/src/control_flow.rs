//! If, Loop and Scan over programs of their own.

use std::sync::atomic::AtomicBool;

use ov_core::{
    Model, Tensor,
    error::{InferError, Result},
    op::Op,
};

use crate::plan::Runner;

/// The bodies of a control-flow operator, in the order in which [`run`] expects them.
pub(crate) fn bodies(op: &dyn Op) -> Vec<&Model> {
    let _unused = op;
    Vec::new()
}

/// Runs a control-flow operator whose bodies are `bodies`.
///
/// # Errors
/// When a body fails or the values are not valid.
pub(crate) fn run(
    op: &dyn Op,
    bodies: &mut [Runner],
    inputs: Vec<Tensor>,
    cancel: &AtomicBool,
) -> Result<Vec<Tensor>> {
    let _unused = (bodies, inputs, cancel);
    Err(InferError::Other { device: "CPU".to_owned(), detail: format!("{} has bodies", op.kind()) }
        .into())
}
