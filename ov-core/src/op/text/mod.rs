//! Texts: joining, splitting, normalising, matching and counting.

mod hash;
mod ngrams;
mod pattern;
#[cfg(test)]
mod tests;
mod tokenizer;
mod tokens;

pub use hash::MurmurHash3;
pub use ngrams::{TfIdfVectorizer, Weighting};
pub use pattern::RegexFullMatch;
pub use tokenizer::Tokenizer;
pub use tokens::{BifurcationDetector, NGramRepeatBlock};

use std::collections::HashSet;

use super::{
    BroadcastPlan, InferContext, OpEntry, OpResult, OpRules, OutputType, broadcast_shapes,
    movement::checked_len,
};
use crate::{
    choice,
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

fn expect_texts(cx: &InferContext<'_>, index: usize) -> OpResult<()> {
    cx.expect_type(index, "texts", |t| t == ElementType::String)
}

define_op! {
    /// The texts of two inputs that broadcast, one after the other.
    /// <https://onnx.ai/onnx/operators/onnx__StringConcat.html>
    pub struct StringConcat("StringConcat", 0) {}
}

impl OpRules for StringConcat {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        expect_texts(cx, 0)?;
        expect_texts(cx, 1)?;
        let shape = broadcast_shapes(&cx.shape(0), &cx.shape(1))?;
        Ok(vec![OutputType::new(ElementType::String, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let plan = BroadcastPlan::new([inputs[0].shape(), inputs[1].shape()])?;
        let (a, b) = (inputs[0].as_strings()?, inputs[1].as_strings()?);
        let mut out = Vec::with_capacity(plan.shape.elements());
        plan.for_each_run(|[i, j], [s, t], n| {
            out.extend((0..n).map(|k| [a[i + s * k].as_str(), b[j + t * k].as_str()].concat()));
        });
        Ok(vec![Tensor::from_strings(plan.shape, out)?])
    }
}

define_op! {
    /// The pieces of every text, on a new last axis filled up with empty texts, and how many there are.
    /// <https://onnx.ai/onnx/operators/onnx__StringSplit.html>
    pub struct StringSplit("StringSplit", 0) {
        /// What separates pieces; empty for any run of white space, with none at either end.
        delimiter: String = String::new(),
        /// Most cuts, from the left; negative for any number.
        maxsplit: i64 = -1,
    }
}

impl StringSplit {
    fn pieces<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let cuts = usize::try_from(self.maxsplit).unwrap_or(usize::MAX);
        if !self.delimiter.is_empty() {
            return text.splitn(cuts.saturating_add(1), &self.delimiter).collect();
        }
        let mut pieces = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let end = rest.find(char::is_whitespace).filter(|_| pieces.len() < cuts);
            let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
            pieces.push(piece);
            rest = after.trim_start();
        }
        pieces
    }
}

impl OpRules for StringSplit {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        expect_texts(cx, 0)?;
        let most = usize::try_from(self.maxsplit).ok().map(|m| m.saturating_add(1));
        let pieces = Dimension::bounded(0, most);
        let shape = cx.shape(0).dims().map_or_else(PartialShape::dynamic, |d| {
            d.iter().copied().chain([pieces]).collect()
        });
        Ok(vec![
            OutputType::new(ElementType::String, shape),
            OutputType::new(ElementType::I64, cx.shape(0)),
        ])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let texts = inputs[0].as_strings()?;
        let pieces: Vec<Vec<&str>> = texts.iter().map(|t| self.pieces(t)).collect();
        let most = pieces.iter().map(Vec::len).max().unwrap_or(0);
        let mut shape = inputs[0].shape().to_vec();
        shape.push(most);
        let mut out = Vec::with_capacity(checked_len(&shape)?);
        for list in &pieces {
            out.extend(list.iter().map(|p| (*p).to_owned()));
            out.resize(out.len() + most - list.len(), String::new());
        }
        let counts: Vec<i64> = pieces.iter().map(|p| p.len() as i64).collect();
        Ok(vec![
            Tensor::from_strings(shape, out)?,
            Tensor::from_vec(inputs[0].shape().clone(), counts)?,
        ])
    }
}

choice! {
    /// What happens to the case of texts.
    pub enum CaseChange {
        /// It stays.
        None = "NONE",
        /// They become lower case.
        Lower = "LOWER",
        /// They become upper case.
        Upper = "UPPER",
    }
}

impl CaseChange {
    fn apply(self, text: &str) -> String {
        match self {
            Self::None => text.to_owned(),
            Self::Lower => text.to_lowercase(),
            Self::Upper => text.to_uppercase(),
        }
    }
}

define_op! {
    /// Texts `[c]` or `[1, c]` without stop words and with their case changed; one empty text when nothing is left.
    /// <https://onnx.ai/onnx/operators/onnx__StringNormalizer.html>
    pub struct StringNormalizer("StringNormalizer", 0) {
        /// What happens to the case. Unicode's mapping, in every locale.
        case_change_action: CaseChange = CaseChange::None,
        /// Whether stop words count only in the same case.
        is_case_sensitive: bool = false,
        /// Texts that are left out.
        stopwords: Vec<String> = Vec::new(),
    }
}

impl OpRules for StringNormalizer {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        expect_texts(cx, 0)?;
        cx.expect_rank(0, 1..=2)?;
        let mut shape = cx.shape(0);
        if let Some(last) = shape.dims_mut().and_then(|d| d.last_mut()) {
            *last = if self.stopwords.is_empty() {
                last.map(|n| n.max(1))
            } else {
                Dimension::bounded(1, last.max().map(|n| n.max(1)))
            };
        }
        Ok(vec![OutputType::new(ElementType::String, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape();
        op_ensure!(
            shape.rank() == 1 || (shape.rank() == 2 && shape[0] == 1),
            "input has shape {shape}, expected [c] or [1, c]"
        );
        let key = |t: &str| if self.is_case_sensitive { t.to_owned() } else { t.to_lowercase() };
        let stopwords: HashSet<String> = self.stopwords.iter().map(|t| key(t)).collect();
        let texts = inputs[0].as_strings()?.iter();
        let mut left: Vec<String> = texts
            .filter(|t| stopwords.is_empty() || !stopwords.contains(&key(t)))
            .map(|t| self.case_change_action.apply(t))
            .collect();
        if left.is_empty() {
            left.push(String::new());
        }
        let mut out = vec![1; shape.rank()];
        out[shape.rank() - 1] = left.len();
        Ok(vec![Tensor::from_strings(out, left)?])
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<StringConcat>(),
    OpEntry::of::<StringSplit>(),
    OpEntry::of::<StringNormalizer>(),
    OpEntry::of::<RegexFullMatch>(),
    OpEntry::of::<TfIdfVectorizer>(),
    OpEntry::of::<Tokenizer>(),
    OpEntry::of::<MurmurHash3>(),
    OpEntry::of::<NGramRepeatBlock>(),
    OpEntry::of::<BifurcationDetector>(),
];
