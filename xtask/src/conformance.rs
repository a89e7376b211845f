//! `cargo xtask conformance`: published operator cases, generated once and run by ov-bench.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use xshell::cmd;

use crate::python::{Packages, run_script};
use crate::workspace::{Workspace, hand_over};

/// Where the cases come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suite {
    /// The backend tests of the onnx package.
    Onnx,
    /// The same as OpenVINO IR, where OpenVINO converts them.
    Ir,
    /// The backend tests, by the kernels of the device CUDA on the processor, under its driver library for tests.
    Cuda,
}

/// ONNX cases that fail on the CPU, with reasons; the run fails when others do, or when one of these passes.
const KNOWN_FAILURES: &str = "xtask/onnx-known-failures.txt";

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let (suite, arguments) = parse(arguments);
    if suite == Suite::Cuda {
        return run_cuda(workspace, arguments);
    }
    let folder = generate(workspace, suite)?;
    let program = workspace.release_ov_bench(None)?;
    let mut ours = vec![OsString::from("conformance"), OsString::from("--dir"), folder.into()];
    let for_another_device = arguments.iter().any(|a| a == "-d" || a.starts_with("--device"));
    if suite == Suite::Onnx && !for_another_device {
        ours.push("--known-failures".into());
        ours.push(workspace.root.join(KNOWN_FAILURES).into());
    }
    hand_over(&program, ours.into_iter().chain(arguments.iter().map(OsString::from)))
}

/// The suite, ONNX unless named, and the arguments for ov-bench.
fn parse(arguments: &[String]) -> (Suite, &[String]) {
    match arguments {
        [first, rest @ ..] if first == "onnx" => (Suite::Onnx, rest),
        [first, rest @ ..] if first == "ir" => (Suite::Ir, rest),
        [first, rest @ ..] if first == "cuda" => (Suite::Cuda, rest),
        _ => (Suite::Onnx, arguments),
    }
}

/// Runs the ONNX cases, or those whose names hold the first argument, by the tests of ov-gpu-cuda.
///
/// # Errors
/// When the cases cannot be made or some fail.
pub(crate) fn run_cuda(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let folder = generate(workspace, Suite::Onnx)?;
    let filter = arguments.first().map(String::as_str).unwrap_or_default();
    let _cases = workspace.sh.push_env("OV_ONNX_CASES", folder);
    let _filter = workspace.sh.push_env("OV_ONNX_FILTER", filter);
    let test = "onnx_backend_cases_pass";
    cmd!(workspace.sh, "cargo test -p ov-gpu-cuda --lib {test} -- --nocapture").run()?;
    Ok(())
}

/// The folder of the suite's cases. Its manifest is written last, so one that is there is complete.
fn generate(workspace: &Workspace, suite: Suite) -> Result<PathBuf> {
    let root = workspace.made("conformance");
    let folder = root.join(if suite == Suite::Ir { "ir" } else { "onnx" });
    if folder.join("manifest.json").exists() {
        return Ok(folder);
    }
    workspace.sh.create_dir(&folder)?;
    match suite {
        Suite::Onnx | Suite::Cuda => {
            run_script(workspace, Packages::Cases, "onnx_cases.py", [folder.as_os_str()])?;
        }
        Suite::Ir => {
            let onnx = generate(workspace, Suite::Onnx)?;
            let folders: [&Path; 2] = [&onnx, &folder];
            run_script(workspace, Packages::Reference, "ir_cases.py", folders)?;
        }
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_the_first_word() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (line, suite, rest) in [
            ("", Suite::Onnx, 0),
            ("onnx", Suite::Onnx, 0),
            ("ir -d CPU", Suite::Ir, 2),
            ("cuda Conv", Suite::Cuda, 1),
            ("--filter ir", Suite::Onnx, 2),
        ] {
            let words = words(line);
            let (found, arguments) = parse(&words);
            assert_eq!((found, arguments.len()), (suite, rest), "{line}");
        }
    }
}
