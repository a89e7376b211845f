//! `cargo xtask tidy`: the rules of the workspace that clippy cannot check.

mod boundaries;
mod crates;
mod licences;
mod scan;
mod text;
mod unsafe_code;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, expect_no_more};

/// One place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// Relative to the root, with `/` between the parts.
    path: String,
    /// From 1; 0 when it is about the whole file.
    line: usize,
    message: String,
    severity: Severity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Warning,
    Error,
}

impl Finding {
    fn error(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into(), severity: Severity::Error }
    }

    fn warning(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, line, message) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        match self.line {
            0 => write!(f, "{kind}: {}: {}", self.path, self.message),
            line => write!(f, "{kind}: {}:{line}: {}", self.path, self.message),
        }
    }
}

/// A text file of the checkout.
#[derive(Debug)]
struct SourceFile {
    /// Relative to the root, with `/` between the parts.
    path: String,
    text: String,
}

impl SourceFile {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    expect_no_more(arguments)?;
    let files = read_tree(&workspace.root)?;
    let mut findings = text::check(&files);
    findings.extend(top_level(&workspace.root)?);
    findings.extend(boundaries::check(&files));
    findings.extend(unsafe_code::check(&files));
    findings.extend(crates::check(&workspace.metadata(false)?)?);
    let deny = files.iter().find(|file| file.path == "deny.toml").context("deny.toml is gone")?;
    findings.extend(licences::check(&workspace.metadata(true)?, &deny.text)?);
    report(&findings, files.len())
}

fn report(findings: &[Finding], files: usize) -> Result<()> {
    for finding in findings {
        eprintln!("{finding}");
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if errors > 0 {
        bail!("{errors} of the rules in CONTRIBUTING.md broken, see above");
    }
    eprintln!("tidy: {files} files, {} warnings", findings.len());
    Ok(())
}

/// Folders and files that may stand in the root, beside dot-files.
const TOP_LEVEL: &[&str] = &[
    "ov-core",
    "ov-cpu",
    "ov-gpu-cuda",
    "ov-auto",
    "ov-cache",
    "ov-bench",
    "xtask",
    "target",
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "clippy.toml",
    "deny.toml",
];

/// The root holds the crates and the usual files, and nothing else.
fn top_level(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        findings.extend(check_top_level(&name));
    }
    Ok(findings)
}

fn check_top_level(name: &str) -> Option<Finding> {
    let known = name.starts_with('.') || TOP_LEVEL.contains(&name);
    (!known).then(|| Finding::error(name, 0, "does not belong in the root, put it into a crate"))
}

/// Every text file of the checkout that people write, in path order.
///
/// Walks the folders itself, so that it needs no git.
fn read_tree(root: &Path) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                let hidden = name.starts_with('.') && !matches!(name.as_str(), ".ci" | ".cargo");
                if !hidden && !matches!(name.as_str(), "target" | "corpus" | "artifacts") {
                    folders.push(path);
                }
            } else if is_written_by_people(&name) || folder.ends_with(".ci") {
                let relative = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("{relative} is not readable as UTF-8 text"))?;
                files.push(SourceFile { path: relative, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn is_written_by_people(name: &str) -> bool {
    let (_, extension) = name.rsplit_once('.').unwrap_or_default();
    matches!(extension, "rs" | "toml" | "md" | "py" | "cu" | "cuh" | "h" | "json" | "yml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_fails_on_errors_only() {
        assert!(report(&[Finding::warning("a.rs", 0, "long")], 1).is_ok());
        assert!(report(&[Finding::error("a.rs", 1, "bad")], 1).is_err());
    }

    #[test]
    fn names_the_line_of_a_finding() {
        let text = Finding::error("ov-core/src/lib.rs", 7, "bad").to_string();
        assert_eq!(text, "error: ov-core/src/lib.rs:7: bad");
    }

    #[test]
    fn rejects_strangers_in_the_root() {
        assert!(check_top_level("scripts").is_some());
        assert!(check_top_level("ov-core").is_none());
        assert!(check_top_level(".github").is_none());
    }

    #[test]
    fn reads_this_checkout() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let files = read_tree(root).unwrap();
        for path in [".ci/run", "ov-core/src/lib.rs", "xtask/src/tidy/mod.rs"] {
            assert!(files.iter().any(|file| file.path == path), "{path}");
        }
        assert!(!files.iter().any(|file| file.path.starts_with("target/")));
    }
}
