//! The list of modules that may hold unsafe code.

use super::scan::{code_only, lines_with_word};
use super::{Finding, SourceFile};

/// Where unsafe code may stand. `*` stands for any characters in a name, `/**` for a whole folder.
const ALLOWED: &[&str] = &[
    "ov-core/src/io/**",
    "ov-core/src/tensor/storage.rs",
    "ov-cpu/src/affinity.rs",
    "ov-cpu/src/team.rs",
    "ov-cpu/src/plan*.rs",
    "ov-cpu/src/plan/**",
    "ov-cpu/src/simd/**",
    "ov-cpu/src/gemm/**",
    "ov-cpu/src/kernels/**",
    "ov-cpu/src/nodes/**",
    "ov-cpu/examples/kernel_bench.rs",
    "ov-gpu-cuda/src/compile/**",
    "ov-gpu-cuda/src/driver/**",
    "ov-gpu-cuda/src/testing/**",
    // The counting allocator of this test implements an unsafe trait.
    "ov-cpu/tests/no_allocation.rs",
];

/// Crate roots that forbid it altogether.
const FORBIDDING: &[&str] =
    &["ov-auto/src/lib.rs", "ov-cache/src/lib.rs", "ov-bench/src/main.rs", "xtask/src/main.rs"];

pub(super) fn check(files: &[SourceFile]) -> Vec<Finding> {
    files.iter().filter(|file| file.is_rust()).flat_map(check_file).collect()
}

fn check_file(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let code = code_only(&file.text);
    if FORBIDDING.contains(&file.path.as_str()) && !code.contains("#![forbid(unsafe_code)]") {
        findings.push(Finding::error(&file.path, 0, "starts with `#![forbid(unsafe_code)]`"));
    }
    if ALLOWED.iter().any(|pattern| matches(pattern, &file.path)) {
        return findings;
    }
    let mut lines = lines_with_word(&code, "unsafe");
    lines.extend((1..).zip(code.lines()).filter(|(_, line)| lifts_the_ban(line)).map(|(n, _)| n));
    lines.sort_unstable();
    lines.dedup();
    findings.extend(lines.into_iter().map(|line| {
        let message =
            "unsafe code outside the modules that may hold it (xtask/src/tidy/unsafe_code.rs)";
        Finding::error(&file.path, line, message)
    }));
    findings
}

fn lifts_the_ban(line: &str) -> bool {
    line.contains("unsafe_code") && (line.contains("allow(") || line.contains("expect("))
}

fn matches(pattern: &str, path: &str) -> bool {
    if let Some(folder) = pattern.strip_suffix("**") {
        return path.starts_with(folder);
    }
    match pattern.split_once('*') {
        Some((before, after)) => path
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|middle| !middle.contains('/')),
        None => pattern == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        check(&[SourceFile { path: path.into(), text: text.into() }]).len()
    }

    #[test]
    fn rejects_unsafe_elsewhere() {
        for text in [
            "fn f() { unsafe { g() } }",
            "unsafe impl Send for X {}",
            "#![allow(unsafe_code, reason = \"x\")]",
            "#[expect(unsafe_code)]",
        ] {
            assert_eq!(findings("ov-core/src/op/pool.rs", text), 1, "{text}");
            assert_eq!(findings("ov-cpu/src/lower/fuse.rs", text), 1, "{text}");
            assert_eq!(findings("ov-cpu/src/kernels/pool.rs", text), 0, "{text}");
        }
    }

    #[test]
    fn words_about_it_are_not_code() {
        let text =
            "//! Nothing unsafe here.\nlet s = \"unsafe\";\n#![deny(unsafe_op_in_unsafe_fn)]";
        assert_eq!(findings("ov-core/src/lib.rs", text), 0);
    }

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("a/io/**", "a/io/x/y.rs", true),
            ("a/io/**", "a/iox.rs", false),
            ("a/plan*.rs", "a/plan.rs", true),
            ("a/plan*.rs", "a/plan_cache.rs", true),
            ("a/plan*.rs", "a/plan/x.rs", false),
            ("a/team.rs", "b/a/team.rs", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn safe_crates_forbid_it() {
        assert_eq!(findings("ov-cache/src/lib.rs", "//! Cache.\n"), 1);
        assert_eq!(findings("ov-cache/src/lib.rs", "//! Cache.\n#![forbid(unsafe_code)]\n"), 0);
        assert_eq!(findings("ov-cache/src/lib.rs", "// #![forbid(unsafe_code)]\n"), 1);
    }
}
