//! Models that need no file: trained ones in the program, and published architectures with seeded weights.

mod graph;
mod text;
mod vision;

use anyhow::{Result, bail};
use bytes::Bytes;

/// A built-in model.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What follows `zoo:`.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Licence of trained weights; seeded ones are the program's own.
    pub(crate) licence: &'static str,
    /// Shapes to fix of inputs that the file leaves open, as in `--shape`.
    pub(crate) shape: &'static str,
    /// Shapes of seeded values for inputs that stay open.
    pub(crate) feed: &'static str,
    /// Inputs that only some values suit.
    pub(crate) values: &'static [(&'static str, i64)],
    source: Source,
}

#[derive(Debug)]
enum Source {
    Trained(&'static [u8]),
    Seeded(fn() -> Vec<u8>),
}

/// Every built-in model: trained ones first.
pub(crate) const ZOO: &[Entry] = &[
    Entry {
        name: "ppocr-v2-cls",
        about: "PP-OCR v2 text line direction, trained",
        licence: "Apache-2.0",
        shape: "x[1,3,48,192]",
        feed: "",
        values: &[],
        source: Source::Trained(include_bytes!("../../models/ppocr-v2-cls.onnx")),
    },
    Entry {
        name: "silero-vad-v6",
        about: "Silero voice activity detection v6, trained, 32 ms of 16 kHz sound",
        licence: "MIT",
        shape: "",
        feed: "input[1,576],state[2,1,128]",
        values: &[("sr", 16000)],
        source: Source::Trained(include_bytes!("../../models/silero-vad-v6.onnx")),
    },
    Entry {
        name: "resnet50",
        about: "ResNet-50, 224 x 224, seeded weights",
        licence: "-",
        shape: "",
        feed: "",
        values: &[],
        source: Source::Seeded(vision::resnet50),
    },
    Entry {
        name: "mobilenet_v2",
        about: "MobileNetV2, 224 x 224, seeded weights",
        licence: "-",
        shape: "",
        feed: "",
        values: &[],
        source: Source::Seeded(vision::mobilenet_v2),
    },
    Entry {
        name: "minilm",
        about: "MiniLM text encoder, 6 layers, 128 tokens, seeded weights",
        licence: "-",
        shape: "",
        feed: "",
        values: &[],
        source: Source::Seeded(text::minilm),
    },
];

/// The model of that name.
///
/// # Errors
/// When there is none; the text lists the names.
pub(crate) fn find(name: &str) -> Result<&'static Entry> {
    let Some(entry) = ZOO.iter().find(|entry| entry.name == name) else {
        let names: Vec<&str> = ZOO.iter().map(|entry| entry.name).collect();
        bail!("no built-in model {name:?}, expected one of {}", names.join(", "));
    };
    Ok(entry)
}

impl Entry {
    /// The model as an ONNX file.
    pub(crate) fn onnx(&self) -> Bytes {
        match self.source {
            Source::Trained(bytes) => Bytes::from_static(bytes),
            Source::Seeded(build) => Bytes::from(build()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{Core, ReadOptions};

    use super::*;

    #[test]
    fn every_entry_reads_with_its_inputs_and_outputs() {
        let core = Core::with_plugins([]).unwrap();
        for (name, inputs, outputs) in [
            ("ppocr-v2-cls", "x", "[?,2]"),
            ("silero-vad-v6", "input,state,sr", "[...]"),
            ("resnet50", "input", "[1,1000]"),
            ("mobilenet_v2", "input", "[1,1000]"),
            ("minilm", "input_ids,attention_mask,token_type_ids", "[1,128,384]"),
        ] {
            let model = core
                .read_model_from_bytes(find(name).unwrap().onnx(), &ReadOptions::default())
                .unwrap();
            let names: Vec<&str> =
                (0..model.parameters().len()).map(|i| model.input_name(i)).collect();
            assert_eq!(names.join(","), inputs);
            assert_eq!(model.output_shape(0).to_string(), outputs, "{name}");
        }
        assert!(find("nope").unwrap_err().to_string().contains("minilm"));
    }

    #[test]
    fn weights_count_as_published() {
        for (name, millions) in [("resnet50", 25.6), ("mobilenet_v2", 3.5), ("minilm", 22.6)] {
            let found = find(name).unwrap().onnx().len() as f64 / 4e6;
            assert!((found / millions - 1.0).abs() < 0.02, "{name}: {found}");
        }
    }

    #[test]
    fn seeded_models_are_the_same_each_time() {
        let entry = find("mobilenet_v2").unwrap();
        assert_eq!(entry.onnx(), entry.onnx());
    }
}
