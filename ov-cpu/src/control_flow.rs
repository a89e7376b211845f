//! If, Loop, `TensorIterator` and `SequenceMap` over programs of their own.

use ov_core::{
    Tensor,
    error::{Error, InferError, Result},
    op::{Op, OpError, OpResult, control_flow},
};

use crate::{plan::Runner, priority::Control};

/// Runs a control-flow operator whose bodies are `bodies`.
///
/// # Errors
/// When a body fails or the values are not valid.
pub(crate) fn run(
    op: &dyn Op,
    bodies: &mut [Runner],
    inputs: &[Tensor],
    control: &Control<'_>,
) -> Result<Vec<Tensor>> {
    let mut run_body = |index: usize, arguments: &[Tensor]| -> OpResult<Vec<Tensor>> {
        let runner = bodies
            .get_mut(index)
            .ok_or_else(|| OpError::Invalid(format!("the program holds no body {index}")))?;
        let count = runner.executable().program().outputs.len();
        let mut outputs = vec![Tensor::absent(); count];
        runner
            .run_checked(arguments, &mut outputs, control)
            .map_err(|e| OpError::Invalid(e.to_string()))?;
        Ok(outputs)
    };
    control_flow::run(op, inputs, &mut run_body).map_err(|source| {
        if control.is_canceled() {
            return InferError::Canceled.into();
        }
        Error::from(InferError::Op { op: op.kind().to_string(), node: String::new(), source })
    })
}
