//! Conformance cases in folders: `model.onnx` or `model.xml`, `test_data_set_*/{input,output}_*.pb`, `tol`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use prost::Message as _;

use super::compare;
use crate::{
    frontend::onnx::{
        proto::{ModelProto, TypeProto},
        sequence::read_value,
    },
    tensor::Tensor,
};

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// `<kind>/<name>`.
    pub name: String,
    /// The model file.
    pub model: PathBuf,
    /// Folders with inputs and outputs.
    pub data_sets: Vec<PathBuf>,
    /// Relative tolerance.
    pub rtol: f64,
    /// Absolute tolerance.
    pub atol: f64,
}

/// Every case beneath `dir` whose name contains `filter`, sorted by name.
///
/// # Errors
/// When a folder cannot be read.
pub fn find(dir: &Path, filter: &str) -> std::io::Result<Vec<Case>> {
    let mut cases = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let model =
            ["model.onnx", "model.xml"].iter().map(|m| folder.join(m)).find(|m| m.is_file());
        let mut children: Vec<PathBuf> = fs::read_dir(&folder)?
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.is_dir())
            .collect();
        children.sort();
        let Some(model) = model else {
            folders.extend(children);
            continue;
        };
        let name = folder.strip_prefix(dir).unwrap_or(&folder).to_string_lossy().into_owned();
        if !name.contains(filter) {
            continue;
        }
        let tolerances: Vec<f64> = fs::read_to_string(folder.join("tol"))
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|t| t.parse().ok())
            .collect();
        cases.push(Case {
            name,
            model,
            data_sets: children
                .into_iter()
                .filter(|c| {
                    c.file_name().is_some_and(|n| n.to_string_lossy().starts_with("test_data_set"))
                })
                .collect(),
            rtol: tolerances.first().copied().unwrap_or(1e-3),
            atol: tolerances.get(1).copied().unwrap_or(1e-7),
        });
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

/// The values `<prefix>_0.pb`, `<prefix>_1.pb`, … of a data set; `types` says which of them are not tensors.
///
/// # Errors
/// A text that names the file.
pub fn read_values(
    dir: &Path,
    prefix: &str,
    types: &[Option<TypeProto>],
) -> Result<Vec<Tensor>, String> {
    let mut values = Vec::new();
    loop {
        let path = dir.join(format!("{prefix}_{}.pb", values.len()));
        if !path.exists() {
            return Ok(values);
        }
        let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let ty = types.get(values.len()).and_then(Option::as_ref);
        let value = read_value(Bytes::from(bytes), ty);
        values.push(value.map_err(|e| format!("{}: {e}", path.display()))?);
    }
}

/// The tensors `<prefix>_0.pb`, `<prefix>_1.pb`, … of a data set.
///
/// # Errors
/// A text that names the file.
pub fn read_tensors(dir: &Path, prefix: &str) -> Result<Vec<Tensor>, String> {
    read_values(dir, prefix, &[])
}

/// Types of the inputs and of the outputs of an ONNX model; none for other files.
fn port_types(model: &Path) -> [Vec<Option<TypeProto>>; 2] {
    let bytes = fs::read(model).ok().filter(|_| model.extension().is_some_and(|e| e == "onnx"));
    let graph = bytes.and_then(|b| ModelProto::decode(Bytes::from(b)).ok()).and_then(|m| m.graph);
    let Some(graph) = graph else { return [Vec::new(), Vec::new()] };
    let is_input = |name: &str| graph.initializer.iter().all(|i| i.name != name);
    [
        graph.input.iter().filter(|i| is_input(&i.name)).map(|i| i.r#type.clone()).collect(),
        graph.output.iter().map(|o| o.r#type.clone()).collect(),
    ]
}

impl Case {
    /// Runs every data set through `infer` and compares the outputs.
    ///
    /// # Errors
    /// A text that says what differs.
    pub fn run(
        &self,
        mut infer: impl FnMut(&[Tensor]) -> Result<Vec<Tensor>, String>,
    ) -> Result<(), String> {
        if self.data_sets.is_empty() {
            return Err("the case has no data set".to_owned());
        }
        let [input_types, output_types] = port_types(&self.model);
        for set in &self.data_sets {
            let inputs = read_values(set, "input", &input_types)?;
            let expected = read_values(set, "output", &output_types)?;
            let got = infer(&inputs)?;
            if got.len() != expected.len() {
                return Err(format!("{} outputs, expected {}", got.len(), expected.len()));
            }
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                compare(got, expected, self.rtol, self.atol)
                    .map_err(|d| format!("output {i}: {d}"))?;
            }
        }
        Ok(())
    }
}
