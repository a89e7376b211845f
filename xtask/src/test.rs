//! `cargo xtask test`: every test of the workspace, counted in one closing line.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{python, workspace::Workspace};

/// What the test programs reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Test programs that announced their tests and never reported a result: crashed or killed.
    open: usize,
}

impl Summary {
    /// Takes in one line of output of `cargo test`.
    fn read_line(&mut self, line: &str) {
        if is_announcement(line) {
            self.open += 1;
        } else if let Some(counts) = parse_result(line) {
            self.open = self.open.saturating_sub(1);
            self.passed += counts[0];
            self.failed += counts[1];
            self.skipped += counts[2];
        }
    }

    /// Counts what ended without a result as one failure each; a failed build is one too.
    fn close(mut self, cargo_succeeded: bool) -> Self {
        self.failed += std::mem::take(&mut self.open);
        if !cargo_succeeded && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(["test", "--no-fail-fast", "--all-features"]);
    if !selects_packages(arguments) {
        command.arg("--workspace");
    }
    command.args(arguments).current_dir(&workspace.root);
    // Tests that need the compiler say themselves how much they leave out without it.
    if std::env::var_os(CUDA_LIBRARIES).is_none() {
        match python::nvrtc(workspace) {
            Ok(folder) => drop(command.env(CUDA_LIBRARIES, folder)),
            Err(e) => eprintln!("SKIPPED: kernels are not compiled for GPUs: {e:#}"),
        }
    }
    run_counted(&mut command)
}

/// Runs a `cargo test` command, passing its output on, and prints the closing line.
///
/// # Errors
/// When any test failed, nothing was built, or a test program crashed.
pub(crate) fn run_counted(command: &mut Command) -> Result<()> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().context("cannot start cargo; is it installed?")?;
    let output = child.stdout.take().context("no pipe to cargo")?;
    let mut summary = Summary::default();
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        summary.read_line(&String::from_utf8_lossy(&line));
        out.write_all(&line)?;
        out.write_all(b"\n")?;
    }
    let succeeded = child.wait()?.success();
    let summary = summary.close(succeeded);
    writeln!(out, "{summary}")?;
    if summary.failed > 0 {
        bail!("{} failed, see the output above", summary.failed);
    }
    Ok(())
}

fn selects_packages(arguments: &[String]) -> bool {
    let ours = arguments.iter().take_while(|a| *a != "--");
    ours.into_iter().any(|a| a.starts_with("-p") || a.starts_with("--package"))
}

/// `running 12 tests`, alone on its line.
fn is_announcement(line: &str) -> bool {
    let words: Vec<_> = line.split(' ').collect();
    matches!(words[..], ["running", count, "test" | "tests"] if count.parse::<usize>().is_ok())
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; …` as `[passed, failed, ignored]`.
fn parse_result(line: &str) -> Option<[usize; 3]> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = counts.split("; ");
    let mut next = |name: &str| counts.next()?.strip_suffix(name)?.trim().parse().ok();
    Some([next("passed")?, next("failed")?, next("ignored")?])
}

/// Where ov looks for the CUDA compiler first.
const CUDA_LIBRARIES: &str = "OV_CUDA_LIBRARY_PATH";

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(output: &str, succeeded: bool) -> String {
        let mut summary = Summary::default();
        output.lines().for_each(|line| summary.read_line(line));
        summary.close(succeeded).to_string()
    }

    const OK: &str = "running 3 tests\n\
        test a ... ok\n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
    const BAD: &str = "running 1 test\n\
        test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.00s\n";

    #[test]
    fn adds_up_the_test_programs() {
        assert_eq!(summary(&format!("{OK}{BAD}{OK}"), false), "4 passed, 1 failed, 2 skipped");
        assert_eq!(summary(OK, true), "2 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn counts_a_crashed_program_as_a_failure() {
        assert_eq!(
            summary(&format!("running 7 tests\n{OK}"), false),
            "2 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn counts_a_failed_build_as_a_failure() {
        assert_eq!(summary("", false), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn ignores_lines_that_only_look_alike() {
        assert_eq!(
            summary("running late tests\ntest result: ok\nrunning 3 tests now\n", true),
            "0 passed, 0 failed, 0 skipped"
        );
    }

    #[test]
    fn package_choice_ends_at_the_separator() {
        let split = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(selects_packages(&split("-p ov-core x")));
        assert!(!selects_packages(&split("x -- -p")));
    }
}
