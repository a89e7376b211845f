//! Constants: slices of the weights file.

use std::sync::Arc;

use roxmltree::Node;

use super::Source;
use crate::{
    error::Result,
    op::parse_partial_shape,
    tensor::{ElementType, Shape, Tensor},
};

impl Source<'_> {
    /// The value of a Const layer from its `<data element_type shape offset size>`.
    pub(super) fn constant(&self, name: &str, data: Option<Node<'_, '_>>) -> Result<Tensor> {
        let fail = |detail: String| self.malformed(format!("Const {name:?}: {detail}"));
        let data = data.ok_or_else(|| fail("it has no <data>".to_owned()))?;
        let text = |key: &'static str| {
            data.attribute(key).ok_or_else(|| fail(format!("it has no attribute {key}")))
        };
        let number = |key: &'static str| -> Result<usize> {
            let text = text(key)?;
            text.trim().parse().map_err(|_| fail(format!("{key} is {text:?}, expected a number")))
        };
        let element_type: ElementType =
            text("element_type")?.parse().map_err(|e| fail(format!("{e}")))?;
        let shape: Shape = parse_partial_shape("shape", text("shape")?)
            .ok()
            .and_then(|s| s.to_shape())
            .ok_or_else(|| fail("its shape is not static".to_owned()))?;
        let (offset, size) = (number("offset")?, number("size")?);
        let weights = self.weights.as_ref().ok_or_else(|| {
            fail("there are no weights: put the .bin file beside the .xml file, or name it in the options".to_owned())
        })?;
        if size > weights.len() || offset > weights.len() - size {
            let total = weights.len();
            return Err(fail(format!("{size} bytes at {offset} of weights of {total} bytes")));
        }
        let bytes = weights.slice(offset..offset + size);
        if element_type == ElementType::String {
            let texts = strings(&bytes).ok_or_else(|| fail("its texts are damaged".to_owned()))?;
            return Tensor::from_strings(shape, texts).map_err(|e| fail(e.to_string()));
        }
        let len = shape.checked_len();
        if len == Some(0) {
            // OpenVINO stores a byte for a constant without elements.
            return Tensor::zeros(element_type, shape).map_err(|e| fail(e.to_string()));
        }
        let expected = len.and_then(|l| element_type.byte_len(l));
        if expected != Some(size) {
            return Err(fail(format!("{element_type}{shape} does not take {size} bytes")));
        }
        Tensor::from_buffer(element_type, shape, Arc::new(bytes), 0)
            .map_err(|e| fail(e.to_string()))
    }
}

/// Texts as OpenVINO packs them: their number, the start of each and the end of the last (`i32`), then the characters.
fn strings(bytes: &[u8]) -> Option<Vec<String>> {
    let number = |at: usize| {
        let bytes = bytes.get(at * 4..)?.get(..4)?;
        usize::try_from(i32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let count = number(0)?;
    let characters = bytes.get(count.checked_add(2)?.checked_mul(4)?..)?;
    (0..count)
        .map(|i| {
            let text = characters.get(number(i + 1)?..number(i + 2)?)?;
            String::from_utf8(text.to_vec()).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_unpack_and_lies_are_refused() {
        let packed = |numbers: &[i32], text: &[u8]| {
            let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
            bytes.extend_from_slice(text);
            strings(&bytes)
        };
        assert_eq!(packed(&[2, 0, 2, 3], b"abc"), Some(vec!["ab".to_owned(), "c".to_owned()]));
        assert_eq!(packed(&[0, 0], b""), Some(vec![]));
        assert_eq!(packed(&[2, 0, 2, 4], b"abc"), None);
        assert_eq!(packed(&[1, 2, 1], b"abc"), None);
        assert_eq!(packed(&[i32::MAX, 0], b""), None);
        assert_eq!(packed(&[-1, 0], b""), None);
        assert_eq!(packed(&[], b""), None);
    }
}
