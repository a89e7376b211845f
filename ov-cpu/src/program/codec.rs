//! Bytes of the plan section: fixed-width little-endian fields, length-prefixed lists, every length checked.

use std::ops::Range;

use ov_core::{
    Dimension, ElementType, Model, PartialShape, Tensor,
    error::{BlobError, Result},
    op::{Attribute, AttributeVisitor, OpError, OpResult},
};

/// Writes fields one after another.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    pub(crate) fn len(&mut self, v: usize) {
        self.u32(u32::try_from(v).expect("lists of a program have less than 2^32 entries"));
    }

    pub(crate) fn text(&mut self, v: &str) {
        self.len(v.len());
        self.0.extend_from_slice(v.as_bytes());
    }

    pub(crate) fn range(&mut self, v: &Range<usize>) {
        self.u64(v.start as u64);
        self.u64(v.end as u64);
    }

    pub(crate) fn shape(&mut self, v: &PartialShape) {
        let Some(dims) = v.dims() else { return self.u32(u32::MAX) };
        self.len(dims.len());
        for d in dims {
            self.u64(d.min() as u64);
            self.u64(d.max().map_or(u64::MAX, |m| m as u64));
        }
    }

    pub(crate) fn tensor(&mut self, v: &Tensor) {
        self.text(v.element_type().name());
        self.shape(&v.shape().into());
        if let Ok(texts) = v.as_strings() {
            for t in texts {
                self.text(t);
            }
        } else if let Ok(items) = v.as_sequence() {
            for item in items {
                self.tensor(item);
            }
        } else if let Ok((keys, values)) = v.as_map() {
            self.tensor(keys);
            self.tensor(values);
        } else {
            let v = v.to_contiguous();
            self.len(v.bytes().len());
            self.0.extend_from_slice(v.bytes());
        }
    }
}

impl AttributeVisitor for Writer {
    fn visit(&mut self, _: &'static str, attribute: Attribute<'_>) -> OpResult<()> {
        match attribute {
            Attribute::Bool(v) => self.u32(u32::from(*v)),
            Attribute::I64(v) => self.u64(*v as u64),
            Attribute::F64(v) => self.u64(v.to_bits()),
            Attribute::I64s(v) => {
                self.len(v.len());
                v.iter().for_each(|v| self.u64(*v as u64));
            }
            Attribute::F64s(v) => {
                self.len(v.len());
                v.iter().for_each(|v| self.u64(v.to_bits()));
            }
            Attribute::String(v) => self.text(v),
            Attribute::Strings(v) => {
                self.len(v.len());
                v.iter().for_each(|v| self.text(v));
            }
            Attribute::ElementType(v) => self.text(v.name()),
            Attribute::PartialShape(v) => self.shape(v),
            Attribute::Tensor(v) => self.tensor(v),
            Attribute::Choice(v) => self.text(v.text()),
            // Bodies are programs of their own, next to the node.
            Attribute::Body(_) => {}
            _ => {
                return Err(OpError::Unsupported(
                    "an attribute of a kind that programs cannot hold".to_owned(),
                ));
            }
        }
        Ok(())
    }
}

/// Reads the fields back; every length is compared with the bytes that are left before anything is reserved.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Sequences inside each other at most.
const MAX_NESTING: usize = 16;

