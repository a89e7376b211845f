//! Group normalization, channels last.

use crate::{
    Tensor,
    op::{
        InferContext, InputInfo, OpEntry, OpResult, OpRules, OutputType,
        normalization::GroupNormalization,
    },
};

use super::layout::{permute, permute_shape, to_last, to_planar};

define_op! {
    /// [`GroupNormalization`] of `[n, …, c]`; inputs data, scale `[c]`, bias `[c]`.
    pub struct GroupNormLast("GroupNormLast", 0) {
        /// Number of groups, which divides the number of channels.
        num_groups: i64 = 1,
        /// Added to the variance.
        epsilon: f64 = 1e-5,
    }
}

impl GroupNormLast {
    fn plain(&self) -> GroupNormalization {
        GroupNormalization { num_groups: self.num_groups, epsilon: self.epsilon }
    }
}

impl OpRules for GroupNormLast {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=3)?;
        let x = cx.input(0)?;
        if let Some(rank) = x.shape.rank() {
            let planar = permute_shape(x.shape, &to_planar(rank));
            let infos = [
                InputInfo { shape: &planar, value: None, dims: None, ..x },
                cx.input(1)?,
                cx.input(2)?,
            ];
            self.plain().infer(&InferContext { inputs: &infos })?;
        }
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let rank = inputs[0].rank();
        let x = permute(&inputs[0], &to_planar(rank))?.to_contiguous();
        let y = self.plain().evaluate(&[x, inputs[1].clone(), inputs[2].clone()])?;
        Ok(vec![permute(&y[0], &to_last(rank))?.to_contiguous()])
    }
}

/// Operators of this family.
pub(super) const OPS: &[OpEntry] = &[OpEntry::of::<GroupNormLast>()];
