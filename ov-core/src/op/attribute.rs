//! Attributes of operators: one visit serves reading text, writing canonical bytes, dumping and comparing.

use std::fmt;

use super::{OpError, OpResult};
use crate::{
    model::Model,
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

/// A value of a closed set with a text form, such as `auto_pad`.
pub trait Choice {
    /// The text of the present value.
    fn text(&self) -> &'static str;

    /// Sets the value from its text; false when there is none of that text.
    fn set_text(&mut self, text: &str) -> bool;

    /// Every text.
    fn options(&self) -> &'static [&'static str];
}

/// Declares an enum with its text forms, first variant the default.
///
/// `choice! { /// docs pub enum PadType { /// docs Explicit = "explicit", … } }`
#[macro_export]
macro_rules! choice {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $text)),+];
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0].0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad($crate::op::Choice::text(self))
            }
        }

        impl $crate::op::Choice for $name {
            fn text(&self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            fn set_text(&mut self, text: &str) -> bool {
                let found = Self::ALL.iter().find(|(_, t)| t.eq_ignore_ascii_case(text));
                if let Some((v, _)) = found { *self = *v; }
                found.is_some()
            }

            fn options(&self) -> &'static [&'static str] {
                &[$($text),+]
            }
        }
    };
}

/// One attribute, lent to a visitor.
#[non_exhaustive]
#[allow(
    missing_docs,
    missing_debug_implementations,
    reason = "each variant is the Rust type that it lends"
)]
pub enum Attribute<'a> {
    Bool(&'a mut bool),
    I64(&'a mut i64),
    F64(&'a mut f64),
    I64s(&'a mut Vec<i64>),
    F64s(&'a mut Vec<f64>),
    String(&'a mut String),
    Strings(&'a mut Vec<String>),
    ElementType(&'a mut ElementType),
    PartialShape(&'a mut PartialShape),
    Tensor(&'a mut Tensor),
    Body(&'a mut Model),
    Choice(&'a mut dyn Choice),
}

macro_rules! attribute_from {
    ($($variant:ident: $t:ty),*) => {$(
        impl<'a> From<&'a mut $t> for Attribute<'a> {
            fn from(v: &'a mut $t) -> Self {
                Self::$variant(v)
            }
        }
    )*};
}
attribute_from!(
    Bool: bool, I64: i64, F64: f64, I64s: Vec<i64>, F64s: Vec<f64>, String: String, Strings: Vec<String>,
    ElementType: ElementType, PartialShape: PartialShape, Tensor: Tensor, Body: Model
);

impl<'a, C: Choice> From<&'a mut C> for Attribute<'a> {
    fn from(v: &'a mut C) -> Self {
        Self::Choice(v)
    }
}

/// Sees every attribute of an operator in declaration order, and may change it.
pub trait AttributeVisitor {
    /// Visits the attribute `name` (OpenVINO's spelling).
    ///
    /// # Errors
    /// When a reader cannot parse the value.
    fn visit(&mut self, name: &'static str, attribute: Attribute<'_>) -> OpResult<()>;
}

/// Sets attributes from text, as in OpenVINO IR; attributes without a text keep their value.
pub struct TextReader<F>(pub F);

impl<F> fmt::Debug for TextReader<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TextReader")
    }
}

fn parse<T: std::str::FromStr>(name: &'static str, text: &str, expected: &str) -> OpResult<T> {
    text.trim().parse().map_err(|_| OpError::Attribute {
        name,
        got: text.to_owned(),
        expected: expected.to_owned(),
    })
}

fn parse_list<T: std::str::FromStr>(
    name: &'static str,
    text: &str,
    expected: &str,
) -> OpResult<Vec<T>> {
    text.split(',').filter(|t| !t.trim().is_empty()).map(|t| parse(name, t, expected)).collect()
}

fn parse_bool(name: &'static str, text: &str) -> OpResult<bool> {
    match text.trim() {
        t if t.eq_ignore_ascii_case("true") || t == "1" => Ok(true),
        t if t.eq_ignore_ascii_case("false") || t == "0" => Ok(false),
        t => Err(OpError::Attribute {
            name,
            got: t.to_owned(),
            expected: "true or false".to_owned(),
        }),
    }
}

/// Parses `1,?,2..8,-1` as OpenVINO writes partial shapes (`...` is a shape of unknown rank).
///
/// # Errors
/// [`OpError::Attribute`] when a dimension is none of these forms.
pub fn parse_partial_shape(name: &'static str, text: &str) -> OpResult<PartialShape> {
    let text = text.trim().trim_start_matches('[').trim_end_matches(']');
    if text == "..." {
        return Ok(PartialShape::dynamic());
    }
    let expected = "a list of extents, ? or -1 for any, 1..8 for a range";
    text.split(',')
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .map(|t| {
            if t == "?" || t == "-1" {
                return Ok(Dimension::DYNAMIC);
            }
            match t.split_once("..") {
                None => Ok(Dimension::fixed(parse(name, t, expected)?)),
                Some((lo, hi)) => {
                    let lo = if lo.is_empty() { 0 } else { parse(name, lo, expected)? };
                    let hi = if hi.is_empty() { None } else { Some(parse(name, hi, expected)?) };
                    Ok(Dimension::bounded(lo, hi))
                }
            }
        })
        .collect()
}

impl<'t, F: Fn(&'static str) -> Option<&'t str>> AttributeVisitor for TextReader<F> {
    fn visit(&mut self, name: &'static str, attribute: Attribute<'_>) -> OpResult<()> {
        let Some(text) = (self.0)(name) else { return Ok(()) };
        match attribute {
            Attribute::Bool(v) => *v = parse_bool(name, text)?,
            Attribute::I64(v) => *v = parse(name, text, "an integer")?,
            Attribute::F64(v) => *v = parse(name, text, "a number")?,
            Attribute::I64s(v) => *v = parse_list(name, text, "a list of integers")?,
            Attribute::F64s(v) => *v = parse_list(name, text, "a list of numbers")?,
            Attribute::String(v) => text.clone_into(v),
            Attribute::Strings(v) => *v = text.split(',').map(|t| t.trim().to_owned()).collect(),
            Attribute::ElementType(v) => *v = parse(name, text, "an element type")?,
            Attribute::PartialShape(v) => *v = parse_partial_shape(name, text)?,
            Attribute::Choice(v) => {
                if !v.set_text(text.trim()) {
                    return Err(OpError::Attribute {
                        name,
                        got: text.to_owned(),
                        expected: format!("one of {}", v.options().join(", ")),
                    });
                }
            }
            Attribute::Tensor(_) | Attribute::Body(_) => {}
        }
        Ok(())
    }
}

/// Writes `name=value` pairs for dumps and error texts; tensors and bodies are summarised.
#[derive(Debug, Default)]
pub struct TextWriter(pub String);

impl AttributeVisitor for TextWriter {
    fn visit(&mut self, name: &'static str, attribute: Attribute<'_>) -> OpResult<()> {
        use fmt::Write;
        let out = &mut self.0;
        if !out.is_empty() {
            out.push_str(", ");
        }
        let written = match attribute {
            Attribute::Bool(v) => write!(out, "{name}={v}"),
            Attribute::I64(v) => write!(out, "{name}={v}"),
            Attribute::F64(v) => write!(out, "{name}={v}"),
            Attribute::I64s(v) => write!(out, "{name}={v:?}"),
            Attribute::F64s(v) if v.len() > 8 => write!(out, "{name}=<{} numbers>", v.len()),
            Attribute::F64s(v) => write!(out, "{name}={v:?}"),
            Attribute::String(v) => write!(out, "{name}={v:?}"),
            Attribute::Strings(v) => write!(out, "{name}={v:?}"),
            Attribute::ElementType(v) => write!(out, "{name}={v}"),
            Attribute::PartialShape(v) => write!(out, "{name}={v}"),
            Attribute::Tensor(v) => write!(out, "{name}={v:?}"),
            Attribute::Body(v) => write!(out, "{name}=<{} nodes>", v.len()),
            Attribute::Choice(v) => write!(out, "{name}={}", v.text()),
        };
        written.map_err(|_| OpError::Invalid("writing to a text failed".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_shapes_parse_as_openvino_prints_them() {
        for text in ["[1,?,2..8,3..]", "[]", "[...]"] {
            assert_eq!(parse_partial_shape("shape", text).expect("valid").to_string(), text);
        }
        assert!(parse_partial_shape("shape", "1,x").is_err());
    }
}
