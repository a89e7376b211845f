//! From a model's name to a usable request, with the time of every step.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use ov_core::{
    Blob, CompiledModel, Core, Dimension, ElementType, InferRequest, Model, ModelSource,
    PartialShape, PropertyMap, ReadOptions,
};

use crate::zoo;

/// What `--model` names.
#[derive(Clone, Debug)]
pub(crate) enum Reference {
    File(PathBuf),
    Zoo(&'static zoo::Entry),
}

impl Reference {
    /// A file, or `zoo:NAME`.
    ///
    /// # Errors
    /// When there is no such file or built-in model.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if let Some(name) = text.strip_prefix("zoo:") {
            return zoo::find(name).map(Self::Zoo);
        }
        let path = PathBuf::from(text);
        match path.metadata() {
            Ok(meta) if meta.is_file() => Ok(Self::File(path)),
            Ok(_) => bail!("model {text} is a folder, expected a file or zoo:NAME"),
            Err(e) => Err(e).with_context(|| {
                format!(
                    "cannot open model {text}; built-in ones are named zoo:NAME, see `ov-bench zoo list`"
                )
            }),
        }
    }

    /// Whether it is a file that holds a compiled blob.
    pub(crate) fn is_blob(&self) -> bool {
        match self {
            Self::File(path) => starts_as_blob(path),
            Self::Zoo(_) => false,
        }
    }

    /// The graph, with shapes fixed.
    ///
    /// # Errors
    /// When the file is no model, or a shape does not suit it.
    pub(crate) fn model(&self, core: &Core, shape: Option<&str>) -> Result<Model> {
        self.read(core, self.bytes(), shape)
    }

    /// A built-in model as a file.
    fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::File(_) => None,
            Self::Zoo(entry) => Some(entry.onnx()),
        }
    }

    /// The graph, read when it is needed: a model that the cache has is not.
    fn source(
        &self,
        core: &Core,
        bytes: Option<Bytes>,
        shape: Option<&str>,
    ) -> (ModelSource, Arc<Reading>) {
        let reading = Arc::new(Reading::default());
        let (this, core, shape) = (self.clone(), core.clone(), shape.map(str::to_owned));
        let (noted, held) = (Arc::clone(&reading), bytes.clone());
        let own_shape = match self {
            Self::File(_) => "",
            Self::Zoo(entry) => entry.shape,
        };
        let variant = [own_shape, shape.as_deref().unwrap_or_default()].join(";");
        let read = move || {
            let start = Instant::now();
            let model = noted.note(this.read(&core, held.clone(), shape.as_deref()));
            noted.took_ns.fetch_add(nanoseconds(start), Ordering::Relaxed);
            model
        };
        let source = match (self, bytes) {
            (Self::Zoo(_), Some(bytes)) => ModelSource::bytes(bytes, read),
            (Self::Zoo(entry), None) => ModelSource::bytes(entry.onnx(), read),
            (Self::File(path), _) => ModelSource::file(path, read),
        };
        (source.with_variant(variant.trim_matches(';')), reading)
    }

    fn read(&self, core: &Core, bytes: Option<Bytes>, shape: Option<&str>) -> Result<Model> {
        let (mut model, own_shape) = match self {
            Self::File(path) => (core.read_model(path)?, ""),
            Self::Zoo(entry) => {
                let bytes = bytes.unwrap_or_else(|| entry.onnx());
                (core.read_model_from_bytes(bytes, &ReadOptions::default())?, entry.shape)
            }
        };
        for text in [own_shape, shape.unwrap_or_default()] {
            reshape(&mut model, text)?;
        }
        Ok(model)
    }
}

fn starts_as_blob(path: &Path) -> bool {
    use std::io::Read as _;
    let mut start = Vec::new();
    std::fs::File::open(path).is_ok_and(|f| f.take(16).read_to_end(&mut start).is_ok())
        && Blob::is_blob(&start)
}

/// A model that is ready to run.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) compiled: CompiledModel,
    pub(crate) request: InferRequest,
    /// Time in the reader; 0 when a blob made reading unnecessary.
    pub(crate) read_ms: f64,
    /// Time of compiling, or of binding a blob.
    pub(crate) compile_ms: f64,
    /// From opening the file to a usable request.
    pub(crate) load_ms: f64,
}

