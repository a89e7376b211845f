//! `cargo xtask gpu`: what only a machine with an NVIDIA GPU can show, and the ledger of it.

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::{conformance, workspace::Workspace};

/// The ledger.
const LEDGER: &str = "ov-gpu-cuda/HARDWARE.md";
/// The part of the ledger that a run replaces begins here.
const BEGIN: &str = "## What last ran\n";

/// One step of the ladder and how it ended.
struct Step {
    what: String,
    result: String,
    passed: bool,
}

pub(crate) fn run(workspace: &Workspace, models: &[String]) -> Result<()> {
    let sh = &workspace.sh;
    let query = "--query-gpu=name,driver_version,compute_cap";
    let gpus = cmd!(sh, "nvidia-smi {query} --format=csv,noheader")
        .quiet()
        .read()
        .context("this machine has no NVIDIA GPU that nvidia-smi finds")?;
    let mut steps = Vec::new();
    {
        let _hardware = sh.push_env("OV_CUDA_HARDWARE", "1");
        let tests = cmd!(sh, "cargo test -p ov-gpu-cuda --lib tests:: -- --nocapture");
        steps.push(step("tests of the device on the driver", tests.run().map_err(Into::into)));
        steps.push(step("ONNX backend cases", conformance::run_cuda(workspace, &[])));
    }
    if !models.is_empty() {
        let bench = workspace.release_ov_bench(None)?;
        for model in models {
            let run = cmd!(sh, "{bench} bench --model {model} --device CUDA --time 5").read();
            let what = format!("latency of {model}");
            steps.push(match run {
                Ok(text) => Step { what, result: median(&text), passed: true },
                Err(e) => Step { what, result: format!("FAILED: {e}"), passed: false },
            });
        }
    }
    let commit = cmd!(sh, "git rev-parse --short HEAD").quiet().read()?;
    let day = cmd!(sh, "git log -1 --format=%cs").quiet().read()?;
    let path = workspace.root.join(LEDGER);
    let old = sh.read_file(&path)?;
    sh.write_file(&path, ledger(&old, &gpus, &format!("{commit} of {day}"), &steps)?)?;
    println!("wrote {LEDGER}");
    match steps.iter().filter(|s| !s.passed).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} steps failed", steps.len()),
    }
}

fn step(what: &str, result: Result<()>) -> Step {
    let passed = result.is_ok();
    let result = result.map_or_else(|e| format!("FAILED: {e}"), |()| "passed".to_owned());
    Step { what: what.to_owned(), result, passed }
}

/// The line of a benchmark's report that names the median, or its last line.
fn median(report: &str) -> String {
    let lines = || report.lines().map(str::trim).filter(|line| !line.is_empty());
    let line =
        lines().find(|line| line.to_lowercase().contains("median")).or_else(|| lines().next_back());
    line.unwrap_or("no report").to_owned()
}

/// The ledger with what ran now in place of what ran before.
fn ledger(old: &str, gpus: &str, commit: &str, steps: &[Step]) -> Result<String> {
    let Some((head, _)) = old.split_once(BEGIN) else {
        bail!("{LEDGER} has no heading {BEGIN:?}");
    };
    let mut text = format!("{head}{BEGIN}\nCommit {commit}, on:\n\n");
    for gpu in gpus.lines() {
        text += &format!("- {}\n", gpu.trim());
    }
    text += "\n| what | result |\n| --- | --- |\n";
    for Step { what, result, .. } in steps {
        text += &format!("| {what} | {} |\n", result.replace('|', "/").replace('\n', " "));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_replaces_the_run_before() {
        let old = format!("# Title\n\nText.\n\n{BEGIN}\nNothing.\n");
        let steps = [step("tests", Ok(())), step("cases", Err(anyhow::anyhow!("2 | 3\nfail")))];
        let new = ledger(&old, "H100, 580", "abc of day", &steps).unwrap();
        assert!(new.starts_with("# Title\n\nText.\n\n## What last ran\n\nCommit abc of day, on:"));
        assert!(
            new.contains("| tests | passed |") && new.contains("| cases | FAILED: 2 / 3 fail |")
        );
        assert!(!new.contains("Nothing."));
        assert_eq!(ledger(&new, "H100, 580", "abc of day", &steps).unwrap(), new);
        assert!(ledger("", "", "", &steps).is_err());
    }

    #[test]
    fn the_median_is_found_in_a_report() {
        assert_eq!(median("a\n  Median: 3 ms\nb\n"), "Median: 3 ms");
        assert_eq!(median("a\nb\n\n"), "b");
        assert_eq!(median(""), "no report");
    }
}
