//! If, Loop, `TensorIterator` and `SequenceMap` over programs of their own.

use ov_core::{
    Model, Tensor,
    error::{Error, InferError, Result},
    op::{
        Op, OpError, OpResult,
        control_flow::{If, Loop, TensorIterator, condition},
        sequence::SequenceMap,
    },
};

use crate::{plan::Runner, priority::Control};

/// The bodies of a control-flow operator, in the order in which [`run`] expects them.
pub(crate) fn bodies(op: &dyn Op) -> Vec<&Model> {
    if let Some(op) = op.downcast::<If>() {
        vec![&op.then_body, &op.else_body]
    } else if let Some(op) = op.downcast::<Loop>() {
        vec![&op.body]
    } else if let Some(op) = op.downcast::<TensorIterator>() {
        vec![&op.body]
    } else if let Some(op) = op.downcast::<SequenceMap>() {
        vec![&op.body]
    } else {
        Vec::new()
    }
}

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
    let results = if let Some(op) = op.downcast::<If>() {
        run_if(op, inputs, &mut run_body)
    } else if let Some(op) = op.downcast::<Loop>() {
        op.evaluate_with(inputs, &mut |arguments| run_body(0, arguments))
    } else if let Some(op) = op.downcast::<TensorIterator>() {
        op.evaluate_with(inputs, &mut |arguments| run_body(0, arguments))
    } else if let Some(op) = op.downcast::<SequenceMap>() {
        op.evaluate_with(inputs, &mut |arguments| run_body(0, arguments))
    } else {
        Err(OpError::Unsupported(format!("{} with bodies", op.kind())))
    };
    results.map_err(|source| {
        if control.is_canceled() {
            return InferError::Canceled.into();
        }
        Error::from(InferError::Op { op: op.kind().to_string(), node: String::new(), source })
    })
}

/// Runs the body of a number.
type RunBranch<'a> = &'a mut dyn FnMut(usize, &[Tensor]) -> OpResult<Vec<Tensor>>;

fn run_if(op: &If, inputs: &[Tensor], run_body: RunBranch<'_>) -> OpResult<Vec<Tensor>> {
    let pick = |list: &[Tensor], at: i64| {
        usize::try_from(at)
            .ok()
            .and_then(|i| list.get(i).cloned())
            .ok_or_else(|| OpError::Invalid(format!("port map holds index {at}")))
    };
    let condition = condition(&pick(inputs, 0)?)?;
    let (_, from, to) = op.branch(condition);
    let arguments = from.iter().map(|i| pick(inputs, *i)).collect::<OpResult<Vec<_>>>()?;
    let results = run_body(usize::from(!condition), &arguments)?;
    to.iter().map(|o| pick(&results, *o)).collect()
}
