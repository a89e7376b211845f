//! The folder of a cache: who may be trusted with a file, names, folders for this user only.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use crate::{BlobKey, identity::since_epoch};

/// The paths of a store in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
}

/// Version of the layout; others are invisible.
const VERSION: &str = "v1";

impl Layout {
    pub(crate) fn of(dir: &Path) -> Self {
        // Records name files, whatever the working folder is when they are read.
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        Self { root: dir.join(VERSION) }
    }

    /// `blob/<first two digits>/<key>.ovb`.
    pub(crate) fn blob(&self, key: BlobKey) -> PathBuf {
        let digits = key.to_string();
        self.blobs().join(&digits[..2]).join(format!("{digits}.{EXTENSION}"))
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blob")
    }

    /// Which content files of an identity have.
    pub(crate) fn identity(&self, id: BlobKey) -> PathBuf {
        self.root.join("ident").join(id.to_string())
    }

    /// Which blob files have been compared with their hashes.
    pub(crate) fn verified(&self, key: &str) -> PathBuf {
        self.root.join("verified").join(key)
    }

    /// An empty file whose time is that of the last use: touching the blob itself would change its identity.
    pub(crate) fn last_use(&self, key: &str) -> PathBuf {
        self.root.join("use").join(key)
    }

    pub(crate) fn lock(&self, key: &str) -> PathBuf {
        self.root.join("lock").join(key)
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn prune_lock(&self) -> PathBuf {
        self.root.join("prune.lock")
    }
}

pub(crate) const EXTENSION: &str = "ovb";

/// Opens a file of the store for reading: a regular one, no link, of this user or root, that nobody else may write.
pub(crate) fn open_private(path: &Path, max_len: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // A FIFO would block without O_NONBLOCK, which regular files ignore.
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    let refused = |what: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    if !metadata.is_file() {
        return refused("it is no regular file");
    }
    if metadata.len() > max_len {
        return refused("it is too large");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        if metadata.uid() != 0 && Some(metadata.uid()) != ov_core::io::user() {
            return refused("it belongs to another user");
        }
        if metadata.mode() & 0o022 != 0 {
            return refused("others may write it");
        }
    }
    Ok(file)
}

/// Whether a file of the store may be removed by us: a damaged one of somebody else is theirs to mend.
pub(crate) fn is_ours(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        fs::symlink_metadata(path).is_ok_and(|m| Some(m.uid()) == ov_core::io::user())
    }
    #[cfg(not(unix))]
    path.exists()
}

pub(crate) fn read_all(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Different for every file of every process that shares the folder, dead ones included.
pub(crate) fn temporary_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = since_epoch(SystemTime::now()).as_nanos();
    format!("{}-{now:x}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Creates a folder, with those above it, for this user only.
pub(crate) fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Removes a file; that it stays is no error of anybody's.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(path = %path.display(), %error, "a file of the cache stays");
    }
}

/// One warning for each thing and kind of trouble in the life of a process.
pub(crate) fn warn_once(path: &Path, reason: &str, what: &'static str) {
    static WARNED: Mutex<Option<HashSet<(PathBuf, &'static str)>>> = Mutex::new(None);
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.get_or_insert_default().insert((path.to_owned(), what)) {
        tracing::warn!(path = %path.display(), reason, "{what}");
    } else {
        tracing::debug!(path = %path.display(), reason, "{what}");
    }
}
