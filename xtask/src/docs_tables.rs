//! `cargo xtask docs-tables`: documentation that is written from tables in the code.

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::workspace::{Workspace, expect_no_more, take_flag};

/// The generated file; `ov-bench query --markdown` prints what belongs in it.
const PROPERTIES: &str = "ov-core/docs/properties.md";

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut arguments = arguments.to_vec();
    let only_check = take_flag(&mut arguments, "--check");
    expect_no_more(&arguments)?;
    if only_check {
        return check(workspace);
    }
    let text = generate(workspace)?;
    workspace.sh.write_file(PROPERTIES, text)?;
    eprintln!("wrote {PROPERTIES}");
    Ok(())
}

/// Compares the file with what the code says today.
///
/// # Errors
/// When they differ, or the table cannot be printed.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let expected = generate(workspace)?;
    let found = workspace
        .sh
        .read_file(PROPERTIES)
        .with_context(|| format!("{PROPERTIES} is missing, run `cargo xtask docs-tables`"))?;
    match first_difference(&expected, &found) {
        None => Ok(()),
        Some(line) => {
            bail!("{PROPERTIES} is stale from line {line}, run `cargo xtask docs-tables`")
        }
    }
}

fn generate(workspace: &Workspace) -> Result<String> {
    let program = workspace.dev_ov_bench()?;
    let table = cmd!(workspace.sh, "{program} query --markdown")
        .quiet()
        .read()
        .context("ov-bench prints no table of properties")?;
    if !table.contains('|') {
        bail!("ov-bench query --markdown printed no table, got \"{table}\"");
    }
    Ok(table + "\n")
}

/// The first line, from 1, in which two texts differ.
fn first_difference(a: &str, b: &str) -> Option<usize> {
    (a != b).then(|| a.lines().zip(b.lines()).take_while(|(x, y)| x == y).count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_stale_line() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\nb\n", "a\n"), Some(2));
        assert_eq!(first_difference("", "a\n"), Some(1));
    }
}
