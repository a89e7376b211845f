//! Texts cut into tokens.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

use super::{expect_texts, pattern::translate};
use crate::{
    op::{
        AttributeVisitor, InferContext, OpAttributes, OpError, OpKind, OpResult, OpRules,
        OutputType, movement::checked_len,
    },
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

/// The tokens of every text, on a new last axis filled up with a text of choice. Input `[c]` or `[n, c]`.
/// <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Tokenizer>
#[derive(Clone, Debug, Default)]
pub struct Tokenizer {
    /// Expressions of what stands between tokens; a single empty one cuts into characters.
    pub separators: Vec<String>,
    /// The expression of a token, where there are no separators.
    pub tokenexp: String,
    /// Characters of the shortest token that is kept.
    pub mincharnum: i64,
    /// Whether U+0002 goes before the tokens of a text and U+0003 after them.
    pub mark: bool,
    /// What fills up.
    pub pad_value: String,
    compiled: OnceLock<Result<Vec<Regex>, String>>,
}

impl Tokenizer {
    /// The operator with its attributes.
    #[must_use]
    pub fn new(
        separators: Vec<String>,
        tokenexp: String,
        mincharnum: i64,
        mark: bool,
        pad_value: String,
    ) -> Self {
        Self { separators, tokenexp, mincharnum, mark, pad_value, compiled: OnceLock::new() }
    }

    fn by_characters(&self) -> bool {
        self.separators == [""] || (self.separators.is_empty() && self.tokenexp == ".")
    }

    fn expressions(&self) -> OpResult<&[Regex]> {
        let compiled = self.compiled.get_or_init(|| {
            let build = |text: &str| {
                RegexBuilder::new(&translate(text)).octal(true).build().map_err(|e| e.to_string())
            };
            if self.by_characters() {
                return Ok(Vec::new());
            }
            match (self.separators.is_empty(), self.tokenexp.is_empty()) {
                (false, true) => self.separators.iter().map(|s| build(s)).collect(),
                (true, false) => Ok(vec![build(&self.tokenexp)?]),
                _ => Err("one of separators and tokenexp".to_owned()),
            }
        });
        compiled.as_deref().map_err(|e| OpError::Attribute {
            name: "separators",
            got: format!("{:?} with tokenexp {:?}", self.separators, self.tokenexp),
            expected: format!("regular expressions in RE2's syntax: {e}"),
        })
    }

    /// The tokens of a text, too short ones left out.
    fn tokens<'t>(&self, text: &'t str) -> OpResult<Vec<&'t str>> {
        let expressions = self.expressions()?;
        let least = usize::try_from(self.mincharnum).unwrap_or(0).max(1);
        let mut pieces = vec![text];
        if self.by_characters() {
            pieces = text.char_indices().map(|(i, c)| &text[i..i + c.len_utf8()]).collect();
        } else if self.separators.is_empty() {
            pieces = expressions[0].find_iter(text).map(|m| m.as_str()).collect();
        } else {
            // One separator after the other, each over what the one before has left.
            for separator in expressions {
                pieces = pieces.into_iter().flat_map(|p| separator.split(p)).collect();
            }
        }
        pieces.retain(|p| p.chars().count() >= least);
        Ok(pieces)
    }
}

impl OpAttributes for Tokenizer {
    const KIND: OpKind = OpKind { name: "Tokenizer", opset: 0 };

    fn visit(&mut self, visitor: &mut dyn AttributeVisitor) -> OpResult<()> {
        self.compiled = OnceLock::new();
        visitor.visit("separators", (&mut self.separators).into())?;
        visitor.visit("tokenexp", (&mut self.tokenexp).into())?;
        visitor.visit("mincharnum", (&mut self.mincharnum).into())?;
        visitor.visit("mark", (&mut self.mark).into())?;
        visitor.visit("pad_value", (&mut self.pad_value).into())
    }
}

impl OpRules for Tokenizer {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_rank(0, 1..=2)?;
        expect_texts(cx, 0)?;
        self.expressions()?;
        let shape = cx.shape(0).dims().map_or_else(PartialShape::dynamic, |d| {
            d.iter().copied().chain([Dimension::DYNAMIC]).collect()
        });
        // Without texts there are no tokens, and no axis for them.
        let empty = cx.shape(0).to_shape().is_some_and(|s| s.elements() == 0);
        let open = cx.shape(0).dims().is_none_or(|d| d.iter().any(|d| d.admits(0)));
        Ok(vec![OutputType::new(
            ElementType::String,
            if empty {
                cx.shape(0)
            } else if open {
                PartialShape::dynamic()
            } else {
                shape
            },
        )])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let texts = inputs[0].as_strings()?;
        if texts.is_empty() {
            return Ok(vec![inputs[0].clone()]);
        }
        let lists = texts.iter().map(|t| self.tokens(t)).collect::<OpResult<Vec<_>>>()?;
        let most = lists.iter().map(Vec::len).max().unwrap_or(0);
        let marks = if self.mark && most > 0 { 2 } else { 0 };
        let mut shape = inputs[0].shape().to_vec();
        shape.push(most + marks);
        let mut out = Vec::new();
        out.try_reserve_exact(checked_len(&shape)?)
            .map_err(|_| OpError::Invalid(format!("there is no memory for tokens of {shape:?}")))?;
        for list in lists {
            let end = out.len() + most + marks;
            if marks > 0 {
                out.push("\u{2}".to_owned());
            }
            out.extend(list.into_iter().map(str::to_owned));
            if marks > 0 {
                out.push("\u{3}".to_owned());
            }
            out.resize(end, self.pad_value.clone());
        }
        Ok(vec![Tensor::from_strings(shape, out)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(op: &Tokenizer, texts: &[&str]) -> (Vec<usize>, Vec<String>) {
        let x = texts.iter().map(|t| (*t).to_owned()).collect();
        let x = Tensor::from_strings([texts.len()], x).expect("fits");
        let y = op.evaluate(&[x]).expect("valid").remove(0);
        (y.shape().to_vec(), y.as_strings().expect("texts").to_vec())
    }

    #[test]
    fn texts_are_cut_in_every_way() {
        let op = |separators: &[&str], expression: &str, least, mark| {
            let separators = separators.iter().map(|s| (*s).to_owned()).collect();
            Tokenizer::new(separators, expression.to_owned(), least, mark, "#".to_owned())
        };
        for (op, texts, expected) in [
            (op(&[" "], "", 1, false), &["a  bc", "d"][..], &["a", "bc", "d", "#"][..]),
            (op(&[" ", ","], "", 2, false), &["ab,c de"], &["ab", "de"]),
            (op(&[""], "", 1, false), &["ü!"], &["ü", "!"]),
            (op(&[], "[a-z]+", 1, false), &["1ab2c"], &["ab", "c"]),
            (op(&[" "], "", 1, true), &["a b", "c"], &["\u{2}", "a", "b", "\u{3}", "\u{2}", "c", "\u{3}", "#"]),
            (op(&["a"], "", 1, false), &["aa"], &[]),
        ] {
            let (shape, got) = tokens(&op, texts);
            assert_eq!(got, expected, "{op:?}");
            assert_eq!(shape[0] * shape[1], got.len());
        }
        assert!(op(&["("], "", 1, false).expressions().is_err());
        assert!(op(&[], "", 1, false).expressions().is_err());
    }
}
