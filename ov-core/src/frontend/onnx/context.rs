//! What a converter of one ONNX operator sees: the node's inputs and attributes, and the model to add to.

use std::{cell::Cell, collections::HashMap, rc::Rc};

use super::{
    convert::Converter,
    proto::{AttributeProto, GraphProto, NodeProto},
};
use crate::{
    error::{Error, ModelError},
    io::ExternalFiles,
    model::{Model, Value},
    op::{Op, OpError},
    tensor::{ElementType, PartialShape, Tensor},
};

/// Why a node could not be converted.
#[derive(Debug)]
pub enum ConvertError {
    /// The node is used wrongly; the reader adds which one it is.
    Op(OpError),
    /// An error that already says where it happened.
    Other(Error),
}

impl From<OpError> for ConvertError {
    fn from(e: OpError) -> Self {
        Self::Op(e)
    }
}

impl From<crate::tensor::TensorError> for ConvertError {
    fn from(e: crate::tensor::TensorError) -> Self {
        Self::Op(e.into())
    }
}

impl From<Error> for ConvertError {
    fn from(e: Error) -> Self {
        match e {
            Error::Model(m) => match *m {
                ModelError::Op { source, .. } => Self::Op(source),
                other => Self::Other(other.into()),
            },
            other => Self::Other(other),
        }
    }
}

/// The outputs of a converted node.
pub type ConvertResult = Result<Vec<Value>, ConvertError>;

/// One ONNX node under conversion.
#[derive(Debug)]
pub struct NodeContext<'a, 'c> {
    pub(super) converter: &'a mut Converter<'c>,
    pub(super) node: &'a NodeProto,
    pub(super) inputs: Vec<Option<Value>>,
    pub(super) function_attributes: Rc<HashMap<String, AttributeProto>>,
    pub(super) opset: i64,
    /// Inputs that the converter has asked for: 0 up to here.
    pub(super) asked: Cell<usize>,
}

impl NodeContext<'_, '_> {
    /// Version of the node's domain that the model imports.
    #[must_use]
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Operator name.
    #[must_use]
    pub fn op_type(&self) -> &str {
        &self.node.op_type
    }

    /// Name for the operators that the node becomes: its own, or its first output's.
    #[must_use]
    pub fn name(&self) -> String {
        let first = self.node.output.iter().find(|o| !o.is_empty());
        if self.node.name.is_empty() {
            first.cloned().unwrap_or_default()
        } else {
            self.node.name.clone()
        }
    }

    /// Whether a converter wrote the node as part of another operator, so that the file does not hold it.
    #[must_use]
    pub fn is_composed(&self) -> bool {
        self.converter.frames.0.last().and_then(|f| f.scopes.last()).is_some_and(|s| s.composed)
    }

    /// Number of inputs written in the file, missing ones included.
    #[must_use]
    pub fn input_count(&self) -> usize {
        self.asked.set(self.inputs.len());
        self.inputs.len()
    }

    /// An error if the file gives inputs that the converter never asked for: the operator has none there.
    pub(super) fn expect_inputs_asked(&self) -> Result<(), ConvertError> {
        let given = self.inputs.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
        let asked = self.asked.get();
        if given <= asked {
            return Ok(());
        }
        Err(OpError::InputCount { got: given, expected: format!("at most {asked}") }.into())
    }

    /// Number of outputs written in the file.
    #[must_use]
    pub fn output_count(&self) -> usize {
        self.node.output.len()
    }

    /// Whether output `index` is named, so somebody may read it.
    #[must_use]
    pub fn wants_output(&self, index: usize) -> bool {
        self.node.output.get(index).is_some_and(|o| !o.is_empty())
    }

    /// Input `index`.
    ///
    /// # Errors
    /// When it is missing.
    pub fn input(&self, index: usize) -> Result<Value, ConvertError> {
        self.optional_input(index).ok_or_else(|| {
            OpError::InputCount {
                got: self.inputs.len(),
                expected: format!("input {index} to be given"),
            }
            .into()
        })
    }

    /// Input `index`, unless it is left out.
    #[must_use]
    pub fn optional_input(&self, index: usize) -> Option<Value> {
        self.asked.set(self.asked.get().max(index + 1));
        self.inputs.get(index).copied().flatten()
    }

    /// Every input; ones left out become [`Tensor::absent`], trailing ones are dropped.
    pub fn all_inputs(&mut self) -> Vec<Value> {
        self.asked.set(self.inputs.len());
        let inputs = self.inputs.clone();
        let last = inputs.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
        inputs[..last]
            .iter()
            .map(|v| v.unwrap_or_else(|| self.constant(Tensor::absent())))
            .collect()
    }

