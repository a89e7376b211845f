//! Texts.

use super::{
    super::{ConvertError, NodeContext},
    ConvertResult, OnnxOp,
};
use crate::op::{
    Choice, OpError,
    text::{RegexFullMatch, StringConcat, StringNormalizer, StringSplit, TfIdfVectorizer},
};

/// Sets a choice from the attribute `name`, if it is given.
fn choose(cx: &NodeContext<'_, '_>, name: &'static str, choice: &mut dyn Choice) -> Result<(), ConvertError> {
    let Some(text) = cx.optional_str(name)? else { return Ok(()) };
    if choice.set_text(text) {
        return Ok(());
    }
    let expected = choice.options().join(", ");
    Err(OpError::Attribute { name, got: text.to_owned(), expected }.into())
}

fn string_concat(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?];
    Ok(vec![cx.add(StringConcat {}, &inputs)?])
}

fn string_split(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let op = StringSplit { delimiter: cx.str("delimiter", "")?.to_owned(), maxsplit: cx.i64("maxsplit", -1)? };
    cx.add_multi(op, &[x])
}

fn string_normalizer(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let mut op = StringNormalizer {
        is_case_sensitive: cx.bool("is_case_sensitive", false)?,
        stopwords: cx.optional_strs("stopwords")?.unwrap_or_default(),
        ..StringNormalizer::default()
    };
    choose(cx, "case_change_action", &mut op.case_change_action)?;
    Ok(vec![cx.add(op, &[x])?])
}

fn regex_full_match(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let op = RegexFullMatch::new(cx.str("pattern", "")?.to_owned());
    Ok(vec![cx.add(op, &[x])?])
}

fn tf_idf_vectorizer(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let mut op = TfIdfVectorizer::default();
    choose(cx, "mode", &mut op.mode)?;
    op.min_gram_length = cx.i64("min_gram_length", 1)?;
    op.max_gram_length = cx.i64("max_gram_length", 1)?;
    op.max_skip_count = cx.i64("max_skip_count", 0)?;
    op.ngram_counts = cx.i64s("ngram_counts", &[])?;
    op.ngram_indexes = cx.i64s("ngram_indexes", &[])?;
    op.pool_int64s = cx.i64s("pool_int64s", &[])?;
    op.pool_strings = cx.optional_strs("pool_strings")?.unwrap_or_default();
    op.weights = cx.optional_f32s("weights")?.unwrap_or_default().into_iter().map(f64::from).collect();
    Ok(vec![cx.add(op, &[x])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "StringConcat", 20, string_concat),
    ("", "StringSplit", 20, string_split),
    ("", "StringNormalizer", 10, string_normalizer),
    ("", "RegexFullMatch", 20, regex_full_match),
    ("", "TfIdfVectorizer", 9, tf_idf_vectorizer),
];
