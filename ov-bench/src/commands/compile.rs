//! `ov-bench compile`: the compiled form of a model as a file.

use anyhow::{Context, Result, ensure};

use crate::{
    args::CompileArgs,
    commands::Place,
    load::{self, Reference},
    properties::Extra,
};

/// Compiles, writes the blob, and prints its size and the time it took.
///
/// # Errors
/// When the model cannot be compiled, the device has no blobs, or the file cannot be written.
pub(crate) fn run(args: &CompileArgs) -> Result<()> {
    let reference = Reference::parse(&args.model)?;
    ensure!(!reference.is_blob(), "{} is a compiled blob already", args.model);
    let place = Place::of(&args.target, Extra::default())?;
    let shape = args.shape.as_deref();
    let loaded = load::load(&place.core, &reference, shape, &place.device, &place.properties)?;
    let path = &args.output;
    loaded.compiled.export_to(path).with_context(|| format!("cannot write {}", path.display()))?;
    let bytes = path.metadata().map_or(0, |meta| meta.len());
    say!(
        "{}: {:.1} MB for {}, read {:.1} ms, compiled {:.1} ms",
        path.display(),
        bytes as f64 / 1e6,
        loaded.compiled.device(),
        loaded.read_ms,
        loaded.compile_ms
    );
    Ok(())
}