fn damaged(at: usize, what: &str) -> BlobError {
    BlobError::Check {
        check: "program",
        expected: what.to_owned(),
        got: format!("damage at byte {at}"),
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn fail<T>(&self, what: &str) -> Result<T> {
        Err(damaged(self.at, what).into())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let left = self.bytes.len() - self.at;
        if len > left {
            return self.fail(&format!("{len} more bytes"));
        }
        self.at += len;
        Ok(&self.bytes[self.at - len..self.at])
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes were taken")))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    pub(crate) fn usize(&mut self) -> Result<usize> {
        let v = self.u64()?;
        usize::try_from(v).or_else(|_| self.fail("a size of this machine"))
    }

    /// A count of entries that take at least `entry` bytes each.
    pub(crate) fn len(&mut self, entry: usize) -> Result<usize> {
        let len = self.u32()? as usize;
        if len > (self.bytes.len() - self.at) / entry.max(1) {
            return self.fail("a count that fits the section");
        }
        Ok(len)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str> {
        let len = self.len(1)?;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).or_else(|_| self.fail("a text in UTF-8"))
    }

    pub(crate) fn range(&mut self, limit: usize) -> Result<Range<usize>> {
        let (start, end) = (self.usize()?, self.usize()?);
        if start > end || end > limit {
            self.fail("a range inside the weights")
        } else {
            Ok(start..end)
        }
    }

    pub(crate) fn element_type(&mut self) -> Result<ElementType> {
        let text = self.text()?;
        text.parse().or_else(|_| self.fail("an element type"))
    }

    pub(crate) fn shape(&mut self) -> Result<PartialShape> {
        let rank = self.u32()?;
        if rank == u32::MAX {
            return Ok(PartialShape::dynamic());
        }
        if rank > 64 {
            return self.fail("a rank of at most 64");
        }
        (0..rank)
            .map(|_| {
                let (min, max) = (self.usize()?, self.u64()?);
                let max = if max == u64::MAX { None } else { usize::try_from(max).ok() };
                Ok(if max == Some(min) {
                    Dimension::fixed(min)
                } else {
                    Dimension::bounded(min, max)
                })
            })
            .collect()
    }

    pub(crate) fn tensor(&mut self) -> Result<Tensor> {
        self.tensor_within(MAX_NESTING)
    }

    /// A tensor whose items may hold items themselves, `depth` times.
    fn tensor_within(&mut self, depth: usize) -> Result<Tensor> {
        let ty = self.element_type()?;
        let Some(shape) = self.shape()?.to_shape() else { return self.fail("a static shape") };
        if ty == ElementType::String {
            if shape.elements() > (self.bytes.len() - self.at) / 4 {
                return self.fail("a count that fits the section");
            }
            let texts = (0..shape.elements())
                .map(|_| self.text().map(str::to_owned))
                .collect::<Result<Vec<_>>>()?;
            return Tensor::from_strings(shape, texts)
                .or_else(|_| self.fail("texts for the shape"));
        }
        let is_made_of_items = matches!(ty, ElementType::Sequence | ElementType::Map);
        if is_made_of_items && depth == 0 {
            return self.fail("sequences nested less deeply");
        }
        if ty == ElementType::Sequence {
            if shape.elements() > (self.bytes.len() - self.at) / 4 {
                return self.fail("a count that fits the section");
            }
            let items =
                (0..shape.elements()).map(|_| self.tensor_within(depth - 1)).collect::<Result<_>>();
            return Ok(Tensor::from_sequence(items?));
        }
        if ty == ElementType::Map {
            let (keys, values) = (self.tensor_within(depth - 1)?, self.tensor_within(depth - 1)?);
            return Tensor::from_map(keys, values).or_else(|_| self.fail("as many keys as values"));
        }
        let len = self.len(1)?;
        let bytes = self.take(len)?;
        Tensor::from_bytes(ty, shape, bytes).or_else(|_| self.fail("bytes for the shape"))
    }

    pub(crate) fn finish(&self) -> Result<()> {
        if self.at == self.bytes.len() { Ok(()) } else { self.fail("the end of the section") }
    }
}

/// Reads attributes in the order in which [`Writer`] wrote them.
#[derive(Debug)]
pub(crate) struct AttributeReader<'r, 'a> {
    pub(crate) reader: &'r mut Reader<'a>,
    /// Stand-ins for the bodies, in order.
    pub(crate) bodies: std::vec::IntoIter<Model>,
}

impl AttributeVisitor for AttributeReader<'_, '_> {
    fn visit(&mut self, name: &'static str, attribute: Attribute<'_>) -> OpResult<()> {
        self.read(attribute).map_err(|e| OpError::Invalid(format!("attribute {name}: {e}")))
    }
}

impl AttributeReader<'_, '_> {
    fn read(&mut self, attribute: Attribute<'_>) -> Result<()> {
        let r = &mut *self.reader;
        match attribute {
            Attribute::Bool(v) => *v = r.u32()? != 0,
            Attribute::I64(v) => *v = r.u64()? as i64,
            Attribute::F64(v) => *v = f64::from_bits(r.u64()?),
            Attribute::I64s(v) => {
                *v = (0..r.len(8)?).map(|_| Ok(r.u64()? as i64)).collect::<Result<_>>()?;
            }
            Attribute::F64s(v) => {
                *v = (0..r.len(8)?).map(|_| Ok(f64::from_bits(r.u64()?))).collect::<Result<_>>()?;
            }
            Attribute::String(v) => r.text()?.clone_into(v),
            Attribute::Strings(v) => {
                *v = (0..r.len(4)?).map(|_| Ok(r.text()?.to_owned())).collect::<Result<_>>()?;
            }
            Attribute::ElementType(v) => *v = r.element_type()?,
            Attribute::PartialShape(v) => *v = r.shape()?,
            Attribute::Tensor(v) => *v = r.tensor()?,
            Attribute::Choice(v) => {
                let text = r.text()?;
                if !v.set_text(text) {
                    return r.fail(&format!("one of {}", v.options().join(", ")));
                }
            }
            Attribute::Body(v) => match self.bodies.next() {
                Some(body) => *v = body,
                None => return r.fail("a body"),
            },
            _ => return r.fail("an attribute of a known kind"),
        }
        Ok(())
    }
}
