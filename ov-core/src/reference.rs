//! The reference interpreter: runs a model with every operator's own evaluation. Slow, exact, the oracle of all devices.

use crate::{
    error::{InferError, Result},
    model::{Model, NodeId},
    op::{OpError, OpResult},
    op_ensure,
    states::States,
    tensor::Tensor,
};

/// Evaluates a model on one tensor per input, in order, and gives one tensor per output. A model with variables takes its
/// hidden inputs after the others and gives its hidden outputs (see [`States`]); without them it is evaluated as a new
/// request would.
///
/// # Errors
/// [`InferError`] when the tensors do not fit the inputs or an operator fails on its values.
pub fn evaluate(model: &Model, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    if !model.variables().is_empty() && inputs.len() == model.inputs().len() {
        let states = States::new(model.variables().to_vec())?;
        let mut results = evaluate(model, &[inputs, states.initial()].concat())?;
        results.truncate(model.results().len());
        return Ok(results);
    }
    if inputs.len() != model.parameters().len() {
        return Err(InferError::Other {
            device: "the reference".to_owned(),
            detail: format!(
                "{} tensors given, the model has {} inputs",
                inputs.len(),
                model.parameters().len()
            ),
        }
        .into());
    }
    for (id, tensor) in model.parameters().iter().zip(inputs) {
        let node = model.node(*id);
        let (ty, shape) = (node.element_type(0), node.shape(0));
        if (ty != tensor.element_type() && ty != crate::ElementType::Dynamic)
            || !shape.admits(tensor.shape())
        {
            return Err(InferError::Mismatch {
                direction: "input",
                port: node.name().to_owned(),
                expected: format!("{ty}{shape}"),
                got: format!("{}{}", tensor.element_type(), tensor.shape()),
            }
            .into());
        }
    }
    run(model, &model.topological_order()?, inputs)
}

fn run(model: &Model, order: &[NodeId], inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let slots = order.iter().map(|id| id.index() + 1).max().unwrap_or(0);
    let mut values: Vec<Vec<Tensor>> = vec![Vec::new(); slots];
    let mut remaining: Vec<usize> = vec![0; slots];
    for id in order {
        remaining[id.index()] = model.node(*id).users().len();
    }
    for output in model.outputs() {
        remaining[output.value.node.index()] += 1;
    }
    for (id, tensor) in model.parameters().iter().zip(inputs) {
        values[id.index()] = vec![tensor.clone()];
    }
    for id in order {
        let node = model.node(*id);
        if !values[id.index()].is_empty() || remaining[id.index()] == 0 {
            continue;
        }
        let arguments: Vec<Tensor> = node
            .inputs()
            .iter()
            .map(|v| values[v.node.index()][v.output as usize].clone())
            .collect();
        let failed = |source| InferError::Op {
            op: node.op().kind().to_string(),
            node: node.name().to_owned(),
            source,
        };
        let results = node.op().evaluate(&arguments).map_err(failed)?;
        if results.len() < node.outputs().len() {
            return Err(failed(OpError::Invalid(format!(
                "gave {} outputs of {}",
                results.len(),
                node.outputs().len()
            )))
            .into());
        }
        values[id.index()] = results;
        for input in node.inputs() {
            let left = &mut remaining[input.node.index()];
            *left = left.saturating_sub(1);
            if *left == 0 {
                values[input.node.index()].clear();
            }
        }
    }
    Ok(model
        .outputs()
        .iter()
        .map(|o| values[o.value.node.index()][o.value.output as usize].clone())
        .collect())
}

/// Evaluates the body of a control-flow operator, whose parameters take any type and shape.
///
/// # Errors
/// As [`evaluate`], with the place in the text.
pub fn evaluate_body(body: &Model, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
    BodyRunner::new(body)?.run(inputs)
}

/// A body to be evaluated several times.
#[derive(Debug)]
pub struct BodyRunner<'m> {
    body: &'m Model,
    order: Vec<NodeId>,
}

impl<'m> BodyRunner<'m> {
    /// Finds the order of execution.
    ///
    /// # Errors
    /// When the body has a cycle.
    pub fn new(body: &'m Model) -> OpResult<Self> {
        let order = body.topological_order().map_err(|e| in_body(body, &e))?;
        Ok(Self { body, order })
    }

    /// Evaluates the body.
    ///
    /// # Errors
    /// When the number of inputs is wrong or an operator fails on its values.
    pub fn run(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        op_ensure!(
            inputs.len() == self.body.parameters().len(),
            "body {:?} has {} parameters, {} values are given",
            self.body.name(),
            self.body.parameters().len(),
            inputs.len()
        );
        run(self.body, &self.order, inputs).map_err(|e| in_body(self.body, &e))
    }
}

fn in_body(body: &Model, e: &crate::Error) -> OpError {
    OpError::Invalid(format!("in body {:?}: {e}", body.name()))
}
