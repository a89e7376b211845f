//! The provider: finds blobs by identity or content, checks them, lets one process at a time compile a model.

use std::{
    collections::HashMap,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use ov_core::{
    Blob,
    blob::Verify,
    cache::{
        CacheEntry, CacheModel, CacheOptions, CacheProvider, CacheRequest, CachedBlob, WeightCheck,
    },
    error::BlobError,
    io::{FileSystem, MappedFile, file_system, yield_to_others},
    property::cache::CacheVerify,
};

use crate::{
    BlobKey, envelope,
    files::{self, Layout, warn_once},
    hash,
    identity::{self, FileId, Record, since_epoch},
    key::sources,
    publish::{Job, Publisher, Watch},
};

/// The cache in files.
#[derive(Clone, Debug)]
pub struct FileCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    publisher: Publisher,
    /// Entries that were not usable, by key: one that comes back bad is left alone.
    bad: Mutex<HashMap<BlobKey, u32>>,
    scrub_after: Duration,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.publisher.finish();
    }
}

/// Blobs and models are compared with their hashes again after this time.
const SCRUB_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

impl FileCache {
    /// Creates the provider; no folder is touched before a model is looked for.
    #[must_use]
    pub fn create() -> Arc<dyn CacheProvider> {
        Arc::new(Self::new(SCRUB_AFTER, None))
    }

    /// A cache that compares what it has recorded with the files again after `scrub_after`, and tells `watch` the name of
    /// every step of storing a blob before it is done. An error from `watch` stands for a failure of that step.
    #[must_use]
    pub fn watched(scrub_after: Duration, watch: Arc<Watch>) -> Self {
        Self::new(scrub_after, Some(watch))
    }

    fn new(scrub_after: Duration, watch: Option<Arc<Watch>>) -> Self {
        let publisher = Publisher::new(watch);
        Self { shared: Arc::new(Shared { publisher, bad: Mutex::default(), scrub_after }) }
    }
}

impl CacheProvider for FileCache {
    fn open(&self, request: &CacheRequest<'_>) -> Option<Box<dyn CacheEntry>> {
        match Entry::open(&self.shared, request) {
            Ok(entry) => Some(Box::new(entry)),
            Err(error) => {
                // Reading the model will say more.
                tracing::debug!(%error, "no cache key");
                None
            }
        }
    }

    fn finish(&self) {
        self.shared.publisher.finish();
    }
}

struct Entry {
    shared: Arc<Shared>,
    layout: Layout,
    key: BlobKey,
    path: PathBuf,
    options: CacheOptions,
    sources: Vec<PathBuf>,
    /// The record that led here, when it is old enough to be looked at again.
    old_record: Option<Rehash>,
    /// The record to store once the blob is.
    new_record: Option<(PathBuf, Record)>,
    /// Held by the process that compiles, until its blob is stored.
    lock: Option<File>,
    /// Whether storing is left to another process.
    private: bool,
}

/// What is needed to hash the model's files again.
struct Rehash {
    record: PathBuf,
    request: OwnedRequest,
}

struct OwnedRequest {
    dir: PathBuf,
    device: String,
    path: PathBuf,
    variant: String,
    key: Vec<u8>,
    options: CacheOptions,
}

impl OwnedRequest {
    fn of(request: &CacheRequest<'_>, path: &Path) -> Self {
        Self {
            dir: request.dir.to_owned(),
            device: request.device.to_owned(),
            path: path.to_owned(),
            variant: request.variant.to_owned(),
            key: request.key.to_vec(),
            options: request.options.clone(),
        }
    }

    fn content_key(&self) -> io::Result<BlobKey> {
        BlobKey::of(&CacheRequest {
            dir: &self.dir,
            device: &self.device,
            model: CacheModel::File(&self.path),
            variant: &self.variant,
            key: &self.key,
            options: self.options.clone(),
        })
    }
}

impl Entry {
    fn open(shared: &Arc<Shared>, request: &CacheRequest<'_>) -> io::Result<Self> {
        let layout = Layout::of(request.dir);
        let mut entry = Self {
            shared: Arc::clone(shared),
            path: PathBuf::new(),
            key: BlobKey([0; 32]),
            layout,
            options: request.options.clone(),
            sources: Vec::new(),
            old_record: None,
            new_record: None,
            lock: None,
            private: false,
        };
        match request.model {
            CacheModel::File(path) => entry.identify(request, path)?,
            CacheModel::Bytes(_) | CacheModel::Graph(_) => entry.key = BlobKey::of(request)?,
        }
        entry.path = entry.layout.blob(entry.key);
        Ok(entry)
    }

