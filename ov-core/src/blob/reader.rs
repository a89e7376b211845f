//! Bytes that were checked to have the structure of a blob.

use std::{fs::File, io::Read as _, path::Path, sync::Arc};

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
    /// Copies of header and table, and of the sections that decide memory safety: a mapped file could change after
    /// they were checked.
    head: Bytes,
    copies: Arc<[(SectionKind, Bytes)]>,
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
        let first = bytes.get(..HEADER_LEN).unwrap_or(&bytes).to_vec();
        let header = Header::decode(&first, total)?;
        let table_end = HEADER_LEN + header.sections * ENTRY_LEN;
        let table = bytes
            .get(HEADER_LEN..table_end)
            .ok_or_else(|| failed("table", "a table within the blob", total))?
            .to_vec();
        let sections: Vec<Section> =
            table.chunks_exact(ENTRY_LEN).map(Section::decode).collect::<Result<_>>()?;
        check_sections(total, &sections)?;
        let bytes = if bytes.as_ptr().addr().is_multiple_of(TENSOR_ALIGNMENT) {
            bytes
        } else {
            Bytes::from_owner(HugeBuffer::copy_of(&bytes).map_err(no_memory)?)
        };
        let copies = sections
            .iter()
            .filter_map(|s| Some((s.kind.filter(|k| k.is_copied())?, s)))
            .map(|(kind, s)| (kind, Bytes::copy_from_slice(&bytes[s.offset..s.offset + s.len])))
            .collect();
        let head = [first, table].concat().into();
        Ok(Self { bytes, head, copies, header: Arc::new(header), sections: sections.into() })
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

    /// Reads a file into memory and checks it: for files that others may change in place.
    ///
    /// # Errors
    /// [`BlobError::Io`] or [`BlobError::Check`].
    pub fn read(path: &Path) -> Result<Self> {
        let file =
            File::open(path).map_err(|source| BlobError::Io { path: path.to_owned(), source })?;
        Self::read_from(&file)
    }

    /// As [`Blob::read`], from an open file.
    ///
    /// # Errors
    /// [`BlobError::Io`] or [`BlobError::Check`].
    pub fn read_from(file: &File) -> Result<Self> {
        let bytes = read_file(file)
            .map_err(|source| BlobError::Io { path: "(an open file)".into(), source })?;
        Self::from_bytes(bytes)
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

    /// A section on the heap, for metadata that is checked before it is used: a mapped file could change after the
    /// check. The copy was made before anything was checked.
    #[must_use]
    pub fn copy_section(&self, kind: SectionKind) -> Option<Bytes> {
        let copy = self.copies.iter().find(|(k, _)| *k == kind).map(|(_, bytes)| bytes.clone());
        copy.or_else(|| self.section(kind).map(|bytes| Bytes::copy_from_slice(&bytes)))
    }

    /// Header and section table as they were checked.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// The bytes of a section that hashes are compared with: the copy, where there is one.
    pub(super) fn checked_bytes(&self, section: &Section) -> Bytes {
        let copy = self.copies.iter().find(|(k, _)| Some(*k) == section.kind);
        copy.map_or_else(
            || self.bytes.slice(section.offset..section.offset + section.len),
            |(_, bytes)| bytes.clone(),
        )
    }

    /// Checks that the gaps between sections are zeros.
    pub(super) fn check_padding(&self) -> Result<()> {
        let mut end = self.head.len();
        for s in self.sections.iter() {
            let clean = self.bytes[end..s.offset].iter().all(|b| *b == 0);
            check("section padding", clean, "zeros", format_args!("other bytes after {end}"))?;
            end = s.offset + s.len;
        }
        Ok(())
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

/// A whole file in memory of huge pages.
pub(super) fn read_file(file: &File) -> std::io::Result<Bytes> {
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut buffer = HugeBuffer::zeroed(len)?;
    let mut file = file;
    file.read_exact(&mut buffer)?;
    Ok(Bytes::from_owner(buffer))
}

fn check_sections(total: usize, sections: &[Section]) -> Result<()> {
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
        let gap = s.offset - end;
        check("section padding", gap < MAX_ALIGNMENT, "less than 2 MiB", gap)?;
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
