//! External weight files beneath a model's folder, mapped once each.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
    sync::Mutex,
};

use bytes::Bytes;

use super::MappedFile;

/// Gives out the files that a model may refer to: regular files beneath its folder, none when it has no folder.
#[derive(Debug, Default)]
pub struct ExternalFiles {
    base: Option<PathBuf>,
    open: Mutex<HashMap<PathBuf, Bytes>>,
}

impl ExternalFiles {
    /// Files beneath the folder `base`.
    #[must_use]
    pub fn beneath(base: impl Into<PathBuf>) -> Self {
        Self { base: Some(base.into()), open: Mutex::default() }
    }

    /// No files: a model that was given as bytes has no folder.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Maps the file at `location`, relative to the folder. The text of the error says why it is refused.
    ///
    /// # Errors
    /// Absolute paths, paths that leave the folder (by `..` or by a symbolic link), anything but a regular file.
    pub fn open(&self, location: &Path) -> Result<Bytes, String> {
        let Some(base) = &self.base else {
            return Err("the model was read from bytes, so it has no folder: read it from a path"
                .to_owned());
        };
        let text = location.to_string_lossy();
        let plain = !location.as_os_str().is_empty()
            && !text.contains(['\\', '\0', ':'])
            && location.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !plain {
            return Err("the path must be relative and stay beneath the model's folder".to_owned());
        }
        let root = if base.as_os_str().is_empty() { Path::new(".") } else { base };
        let root = root.canonicalize().map_err(|e| e.to_string())?;
        let path = root.join(location).canonicalize().map_err(|e| e.to_string())?;
        if !path.starts_with(&root) {
            return Err("a symbolic link leads out of the model's folder".to_owned());
        }
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bytes) = open.get(&path) {
            return Ok(bytes.clone());
        }
        let bytes = MappedFile::open(&path).map_err(|e| e.to_string())?.into_bytes();
        open.insert(path, bytes.clone());
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_beneath_the_folder_are_given_out() {
        let outer = tempfile::tempdir().expect("temporary folder");
        let base = outer.path().join("model");
        std::fs::create_dir_all(base.join("sub")).expect("made");
        std::fs::write(base.join("sub/w"), b"weights").expect("written");
        std::fs::write(outer.path().join("secret"), b"no").expect("written");
        #[cfg(unix)]
        std::os::unix::fs::symlink(outer.path().join("secret"), base.join("link")).expect("linked");
        let files = ExternalFiles::beneath(&base);
        assert_eq!(&files.open(Path::new("sub/w")).expect("allowed")[..], b"weights");
        for refused in
            ["../secret", "a/../../secret", "/etc/passwd", "", "sub", "link", "C:\\x", "missing"]
        {
            assert!(files.open(Path::new(refused)).is_err(), "{refused:?} was given out");
        }
        assert!(ExternalFiles::none().open(Path::new("sub/w")).is_err());
    }
}
