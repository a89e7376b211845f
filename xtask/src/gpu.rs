//! `cargo xtask gpu`: what only a machine with an NVIDIA GPU can show, and the ledger of it.
//!
//! The work is done by `xtask/python/gpu.py` with two programs, so that the machine with the GPU needs Python only:
//! `--pack` makes the programs, `--report` takes what came out there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use xshell::cmd;

use crate::workspace::{Workspace, take_option};

/// The ledger.
const LEDGER: &str = "ov-gpu-cuda/HARDWARE.md";
/// The part of the ledger that a run replaces begins here.
const BEGIN: &str = "## What last ran\n";
/// The script, and the file that it leaves in its output folder.
const SCRIPT: &str = "xtask/python/gpu.py";
const REPORT: &str = "report.md";
/// The command-line tool.
const BENCH: &str = "ov-bench";
/// The program with the tests.
const TESTS: &str = "ov-gpu-cuda-tests";

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut arguments = arguments.to_vec();
    let pack_only = take_option(&mut arguments, "--pack")?;
    let made_elsewhere = take_option(&mut arguments, "--report")?;
    if let Some(file) = made_elsewhere {
        return write_ledger(workspace, Path::new(&file));
    }
    if let Some(folder) = pack_only {
        let folder = PathBuf::from(folder);
        pack(workspace, &folder)?;
        // 70 MB become 20.
        for name in [BENCH, TESTS] {
            let program = folder.join(name);
            cmd!(workspace.sh, "gzip --force {program}").quiet().run()?;
        }
        println!(
            "on the machine with the GPU: python3 {SCRIPT} --bin {} --out FOLDER --commit {}; then here: cargo xtask gpu \
             --report FOLDER/{REPORT}",
            folder.display(),
            commit(workspace)?
        );
        return Ok(());
    }
    let sh = &workspace.sh;
    cmd!(sh, "nvidia-smi --list-gpus")
        .quiet()
        .ignore_stdout()
        .run()
        .context("this machine has no NVIDIA GPU that nvidia-smi finds")?;
    let (bin, out) = (workspace.made("gpu/bin"), workspace.made("gpu/out"));
    pack(workspace, &bin)?;
    let commit = commit(workspace)?;
    let script = workspace.root.join(SCRIPT);
    let ran = cmd!(sh, "python3 {script} --bin {bin} --out {out} --commit {commit}")
        .args(arguments)
        .run();
    write_ledger(workspace, &out.join(REPORT))?;
    ran.context("some steps failed")
}

/// Puts the tests and the command-line tool into a folder, without what debuggers read.
fn pack(workspace: &Workspace, folder: &Path) -> Result<()> {
    let sh = &workspace.sh;
    sh.create_dir(folder)?;
    let bench = workspace.release_ov_bench(Some("cuda"))?;
    let messages =
        cmd!(sh, "cargo test --quiet -p ov-gpu-cuda --lib --no-run --message-format=json")
            .quiet()
            .read()?;
    let tests = executable(&messages).context("cargo built no tests of ov-gpu-cuda")?;
    for (from, name) in [(bench, BENCH), (tests, TESTS)] {
        let to = folder.join(name);
        sh.copy_file(&from, &to)?;
        if cmd!(sh, "strip {to}").quiet().ignore_stderr().run().is_err() {
            eprintln!("gpu: {name} is large, there is no strip (binutils)");
        }
    }
    Ok(())
}

/// The last program that cargo's messages name.
fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().rev().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    })
}

fn commit(workspace: &Workspace) -> Result<String> {
    let commit = cmd!(workspace.sh, "git rev-parse --short HEAD").quiet().read()?;
    let day = cmd!(workspace.sh, "git log -1 --format=%cs").quiet().read()?;
    Ok(format!("{commit} of {day}"))
}

fn write_ledger(workspace: &Workspace, report: &Path) -> Result<()> {
    let sh = &workspace.sh;
    let path = workspace.root.join(LEDGER);
    let new = ledger(&sh.read_file(&path)?, &sh.read_file(report)?)?;
    sh.write_file(&path, new)?;
    println!("wrote {LEDGER}");
    Ok(())
}

/// The ledger with what ran now in place of what ran before.
fn ledger(old: &str, report: &str) -> Result<String> {
    let Some((head, _)) = old.split_once(BEGIN) else {
        bail!("{LEDGER} has no heading {BEGIN:?}");
    };
    Ok(format!("{head}{BEGIN}\n{}\n", report.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_replaces_the_run_before() {
        let old = format!("# Title\n\nText.\n\n{BEGIN}\nNothing.\n");
        let new = ledger(&old, "\nCommit abc, on:\n\n- H100\n").unwrap();
        assert_eq!(new, "# Title\n\nText.\n\n## What last ran\n\nCommit abc, on:\n\n- H100\n");
        assert_eq!(ledger(&new, "Commit abc, on:\n\n- H100").unwrap(), new);
        assert!(ledger("", "").is_err());
    }

    #[test]
    fn the_last_program_of_cargos_messages_is_taken() {
        let messages = "{\"executable\":null}\nnoise\n{\"executable\":\"/a\"}\n{\"executable\":\"/b\"}\n{\"success\":true}";
        assert_eq!(executable(messages), Some(PathBuf::from("/b")));
        assert_eq!(executable("{}"), None);
    }
}
