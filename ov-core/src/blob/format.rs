//! The layout of a blob: constants, header and section table.

use super::codec::Decoder;
use crate::error::{BlobError, Result};

/// First bytes of every blob; CR LF and ^Z show transfers in text mode.
pub(super) const MAGIC: [u8; 8] = *b"\x89OVB\r\n\x1a\n";
/// A reader takes this major version only.
pub(super) const MAJOR: u16 = 1;
/// Minor versions only add optional sections.
pub(super) const MINOR: u16 = 0;
/// Length of the header, which starts the blob; the section table follows it.
pub const HEADER_LEN: usize = 4096;
/// Length of one entry of the section table.
pub(super) const ENTRY_LEN: usize = 128;
/// Most sections of a blob.
pub const MAX_SECTIONS: usize = 4096;
/// Alignment of tensors inside a section: one cache line, the widest vector load.
pub const TENSOR_ALIGNMENT: usize = 64;
/// Bytes that are hashed together.
pub const LEAF_LEN: usize = 256 << 10;

/// Alignment of sections that are mapped: mapping granularity of every system we know of.
const MAPPED_ALIGNMENT: usize = 64 << 10;
/// Alignment of large weights, so that the page cache can back them with huge pages.
const HUGE_ALIGNMENT: usize = 2 << 20;
/// Weights from this size on get [`HUGE_ALIGNMENT`].
const HUGE_FROM: usize = 8 << 20;

const FLAG_UNSEALED: u32 = 1;
const FLAG_OPTIONAL: u32 = 1;

const AT_TOTAL_LEN: usize = 16;
const AT_FLAGS: usize = 24;
const AT_CREATED: usize = 56;
const AT_KEY: usize = 64;
pub(super) const AT_TABLE_HASH: usize = 96;
pub(super) const AT_ROOT: usize = 128;
const AT_TEXTS: usize = 256;
pub(super) const AT_HEADER_HASH: usize = HEADER_LEN - 32;

/// Offset of the root inside a table entry.
const ENTRY_ROOT: usize = 64;

/// `offset` rounded up to a multiple of `alignment`, a power of two; saturates.
#[must_use]
pub fn align_up(offset: usize, alignment: usize) -> usize {
    offset.saturating_add(alignment - 1) & !(alignment - 1)
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SectionKind {
    /// Names, ports, properties: a [`Meta`](super::Meta).
    Meta,
    /// The program.
    Plan,
    /// Constants of less than 4 KiB.
    Small,
    /// Packed weights in the order of first use.
    Weights,
    /// References to weights that stay in the model's files.
    WeightReferences,
    /// Code of an accelerator.
    Code,
    /// Results of tuning.
    Tune,
    /// Texts for people.
    Debug,
    /// Hashes of the leaves of the other sections.
    Leaves,
}

impl SectionKind {
    const ALL: [Self; 9] = [
        Self::Meta,
        Self::Plan,
        Self::Small,
        Self::Weights,
        Self::WeightReferences,
        Self::Code,
        Self::Tune,
        Self::Debug,
        Self::Leaves,
    ];

    fn number(self) -> u32 {
        self as u32 + 1
    }

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
    }

    /// Whether memory safety depends on its bytes, so that they are copied before they are checked.
    pub(super) fn is_copied(self) -> bool {
        matches!(self, Self::Meta | Self::Plan | Self::WeightReferences | Self::Tune)
    }

    /// Where a section of `len` bytes may start.
    #[must_use]
    pub fn alignment(self, len: usize) -> usize {
        match self {
            Self::Weights if len >= HUGE_FROM => HUGE_ALIGNMENT,
            Self::Weights | Self::Code => MAPPED_ALIGNMENT,
            _ => TENSOR_ALIGNMENT,
        }
    }
}

/// One line of the section table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it holds; `None` for an optional kind of a later version.
    pub kind: Option<SectionKind>,
    /// Offset in the blob.
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
    /// Alignment of the offset.
    pub alignment: usize,
    /// Offset of its leaf hashes in the leaves section.
    pub leaf_offset: usize,
    /// Hash over its leaf hashes; zeros when unsealed.
    pub root: [u8; 32],
}

impl Section {
    pub(super) fn leaf_count(&self) -> usize {
        self.len.div_ceil(LEAF_LEN)
    }

    pub(super) fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut entry = [0; ENTRY_LEN];
        entry[..4].copy_from_slice(&self.kind.map_or(0, SectionKind::number).to_le_bytes());
        for (at, value) in [
            (8, self.offset),
            (16, self.len),
            (24, self.alignment),
            (40, self.leaf_offset),
            (48, self.leaf_count() * 32),
        ] {
            entry[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
        }
        entry[ENTRY_ROOT..ENTRY_ROOT + 32].copy_from_slice(&self.root);
        entry
    }

