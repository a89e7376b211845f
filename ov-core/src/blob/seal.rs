//! Hashes of a blob: filled in when it is stored, compared when it is loaded. The hash function is the store's.

use bytes::Bytes;

use super::{
    Blob, LEAF_LEN, SectionKind,
    format::{AT_HEADER_HASH, AT_ROOT, AT_TABLE_HASH, HEADER_LEN, Header, Section, check, failed},
};
use crate::error::Result;

/// A cryptographic hash of bytes under a domain text, so that a hash of one part never passes for another's.
pub type HashFn<'a> = dyn Fn(&str, &[u8]) -> [u8; 32] + 'a;

/// The parts of a blob that sealing changes.
#[derive(Clone, Debug)]
pub struct Seal {
    /// Header and section table, at offset 0.
    pub head: Vec<u8>,
    /// Offset of the leaves section.
    pub leaves_offset: usize,
    /// The leaves section.
    pub leaves: Vec<u8>,
}

/// How much of a sealed blob is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Header, table and every section but weights.
    Metadata,
    /// Everything.
    All,
}

const HEADER: &str = "ov blob header v1";
const TABLE: &str = "ov blob table v1";
const LEAF: &str = "ov blob leaf v1";
const ROOT: &str = "ov blob section root v1";
const ROOTS: &str = "ov blob roots v1";

/// Computes the hashes of a blob leaf by leaf, so that they can be made while the blob is written.
#[derive(Debug)]
pub struct Sealer {
    blob: Blob,
    leaves: Vec<u8>,
    /// Sections that have hashes, and how many leaves of the first one are done.
    section: usize,
    leaf: usize,
}

impl Sealer {
    /// Hashes the next leaf; false when all are done.
    ///
    /// # Errors
    /// When the blob has no place for the hash.
    pub fn step(&mut self, hash: &HashFn<'_>) -> Result<bool> {
        while let Some(section) = self.blob.sections().get(self.section) {
            let start = self.leaf * LEAF_LEN;
            if section.kind == Some(SectionKind::Leaves) || start >= section.len {
                (self.section, self.leaf) = (self.section + 1, 0);
                continue;
            }
            let from = section.offset + start;
            let to = section.offset + (start + LEAF_LEN).min(section.len);
            let leaf = hash(LEAF, &self.blob.bytes()[from..to]);
            let at = section.leaf_offset.saturating_add(self.leaf * 32);
            let place = at
                .checked_add(32)
                .and_then(|end| self.leaves.get_mut(at..end))
                .ok_or_else(|| failed("leaf list", "a place in LEAVES", at))?;
            place.copy_from_slice(&leaf);
            self.leaf += 1;
            return Ok(true);
        }
        Ok(false)
    }

    /// Hashes what is left and makes the header with `key` and `created` (seconds since 1970).
    ///
    /// # Errors
    /// As [`Sealer::step`].
    pub fn finish(mut self, key: [u8; 32], created: u64, hash: &HashFn<'_>) -> Result<Seal> {
        while self.step(hash)? {}
        let leaves_at = leaves_of(&self.blob)?;
        let mut sections = self.blob.sections().to_vec();
        for section in sections.iter_mut().filter(|s| s.kind != Some(SectionKind::Leaves)) {
            let list = section
                .leaf_offset
                .checked_add(section.leaf_count() * 32)
                .and_then(|end| self.leaves.get(section.leaf_offset..end))
                .ok_or_else(|| failed("leaf list", "a place in LEAVES", section.leaf_offset))?;
            section.root = hash(ROOT, list);
        }
        let table: Vec<u8> = sections.iter().flat_map(Section::encode).collect();
        let header = Header { sealed: true, created, key, ..self.blob.header().clone() };
        let mut head = header.encode(table.len())?.to_vec();
        head[AT_TABLE_HASH..AT_TABLE_HASH + 32].copy_from_slice(&hash(TABLE, &table));
        head[AT_ROOT..AT_ROOT + 32].copy_from_slice(&hash(ROOTS, &roots(&sections)));
        let header_hash = hash(HEADER, &head[..AT_HEADER_HASH]);
        head[AT_HEADER_HASH..].copy_from_slice(&header_hash);
        head.extend(table);
        Ok(Seal { head, leaves_offset: leaves_at.offset, leaves: self.leaves })
    }
}

fn leaves_of(blob: &Blob) -> Result<Section> {
    let leaves = blob.find(SectionKind::Leaves).copied();
    leaves.ok_or_else(|| failed("sections", "a LEAVES section", "none"))
}

impl Blob {
    /// Starts to compute the hashes of this blob.
    ///
    /// # Errors
    /// When the blob has no leaves section.
    pub fn sealer(&self) -> Result<Sealer> {
        let leaves = vec![0; leaves_of(self)?.len];
        Ok(Sealer { blob: self.clone(), leaves, section: 0, leaf: 0 })
    }

