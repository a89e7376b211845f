//! Sets of logical processors, in the list form of the Linux kernel.

use std::fmt;

use super::PropertyValue;

/// Logical processors by their numbers in the operating system, ascending: `0-3,8`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProcessorSet(Vec<usize>);

impl ProcessorSet {
    /// The processors, ascending.
    #[must_use]
    pub fn ids(&self) -> &[usize] {
        &self.0
    }

    /// Whether it has the processor.
    #[must_use]
    pub fn contains(&self, id: usize) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    /// Whether there is no processor in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<usize> for ProcessorSet {
    fn from_iter<I: IntoIterator<Item = usize>>(ids: I) -> Self {
        let mut ids: Vec<usize> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }
}

impl fmt::Display for ProcessorSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|a, b| a + 1 == *b);
        for (i, run) in runs.enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [one] => write!(f, "{comma}{one}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

impl PropertyValue for ProcessorSet {
    fn to_text(&self) -> String {
        self.to_string()
    }

    /// The empty text is the empty set.
    fn parse_text(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return Some(Self::default());
        }
        let mut ids = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().ok()?;
            let last: usize = last.trim().parse().ok()?;
            if first > last || last >= LIMIT {
                return None;
            }
            ids.extend(first..=last);
        }
        Some(ids.into_iter().collect())
    }

    fn expected() -> String {
        "a list of processors such as 0-3,8".to_owned()
    }
}

/// Linux has at most 8192 processors (`CONFIG_NR_CPUS`).
const LIMIT: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_ranges_and_one_spelling() {
        for (text, canonical) in [
            ("0-3,8", Some("0-3,8")),
            (" 8, 3,2 ,2-2\n", Some("2-3,8")),
            ("0-1,2,4-4", Some("0-2,4")),
            ("", Some("")),
            ("0-65535", Some("0-65535")),
            ("0-65536", None),
            ("0-18446744073709551615", None),
            ("3-1", None),
            ("1,,2", None),
            ("-1", None),
            ("0x1", None),
        ] {
            let set = ProcessorSet::parse_text(text);
            assert_eq!(set.map(|s| s.to_text()).as_deref(), canonical, "{text:?}");
        }
        let set = ProcessorSet::from_iter([8, 1, 0]);
        assert!(set.contains(8) && !set.contains(2) && !set.is_empty());
        assert_eq!(set.ids(), [0, 1, 8]);
    }
}