    /// The model under construction.
    #[must_use]
    pub fn model(&mut self) -> &mut Model {
        &mut self.converter.frames.top().model
    }

    fn model_ref(&self) -> &Model {
        &self.converter.frames.0[self.converter.frames.0.len() - 1].model
    }

    /// Adds an operator and gives its first output.
    ///
    /// # Errors
    /// When the operator refuses its inputs or attributes.
    pub fn add(&mut self, op: impl Op, inputs: &[Value]) -> Result<Value, ConvertError> {
        let name = self.name();
        Ok(self.model().add(op, inputs, name)?)
    }

    /// Adds an operator and gives all its outputs.
    ///
    /// # Errors
    /// When the operator refuses its inputs or attributes.
    pub fn add_multi(&mut self, op: impl Op, inputs: &[Value]) -> ConvertResult {
        let name = self.name();
        let model = self.model();
        let node = model.add_node(Box::new(op), inputs, name)?;
        let count = model.node(node).outputs().len() as u32;
        Ok((0..count).map(|output| Value { node, output }).collect())
    }

    /// Adds a constant.
    pub fn constant(&mut self, value: Tensor) -> Value {
        let name = self.name();
        self.model().add_constant(value, name)
    }

    /// Adds a constant list of integers, the usual form of axes and shapes.
    pub fn i64s_constant(&mut self, values: &[i64]) -> Value {
        self.constant(Tensor::from_i64s(values))
    }

    /// Adds a scalar constant of the same element type as `like`.
    ///
    /// # Errors
    /// When that type is not a native numeric one.
    pub fn scalar_like(&mut self, value: f64, like: Value) -> Result<Value, ConvertError> {
        let ty = self.element_type(like);
        let tensor = Tensor::scalar(value).cast(ty)?;
        Ok(self.constant(tensor))
    }

    /// Element type of a value.
    #[must_use]
    pub fn element_type(&self, value: Value) -> ElementType {
        self.model_ref().element_type(value)
    }

    /// Shape of a value as far as known.
    #[must_use]
    pub fn shape(&self, value: Value) -> PartialShape {
        self.model_ref().shape(value).clone()
    }

    /// Rank of a value.
    ///
    /// # Errors
    /// When it is not known.
    pub fn rank(&self, value: Value) -> Result<usize, ConvertError> {
        self.shape(value)
            .rank()
            .ok_or_else(|| OpError::Unsupported("an input of unknown rank".to_owned()).into())
    }

    /// The tensor behind a value, if it is a constant.
    #[must_use]
    pub fn constant_value(&self, value: Value) -> Option<Tensor> {
        self.model_ref().constant(value).cloned()
    }

    /// The integers behind input `index`: an attribute in older opsets, a constant input in newer ones.
    ///
    /// # Errors
    /// When the input is given but not a constant of integers.
    pub fn constant_i64s(&self, index: usize) -> Result<Option<Vec<i64>>, ConvertError> {
        let Some(value) = self.optional_input(index) else { return Ok(None) };
        let tensor = self.constant_value(value).ok_or_else(|| OpError::Input {
            index,
            got: "a value computed at run time".to_owned(),
            expected: "a constant".to_owned(),
        })?;
        Ok(Some(tensor.to_i64_vec()?))
    }

    /// How many graphs inside each other are under construction; 1 in the main graph.
    #[must_use]
    pub fn graph_depth(&self) -> usize {
        self.converter.frames.0.len()
    }

    /// External files of the model.
    #[must_use]
    pub fn external(&self) -> &ExternalFiles {
        self.converter.external
    }

    /// Converts a nested graph. `parameters` are the types of its inputs, in order (more precise than the file's).
    /// Gives the body, whose parameters are the graph's inputs followed by one per captured value, and the captured
    /// values of the surrounding graph in that order.
    ///
    /// # Errors
    /// When a node of the graph cannot be converted.
    pub fn convert_body(
        &mut self,
        graph: &GraphProto,
        parameters: &[(ElementType, PartialShape)],
    ) -> Result<(Model, Vec<Value>), ConvertError> {
        self.converter
            .convert_body(graph, parameters, &self.function_attributes)
            .map_err(ConvertError::from)
    }

    /// Converts ONNX nodes written by a converter, as for operators that the specification defines by a function
    /// body: `inputs` name the values that the nodes read, and the values called `outputs` are given.
    ///
    /// # Errors
    /// When a node cannot be converted.
    pub fn convert_nodes(
        &mut self,
        nodes: &[NodeProto],
        inputs: &[(&str, Value)],
        outputs: &[&str],
    ) -> ConvertResult {
        self.converter.convert_inline(nodes, inputs, outputs, None).map_err(ConvertError::from)
    }
}
