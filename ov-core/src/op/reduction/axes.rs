//! Axes of a reduction that are known at run time only.

use crate::{
    op::{InferContext, OpResult, OpRules, OutputType},
    tensor::{ElementType, PartialShape, Tensor},
};

define_op! {
    /// The axes, or all axes when there are none; inputs axes (rank 1) and the shape of the data (rank 1). Output `i64`.
    /// Reductions of <https://onnx.ai/onnx/operators/onnx__ReduceSum.html> read an empty list so.
    pub struct AxesOrAll("AxesOrAll", 0) {}
}

impl OpRules for AxesOrAll {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        for index in 0..2 {
            cx.expect_rank(index, 1..=1)?;
            cx.expect_type(index, "an integer type", ElementType::is_integer)?;
        }
        let shape = match cx.shape(0).dim(0).value() {
            Some(0) => PartialShape::new(&[cx.shape(1).dim(0)]),
            Some(count) => PartialShape::from([count]),
            None => PartialShape::dynamic_rank(1),
        };
        Ok(vec![OutputType::new(ElementType::I64, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let axes = inputs[0].to_i64_vec()?;
        if !axes.is_empty() {
            return Ok(vec![Tensor::from_i64s(&axes)]);
        }
        let rank = i64::try_from(inputs[1].len()).unwrap_or(i64::MAX);
        Ok(vec![Tensor::from_i64s(&(0..rank).collect::<Vec<_>>())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_axes_mean_all() {
        let shape = Tensor::from_i64s(&[4, 5, 6]);
        for (axes, expected) in [(&[][..], &[0, 1, 2][..]), (&[-1], &[-1]), (&[0, 2], &[0, 2])] {
            let got = AxesOrAll {}.evaluate(&[Tensor::from_i64s(axes), shape.clone()]).expect("valid");
            assert_eq!(got[0].as_slice::<i64>().expect("i64"), expected);
        }
    }
}
