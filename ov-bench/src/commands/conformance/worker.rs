//! The process that runs cases: names come in by line, outcomes go out by line.

use std::io::{BufRead as _, Write as _};

use anyhow::Result;
use ov_core::{Core, PropertyMap, property::hint, testing::conformance};
use serde::{Deserialize, Serialize};

use crate::{args::WorkerArgs, devices, properties};

/// What became of a case.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) case: String,
    /// Why it failed; nothing when it passed.
    pub(super) reason: Option<String>,
}

/// Runs the cases that standard input names, until it ends.
///
/// # Errors
/// When the folder cannot be read or a stream is closed.
pub(crate) fn run(args: &WorkerArgs) -> Result<()> {
    let core = devices::core()?;
    let mut properties = properties::from_pairs(&args.set)?;
    // Cases are judged in the precision of their models, unless another was asked for.
    let mode = hint::EXECUTION_MODE;
    if properties.text(mode.name()).is_none() && core.get(&args.device, mode).is_ok() {
        properties.set(mode, &hint::ExecutionMode::Accuracy);
    }
    let cases = conformance::find(&args.dir, "")?;
    for line in std::io::stdin().lock().lines() {
        let name = line?;
        let outcome = match cases.binary_search_by(|case| case.name.cmp(&name)) {
            Err(_) => Err("the case is gone".to_owned()),
            Ok(index) => run_case(&core, &cases[index], &args.device, &properties),
        };
        let line = serde_json::to_string(&Outcome { case: name, reason: outcome.err() })?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    Ok(())
}

fn run_case(
    core: &Core,
    case: &conformance::Case,
    device: &str,
    properties: &PropertyMap,
) -> Result<(), String> {
    let compiled = core
        .compile_model(case.model.as_path(), device, properties)
        .map_err(|e| format!("compile: {e}"))?;
    let mut request = compiled.create_infer_request().map_err(|e| format!("request: {e}"))?;
    case.run(|inputs| {
        request.reset_states().map_err(|e| e.to_string())?;
        request.run(inputs).map_err(|e| format!("infer: {e}"))
    })
}
