//! Front ends: files become models. The format is found by content, not by the file's name.

#[cfg(feature = "ir")]
pub mod ir;
#[cfg(feature = "onnx")]
pub mod onnx;

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::{
    error::{ReadError, Result},
    io::{ExternalFiles, MappedFile},
    model::Model,
};

/// A model format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// ONNX protobuf.
    Onnx,
    /// OpenVINO IR: XML, with weights in a file beside it.
    Ir,
}

/// How to read a model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Weights of an IR; by default the file of the same name that ends in `.bin`.
    pub weights: Option<Weights>,
    /// Read files into memory instead of mapping them: for files that may change while the model is used.
    pub copy_files: bool,
}

/// Where the weights of an IR are.
#[derive(Clone, Debug)]
pub enum Weights {
    /// A file.
    File(PathBuf),
    /// These bytes.
    Bytes(Bytes),
}

impl ReadOptions {
    /// These options with the weights of an IR.
    #[must_use]
    pub fn with_weights(mut self, weights: Weights) -> Self {
        self.weights = Some(weights);
        self
    }

    fn load(&self, path: &Path) -> Result<Bytes> {
        let mapped = MappedFile::open(path).map(MappedFile::into_bytes);
        let bytes = mapped.map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        Ok(if self.copy_files { Bytes::copy_from_slice(&bytes) } else { bytes })
    }
}

/// The format of a file, from its first bytes; the path only decides between formats that its bytes allow.
#[must_use]
pub fn detect(bytes: &[u8], path: Option<&Path>) -> Option<Format> {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes).trim_ascii_start();
    if text.starts_with(b"<?xml") || text.starts_with(b"<net") {
        return Some(Format::Ir);
    }
    #[cfg(feature = "onnx")]
    if !bytes.is_empty() && hint(bytes).is_empty() && onnx::looks_like_onnx(bytes, path) {
        return Some(Format::Onnx);
    }
    let _ = path;
    None
}

/// Reads a model file.
///
/// # Errors
/// [`ReadError`].
pub fn read_file(path: &Path, options: &ReadOptions) -> Result<Model> {
    let bytes = options.load(path)?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    read(bytes, Some(path), &ExternalFiles::beneath(folder), options)
}

/// Reads a model from memory. There is no folder, so external data of ONNX is refused and an IR needs
/// [`ReadOptions::weights`].
///
/// # Errors
/// [`ReadError`].
pub fn read_bytes(bytes: Bytes, options: &ReadOptions) -> Result<Model> {
    read(bytes, None, &ExternalFiles::none(), options)
}

#[cfg_attr(
    not(all(feature = "onnx", feature = "ir")),
    allow(unused_variables, reason = "each front end needs some of them")
)]
#[cfg_attr(
    not(feature = "onnx"),
    expect(clippy::needless_pass_by_value, reason = "only the ONNX reader keeps the bytes")
)]
fn read(
    bytes: Bytes,
    path: Option<&Path>,
    external: &ExternalFiles,
    options: &ReadOptions,
) -> Result<Model> {
    let what = path.map_or_else(|| "from memory".to_owned(), |p| p.display().to_string());
    match detect(&bytes, path) {
        #[cfg(feature = "onnx")]
        Some(Format::Onnx) => onnx::read(bytes, &what, external),
        #[cfg(feature = "ir")]
        Some(Format::Ir) => {
            let weights = match &options.weights {
                Some(Weights::Bytes(bytes)) => Some(bytes.clone()),
                Some(Weights::File(path)) => Some(options.load(path)?),
                None => match path.map(|p| p.with_extension("bin")).filter(|p| p.exists()) {
                    Some(path) => Some(options.load(&path)?),
                    None => None,
                },
            };
            ir::read(&bytes, &what, weights)
        }
        _ => Err(ReadError::UnknownFormat {
            hint: hint(&bytes).to_owned(),
            what: if path.is_some() { format!("{what:?}") } else { "the given bytes".to_owned() },
            readable: READABLE.join(", "),
        }
        .into()),
    }
}

const READABLE: &[&str] = &[
    #[cfg(feature = "onnx")]
    "ONNX",
    #[cfg(feature = "ir")]
    "OpenVINO IR",
    "compiled blobs",
];

/// What a file that is no model may be.
fn hint(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => ": it is empty",
        b if b.starts_with(b"version https://git-lfs") => {
            ": it is a Git LFS pointer, fetch the file that it stands for"
        }
        b if b.starts_with(b"<!DOCTYPE") || b.starts_with(b"<html") => {
            ": it is a web page, perhaps of a failed download"
        }
        b if b.starts_with(b"PK\x03\x04") => {
            ": it is a ZIP archive (a PyTorch file?), export it to ONNX"
        }
        b if b.get(4..8) == Some(b"TFL3") => ": it is a TensorFlow Lite file, convert it to ONNX",
        b if b.starts_with(b"GGUF") => ": it is a GGUF file, convert it to ONNX",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_found_by_content() {
        for (bytes, format) in [
            (&b"<?xml version=\"1.0\"?><net/>"[..], Some(Format::Ir)),
            (b"\xEF\xBB\xBF  <net name=\"a\">", Some(Format::Ir)),
            (b"\x08\x07\x12\x00", Some(Format::Onnx)),
            (b"", None),
            (b"version https://git-lfs.github.com/spec/v1", None),
            (b"PK\x03\x04", None),
            (b"\xFF\xFF", None),
        ] {
            assert_eq!(detect(bytes, None), format, "{bytes:?}");
        }
        assert_eq!(detect(b"", Some(Path::new("a.onnx"))), None);
    }

    #[test]
    fn errors_say_what_the_file_is() {
        for (bytes, expected) in [
            (&b""[..], "it is empty"),
            (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
            (b"<html>", "web page"),
            (b"\xFF\xFF", "neither ONNX, OpenVINO IR nor a compiled blob"),
        ] {
            let error = read_bytes(Bytes::from_static(bytes), &ReadOptions::default());
            let text = error.expect_err("no model").to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
