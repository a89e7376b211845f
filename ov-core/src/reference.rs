//! The reference interpreter: runs a model with every operator's own evaluation. Slow, exact, the oracle of all devices.

use std::collections::HashMap;

use crate::{
    error::{InferError, Result},
    model::{Model, NodeId, Value},
    op::{OpError, OpResult},
    tensor::Tensor,
};

/// Evaluates a model on one tensor per input, in order, and gives one tensor per output.
///
/// # Errors
/// [`InferError`] when the tensors do not fit the inputs or an operator fails on its values.
pub fn evaluate(model: &Model, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
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
    let mut values: HashMap<Value, Tensor> = HashMap::new();
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
        values.insert((*id).into(), tensor.clone());
    }
    let mut remaining: HashMap<NodeId, usize> = HashMap::new();
    for id in model.topological_order()? {
        let node = model.node(id);
        if values.contains_key(&id.into()) || model.parameters().contains(&id) {
            continue;
        }
        let arguments: Vec<Tensor> = node.inputs().iter().map(|v| values[v].clone()).collect();
        let results = node.op().evaluate(&arguments).map_err(|source| InferError::Op {
            op: node.op().kind().to_string(),
            node: node.name().to_owned(),
            source,
        })?;
        for (i, result) in results.into_iter().enumerate() {
            values.insert(Value { node: id, output: i as u32 }, result);
        }
        for input in node.inputs() {
            let left =
                remaining.entry(input.node).or_insert_with(|| model.node(input.node).users().len());
            *left -= 1;
            if *left == 0 {
                for output in 0..model.node(input.node).outputs().len() as u32 {
                    let value = Value { node: input.node, output };
                    if !model.is_output(value) {
                        values.remove(&value);
                    }
                }
            }
        }
    }
    Ok(model.outputs().iter().map(|o| values[&o.value].clone()).collect())
}

/// Evaluates the body of a control-flow operator.
///
/// # Errors
/// As [`evaluate`], with the place in the text.
pub fn evaluate_body(body: &Model, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
    evaluate(body, inputs).map_err(|e| OpError::Invalid(format!("in body {:?}: {e}", body.name())))
}
