//! `cargo xtask loc`: how large the crates and files are, and how a branch changes that.

use std::collections::BTreeMap;

use anyhow::Result;
use xshell::cmd;

use crate::workspace::{Workspace, expect_no_more, take_flag};

/// Lines of one file, and what the branch adds and removes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Lines {
    total: usize,
    added: usize,
    removed: usize,
}

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut arguments = arguments.to_vec();
    let every_file = take_flag(&mut arguments, "--files");
    expect_no_more(&arguments)?;

    let listed =
        cmd!(workspace.sh, "git ls-files --cached --others --exclude-standard -- *.rs *.cu")
            .quiet()
            .read()?;
    let mut files = BTreeMap::new();
    for path in listed.lines() {
        if let Ok(text) = workspace.sh.read_file(path) {
            files
                .insert(path.to_owned(), Lines { total: text.lines().count(), ..Lines::default() });
        }
    }
    let base = cmd!(workspace.sh, "git merge-base HEAD main").quiet().ignore_stderr().read();
    match base {
        Ok(base) => {
            let numstat = cmd!(workspace.sh, "git diff --numstat --no-renames {base} -- *.rs *.cu");
            add_difference(&mut files, &numstat.quiet().read()?);
        }
        Err(_) => eprintln!("no branch main to compare with"),
    }
    print!("{}", table(&files, every_file));
    Ok(())
}

/// Takes in `git diff --numstat`: added, removed and path, between tabs.
fn add_difference(files: &mut BTreeMap<String, Lines>, numstat: &str) {
    for line in numstat.lines() {
        let mut fields = line.splitn(3, '\t');
        let mut count = || fields.next()?.parse().ok();
        if let (Some(added), Some(removed)) = (count(), count())
            && let Some(path) = fields.next()
        {
            let lines = files.entry(path.to_owned()).or_default();
            (lines.added, lines.removed) = (added, removed);
        }
    }
}

fn table(files: &BTreeMap<String, Lines>, every_file: bool) -> String {
    let mut crates: BTreeMap<&str, Vec<Lines>> = BTreeMap::new();
    for (path, lines) in files {
        crates.entry(path.split('/').next().unwrap_or(path)).or_default().push(*lines);
    }
    let mut text = format!(
        "{:<13}{:>6}{:>9}{:>8}{:>9}{:>9}{:>9}\n",
        "crate", "files", "lines", "median", "longest", "added", "removed"
    );
    let all = files.values().copied().collect();
    for (name, mut members) in crates.into_iter().chain([("all", all)]) {
        members.sort_unstable_by_key(|lines| lines.total);
        let sum = |field: fn(&Lines) -> usize| members.iter().map(field).sum::<usize>();
        text += &format!(
            "{name:<13}{:>6}{:>9}{:>8}{:>9}{:>9}{:>9}\n",
            members.len(),
            sum(|lines| lines.total),
            members.get(members.len() / 2).map_or(0, |lines| lines.total),
            members.last().map_or(0, |lines| lines.total),
            sum(|lines| lines.added),
            sum(|lines| lines.removed),
        );
    }
    if every_file {
        text += "\n   lines   added removed  file\n";
        for (path, lines) in files {
            text += &format!("{:>8}{:>8}{:>8}  {path}\n", lines.total, lines.added, lines.removed);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_crates() {
        let mut files = BTreeMap::new();
        for (path, total) in [("ov-core/src/a.rs", 10), ("ov-core/src/b.rs", 30), ("xtask/c.rs", 5)]
        {
            files.insert(path.to_owned(), Lines { total, ..Lines::default() });
        }
        add_difference(
            &mut files,
            "3\t1\tov-core/src/a.rs\n0\t7\tov-core/src/gone.rs\n-\t-\tx.png\n",
        );
        assert_eq!(files["ov-core/src/a.rs"], Lines { total: 10, added: 3, removed: 1 });
        let text = table(&files, true);
        let row = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect::<Vec<usize>>()
        };
        assert_eq!(row("ov-core"), [3, 40, 10, 30, 3, 8]);
        assert_eq!(row("all"), [4, 45, 10, 30, 3, 8]);
        assert!(text.lines().any(|line| line.ends_with("ov-core/src/gone.rs")));
    }
}
