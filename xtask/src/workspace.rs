//! Where things are in the checkout, and how cargo and other programs are run from it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::ChildFailed;

/// The checkout that the task works on.
pub(crate) struct Workspace {
    /// Working directory: the root.
    pub(crate) sh: Shell,
    /// The folder of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
}

impl Workspace {
    /// Finds the root from the manifest folder that cargo hands to the programs it runs.
    ///
    /// # Errors
    /// When not started by cargo.
    pub(crate) fn locate() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .context("CARGO_MANIFEST_DIR is not set, run this as `cargo xtask`")?;
        let root =
            Path::new(&manifest).parent().context("xtask has no parent folder")?.to_path_buf();
        let sh = Shell::new()?;
        sh.change_dir(&root);
        Ok(Self { sh, root })
    }

    /// A folder for things made from the checkout, never under version control.
    ///
    /// It is always below the root's `target`, wherever cargo itself builds.
    pub(crate) fn made(&self, name: &str) -> PathBuf {
        self.root.join("target").join(name)
    }

    /// `cargo metadata`: with the dependency graph, or the workspace's own manifests alone.
    pub(crate) fn metadata(&self, graph: bool) -> Result<Value> {
        let no_deps = (!graph).then_some("--no-deps");
        let json = cmd!(self.sh, "cargo metadata --format-version 1 --locked --all-features")
            .args(no_deps)
            .quiet()
            .read()
            .context("cargo metadata failed; is Cargo.lock up to date?")?;
        Ok(serde_json::from_str(&json)?)
    }

    /// Builds `ov-bench` in release with its default features and `features`; gives its path.
    pub(crate) fn release_ov_bench(&self, features: Option<&str>) -> Result<PathBuf> {
        let features = features.map(|list| format!("--features={list}"));
        cmd!(self.sh, "cargo build --release -p ov-bench").args(features).quiet().run()?;
        self.built("release")
    }

    /// Builds `ov-bench` as the test stages build it, so that nothing is compiled twice.
    pub(crate) fn dev_ov_bench(&self) -> Result<PathBuf> {
        cmd!(self.sh, "cargo build --quiet --workspace --all-features --bin ov-bench")
            .quiet()
            .run()?;
        self.built("debug")
    }

    fn built(&self, profile: &str) -> Result<PathBuf> {
        let metadata = self.metadata(false)?;
        let target = metadata["target_directory"].as_str().context("no target_directory")?;
        let name = format!("ov-bench{}", std::env::consts::EXE_SUFFIX);
        Ok([target, profile, &name].iter().collect())
    }
}

/// Runs a program that talks to the user itself.
///
/// # Errors
/// [`ChildFailed`] with its status, so that ours is the same.
pub(crate) fn hand_over(
    program: &Path,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(ChildFailed(u8::try_from(code).unwrap_or(1)).into()),
        None => bail!("{} was ended by a signal ({status})", program.display()),
    }
}

/// Takes `--name VALUE` or `--name=VALUE` out of `arguments`.
///
/// # Errors
/// [`UsageError`](crate::UsageError) when the value is missing.
pub(crate) fn take_option(arguments: &mut Vec<String>, name: &str) -> Result<Option<String>> {
    let assigned = format!("{name}=");
    let Some(at) = arguments.iter().position(|a| a == name || a.starts_with(&assigned)) else {
        return Ok(None);
    };
    let found = arguments.remove(at);
    if let Some(value) = found.strip_prefix(&assigned) {
        return Ok(Some(value.to_owned()));
    }
    if at == arguments.len() {
        return crate::usage_error(format!("{name} expects a value"));
    }
    Ok(Some(arguments.remove(at)))
}

/// Takes `--name` out of `arguments`; true when it was there.
pub(crate) fn take_flag(arguments: &mut Vec<String>, name: &str) -> bool {
    let before = arguments.len();
    arguments.retain(|a| a != name);
    arguments.len() < before
}

/// # Errors
/// [`UsageError`](crate::UsageError) when anything is left over.
pub(crate) fn expect_no_more(arguments: &[String]) -> Result<()> {
    match arguments.first() {
        Some(extra) => crate::usage_error(format!("unexpected argument \"{extra}\"")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn takes_both_spellings_of_an_option() {
        for line in ["a --time 5 b", "a --time=5 b"] {
            let mut arguments = words(line);
            assert_eq!(take_option(&mut arguments, "--time").unwrap().as_deref(), Some("5"));
            assert_eq!(arguments, ["a", "b"]);
        }
    }

    #[test]
    fn rejects_an_option_without_value() {
        let error = take_option(&mut words("a --time"), "--time").unwrap_err();
        assert!(error.is::<crate::UsageError>());
    }

    #[test]
    fn takes_a_flag_once() {
        let mut arguments = words("--check x");
        assert!(take_flag(&mut arguments, "--check"));
        assert!(!take_flag(&mut arguments, "--check"));
        assert!(expect_no_more(&arguments).is_err());
    }
}
