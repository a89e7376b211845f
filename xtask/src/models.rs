//! `cargo xtask models`: test models with inputs and reference outputs, in `target/models`.

use std::ffi::OsString;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::python::{Packages, run_script};
use crate::usage_error;
use crate::workspace::{Workspace, expect_no_more, take_flag, take_option};

/// What there is, where it comes from and what goes into its inputs.
const CATALOGUE: &str = "xtask/python/models.json";

/// How a model is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Out of a published package.
    Fetch,
    /// A known architecture with seeded weights.
    Export,
    /// An exported one, in int8.
    Quantize,
}

/// One model of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    source: Source,
    licence: String,
    /// The exported model that a quantized one is made from.
    base: Option<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut arguments = arguments.to_vec();
    let only = take_option(&mut arguments, "--only")?;
    let list = take_flag(&mut arguments, "--list");
    expect_no_more(&arguments)?;
    let chosen = choose(&read_catalogue(&workspace.sh.read_file(CATALOGUE)?)?, only.as_deref())?;
    if list {
        for entry in chosen {
            println!("{:<28} {:<9} {}", entry.name, describe(entry.source), entry.licence);
        }
        return Ok(());
    }
    let folder = workspace.made("models");
    workspace.sh.create_dir(&folder)?;
    let run_for = |script: &str, packages: Packages, names: &[&Entry]| match names {
        [] => Ok(()),
        _ => {
            let names = names.iter().map(|entry| OsString::from(&entry.name));
            let arguments = std::iter::once(OsString::from(&folder)).chain(names);
            run_script(workspace, packages, script, arguments)
        }
    };
    for (source, script, packages) in [
        (Source::Fetch, "fetch_models.py", Packages::Reference),
        (Source::Export, "export_models.py", Packages::Export),
        (Source::Quantize, "quantize_models.py", Packages::Reference),
    ] {
        let these: Vec<_> = chosen.iter().filter(|entry| entry.source == source).collect();
        run_for(script, packages, &these)?;
    }
    run_for("make_inputs.py", Packages::Reference, &chosen.iter().collect::<Vec<_>>())
}

fn describe(source: Source) -> &'static str {
    match source {
        Source::Fetch => "trained",
        Source::Export => "exported",
        Source::Quantize => "int8",
    }
}

/// The catalogue in name order.
fn read_catalogue(json: &str) -> Result<Vec<Entry>> {
    let catalogue: Value = serde_json::from_str(json).context(CATALOGUE)?;
    let entries = catalogue.as_object().context("the catalogue is not an object")?;
    entries
        .iter()
        .map(|(name, entry)| {
            let source = match (&entry["package"], &entry["base"]) {
                (Value::Array(_), _) => Source::Fetch,
                (_, Value::String(_)) => Source::Quantize,
                _ => Source::Export,
            };
            let licence =
                entry["licence"].as_str().with_context(|| format!("{name}: no licence"))?;
            let base = entry["base"].as_str().map(str::to_owned);
            Ok(Entry { name: name.clone(), source, licence: licence.to_owned(), base })
        })
        .collect()
}

/// The named models and what they are made from; all of them when none is named.
fn choose(all: &[Entry], only: Option<&str>) -> Result<Vec<Entry>> {
    let Some(only) = only else { return Ok(all.to_vec()) };
    let mut names: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|entry| entry.name != **name)) {
        return usage_error(format!("no model \"{unknown}\", see `cargo xtask models --list`"));
    }
    let bases = all.iter().filter(|entry| names.contains(&entry.name.as_str()));
    let bases: Vec<&str> = bases.filter_map(|entry| entry.base.as_deref()).collect();
    names.extend(bases);
    Ok(all.iter().filter(|entry| names.contains(&entry.name.as_str())).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = include_str!("../python/models.json");

    #[test]
    fn every_model_can_be_made() {
        let catalogue: Value = serde_json::from_str(JSON).unwrap();
        let all = read_catalogue(JSON).unwrap();
        for source in [Source::Fetch, Source::Export, Source::Quantize] {
            assert!(all.iter().any(|entry| entry.source == source), "{source:?}");
        }
        for Entry { name, source, base, .. } in &all {
            let entry = &catalogue[name];
            match source {
                Source::Fetch => {
                    assert_eq!(entry["package"].as_array().unwrap().len(), 3, "{name}");
                    assert!(!entry["files"].as_array().unwrap().is_empty(), "{name}");
                }
                Source::Export => assert!(entry["feeds"].is_object(), "{name}"),
                Source::Quantize => {
                    let base = all.iter().find(|e| Some(&e.name) == base.as_ref()).unwrap();
                    assert_eq!(base.source, Source::Export, "{name}");
                }
            }
        }
    }

    #[test]
    fn chooses_by_name_and_adds_what_is_needed() {
        let all = read_catalogue(JSON).unwrap();
        let names = |only: &str| {
            let chosen = choose(&all, Some(only)).unwrap();
            chosen.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
        };
        assert_eq!(names("resnet50,ppocr-v4-det"), ["ppocr-v4-det", "resnet50"]);
        assert_eq!(names("resnet18_int8"), ["resnet18", "resnet18_int8"]);
        assert!(choose(&all, Some("resnet51")).is_err());
        assert_eq!(choose(&all, None).unwrap().len(), all.len());
    }

    #[test]
    fn a_model_without_licence_is_an_error() {
        assert!(read_catalogue(r#"{"a": {"feeds": {}}}"#).is_err());
    }
}
