//! Rules on the text of files: first line, length, trailing blanks.

use super::{Finding, SourceFile};

/// Lines from which a file is called long.
const WARN_LINES: usize = 600;
/// Lines from which a file fails.
const MAX_LINES: usize = 900;
/// Files that may be longer than [`MAX_LINES`], with the reason.
const LONG_FILES: &[(&str, &str)] = &[];

pub(super) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        findings.extend(trailing_blanks(file));
        if file.is_rust() {
            findings.extend(head(file));
            findings.extend(length(file, LONG_FILES));
        }
    }
    findings
}

fn head(file: &SourceFile) -> Option<Finding> {
    let first = file.text.lines().next().unwrap_or_default();
    let says_something = first.strip_prefix("//!").is_some_and(|rest| !rest.trim().is_empty());
    (!says_something)
        .then(|| Finding::error(&file.path, 1, "the first line is `//!` and what the file is for"))
}

fn length(file: &SourceFile, exceptions: &[(&str, &str)]) -> Option<Finding> {
    let lines = file.text.lines().count();
    if lines > MAX_LINES && !exceptions.iter().any(|(path, _)| *path == file.path) {
        let message = format!("{lines} lines, at most {MAX_LINES}: split it by concept");
        return Some(Finding::error(&file.path, 0, message));
    }
    (lines > WARN_LINES)
        .then(|| Finding::warning(&file.path, 0, format!("{lines} lines, aim at {WARN_LINES}")))
}

fn trailing_blanks(file: &SourceFile) -> Vec<Finding> {
    let mut findings: Vec<_> = (1..)
        .zip(file.text.lines())
        .filter(|(_, line)| line.ends_with([' ', '\t']))
        .map(|(number, _)| Finding::error(&file.path, number, "blanks at the end of the line"))
        .collect();
    if !file.text.is_empty() && (!file.text.ends_with('\n') || file.text.ends_with("\n\n")) {
        findings.push(Finding::error(&file.path, 0, "ends with exactly one newline"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn file(text: impl Into<String>) -> SourceFile {
        SourceFile { path: "ov-core/src/x.rs".to_owned(), text: text.into() }
    }

    #[test]
    fn wants_a_head_that_says_something() {
        for bad in ["", "use a;\n", "// note\n", "//!\n", "\n//! late\n"] {
            assert!(head(&file(bad)).is_some(), "{bad:?}");
        }
        assert!(head(&file("//! Shapes.\n")).is_none());
    }

    #[test]
    fn long_files_warn_then_fail() {
        let of = |lines: usize| length(&file("x\n".repeat(lines)), &[]).map(|f| f.severity);
        assert_eq!(of(WARN_LINES), None);
        assert_eq!(of(WARN_LINES + 1), Some(Severity::Warning));
        assert_eq!(of(MAX_LINES), Some(Severity::Warning));
        assert_eq!(of(MAX_LINES + 1), Some(Severity::Error));
    }

    #[test]
    fn a_named_exception_only_warns() {
        let long = file("x\n".repeat(MAX_LINES + 1));
        let found = length(&long, &[("ov-core/src/x.rs", "a table")]).unwrap();
        assert_eq!(found.severity, Severity::Warning);
        assert_eq!(length(&long, &[("ov-core/src/y.rs", "")]).unwrap().severity, Severity::Error);
    }

    #[test]
    fn finds_trailing_blanks_by_line() {
        let found = trailing_blanks(&file("a\nb \nc\t\n"));
        assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(trailing_blanks(&file("a\nb\n")), []);
    }

    #[test]
    fn wants_one_newline_at_the_end() {
        assert_eq!(trailing_blanks(&file("a")).len(), 1);
        assert_eq!(trailing_blanks(&file("a\n\n")).len(), 1);
    }

    #[test]
    fn check_covers_rust_and_other_text() {
        let files =
            [file("no head\n"), SourceFile { path: "a.md".to_owned(), text: "x \n".into() }];
        assert_eq!(check(&files).len(), 2);
    }
}
