//! `ov-bench conformance`: cases in worker processes, so that one that crashes or hangs leaves the rest.

mod known;
mod pool;
pub(crate) mod worker;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use ov_core::testing::conformance;
use serde_json::json;

use crate::args::ConformanceArgs;

/// Runs the cases and prints `PASS n / N` last.
///
/// # Errors
/// When there are no cases, workers cannot be started, or a case fails.
pub(crate) fn run(args: &ConformanceArgs) -> Result<()> {
    let dir = args.dir.display();
    let cases =
        conformance::find(&args.dir, &args.filter).with_context(|| format!("cannot read {dir}"))?;
    ensure!(!cases.is_empty(), "no case in {dir} has {:?} in its name", args.filter);
    let names: Vec<String> = cases.into_iter().map(|case| case.name).collect();
    let device = args.device.as_deref().unwrap_or("CPU");
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let settings = pool::Settings {
        dir: args.dir.clone(),
        device: device.to_owned(),
        set: args.set.clone(),
        timeout: Duration::from_secs_f64(args.timeout),
        jobs: args.jobs.map_or(processors, |jobs| jobs as usize).min(names.len()),
    };
    let outcomes = pool::run(&settings, &names)?;
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    if args.json {
        for (name, outcome) in names.iter().zip(&outcomes) {
            say!(
                "{}",
                json!({ "case": name, "pass": outcome.is_ok(), "reason": outcome.as_ref().err() })
            );
        }
    } else if args.list_failures {
        for (name, outcome) in names.iter().zip(&outcomes) {
            if let Err(reason) = outcome {
                say!("FAIL {name}: {}", reason.replace('\n', " "));
            }
        }
    } else {
        for (kind, count) in kinds(&outcomes) {
            say!("{count:>6} {kind}");
        }
    }
    let surprises = match &args.known_failures {
        Some(path) => known::Failures::read(path)?.surprises(&args.filter, &names, &outcomes),
        None => Vec::new(),
    };
    surprises.iter().for_each(|surprise| say!("{surprise}"));
    say!("PASS {} / {}", outcomes.len() - failed, outcomes.len());
    if let Some(path) = &args.known_failures {
        let path = path.display();
        ensure!(surprises.is_empty(), "{} cases contradict {path}: correct it", surprises.len());
        return Ok(());
    }
    if failed == 0 {
        return Ok(());
    }
    bail!("{failed} of {} cases failed on {device}; --list-failures says why", outcomes.len())
}

/// Failures by the first words of their reason, most frequent first.
fn kinds(outcomes: &[Result<(), String>]) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for reason in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        let kind: Vec<&str> =
            reason
                .split_whitespace()
                .map(|word| {
                    if word.contains(|c: char| c.is_ascii_digit() || c == '"') {
                        "…"
                    } else {
                        word
                    }
                })
                .take(WORDS)
                .collect();
        *counts.entry(kind.join(" ")).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// Words that tell one kind of failure from another.
const WORDS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_one_kind_are_counted_together() {
        let outcomes = [
            Err("output 0: got f32[2]".to_owned()),
            Ok(()),
            Err("output 1: got f32[3]".to_owned()),
            Err("timed out".to_owned()),
        ];
        assert_eq!(
            kinds(&outcomes),
            [("output … got …".to_owned(), 2), ("timed out".to_owned(), 1)]
        );
    }
}
