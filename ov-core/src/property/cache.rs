//! The model cache and how files are read.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Access, Effect, Property, PropertyInfo, PropertyValue, TextEnum, value::text_enum};

/// What cached blobs are optimised for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheMode {
    /// Small blobs: weights that the model's own files hold unchanged are not stored again.
    OptimizeSize,
    /// Fast loading: blobs hold everything and are mapped.
    OptimizeSpeed,
}

impl TextEnum for CacheMode {
    const TEXTS: &'static [(Self, &'static str)] =
        &[(Self::OptimizeSize, "optimize_size"), (Self::OptimizeSpeed, "optimize_speed")];
}

impl std::fmt::Display for CacheMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.text())
    }
}

impl PropertyValue for CacheMode {
    /// Lower case, as OpenVINO prints this one.
    fn to_text(&self) -> String {
        self.text().to_owned()
    }

    fn parse_text(text: &str) -> Option<Self> {
        Self::from_text(&text.to_ascii_lowercase())
    }

    fn expected() -> String {
        "one of OPTIMIZE_SIZE, OPTIMIZE_SPEED".to_owned()
    }
}

text_enum! {
    /// How much of a cached blob is compared with its hashes when it is loaded. Header, tables and program always are.
    pub enum CacheVerify {
        /// Everything, before the model is handed over; the model's own files are hashed again, too.
        Full = "FULL",
        /// Weights once per file, which is then recorded by the identity of the file.
        Once = "ONCE",
        /// Weights while the first inference runs; it gives its result only when they are sound.
        Lazy = "LAZY",
    }
}

type Convert = dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync;

/// Encrypts and decrypts what the model cache writes and reads. Clones share the functions.
#[derive(Clone)]
pub struct EncryptionCallbacks(Arc<Callbacks>);

struct Callbacks {
    number: usize,
    encrypt: Box<Convert>,
    decrypt: Box<Convert>,
}

/// Properties are texts, so that one holds the number of its callbacks here, for the life of the process.
static REGISTERED: Mutex<Vec<EncryptionCallbacks>> = Mutex::new(Vec::new());

impl EncryptionCallbacks {
    /// Two functions that undo each other; an error of theirs is the reason of a miss. They are kept for the life of the
    /// process. Each call takes at most a mebibyte.
    pub fn new(
        encrypt: impl Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync + 'static,
        decrypt: impl Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Self {
        let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        let number = registered.len();
        let (encrypt, decrypt) = (Box::new(encrypt), Box::new(decrypt));
        let new = Self(Arc::new(Callbacks { number, encrypt, decrypt }));
        registered.push(new.clone());
        new
    }

    /// The encrypted form of `plain`.
    ///
    /// # Errors
    /// That of the function.
    pub fn encrypt(&self, plain: &[u8]) -> Result<Vec<u8>, String> {
        (self.0.encrypt)(plain)
    }

    /// What was encrypted.
    ///
    /// # Errors
    /// That of the function.
    pub fn decrypt(&self, secret: &[u8]) -> Result<Vec<u8>, String> {
        (self.0.decrypt)(secret)
    }
}

impl std::fmt::Debug for EncryptionCallbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EncryptionCallbacks({})", self.0.number)
    }
}

impl PartialEq for EncryptionCallbacks {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PropertyValue for EncryptionCallbacks {
    /// The number of the pair in this process.
    fn to_text(&self) -> String {
        format!("callbacks {}", self.0.number)
    }

    fn parse_text(text: &str) -> Option<Self> {
        let number: usize = text.strip_prefix("callbacks ")?.parse().ok()?;
        REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).get(number).cloned()
    }

    fn expected() -> String {
        "callbacks made by EncryptionCallbacks::new in this process".to_owned()
    }
}

const RW: Access = Access::ReadWrite;

/// Folder of compiled blobs; empty is off.
pub const CACHE_DIR: Property<PathBuf> =
    Property::new("CACHE_DIR", RW, Effect::Runtime, "folder of compiled blobs; empty is off");
/// What cached blobs are optimised for.
pub const CACHE_MODE: Property<CacheMode> =
    Property::new("CACHE_MODE", RW, Effect::Compile, "what cached blobs are optimised for");
/// How much of a cached blob is compared with its hashes.
pub const CACHE_VERIFY: Property<CacheVerify> = Property::new(
    "CACHE_VERIFY",
    RW,
    Effect::Runtime,
    "how much of a cached blob is compared with its hashes",
);
/// Bytes that the cache folder may hold; 0 leaves the choice to the cache.
pub const CACHE_MAX_BYTES: Property<u64> = Property::new(
    "CACHE_MAX_BYTES",
    RW,
    Effect::Runtime,
    "bytes that the cache folder may hold; 0 leaves the choice to the cache",
);
/// Longest wait for another process that compiles the same model.
pub const CACHE_WAIT_MS: Property<u32> = Property::new(
    "CACHE_WAIT_MS",
    RW,
    Effect::Runtime,
    "longest wait in ms for another process that compiles the same model",
);
/// Functions that encrypt and decrypt what the cache stores.
pub const CACHE_ENCRYPTION_CALLBACKS: Property<EncryptionCallbacks> = Property::new(
    "CACHE_ENCRYPTION_CALLBACKS",
    Access::WriteOnly,
    Effect::Runtime,
    "functions that encrypt and decrypt what the cache stores",
);
/// Whether files are mapped rather than read.
pub const ENABLE_MMAP: Property<bool> =
    Property::new("ENABLE_MMAP", RW, Effect::Runtime, "whether files are mapped rather than read");
/// Whether the compiled model came from the cache.
pub const LOADED_FROM_CACHE: Property<bool> = Property::new(
    "LOADED_FROM_CACHE",
    Access::ReadOnly,
    Effect::Info,
    "whether the compiled model came from the cache",
);

/// The properties of this category.
pub const ALL: &[PropertyInfo] = &[
    CACHE_DIR.info(),
    CACHE_MODE.info(),
    CACHE_VERIFY.info(),
    CACHE_MAX_BYTES.info(),
    CACHE_WAIT_MS.info(),
    CACHE_ENCRYPTION_CALLBACKS.info(),
    ENABLE_MMAP.info(),
    LOADED_FROM_CACHE.info(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_prints_lower_case_and_reads_both() {
        for text in ["OPTIMIZE_SPEED", "optimize_speed"] {
            assert_eq!(
                CacheMode::parse_text(text).map(|m| m.to_text()).as_deref(),
                Some("optimize_speed")
            );
        }
        assert_eq!(CacheMode::parse_text("SPEED"), None);
    }

    #[test]
    fn callbacks_travel_as_text() {
        let flip = |bytes: &[u8]| Ok(bytes.iter().map(|b| !b).collect());
        let callbacks = EncryptionCallbacks::new(flip, flip);
        let back = EncryptionCallbacks::parse_text(&callbacks.to_text()).expect("registered");
        assert_eq!(back, callbacks);
        assert_eq!(back.encrypt(&[1, 2]).expect("never fails"), [254, 253]);
        assert_eq!(EncryptionCallbacks::parse_text("callbacks 999999"), None);
        assert_eq!(EncryptionCallbacks::parse_text(""), None);
    }
}
