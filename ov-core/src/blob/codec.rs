//! Little-endian values to and from bytes; reading checks every length against what is left.

use std::ops::Range;

use super::format::failed;
use crate::{
    error::Result,
    tensor::{Dimension, ElementType, PartialShape},
};

/// Writes values one after another.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

macro_rules! encode_numbers {
    ($($t:ident),*) => {$(
        #[doc = concat!("Writes a `", stringify!($t), "`.")]
        pub fn $t(&mut self, value: $t) {
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    )*};
}

impl Encoder {
    /// Nothing written yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    encode_numbers!(u8, u16, u32, u64, i32, i64, f32, f64);

    /// Writes a truth value as a byte.
    pub fn bool(&mut self, value: bool) {
        self.u8(value.into());
    }

    /// Writes a size, offset or count as `u64`.
    pub fn size(&mut self, value: usize) {
        self.u64(value as u64);
    }

    /// Writes bytes as they are, without their length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes a text with its length.
    pub fn text(&mut self, text: &str) {
        self.size(text.len());
        self.raw(text.as_bytes());
    }

    /// Writes a count and then each item.
    pub fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) {
        self.size(items.len());
        for i in items {
            item(self, i);
        }
    }

    /// Writes a list of sizes.
    pub fn sizes(&mut self, values: &[usize]) {
        self.list(values.iter(), |e, v| e.size(*v));
    }

    /// Writes an element type.
    pub fn element_type(&mut self, element_type: ElementType) {
        self.u8(element_type.code());
    }

    /// Writes a range.
    pub fn range(&mut self, range: &Range<usize>) {
        self.size(range.start);
        self.size(range.end);
    }

    /// Writes a shape; symbols are not kept.
    pub fn partial_shape(&mut self, shape: &PartialShape) {
        self.bool(shape.dims().is_some());
        self.list(shape.dims().unwrap_or_default().iter(), |e, d| {
            e.size(d.min());
            e.u64(d.max().map_or(u64::MAX, |m| m as u64));
        });
    }
}

/// Far above any model's.
const MAX_RANK: usize = 64;

/// Reads what [`Encoder`] wrote, from bytes that are not trusted.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    left: &'a [u8],
    total: usize,
}

macro_rules! decode_numbers {
    ($($t:ident),*) => {$(
        #[doc = concat!("Reads a `", stringify!($t), "`.\n\n# Errors\nWhen the bytes end.")]
        pub fn $t(&mut self) -> Result<$t> {
            Ok($t::from_le_bytes(self.array()?))
        }
    )*};
}

