//! Conformance cases in folders: `model.onnx` or `model.xml`, `test_data_set_*/{input,output}_*.pb`, `tol`.

use std::{
    collections::HashSet,
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
    /// Whether the expected values were drawn by a generator that the standard leaves open: type, shape and range
    /// count then (see [`judge_random`]). The manifest marks such cases.
    pub random: bool,
}

/// Every case beneath `dir` whose name contains `filter`, sorted by name.
///
/// # Errors
/// When a folder cannot be read.
pub fn find(dir: &Path, filter: &str) -> std::io::Result<Vec<Case>> {
    let random = random_cases(dir)?;
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
            random: random.contains(&name),
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

/// Paths of the cases that `manifest.json` marks `random`; none without a manifest. It has a case per line.
fn random_cases(dir: &Path) -> std::io::Result<HashSet<String>> {
    let manifest = match fs::read_to_string(dir.join("manifest.json")) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(e) => return Err(e),
    };
    let path = |line: &str| Some(line.split_once("\"path\": \"")?.1.split_once('"')?.0.to_owned());
    Ok(manifest.lines().filter(|l| l.contains("\"random\": true")).filter_map(path).collect())
}

/// Judges drawn values: type and shape are those expected, and every value is one that could be drawn. What could be
/// drawn are truth values where only 0 and 1 are expected, and else (dropout) 0 and the values that the expected ones
/// keep, `inputs[0] * scale`.
///
/// # Errors
/// A text that says what differs.
pub fn judge_random(inputs: &[Tensor], got: &Tensor, expected: &Tensor) -> Result<(), String> {
    if got.element_type() != expected.element_type() || got.shape() != expected.shape() {
        let of = |t: &Tensor| format!("{}{}", t.element_type(), t.shape());
        return Err(format!("got {}, expected {}", of(got), of(expected)));
    }
    let values = |t: &Tensor| t.to_f64_vec().map_err(|e| e.to_string());
    let (got, expected) = (values(got)?, values(expected)?);
    let binary = |v: &f64| *v == 0.0 || *v == 1.0;
    if expected.iter().all(binary) {
        return got
            .iter()
            .find(|v| !binary(v))
            .map_or(Ok(()), |v| Err(format!("drew {v}, expected 0 or 1")));
    }
    let x = values(inputs.first().ok_or("a random case without inputs")?)?;
    let kept = |list: &[f64]| {
        list.iter().zip(&x).find(|(v, x)| **v != 0.0 && **x != 0.0).map(|(v, x)| v / x)
    };
    let (Some(scale), true) = (kept(&expected), x.len() == got.len()) else {
        return Err("no expected value says what may be drawn".to_owned());
    };
    let close = |v: f64, x: f64| (v - x * scale).abs() <= 1e-5 + 1e-3 * (x * scale).abs();
    match got.iter().zip(&x).find(|(v, x)| **v != 0.0 && !close(**v, **x)) {
        Some((v, x)) => Err(format!("drew {v}, expected 0 or {}", x * scale)),
        None => Ok(()),
    }
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
                let judged = if self.random {
                    judge_random(&inputs, got, expected)
                } else {
                    compare(got, expected, self.rtol, self.atol).map_err(|d| d.to_string())
                };
                judged.map_err(|d| format!("output {i}: {d}"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_values_are_judged_by_type_shape_and_range() {
        let f32s = |v: &[f32]| Tensor::from_vec([v.len()], v.to_vec()).expect("fits");
        let x = [f32s(&[1.0, -2.0, 3.0])];
        let expected = f32s(&[0.0, -4.0, 6.0]);
        assert_eq!(judge_random(&x, &f32s(&[2.0, 0.0, 6.0]), &expected), Ok(()));
        assert!(judge_random(&x, &f32s(&[2.0, 0.0, 3.0]), &expected).is_err());
        assert!(judge_random(&x, &f32s(&[2.0, 0.0]), &expected).is_err());
        assert!(judge_random(&x, &Tensor::from_i64s(&[2, 0, 6]), &expected).is_err());
        let drawn = f32s(&[0.0, 1.0, 1.0]);
        assert_eq!(judge_random(&x, &f32s(&[1.0, 0.0, 1.0]), &drawn), Ok(()));
        assert!(judge_random(&x, &f32s(&[0.5, 0.0, 1.0]), &drawn).is_err());
    }
}
