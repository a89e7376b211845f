//! A builder of small ONNX files, valid and otherwise.

use ov_core::frontend::onnx::proto::{
    AttributeProto, DimensionKind, DimensionProto, FunctionProto, GraphProto, ModelProto,
    NodeProto, OperatorSetId, StringStringEntry, TensorProto, TensorShape, TensorType, TypeKind,
    TypeProto, ValueInfoProto,
};
use prost::Message as _;

pub(crate) const F32: i32 = 1;
pub(crate) const I64: i32 = 7;
pub(crate) const BOOL: i32 = 9;

/// A graph under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph(pub(crate) GraphProto);

impl Graph {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// An input of a type and shape; -1 is an unknown extent.
    pub(crate) fn input(mut self, name: &str, ty: i32, dims: &[i64]) -> Self {
        self.0.input.push(value_info(name, ty, dims));
        self
    }

    pub(crate) fn output(mut self, name: &str) -> Self {
        self.0.output.push(ValueInfoProto { name: name.into(), r#type: None });
        self
    }

    pub(crate) fn node(
        mut self,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[Attr],
    ) -> Self {
        self.0.node.push(node(op, inputs, outputs, attributes));
        self
    }

    pub(crate) fn domain(mut self, domain: &str) -> Self {
        if let Some(last) = self.0.node.last_mut() {
            last.domain = domain.into();
        }
        self
    }

    pub(crate) fn f32s(self, name: &str, dims: &[i64], value: impl Fn(usize) -> f32) -> Self {
        let count = dims.iter().product::<i64>().max(0) as usize;
        let bytes: Vec<u8> = (0..count).flat_map(|i| value(i).to_ne_bytes()).collect();
        self.tensor(tensor(name, F32, dims, bytes))
    }

    pub(crate) fn i64s(self, name: &str, values: &[i64]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
        self.tensor(tensor(name, I64, &[values.len() as i64], bytes))
    }

    pub(crate) fn i64(self, name: &str, value: i64) -> Self {
        self.tensor(tensor(name, I64, &[], value.to_ne_bytes().to_vec()))
    }

    pub(crate) fn tensor(mut self, tensor: TensorProto) -> Self {
        self.0.initializer.push(tensor);
        self
    }

    /// The file, of opset 17.
    pub(crate) fn bytes(self) -> Vec<u8> {
        self.model(17).encode_to_vec()
    }

    pub(crate) fn model(self, opset: i64) -> ModelProto {
        ModelProto {
            ir_version: Some(8),
            graph: Some(self.0),
            opset_import: vec![
                OperatorSetId { domain: String::new(), version: opset },
                OperatorSetId { domain: "local".into(), version: 1 },
                OperatorSetId { domain: "com.microsoft".into(), version: 1 },
            ],
            ..ModelProto::default()
        }
    }
}

pub(crate) fn value_info(name: &str, ty: i32, dims: &[i64]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|d| DimensionProto {
            value: if *d == -1 { None } else { Some(DimensionKind::Value(*d)) },
        })
        .collect();
    let tensor = TensorType { elem_type: ty, shape: Some(TensorShape { dim }) };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { value: Some(TypeKind::Tensor(tensor)) }),
    }
}

pub(crate) fn tensor(name: &str, ty: i32, dims: &[i64], raw: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: ty,
        dims: dims.to_vec(),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}

/// A tensor whose bytes are said to lie in another file.
pub(crate) fn external(entries: &[(&str, &str)]) -> TensorProto {
    TensorProto {
        name: "w".into(),
        data_type: F32,
        dims: vec![4],
        data_location: 1,
        external_data: entries
            .iter()
            .map(|(k, v)| StringStringEntry { key: (*k).into(), value: (*v).into() })
            .collect(),
        ..TensorProto::default()
    }
}

pub(crate) fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Attr]) -> NodeProto {
    let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect();
    NodeProto {
        op_type: op.into(),
        input: texts(inputs),
        output: texts(outputs),
        attribute: attributes.iter().map(Attr::proto).collect(),
        ..NodeProto::default()
    }
}

pub(crate) fn function(name: &str, nodes: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: name.into(),
        domain: "local".into(),
        input: vec!["x".into()],
        output: vec!["y".into()],
        node: nodes,
        opset_import: vec![
            OperatorSetId { domain: String::new(), version: 17 },
            OperatorSetId { domain: "local".into(), version: 1 },
        ],
        ..FunctionProto::default()
    }
}

/// A call of a function of the file.
pub(crate) fn call(name: &str, input: &str, output: &str) -> NodeProto {
    NodeProto { domain: "local".into(), ..node(name, &[input], &[output], &[]) }
}

/// An attribute.
#[derive(Clone, Debug)]
pub(crate) enum Attr {
    Int(&'static str, i64),
    Ints(&'static str, Vec<i64>),
    Float(&'static str, f32),
    Text(&'static str, &'static str),
    Tensor(&'static str, TensorProto),
    Graph(&'static str, Graph),
}

pub(crate) fn int(name: &'static str, value: i64) -> Attr {
    Attr::Int(name, value)
}

pub(crate) fn ints(name: &'static str, values: &[i64]) -> Attr {
    Attr::Ints(name, values.to_vec())
}

pub(crate) fn text(name: &'static str, value: &'static str) -> Attr {
    Attr::Text(name, value)
}

impl Attr {
    pub(crate) fn proto(&self) -> AttributeProto {
        let mut a = AttributeProto::default();
        match self.clone() {
            Self::Int(n, v) => (a.name, a.r#type, a.i) = (n.into(), 2, v),
            Self::Ints(n, v) => (a.name, a.r#type, a.ints) = (n.into(), 7, v),
            Self::Float(n, v) => (a.name, a.r#type, a.f) = (n.into(), 1, v),
            Self::Text(n, v) => (a.name, a.r#type, a.s) = (n.into(), 3, v.as_bytes().into()),
            Self::Tensor(n, v) => (a.name, a.r#type, a.t) = (n.into(), 4, Some(v)),
            Self::Graph(n, v) => (a.name, a.r#type, a.g) = (n.into(), 5, Some(v.0)),
        }
        a
    }
}