    /// Finds the key of a file: by its record, else by its content.
    fn identify(&mut self, request: &CacheRequest<'_>, path: &Path) -> io::Result<()> {
        let place = BlobKey::of_place(request, path).map(|place| self.layout.identity(place));
        let trusting = self.options.verify != CacheVerify::Full;
        if let Some(record) = place.as_deref().filter(|_| trusting).and_then(Record::load) {
            self.key = record.key;
            self.sources = record.files.into_iter().map(|(path, _)| path).collect();
            if self.is_old(record.found)
                && let Some(place) = place
            {
                let request = OwnedRequest::of(request, path);
                self.old_record = Some(Rehash { record: place, request });
            }
            return Ok(());
        }
        self.sources = sources(&std::path::absolute(path)?)?;
        let (before, start) = (identity::identities(&self.sources), SystemTime::now());
        self.key = BlobKey::with_sources(request, &self.sources)?;
        if let (Some(place), Some(files)) = (place, before)
            && identity::may_be_recorded(&files, start)
        {
            let found = since_epoch(start).as_secs();
            self.new_record = Some((place, Record { key: self.key, files, found }));
        }
        Ok(())
    }

    fn is_old(&self, found: u64) -> bool {
        let now = since_epoch(SystemTime::now()).as_secs();
        // A record from the future is as good as an old one.
        now.checked_sub(found).is_none_or(|age| age >= self.shared.scrub_after.as_secs())
    }

    /// The stored blob; `None` when there is none.
    fn look(&mut self) -> Result<Option<CachedBlob>, ov_core::Error> {
        let io = |source| BlobError::Io { path: self.path.clone(), source };
        let file = match files::open_private(&self.path, MAX_BLOB) {
            Ok(file) => file,
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(io(e).into()),
        };
        let id = file.metadata().ok().and_then(|m| FileId::of(&m));
        let (blob, whole) = if envelope::is_envelope(&file) {
            let encryption = self.options.encryption.as_ref();
            (envelope::open(&file, encryption, &self.sources)?, true)
        } else if self.options.map && file_system(&file) == FileSystem::Local {
            (Blob::from_bytes(MappedFile::from_file(&file).map_err(io)?.into_bytes())?, false)
        } else {
            (Blob::read_from(&file)?, false)
        };
        let found = BlobKey(blob.header().key);
        if found != self.key {
            return Err(BlobError::Check {
                check: "key",
                expected: self.key.to_string(),
                got: found.to_string(),
            }
            .into());
        }
        let check = self.verify(&file, &blob, id, whole)?;
        Ok(Some(CachedBlob { blob, check }))
    }

    /// Compares what has to be compared now, and starts what may be compared later.
    fn verify(
        &mut self,
        file: &File,
        blob: &Blob,
        id: Option<FileId>,
        whole: bool,
    ) -> ov_core::Result<Option<Arc<WeightCheck>>> {
        if whole || self.options.verify == CacheVerify::Full {
            blob.verify(Verify::All, &hash)?;
            return Ok(None);
        }
        if self.options.verify == CacheVerify::Lazy {
            blob.verify(Verify::Metadata, &hash)?;
            return Ok(Some(self.check_later(blob, true)));
        }
        let place = self.layout.verified(&self.key.to_string());
        let record = Record::load(&place)
            .filter(|r| r.key == self.key && matches!(&r.files[..], [(_, of)] if *of == id));
        let Some(record) = record else {
            blob.verify(Verify::All, &hash)?;
            self.record_verified(file, id, &place);
            return Ok(None);
        };
        blob.verify(Verify::Metadata, &hash)?;
        let due = self.is_old(record.found) || self.old_record.is_some();
        Ok(due.then(|| self.check_later(blob, false)))
    }

    /// A blob that is not on the disk yet must not be recorded: after a power cut it could be another.
    fn record_verified(&self, file: &File, id: Option<FileId>, place: &Path) {
        let Some(id) = id else { return };
        if file_system(file) != FileSystem::Local || file.sync_data().is_err() {
            return;
        }
        let files = vec![(self.path.clone(), Some(id))];
        let found = since_epoch(SystemTime::now()).as_secs();
        let record = Record { key: self.key, files, found };
        if let Err(error) = record.store(place) {
            tracing::debug!(%error, "that a blob is sound could not be recorded");
        }
    }

    /// Compares the blob, and the model's files if their record is old, on a thread of its own.
    fn check_later(&mut self, blob: &Blob, awaited: bool) -> Arc<WeightCheck> {
        let check = Arc::new(WeightCheck::new(awaited));
        let (blob, path, key) = (blob.clone(), self.path.clone(), self.key);
        let verified = self.layout.verified(&key.to_string());
        let rehash = self.old_record.take();
        let ends = Arc::clone(&check);
        let work = move || {
            if !awaited {
                yield_to_others();
            }
            let mut found = blob.verify(Verify::All, &hash).map_err(|e| e.to_string());
            if found.is_err() {
                files::remove(&path);
                files::remove(&verified);
            } else if let Some(mut record) = Record::load(&verified) {
                record.found = since_epoch(SystemTime::now()).as_secs();
                if let Err(error) = record.store(&verified) {
                    tracing::debug!(%error, "that a blob is sound could not be recorded");
                }
            }
            if let Some(rehash) = rehash {
                // The record is made anew by the next load, from what the files hold then.
                files::remove(&rehash.record);
                if rehash.request.content_key().is_ok_and(|now| now != key) {
                    found = Err("the model's files changed without a new time stamp".to_owned());
                }
            }
            if let Err(damage) = &found {
                warn_once(&path, damage, "a cached model was damaged after it was checked");
            }
            ends.end(found);
        };
        if let Err(error) = thread::Builder::new().name("ov-cache-check".to_owned()).spawn(work) {
            tracing::debug!(%error, "no thread to check a cached model");
            check.end(Err("it could not be checked".to_owned()));
        }
        check
    }

