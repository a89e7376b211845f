//! What a model cache owes: the provider trait that ov-cache implements, and the sink that keys are fed to.

use std::{
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use crate::{
    blob::Blob,
    error::{BlobError, DeviceError, Result},
    model::Model,
    property::{
        PropertyMap,
        cache::{self, CacheMode, CacheVerify, EncryptionCallbacks},
    },
};

/// Takes bytes into a cryptographic digest.
pub trait DigestSink {
    /// Takes bytes in.
    fn update(&mut self, bytes: &[u8]);

    /// Takes a field in: tag, length, value, so that neighbouring fields cannot run into each other.
    fn field(&mut self, tag: &str, value: &[u8]) {
        self.update(&(tag.len() as u64).to_le_bytes());
        self.update(tag.as_bytes());
        self.update(&(value.len() as u64).to_le_bytes());
        self.update(value);
    }
}

/// Collects what is fed to it.
#[derive(Clone, Debug, Default)]
pub struct BytesSink(pub Vec<u8>);

impl DigestSink for BytesSink {
    fn update(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// What identifies a compiled model, and how it is to be kept.
pub struct CacheRequest<'a> {
    /// The cache folder.
    pub dir: &'a Path,
    /// The device, with its number if it has one.
    pub device: &'a str,
    /// The model's file, its bytes, or the model itself.
    pub model: CacheModel<'a>,
    /// What the program changes of the file before compiling it, shapes for example; empty for nothing.
    pub variant: &'a str,
    /// Version, target and resolved configuration: what [`Plugin::cache_key`](crate::plugin::Plugin::cache_key) fed.
    pub key: &'a [u8],
    /// How the blob is kept and checked.
    pub options: CacheOptions,
}

impl std::fmt::Debug for CacheRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheRequest")
            .field("dir", &self.dir)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// The model of a [`CacheRequest`].
#[derive(Clone, Copy, Debug)]
pub enum CacheModel<'a> {
    /// A file; its bytes, and those of the weight files it refers to, identify the model.
    File(&'a Path),
    /// The bytes of a file that refers to no other.
    Bytes(&'a [u8]),
    /// A graph in memory; [`Model::digest`] identifies it.
    Graph(&'a Model),
}

/// How blobs are kept and checked: the properties of the category `cache`.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheOptions {
    /// `CACHE_MODE`.
    pub mode: CacheMode,
    /// `CACHE_VERIFY`.
    pub verify: CacheVerify,
    /// `CACHE_MAX_BYTES`, `None` for the cache's own choice.
    pub max_bytes: Option<u64>,
    /// `CACHE_WAIT_MS`.
    pub wait: Duration,
    /// `CACHE_ENCRYPTION_CALLBACKS`.
    pub encryption: Option<EncryptionCallbacks>,
    /// `ENABLE_MMAP`.
    pub map: bool,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            mode: CacheMode::OptimizeSpeed,
            verify: CacheVerify::Once,
            max_bytes: None,
            wait: Duration::from_secs(2),
            encryption: None,
            map: true,
        }
    }
}

impl CacheOptions {
    /// What properties say.
    ///
    /// # Errors
    /// [`PropertyError::Value`](crate::error::PropertyError::Value).
    pub fn of(properties: &PropertyMap) -> Result<Self> {
        let default = Self::default();
        let wait = properties.get(cache::CACHE_WAIT_MS)?;
        Ok(Self {
            mode: properties.get_or(cache::CACHE_MODE, default.mode)?,
            verify: properties.get_or(cache::CACHE_VERIFY, default.verify)?,
            max_bytes: properties.get(cache::CACHE_MAX_BYTES)?.filter(|b| *b > 0),
            wait: wait.map_or(default.wait, |ms| Duration::from_millis(ms.into())),
            encryption: properties.get(cache::CACHE_ENCRYPTION_CALLBACKS)?,
            map: properties.get_or(cache::ENABLE_MMAP, default.map)?,
        })
    }
}

/// A store of compiled blobs. Nothing that goes wrong in it may fail a compile: it logs one warning and misses.
pub trait CacheProvider: Send + Sync {
    /// The entry of a request, or `None` when no key can be made (an unreadable file, for example).
    fn open(&self, request: &CacheRequest<'_>) -> Option<Box<dyn CacheEntry>>;

    /// Waits until everything that was published is stored.
    fn finish(&self) {}
}

/// The place of one compiled model in the store.
pub trait CacheEntry: Send {
    /// The stored blob, checked, if there is a good one. May wait for another process that is compiling the same.
    fn load(&mut self) -> Option<CachedBlob>;

    /// The device refused what [`CacheEntry::load`] gave; it will be compiled again.
    fn reject(&mut self, reason: &crate::Error);

    /// Stores the blob, after the compiled model has been handed over; may work in the background.
    fn publish(self: Box<Self>, blob: Blob);
}

/// A blob from the store.
#[derive(Clone, Debug)]
pub struct CachedBlob {
    /// The blob; header, table and program have been compared with their hashes.
    pub blob: Blob,
    /// The check of its weights that is still running, if one is.
    pub check: Option<Arc<WeightCheck>>,
}

impl From<Blob> for CachedBlob {
    fn from(blob: Blob) -> Self {
        Self { blob, check: None }
    }
}

/// A check of weights that runs beside the first inferences. Results are only given out as long as it finds nothing.
#[derive(Debug)]
pub struct WeightCheck {
    state: AtomicU8,
    damage: Mutex<Option<String>>,
    ended: Condvar,
}

const RUNNING: u8 = 0;
const AWAITED: u8 = 1;
const SOUND: u8 = 2;
const DAMAGED: u8 = 3;

impl WeightCheck {
    /// A check that has not ended. When it is `awaited`, the first inference gives its result only after it has.
    #[must_use]
    pub fn new(awaited: bool) -> Self {
        Self {
            state: AtomicU8::new(if awaited { AWAITED } else { RUNNING }),
            damage: Mutex::new(None),
            ended: Condvar::new(),
        }
    }

    /// Says what the check found, once.
    pub fn end(&self, found: Result<(), String>) {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        let state = if found.is_ok() { SOUND } else { DAMAGED };
        *damage = found.err();
        self.state.store(state, Ordering::Release);
        self.ended.notify_all();
    }

    /// An error when damage was found; waits for a check that is awaited.
    ///
    /// # Errors
    /// [`BlobError::Check`].
    pub fn settle(&self) -> Result<()> {
        if matches!(self.state.load(Ordering::Acquire), SOUND | RUNNING) {
            return Ok(());
        }
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        while self.state.load(Ordering::Acquire) == AWAITED {
            damage = self.ended.wait(damage).unwrap_or_else(PoisonError::into_inner);
        }
        match &*damage {
            None => Ok(()),
            Some(damage) => Err(BlobError::Check {
                check: "cached weights, so compile the model again",
                expected: "the bytes that were stored".to_owned(),
                got: damage.clone(),
            }
            .into()),
        }
    }
}

/// A linked cache. Made by [`register_cache!`](crate::register_cache).
pub struct CacheRegistration {
    /// The crate, for errors.
    pub crate_name: &'static str,
    /// Creates the provider.
    pub create: fn() -> Arc<dyn CacheProvider>,
}

impl std::fmt::Debug for CacheRegistration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheRegistration")
            .field("crate_name", &self.crate_name)
            .finish_non_exhaustive()
    }
}

