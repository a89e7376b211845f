//! `ov-bench roundtrip`: compiles each model of a folder, exports it, imports it in another process, and compares outputs
//! bit for bit.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    args::RoundtripArgs,
    report::{align_right, bordered, milliseconds},
};

/// What one model gave.
struct Trip {
    blob_mb: f64,
    compile_ms: f64,
    import_ms: f64,
    /// Memory that binding made this process write, in MiB.
    private_mb: f64,
}

/// The part of a report that is looked at.
#[derive(Deserialize)]
struct Figures {
    compile_ms: f64,
    #[serde(default)]
    import_dirty_mb: Option<f64>,
}

/// Runs every model, prints a table and `PASS n / N`.
///
/// # Errors
/// When a model fails, or gives other bits after the way through a file.
pub(crate) fn run(args: &RoundtripArgs) -> Result<()> {
    let models = models(&args.dir, &args.filter)?;
    ensure!(!models.is_empty(), "no .onnx or .xml file in {}", args.dir.display());
    let scratch = std::env::temp_dir().join(format!("ov-roundtrip-{}", std::process::id()));
    let mut table =
        bordered(&["model", "blob", "compile", "import", "written by import", "outputs"]);
    let (mut passed, mut failures) = (0, Vec::new());
    for model in &models {
        let name = model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        fs::create_dir_all(&scratch)
            .with_context(|| format!("cannot make {}", scratch.display()))?;
        let trip = one(args, model, &scratch);
        if let Err(error) = fs::remove_dir_all(&scratch) {
            eprintln!("note: {} stays: {error}", scratch.display());
        }
        match trip {
            Ok(trip) => {
                passed += 1;
                table.add_row([
                    name,
                    format!("{:.1} MB", trip.blob_mb),
                    milliseconds(trip.compile_ms),
                    milliseconds(trip.import_ms),
                    format!("{:.2} MiB", trip.private_mb),
                    "same bits".to_owned(),
                ]);
            }
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    align_right(&mut table, 1..5);
    say!("{table}");
    failures.iter().for_each(|failure| say!("FAIL {failure}"));
    say!("PASS {passed} / {}", models.len());
    if failures.is_empty() { Ok(()) } else { bail!("{} models failed", failures.len()) }
}

fn models(dir: &Path, filter: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let is_model = |path: &PathBuf| {
        let known = path.extension().is_some_and(|e| e == "onnx" || e == "xml");
        known && path.file_stem().is_some_and(|name| name.to_string_lossy().contains(filter))
    };
    let mut models: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(is_model).collect();
    models.sort();
    Ok(models)
}

fn one(args: &RoundtripArgs, model: &Path, scratch: &Path) -> Result<Trip> {
    let (blob, before, after) =
        (scratch.join("model.blob"), scratch.join("compiled"), scratch.join("imported"));
    let inputs = model.with_extension("inputs");
    let mut common: Vec<&OsStr> = vec!["--device".as_ref(), args.device.as_ref()];
    if inputs.is_dir() {
        common.extend([OsStr::new("--inputs"), inputs.as_os_str()]);
    }
    let infer = |model: &Path, outputs: &Path| {
        let own: [&OsStr; 5] = [
            "infer".as_ref(),
            "--model".as_ref(),
            model.as_os_str(),
            "--outputs".as_ref(),
            outputs.as_os_str(),
        ];
        process(own.into_iter().chain(common.iter().copied()))
    };
    infer(model, &before).context("compiled")?;
    let device = ["--device".as_ref(), OsStr::new(&args.device)];
    let compile: [&OsStr; 5] = [
        "compile".as_ref(),
        "--model".as_ref(),
        model.as_os_str(),
        "--output".as_ref(),
        blob.as_os_str(),
    ];
    process(compile.into_iter().chain(device)).context("exporting")?;
    infer(&blob, &after).context("imported")?;
    let measured = |model: &Path| -> Result<Figures> {
        let own: [&OsStr; 8] = [
            "bench".as_ref(),
            "--model".as_ref(),
            model.as_os_str(),
            "--json".as_ref(),
            "--cold-start-ns".as_ref(),
            "1".as_ref(),
            "--niter=1".as_ref(),
            "--memory".as_ref(),
        ];
        let text = process(own.into_iter().chain(common.iter().copied()))?;
        let line = text.lines().rev().find(|l| l.starts_with('{')).context("no report")?;
        Ok(serde_json::from_str(line)?)
    };
    let (compiled, imported) = (measured(model)?, measured(&blob)?);
    compare(&before, &after)?;
    let bytes = fs::metadata(&blob).map_or(0, |m| m.len());
    let private_mb = imported.import_dirty_mb.unwrap_or_default();
    let allowed_mb = SMALL_MB + bytes as f64 / 1e6 * MOST_WRITTEN;
    ensure!(
        private_mb <= allowed_mb,
        "importing wrote {private_mb:.1} MiB of memory, at most {allowed_mb:.1} were expected: are weights copied?"
    );
    Ok(Trip {
        blob_mb: bytes as f64 / 1e6,
        compile_ms: compiled.compile_ms,
        import_ms: imported.compile_ms,
        private_mb,
    })
}

/// Part of a blob that may be copied while it is bound.
const MOST_WRITTEN: f64 = 0.05;
/// What a process writes whatever it binds: stacks, tables, the program.
const SMALL_MB: f64 = 24.0;

/// Checks that two folders hold the same files.
fn compare(before: &Path, after: &Path) -> Result<()> {
    let names = |dir: &Path| -> Result<Vec<OsString>> {
        let entries =
            fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let mut names: Vec<OsString> = entries.filter_map(|e| Some(e.ok()?.file_name())).collect();
        names.sort();
        Ok(names)
    };
    let expected = names(before)?;
    ensure!(!expected.is_empty(), "no outputs");
    ensure!(expected == names(after)?, "other outputs after importing");
    for name in expected {
        let (a, b) = (fs::read(before.join(&name))?, fs::read(after.join(&name))?);
        let differ = a.iter().zip(&b).filter(|(a, b)| a != b).count();
        ensure!(
            a == b,
            "output {} differs in {differ} of {} bytes after importing",
            name.to_string_lossy(),
            a.len()
        );
    }
    Ok(())
}

/// Runs this program with arguments and gives what it prints.
fn process<'a>(arguments: impl Iterator<Item = &'a OsStr>) -> Result<String> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cannot start a process")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let line = errors.lines().rev().find(|l| l.starts_with("error:")).unwrap_or_default();
    ensure!(output.status.success(), "{} ({})", line, output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_with_other_bytes_differ() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for folder in [&a, &b] {
            fs::create_dir(folder).unwrap();
        }
        assert!(compare(&a, &b).unwrap_err().to_string().contains("no outputs"));
        fs::write(a.join("0.npy"), [1, 2, 3]).unwrap();
        assert!(compare(&a, &b).is_err());
        fs::write(b.join("0.npy"), [1, 2, 4]).unwrap();
        assert!(compare(&a, &b).unwrap_err().to_string().contains("1 of 3 bytes"));
        fs::write(b.join("0.npy"), [1, 2, 3]).unwrap();
        compare(&a, &b).unwrap();
    }
}
