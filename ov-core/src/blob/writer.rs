//! Making a blob: reserve sections of known size, fill them in parallel, finish.

use std::ops::Range;

use bytes::Bytes;

use super::{
    Blob, SectionKind,
    format::{ENTRY_LEN, HEADER_LEN, Header, MAX_SECTIONS, Section, align_up, check, failed},
    reader::no_memory,
};
use crate::{error::Result, io::HugeBuffer};

/// Reserves the sections of a blob.
///
/// ```
/// use ov_core::blob::{BlobWriter, Meta, SectionKind};
///
/// let meta = Meta { model_name: "tiny".into(), ..Meta::default() }.encode();
/// let mut writer = BlobWriter::new("CPU", "avx512", "1.0");
/// writer.reserve(SectionKind::Meta, meta.len())?;
/// writer.reserve(SectionKind::Weights, 128)?;
/// let mut buffer = writer.allocate()?;
/// buffer.fill(SectionKind::Meta, &meta)?;
/// for (i, part) in buffer.split(SectionKind::Weights, &[0..10, 64..128])?.into_iter().enumerate() {
///     part.fill(i as u8 + 1); // each part may go to another thread
/// }
/// let blob = buffer.finish()?;
/// assert_eq!(blob.section(SectionKind::Weights).unwrap()[9], 1);
/// assert_eq!(Meta::of(&blob)?.model_name, "tiny");
/// # Ok::<(), ov_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BlobWriter {
    device: String,
    target: String,
    build: String,
    sections: Vec<(SectionKind, usize)>,
}

impl BlobWriter {
    /// A blob without sections, made by version `build` of `device` for `target` (instruction sets, compute
    /// capability): the texts that a reader compares before it decodes anything.
    pub fn new(
        device: impl Into<String>,
        target: impl Into<String>,
        build: impl Into<String>,
    ) -> Self {
        Self {
            device: device.into(),
            target: target.into(),
            build: build.into(),
            sections: Vec::new(),
        }
    }

    /// Reserves a section of `len` bytes. Sections lie in the order of reservation.
    ///
    /// # Errors
    /// When the kind was reserved before, or is `Leaves`, which is reserved by itself.
    pub fn reserve(&mut self, kind: SectionKind, len: usize) -> Result<()> {
        let free = kind != SectionKind::Leaves && !self.sections.iter().any(|(k, _)| *k == kind);
        check("sections", free, "one section of a kind", format_args!("two of {kind:?}"))?;
        let few = self.sections.len() < MAX_SECTIONS - 1;
        check("section count", few, "fewer sections", self.sections.len())?;
        self.sections.push((kind, len));
        Ok(())
    }

    /// Memory for everything that was reserved, zeroed.
    ///
    /// # Errors
    /// When there is not so much memory.
    pub fn allocate(mut self) -> Result<BlobBuffer> {
        let leaves = self.sections.iter().map(|(_, len)| len.div_ceil(super::LEAF_LEN) * 32).sum();
        self.sections.push((SectionKind::Leaves, leaves));
        let mut at = HEADER_LEN + self.sections.len() * ENTRY_LEN;
        let mut leaf_offset = 0;
        let mut sections = Vec::with_capacity(self.sections.len());
        for &(kind, len) in &self.sections {
            let alignment = kind.alignment(len);
            let offset = align_up(at, alignment);
            let section =
                Section { kind: Some(kind), offset, len, alignment, leaf_offset, root: [0; 32] };
            leaf_offset += section.leaf_count() * 32;
            at = offset
                .checked_add(len)
                .filter(|end| isize::try_from(*end).is_ok())
                .ok_or_else(|| failed("section length", "less", len))?;
            sections.push(section);
        }
        let header = Header {
            total_len: at,
            sealed: false,
            sections: sections.len(),
            created: 0,
            key: [0; 32],
            device: self.device,
            target: self.target,
            build: self.build,
        };
        let mut memory = HugeBuffer::zeroed(at).map_err(no_memory)?;
        let table: Vec<u8> = sections.iter().flat_map(Section::encode).collect();
        memory[..HEADER_LEN].copy_from_slice(&header.encode(table.len())?);
        memory[HEADER_LEN..HEADER_LEN + table.len()].copy_from_slice(&table);
        Ok(BlobBuffer { memory, sections })
    }
}

/// The memory of a blob that is being made.
#[derive(Debug)]
pub struct BlobBuffer {
    memory: HugeBuffer,
    sections: Vec<Section>,
}

impl BlobBuffer {
    /// A section, to write.
    ///
    /// # Errors
    /// When it was not reserved.
    pub fn section_mut(&mut self, kind: SectionKind) -> Result<&mut [u8]> {
        let section =
            self.sections.iter().find(|s| s.kind == Some(kind)).ok_or_else(|| {
                failed("sections", format_args!("{kind:?} to be reserved"), "none")
            })?;
        Ok(&mut self.memory[section.offset..section.offset + section.len])
    }

    /// Writes a whole section.
    ///
    /// # Errors
    /// When it was not reserved or has another length.
    pub fn fill(&mut self, kind: SectionKind, bytes: &[u8]) -> Result<()> {
        let section = self.section_mut(kind)?;
        check("section length", section.len() == bytes.len(), section.len(), bytes.len())?;
        section.copy_from_slice(bytes);
        Ok(())
    }

