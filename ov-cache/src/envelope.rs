//! Blobs that are not stored as they are: without the weights that the model's files hold, encrypted, or both.
//!
//! An envelope is opened into memory, so it cannot be mapped and shared as a plain blob can. Whatever it gives is
//! compared with all hashes of the blob that went in: weights from a model file that has changed are not taken.

use std::{
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
};

use bytes::Bytes;
use ov_core::{
    Blob,
    blob::{Decoder, Encoder, Seal, SectionKind},
    cache::CacheOptions,
    error::BlobError,
    io::{HugeBuffer, MappedFile},
    property::cache::{CacheMode, EncryptionCallbacks},
};

use crate::{delta, files};

const MAGIC: [u8; 8] = *b"\x89OVE\r\n\x1a\n";
const VERSION: u32 = 1;
const REFERRING: u32 = 0;
const ENCRYPTED: u32 = 1;
/// Bytes that are encrypted by one call.
const CHUNK: usize = 1 << 20;
const KEY_DOMAIN: &str = "ov-cache authentication key v1";

/// Whether an open file starts as an envelope does.
pub(crate) fn is_envelope(file: &File) -> bool {
    let mut start = [0; 8];
    #[cfg(unix)]
    let read = std::os::unix::fs::FileExt::read_exact_at(file, &mut start, 0);
    #[cfg(not(unix))]
    let read = (&*file).read_exact(&mut start).and_then(|()| std::io::Seek::rewind(&mut &*file));
    read.is_ok() && start == MAGIC
}

/// The stored form of a sealed blob.
///
/// # Errors
/// When a source cannot be read, or encrypting fails.
pub(crate) fn make(
    blob: &Blob,
    seal: &Seal,
    options: &CacheOptions,
    sources: &[PathBuf],
) -> io::Result<Vec<u8>> {
    let mut bytes = blob.bytes().to_vec();
    bytes[..seal.head.len()].copy_from_slice(&seal.head);
    bytes[seal.leaves_offset..][..seal.leaves.len()].copy_from_slice(&seal.leaves);
    if options.mode == CacheMode::OptimizeSize {
        bytes = refer(blob, &bytes, sources)?;
    }
    match &options.encryption {
        Some(callbacks) => encrypt(&bytes, callbacks),
        None => Ok(bytes),
    }
}

fn refer(blob: &Blob, bytes: &[u8], sources: &[PathBuf]) -> io::Result<Vec<u8>> {
    let files = map(sources)?;
    let weights = blob.find(SectionKind::Weights).map_or(0..0, |s| s.offset..s.offset + s.len);
    let parts = delta::parts(bytes, weights, &files);
    let mut e = Encoder::new();
    e.raw(&MAGIC);
    e.u32(VERSION);
    e.u32(REFERRING);
    e.size(bytes.len());
    e.list(parts.iter(), |e, part| {
        e.bool(part.source.is_some());
        if let Some((file, offset)) = part.source {
            e.size(file);
            e.size(offset);
        }
        e.size(part.range.len());
    });
    for part in parts.iter().filter(|p| p.source.is_none()) {
        e.raw(&bytes[part.range.clone()]);
    }
    Ok(e.into_bytes())
}

fn map(sources: &[PathBuf]) -> io::Result<Vec<Bytes>> {
    sources.iter().map(|path| MappedFile::open(path).map(MappedFile::into_bytes)).collect()
}

fn encrypt(bytes: &[u8], callbacks: &EncryptionCallbacks) -> io::Result<Vec<u8>> {
    let key = random_key()?;
    let mut e = Encoder::new();
    e.raw(&MAGIC);
    e.u32(VERSION);
    e.u32(ENCRYPTED);
    let mut secret = |plain: &[u8]| -> io::Result<()> {
        let secret = callbacks.encrypt(plain).map_err(io::Error::other)?;
        e.size(secret.len());
        e.raw(&secret);
        Ok(())
    };
    secret(&key)?;
    for chunk in bytes.chunks(CHUNK) {
        secret(chunk)?;
    }
    let mut bytes = e.into_bytes();
    let code = authentication(&key, &bytes);
    bytes.extend(code.as_bytes());
    Ok(bytes)
}