impl<'a> Decoder<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes, total: bytes.len() }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.left.len()
    }

    /// Bytes read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.total - self.left.len()
    }

    /// Reads `len` bytes as they are.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let Some((head, tail)) = self.left.split_at_checked(len) else {
            let expected = format!("{len} more bytes at {}", self.position());
            return Err(failed("decoding", expected, self.left.len()));
        };
        self.left = tail;
        Ok(head)
    }

    /// Reads an array of bytes.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    decode_numbers!(u8, u16, u32, u64, i32, i64, f32, f64);

    /// Reads a truth value.
    ///
    /// # Errors
    /// When the byte is neither 0 nor 1, or the bytes end.
    pub fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(failed("decoding", "0 or 1", other)),
        }
    }

    /// Reads a size, offset or count. It is not limited: check it before allocating, or use [`Decoder::list`].
    ///
    /// # Errors
    /// When it exceeds the address space, or the bytes end.
    pub fn size(&mut self) -> Result<usize> {
        let value = self.u64()?;
        usize::try_from(value).map_err(|_| failed("decoding", "a size of the address space", value))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// When it is not UTF-8, or the bytes end.
    pub fn text(&mut self) -> Result<&'a str> {
        let len = self.size()?;
        let bytes = self.bytes(len)?;
        std::str::from_utf8(bytes).map_err(|_| failed("decoding", "UTF-8", "other bytes"))
    }

    /// Reads a count and then each item. Each item must take at least one byte, so the count is limited by the bytes
    /// that are left; memory grows only as items are read.
    ///
    /// # Errors
    /// When the count exceeds the bytes that are left, or what `item` gives.
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.size()?;
        if count > self.left.len() {
            let expected = format!("at most {} items", self.left.len());
            return Err(failed("decoding", expected, count));
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Reads a list of sizes.
    ///
    /// # Errors
    /// As [`Decoder::list`].
    pub fn sizes(&mut self) -> Result<Vec<usize>> {
        self.list(Self::size)
    }

    /// Reads an element type.
    ///
    /// # Errors
    /// When there is none of that number.
    pub fn element_type(&mut self) -> Result<ElementType> {
        let code = self.u8()?;
        ElementType::from_code(code).ok_or_else(|| failed("decoding", "an element type", code))
    }

    /// Reads a range that ends at `limit` at the latest.
    ///
    /// # Errors
    /// When it ends later, or before it starts.
    pub fn range(&mut self, limit: usize) -> Result<Range<usize>> {
        let (start, end) = (self.size()?, self.size()?);
        if start <= end && end <= limit {
            return Ok(start..end);
        }
        let expected = format_args!("a range that ends at {limit} at the latest");
        Err(failed("decoding", expected, format_args!("{start}..{end}")))
    }

    /// An error that says what was expected here.
    ///
    /// # Errors
    /// Always.
    pub fn fail<T>(&self, expected: impl std::fmt::Display) -> Result<T> {
        Err(failed("decoding", expected, format_args!("other bytes before {}", self.position())))
    }

    /// Reads a shape.
    ///
    /// # Errors
    /// When a dimension has a minimum above its maximum.
    pub fn partial_shape(&mut self) -> Result<PartialShape> {
        let ranked = self.bool()?;
        let dims = self.list(|d| {
            let (min, max) = (d.size()?, d.u64()?);
            let max = if max == u64::MAX {
                None
            } else {
                Some(usize::try_from(max).map_err(|_| failed("decoding", "a dimension", max))?)
            };
            match max {
                Some(max) if max < min => {
                    Err(failed("decoding", format_args!("at least {min}"), max))
                }
                max => Ok(Dimension::bounded(min, max)),
            }
        })?;
        if dims.len() > MAX_RANK {
            return Err(failed(
                "decoding",
                format_args!("a rank of at most {MAX_RANK}"),
                dims.len(),
            ));
        }
        Ok(if ranked { PartialShape::new(&dims) } else { PartialShape::dynamic() })
    }

    /// Checks that everything was read.
    ///
    /// # Errors
    /// When bytes are left.
    pub fn end(&self) -> Result<()> {
        if self.left.is_empty() {
            Ok(())
        } else {
            Err(failed("decoding", "no more bytes", self.left.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_lies_are_refused() {
        let shapes = [
            PartialShape::from([1, 2]),
            PartialShape::dynamic(),
            PartialShape::new(&[
                Dimension::DYNAMIC,
                Dimension::bounded(2, Some(8)),
                Dimension::bounded(3, None),
            ]),
        ];
        let mut e = Encoder::new();
        e.bool(true);
        e.i64(-5);
        e.text("añb");
        e.sizes(&[1, 2, 3]);
        e.element_type(ElementType::Bf16);
        e.list(shapes.iter(), Encoder::partial_shape);
        let bytes = e.into_bytes();
        let read = |bytes: &[u8]| -> Result<()> {
            let mut d = Decoder::new(bytes);
            assert!(d.bool()?);
            assert_eq!(d.i64()?, -5);
            assert_eq!(d.text()?, "añb");
            assert_eq!(d.sizes()?, [1, 2, 3]);
            assert_eq!(d.element_type()?, ElementType::Bf16);
            assert_eq!(d.list(Decoder::partial_shape)?, shapes);
            d.end()
        };
        read(&bytes).expect("whole");
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_err(), "cut to {len}");
        }
        let mut huge = u64::MAX.to_le_bytes().to_vec();
        assert!(Decoder::new(&huge).text().is_err());
        assert!(Decoder::new(&huge).sizes().is_err());
        huge.push(0);
        assert!(Decoder::new(&huge).list(Decoder::u8).is_err());
        assert!(Decoder::new(&[2]).bool().is_err());
        assert!(Decoder::new(&[1, 0, 0, 0, 0, 0, 0, 0, 0xFF]).text().is_err());
        assert!(Decoder::new(&[0xFF]).element_type().is_err());
        let range = |start: u64, end: u64| [start.to_le_bytes(), end.to_le_bytes()].concat();
        assert_eq!(Decoder::new(&range(2, 5)).range(5).expect("within"), 2..5);
        for (start, end) in [(0, 6), (3, 2), (u64::MAX, u64::MAX)] {
            assert!(Decoder::new(&range(start, end)).range(5).is_err());
        }
    }
}
