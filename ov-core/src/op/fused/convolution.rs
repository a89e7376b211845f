//! Convolution, channels last, with what follows it fused.

use crate::{
    PartialShape, Tensor,
    op::{
        InferContext, InputInfo, OpEntry, OpResult, OpRules, OutputType, convolution::Convolution,
        present, window::AutoPad,
    },
};

use super::{
    activation,
    common::{Convolving, convolving, has_activation},
    layout::{permute, permute_shape, to_last, to_planar},
};
use super::activation::Activation;

define_op! {
    /// `act(conv(x, w) + bias + residual)` or `act(conv(x, w) + bias) + residual`.
    ///
    /// Inputs: x `[n, …, c]` (`[n, c, …]` when `planar`), w `[o, c / groups, k…]`, then bias `[o]` and residual
    /// `[n, …, o]`, either of which may be absent. Output: `[n, …, o]`.
    pub struct FusedConvolution("FusedConvolution", 0) {
        /// As in `Convolution`.
        strides: Vec<i64> = Vec::new(),
        /// As in `Convolution`.
        dilations: Vec<i64> = Vec::new(),
        /// As in `Convolution`.
        pads_begin: Vec<i64> = Vec::new(),
        /// As in `Convolution`.
        pads_end: Vec<i64> = Vec::new(),
        /// As in `Convolution`.
        auto_pad: AutoPad = AutoPad::Explicit,
        /// Groups of channels.
        groups: i64 = 1,
        /// Whether x is planar.
        planar: bool = false,
        /// Number of the activation (see [`Activation::to_parts`]).
        activation: i64 = 0,
        /// Its parameters.
        activation_params: Vec<f64> = Vec::new(),
        /// Whether the residual is added after the activation.
        residual_after: bool = false,
    }
}

has_activation!(FusedConvolution);
convolving!(FusedConvolution);

impl OpRules for FusedConvolution {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=4)?;
        let (x, w) = (cx.input(0)?, cx.input(1)?);
        let Some(rank) = x.shape.rank() else {
            return Ok(vec![OutputType::new(x.element_type, PartialShape::dynamic())]);
        };
        let planar =
            if self.planar { x.shape.clone() } else { permute_shape(x.shape, &to_planar(rank)) };
        let (op, filters) = self.plain(w.shape)?;
        let infos = [
            InputInfo { shape: &planar, value: None, dims: None, ..x },
            InputInfo { shape: &filters, value: None, dims: None, ..w },
        ];
        let types = op.infer(&InferContext { inputs: &infos })?;
        Ok(types
            .into_iter()
            .map(|t| OutputType::new(t.element_type, permute_shape(&t.shape, &to_last(rank))))
            .collect())
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let rank = inputs[0].rank();
        let x = if self.planar {
            inputs[0].clone()
        } else {
            permute(&inputs[0], &to_planar(rank))?.to_contiguous()
        };
        let (op, filters) = self.plain(&inputs[1].shape().into())?;
        let w = inputs[1].reshape(filters.to_shape().unwrap_or_default())?;
        let y = op.evaluate(&[x, w])?;
        let y = permute(&y[0], &to_last(rank))?;
        let (bias, residual) = (present(inputs, 2), present(inputs, 3));
        Ok(vec![activation::finish(&y, bias, residual, self.activation()?, self.residual_after)?])
    }
}

/// Operators of this family.
pub(super) const OPS: &[OpEntry] = &[OpEntry::of::<FusedConvolution>()];