    /// Header, table and leaves of this blob with `key`, `created` (seconds since 1970) and all hashes filled in.
    ///
    /// # Errors
    /// When the blob has no leaves section of the right size.
    pub fn seal(&self, key: [u8; 32], created: u64, hash: &HashFn<'_>) -> Result<Seal> {
        self.sealer()?.finish(key, created, hash)
    }

    /// Compares the hashes of a sealed blob.
    ///
    /// # Errors
    /// [`BlobError::Check`](crate::error::BlobError::Check) for the first part that differs, or when it is unsealed.
    pub fn verify(&self, depth: Verify, hash: &HashFn<'_>) -> Result<()> {
        check("seal", self.header().sealed, "a sealed blob", "an unsealed one")?;
        let (header, table) = self.head().split_at(HEADER_LEN);
        let same = |what, stored: &[u8], computed: [u8; 32]| {
            check(what, stored == computed, hex(stored), hex(&computed))
        };
        let stored = |at: usize| &header[at..at + 32];
        same("header hash", stored(AT_HEADER_HASH), hash(HEADER, &header[..AT_HEADER_HASH]))?;
        same("table hash", stored(AT_TABLE_HASH), hash(TABLE, table))?;
        same("root hash", stored(AT_ROOT), hash(ROOTS, &roots(self.sections())))?;
        for section in self.sections().iter().filter(|s| s.kind != Some(SectionKind::Leaves)) {
            let weights = section.kind == Some(SectionKind::Weights);
            if depth == Verify::All || (depth == Verify::Metadata && !weights) {
                let leaves = leaf_hashes(&self.checked_bytes(section), hash);
                same("section hash", &section.root, hash(ROOT, &leaves))?;
                if depth == Verify::All {
                    let stored = self.stored_leaves(section);
                    check("leaf list", stored == leaves, "the hashes of the section", "others")?;
                }
            }
        }
        if depth == Verify::All { self.check_padding() } else { Ok(()) }
    }

    fn stored_leaves(&self, section: &Section) -> Bytes {
        let from = section.leaf_offset;
        self.section(SectionKind::Leaves)
            .filter(|l| from <= l.len() && section.leaf_count() * 32 <= l.len() - from)
            .map_or_else(Bytes::new, |l| l.slice(from..from + section.leaf_count() * 32))
    }
}

fn leaf_hashes(bytes: &[u8], hash: &HashFn<'_>) -> Vec<u8> {
    bytes.chunks(LEAF_LEN).flat_map(|leaf| hash(LEAF, leaf)).collect()
}

fn roots(sections: &[Section]) -> Vec<u8> {
    sections.iter().flat_map(|s| s.root).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BlobWriter;

    /// Not cryptographic, but different for the different bytes of these tests.
    fn hash(domain: &str, bytes: &[u8]) -> [u8; 32] {
        let mut state = [0xcbf2_9ce4_8422_2325u64; 4];
        for (i, b) in domain.bytes().chain(bytes.iter().copied()).enumerate() {
            let lane = &mut state[i % 4];
            *lane = (*lane ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut out = [0; 32];
        for (o, s) in out.chunks_mut(8).zip(state) {
            o.copy_from_slice(&s.to_le_bytes());
        }
        out
    }

    fn sealed() -> Vec<u8> {
        let mut writer = BlobWriter::new("CPU", "avx2", "1");
        writer.reserve(SectionKind::Plan, 100).expect("first");
        writer.reserve(SectionKind::Weights, LEAF_LEN + 9).expect("first");
        let mut buffer = writer.allocate().expect("memory");
        buffer.section_mut(SectionKind::Plan).expect("reserved").fill(3);
        let blob = buffer.finish().expect("sound");
        assert!(blob.verify(Verify::Metadata, &hash).is_err());
        let seal = blob.seal([9; 32], 77, &hash).expect("leaves");
        let mut bytes = blob.bytes().to_vec();
        bytes[..seal.head.len()].copy_from_slice(&seal.head);
        bytes[seal.leaves_offset..].copy_from_slice(&seal.leaves);
        bytes
    }

    #[test]
    fn sealed_blobs_verify_and_damage_is_found() {
        let good = sealed();
        let blob = Blob::from_bytes(good.clone().into()).expect("sound");
        assert_eq!((blob.header().key, blob.header().created), ([9; 32], 77));
        blob.verify(Verify::All, &hash).expect("untouched");
        let plan = blob.find(SectionKind::Plan).expect("there").offset;
        let weights = blob.find(SectionKind::Weights).expect("there").offset;
        for (at, in_metadata) in
            [(64, true), (4000, true), (HEADER_LEN + 70, true), (plan, true), (weights + 5, false)]
        {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let bad = Blob::from_bytes(bad.into()).expect("the structure is sound");
            assert_eq!(bad.verify(Verify::Metadata, &hash).is_err(), in_metadata, "{at}");
            assert!(bad.verify(Verify::All, &hash).is_err(), "{at}");
        }
    }
}
