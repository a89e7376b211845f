//! Several element-wise operators in one.

use crate::{
    Model, Tensor,
    op::{InferContext, OpEntry, OpResult, OpRules, OutputType, control_flow::infer_body},
    reference::BodyRunner,
};

define_op! {
    /// What a body of element-wise operators makes of the inputs, which broadcast. The body has one parameter per input
    /// and one output; every value that it computes has the shape of the output.
    pub struct ElementWise("ElementWise", 0) {
        /// The operators.
        body: Model = Model::default(),
    }
}

impl OpRules for ElementWise {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        let outputs = infer_body(&self.body, cx.inputs)?;
        Ok(outputs.into_iter().map(|o| o.ty.with_dims(None)).collect())
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        BodyRunner::new(&self.body)?.run(inputs)
    }
}

/// Operators of this family.
pub(super) const OPS: &[OpEntry] = &[OpEntry::of::<ElementWise>()];
