//! The Python environments: `target/venv`, which makes models and conformance cases, and `target/venv-nvrtc`, which holds
//! the CUDA compiler.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::workspace::Workspace;

/// A set of packages: a requirements file in `xtask/python`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packages {
    /// numpy and onnx.
    Cases,
    /// ONNX Runtime and OpenVINO beside them: reference outputs and IR.
    Reference,
    /// PyTorch and model collections beside them: exports.
    Export,
    /// NVIDIA's run-time compiler, which needs no GPU.
    Nvrtc,
}

impl Packages {
    fn file(self) -> &'static str {
        match self {
            Self::Cases => "requirements-cases.txt",
            Self::Reference => "requirements-reference.txt",
            Self::Export => "requirements-export.txt",
            Self::Nvrtc => "requirements-nvrtc.txt",
        }
    }

    /// The environment; the compiler's version is its own, whatever other packages want.
    fn folder(self) -> &'static str {
        match self {
            Self::Nvrtc => "venv-nvrtc",
            Self::Cases | Self::Reference | Self::Export => "venv",
        }
    }
}

/// The oldest Python that the packages support.
const OLDEST: (u32, u32) = (3, 11);

/// Runs a script of `xtask/python` in an environment that has these packages.
///
/// # Errors
/// When there is no suitable Python, the packages cannot be installed, or the script fails.
pub(crate) fn run_script<A: AsRef<OsStr>>(
    workspace: &Workspace,
    packages: Packages,
    script: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Result<()> {
    let python = environment(workspace, packages)?;
    let script = workspace.root.join("xtask/python").join(script);
    cmd!(workspace.sh, "{python} {script}").args(arguments).quiet().run()?;
    Ok(())
}

/// The folder of packages with the CUDA compiler, for `OV_CUDA_LIBRARY_PATH`.
///
/// # Errors
/// When it cannot be installed.
pub(crate) fn nvrtc(workspace: &Workspace) -> Result<PathBuf> {
    let python = environment(workspace, Packages::Nvrtc)?;
    let program = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let folder = cmd!(workspace.sh, "{python} -c {program}").quiet().read()?;
    Ok(PathBuf::from(folder.trim()))
}

/// The interpreter of an environment under `target`, made and filled on first use.
fn environment(workspace: &Workspace, packages: Packages) -> Result<PathBuf> {
    let sh = &workspace.sh;
    let venv = workspace.made(packages.folder());
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !python.exists() {
        let system = system_python(workspace)?;
        cmd!(sh, "{system} -m venv {venv}").run().context(
            "cannot make a virtual environment; on Debian and Ubuntu, install python3-venv",
        )?;
    }
    let file = workspace.root.join("xtask/python").join(packages.file());
    let wanted = sh.read_file(&file)?;
    let stamp = venv.join(packages.file());
    if !sh.read_file(&stamp).is_ok_and(|installed| installed == wanted) {
        cmd!(sh, "{python} -m pip install --quiet --requirement {file}")
            .run()
            .context("cannot install the Python packages; is a package index reachable?")?;
        sh.write_file(&stamp, wanted)?;
    }
    Ok(python)
}

fn system_python(workspace: &Workspace) -> Result<String> {
    let mut found = Vec::new();
    for name in ["python3", "python"] {
        let version = cmd!(workspace.sh, "{name} --version").quiet().ignore_stderr().read();
        let Ok(text) = version else { continue };
        if version_of(&text).is_some_and(|version| version >= OLDEST) {
            return Ok(name.to_owned());
        }
        found.push(text);
    }
    bail!("expected Python {}.{} or newer, found [{}]", OLDEST.0, OLDEST.1, found.join(", "))
}

/// `Python 3.11.7` as `(3, 11)`.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("Python ")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        assert_eq!(version_of("Python 3.11.7"), Some((3, 11)));
        assert!(version_of("Python 3.9.2").unwrap() < OLDEST);
        assert!(version_of("Python 3.13.0rc1").unwrap() > OLDEST);
        assert_eq!(version_of("python: command not found"), None);
    }
}
