//! Writes ONNX graphs node by node, with seeded weights.

use bytes::Bytes;
use ov_core::frontend::onnx::proto::{
    AttributeProto, DimensionKind, DimensionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetId, TensorProto, TensorShape, TensorType, TypeKind, TypeProto, ValueInfoProto,
};
use prost::Message as _;

use crate::rng::Rng;

/// Element types as ONNX numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataType {
    F32 = 1,
    I64 = 7,
}

/// A graph that grows; values are known by name.
pub(super) struct Graph {
    proto: GraphProto,
    rng: Rng,
}

/// An attribute and its value.
pub(super) enum Attribute<'a> {
    Int(&'a str, i64),
    Ints(&'a str, &'a [i64]),
    Float(&'a str, f32),
}

impl Graph {
    /// An empty graph whose weights follow from `seed`.
    pub(super) fn new(name: &str, seed: u64) -> Self {
        Self {
            proto: GraphProto { name: name.to_owned(), ..GraphProto::default() },
            rng: Rng::new(seed),
        }
    }

    /// A graph input.
    pub(super) fn input(&mut self, name: &str, data_type: DataType, shape: &[i64]) -> String {
        self.proto.input.push(value_info(name, data_type, shape));
        name.to_owned()
    }

    /// Gives a value out.
    pub(super) fn output(&mut self, name: &str, shape: &[i64]) {
        self.proto.output.push(value_info(name, DataType::F32, shape));
    }

    /// A node of one output, which is named as the node.
    pub(super) fn node(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
    ) -> String {
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|i| (*i).to_owned()).collect(),
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: op.to_owned(),
            attribute: attributes.iter().map(Attribute::proto).collect(),
            ..NodeProto::default()
        });
        name.to_owned()
    }

    /// Weights that are uniform with this mean and standard deviation.
    pub(super) fn weights(
        &mut self,
        name: &str,
        shape: &[i64],
        mean: f32,
        deviation: f32,
    ) -> String {
        let len: i64 = shape.iter().product();
        let reach = deviation * 3f32.sqrt();
        let values = (0..len).map(|_| mean + reach * self.rng.symmetric());
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        self.initializer(name, DataType::F32, shape, bytes)
    }

    /// A constant of integers.
    pub(super) fn integers(&mut self, name: &str, shape: &[i64], values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, DataType::I64, shape, bytes)
    }

    /// A scalar constant.
    pub(super) fn scalar(&mut self, name: &str, value: f32) -> String {
        self.initializer(name, DataType::F32, &[], value.to_le_bytes().to_vec())
    }

    fn initializer(
        &mut self,
        name: &str,
        data_type: DataType,
        shape: &[i64],
        bytes: Vec<u8>,
    ) -> String {
        self.proto.initializer.push(TensorProto {
            dims: shape.to_vec(),
            data_type: data_type as i32,
            name: name.to_owned(),
            raw_data: Some(Bytes::from(bytes)),
            ..TensorProto::default()
        });
        name.to_owned()
    }

    /// The file.
    pub(super) fn finish(self) -> Vec<u8> {
        let model = ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: "ov-bench".to_owned(),
            graph: Some(self.proto),
            opset_import: vec![OperatorSetId { domain: String::new(), version: OPSET }],
            functions: Vec::new(),
        };
        model.encode_to_vec()
    }
}

impl Attribute<'_> {
    fn proto(&self) -> AttributeProto {
        let named = |name: &str, kind: i32| AttributeProto {
            name: name.to_owned(),
            r#type: kind,
            ..AttributeProto::default()
        };
        match self {
            Self::Float(name, f) => AttributeProto { f: *f, ..named(name, 1) },
            Self::Int(name, i) => AttributeProto { i: *i, ..named(name, 2) },
            Self::Ints(name, ints) => AttributeProto { ints: ints.to_vec(), ..named(name, 7) },
        }
    }
}

fn value_info(name: &str, data_type: DataType, shape: &[i64]) -> ValueInfoProto {
    let dim = |d: &i64| DimensionProto { value: Some(DimensionKind::Value(*d)) };
    let kind = TypeKind::Tensor(TensorType {
        elem_type: data_type as i32,
        shape: Some(TensorShape { dim: shape.iter().map(dim).collect() }),
    });
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { value: Some(kind) }) }
}

/// `LayerNormalization` appeared in 17, which every current runtime reads.
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;