    /// Parts of a section to write, each by another thread if need be.
    ///
    /// # Errors
    /// When it was not reserved, or the ranges are not ascending, disjoint and within it.
    pub fn split(&mut self, kind: SectionKind, ranges: &[Range<usize>]) -> Result<Vec<&mut [u8]>> {
        let mut left = self.section_mut(kind)?;
        let (mut at, len) = (0, left.len());
        let mut parts = Vec::with_capacity(ranges.len());
        for range in ranges {
            let ordered = at <= range.start && range.start <= range.end && range.end <= len;
            let expected = format_args!("ascending ranges within {len} bytes");
            check("parts", ordered, expected, format_args!("{range:?} after {at}"))?;
            let (_, tail) = left.split_at_mut(range.start - at);
            let (part, tail) = tail.split_at_mut(range.len());
            parts.push(part);
            left = tail;
            at = range.end;
        }
        Ok(parts)
    }

    /// The blob, unsealed.
    ///
    /// # Errors
    /// None for a buffer from [`BlobWriter::allocate`]; the structure is checked as for any bytes.
    pub fn finish(self) -> Result<Blob> {
        Blob::from_bytes(Bytes::from_owner(self.memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::{LEAF_LEN, TENSOR_ALIGNMENT};

    fn small() -> Blob {
        let mut writer = BlobWriter::new("CPU", "avx2", "0.1.0");
        writer.reserve(SectionKind::Meta, 5).expect("first");
        writer.reserve(SectionKind::Plan, 0).expect("first");
        writer.reserve(SectionKind::Weights, LEAF_LEN + 1).expect("first");
        assert!(writer.reserve(SectionKind::Plan, 1).is_err());
        assert!(writer.reserve(SectionKind::Leaves, 1).is_err());
        let mut buffer = writer.allocate().expect("memory");
        buffer.fill(SectionKind::Meta, b"hello").expect("reserved");
        assert!(buffer.fill(SectionKind::Meta, b"hell").is_err());
        assert!(buffer.split(SectionKind::Weights, &[0..2, 1..3]).is_err());
        let beyond = 0..LEAF_LEN + 2;
        assert!(buffer.split(SectionKind::Weights, std::slice::from_ref(&beyond)).is_err());
        let ranges = [0..2, 2..3, LEAF_LEN..LEAF_LEN + 1];
        for part in buffer.split(SectionKind::Weights, &ranges).expect("disjoint") {
            part.fill(7);
        }
        buffer.finish().expect("sound")
    }

    #[test]
    fn sections_come_back_aligned() {
        let blob = small();
        assert_eq!(&blob.section(SectionKind::Meta).expect("there")[..], b"hello");
        let weights = blob.section(SectionKind::Weights).expect("there");
        assert_eq!((weights[2], weights[3], weights[LEAF_LEN]), (7, 0, 7));
        assert_eq!(blob.find(SectionKind::Weights).expect("there").offset % (64 << 10), 0);
        assert_eq!(weights.as_ptr().addr() % TENSOR_ALIGNMENT, 0);
        assert_eq!(blob.header().device, "CPU");
        assert!(!blob.header().sealed);
        let unaligned = Bytes::from([&[0][..], blob.bytes()].concat()).slice(1..);
        assert_eq!(Blob::from_bytes(unaligned).expect("sound").bytes(), blob.bytes());
        for (offset, fits) in [(1, true), (2, false), (usize::MAX, false)] {
            let tensor = blob.tensor(SectionKind::Meta, offset, crate::ElementType::U8, [4]);
            assert_eq!(tensor.is_ok(), fits, "{offset}");
        }
    }

    #[test]
    fn a_damaged_bit_of_header_or_table_never_gives_sections_outside() {
        let blob = small();
        let good = blob.bytes().to_vec();
        let end = HEADER_LEN + blob.sections().len() * ENTRY_LEN;
        let mut refused = 0;
        for at in (0..end).filter(|at| *at < 512 || *at >= HEADER_LEN) {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                match Blob::from_bytes(bad.into()) {
                    Ok(blob) => {
                        for s in blob.sections() {
                            assert!(s.offset + s.len <= good.len());
                        }
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > 1000, "{refused}");
    }

    #[test]
    fn cut_and_padded_blobs_are_refused() {
        let good = small().bytes().to_vec();
        for len in [0, 1, 7, 8, HEADER_LEN - 1, HEADER_LEN, HEADER_LEN + 1, good.len() - 1] {
            assert!(Blob::from_bytes(good[..len].to_vec().into()).is_err(), "cut to {len}");
        }
        assert!(Blob::from_bytes([&good[..], &[0]].concat().into()).is_err());
    }

    #[test]
    fn forged_ranges_are_refused() {
        let good = small().bytes().to_vec();
        for (field, value) in [
            (8, u64::MAX),
            (8, u64::MAX - 4),
            (8, 0),
            (16, u64::MAX),
            (16, good.len() as u64),
            (24, 0),
            (24, 3),
            (24, 1 << 40),
            (48, 1 << 50),
        ] {
            let mut bad = good.clone();
            bad[HEADER_LEN + field..HEADER_LEN + field + 8].copy_from_slice(&value.to_le_bytes());
            assert!(Blob::from_bytes(bad.into()).is_err(), "{value:#x} at {field}");
        }
        for (at, value) in [(28, 5000u32), (28, 3), (28, 0), (12, 8192), (24, 6)] {
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert!(Blob::from_bytes(bad.into()).is_err(), "{value} at {at}");
        }
    }
}
