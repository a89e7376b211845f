//! Pooling, channels last.

use crate::{
    PartialShape, Tensor, choice,
    op::{
        InferContext, InputInfo, Op, OpEntry, OpResult, OpRules, OutputType,
        pooling::{AvgPool, MaxPool},
        window::{AutoPad, Rounding, Window},
    },
};

use super::layout::{permute, permute_shape, to_last, to_planar};

choice! {
    /// What is computed of a window.
    pub enum PoolMode {
        /// The largest element.
        Max = "max",
        /// The mean of the elements inside the input.
        Average = "average",
        /// The mean of the elements inside the padded input.
        AverageWithPad = "average_with_pad",
    }
}

define_op! {
    /// Pooling of `[n, …, c]`.
    pub struct PoolLast("PoolLast", 0) {
        /// What is computed.
        mode: PoolMode = PoolMode::Max,
        /// Extents of a window.
        kernel: Vec<i64> = Vec::new(),
        /// Distance of neighbouring windows.
        strides: Vec<i64> = Vec::new(),
        /// Distance of neighbouring window elements.
        dilations: Vec<i64> = Vec::new(),
        /// Padding before the data.
        pads_begin: Vec<i64> = Vec::new(),
        /// Padding after the data.
        pads_end: Vec<i64> = Vec::new(),
        /// How a fraction of a window at the end counts.
        rounding_type: Rounding = Rounding::Floor,
        /// How padding is found.
        auto_pad: AutoPad = AutoPad::Explicit,
    }
}

impl PoolLast {
    /// The windows over an input of these spatial extents, padding resolved.
    ///
    /// # Errors
    /// When an attribute is not valid.
    pub fn windows(&self, input: &[usize]) -> OpResult<Vec<Window>> {
        let kernel: Vec<usize> =
            self.kernel.iter().map(|k| usize::try_from(*k).unwrap_or(0)).collect();
        let windows = Window::from_attributes(
            &kernel,
            &self.strides,
            &self.dilations,
            &self.pads_begin,
            &self.pads_end,
        )?;
        Ok(windows.into_iter().zip(input).map(|(w, e)| w.padded(self.auto_pad, *e)).collect())
    }

    fn plain(&self) -> Box<dyn Op> {
        let (strides, kernel) = (self.strides.clone(), self.kernel.clone());
        let (pads_begin, pads_end) = (self.pads_begin.clone(), self.pads_end.clone());
        let (rounding_type, auto_pad, dilations) =
            (self.rounding_type, self.auto_pad, self.dilations.clone());
        match self.mode {
            PoolMode::Max => Box::new(MaxPool {
                strides,
                pads_begin,
                pads_end,
                kernel,
                rounding_type,
                auto_pad,
                dilations,
                ..MaxPool::default()
            }),
            PoolMode::Average | PoolMode::AverageWithPad => Box::new(AvgPool {
                strides,
                pads_begin,
                pads_end,
                kernel,
                rounding_type,
                auto_pad,
                dilations,
                exclude_pad: self.mode == PoolMode::Average,
            }),
        }
    }
}

impl OpRules for PoolLast {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        let x = cx.input(0)?;
        let Some(rank) = x.shape.rank() else {
            return Ok(vec![OutputType::new(x.element_type, PartialShape::dynamic())]);
        };
        let planar = permute_shape(x.shape, &to_planar(rank));
        let infos = [InputInfo { shape: &planar, value: None, dims: None, ..x }];
        let types = self.plain().infer(&InferContext { inputs: &infos })?;
        Ok(vec![OutputType::new(x.element_type, permute_shape(&types[0].shape, &to_last(rank)))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let rank = inputs[0].rank();
        let x = permute(&inputs[0], &to_planar(rank))?.to_contiguous();
        let y = self.plain().evaluate(&[x])?;
        Ok(vec![permute(&y[0], &to_last(rank))?.to_contiguous()])
    }
}

/// Operators of this family.
pub(super) const OPS: &[OpEntry] = &[OpEntry::of::<PoolLast>()];
