//! Dropout of training.

use crate::{
    dispatch_float,
    op::{InferContext, OpError, OpResult, OpRules, OutputType, present, random::Stream, unsupported_type},
    tensor::{Element, ElementType, Tensor},
};

define_op! {
    /// Sets elements to 0 with the probability `ratio` and divides the others by `1 - ratio`; inputs data, ratio
    /// (0.5 when left out) and whether to train (no when left out: the data stay as they are). Outputs the data and
    /// which elements stayed. The same seed gives the same choice. <https://onnx.ai/onnx/operators/onnx__Dropout.html>
    pub struct Dropout("Dropout", 0) {
        /// Start of the random sequence.
        seed: i64 = 0,
        /// Whether `seed` counts; else every evaluation drops others.
        seeded: bool = true,
    }
}

impl OpRules for Dropout {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=3)?;
        cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
        Ok(vec![cx.same_as(0), OutputType::new(ElementType::Boolean, cx.shape(0))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let x = inputs[0].to_contiguous();
        let shape = x.shape().clone();
        let ratio = present(inputs, 1).map_or(Some(0.5), |t| t.element_as_f64(0)).unwrap_or(0.5);
        let training = present(inputs, 2).and_then(|t| t.element_as_i64(0)).unwrap_or(0) != 0;
        if !(0.0..1.0).contains(&ratio) {
            return Err(OpError::Input {
                index: 1,
                got: ratio.to_string(),
                expected: "at least 0 and less than 1".to_owned(),
            });
        }
        if !training || ratio == 0.0 {
            let mask = Tensor::from_bools(shape, &vec![true; x.len()])?;
            return Ok(vec![x, mask]);
        }
        let mut stream = Stream::new(self.seeded.then_some(self.seed));
        let mask: Vec<bool> = (0..x.len()).map(|_| stream.unit() >= ratio).collect();
        let ty = x.element_type();
        let y = dispatch_float!(ty, T => {
            let kept = |(v, m): (&T, &bool)| T::from_f64(if *m { v.to_f64() / (1.0 - ratio) } else { 0.0 });
            Tensor::from_vec(shape.clone(), x.as_slice::<T>()?.iter().zip(&mask).map(kept).collect::<Vec<T>>())?
        }, else return Err(unsupported_type(ty)));
        Ok(vec![y, Tensor::from_bools(shape, &mask)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_dropped_at_the_ratio_and_the_mean_stays() {
        let x = Tensor::from_vec([4001], vec![1f32; 4001]).expect("fits");
        let train = Tensor::from_bools([], &[true]).expect("fits");
        let op = Dropout { seed: 7, seeded: true };
        let inputs = [x.clone(), Tensor::scalar(0.25f32), train];
        let got = op.evaluate(&inputs).expect("valid");
        let kept = got[1].bytes().iter().filter(|m| **m != 0).count() as f64 / 4001.0;
        assert!((kept - 0.75).abs() < 0.03, "{kept}");
        let mean = got[0].to_f64_vec().expect("f32").iter().sum::<f64>() / 4001.0;
        assert!((mean - 1.0).abs() < 0.04, "{mean}");
        assert_eq!(op.evaluate(&inputs).expect("valid")[0], got[0]);
        assert_eq!(op.evaluate(&inputs[..2]).expect("valid")[0], x);
        assert!(op.evaluate(&[x, Tensor::scalar(1f32)]).is_err());
    }
}
