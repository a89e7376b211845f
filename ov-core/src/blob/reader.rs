//! Bytes that were checked to have the structure of a blob.

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use super::format::{
    ENTRY_LEN, HEADER_LEN, Header, MAGIC, Section, SectionKind, TENSOR_ALIGNMENT, check, failed,
};
use crate::{
    error::{BlobError, Result},
    io::{HugeBuffer, MappedFile},
    tensor::{ElementType, Shape, Tensor},
};

/// A compiled model as bytes: owned, or a mapped file. Clones share the memory.
#[derive(Clone)]
pub struct Blob {
    bytes: Bytes,
    header: Arc<Header>,
    sections: Arc<[Section]>,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blob")
            .field("header", &self.header)
            .field("sections", &self.sections)
            .finish_non_exhaustive()
    }
}

impl Blob {
    /// Whether the bytes start as a blob does.
    #[must_use]
    pub fn is_blob(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Checks the header and section table of `bytes`. Bytes that do not start at a 64-byte boundary are copied.
    ///
    /// # Errors
    /// [`BlobError::Check`] with what is wrong.
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        let total = bytes.len();
        let header = Header::decode(bytes.get(..HEADER_LEN).unwrap_or(&bytes), total)?;
        let table = bytes
            .get(HEADER_LEN..HEADER_LEN + header.sections * ENTRY_LEN)
            .ok_or_else(|| failed("table", "a table within the blob", total))?;
        let sections: Vec<Section> =
            table.chunks_exact(ENTRY_LEN).map(Section::decode).collect::<Result<_>>()?;
        check_sections(&bytes, &sections)?;
        let bytes = if bytes.as_ptr().addr().is_multiple_of(TENSOR_ALIGNMENT) {
            bytes
        } else {
            Bytes::from_owner(HugeBuffer::copy_of(&bytes).map_err(no_memory)?)
        };
        Ok(Self { bytes, header: Arc::new(header), sections: sections.into() })
    }

    /// Maps a file and checks it.
    ///
    /// # Errors
    /// [`BlobError::Io`] or [`BlobError::Check`].
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)
            .map_err(|source| BlobError::Io { path: path.to_owned(), source })?;
        Self::from_bytes(file.into_bytes())
    }

    /// Everything.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What the header says.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The section table.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The table entry of a section.
    #[must_use]
    pub fn find(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|s| s.kind == Some(kind))
    }

    /// A section in place.
    #[must_use]
    pub fn section(&self, kind: SectionKind) -> Option<Bytes> {
        let section = self.find(kind)?;
        Some(self.bytes.slice(section.offset..section.offset + section.len))
    }

    /// A copy of a section on the heap, for metadata that is checked before it is used: a mapped file could change
    /// after the check.
    #[must_use]
    pub fn copy_section(&self, kind: SectionKind) -> Option<Vec<u8>> {
        self.section(kind).map(|b| b.to_vec())
    }

    /// A tensor in place over `offset` of a section.
    ///
    /// # Errors
    /// When the tensor does not lie within the section.
    pub fn tensor(
        &self,
        kind: SectionKind,
        offset: usize,
        element_type: ElementType,
        shape: impl Into<Shape>,
    ) -> Result<Tensor> {
        let shape = shape.into();
        let bytes = self
            .section(kind)
            .ok_or_else(|| failed("sections", format_args!("{kind:?}"), "none"))?;
        let len = shape.checked_len().and_then(|l| element_type.byte_len(l)).unwrap_or(usize::MAX);
        let fits = len <= bytes.len() && offset <= bytes.len() - len;
        let got = format_args!("{len} bytes at {offset}");
        check("tensor range", fits, format_args!("within {} bytes", bytes.len()), got)?;
        let bytes = Arc::new(bytes.slice(offset..offset + len));
        Ok(Tensor::from_buffer(element_type, shape, bytes, 0)?)
    }
}

fn check_sections(bytes: &[u8], sections: &[Section]) -> Result<()> {
    let total = bytes.len();
    let mut end = HEADER_LEN + sections.len() * ENTRY_LEN;
    let mut seen = Vec::new();
    for s in sections {
        let fits = s.len <= total && s.offset <= total - s.len;
        let got = format_args!("{} bytes at {}", s.len, s.offset);
        check("section range", fits, format_args!("within {total} bytes"), got)?;
        let ordered = s.offset >= end;
        check("section order", ordered, format_args!("an offset of at least {end}"), s.offset)?;
        let aligned = s.alignment.is_power_of_two()
            && s.alignment <= MAX_ALIGNMENT
            && s.offset.is_multiple_of(s.alignment);
        let got = format_args!("{} for {}", s.offset, s.alignment);
        check("section alignment", aligned, "a multiple of a power of two up to 2 MiB", got)?;
        let gap = &bytes[end..s.offset];
        let clean = gap.len() < MAX_ALIGNMENT && gap.iter().all(|b| *b == 0);
        check("section padding", clean, "less than 2 MiB of zeros", gap.len())?;
        if let Some(kind) = s.kind {
            let first = !seen.contains(&kind);
            check("sections", first, "one section of a kind", format_args!("two of {kind:?}"))?;
            seen.push(kind);
        }
        end = s.offset + s.len;
    }
    check("total length", end == total, format_args!("sections that end at {total}"), end)
}

pub(super) fn no_memory(source: std::io::Error) -> crate::Error {
    BlobError::Io { path: "(memory)".into(), source }.into()
}

const MAX_ALIGNMENT: usize = 2 << 20;
