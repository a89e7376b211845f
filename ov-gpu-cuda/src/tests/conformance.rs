//! The backend cases of ONNX, on the fake driver. `cargo xtask conformance cuda` runs them; they take minutes, so that
//! other runs of the tests skip them.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use ov_core::{
    property::hint::{self, ExecutionMode},
    testing::conformance::{Case, find},
};

use super::*;

/// The folder of the cases.
const FOLDER: &str = "OV_ONNX_CASES";
/// A part of the names of the cases to run.
const FILTER: &str = "OV_ONNX_FILTER";

/// What ran a case.
#[derive(Default)]
struct Ran {
    /// Nodes on the host, by operator.
    host: Vec<String>,
    kernels: usize,
}

#[test]
fn onnx_backend_cases_pass() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        println!("SKIPPED: {FOLDER} does not name the folder of the ONNX cases");
        return;
    };
    let Some(machine) = machine() else { return };
    let filter = std::env::var(FILTER).unwrap_or_default();
    let cases = find(&folder, &filter).expect("the folder of the cases");
    let (mut passed, mut whole, mut mixed, mut folded) = (0, 0, 0, 0);
    let mut failures: BTreeMap<String, String> = BTreeMap::new();
    let mut host: BTreeMap<String, usize> = BTreeMap::new();
    for case in &cases {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&machine, case)))
            .unwrap_or_else(|_| Err("panicked".to_owned()));
        match outcome {
            Ok(ran) => {
                passed += 1;
                match (ran.kernels, ran.host.len()) {
                    (0, 0) => folded += 1,
                    (_, 0) => whole += 1,
                    _ => mixed += 1,
                }
                ran.host.into_iter().for_each(|op| *host.entry(op).or_default() += 1);
            }
            Err(reason) => {
                println!("FAILED {}: {reason}", case.name);
                failures.insert(case.name.clone(), reason);
            }
        }
    }
    let mut host: Vec<_> = host.into_iter().collect();
    host.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    println!("operators on the host: {host:?}");
    println!(
        "{passed} of {} cases passed: {whole} wholly by kernels, {mixed} with steps on the host, {folded} without a step",
        cases.len()
    );
    let known = include_str!("../../../xtask/onnx-known-failures.txt");
    let known: Vec<&str> = known
        .lines()
        .map(|line| line.split([' ', '\t', ':']).next().unwrap_or_default())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .collect();
    let new: Vec<_> = failures.keys().filter(|name| !known.contains(&name.as_str())).collect();
    assert!(new.is_empty(), "{} cases fail: {new:?}", new.len());
    assert!(!filter.is_empty() || passed >= 1000, "{passed} cases");
}

fn run(machine: &Machine, case: &Case) -> Result<Ran, String> {
    let properties = PropertyMap::new().with(hint::EXECUTION_MODE, ExecutionMode::Accuracy);
    let compiled = machine
        .core
        .compile_model(case.model.as_path(), "CUDA", &properties)
        .map_err(|e| format!("compile: {e}"))?;
    let mut ran = Ran::default();
    for node in compiled.runtime_nodes() {
        match node.kernel.as_str() {
            "host" => ran.host.push(node.op),
            _ => ran.kernels += 1,
        }
    }
    let mut request = compiled.create_infer_request().map_err(|e| format!("request: {e}"))?;
    case.run(|inputs| {
        request.reset_states().map_err(|e| e.to_string())?;
        request.run(inputs).map_err(|e| format!("infer: {e}; {}", machine.message()))
    })?;
    Ok(ran)
}
