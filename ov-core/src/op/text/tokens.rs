//! Lists of tokens: forbidding repetition, and merging guesses.

use crate::{
    dispatch_float,
    op::{
        InferContext, OpError, OpResult, OpRules, OutputType, convert::to_f64, unsupported_type,
    },
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

define_op! {
    /// Scores `[batch, vocabulary]`, −∞ for every token that would end a run of `ngram_size` tokens which the ids
    /// `[batch, length]` hold already; inputs ids and scores.
    /// <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.NGramRepeatBlock>
    pub struct NGramRepeatBlock("NGramRepeatBlock", 0) {
        /// Length of the runs.
        ngram_size: i64 = 1,
    }
}

impl OpRules for NGramRepeatBlock {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        cx.expect_rank(0, 2..=2)?;
        cx.expect_rank(1, 2..=2)?;
        cx.expect_type(0, "an integer type", ElementType::is_integer)?;
        cx.expect_type(1, "a floating-point type", ElementType::is_float)?;
        if self.ngram_size < 1 {
            return Err(OpError::Attribute {
                name: "ngram_size",
                got: self.ngram_size.to_string(),
                expected: "at least 1".to_owned(),
            });
        }
        let (ids, scores) = (cx.shape(0), cx.shape(1));
        op_ensure!(
            ids.dim(0).intersect(scores.dim(0)).is_some(),
            "ids {ids} and scores {scores} have different batches"
        );
        Ok(vec![cx.same_as(1)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (ids, shape) = (inputs[0].to_i64_vec()?, inputs[1].shape().clone());
        let (length, vocabulary) = (inputs[0].shape()[1], shape[1]);
        op_ensure!(inputs[0].shape()[0] == shape[0], "batches of ids and scores differ");
        let size = usize::try_from(self.ngram_size).unwrap_or(usize::MAX).max(1);
        let mut scores = to_f64(&inputs[1])?;
        if size <= length {
            for (row, ids) in ids.chunks_exact(length).enumerate() {
                let last = &ids[length - (size - 1)..];
                for run in ids.windows(size).filter(|run| run[..size - 1] == *last) {
                    let token = run[size - 1];
                    let at = usize::try_from(token).ok().filter(|t| *t < vocabulary);
                    let at = at.ok_or_else(|| {
                        OpError::Invalid(format!("token {token} is outside of {vocabulary} scores"))
                    })?;
                    scores[row * vocabulary + at] = f64::NEG_INFINITY;
                }
            }
        }
        let ty = inputs[1].element_type();
        let out = dispatch_float!(ty, T => Tensor::from_f64s::<T>(shape, &scores)?,
            else return Err(unsupported_type(ty)));
        Ok(vec![out])
    }
}

define_op! {
    /// The current tokens with those guessed ones that agree with the source and the first that does not, and where the
    /// source goes on after the end of that list (−1: nowhere, or at several places). Inputs source, current tokens,
    /// where the guess starts in the source, and the guess.
    /// <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.BifurcationDetector>
    pub struct BifurcationDetector("BifurcationDetector", 0) {
        /// Length of the shortest end that is looked for.
        min_ngram_size: i64 = 1,
        /// Length of the longest end that is looked for.
        max_ngram_size: i64 = 3,
    }
}

impl BifurcationDetector {
    /// Where `source` goes on after the end of `tokens`: the shortest end that is there once decides.
    fn suffix_match(&self, source: &[i64], tokens: &[i64]) -> i64 {
        let least = usize::try_from(self.min_ngram_size).unwrap_or(0).max(1);
        let most = usize::try_from(self.max_ngram_size).unwrap_or(0).min(tokens.len());
        for size in least..=most {
            let end = &tokens[tokens.len() - size..];
            let mut places = source.windows(size).enumerate().filter(|(_, w)| *w == end);
            let Some((first, _)) = places.next() else { return -1 };
            if first + size >= source.len() {
                return (first + size) as i64;
            }
            if places.next().is_none() {
                return (first + size) as i64;
            }
        }
        -1
    }
}

impl OpRules for BifurcationDetector {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=4)?;
        for index in 0..cx.len() {
            cx.expect_type(index, "an integer type", ElementType::is_integer)?;
            cx.expect_rank(index, if index == 2 { 0..=1 } else { 1..=1 })?;
        }
        let tokens = if cx.len() > 3 { Dimension::DYNAMIC } else { cx.shape(1).dim(0) };
        let ty = cx.element_type(1);
        Ok(vec![
            OutputType::new(ty, PartialShape::new(&[tokens])),
            OutputType::new(ty, PartialShape::from([1])),
        ])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (source, mut tokens) = (inputs[0].to_i64_vec()?, inputs[1].to_i64_vec()?);
        if let Some(guess) = inputs.get(3) {
            let guess = guess.to_i64_vec()?;
            let start = inputs[2].to_i64_vec()?;
            let from = start.first().and_then(|s| usize::try_from(*s).ok());
            let rest = from.and_then(|f| source.get(f..)).ok_or_else(|| {
                OpError::Invalid(format!("{start:?} is no place in {} tokens", source.len()))
            })?;
            op_ensure!(
                guess.len() == rest.len() + 1,
                "{} tokens are guessed, expected {}",
                guess.len(),
                rest.len() + 1
            );
            let agree = guess.iter().zip(rest).take_while(|(a, b)| a == b).count();
            tokens.extend(&guess[..=agree]);
        }
        let at = self.suffix_match(&source, &tokens);
        let ty = inputs[1].element_type();
        Ok(vec![Tensor::from_i64s(&tokens).cast(ty)?, Tensor::from_i64s(&[at]).cast(ty)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_do_not_repeat() {
        let ids = Tensor::from_vec([1, 5], vec![1i64, 2, 3, 1, 2]).expect("fits");
        for (size, hidden) in [(1, vec![1, 2, 3]), (2, vec![3]), (3, vec![3]), (4, vec![]), (9, vec![])] {
            let scores = Tensor::from_vec([1, 4], vec![1.0f32; 4]).expect("fits");
            let op = NGramRepeatBlock { ngram_size: size };
            let y = op.evaluate(&[ids.clone(), scores]).expect("valid");
            let y = y[0].as_slice::<f32>().expect("f32").to_vec();
            let found: Vec<usize> = (0..4).filter(|i| y[*i] == f32::NEG_INFINITY).collect();
            assert_eq!(found, hidden, "{size}");
        }
        let few = Tensor::from_vec([1, 2], vec![1.0f32; 2]).expect("fits");
        assert!(NGramRepeatBlock { ngram_size: 1 }.evaluate(&[ids, few]).is_err());
    }

    #[test]
    fn guesses_are_merged_up_to_the_first_difference() {
        let list = |v: &[i64]| Tensor::from_i64s(v);
        let source = list(&[5, 3, 4, 3]);
        let inputs = [source.clone(), list(&[2]), list(&[1]), list(&[3, 4, 9, 3])];
        let y = BifurcationDetector::default().evaluate(&inputs).expect("valid");
        assert_eq!(y[0].to_i64_vec().expect("i64"), [2, 3, 4, 9]);
        assert_eq!(y[1].to_i64_vec().expect("i64"), [-1]);
        let y = BifurcationDetector::default().evaluate(&[source.clone(), list(&[2, 4]), list(&[0])]);
        assert_eq!(y.expect("valid")[1].to_i64_vec().expect("i64"), [3]);
        let wrong = [source, list(&[2]), list(&[9]), list(&[3])];
        assert!(BifurcationDetector::default().evaluate(&wrong).is_err());
    }
}
