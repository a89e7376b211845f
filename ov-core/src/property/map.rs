//! A set of properties as canonical texts.

use std::{collections::BTreeMap, fmt};

use super::{Access, Property, PropertyInfo, PropertyValue};
use crate::error::{PropertyError, Result};

/// Properties by name, each as its canonical text.
///
/// A map may hold properties that this crate does not declare ([`PropertyMap::set_text`] keeps their text as it is);
/// [`PropertyMap::check`] compares a map with the list of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyMap(BTreeMap<String, String>);

impl PropertyMap {
    /// No properties.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This map with a property set.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "values are written in place")]
    pub fn with<T: PropertyValue>(mut self, key: Property<T>, value: T) -> Self {
        self.set(key, &value);
        self
    }

    /// This map with a property set from text.
    ///
    /// # Errors
    /// As [`PropertyMap::set_text`].
    pub fn with_text(mut self, name: &str, text: &str) -> Result<Self> {
        self.set_text(name, text)?;
        Ok(self)
    }

    /// Sets a property.
    pub fn set<T: PropertyValue>(&mut self, key: Property<T>, value: &T) {
        self.0.insert(key.name().to_owned(), value.to_text());
    }

    /// Sets a property from text. The text of a property that ov-core declares is checked and made canonical; others
    /// are kept as they are, for the device to check.
    ///
    /// # Errors
    /// [`PropertyError::Value`] when the text is no value of a declared property.
    pub fn set_text(&mut self, name: &str, text: &str) -> Result<()> {
        let text = match super::find(name) {
            Some(info) => canonical(info, text, "any device")?,
            None => text.to_owned(),
        };
        self.0.insert(name.to_owned(), text);
        Ok(())
    }

    /// Removes a property and gives its text.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// The value of a property, if it is set.
    ///
    /// # Errors
    /// [`PropertyError::Value`] when its text, set under the bare name, is no value of the key's type.
    pub fn get<T: PropertyValue>(&self, key: Property<T>) -> Result<Option<T>> {
        let Some(text) = self.0.get(key.name()) else { return Ok(None) };
        T::parse_text(text).map(Some).ok_or_else(|| value_error(&key.info(), text, "any device"))
    }

    /// The value of a property, or `default`.
    ///
    /// # Errors
    /// As [`PropertyMap::get`].
    pub fn get_or<T: PropertyValue>(&self, key: Property<T>, default: T) -> Result<T> {
        Ok(self.get(key)?.unwrap_or(default))
    }

    /// The text of a property, if it is set.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of properties that are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Names and texts, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, t)| (n.as_str(), t.as_str()))
    }

    /// This map with `other` laid over it.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let mut map = self.0.clone();
        map.extend(other.0.iter().map(|(n, t)| (n.clone(), t.clone())));
        Self(map)
    }

    /// Checks every property against a device's list and makes the texts canonical.
    ///
    /// # Errors
    /// [`PropertyError::Unknown`] with the nearest name of the list, [`PropertyError::ReadOnly`],
    /// [`PropertyError::Value`].
    pub fn check(&self, device: &str, known: &[PropertyInfo]) -> Result<Self> {
        self.iter()
            .map(|(name, text)| {
                let info = lookup(device, known, name)?;
                if info.access == Access::ReadOnly {
                    return Err(PropertyError::ReadOnly {
                        name: name.to_owned(),
                        device: device.to_owned(),
                    }
                    .into());
                }
                Ok((name.to_owned(), canonical(info, text, device)?))
            })
            .collect::<Result<_>>()
            .map(Self)
    }
}

impl fmt::Display for PropertyMap {
    /// `NAME=text, …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, text)) in self.iter().enumerate() {
            write!(f, "{}{name}={text}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// The entry of a device's list.
pub(crate) fn lookup<'a>(
    device: &str,
    known: &'a [PropertyInfo],
    name: &str,
) -> Result<&'a PropertyInfo> {
    known.iter().find(|p| p.name == name).ok_or_else(|| {
        let near = nearest(name, known.iter().map(|p| p.name));
        PropertyError::Unknown {
            name: name.to_owned(),
            device: device.to_owned(),
            nearest: near.map(|n| format!("; did you mean {n}?")).unwrap_or_default(),
        }
        .into()
    })
}

