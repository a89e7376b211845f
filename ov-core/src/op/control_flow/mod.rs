//! If, Loop and `TensorIterator`: operators with models inside.

mod body;
mod iterate;
mod ports;
mod run;

pub use body::{KnownOutput, infer_body};
pub use iterate::{Loop, RunBody, TensorIterator};
#[cfg(feature = "onnx")]
pub(crate) use iterate::widen;
pub(crate) use ports::{concat_axis, slice_axis};
pub use ports::{ConcatPort, LoopPorts, MergedPort, SlicePort};
pub use run::{RunNumbered, bodies, run};

use super::{InferContext, OpEntry, OpError, OpResult, OpRules, OutputType};
use crate::{
    model::Model,
    reference::evaluate_body,
    tensor::{ElementType, Tensor},
};

define_op! {
    /// One of two bodies, by a condition (input 0: boolean, one element).
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/condition/if-8.html>
    pub struct If("If", 8) {
        /// Runs when the condition is true.
        then_body: Model = Model::default(),
        /// Runs when the condition is false.
        else_body: Model = Model::default(),
        /// For each parameter of `then_body`, the input of the operator that it reads.
        then_inputs: Vec<i64> = Vec::new(),
        /// For each parameter of `else_body`, the input of the operator that it reads.
        else_inputs: Vec<i64> = Vec::new(),
        /// For each output of the operator, the output of `then_body` that it gives.
        then_outputs: Vec<i64> = Vec::new(),
        /// For each output of the operator, the output of `else_body` that it gives.
        else_outputs: Vec<i64> = Vec::new(),
    }
}

impl If {
    /// The body for a condition with its maps of inputs and outputs.
    #[must_use]
    pub fn branch(&self, condition: bool) -> (&Model, &[i64], &[i64]) {
        if condition {
            (&self.then_body, &self.then_inputs, &self.then_outputs)
        } else {
            (&self.else_body, &self.else_inputs, &self.else_outputs)
        }
    }

    fn infer_branch(&self, condition: bool, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        let (body, inputs, outputs) = self.branch(condition);
        let inputs = inputs
            .iter()
            .map(|i| cx.input(ports::index(*i)?))
            .collect::<OpResult<Vec<_>>>()?;
        let known = infer_body(body, &inputs)?;
        outputs.iter().map(|o| Ok(ports::pick(&known, *o)?.ty.clone())).collect()
    }
}

/// The truth value behind a condition of one element.
///
/// # Errors
/// [`OpError::Invalid`] when there is not exactly one element.
pub fn condition(tensor: &Tensor) -> OpResult<bool> {
    op_ensure!(tensor.len() == 1, "the condition has shape {}, expected one element", tensor.shape());
    tensor
        .element_as_i64(0)
        .map(|v| v != 0)
        .ok_or_else(|| OpError::Invalid(format!("the condition is of type {}", tensor.element_type())))
}

impl OpRules for If {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=usize::MAX)?;
        cx.expect_type(0, "boolean", |t| t == ElementType::Boolean)?;
        if let Some(shape) = cx.shape(0).to_shape() {
            op_ensure!(
                shape.checked_len() == Some(1),
                "the condition has shape {shape}, expected one element"
            );
        }
        op_ensure!(
            self.then_outputs.len() == self.else_outputs.len(),
            "the branches give {} and {} outputs",
            self.then_outputs.len(),
            self.else_outputs.len()
        );
        if let Some(value) = cx.value(0) {
            return self.infer_branch(condition(value)?, cx);
        }
        let (then, other) = (self.infer_branch(true, cx)?, self.infer_branch(false, cx)?);
        Ok(then.iter().zip(&other).map(|(a, b)| unite(a, b)).collect())
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (body, from, to) = self.branch(condition(ports::pick(inputs, 0)?)?);
        let arguments = from
            .iter()
            .map(|i| ports::pick(inputs, *i).cloned())
            .collect::<OpResult<Vec<_>>>()?;
        let results = evaluate_body(body, &arguments)?;
        to.iter().map(|o| ports::pick(&results, *o).cloned()).collect()
    }
}

/// What is certain about a value that has one of two types.
fn unite(a: &OutputType, b: &OutputType) -> OutputType {
    let element_type =
        if a.element_type == b.element_type { a.element_type } else { ElementType::Dynamic };
    let dims = a.dims.clone().filter(|_| a.dims == b.dims);
    OutputType::new(element_type, a.shape.union(&b.shape)).with_dims(dims)
}

/// Operators of this family.
pub const OPS: &[OpEntry] =
    &[OpEntry::of::<If>(), OpEntry::of::<Loop>(), OpEntry::of::<TensorIterator>()];

#[cfg(test)]
mod tests;
