//! What a model cache owes: the provider trait that ov-cache implements, and the sink that keys are fed to.

use std::{path::Path, sync::Arc};

use crate::{
    blob::Blob,
    error::{DeviceError, Result},
    model::Model,
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

/// What identifies a compiled model.
pub struct CacheRequest<'a> {
    /// The cache folder.
    pub dir: &'a Path,
    /// The device, with its number if it has one.
    pub device: &'a str,
    /// The model's file, or the model itself when it has none.
    pub model: CacheModel<'a>,
    /// Version, target and resolved configuration: what [`Plugin::cache_key`](crate::plugin::Plugin::cache_key) fed.
    pub key: &'a [u8],
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
    /// A graph in memory; [`Model::digest`] identifies it.
    Graph(&'a Model),
}

/// A store of compiled blobs. Nothing that goes wrong in it may fail a compile: it logs one warning and misses.
pub trait CacheProvider: Send + Sync {
    /// The entry of a request, or `None` when no key can be made (an unreadable file, for example).
    fn open(&self, request: &CacheRequest<'_>) -> Option<Box<dyn CacheEntry>>;
}

/// The place of one compiled model in the store.
pub trait CacheEntry: Send {
    /// The stored blob, checked, if there is a good one.
    fn load(&mut self) -> Option<Blob>;

    /// The device refused what [`CacheEntry::load`] gave; it will be compiled again.
    fn reject(&mut self, reason: &crate::Error);

    /// Stores the blob, after the compiled model has been handed over; may work in the background.
    fn publish(self: Box<Self>, blob: Blob);
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
