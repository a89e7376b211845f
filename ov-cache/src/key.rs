//! Keys: what a blob was made from.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use ov_core::{
    cache::{CacheModel, CacheRequest, DigestSink},
    io::MappedFile,
};

/// The identity of a compiled model: 32 bytes of BLAKE3 over everything that decides what the compile makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlobKey(pub [u8; 32]);

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

struct Hasher(blake3::Hasher);

impl DigestSink for Hasher {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl BlobKey {
    /// The key of a request.
    ///
    /// # Errors
    /// When the model's files cannot be read or its graph has a cycle.
    pub fn of(request: &CacheRequest<'_>) -> io::Result<Self> {
        let mut key = Hasher(blake3::Hasher::new_derive_key("ov-cache content key v1"));
        key.field("device", request.device.as_bytes());
        key.field("configuration", request.key);
        match request.model {
            CacheModel::Graph(model) => {
                key.update(b"graph");
                model.digest(&mut key).map_err(io::Error::other)?;
            }
            CacheModel::File(path) => {
                let bytes = MappedFile::open(path)?;
                key.field("file", &bytes);
                for weights in weight_files(path, &bytes) {
                    // One that is missing is an error of the model, which reading it will tell.
                    if fs::metadata(&weights).is_ok_and(|m| m.is_file()) {
                        key.field("weights", &MappedFile::open(&weights)?);
                    }
                }
            }
        }
        Ok(Self(key.0.finalize().into()))
    }
}

/// The files beside a model that may hold weights of it: `.bin` of an IR, external data of an ONNX file. The latter are
/// found by their wire form (`key: "location"`, then the value), so a few files too many may be named.
fn weight_files(path: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    const LOCATION: &[u8] = b"\x0A\x08location\x12";
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let mut files = Vec::new();
    let mut left = bytes;
    while let Some(at) = find(left, LOCATION) {
        left = &left[at + LOCATION.len()..];
        if let Some((name, _)) = text(left) {
            let name = PathBuf::from(name);
            if name.is_relative() && !files.contains(&name) {
                files.push(name);
            }
        }
    }
    files.sort();
    let mut files: Vec<PathBuf> = files.into_iter().map(|f| folder.join(f)).collect();
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes).trim_ascii_start();
    if text.starts_with(b"<") {
        files.push(path.with_extension("bin"));
    }
    files
}

/// Where `pattern` (of more than two bytes) starts; looks for its third byte, which is rarer than the first.
fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    let mut at = 2;
    while at < bytes.len() {
        at += bytes[at..].iter().position(|b| *b == pattern[2])?;
        if bytes[at - 2..].starts_with(pattern) {
            return Some(at - 2);
        }
        at += 1;
    }
    None
}

/// A text with its length as a varint before it.
fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (mut len, mut shift) = (0usize, 0);
    let mut rest = bytes;
    loop {
        let (byte, tail) = rest.split_first()?;
        rest = tail;
        len |= usize::from(byte & 0x7F).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 28 {
            return None;
        }
    }
    let (text, rest) = rest.split_at_checked(len)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_data_is_found_in_the_bytes() {
        let mut bytes = b"\x08\x07llll".to_vec();
        for name in ["b.data", "a.data", "b.data", "/etc/passwd"] {
            bytes.extend_from_slice(b"\x0A\x08location\x12");
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes.extend_from_slice(b"\x0A\x08location\x12\xFF");
        let files = weight_files(Path::new("dir/m.onnx"), &bytes);
        assert_eq!(files, [PathBuf::from("dir/a.data"), PathBuf::from("dir/b.data")]);
        assert_eq!(weight_files(Path::new("m.xml"), b"<net/>"), [PathBuf::from("m.bin")]);
        assert!(weight_files(Path::new("m.onnx"), b"\x0A\x08locatio").is_empty());
        for (bytes, at) in [
            (&b"abc"[..], Some(0)),
            (b"xabc", Some(1)),
            (b"ab", None),
            (b"abxabc", Some(3)),
            (b"", None),
        ] {
            assert_eq!(find(bytes, b"abc"), at, "{bytes:?}");
        }
    }
}
