//! Transposed convolution, channels last, with what follows it fused.

use crate::{
    PartialShape, Tensor,
    op::{
        InferContext, InputInfo, Op, OpEntry, OpResult, OpRules, OutputType,
        convolution::{ConvolutionBackpropData, GroupConvolutionBackpropData},
        present,
        window::Window,
    },
};

use super::{
    activation,
    common::{grouped, has_activation},
    layout::{permute, permute_shape, to_last, to_planar},
};
use super::activation::Activation;

define_op! {
    /// `act(conv(x, w) + bias + residual)` or `act(conv(x, w) + bias) + residual`, where `conv` is transposed.
    ///
    /// Inputs: x `[n, …, c]`, w `[c, o / groups, k…]`, then bias `[o]` and residual `[n, …, o]`, either of which may be
    /// absent. Output: `[n, …, o]`.
    pub struct FusedConvolutionTransposed("FusedConvolutionTransposed", 0) {
        /// As in `ConvolutionBackpropData`.
        strides: Vec<i64> = Vec::new(),
        /// As in `ConvolutionBackpropData`.
        dilations: Vec<i64> = Vec::new(),
        /// As in `ConvolutionBackpropData`; not negative.
        pads_begin: Vec<i64> = Vec::new(),
        /// As in `ConvolutionBackpropData`.
        pads_end: Vec<i64> = Vec::new(),
        /// As in `ConvolutionBackpropData`.
        output_padding: Vec<i64> = Vec::new(),
        /// Groups of channels.
        groups: i64 = 1,
        /// Number of the activation (see [`Activation::to_parts`]).
        activation: i64 = 0,
        /// Its parameters.
        activation_params: Vec<f64> = Vec::new(),
        /// Whether the residual is added after the activation.
        residual_after: bool = false,
    }
}

has_activation!(FusedConvolutionTransposed);

impl FusedConvolutionTransposed {
    /// The same on planar tensors, without what is fused and without groups.
    #[must_use]
    pub fn plain(&self) -> ConvolutionBackpropData {
        ConvolutionBackpropData {
            strides: self.strides.clone(),
            dilations: self.dilations.clone(),
            pads_begin: self.pads_begin.clone(),
            pads_end: self.pads_end.clone(),
            output_padding: self.output_padding.clone(),
            ..ConvolutionBackpropData::default()
        }
    }

    /// For each spatial axis the window and the extent of the output.
    ///
    /// # Errors
    /// When an attribute is not valid.
    pub fn windows(&self, kernel: &[usize], input: &[usize]) -> OpResult<Vec<(Window, usize)>> {
        self.plain().windows(kernel, input, None)
    }

    /// The operator on planar tensors and the shape of its filters.
    fn planar(&self, filters: &PartialShape) -> OpResult<(Box<dyn Op>, PartialShape)> {
        if self.groups == 1 {
            return Ok((Box::new(self.plain()), filters.clone()));
        }
        let filters = grouped(filters, self.groups)?;
        let ConvolutionBackpropData {
            strides,
            dilations,
            pads_begin,
            pads_end,
            auto_pad,
            output_padding,
        } = self.plain();
        let op = GroupConvolutionBackpropData {
            strides,
            dilations,
            pads_begin,
            pads_end,
            auto_pad,
            output_padding,
        };
        Ok((Box::new(op), filters))
    }
}

impl OpRules for FusedConvolutionTransposed {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=4)?;
        let (x, w) = (cx.input(0)?, cx.input(1)?);
        let Some(rank) = x.shape.rank() else {
            return Ok(vec![OutputType::new(x.element_type, PartialShape::dynamic())]);
        };
        let planar = permute_shape(x.shape, &to_planar(rank));
        let (op, filters) = self.planar(w.shape)?;
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
        let x = permute(&inputs[0], &to_planar(rank))?.to_contiguous();
        let (op, filters) = self.planar(&inputs[1].shape().into())?;
        let w = inputs[1].reshape(filters.to_shape().unwrap_or_default())?;
        let y = op.evaluate(&[x, w])?;
        let y = permute(&y[0], &to_last(rank))?;
        let (bias, residual) = (present(inputs, 2), present(inputs, 3));
        Ok(vec![activation::finish(&y, bias, residual, self.activation()?, self.residual_after)?])
    }
}

/// Operators of this family.
pub(super) const OPS: &[OpEntry] = &[OpEntry::of::<FusedConvolutionTransposed>()];
