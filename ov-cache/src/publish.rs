//! Stores blobs beside the first inferences: step by step on a thread that others go before, or by whoever waits for it.
//!
//! A blob appears whole or not at all: it is written to a temporary file, flushed to the disk, read back and compared,
//! and linked to its name, which is never written again. A process that ends in between leaves a temporary file, which
//! the next pruning sweeps.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use ov_core::{
    Blob,
    blob::{Seal, Sealer},
    cache::CacheOptions,
    io::{FileSystem, MappedFile, file_system, reserve_space, yield_to_others},
    property::cache::CacheMode,
};

use crate::{
    BlobKey, envelope,
    files::{self, Layout, temporary_name, warn_once},
    hash,
    identity::{FileId, Record, since_epoch},
    prune,
};

/// Hears the name of a step before it is done; an error stands for a failure of the step.
pub type Watch = dyn Fn(&'static str) -> io::Result<()> + Send + Sync;

/// Jobs under way.
pub(crate) struct Publisher {
    jobs: Mutex<Vec<Arc<Mutex<Option<Job>>>>>,
    watch: Option<Arc<Watch>>,
    /// Folders that could not be written, and since when.
    failed: Arc<Mutex<HashMap<PathBuf, Instant>>>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

/// A folder that could not be written is left alone for so long.
const RETRY_AFTER: Duration = Duration::from_secs(60);

impl Publisher {
    pub(crate) fn new(watch: Option<Arc<Watch>>) -> Self {
        Self { jobs: Mutex::default(), watch, failed: Arc::default() }
    }

    pub(crate) fn publish(&self, mut job: Job) {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.get(&job.layout.root).is_some_and(|since| since.elapsed() < RETRY_AFTER) {
            return;
        }
        drop(failed);
        job.watch.clone_from(&self.watch);
        job.failed = Arc::clone(&self.failed);
        let shared = Arc::new(Mutex::new(Some(job)));
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|job| job.lock().is_ok_and(|job| job.is_some()));
        jobs.push(Arc::clone(&shared));
        drop(jobs);
        let work = move || {
            yield_to_others();
            drive(&shared);
        };
        if let Err(error) = thread::Builder::new().name("ov-cache-store".to_owned()).spawn(work) {
            tracing::debug!(%error, "no thread to store a blob: it is stored at the end");
        }
    }

    /// Does what is left, on this thread.
    pub(crate) fn finish(&self) {
        let jobs = std::mem::take(&mut *self.jobs.lock().unwrap_or_else(PoisonError::into_inner));
        jobs.iter().for_each(|job| drive(job));
    }
}

/// Does the steps of a job. Two threads may share them.
fn drive(job: &Mutex<Option<Job>>) {
    loop {
        let mut held = job.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(job) = held.as_mut() else { return };
        match job.step() {
            Ok(false) => {}
            Ok(true) => *held = None,
            Err(error) => {
                job.fail(&error);
                *held = None;
            }
        }
    }
}

/// A blob on its way into the store.
pub(crate) struct Job {
    layout: Layout,
    key: BlobKey,
    blob: Blob,
    options: CacheOptions,
    sources: Vec<PathBuf>,
    record: Option<(PathBuf, Record)>,
    /// Held until the blob can be found.
    lock: Option<File>,
    watch: Option<Arc<Watch>>,
    failed: Arc<Mutex<HashMap<PathBuf, Instant>>>,
    temporary: Option<PathBuf>,
    state: State,
}

enum State {
    Start,
    Writing {
        file: File,
        sealer: Sealer,
        at: usize,
    },
    /// The file is kept for its lock.
    Comparing {
        file: File,
        seal: Seal,
        created: u64,
        again: Sealer,
    },
    Linking,
}

/// Bytes written at a time: a huge page, so that the page cache can hold and map them as one.
const CHUNK: usize = 2 << 20;
/// Leaves of a chunk.
const LEAVES: usize = CHUNK / ov_core::blob::LEAF_LEN;

impl Job {
    pub(crate) fn new(
        layout: Layout,
        key: BlobKey,
        blob: Blob,
        options: CacheOptions,
        sources: Vec<PathBuf>,
        record: Option<(PathBuf, Record)>,
        lock: Option<File>,
    ) -> Self {
        Self {
            layout,
            key,
            blob,
            options,
            sources,
            record,
            lock,
            watch: None,
            failed: Arc::default(),
            temporary: None,
            state: State::Start,
        }
    }

    fn watch(&self, step: &'static str) -> io::Result<()> {
        self.watch.as_ref().map_or(Ok(()), |watch| watch(step))
    }

    fn is_plain(&self) -> bool {
        self.options.encryption.is_none() && self.options.mode == CacheMode::OptimizeSpeed
    }

    /// The next step; true when it was the last.
    fn step(&mut self) -> io::Result<bool> {
        match std::mem::replace(&mut self.state, State::Linking) {
            State::Start => self.start()?,
            State::Writing { file, sealer, at } => self.write(file, sealer, at)?,
            State::Comparing { file, seal, created, again } => {
                self.compare(file, seal, created, again)?;
            }
            State::Linking => {
                self.link()?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn start(&mut self) -> io::Result<()> {
        self.watch("create")?;
        let max = self.options.max_bytes;
        if max.is_some_and(|max| self.blob.bytes().len() as u64 > max) && self.is_plain() {
            return Err(io::Error::other("it is larger than CACHE_MAX_BYTES"));
        }
        files::create_private(&self.layout.temporary())?;
        let path = self.layout.temporary().join(temporary_name());
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        self.temporary = Some(path);
        // Taken by whoever sweeps old files: one that is being written stays.
        if let Err(error) = file.try_lock() {
            tracing::debug!(%error, "a temporary file could not be locked");
        }
        let sealer = self.blob.sealer().map_err(io::Error::other)?;
        if !self.is_plain() {
            let seal = sealer.finish(self.key.0, now(), &hash).map_err(io::Error::other)?;
            let options = &self.options;
            self.watch("write")?;
            let bytes = envelope::make(&self.blob, &seal, options, &self.sources)?;
            reserve_space(&file, bytes.len() as u64)?;
            write_at(&file, &bytes, 0)?;
            self.watch("sync")?;
            file.sync_data()?;
            read_only(&file)?;
            self.state = State::Linking;
            return Ok(());
        }
        self.watch("reserve")?;
        reserve_space(&file, self.blob.bytes().len() as u64)?;
        self.state = State::Writing { file, sealer, at: 0 };
        Ok(())
    }

    fn write(&mut self, file: File, mut sealer: Sealer, at: usize) -> io::Result<()> {
        self.watch("write")?;
        let bytes = self.blob.bytes();
        for _ in 0..LEAVES {
            if !sealer.step(&hash).map_err(io::Error::other)? {
                break;
            }
        }
        let to = (at + CHUNK).min(bytes.len());
        write_at(&file, &bytes[at..to], at as u64)?;
        if to < bytes.len() {
            self.state = State::Writing { file, sealer, at: to };
            return Ok(());
        }
        let created = now();
        let seal = sealer.finish(self.key.0, created, &hash).map_err(io::Error::other)?;
        self.watch("head")?;
        write_at(&file, &seal.leaves, seal.leaves_offset as u64)?;
        write_at(&file, &seal.head, 0)?;
        self.watch("sync")?;
        file.sync_data()?;
        read_only(&file)?;
        let stored = MappedFile::from_file(&file)?.into_bytes();
        let stored = Blob::from_bytes(stored).map_err(io::Error::other)?;
        let again = stored.sealer().map_err(io::Error::other)?;
        self.state = State::Comparing { file, seal, created, again };
        Ok(())
    }

    /// Whether the file gives the hashes that were made while it was written.
    fn compare(
        &mut self,
        file: File,
        seal: Seal,
        created: u64,
        mut again: Sealer,
    ) -> io::Result<()> {
        for _ in 0..LEAVES {
            if !again.step(&hash).map_err(io::Error::other)? {
                let read = again.finish(self.key.0, created, &hash).map_err(io::Error::other)?;
                if read.head != seal.head || read.leaves != seal.leaves {
                    return Err(io::Error::other("what was written reads back differently"));
                }
                return Ok(());
            }
        }
        self.state = State::Comparing { file, seal, created, again };
        Ok(())
    }

    fn link(&mut self) -> io::Result<()> {
        self.watch("link")?;
        let path = self.layout.blob(self.key);
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        files::create_private(folder)?;
        let len =
            self.temporary.as_deref().and_then(|t| fs::metadata(t).ok()).map_or(0, |m| m.len());
        if self.options.max_bytes.is_some_and(|max| len > max) {
            return Err(io::Error::other("it is larger than CACHE_MAX_BYTES"));
        }
        let room = prune::make_room(&self.layout, self.options.max_bytes, len, self.key)?;
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        let linked = match fs::hard_link(&temporary, &path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            // A file system without links.
            Err(_) => fs::rename(&temporary, &path).map(|()| true),
        };
        files::remove(&temporary);
        drop(room);
        if !linked? {
            return Ok(());
        }
        self.watch("record")?;
        if let Ok(folder) = File::open(folder) {
            folder.sync_all()?;
        }
        let key = self.key.to_string();
        if self.is_plain()
            && File::open(&path).is_ok_and(|f| file_system(&f) == FileSystem::Local)
            && let Some(id) = FileId::at(&path)
        {
            let files = vec![(path, Some(id))];
            Record { key: self.key, files, found: now() }.store(&self.layout.verified(&key))?;
        }
        if let Some((place, record)) = self.record.take() {
            record.store(&place)?;
        }
        let used = self.layout.last_use(&key);
        files::create_private(used.parent().unwrap_or_else(|| Path::new("")))?;
        File::create(&used)?.set_modified(SystemTime::now())?;
        self.watch("done")?;
        self.lock = None;
        Ok(())
    }

    fn fail(&mut self, error: &io::Error) {
        if let Some(temporary) = self.temporary.take() {
            files::remove(&temporary);
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.insert(self.layout.root.clone(), Instant::now());
        drop(failed);
        warn_once(&self.layout.root, &error.to_string(), "a compiled model is not cached");
    }
}

fn now() -> u64 {
    since_epoch(SystemTime::now()).as_secs()
}

fn read_only(file: &File) -> io::Result<()> {
    let mut permissions = file.metadata()?.permissions();
    permissions.set_readonly(true);
    #[cfg(unix)]
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o444);
    file.set_permissions(permissions)
}

/// Writes without touching the mapping of anybody.
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
    }
    #[cfg(not(unix))]
    {
        use std::io::{Seek as _, SeekFrom, Write as _};
        let mut file = file;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)
    }
}
