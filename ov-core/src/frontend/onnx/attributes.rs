//! Attributes of ONNX nodes, typed and checked.

use super::{
    context::{ConvertError, NodeContext},
    proto::{AttributeProto, GraphProto},
    tensor,
};
use crate::{
    op::OpError,
    tensor::{ElementType, Tensor},
};

type AttributeResult<T> = Result<T, ConvertError>;

fn wrong(name: &'static str, got: &AttributeProto, expected: &str) -> ConvertError {
    OpError::Attribute {
        name,
        got: format!("of type {}", got.r#type),
        expected: expected.to_owned(),
    }
    .into()
}

impl NodeContext<'_, '_> {
    /// The attribute `name` as it is in the file, a function's `ref_attr_name` resolved.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        let found = self.node.attribute.iter().find(|a| a.name == name)?;
        if found.ref_attr_name.is_empty() {
            Some(found)
        } else {
            self.function_attributes.get(&found.ref_attr_name)
        }
    }

    /// Whether the attribute is given.
    #[must_use]
    pub fn has_attribute(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    /// An integer attribute, if given.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn optional_i64(&self, name: &'static str) -> AttributeResult<Option<i64>> {
        self.attribute(name)
            .map(|a| {
                if matches!(a.r#type, 0 | 2) { Ok(a.i) } else { Err(wrong(name, a, "an integer")) }
            })
            .transpose()
    }

    /// An integer attribute, or `default`.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn i64(&self, name: &'static str, default: i64) -> AttributeResult<i64> {
        Ok(self.optional_i64(name)?.unwrap_or(default))
    }

    /// An integer attribute read as a truth value.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn bool(&self, name: &'static str, default: bool) -> AttributeResult<bool> {
        Ok(self.optional_i64(name)?.map_or(default, |v| v != 0))
    }

    /// A floating-point attribute, if given.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn optional_f32(&self, name: &'static str) -> AttributeResult<Option<f32>> {
        self.attribute(name)
            .map(
                |a| {
                    if matches!(a.r#type, 0 | 1) {
                        Ok(a.f)
                    } else {
                        Err(wrong(name, a, "a number"))
                    }
                },
            )
            .transpose()
    }

    /// A floating-point attribute, or `default`.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn f32(&self, name: &'static str, default: f32) -> AttributeResult<f32> {
        Ok(self.optional_f32(name)?.unwrap_or(default))
    }

    /// A list of integers, if given.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn optional_i64s(&self, name: &'static str) -> AttributeResult<Option<Vec<i64>>> {
        self.attribute(name)
            .map(|a| {
                if matches!(a.r#type, 0 | 7) {
                    Ok(a.ints.clone())
                } else {
                    Err(wrong(name, a, "a list of integers"))
                }
            })
            .transpose()
    }

    /// A list of integers, or `default`.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn i64s(&self, name: &'static str, default: &[i64]) -> AttributeResult<Vec<i64>> {
        Ok(self.optional_i64s(name)?.unwrap_or_else(|| default.to_vec()))
    }

    /// A list of numbers, if given.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn optional_f32s(&self, name: &'static str) -> AttributeResult<Option<Vec<f32>>> {
        self.attribute(name)
            .map(|a| {
                if matches!(a.r#type, 0 | 6) {
                    Ok(a.floats.clone())
                } else {
                    Err(wrong(name, a, "a list of numbers"))
                }
            })
            .transpose()
    }

    /// A text, if given.
    ///
    /// # Errors
    /// When it is of another type or not UTF-8.
    pub fn optional_str(&self, name: &'static str) -> AttributeResult<Option<&str>> {
        self.attribute(name)
            .map(|a| std::str::from_utf8(&a.s).map_err(|_| wrong(name, a, "a text in UTF-8")))
            .transpose()
    }

    /// A text, or `default`.
    ///
    /// # Errors
    /// When it is of another type or not UTF-8.
    pub fn str<'s>(&'s self, name: &'static str, default: &'s str) -> AttributeResult<&'s str> {
        Ok(self.optional_str(name)?.unwrap_or(default))
    }

    /// A list of texts, if given.
    ///
    /// # Errors
    /// When one is not UTF-8.
    pub fn optional_strs(&self, name: &'static str) -> AttributeResult<Option<Vec<String>>> {
        self.attribute(name)
            .map(|a| {
                a.strings
                    .iter()
                    .map(|s| {
                        String::from_utf8(s.to_vec()).map_err(|_| wrong(name, a, "texts in UTF-8"))
                    })
                    .collect()
            })
            .transpose()
    }

    /// A tensor, if given.
    ///
    /// # Errors
    /// When it is of another type or damaged.
    pub fn optional_tensor(&self, name: &'static str) -> AttributeResult<Option<Tensor>> {
        let Some(a) = self.attribute(name) else { return Ok(None) };
        let proto = a.t.as_ref().ok_or_else(|| wrong(name, a, "a tensor"))?;
        Ok(Some(tensor::convert(proto, self.external())?))
    }

    /// An element type given by its number, if given.
    ///
    /// # Errors
    /// When the number is not known.
    pub fn optional_element_type(
        &self,
        name: &'static str,
    ) -> AttributeResult<Option<ElementType>> {
        self.optional_i64(name)?
            .map(|v| {
                i32::try_from(v).ok().and_then(tensor::element_type).ok_or_else(|| {
                    OpError::Attribute {
                        name,
                        got: v.to_string(),
                        expected: "a data type".to_owned(),
                    }
                    .into()
                })
            })
            .transpose()
    }

    /// A graph, for control flow.
    ///
    /// # Errors
    /// When it is missing.
    pub fn graph(&self, name: &'static str) -> AttributeResult<GraphProto> {
        self.attribute(name).and_then(|a| a.g.clone()).ok_or_else(|| {
            OpError::Attribute { name, got: "missing".to_owned(), expected: "a graph".to_owned() }
                .into()
        })
    }
}
