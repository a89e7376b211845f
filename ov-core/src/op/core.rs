//! Parameter, Constant and Identity: where values enter a model, and the operator that changes nothing.

use std::sync::Arc;

use super::{
    AttributeVisitor, InferContext, OpAttributes, OpEntry, OpError, OpKind, OpResult, OpRules, OutputType,
};
use crate::{
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

define_op! {
    /// A model input. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/infrastructure/parameter-1.html>
    pub struct Parameter("Parameter", 1) {
        /// Element type of the tensors that may be given.
        element_type: ElementType = ElementType::Dynamic,
        /// Shape of the tensors that may be given.
        shape: PartialShape = PartialShape::dynamic(),
    }
}

impl OpRules for Parameter {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(0..=0)?;
        Ok(vec![OutputType::new(self.element_type, self.shape.clone())])
    }

    fn evaluate(&self, _: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Err(OpError::Invalid("a parameter has no value of its own".to_owned()))
    }
}

/// A value that is part of the model.
#[derive(Clone, Debug)]
pub struct Constant {
    /// The value; shared, never written.
    pub value: Arc<Tensor>,
}

impl Default for Constant {
    fn default() -> Self {
        Self { value: Arc::new(Tensor::absent()) }
    }
}

impl From<Tensor> for Constant {
    fn from(value: Tensor) -> Self {
        Self { value: Arc::new(value) }
    }
}

impl OpAttributes for Constant {
    const KIND: OpKind = OpKind { name: "Constant", opset: 1 };

    fn visit(&mut self, visitor: &mut dyn AttributeVisitor) -> OpResult<()> {
        visitor.visit("value", Arc::make_mut(&mut self.value).into())
    }
}

impl OpRules for Constant {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(0..=0)?;
        Ok(vec![OutputType::new(self.value.element_type(), self.value.shape().clone())])
    }

    fn evaluate(&self, _: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Ok(vec![Tensor::clone(&self.value)])
    }
}

define_op! {
    /// Gives its input on. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/matrix/identity-16.html>
    pub struct Identity("Identity", 16) {}
}

impl OpRules for Identity {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        let dims: Option<Vec<Dimension>> = cx.dims(0);
        Ok(vec![cx.same_as(0).with_dims(dims)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Ok(inputs.to_vec())
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] =
    &[OpEntry::of::<Parameter>(), OpEntry::of::<Constant>(), OpEntry::of::<Identity>()];
