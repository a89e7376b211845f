//! Control flow over bodies that a device runs in its own way.

use super::{If, Loop, TensorIterator, condition};
use crate::{
    model::Model,
    op::{Op, OpError, OpResult, sequence::SequenceMap},
    tensor::Tensor,
};

/// The bodies of a control-flow operator, in the order in which [`run`] numbers them; none for other operators.
#[must_use]
pub fn bodies(op: &dyn Op) -> Vec<&Model> {
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

/// Runs the body of a number on its arguments.
pub type RunNumbered<'a> = &'a mut dyn FnMut(usize, &[Tensor]) -> OpResult<Vec<Tensor>>;

/// Evaluates a control-flow operator; `run_body` runs the body of a number.
///
/// # Errors
/// When a body fails or the values are not valid; [`OpError::Unsupported`] for an operator without bodies.
pub fn run(
    op: &dyn Op,
    inputs: &[Tensor],
    run_body: RunNumbered<'_>,
) -> OpResult<Vec<Tensor>> {
    if let Some(op) = op.downcast::<If>() {
        run_if(op, inputs, run_body)
    } else if let Some(op) = op.downcast::<Loop>() {
        op.evaluate_with(inputs, &mut |arguments| run_body(0, arguments))
    } else if let Some(op) = op.downcast::<TensorIterator>() {
        op.evaluate_with(inputs, &mut |arguments| run_body(0, arguments))
    } else if let Some(op) = op.downcast::<SequenceMap>() {
        op.evaluate_with(inputs, &mut |arguments| run_body(0, arguments))
    } else {
        Err(OpError::Unsupported(format!("{} with bodies", op.kind())))
    }
}

fn run_if(
    op: &If,
    inputs: &[Tensor],
    run_body: RunNumbered<'_>,
) -> OpResult<Vec<Tensor>> {
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
