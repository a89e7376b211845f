//! `cargo xtask sanitize`: the tests of the crates with unsafe code, under AddressSanitizer.

use std::process::Command;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::test;
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    sanitize(workspace, &["-p", "ov-core", "-p", "ov-cpu", "--lib", "--tests"], arguments)
}

/// The kernels alone, which hold most of the unsafe code.
pub(crate) fn kernels(workspace: &Workspace) -> Result<()> {
    sanitize(workspace, &["-p", "ov-cpu", "--lib"], &[])
}

fn sanitize(workspace: &Workspace, selection: &[&str], arguments: &[String]) -> Result<()> {
    let version = cmd!(workspace.sh, "rustc -vV").quiet().read()?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc -vV names no host")?;
    let mut command = Command::new("cargo");
    // The explicit target keeps the flag away from build scripts and procedural macros.
    command
        .args(["test", "--no-fail-fast", "--all-features", "--target", host])
        .args(selection)
        .args(arguments)
        .current_dir(&workspace.root)
        .env("CARGO_TARGET_DIR", workspace.made("sanitize"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address");
    test::run_counted(&mut command)
}
