//! The model cache: compiled blobs in the folder that `CACHE_DIR` names. Add the crate and name it once:
//! `use ov_cache as _;`.
//!
//! A blob is found by the content of what it was made from (the model's bytes and those of its weight files, the device,
//! its version and the resolved properties), never by path or time, so a folder can be copied elsewhere. The content is
//! hashed once: while the identity of the files stays the same, a record leads to the key, and a hit neither parses the
//! model nor reads its weights. Blobs are mapped, so processes share their pages. Header, tables and program are compared
//! with their hashes on every load, weights once per file ([`CACHE_VERIFY`](ov_core::property::cache::CACHE_VERIFY)).
//!
//! Files are written beside the first inferences, appear whole, and never change. One process compiles a model at a time,
//! others wait a moment for it. Nothing that goes wrong here fails a compile: it is a miss and one warning.
#![forbid(unsafe_code)]

mod delta;
mod envelope;
mod files;
mod identity;
mod key;
mod prune;
mod publish;
mod store;

pub use key::BlobKey;
pub use prune::{Description, Stored, list, prune};
pub use publish::Watch;
pub use store::FileCache;

ov_core::register_cache!(FileCache::create);

/// The hash of blobs.
fn hash(domain: &str, bytes: &[u8]) -> [u8; 32] {
    blake3::derive_key(domain, bytes)
}