/// A code over everything, under a key that only who can decrypt has.
fn authentication(key: &[u8], bytes: &[u8]) -> blake3::Hash {
    blake3::keyed_hash(&blake3::derive_key(KEY_DOMAIN, key), bytes)
}

fn random_key() -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    if cfg!(unix) {
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        return Ok(key);
    }
    // The seeds of the standard library's hash maps come from the system's generator.
    use std::hash::{BuildHasher as _, RandomState};
    for part in key.chunks_mut(8) {
        part.copy_from_slice(&RandomState::new().hash_one(part.len()).to_le_bytes());
    }
    Ok(key)
}

fn bad(check: &'static str, expected: &str, got: impl std::fmt::Display) -> ov_core::Error {
    BlobError::Check { check, expected: expected.to_owned(), got: got.to_string() }.into()
}

/// The blob in an envelope; its hashes are not compared yet.
///
/// # Errors
/// [`BlobError::Check`].
pub(crate) fn open(
    file: &File,
    callbacks: Option<&EncryptionCallbacks>,
    sources: &[PathBuf],
) -> ov_core::Result<Blob> {
    let bytes = files::read_all(file).map_err(|e| bad("envelope", "a readable file", e))?;
    let plain = if kind(&bytes)? == ENCRYPTED {
        let callbacks =
            callbacks.ok_or_else(|| bad("envelope", "a blob in plain text", "an encrypted one"))?;
        decrypt(&bytes, callbacks)?
    } else {
        bytes
    };
    if Blob::is_blob(&plain) {
        return Blob::from_bytes(plain.into());
    }
    if kind(&plain)? != REFERRING {
        return Err(bad("envelope", "a blob", "an envelope within another"));
    }
    resolve(&plain, sources)
}

fn kind(bytes: &[u8]) -> ov_core::Result<u32> {
    let mut d = Decoder::new(bytes);
    if d.array::<8>()? != MAGIC {
        return Err(bad("envelope", "its first bytes", "others"));
    }
    match (d.u32()?, d.u32()?) {
        (VERSION, kind @ (REFERRING | ENCRYPTED)) => Ok(kind),
        (version, kind) => Err(bad("format version", "1", format_args!("{version}, kind {kind}"))),
    }
}

/// Magic, version, kind.
const START: usize = 16;

fn decrypt(bytes: &[u8], callbacks: &EncryptionCallbacks) -> ov_core::Result<Vec<u8>> {
    let wrong = |e: String| bad("encryption", "what the callbacks encrypted", e);
    let content = bytes.len().checked_sub(32).filter(|len| *len >= START);
    let content = content.ok_or_else(|| wrong("a shorter file".to_owned()))?;
    let (content, code) = bytes.split_at(content);
    let mut d = Decoder::new(&content[START..]);
    let len = d.size()?;
    let key = callbacks.decrypt(d.bytes(len)?).map_err(wrong)?;
    let expected = authentication(&key, content);
    // Comparing hashes takes the same time whatever differs.
    if expected != <[u8; 32]>::try_from(code).unwrap_or_default() {
        return Err(wrong("other bytes, or another key".to_owned()));
    }
    let mut plain = Vec::new();
    while d.remaining() > 0 {
        let len = d.size()?;
        plain.extend(callbacks.decrypt(d.bytes(len)?).map_err(wrong)?);
    }
    Ok(plain)
}

