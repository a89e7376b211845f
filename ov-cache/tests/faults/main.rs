//! The fault matrix of the cache: whatever happens to its files, a load gives the blob that was stored or none.
//!
//! Each case prints how many faults it tried: `cargo test -p ov-cache --test faults -- --nocapture`. With `OV_LONG=1` in
//! the environment the numbers are those of a release.

mod concurrency;
mod crafted;
mod damage;
mod environment;
mod models;
mod writers;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ov_cache::FileCache;
use ov_core::{
    Blob,
    blob::{BlobWriter, LEAF_LEN, SectionKind},
    cache::{CacheModel, CacheOptions, CacheProvider, CacheRequest, CachedBlob},
    property::cache::CacheVerify,
};

/// The number of trials of a tier.
fn tier(fast: usize, long: usize) -> usize {
    if std::env::var_os("OV_LONG").is_some() { long } else { fast }
}

/// Prints the line of a case in the table of the README.
#[expect(clippy::print_stdout, reason = "the counts are what the table is made from")]
fn report(what: &str, count: usize) {
    println!("faults: {count:>7} {what}");
}

/// Numbers that look random.
struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound.max(1)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|b| *b = self.below(256) as u8);
    }
}

/// A blob with metadata, a program and weights of three leaves, different for each seed.
fn blob(seed: u64) -> Blob {
    sized_blob(seed, 2 * LEAF_LEN + 4321)
}

fn sized_blob(seed: u64, weights: usize) -> Blob {
    let mut writer = BlobWriter::new("TEST", "any", "1");
    writer.reserve(SectionKind::Meta, 333).expect("first");
    writer.reserve(SectionKind::Plan, 5000).expect("first");
    writer.reserve(SectionKind::Weights, weights).expect("first");
    let mut buffer = writer.allocate().expect("memory");
    let mut noise = Noise(seed);
    for kind in [SectionKind::Meta, SectionKind::Plan] {
        noise.fill(buffer.section_mut(kind).expect("reserved"));
    }
    // Long runs are made faster from one number each.
    for chunk in buffer.section_mut(SectionKind::Weights).expect("reserved").chunks_mut(64) {
        let first = noise.below(251) as u8;
        chunk.iter_mut().zip(first..=255).for_each(|(b, v)| *b = v);
    }
    buffer.finish().expect("sound")
}

/// A folder with a cache, and what is asked of it.
struct Store {
    dir: tempfile::TempDir,
    options: CacheOptions,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        Self { dir, options: CacheOptions::default() }
    }

    fn verifying(verify: CacheVerify) -> Self {
        let mut store = Self::new();
        store.options.verify = verify;
        store
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn request<'a>(&'a self, model: &'a [u8]) -> CacheRequest<'a> {
        CacheRequest {
            dir: self.dir.path(),
            device: "TEST",
            model: CacheModel::Bytes(model),
            variant: "",
            key: b"configuration",
            options: self.options.clone(),
        }
    }

    /// What a fresh cache gives.
    fn get(&self, model: &[u8]) -> Option<CachedBlob> {
        self.get_from(&*FileCache::create(), model)
    }

    fn get_from(&self, cache: &dyn CacheProvider, model: &[u8]) -> Option<CachedBlob> {
        cache.open(&self.request(model)).expect("a key").load()
    }

    /// Stores a blob with a fresh cache.
    fn put(&self, model: &[u8], blob: &Blob) {
        self.put_with(&*FileCache::create(), model, blob);
    }

    fn put_with(&self, cache: &dyn CacheProvider, model: &[u8], blob: &Blob) {
        let mut entry = cache.open(&self.request(model)).expect("a key");
        assert!(entry.load().is_none(), "there is a blob already");
        entry.publish(blob.clone());
        cache.finish();
    }

    /// Where the only blob lies.
    fn file(&self) -> PathBuf {
        let mut found = blobs(self.path());
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }
}

/// Every blob in the folder of a cache.
fn blobs(dir: &Path) -> Vec<PathBuf> {
    ov_cache::list(dir).expect("listed").into_iter().map(|s| s.path).collect()
}

/// Whether a load gave this very blob; the key and hashes in its head aside.
fn same(found: &CachedBlob, blob: &Blob) -> bool {
    [SectionKind::Meta, SectionKind::Plan, SectionKind::Weights]
        .into_iter()
        .all(|kind| found.blob.section(kind) == blob.section(kind))
}

/// Puts other bytes in a file's place, as a new file.
fn replace(path: &Path, bytes: &[u8]) {
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path).expect("removed");
    }
    fs::write(path, bytes).expect("written");
}

/// A cache that fails, or does something else, at the steps of storing a blob.
fn watched(
    scrub_after: Duration,
    watch: impl Fn(&'static str) -> io::Result<()> + Send + Sync + 'static,
) -> Arc<dyn CacheProvider> {
    Arc::new(FileCache::watched(scrub_after, Arc::new(watch)))
}

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
