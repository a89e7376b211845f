//! Matrix product with constant weights, with what follows it fused.

use crate::{
    Tensor,
    op::{InferContext, OpEntry, OpResult, OpRules, OutputType, matmul::MatMul, present},
};

use super::{activation, common::has_activation};
use super::activation::Activation;

define_op! {
    /// `act(x w + bias + residual)` or `act(x w + bias) + residual`.
    ///
    /// Inputs: x `[…, k]`, w `[k, n]` (`[n, k]` when `transpose_b`), then bias `[n]` and residual `[…, n]`, either of
    /// which may be absent. Output: `[…, n]`.
    pub struct FullyConnected("FullyConnected", 0) {
        /// Whether w is `[n, k]`.
        transpose_b: bool = false,
        /// Number of the activation (see [`Activation::to_parts`]).
        activation: i64 = 0,
        /// Its parameters.
        activation_params: Vec<f64> = Vec::new(),
        /// Whether the residual is added after the activation.
        residual_after: bool = false,
    }
}

has_activation!(FullyConnected);

impl FullyConnected {
    fn product(&self) -> MatMul {
        MatMul { transpose_a: false, transpose_b: self.transpose_b }
    }
}

impl OpRules for FullyConnected {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=4)?;
        crate::op::Op::infer(&self.product(), &InferContext { inputs: &cx.inputs[..2] })
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let y = crate::op::Op::evaluate(&self.product(), &inputs[..2])?;
        let (bias, residual) = (present(inputs, 2), present(inputs, 3));
        Ok(vec![activation::finish(
            &y[0],
            bias,
            residual,
            self.activation()?,
            self.residual_after,
        )?])
    }
}

/// Operators of this family.
pub(super) const OPS: &[OpEntry] = &[OpEntry::of::<FullyConnected>()];
