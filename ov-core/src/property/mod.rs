//! Properties: OpenVINO's names and spellings as text at the boundary, typed keys in programs.
//!
//! A [`Property`] is a constant that ties a name to a value type, an [`Access`] and an [`Effect`]. A [`PropertyMap`]
//! holds canonical texts, set through typed keys or from text:
//!
//! ```
//! use ov_core::property::{PropertyMap, hint::{self, PerformanceMode}, streams};
//!
//! let map = PropertyMap::new()
//!     .with(hint::PERFORMANCE_MODE, PerformanceMode::Latency)
//!     .with_text("NUM_STREAMS", "2")?;
//! assert_eq!(map.text("PERFORMANCE_HINT"), Some("LATENCY"));
//! assert_eq!(map.get(streams::NUM_STREAMS)?, Some(streams::Streams::Count(2)));
//! # Ok::<(), ov_core::Error>(())
//! ```
//!
//! Each device publishes a const slice of [`PropertyInfo`]; everything that a user sets is checked against it before
//! the device sees it, so a device only reads typed values.

pub mod auto;
pub mod cache;
pub mod device;
pub mod hint;
pub mod info;
mod key;
pub mod log;
mod map;
mod processors;
pub mod streams;
mod value;

pub use key::{Access, Effect, Property, PropertyInfo};
pub use map::PropertyMap;
pub(crate) use map::{lookup, nearest};
pub use processors::ProcessorSet;
#[cfg(feature = "testing")]
pub(crate) use value::text_enum;
pub use value::{DeviceProperties, PropertyValue, TextEnum};

/// Every property that ov-core declares, by category.
pub const CATEGORIES: &[&[PropertyInfo]] =
    &[hint::ALL, streams::ALL, cache::ALL, device::ALL, info::ALL, log::ALL, auto::ALL];

/// Every property that ov-core declares.
pub fn all() -> impl Iterator<Item = &'static PropertyInfo> {
    CATEGORIES.iter().copied().flatten()
}

/// The property that ov-core declares under this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static PropertyInfo> {
    all().find(|p| p.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_upper_case() {
        let mut names: Vec<&str> = all().map(|p| p.name).collect();
        assert!(
            names.iter().all(|n| n
                .chars()
                .all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit()))
        );
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_names_that_differ_from_their_constants() {
        for (info, name) in [
            (info::ENABLE_PROFILING.info(), "PERF_COUNT"),
            (info::MODEL_NAME.info(), "NETWORK_NAME"),
            (hint::NUM_REQUESTS.info(), "PERFORMANCE_HINT_NUM_REQUESTS"),
            (device::PRIORITIES.info(), "MULTI_DEVICE_PRIORITIES"),
            (device::CAPABILITIES.info(), "OPTIMIZATION_CAPABILITIES"),
        ] {
            assert_eq!(info.name, name);
        }
    }
}
