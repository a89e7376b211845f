//! Keys: what a blob was made from.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use memchr::memmem::Finder;
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

/// BLAKE3 as a sink.
pub(crate) struct Hasher(pub(crate) blake3::Hasher);

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
        let sources = match request.model {
            CacheModel::File(path) => sources(path)?,
            CacheModel::Bytes(_) | CacheModel::Graph(_) => Vec::new(),
        };
        Self::with_sources(request, &sources)
    }

    /// As [`BlobKey::of`], with the files that [`sources`] gave.
    pub(crate) fn with_sources(
        request: &CacheRequest<'_>,
        sources: &[PathBuf],
    ) -> io::Result<Self> {
        let mut key = Hasher(blake3::Hasher::new_derive_key("ov-cache content key v1"));
        configuration(request, &mut key);
        match request.model {
            CacheModel::Graph(model) => {
                key.update(b"graph");
                model.digest(&mut key).map_err(io::Error::other)?;
            }
            CacheModel::Bytes(bytes) => key.field("file", bytes),
            CacheModel::File(_) => {
                for (index, source) in sources.iter().enumerate() {
                    let tag = if index == 0 { "file" } else { "weights" };
                    key.field(tag, &MappedFile::open(source)?);
                }
            }
        }
        Ok(Self(key.0.finalize().into()))
    }

    /// What the records of a request's files are found by: where the model is and what is made of it, not what it holds.
    pub(crate) fn of_place(request: &CacheRequest<'_>, path: &Path) -> Option<Self> {
        let mut key = Hasher(blake3::Hasher::new_derive_key("ov-cache identity v1"));
        configuration(request, &mut key);
        key.field("path", std::path::absolute(path).ok()?.to_str()?.as_bytes());
        Some(Self(key.0.finalize().into()))
    }
}

fn configuration(request: &CacheRequest<'_>, key: &mut Hasher) {
    key.field("device", request.device.as_bytes());
    key.field("configuration", request.key);
    key.field("variant", request.variant.as_bytes());
    key.field("mode", request.options.mode.to_string().as_bytes());
    key.field("encrypted", &[u8::from(request.options.encryption.is_some())]);
}

/// The file of a model, and after it those that it takes weights from.
pub(crate) fn sources(path: &Path) -> io::Result<Vec<PathBuf>> {
    let bytes = MappedFile::open(path)?;
    let mut files = vec![path.to_owned()];
    // One that is missing is an error of the model, which reading it will tell.
    files.extend(weight_files(path, &bytes).into_iter().filter(|f| f.is_file()));
    Ok(files)
}

/// The files beside a model that may hold weights of it: `.bin` of an IR, external data of an ONNX file. The latter are
/// found by their wire form (`key: "location"`, then the value), so a few files too many may be named.
pub(crate) fn weight_files(path: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    const LOCATION: &[u8] = b"\x0A\x08location\x12";
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let mut files = Vec::new();
    for at in Finder::new(LOCATION).find_iter(bytes) {
        if let Some(name) = text(&bytes[at + LOCATION.len()..]) {
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

/// A text with its length as a varint before it.
fn text(bytes: &[u8]) -> Option<&str> {
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
    std::str::from_utf8(rest.get(..len)?).ok()
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
    }
}