/// Reads, compiles and makes the first request. Weights of built-in models are made before the clock starts: a file would
/// have them.
///
/// # Errors
/// Those of the steps.
pub(crate) fn load(
    core: &Core,
    reference: &Reference,
    shape: Option<&str>,
    device: &str,
    properties: &PropertyMap,
) -> Result<Loaded> {
    ensure!(
        shape.is_none() || !reference.is_blob(),
        "a compiled blob has its shapes fixed, leave out --shape"
    );
    let bytes = reference.bytes();
    let start = Instant::now();
    let (source, reading) = reference.source(core, bytes, shape);
    let compiled = match core.compile_model(source, device, properties) {
        Ok(compiled) => compiled,
        Err(error) => return Err(reading.failure().unwrap_or_else(|| error.into())),
    };
    let compiled_at = nanoseconds(start);
    let request = compiled.create_infer_request()?;
    let read_ns = reading.took_ns.load(Ordering::Relaxed);
    Ok(Loaded {
        compiled,
        request,
        read_ms: read_ns as f64 / 1e6,
        compile_ms: compiled_at.saturating_sub(read_ns) as f64 / 1e6,
        load_ms: nanoseconds(start) as f64 / 1e6,
    })
}

/// What became of reading a model, if it was read.
#[derive(Debug, Default)]
struct Reading {
    took_ns: AtomicU64,
    failure: Mutex<Option<anyhow::Error>>,
}

impl Reading {
    /// Why it failed, where the core could only be told that it did.
    fn failure(&self) -> Option<anyhow::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, read: Result<Model>) -> ov_core::Result<Model> {
        read.map_err(|error| {
            let text = error.to_string();
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            let device = "ov-bench".to_owned();
            ov_core::error::InferError::Other { device, detail: text }.into()
        })
    }
}

fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Fixes shapes of inputs: `x[1,3,224,224],mask[1,128]`, `?` leaving a dimension open.
fn reshape(model: &mut Model, text: &str) -> Result<()> {
    for (name, shape) in parse_shapes(text)? {
        let names: Vec<String> =
            (0..model.inputs().len()).map(|i| model.input_name(i).to_owned()).collect();
        let index = names.iter().position(|n| *n == name).with_context(|| {
            format!("--shape names {name:?}, the model's inputs are {}", names.join(", "))
        })?;
        model
            .reshape_input(index, ElementType::Dynamic, shape)
            .with_context(|| format!("shape of input {name:?}"))?;
    }
    Ok(())
}

/// Names and shapes: `x[1,3,?,?],mask[1,128]`.
///
/// # Errors
/// When the text has another form.
pub(crate) fn parse_shapes(text: &str) -> Result<Vec<(String, PartialShape)>> {
    let mut shapes = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let split =
            rest.split_once('[').and_then(|(name, rest)| Some((name, rest.split_once(']')?)));
        let Some((name, (dims, after))) = split else {
            bail!("--shape {text:?} is not as \"x[1,3,224,224],mask[1,128]\"");
        };
        let dims: PartialShape = dims
            .split(',')
            .map(str::trim)
            .filter(|d| !d.is_empty())
            .map(|d| match d {
                "?" | "-1" => Ok(Dimension::bounded(0, None)),
                _ => d.parse::<usize>().map(Dimension::from).with_context(|| {
                    format!("--shape {text:?}: {d:?} is no extent, expected a number or ?")
                }),
            })
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .collect();
        shapes.push((name.trim().to_owned(), dims));
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    Ok(shapes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_parse_or_say_the_form() {
        let show = |text: &str| {
            parse_shapes(text).map(|shapes| {
                shapes.iter().map(|(n, s)| format!("{n}{s}")).collect::<Vec<_>>().join(" ")
            })
        };
        for (text, expected) in [
            ("", ""),
            ("x[1,3,224,224],mask[1,128]", "x[1,3,224,224] mask[1,128]"),
            (" a:0[?, -1] , s[] ", "a:0[?,?] s[]"),
        ] {
            assert_eq!(show(text).unwrap(), expected);
        }
        for text in ["x", "x[1", "x[a]", "x[1.5]", "x[-2]"] {
            assert!(show(text).unwrap_err().to_string().contains("--shape"), "{text}");
        }
    }

    #[test]
    fn a_missing_model_says_how_built_in_ones_are_named() {
        let error = format!("{:#}", Reference::parse("/nonexistent.onnx").unwrap_err());
        assert!(error.contains("zoo:NAME"), "{error}");
        assert!(Reference::parse("zoo:resnet50").is_ok());
        assert!(Reference::parse("/").unwrap_err().to_string().contains("is a folder"));
    }
}
