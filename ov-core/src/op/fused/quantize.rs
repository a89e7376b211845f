//! `DynamicQuantizeLinear` in two steps that threads can share.

use std::ops::Range;

use crate::{
    Dimension, ElementType, PartialShape, Tensor,
    op::{
        InferContext, Op, OpEntry, OpResult, OpRules, OutputType,
        quantize::{DynamicQuantizeLinear, QuantizeLinear},
    },
};

use super::activation::{self, Activation};

define_op! {
    /// The least and the greatest of 0 and the elements of each of `blocks` blocks of an `f32` tensor: `[blocks, 2]`.
    pub struct BlockRanges("BlockRanges", 0) {
        /// Number of blocks.
        blocks: i64 = 64,
    }
}

impl BlockRanges {
    /// The elements of block `i` of `blocks`.
    #[must_use]
    pub fn block(len: usize, blocks: usize, i: usize) -> Range<usize> {
        let size = len.div_ceil(blocks.max(1));
        (i * size).min(len)..((i + 1) * size).min(len)
    }

    fn count(&self) -> usize {
        usize::try_from(self.blocks).unwrap_or(0).clamp(1, 1 << 16)
    }
}

impl OpRules for BlockRanges {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_type(0, "f32", |t| t == ElementType::F32)?;
        let shape = PartialShape::new(&[Dimension::fixed(self.count()), Dimension::fixed(2)]);
        Ok(vec![OutputType::new(ElementType::F32, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let x = inputs[0].to_contiguous();
        let (x, blocks) = (x.as_slice::<f32>()?, self.count());
        let ranges = (0..blocks).flat_map(|i| {
            let part = &x[Self::block(x.len(), blocks, i)];
            let (low, high) = part.iter().fold((0f32, 0f32), |(l, h), v| (l.min(*v), h.max(*v)));
            [low, high]
        });
        Ok(vec![Tensor::from_vec([blocks, 2], ranges.collect())?])
    }
}

define_op! {
    /// [`DynamicQuantizeLinear`] of input 0, whose range is that of the elements of input 1.
    pub struct QuantizeByRanges("QuantizeByRanges", 0) {}
}

impl OpRules for QuantizeByRanges {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        cx.expect_type(1, "f32", |t| t == ElementType::F32)?;
        Op::infer(&DynamicQuantizeLinear {}, &InferContext { inputs: &cx.inputs[..1] })
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        // The ranges are those of the data, so the operator finds them again.
        Op::evaluate(&DynamicQuantizeLinear {}, &inputs[..1])
    }
}

define_op! {
    /// `act((a - a_zero) a_scale + (b - b_zero) b_scale)`, quantized. Inputs: a, its scale and zero point, b, its scale and
    /// zero point, then scale and zero point of the output, each of one element. a and b have the same shape.
    pub struct IntegerAdd("IntegerAdd", 0) {
        /// Number of the activation (see [`Activation::to_parts`]).
        activation: i64 = 0,
        /// Its parameters.
        activation_params: Vec<f64> = Vec::new(),
    }
}

impl IntegerAdd {
    /// The activation.
    ///
    /// # Errors
    /// When the number is not known.
    pub fn activation(&self) -> OpResult<Activation> {
        activation::from_attributes(self.activation, &self.activation_params)
    }

    /// Sets the activation.
    pub fn set_activation(&mut self, activation: Activation) {
        (self.activation, self.activation_params) = activation::to_attributes(activation);
    }
}

impl OpRules for IntegerAdd {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(8..=8)?;
        let bytes = |t: ElementType| matches!(t, ElementType::I8 | ElementType::U8);
        for (data, scale, zero) in [(0, 1, 2), (3, 4, 5), (7, 6, 7)] {
            let ty = cx.element_type(data);
            cx.expect_type(data, "i8 or u8", bytes)?;
            cx.expect_type(scale, "f32", |t| t == ElementType::F32)?;
            cx.expect_type(zero, "the type of what it belongs to", |t| t == ty)?;
        }
        Ok(vec![OutputType::new(cx.element_type(7), cx.shape(0))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let first = |i: usize| -> OpResult<f32> {
            Ok(inputs[i].to_f64_vec()?.first().map_or(0.0, |v| *v as f32))
        };
        let real = |i: usize| -> OpResult<Vec<f32>> {
            let (scale, zero) = (first(i + 1)?, first(i + 2)?);
            Ok(inputs[i].to_f64_vec()?.into_iter().map(|v| (v as f32 - zero) * scale).collect())
        };
        let (a, b, act) = (real(0)?, real(3)?, self.activation()?);
        let sums = a.iter().zip(&b).map(|(a, b)| activation::exact(act, f64::from(a + b)) as f32);
        let sums = Tensor::from_vec(inputs[0].shape().clone(), sums.collect())?;
        let scale = inputs[6].to_contiguous().reshape([1])?;
        let zero = inputs[7].to_contiguous().reshape([1])?;
        Op::evaluate(&QuantizeLinear::default(), &[sums, scale, zero])
    }
}

/// Operators of this family.
pub(super) const OPS: &[OpEntry] =
    &[OpEntry::of::<BlockRanges>(), OpEntry::of::<QuantizeByRanges>(), OpEntry::of::<IntegerAdd>()];
