//! Simplifies ONNX models and compares what they compute: `simplify_model [--no-run] FILE.onnx…`.
//!
//! Inputs come from `FILE.inputs/0.npy`, … beside the model; without them the outputs are not compared.
#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::{collections::BTreeMap, fs, path::Path, time::Instant};

use ov_core::{
    ElementType, Model, Tensor, frontend::onnx, io::ExternalFiles, pass, reference,
    testing::compare,
};

fn main() {
    let mut run = true;
    let mut failures = 0;
    for arg in std::env::args().skip(1) {
        if arg == "--no-run" {
            run = false;
            continue;
        }
        match check(Path::new(&arg), run) {
            Ok(text) => println!("{arg}: {text}"),
            Err(e) => {
                failures += 1;
                println!("{arg}: FAIL {}", e.chars().take(400).collect::<String>());
            }
        }
    }
    std::process::exit(i32::from(failures > 0));
}

fn check(path: &Path, run: bool) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    let files = ExternalFiles::beneath(path.parent().unwrap_or_else(|| Path::new("")));
    let name = path.to_string_lossy();
    let before = onnx::read(bytes.into(), &name, &files).map_err(|e| e.to_string())?;
    let mut after = before.clone();
    let start = Instant::now();
    let stats = pass::simplify(&mut after).map_err(|e| e.to_string())?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    after.verify().map_err(|e| format!("inconsistent: {e}"))?;
    let again = pass::simplify(&mut after).map_err(|e| e.to_string())?;
    let mut text = format!("{ms:.1} ms, {stats}  now {}", kinds(&after));
    if again.changes() > 0 {
        return Err(format!("not idempotent: {again}"));
    }
    let folder = path.with_extension("inputs");
    if run && folder.is_dir() {
        let inputs = (0..before.parameters().len())
            .map(|i| npy(&folder.join(format!("{i}.npy"))))
            .collect::<Result<Vec<_>, _>>()?;
        let expected = reference::evaluate(&before, &inputs).map_err(|e| format!("before: {e}"))?;
        let got = reference::evaluate(&after, &inputs).map_err(|e| format!("after: {e}"))?;
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let largest = expected
                .to_f64_vec()
                .map_or(0.0, |v| v.iter().fold(0.0, |a: f64, b| a.max(b.abs())));
            compare(got, expected, 1e-3, 1e-4 * largest).map_err(|d| format!("output {i}: {d}"))?;
        }
        text.push_str("\n  outputs equal");
    }
    Ok(text)
}

fn kinds(model: &Model) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, node) in model.nodes() {
        *counts.entry(node.op().kind().name).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    counts.iter().map(|(k, n)| format!("{k}:{n}")).collect::<Vec<_>>().join(" ")
}

/// Reads a `.npy` file of version 1: a header that is a Python literal, then the elements in row-major order.
fn npy(path: &Path) -> Result<Tensor, String> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let bad = || format!("{}: no npy file of version 1", path.display());
    let length = bytes.get(8..10).ok_or_else(bad)?;
    let data = 10 + usize::from(u16::from_le_bytes([length[0], length[1]]));
    let header = String::from_utf8_lossy(bytes.get(10..data).ok_or_else(bad)?).into_owned();
    let between = |open: &str, close: char| {
        let (_, rest) = header.split_once(open)?;
        rest.split_once(close).map(|(found, _)| found.to_owned())
    };
    let element_type = match between("'descr': '", '\'').ok_or_else(bad)?.get(1..) {
        Some("f4") => ElementType::F32,
        Some("f8") => ElementType::F64,
        Some("f2") => ElementType::F16,
        Some("i8") => ElementType::I64,
        Some("i4") => ElementType::I32,
        Some("u1") => ElementType::U8,
        Some("i1") => ElementType::I8,
        Some("b1") => ElementType::Boolean,
        other => return Err(format!("{}: element type {other:?}", path.display())),
    };
    let shape: Vec<usize> = between("'shape': (", ')')
        .ok_or_else(bad)?
        .split(',')
        .filter(|t| !t.trim().is_empty())
        .map(|t| t.trim().parse().map_err(|_| bad()))
        .collect::<Result<_, _>>()?;
    Tensor::from_bytes(element_type, shape, &bytes[data..]).map_err(|e| e.to_string())
}
