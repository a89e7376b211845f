//! Reading a variable.

use super::{InferContext, OpEntry, OpResult, OpRules, OutputType};
use crate::tensor::{ElementType, Tensor};

define_op! {
    /// The value of a variable; inputs its initial value, its value after the inference before, and a flag `[0..1]` of
    /// booleans whose *length* chooses: 1 for the initial value, so that the shape of the result follows from shapes.
    /// With the flag it is `ReadValue` of
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/infrastructure/read-value-6.html>.
    pub struct ReadState("ReadState", 0) {}
}

impl ReadState {
    /// The input that is read.
    #[must_use]
    pub fn chosen(flags: usize) -> usize {
        usize::from(flags == 0)
    }
}

impl OpRules for ReadState {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=3)?;
        cx.expect_type(2, "boolean", |t| t == ElementType::Boolean)?;
        cx.expect_rank(2, 1..=1)?;
        let ty = cx.common_type(0..2)?;
        let (initial, state) = (cx.shape(0), cx.shape(1));
        let shape = match cx.shape(2).dim(0).value() {
            Some(0) => state,
            Some(_) => initial,
            None => {
                op_ensure!(
                    initial.intersect(&state).is_some(),
                    "the initial value is {initial}, expected {state}"
                );
                state
            }
        };
        Ok(vec![OutputType::new(ty, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Ok(vec![inputs[Self::chosen(inputs[2].len())].clone()])
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[OpEntry::of::<ReadState>()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_the_flag_chooses() {
        let (initial, state) = (Tensor::from_i64s(&[1, 2]), Tensor::from_i64s(&[3]));
        for (flags, expected) in [(vec![], &[3i64][..]), (vec![true], &[1, 2])] {
            let flag = Tensor::from_bools([flags.len()], &flags).expect("fits");
            let got = ReadState {}.evaluate(&[initial.clone(), state.clone(), flag]).expect("valid");
            assert_eq!(got[0].to_i64_vec().expect("i64"), expected);
        }
    }
}