    fn found(&mut self, blob: CachedBlob) -> CachedBlob {
        let used = self.layout.last_use(&self.key.to_string());
        if let Err(error) = touch(&used) {
            tracing::debug!(%error, "the use of a blob could not be noted");
        }
        if let Some((place, record)) = self.new_record.take()
            && let Err(error) = record.store(&place)
        {
            tracing::debug!(%error, "the identity of a model could not be recorded");
        }
        blob
    }

    /// Looks, and leaves what is damaged behind.
    fn look_or_leave(&mut self) -> Option<CachedBlob> {
        match self.look() {
            Ok(found) => found.map(|blob| self.found(blob)),
            Err(error) => {
                self.reject(&error);
                None
            }
        }
    }

    /// Waits until nobody else compiles the same, and looks again.
    fn take_turn(&mut self) -> Option<CachedBlob> {
        let lock = self.layout.lock(&self.key.to_string());
        let open = || {
            files::create_private(lock.parent().unwrap_or_else(|| Path::new("")))?;
            File::options().create(true).append(true).open(&lock)
        };
        let Ok(file) = open() else { return None };
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => {
                    self.lock = Some(file);
                    return self.look_or_leave();
                }
                Err(TryLockError::WouldBlock) if start.elapsed() < self.options.wait => {
                    thread::sleep(LOCK_POLL);
                    if self.path.exists()
                        && let Some(found) = self.look_or_leave()
                    {
                        return Some(found);
                    }
                }
                Err(TryLockError::WouldBlock) => {
                    self.private = true;
                    return None;
                }
                // A file system without locks: everybody compiles for himself, and the first one stores.
                Err(TryLockError::Error(_)) => return None,
            }
        }
    }
}

impl CacheEntry for Entry {
    fn load(&mut self) -> Option<CachedBlob> {
        let bad = self.shared.bad.lock().unwrap_or_else(PoisonError::into_inner);
        if bad.get(&self.key).is_some_and(|n| *n >= BAD_LOADS) {
            self.private = true;
            return None;
        }
        drop(bad);
        self.look_or_leave().or_else(|| self.take_turn())
    }

    fn reject(&mut self, reason: &ov_core::Error) {
        let text = reason.to_string();
        let foreign = matches!(reason, ov_core::Error::Blob(e)
            if matches!(&**e, BlobError::Incompatible { .. } | BlobError::Check { check: "format version", .. }));
        if foreign {
            tracing::debug!(reason = text, "a blob of another version");
            self.private = true;
            return;
        }
        let mut bad = self.shared.bad.lock().unwrap_or_else(PoisonError::into_inner);
        *bad.entry(self.key).or_default() += 1;
        drop(bad);
        warn_once(&self.path, &text, "a cached model is not usable and is compiled again");
        if files::is_ours(&self.path) {
            files::remove(&self.path);
            files::remove(&self.layout.verified(&self.key.to_string()));
        }
    }

    fn publish(self: Box<Self>, blob: Blob) {
        if self.private {
            return;
        }
        let Self { shared, layout, key, options, sources, new_record, lock, .. } = *self;
        shared.publisher.publish(Job::new(layout, key, blob, options, sources, new_record, lock));
    }
}

/// Notes a use, at most once an hour.
fn touch(path: &Path) -> io::Result<()> {
    let now = SystemTime::now();
    let recent = |m: &fs::Metadata| {
        m.modified().is_ok_and(|t| now.duration_since(t).is_ok_and(|age| age < USE_GRAIN))
    };
    match fs::metadata(path) {
        Ok(metadata) if recent(&metadata) => Ok(()),
        Ok(_) => File::options().append(true).open(path)?.set_modified(now),
        Err(_) => {
            files::create_private(path.parent().unwrap_or_else(|| Path::new("")))?;
            File::create(path).map(drop)
        }
    }
}

const USE_GRAIN: Duration = Duration::from_secs(3600);
const LOCK_POLL: Duration = Duration::from_millis(2);
/// After so many bad loads of one key in a process, it is compiled in memory.
const BAD_LOADS: u32 = 2;
/// No blob is so large: a length that is nonsense is not mapped.
const MAX_BLOB: u64 = 1 << 42;