inventory::collect!(CacheRegistration);

/// Registers a model cache with every [`Core`](crate::Core) of a program that links the crate.
#[macro_export]
macro_rules! register_cache {
    ($create:expr) => {
        $crate::inventory::submit! {
            $crate::cache::CacheRegistration { crate_name: env!("CARGO_PKG_NAME"), create: $create }
        }
    };
}

/// The linked provider.
///
/// # Errors
/// [`DeviceError::Duplicate`] when two crates register one.
pub(crate) fn provider() -> Result<Option<Arc<dyn CacheProvider>>> {
    let mut linked: Vec<&CacheRegistration> =
        inventory::iter::<CacheRegistration>.into_iter().collect();
    linked.sort_by_key(|r| r.crate_name);
    match linked[..] {
        [] => Ok(None),
        [one] => Ok(Some((one.create)())),
        [first, second, ..] => Err(DeviceError::Duplicate {
            name: "model cache".to_owned(),
            first: first.crate_name.to_owned(),
            second: second.crate_name.to_owned(),
        }
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_awaited_check_is_waited_for_and_damage_is_an_error() {
        let check = Arc::new(WeightCheck::new(true));
        let other = Arc::clone(&check);
        let waiting = std::thread::spawn(move || other.settle().is_err());
        check.end(Err("a flipped bit".to_owned()));
        assert!(waiting.join().expect("no panic"));
        let check = WeightCheck::new(false);
        check.settle().expect("nobody waits");
        check.end(Ok(()));
        check.settle().expect("sound");
    }
}
