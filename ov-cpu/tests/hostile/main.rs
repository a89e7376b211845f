//! Models made to break a reader, a compiler or a kernel: each gets a typed error or a result, in a child process with
//! little memory and little time, never a panic, a signal or a large allocation.
//!
//! `OV_HOSTILE_MUTANTS=20000 cargo test -p ov-cpu --test hostile` tries more mutants than a CI run does.
#![cfg(target_os = "linux")]

mod cases;
mod graph;
mod mutants;
mod operators;
mod values;

use std::{
    path::Path,
    process::{Command, Output},
};

use ov_core::{Core, ElementType, Model, PropertyMap, Tensor};
use ov_cpu as _;

/// What a case must be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// An error that holds one of these words, before anything runs.
    Refused(&'static [&'static str]),
    /// An error that holds one of these words, then or while running.
    Fails(&'static [&'static str]),
    /// A result.
    Runs,
}

/// One hostile model.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) model: Vec<u8>,
    pub(crate) expected: Expected,
}

/// Address space of a child.
const ADDRESS_SPACE_KIB: usize = 512 << 10;
/// Processor time of a child that runs one case.
const SECONDS: usize = 10;
/// Memory of a child on top of what the test program itself takes and four times its input.
const RESIDENT_KIB: usize = 64 << 10;

/// Runs the test `name` of this program in a process of its own.
pub(crate) fn child(name: &str, seconds: usize, variables: &[(&str, &str)]) -> Output {
    let program = std::env::current_exe().expect("this program has a path");
    let limits = format!(
        "ulimit -c 0; ulimit -v {ADDRESS_SPACE_KIB}; ulimit -t {seconds}; exec \"$0\" \"$@\""
    );
    Command::new("sh")
        .args(["-c", &limits])
        .arg(program)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .envs(variables.iter().copied())
        // One arena instead of one per thread: they would count as address space.
        .env("MALLOC_ARENA_MAX", "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("a shell is there")
}

/// Highest resident memory of this process so far.
pub(crate) fn peak_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0)
}

/// A tensor for an input: small numbers, extents that are open 2.
pub(crate) fn input(model: &Model, index: usize) -> Option<Tensor> {
    let node = model.node(model.parameters()[index]);
    let (ty, shape) = (node.element_type(0), node.shape(0));
    let dims: Vec<usize> = shape.dims()?.iter().map(|d| d.value().unwrap_or(2)).collect();
    let len = dims.iter().try_fold(1usize, |a, d| a.checked_mul(*d)).filter(|n| *n <= 1 << 20)?;
    if ty == ElementType::String {
        return Tensor::from_strings(dims, vec!["a".to_owned(); len]).ok();
    }
    let values: Vec<f32> = (0..len).map(|i| ((i * 7 % 11) as f32 - 4.0) / 2.0).collect();
    Tensor::from_vec(dims, values).ok()?.cast(ty).ok()
}

/// Reads, compiles and runs a model; the error says at which step it came.
fn attempt(read: impl FnOnce(&Core) -> ov_core::Result<Model>) -> Result<(), String> {
    let core = Core::new().map_err(|e| format!("core: {e}"))?;
    let model = read(&core).map_err(|e| format!("read: {e}"))?;
    let inputs: Option<Vec<Tensor>> =
        (0..model.parameters().len()).map(|i| input(&model, i)).collect();
    let properties = PropertyMap::new();
    let compiled = core.compile_model(model, "CPU", &properties);
    let compiled = compiled.map_err(|e| format!("compile: {e}"))?;
    let mut request = compiled.create_infer_request().map_err(|e| format!("infer: {e}"))?;
    let Some(inputs) = inputs else { return Ok(()) };
    request.run(&inputs).map(drop).map_err(|e| format!("infer: {e}"))
}

/// Runs in the child: the case in the folder that the parent names.
#[test]
fn run_one_case() {
    let Ok(folder) = std::env::var("OV_HOSTILE_CASE") else { return };
    let path = Path::new(&folder).join("model.onnx");
    let before = peak_kib();
    let outcome = if std::env::var("OV_HOSTILE_BYTES").is_ok() {
        let bytes = std::fs::read(&path).expect("the parent wrote it");
        attempt(|core| {
            core.read_model_from_bytes(bytes, &ov_core::frontend::ReadOptions::default())
        })
    } else {
        attempt(|core| core.read_model(&path))
    };
    println!("\nOUTCOME {}", outcome.err().unwrap_or_default().replace('\n', " "));
    println!("PEAK {}", peak_kib().saturating_sub(before));
}

fn line<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.lines().find_map(|l| l.strip_prefix(start))
}

/// What is wrong with how a case was answered.
fn judge(case: &Case, folder: &Path, from_bytes: bool) -> Option<String> {
    std::fs::write(folder.join("model.onnx"), &case.model).expect("written");
    let folder = folder.to_string_lossy();
    let mut variables = vec![("OV_HOSTILE_CASE", &*folder)];
    if from_bytes {
        variables.push(("OV_HOSTILE_BYTES", "1"));
    }
    let output = child("run_one_case", SECONDS, &variables);
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(outcome) = line(&text, "OUTCOME ").filter(|_| output.status.success()) else {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Some(format!("{}: {}", output.status, errors.trim()));
    };
    if outcome.contains("panicked") {
        return Some(outcome.to_owned());
    }
    let peak: usize = line(&text, "PEAK ").and_then(|t| t.parse().ok()).unwrap_or(0);
    let allowed = RESIDENT_KIB + 4 * case.model.len() / 1024;
    if peak > allowed {
        return Some(format!("took {peak} KiB of memory, expected at most {allowed}"));
    }
    let says = |words: &[&str]| words.iter().any(|w| outcome.contains(w));
    let early = outcome.starts_with("read:") || outcome.starts_with("compile:");
    let fits = match case.expected {
        Expected::Refused(words) => early && says(words),
        Expected::Fails(words) => !outcome.is_empty() && says(words),
        Expected::Runs => outcome.is_empty(),
    };
    (!fits).then(|| format!("expected {:?}, got {outcome:?}", case.expected))
}

#[test]
fn every_hostile_model_is_answered() {
    let outer = tempfile::tempdir().expect("temporary folder");
    let folder = outer.path().join("model");
    cases::lay_out(outer.path(), &folder);
    let mut wrong = Vec::new();
    let (mut count, mut names) = (0, std::collections::HashSet::new());
    for case in cases::all().into_iter().chain(operators::all()).chain(values::all()) {
        assert!(names.insert(case.name), "two cases are named {}", case.name);
        count += 1;
        wrong.extend(judge(&case, &folder, false).map(|w| format!("{}: {w}", case.name)));
    }
    for case in cases::from_bytes() {
        count += 1;
        wrong.extend(judge(&case, &folder, true).map(|w| format!("{}: {w}", case.name)));
    }
    println!("{count} hostile models");
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
}