fn resolve(bytes: &[u8], sources: &[PathBuf]) -> ov_core::Result<Blob> {
    let files = map(sources).map_err(|e| bad("weights", "the model's files", e))?;
    let mut d = Decoder::new(&bytes[START..]);
    let total = d.size()?;
    // Parts may overlap in the files, but no sound envelope gives far more than what goes in.
    let given = files.iter().map(Bytes::len).fold(bytes.len(), usize::saturating_add);
    if total > given.saturating_mul(4) {
        return Err(bad("envelope", "a length that its parts can have", total));
    }
    let parts = d.list(|d| {
        let source = if d.bool()? { Some((d.size()?, d.size()?)) } else { None };
        Ok((source, d.size()?))
    })?;
    let mut memory = HugeBuffer::zeroed(total).map_err(|e| bad("memory", "room for a blob", e))?;
    let mut at = 0;
    for (source, len) in parts {
        let to = memory.get_mut(at..).and_then(|left| left.get_mut(..len));
        let to = to.ok_or_else(|| bad("envelope", "parts within the blob", len))?;
        let from = match source {
            None => d.bytes(len)?,
            Some((file, offset)) => files
                .get(file)
                .and_then(|file| file.get(offset..)?.get(..len))
                .ok_or_else(|| bad("weights", "a range of the model's files", offset))?,
        };
        to.copy_from_slice(from);
        at += len;
    }
    d.end()?;
    if at != total {
        return Err(bad("envelope", "parts that make up the blob", at));
    }
    Blob::from_bytes(Bytes::from_owner(memory))
}

#[cfg(test)]
mod tests {
    use ov_core::blob::{BlobWriter, Verify};

    use super::*;
    use crate::hash;

    #[test]
    fn weights_of_a_changed_file_are_not_taken() {
        let mut writer = BlobWriter::new("TEST", "any", "1");
        writer.reserve(SectionKind::Weights, 100_000).expect("first");
        let mut buffer = writer.allocate().expect("memory");
        let weights = buffer.section_mut(SectionKind::Weights).expect("reserved");
        let mut state = 0x9E37_79B9u32;
        for b in weights.iter_mut() {
            // xorshift32: content that nowhere repeats.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            *b = state as u8;
        }
        let content = weights.to_vec();
        let blob = buffer.finish().expect("sound");
        let seal = blob.seal([1; 32], 0, &hash).expect("leaves");
        let dir = tempfile::tempdir().expect("temporary folder");
        let (model, stored) = (dir.path().join("model"), dir.path().join("stored"));
        std::fs::write(&model, &content).expect("written");
        let options = CacheOptions { mode: CacheMode::OptimizeSize, ..CacheOptions::default() };
        let sources = [model.clone()];
        let bytes = make(&blob, &seal, &options, &sources).expect("made");
        assert!(bytes.len() + 99_000 < blob.bytes().len(), "{}", bytes.len());
        std::fs::write(&stored, &bytes).expect("written");
        let load = || {
            let file = File::open(&stored).expect("there");
            assert!(is_envelope(&file));
            open(&file, None, &sources)
        };
        load().expect("resolved").verify(Verify::All, &hash).expect("the same bytes");
        let mut other = content.clone();
        other[50_000] ^= 1;
        std::fs::write(&model, &other).expect("written");
        assert!(load().expect("resolved").verify(Verify::All, &hash).is_err());
        std::fs::write(&model, &content[..50_000]).expect("written");
        assert!(load().is_err(), "the file is shorter");
        std::fs::remove_file(&model).expect("removed");
        assert!(load().is_err(), "the file is gone");
        std::fs::write(&model, &content).expect("written");
        for len in (0..bytes.len()).step_by(61) {
            std::fs::write(&stored, &bytes[..len]).expect("written");
            let file = File::open(&stored).expect("there");
            let opened = open(&file, None, &sources);
            assert!(opened.is_err(), "cut to {len}");
        }
        for (at, value) in [(16, u64::MAX), (16, 1 << 40), (24, u64::MAX), (24, 1 << 33)] {
            let mut lie = bytes.clone();
            lie[at..at + 8].copy_from_slice(&value.to_le_bytes());
            std::fs::write(&stored, &lie).expect("written");
            let file = File::open(&stored).expect("there");
            assert!(open(&file, None, &sources).is_err(), "{value:#x} at {at}");
        }
    }
}
