//! `cargo xtask fuzz`: the fuzz targets of ov-core, through cargo-fuzz.

use std::path::Path;

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::usage_error;
use crate::workspace::{Workspace, expect_no_more, take_option};

const TARGETS: &str = "ov-core/fuzz/fuzz_targets";
const DEFAULT_SECONDS: u64 = 60;

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut arguments = arguments.to_vec();
    let seconds = match take_option(&mut arguments, "--time")? {
        None => DEFAULT_SECONDS,
        Some(text) => match text.parse() {
            Ok(seconds) => seconds,
            Err(_) => return usage_error(format!("--time expects seconds, got \"{text}\"")),
        },
    };
    let wanted = (!arguments.is_empty()).then(|| arguments.remove(0));
    expect_no_more(&arguments)?;
    let targets = choose(targets(&workspace.root.join(TARGETS))?, wanted.as_deref())?;
    cmd!(workspace.sh, "cargo fuzz --version")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .context(
            "cargo-fuzz is not installed: run `cargo install cargo-fuzz`, then this command again",
        )?;
    let limit = format!("-max_total_time={seconds}");
    let _inside = workspace.sh.push_dir("ov-core");
    for target in targets {
        cmd!(workspace.sh, "cargo fuzz run {target} --")
            .arg(&limit)
            .env("RUSTC_BOOTSTRAP", "1")
            .run()
            .with_context(|| {
                format!(
                    "{target} found a failing input: keep it as a test file, then mend the code"
                )
            })?;
    }
    Ok(())
}

/// Names of the targets in a folder, sorted.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let entries =
        folder.read_dir().with_context(|| format!("there are no fuzz targets in {TARGETS}"))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn choose(targets: Vec<String>, wanted: Option<&str>) -> Result<Vec<String>> {
    let Some(wanted) = wanted else {
        if targets.is_empty() {
            bail!("there are no fuzz targets in {TARGETS}");
        }
        return Ok(targets);
    };
    if !targets.iter().any(|target| target == wanted) {
        return usage_error(format!("no target \"{wanted}\", expected {}", targets.join(", ")));
    }
    Ok(vec![wanted.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_target_or_all() {
        let all = || vec!["blob".to_owned(), "onnx".to_owned()];
        assert_eq!(choose(all(), None).unwrap(), all());
        assert_eq!(choose(all(), Some("onnx")).unwrap(), ["onnx"]);
        let error = choose(all(), Some("xml")).unwrap_err();
        assert_eq!(error.to_string(), "no target \"xml\", expected blob, onnx");
        assert!(choose(Vec::new(), None).is_err());
    }
}
