//! `ov-bench zoo`: the built-in models, as a list or a file.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::{args::ZooCommand, report::bordered, zoo};

/// Lists them, or writes one.
///
/// # Errors
/// When there is no such model or the file cannot be written.
pub(crate) fn run(command: &ZooCommand) -> Result<()> {
    match command {
        ZooCommand::List => {
            let mut table = bordered(&["name", "what", "licence of weights", "shapes"]);
            for entry in zoo::ZOO {
                let shapes = [entry.shape, entry.feed, "fixed"];
                let shape = shapes.into_iter().find(|s| !s.is_empty()).unwrap_or_default();
                table.add_row([entry.name, entry.about, entry.licence, shape]);
            }
            say!("{table}");
        }
        ZooCommand::Write { name, file } => {
            let entry = zoo::find(name)?;
            if file.extension().is_some_and(|e| e.eq_ignore_ascii_case("xml")) {
                bail!("writing OpenVINO IR is not built in, give a file that ends in .onnx");
            }
            let bytes = entry.onnx();
            fs::write(file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
            say!("{}: {:.1} MB", file.display(), bytes.len() as f64 / 1e6);
        }
    }
    Ok(())
}
