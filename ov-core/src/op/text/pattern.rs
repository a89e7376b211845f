//! Regular expressions in RE2's syntax.

use std::{iter::Peekable, str::Chars, sync::OnceLock};

use regex::bytes::{Regex, RegexBuilder};

use super::expect_texts;
use crate::{
    op::{
        AttributeVisitor, InferContext, OpAttributes, OpError, OpKind, OpResult, OpRules,
        OutputType,
    },
    tensor::{ElementType, Tensor},
};

/// Whether each text as a whole matches a pattern. <https://onnx.ai/onnx/operators/onnx__RegexFullMatch.html>
#[derive(Clone, Debug, Default)]
pub struct RegexFullMatch {
    /// The pattern, in the syntax of <https://github.com/google/re2/wiki/Syntax>.
    pub pattern: String,
    compiled: OnceLock<Result<Regex, String>>,
}

impl RegexFullMatch {
    /// The operator with a pattern.
    #[must_use]
    pub fn new(pattern: String) -> Self {
        Self { pattern, compiled: OnceLock::new() }
    }

    fn regex(&self) -> OpResult<&Regex> {
        let compiled = self.compiled.get_or_init(|| {
            let whole = format!(r"\A(?:{})\z", translate(&self.pattern));
            let build = |text: &str| RegexBuilder::new(text).octal(true).build();
            // By itself first: a parenthesis too many must not close the group around it.
            build(&translate(&self.pattern))
                .and_then(|_| build(&whole))
                .map_err(|e| e.to_string())
        });
        compiled.as_ref().map_err(|e| OpError::Attribute {
            name: "pattern",
            got: self.pattern.clone(),
            expected: format!("a regular expression in RE2's syntax: {e}"),
        })
    }
}

impl OpAttributes for RegexFullMatch {
    const KIND: OpKind = OpKind { name: "RegexFullMatch", opset: 0 };

    fn visit(&mut self, visitor: &mut dyn AttributeVisitor) -> OpResult<()> {
        self.compiled = OnceLock::new();
        visitor.visit("pattern", (&mut self.pattern).into())
    }
}

impl OpRules for RegexFullMatch {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        expect_texts(cx, 0)?;
        self.regex()?;
        Ok(vec![OutputType::new(ElementType::Boolean, cx.shape(0))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let regex = self.regex()?;
        let texts = inputs[0].as_strings()?;
        let matches: Vec<bool> = texts.iter().map(|t| regex.is_match(t.as_bytes())).collect();
        Ok(vec![Tensor::from_bools(inputs[0].shape().clone(), &matches)?])
    }
}

/// What the class of an escape letter stands for in RE2, where it is of ASCII only.
fn class(letter: char) -> Option<&'static str> {
    Some(match letter {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        's' => r"[\t\n\f\r ]",
        'S' => r"[^\t\n\f\r ]",
        _ => return None,
    })
}

fn literal(c: char) -> String {
    format!(r"\x{{{:x}}}", u32::from(c))
}

/// A pattern in RE2's syntax in that of the `regex` crate.
pub(super) fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => out.push_str(&escape(&mut rest)),
            '[' => set(&mut rest, &mut out),
            _ => out.push(c),
        }
    }
    out
}

/// The escape after a backslash, outside of a set.
fn escape(rest: &mut Peekable<Chars<'_>>) -> String {
    match rest.next() {
        None => "\\".to_owned(),
        Some('b') => r"(?-u:\b)".to_owned(),
        Some('B') => r"(?-u:\B)".to_owned(),
        Some('C') => "(?s-u:.)".to_owned(),
        Some('Q') => {
            let text: String = rest.by_ref().collect();
            let (quoted, after) = text.split_once(r"\E").unwrap_or((&text, ""));
            quoted.chars().map(literal).collect::<String>() + &translate(after)
        }
        Some(c) => common_escape(c, rest),
    }
}

/// An escape that means the same inside and outside of a set.
fn common_escape(c: char, rest: &mut Peekable<Chars<'_>>) -> String {
    if let Some(class) = class(c) {
        return class.to_owned();
    }
    if matches!(c, 'p' | 'P') && rest.peek() == Some(&'{') {
        let mut name: String = rest.by_ref().take_while(|c| *c != '}').skip(1).collect();
        let mut negated = c == 'P';
        if name.starts_with('^') {
            name.remove(0);
            negated = !negated;
        }
        return format!(r"\{}{{{name}}}", if negated { 'P' } else { 'p' });
    }
    format!("\\{c}")
}

/// A set after its opening bracket. RE2 has no sets inside sets and no operators between them, so what looks like one
/// is made a literal.
fn set(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    while let Some(c) = rest.next() {
        match c {
            ']' if !first => {
                out.push(']');
                return;
            }
            '\\' => match rest.next() {
                Some(c) => out.push_str(&common_escape(c, rest)),
                None => out.push('\\'),
            },
            '[' if rest.peek() == Some(&':') => {
                // The name of a class, to its closing bracket.
                out.push('[');
                for c in rest.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '-' if first || matches!(rest.peek(), Some(']') | None) => out.push_str(&literal(c)),
            '-' => out.push('-'),
            _ => out.push_str(&literal(c)),
        }
        first = false;
        // The second end of a range: a hyphen there is a character.
        if c == '-' && rest.next_if_eq(&'-').is_some() {
            out.push_str(&literal('-'));
        }
    }
}
