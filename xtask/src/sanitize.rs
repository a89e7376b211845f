//! `cargo xtask sanitize`: the tests of the crates with unsafe code, under AddressSanitizer.

use std::process::Command;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::test;
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let version = cmd!(workspace.sh, "rustc -vV").quiet().read()?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc -vV names no host")?;
    // The explicit target keeps the flag away from build scripts and procedural macros.
    let mut command = Command::new("cargo");
    command
        .args(["test", "--no-fail-fast", "-p", "ov-core", "-p", "ov-cpu", "--all-features"])
        .args(["--lib", "--tests", "--target", host])
        .args(arguments)
        .current_dir(&workspace.root)
        .env("CARGO_TARGET_DIR", workspace.made("sanitize"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address");
    test::run_counted(&mut command)
}
