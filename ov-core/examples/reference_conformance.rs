//! Runs conformance cases on the reference interpreter: `reference_conformance DIR [FILTER]`.
#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::{panic, path::Path};

use ov_core::{frontend::onnx, io::ExternalFiles, reference, testing::conformance};

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().expect("usage: reference_conformance DIR [FILTER]");
    let filter = args.next().unwrap_or_default();
    panic::set_hook(Box::new(|_| {}));
    let cases = conformance::find(Path::new(&dir), &filter).expect("the folder can be read");
    let mut passed = 0;
    for case in &cases {
        let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            let bytes = std::fs::read(&case.model).map_err(|e| e.to_string())?;
            let files =
                ExternalFiles::beneath(case.model.parent().unwrap_or_else(|| Path::new("")));
            let model = onnx::read(bytes.into(), &case.name, &files).map_err(|e| e.to_string())?;
            case.run(|inputs| reference::evaluate(&model, inputs).map_err(|e| e.to_string()))
        }))
        .unwrap_or_else(|p| {
            let text = p.downcast_ref::<String>().cloned();
            Err(format!(
                "PANIC {}",
                text.or_else(|| p.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                    .unwrap_or_default()
            ))
        });
        match outcome {
            Ok(()) => passed += 1,
            Err(e) => println!("FAIL {}: {}", case.name, e.chars().take(300).collect::<String>()),
        }
    }
    println!("PASS {passed} / {}", cases.len());
}
