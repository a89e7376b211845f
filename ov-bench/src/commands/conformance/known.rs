//! The list of cases that are known to fail, each with the reason, compared with what happened in both directions.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};

/// Cases that are known to fail.
#[derive(Debug, Default)]
pub(super) struct Failures(BTreeMap<String, String>);

impl Failures {
    /// Reads a file of `NAME: REASON` lines; empty lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// When the file cannot be read, or a line has no reason or repeats a case.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut failures = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, reason) = line.split_once(": ").unwrap_or_default();
            ensure!(!reason.trim().is_empty(), "line {number} is not NAME: REASON, but {line:?}");
            let repeated = failures.insert(name.to_owned(), reason.to_owned()).is_some();
            ensure!(!repeated, "line {number} lists {name} again");
        }
        Ok(Self(failures))
    }

    /// What differs from the list: cases that fail and are not in it, and cases in it that pass or are not there.
    /// Cases of the list that `filter` leaves out count neither way.
    pub(super) fn surprises(
        &self,
        filter: &str,
        names: &[String],
        outcomes: &[Result<(), String>],
    ) -> Vec<String> {
        let mut found = Vec::new();
        for (name, outcome) in names.iter().zip(outcomes) {
            match (outcome, self.0.contains_key(name)) {
                (Err(reason), false) => found.push(format!("UNEXPECTED FAIL {name}: {reason}")),
                (Ok(()), true) => found.push(format!("UNEXPECTED PASS {name}")),
                _ => {}
            }
        }
        let listed = self.0.keys().filter(|name| name.contains(filter));
        found.extend(listed.filter(|n| !names.contains(n)).map(|n| format!("NO SUCH CASE {n}")));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_compared_both_ways() {
        let known =
            Failures::parse("# why\n\na/x: not determined\na/y: too strict\nb/gone: renamed\n")
                .expect("well formed");
        let names = ["a/x", "a/y", "a/z"].map(str::to_owned);
        let fail = || Err("differs".to_owned());
        let outcomes = [fail(), Ok(()), fail()];
        let found = known.surprises("", &names, &outcomes);
        assert_eq!(
            found,
            ["UNEXPECTED PASS a/y", "UNEXPECTED FAIL a/z: differs", "NO SUCH CASE b/gone"]
        );
        assert!(known.surprises("a/", &names[..1], &outcomes[..1]) == ["NO SUCH CASE a/y"]);
        for bad in ["a/x", "a/x:", "a/x: r\na/x: r"] {
            assert!(Failures::parse(bad).is_err(), "{bad}");
        }
    }
}
