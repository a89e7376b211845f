//! Composition: converters that write other ONNX operators, at one fixed opset whatever the model imports.

use super::{
    context::{ConvertError, ConvertResult, NodeContext},
    proto::{AttributeProto, NodeProto},
};
use crate::{model::Value, op::OpError};

/// Opset of the operators that converters write.
pub(super) const COMPOSED_OPSET: i64 = 24;

/// The value of an attribute of a composed operator.
#[derive(Clone, Copy, Debug)]
pub enum Attr<'a> {
    /// An integer.
    Int(i64),
    /// A number.
    Float(f32),
    /// A list of integers.
    Ints(&'a [i64]),
    /// A text.
    Text(&'a str),
}

impl Attr<'_> {
    /// The attribute as it would be in a file.
    #[must_use]
    pub fn to_proto(self, name: &str) -> AttributeProto {
        let mut proto = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
        match self {
            Self::Float(f) => (proto.r#type, proto.f) = (1, f),
            Self::Int(i) => (proto.r#type, proto.i) = (2, i),
            Self::Text(s) => (proto.r#type, proto.s) = (3, s.to_owned().into()),
            Self::Ints(list) => (proto.r#type, proto.ints) = (7, list.to_vec()),
        }
        proto
    }
}

impl NodeContext<'_, '_> {
    /// Adds an `ai.onnx` operator of opset 24 and gives its outputs.
    ///
    /// # Errors
    /// When the operator refuses its inputs or attributes.
    pub fn compose_multi(
        &mut self,
        op: &str,
        inputs: &[Value],
        attributes: &[(&str, Attr<'_>)],
        outputs: usize,
    ) -> ConvertResult {
        let attributes = attributes.iter().map(|(n, a)| a.to_proto(n)).collect();
        self.compose_with(op, inputs, attributes, outputs)
    }

    /// As [`NodeContext::compose_multi`], with attributes as they are in a file, such as the node's own.
    ///
    /// # Errors
    /// When the operator refuses its inputs or attributes.
    pub fn compose_with(
        &mut self,
        op: &str,
        inputs: &[Value],
        attributes: Vec<AttributeProto>,
        outputs: usize,
    ) -> ConvertResult {
        let names: Vec<String> = (0..inputs.len()).map(|i| format!("input{i}")).collect();
        let outputs: Vec<String> = (0..outputs).map(|i| format!("output{i}")).collect();
        let node = NodeProto {
            input: names.clone(),
            output: outputs.clone(),
            name: self.name(),
            op_type: op.to_owned(),
            attribute: attributes,
            ..NodeProto::default()
        };
        let bound: Vec<(&str, Value)> =
            names.iter().map(String::as_str).zip(inputs.iter().copied()).collect();
        let wanted: Vec<&str> = outputs.iter().map(String::as_str).collect();
        self.converter
            .convert_inline(&[node], &bound, &wanted, Some(COMPOSED_OPSET))
            .map_err(ConvertError::from)
    }

    /// Adds an `ai.onnx` operator of opset 24 and gives its first output.
    ///
    /// # Errors
    /// When the operator refuses its inputs or attributes.
    pub fn compose(
        &mut self,
        op: &str,
        inputs: &[Value],
        attributes: &[(&str, Attr<'_>)],
    ) -> Result<Value, ConvertError> {
        Ok(self.compose_multi(op, inputs, attributes, 1)?[0])
    }

    /// Exchanges axes.
    ///
    /// # Errors
    /// When `order` is not a permutation of the axes.
    pub fn transpose(&mut self, value: Value, order: &[i64]) -> Result<Value, ConvertError> {
        self.compose("Transpose", &[value], &[("perm", Attr::Ints(order))])
    }

    /// Gives a value another shape, with ONNX's meaning of 0 and -1.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshape(&mut self, value: Value, shape: &[i64]) -> Result<Value, ConvertError> {
        let shape = self.i64s_constant(shape);
        self.compose("Reshape", &[value, shape], &[])
    }

    /// Converts the nodes of a graph attribute of one input and one output in place, with `argument` as the input.
    ///
    /// # Errors
    /// When the graph has another form or a node cannot be converted.
    pub fn call_graph(
        &mut self,
        name: &'static str,
        argument: Value,
    ) -> Result<Value, ConvertError> {
        let graph = self.graph(name)?;
        let ([input], [output]) = (&graph.input[..], &graph.output[..]) else {
            return Err(OpError::Invalid(format!(
                "graph {name} has {} inputs and {} outputs, expected one of each",
                graph.input.len(),
                graph.output.len()
            ))
            .into());
        };
        let mut bound = vec![(input.name.as_str(), argument)];
        for initializer in &graph.initializer {
            let value = super::tensor::convert(initializer, self.external())?;
            bound.push((initializer.name.as_str(), self.constant(value)));
        }
        let given = self.convert_nodes(&graph.node, &bound, &[output.name.as_str()])?;
        Ok(given[0])
    }

    /// The node's own attributes that are named, as they are in the file.
    #[must_use]
    pub fn own_attributes(&self, names: &[&str]) -> Vec<AttributeProto> {
        names
            .iter()
            .filter_map(|n| self.attribute(n))
            .map(|a| AttributeProto { ref_attr_name: String::new(), ..a.clone() })
            .collect()
    }
}