fn canonical(info: &PropertyInfo, text: &str, device: &str) -> Result<String> {
    (info.canonical)(text).ok_or_else(|| value_error(info, text, device))
}

fn value_error(info: &PropertyInfo, text: &str, device: &str) -> crate::Error {
    PropertyError::Value {
        name: info.name.to_owned(),
        device: device.to_owned(),
        got: text.to_owned(),
        expected: (info.expected)(),
    }
    .into()
}

/// The candidate that is near enough to be what was meant.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    if name.len() > LONGEST_GUESSED {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    candidates
        .map(|c| (distance(upper.as_bytes(), c.to_ascii_uppercase().as_bytes()), c))
        .filter(|(d, c)| *d <= 2.max(c.len() / 4))
        .min()
        .map(|(_, c)| c)
}

/// Levenshtein's edit distance.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Longer names are not compared with others: hostile text must not cost time.
const LONGEST_GUESSED: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::property::{hint, streams};

    #[test]
    fn typed_and_text_store_the_same() {
        let typed = PropertyMap::new()
            .with(hint::PERFORMANCE_MODE, hint::PerformanceMode::Latency)
            .with(hint::MODEL_PRIORITY, hint::Priority::Medium);
        let text = PropertyMap::new()
            .with_text("PERFORMANCE_HINT", "LATENCY")
            .and_then(|m| m.with_text("MODEL_PRIORITY", "DEFAULT"))
            .expect("valid");
        assert_eq!(typed, text);
        assert_eq!(text.to_string(), "MODEL_PRIORITY=MEDIUM, PERFORMANCE_HINT=LATENCY");
    }

    #[test]
    fn errors_name_what_was_meant() {
        let known = &[
            hint::PERFORMANCE_MODE.info(),
            streams::NUM_STREAMS.info(),
            streams::RANGE_FOR_STREAMS.info(),
        ];
        let check = |name: &str, text: &str| {
            let map = PropertyMap(BTreeMap::from([(name.to_owned(), text.to_owned())]));
            map.check("CPU", known).map_or_else(|e| e.to_string(), |m| m.to_string())
        };
        for (name, text, expected) in [
            ("PERFORMANCE_HINT", "LATENCY", "PERFORMANCE_HINT=LATENCY"),
            ("NUM_STREAMS", "-1", "NUM_STREAMS=AUTO"),
            (
                "PERFORMANCE_HNT",
                "LATENCY",
                "property \"PERFORMANCE_HNT\" is not known to CPU; did you mean PERFORMANCE_HINT?",
            ),
            (
                "num_streams",
                "1",
                "property \"num_streams\" is not known to CPU; did you mean NUM_STREAMS?",
            ),
            ("CACHE_DIR", "x", "property \"CACHE_DIR\" is not known to CPU"),
            ("RANGE_FOR_STREAMS", "1,2", "property RANGE_FOR_STREAMS of CPU is read-only"),
            (
                "PERFORMANCE_HINT",
                "latency",
                "property PERFORMANCE_HINT of CPU cannot be \"latency\", expected one of LATENCY, THROUGHPUT, \
                 CUMULATIVE_THROUGHPUT",
            ),
        ] {
            assert_eq!(check(name, text), expected);
        }
    }

    #[test]
    fn later_maps_win() {
        let a =
            PropertyMap::new().with(streams::INFERENCE_NUM_THREADS, 1).with(hint::NUM_REQUESTS, 3);
        let b = PropertyMap::new().with(streams::INFERENCE_NUM_THREADS, 2);
        assert_eq!(
            a.merged(&b).to_string(),
            "INFERENCE_NUM_THREADS=2, PERFORMANCE_HINT_NUM_REQUESTS=3"
        );
    }
}
