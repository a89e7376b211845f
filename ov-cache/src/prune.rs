//! What a folder holds, and keeping it below a bound.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use ov_core::{
    Blob,
    blob::{Meta, Verify},
    io::free_bytes,
};

use crate::{
    BlobKey, envelope,
    files::{self, EXTENSION, Layout},
    hash,
};

/// A blob in the folder of a cache.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its key as text: the name of its file.
    pub key: String,
    /// Its file.
    pub path: PathBuf,
    /// Bytes on the disk.
    pub len: u64,
    /// When it was used last, within an hour.
    pub last_use: SystemTime,
}

/// What is known of a stored blob without the model.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// Name of the model.
    pub model: String,
    /// Device that compiled it.
    pub device: String,
    /// Instruction set or compute capability.
    pub target: String,
    /// Version of the device.
    pub build: String,
    /// Whether it is encrypted, or needs the model's files, so that nothing else is known.
    pub wrapped: bool,
}

/// The blobs in the folder of a cache, the one used last first.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<Stored>> {
    let mut stored = list_layout(&Layout::of(dir))?;
    stored.sort_by(|a, b| b.last_use.cmp(&a.last_use).then_with(|| a.key.cmp(&b.key)));
    Ok(stored)
}

fn list_layout(layout: &Layout) -> io::Result<Vec<Stored>> {
    let mut stored = Vec::new();
    let folders = match fs::read_dir(layout.blobs()) {
        Ok(folders) => folders,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(stored),
        Err(e) => return Err(e),
    };
    for folder in folders {
        // What others remove while we look is not there.
        let Ok(files) = folder.and_then(|f| fs::read_dir(f.path())) else { continue };
        for file in files.flatten() {
            let path = file.path();
            let Ok(metadata) = file.metadata() else { continue };
            if path.extension().is_none_or(|e| e != EXTENSION) || !metadata.is_file() {
                continue;
            }
            let key = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let used = fs::metadata(layout.last_use(&key)).and_then(|m| m.modified());
            let last_use = used.or_else(|_| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            stored.push(Stored { key, path, len: metadata.len(), last_use });
        }
    }
    Ok(stored)
}

impl Stored {
    /// What the blob says of itself.
    ///
    /// # Errors
    /// When it is damaged or may not be read.
    pub fn describe(&self) -> ov_core::Result<Description> {
        let Some(blob) = self.open()? else {
            return Ok(Description { wrapped: true, ..Description::default() });
        };
        let header = blob.header();
        Ok(Description {
            model: Meta::of(&blob)?.model_name,
            device: header.device.clone(),
            target: header.target.clone(),
            build: header.build.clone(),
            wrapped: false,
        })
    }

    /// Compares every hash. True when there are none to compare without keys or the model: it is wrapped.
    ///
    /// # Errors
    /// [`BlobError::Check`](ov_core::error::BlobError::Check) with what differs.
    pub fn verify(&self) -> ov_core::Result<bool> {
        let Some(blob) = self.open()? else { return Ok(true) };
        blob.verify(Verify::All, &hash)?;
        let key = BlobKey(blob.header().key).to_string();
        if key == self.key {
            return Ok(false);
        }
        Err(ov_core::error::BlobError::Check { check: "key", expected: self.key.clone(), got: key }
            .into())
    }

    fn open(&self) -> ov_core::Result<Option<Blob>> {
        let io = |source| ov_core::error::BlobError::Io { path: self.path.clone(), source };
        let file = files::open_private(&self.path, u64::MAX).map_err(io)?;
        if envelope::is_envelope(&file) {
            return Ok(None);
        }
        let bytes = ov_core::io::MappedFile::from_file(&file).map_err(io)?.into_bytes();
        Blob::from_bytes(bytes).map(Some)
    }
}

/// Removes the blobs used longest ago until the rest take at most `max_bytes`, and temporary files that nobody writes.
/// Gives what was removed, or what would be with `dry_run`.
///
/// # Errors
/// When the folder cannot be read.
pub fn prune(dir: &Path, max_bytes: u64, dry_run: bool) -> io::Result<Vec<Stored>> {
    let layout = Layout::of(dir);
    if !dry_run {
        sweep(&layout);
    }
    evict(&layout, max_bytes, max_bytes, None, dry_run)
}

/// Makes room for a blob of `len` bytes, so that the store is never above its bound. What comes back is held until the
/// blob is linked: one process makes room at a time.
pub(crate) fn make_room(
    layout: &Layout,
    max_bytes: Option<u64>,
    len: u64,
    keep: BlobKey,
) -> io::Result<Option<File>> {
    let lock = File::options().create(true).append(true).open(layout.prune_lock())?;
    let start = Instant::now();
    let held = loop {
        match lock.try_lock() {
            Ok(()) => break true,
            // A holder that was stopped must not stop everybody.
            Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => thread::sleep(POLL),
            Err(_) => break false,
        }
    };
    sweep(layout);
    let free = free_bytes(&lock).unwrap_or(u64::MAX);
    let stored = list_layout(layout)?.iter().map(|s| s.len).sum::<u64>();
    let max = max_bytes.unwrap_or_else(|| {
        let tenth = free.saturating_add(stored) / 10;
        // Less than a gibibyte free: only what is in use stays.
        if free < MIN_FREE { 0 } else { tenth.min(DEFAULT_BOUND) }
    });
    let (max, target) = (max.saturating_sub(len), (max / 5 * 4).saturating_sub(len));
    evict(layout, max, target, Some(keep), false)?;
    Ok(held.then_some(lock))
}

/// Longest wait for another process that makes room.
const PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(1);

/// Blobs of all models, unless `CACHE_MAX_BYTES` says otherwise.
const DEFAULT_BOUND: u64 = 5 << 30;
const MIN_FREE: u64 = 1 << 30;
/// A use this far in the future is a clock that went back.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(24 * 3600);
/// Temporary files of this age that nobody holds a lock of are left over.
const SWEEP_AFTER: Duration = Duration::from_secs(3600);

/// From above `max`, down to `target`.
fn evict(
    layout: &Layout,
    max: u64,
    target: u64,
    keep: Option<BlobKey>,
    dry_run: bool,
) -> io::Result<Vec<Stored>> {
    let mut stored = list_layout(layout)?;
    let mut total: u64 = stored.iter().map(|s| s.len).sum();
    if total <= max {
        return Ok(Vec::new());
    }
    let (now, keep) = (SystemTime::now(), keep.map(|k| k.to_string()));
    let age = |s: &Stored| match now.duration_since(s.last_use) {
        Ok(age) => age,
        Err(ahead) if ahead.duration() < CLOCK_TOLERANCE => Duration::ZERO,
        Err(_) => Duration::MAX,
    };
    stored.sort_by(|a, b| age(b).cmp(&age(a)).then_with(|| a.key.cmp(&b.key)));
    let mut removed = Vec::new();
    for blob in stored {
        if total <= target {
            break;
        }
        if keep.as_deref() == Some(&blob.key) {
            continue;
        }
        // A mapped file stays readable for those who have it.
        if !dry_run {
            match fs::remove_file(&blob.path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::debug!(%error, "a blob could not be removed");
                    continue;
                }
            }
            files::remove(&layout.verified(&blob.key));
            files::remove(&layout.last_use(&blob.key));
        }
        total = total.saturating_sub(blob.len);
        removed.push(blob);
    }
    Ok(removed)
}

/// Removes temporary files that nobody writes any more.
fn sweep(layout: &Layout) {
    let Ok(files) = fs::read_dir(layout.temporary()) else { return };
    for path in files.flatten().map(|f| f.path()) {
        let old = |m: &fs::Metadata| {
            m.modified().is_ok_and(|t| {
                SystemTime::now().duration_since(t).is_ok_and(|age| age > SWEEP_AFTER)
            })
        };
        let unlocked = |file: File| file.try_lock().is_ok();
        let left_over =
            fs::metadata(&path).is_ok_and(|m| old(&m) || m.len() == 0) || writer_is_gone(&path);
        if left_over && File::open(&path).is_ok_and(unlocked) {
            files::remove(&path);
        }
    }
}

/// Whether the process whose number starts the name has ended.
fn writer_is_gone(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let pid = name.split('-').next().and_then(|pid| pid.parse::<u32>().ok());
    cfg!(target_os = "linux") && pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}
