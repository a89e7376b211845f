//! The model cache: compiled blobs in the folder that `CACHE_DIR` names. Add the crate and name it once:
//! `use ov_cache as _;`.
//!
//! A blob is found by the content of what it was made from (the model's bytes and those of its weight files, the device,
//! its version and the resolved properties), never by path or time, so a folder can be copied elsewhere. Blobs carry
//! hashes that are compared on every load, and are published by rename, so that readers see a whole blob or none.
//! Nothing that goes wrong here fails a compile: it is a miss and one warning.
//!
//! Eviction, waiting for another process's compile, and hashing once per file instead of once per load are not built
//! yet.
#![forbid(unsafe_code)]

mod key;
mod store;

pub use key::BlobKey;
pub use store::FileCache;

ov_core::register_cache!(FileCache::create);
