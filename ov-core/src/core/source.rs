//! Files as model sources.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::{
    blob::Blob,
    frontend::{self, ReadOptions},
    model::Model,
    plugin::ModelSource,
};

/// Whether a file starts as a blob does.
pub(super) fn holds_blob(path: &Path) -> bool {
    let mut start = Vec::new();
    path.is_file()
        && File::open(path).is_ok_and(|f| f.take(16).read_to_end(&mut start).is_ok())
        && Blob::is_blob(&start)
}

impl From<&Path> for ModelSource {
    /// The file, read when it is needed.
    fn from(path: &Path) -> Self {
        let owned = path.to_owned();
        Self::file(path, move || frontend::read_file(&owned, &ReadOptions::default()))
    }
}

impl From<&PathBuf> for ModelSource {
    fn from(path: &PathBuf) -> Self {
        path.as_path().into()
    }
}

impl From<PathBuf> for ModelSource {
    fn from(path: PathBuf) -> Self {
        path.as_path().into()
    }
}

impl From<&str> for ModelSource {
    fn from(path: &str) -> Self {
        Path::new(path).into()
    }
}

impl From<&Model> for ModelSource {
    /// A clone; weights are shared.
    fn from(model: &Model) -> Self {
        model.clone().into()
    }
}
