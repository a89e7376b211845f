//! The store: one file per blob, created whole by rename, never changed.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use ov_core::{
    Blob,
    blob::Verify,
    cache::{CacheEntry, CacheProvider, CacheRequest},
};

use crate::BlobKey;

/// The cache in files.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileCache;

impl FileCache {
    /// Creates the provider; no folder is touched before a model is compiled.
    #[must_use]
    pub fn create() -> Arc<dyn CacheProvider> {
        Arc::new(Self)
    }
}

impl CacheProvider for FileCache {
    fn open(&self, request: &CacheRequest<'_>) -> Option<Box<dyn CacheEntry>> {
        match BlobKey::of(request) {
            Ok(key) => Some(Box::new(Entry { key, path: path_of(request.dir, key) })),
            Err(error) => {
                // Reading the model will say more.
                tracing::debug!(%error, "no cache key");
                None
            }
        }
    }
}

/// `<dir>/v1/blob/<first two digits>/<key>.ovb`.
fn path_of(dir: &Path, key: BlobKey) -> PathBuf {
    let digits = key.to_string();
    dir.join("v1").join("blob").join(&digits[..2]).join(format!("{digits}.ovb"))
}

#[derive(Debug)]
struct Entry {
    key: BlobKey,
    path: PathBuf,
}

impl Entry {
    fn read(&self) -> ov_core::Result<Blob> {
        let blob = Blob::open(&self.path)?;
        blob.verify(Verify::All, &hash)?;
        if blob.header().key == self.key.0 {
            return Ok(blob);
        }
        Err(ov_core::error::BlobError::Check {
            check: "key",
            expected: self.key.to_string(),
            got: BlobKey(blob.header().key).to_string(),
        }
        .into())
    }

    fn write(&self, blob: &Blob) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or_else(|| Path::new(""));
        create_private(folder)?;
        let temporary = folder.join(temporary_name());
        let written =
            self.write_to(&temporary, blob).and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err()
            && let Err(error) = fs::remove_file(&temporary)
        {
            tracing::debug!(%error, "no temporary file to remove");
        }
        written
    }

    fn write_to(&self, path: &Path, blob: &Blob) -> io::Result<()> {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let seal = blob.seal(self.key.0, created, &hash).map_err(io::Error::other)?;
        let bytes = blob.bytes();
        let leaves_end = seal.leaves_offset + seal.leaves.len();
        let mut file = File::create_new(path)?;
        file.write_all(&seal.head)?;
        file.write_all(&bytes[seal.head.len()..seal.leaves_offset])?;
        file.write_all(&seal.leaves)?;
        file.write_all(&bytes[leaves_end..])?;
        file.sync_data()?;
        let mut permissions = file.metadata()?.permissions();
        permissions.set_readonly(true);
        file.set_permissions(permissions)
    }
}

impl CacheEntry for Entry {
    fn load(&mut self) -> Option<Blob> {
        match self.read() {
            Ok(blob) => Some(blob),
            Err(error) => {
                if self.path.exists() {
                    self.reject(&error);
                }
                None
            }
        }
    }

    fn reject(&mut self, reason: &ov_core::Error) {
        tracing::warn!(path = %self.path.display(), error = %reason, "a cached model is not usable and is compiled again");
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the blob stays");
        }
    }

    fn publish(self: Box<Self>, blob: Blob) {
        if let Err(error) = self.write(&blob) {
            tracing::warn!(path = %self.path.display(), %error, "the compiled model is not cached");
        }
    }
}

fn hash(domain: &str, bytes: &[u8]) -> [u8; 32] {
    blake3::derive_key(domain, bytes)
}

/// Different for every publish of every process that shares the folder, dead ones included.
fn temporary_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("{}-{now:x}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Creates a folder, with those above it, for this user only.
fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
