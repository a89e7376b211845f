//! Boundaries between the modules of ov-core, kept as if the modules were crates.

use std::collections::HashMap;

use super::scan::{code_only, inner_paths, re_exports, without_tests};
use super::{Finding, SourceFile};

/// What the top-level modules of ov-core may name of one another.
const RULES: &[Rule] = &[
    Rule {
        name: "front ends know tensors, the model and operators only",
        applies: |module| module == "frontend",
        allows: |named| {
            matches!(named, "frontend" | "model" | "op" | "tensor" | "error" | "io")
                || MACROS.contains(&named)
        },
    },
    Rule {
        name: "only core, and the harness in testing, read files through a front end",
        applies: |module| !matches!(module, "frontend" | "core" | "lib" | "testing"),
        allows: |named| named != "frontend",
    },
    Rule {
        name: "passes know neither front ends nor plugins",
        applies: |module| module == "pass",
        allows: |named| !matches!(named, "core" | "plugin"),
    },
    Rule {
        name: "operators know neither passes nor plugins",
        applies: |module| module == "op",
        allows: |named| !matches!(named, "pass" | "plugin"),
    },
];

/// Macros of `tensor` and `op`, which the compiler places at the root of the crate.
const MACROS: &[&str] = &["choice", "define_op", "dispatch_float", "dispatch_numeric", "op_ensure"];

struct Rule {
    name: &'static str,
    /// Whether the rule is about this top-level module.
    applies: fn(&str) -> bool,
    /// Whether such a module may name that one.
    allows: fn(&str) -> bool,
}

const SOURCE: &str = "ov-core/src/";

pub(super) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let ours = || files.iter().filter(|file| file.path.starts_with(SOURCE) && file.is_rust());
    let aliases: HashMap<String, String> = ours()
        .find(|file| file.path == "ov-core/src/lib.rs")
        .map(|file| root_names(&file.text))
        .unwrap_or_default();
    ours().filter(|file| !is_test(&file.path)).flat_map(|file| check_file(file, &aliases)).collect()
}

fn check_file(file: &SourceFile, aliases: &HashMap<String, String>) -> Vec<Finding> {
    let module = module_path(&file.path);
    let Some(&top) = module.first() else { return Vec::new() };
    let mut findings: Vec<Finding> = Vec::new();
    for path in inner_paths(&without_tests(&code_only(&file.text))) {
        let Some(named) = root_item(&path.segments, module.len()) else { continue };
        let named_module = aliases.get(named).map_or(named, String::as_str);
        // Modules are lower case; a capital that is no re-export is a macro or an associated item.
        if named_module.starts_with(char::is_uppercase) {
            continue;
        }
        let broken = RULES.iter().find(|rule| (rule.applies)(top) && !(rule.allows)(named_module));
        if let Some(rule) = broken {
            let message =
                format!("`{}` reaches {named_module}: {}", path.segments.join("::"), rule.name);
            let finding = Finding::error(&file.path, path.line, message);
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    findings
}

/// Names that the crate root re-exports, with the top-level module that each comes from.
fn root_names(lib: &str) -> HashMap<String, String> {
    let mut names = HashMap::new();
    for path in re_exports(&without_tests(&code_only(lib))) {
        let rooted = matches!(path.segments[0].as_str(), "crate" | "self");
        let segments = &path.segments[usize::from(rooted)..];
        let (Some(module), Some(last)) = (segments.first(), segments.last()) else { continue };
        names.insert(path.alias.unwrap_or_else(|| last.clone()), module.clone());
    }
    names
}

/// The item of the crate root that a path from a module of this depth names, if it goes that far.
fn root_item(segments: &[String], depth: usize) -> Option<&str> {
    let supers = segments.iter().take_while(|segment| *segment == "super").count();
    let rooted = if segments[0] == "crate" { 1 } else { supers };
    if segments[0] != "crate" && supers < depth {
        return None;
    }
    segments.get(rooted).map(String::as_str)
}

/// `ov-core/src/op/infer.rs` as `[op, infer]`; the crate root as `[lib]`.
fn module_path(path: &str) -> Vec<&str> {
    let inside = path.strip_prefix(SOURCE).unwrap_or(path);
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    inside.split('/').filter(|part| *part != "mod").collect()
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.ends_with("_tests.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "pub mod frontend;\npub use error::{Error, Result};\n\
        pub use core::Core;\npub use crate::plugin::Plugin as Device;\n";

    fn findings(path: &str, text: &str) -> Vec<Finding> {
        let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.into() };
        check(&[file("ov-core/src/lib.rs", LIB), file(path, text)])
    }

    #[test]
    fn rejects_what_crosses_a_boundary() {
        for (path, text) in [
            ("frontend/onnx/convert.rs", "use crate::pass::Rewrite;"),
            ("frontend/mod.rs", "use crate::{error::Error, property::PropertyMap};"),
            ("frontend/mod.rs", "fn f() { crate::core::Core::new(); }"),
            ("frontend/mod.rs", "use crate::Core;"),
            ("frontend/onnx/convert.rs", "use super::super::super::plugin::Plugin;"),
            ("model/node.rs", "use crate::frontend::read;"),
            ("model/node.rs", "use super::super::frontend;"),
            ("reference.rs", "use super::frontend::read;"),
            ("pass/manager.rs", "use crate::{core, model};"),
            ("pass/manager.rs", "use crate::Device;"),
            ("pass/rewrites/gelu.rs", "use crate::frontend::x;"),
            ("op/mod.rs", "use crate::pass::Pass;"),
            ("op/mod.rs", "use crate::plugin;"),
            ("op/mod.rs", "use crate::frontend;"),
        ] {
            let found = findings(&format!("{SOURCE}{path}"), &format!("//! x\n{text}\n"));
            assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
            assert_eq!(found[0].line, 2);
        }
    }

    #[test]
    fn accepts_what_stays_inside() {
        for (path, text) in [
            ("frontend/onnx/convert.rs", "use crate::{Error, Result, model::Model, op::OpKind};"),
            ("frontend/onnx/convert.rs", "use super::super::ReadOptions;\nuse super::proto::X;"),
            ("frontend/onnx/convert.rs", "// crate::pass is not used\nlet s = \"crate::pass\";"),
            ("core.rs", "use crate::frontend::read;\nuse crate::plugin::Plugin;"),
            ("testing/conformance.rs", "use crate::frontend::onnx;"),
            ("pass/manager.rs", "use crate::{model, op, reference, Error};"),
            ("op/mod.rs", "#[cfg(test)]\nmod tests {\n use crate::pass::Pass;\n}"),
            ("op/convolution/tests.rs", "use crate::pass::Pass;"),
        ] {
            assert_eq!(findings(&format!("{SOURCE}{path}"), text), [], "{path}: {text}");
        }
    }

    #[test]
    fn other_crates_are_not_concerned() {
        assert_eq!(findings("ov-cpu/src/op/mod.rs", "use crate::plugin::X;"), []);
    }
}