    /// Reads an entry; ranges are checked by the reader, which knows the whole.
    pub(super) fn decode(entry: &[u8]) -> Result<Self> {
        let mut d = Decoder::new(entry);
        let (number, flags) = (d.u32()?, d.u32()?);
        let kind = SectionKind::from_number(number);
        let known = kind.is_some() || flags & FLAG_OPTIONAL != 0;
        check("section kind", known, "a known kind", number)?;
        let (offset, len, alignment) = (d.size()?, d.size()?, d.size()?);
        let codec = d.u32()?;
        check("section codec", codec == 0, 0, codec)?;
        d.u32()?;
        let (leaf_offset, leaf_len) = (d.size()?, d.size()?);
        d.u64()?;
        let root = d.array()?;
        let section = Self { kind, offset, len, alignment, leaf_offset, root };
        let expected = section.leaf_count().saturating_mul(32);
        check("section leaf list", leaf_len == expected, expected, leaf_len)?;
        Ok(section)
    }
}

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the blob in bytes.
    pub total_len: usize,
    /// Whether hashes are filled in.
    pub sealed: bool,
    /// Number of sections.
    pub sections: usize,
    /// Seconds since 1970 when it was sealed, for people; 0 when unsealed.
    pub created: u64,
    /// Key that it was stored under; zeros when unsealed.
    pub key: [u8; 32],
    /// Device that made it: `CPU`.
    pub device: String,
    /// What it needs to run: instruction sets, compute capability.
    pub target: String,
    /// Version of the device crate that made it.
    pub build: String,
}

impl Header {
    pub(super) fn encode(&self, table_len: usize) -> Result<[u8; HEADER_LEN]> {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&MAGIC);
        header[8..10].copy_from_slice(&MAJOR.to_le_bytes());
        header[10..12].copy_from_slice(&MINOR.to_le_bytes());
        header[12..16].copy_from_slice(&(HEADER_LEN as u32).to_le_bytes());
        header[AT_TOTAL_LEN..AT_TOTAL_LEN + 8]
            .copy_from_slice(&(self.total_len as u64).to_le_bytes());
        let flags = if self.sealed { 0 } else { FLAG_UNSEALED };
        header[AT_FLAGS..AT_FLAGS + 4].copy_from_slice(&flags.to_le_bytes());
        header[28..32].copy_from_slice(&(self.sections as u32).to_le_bytes());
        header[32..40].copy_from_slice(&(HEADER_LEN as u64).to_le_bytes());
        header[40..48].copy_from_slice(&(table_len as u64).to_le_bytes());
        header[48..52].copy_from_slice(&(LEAF_LEN as u32).to_le_bytes());
        header[AT_CREATED..AT_CREATED + 8].copy_from_slice(&self.created.to_le_bytes());
        header[AT_KEY..AT_KEY + 32].copy_from_slice(&self.key);
        let mut at = AT_TEXTS;
        for text in [&self.device, &self.target, &self.build] {
            let end = at + 2 + text.len();
            check("header texts", end <= AT_HEADER_HASH, "texts of at most 3.8 kB", text.len())?;
            header[at..at + 2].copy_from_slice(&(text.len() as u16).to_le_bytes());
            header[at + 2..end].copy_from_slice(text.as_bytes());
            at = end;
        }
        Ok(header)
    }

    /// Reads and checks a header; `total` is the length of the bytes at hand.
    pub(super) fn decode(bytes: &[u8], total: usize) -> Result<Self> {
        let whole = bytes.len() == HEADER_LEN;
        check("length", whole, format_args!("at least {HEADER_LEN} bytes"), total)?;
        let mut d = Decoder::new(bytes);
        let magic = d.array::<8>()?;
        check("magic", magic == MAGIC, "an ov blob", format_args!("{magic:02x?}"))?;
        let major = d.u16()?;
        check("format version", major == MAJOR, MAJOR, major)?;
        d.u16()?;
        let header_len = d.u32()?;
        check("header length", header_len as usize == HEADER_LEN, HEADER_LEN, header_len)?;
        let total_len = d.size()?;
        check("total length", total_len == total, format_args!("{total_len} bytes"), total)?;
        let (flags, count) = (d.u32()?, d.u32()? as usize);
        check("flags", flags & !FLAG_UNSEALED == 0, "known flags", flags)?;
        let few = count <= MAX_SECTIONS;
        check("section count", few, format_args!("at most {MAX_SECTIONS}"), count)?;
        let (table, table_len) = (d.size()?, d.size()?);
        check("table offset", table == HEADER_LEN, HEADER_LEN, table)?;
        check("table length", table_len == count * ENTRY_LEN, count * ENTRY_LEN, table_len)?;
        let granule = d.u32()?;
        check("granule", granule as usize == LEAF_LEN, LEAF_LEN, granule)?;
        d.u32()?;
        let created = d.u64()?;
        let key = d.array()?;
        let mut d = Decoder::new(&bytes[AT_TEXTS..AT_HEADER_HASH]);
        let mut text = || -> Result<String> {
            let len = d.u16()?;
            let bytes = d.bytes(len.into())?;
            String::from_utf8(bytes.to_vec())
                .map_err(|_| failed("header texts", "UTF-8", "other bytes"))
        };
        Ok(Self {
            total_len,
            sealed: flags & FLAG_UNSEALED == 0,
            sections: count,
            created,
            key,
            device: text()?,
            target: text()?,
            build: text()?,
        })
    }
}

pub(super) fn failed(
    check: &'static str,
    expected: impl std::fmt::Display,
    got: impl std::fmt::Display,
) -> crate::Error {
    BlobError::Check { check, expected: expected.to_string(), got: got.to_string() }.into()
}

pub(super) fn check(
    what: &'static str,
    holds: bool,
    expected: impl std::fmt::Display,
    got: impl std::fmt::Display,
) -> Result<()> {
    if holds { Ok(()) } else { Err(failed(what, expected, got)) }
}
