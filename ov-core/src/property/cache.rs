//! The model cache and how files are read.

use std::path::PathBuf;

use super::{Access, Effect, Property, PropertyInfo, PropertyValue, TextEnum};

/// What cached blobs are optimised for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheMode {
    /// Small blobs.
    OptimizeSize,
    /// Fast loading.
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

const RW: Access = Access::ReadWrite;

/// Folder of compiled blobs; empty is off.
pub const CACHE_DIR: Property<PathBuf> =
    Property::new("CACHE_DIR", RW, Effect::Runtime, "folder of compiled blobs; empty is off");
/// What cached blobs are optimised for.
pub const CACHE_MODE: Property<CacheMode> =
    Property::new("CACHE_MODE", RW, Effect::Compile, "what cached blobs are optimised for");
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
pub const ALL: &[PropertyInfo] =
    &[CACHE_DIR.info(), CACHE_MODE.info(), ENABLE_MMAP.info(), LOADED_FROM_CACHE.info()];

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
}
