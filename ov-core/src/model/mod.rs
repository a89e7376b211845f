//! The model graph: nodes with inferred types, inputs, outputs, and edits that keep it consistent.

mod digest;
mod display;
mod edit;
mod node;
mod order;
mod state;
mod verify;

use smallvec::SmallVec;

pub use node::{Node, NodeId, Use, Value};
pub use state::Variable;

use crate::{
    error::{ModelError, Result},
    op::{
        InferContext, InputInfo, Op, OpResult, OutputType,
        core::{Constant, Parameter},
    },
    tensor::{ElementType, PartialShape, Tensor},
};

/// A model output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelOutput {
    /// The value that is given out.
    pub value: Value,
    /// Its name.
    pub name: String,
}

/// A graph of operators with inferred element types and shapes.
///
/// ```
/// use ov_core::{ElementType, Model, op::activation::Relu};
///
/// let mut model = Model::new("rectify");
/// let x = model.add_parameter("x", ElementType::F32, [2, 3])?;
/// let y = model.add(Relu {}, &[x], "y")?;
/// model.add_output("y", y);
/// assert_eq!(model.output_shape(0).to_string(), "[2,3]");
/// # Ok::<(), ov_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Model {
    name: String,
    nodes: Vec<Option<Node>>,
    parameters: Vec<NodeId>,
    outputs: Vec<ModelOutput>,
    variables: Vec<Variable>,
}

impl Model {
    /// A model without nodes.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// A model with these inputs and outputs and nothing between them: all that is left of a body once it has been
    /// compiled.
    ///
    /// # Errors
    /// None today; the signature is that of [`Model::add`].
    pub fn signature(name: &str, inputs: &[OutputType], outputs: &[OutputType]) -> Result<Self> {
        let mut model = Self::new(name);
        for (i, ty) in inputs.iter().enumerate() {
            model.add_parameter(format!("input{i}"), ty.element_type, ty.shape.clone())?;
        }
        for (i, ty) in outputs.iter().enumerate() {
            let open = Parameter { element_type: ty.element_type, shape: ty.shape.clone() };
            let value = model.add(open, &[], format!("output{i}"))?;
            model.add_output(format!("output{i}"), value);
        }
        Ok(model)
    }

    /// The model's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.iter().flatten().count()
    }

    /// Whether there are no nodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Parameters in the order of the model's inputs; those of variables are last.
    #[must_use]
    pub fn parameters(&self) -> &[NodeId] {
        &self.parameters
    }

    /// The model's outputs; those of variables are last.
    #[must_use]
    pub fn outputs(&self) -> &[ModelOutput] {
        &self.outputs
    }

    /// Adds an input.
    ///
    /// # Errors
    /// None today; the signature is that of [`Model::add`].
    pub fn add_parameter(
        &mut self,
        name: impl Into<String>,
        element_type: ElementType,
        shape: impl Into<PartialShape>,
    ) -> Result<Value> {
        let id =
            self.add_node(Box::new(Parameter { element_type, shape: shape.into() }), &[], name)?;
        self.parameters.push(id);
        Ok(id.into())
    }

    /// Adds a constant.
    pub fn add_constant(&mut self, value: impl Into<Constant>, name: impl Into<String>) -> Value {
        let constant: Constant = value.into();
        let ty = OutputType::new(constant.value.element_type(), constant.value.shape().clone());
        self.push(Node {
            op: Box::new(constant),
            inputs: SmallVec::new(),
            outputs: SmallVec::from_elem(ty, 1),
            users: SmallVec::new(),
            name: name.into(),
        })
        .into()
    }

    /// Adds an operator of one output (or returns the first of several).
    ///
    /// # Errors
    /// [`ModelError::Op`] when the operator refuses its inputs or attributes.
    pub fn add(&mut self, op: impl Op, inputs: &[Value], name: impl Into<String>) -> Result<Value> {
        self.add_node(Box::new(op), inputs, name).map(Value::from)
    }

    /// Adds an operator.
    ///
    /// # Errors
    /// [`ModelError::Op`] when the operator refuses its inputs or attributes, [`ModelError::Graph`] when an input is
    /// not of this model.
    pub fn add_node(
        &mut self,
        op: Box<dyn Op>,
        inputs: &[Value],
        name: impl Into<String>,
    ) -> Result<NodeId> {
        let name = name.into();
        let outputs = self.infer_types(&*op, inputs, &name)?;
        let id = self.push(Node {
            op,
            inputs: SmallVec::from_slice(inputs),
            outputs: outputs.into(),
            users: SmallVec::new(),
            name,
        });
        for (i, value) in inputs.iter().enumerate() {
            self.node_mut(value.node).users.push((id, i as u32));
        }
        Ok(id)
    }

    fn push(&mut self, node: Node) -> NodeId {
        let id = NodeId(
            u32::try_from(self.nodes.len())
                .expect("a model of 2^32 nodes does not fit into memory"),
        );
        self.nodes.push(Some(node));
        id
    }

    /// Gives `value` out under `name`.
    pub fn add_output(&mut self, name: impl Into<String>, value: Value) {
        self.outputs.push(ModelOutput { value, name: name.into() });
    }

    /// The output types of `op` over `inputs`, without adding it.
    ///
    /// # Errors
    /// As [`Model::add_node`].
    pub fn infer_types(
        &self,
        op: &dyn Op,
        inputs: &[Value],
        name: &str,
    ) -> Result<Vec<OutputType>> {
        self.infer_with(inputs, |cx| op.infer(cx)).map_err(|source| {
            ModelError::Op { op: op.kind().to_string(), node: name.to_owned(), source }.into()
        })
    }

    fn infer_with(
        &self,
        inputs: &[Value],
        infer: impl FnOnce(&InferContext<'_>) -> OpResult<Vec<OutputType>>,
    ) -> OpResult<Vec<OutputType>> {
        let mut infos: SmallVec<[InputInfo<'_>; 4]> = SmallVec::new();
        for value in inputs {
            let Some((node, ty)) =
                self.get(value.node).and_then(|n| Some((n, n.outputs.get(value.output as usize)?)))
            else {
                return Err(crate::op::OpError::Invalid(format!(
                    "input {value} is not in this model"
                )));
            };
            infos.push(InputInfo {
                element_type: ty.element_type,
                shape: &ty.shape,
                value: node.constant(),
                dims: ty.dims.as_deref(),
            });
        }
        infer(&InferContext { inputs: &infos })
    }

    /// The node, if it has not been removed.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.index())?.as_ref()
    }

    /// The node.
    ///
    /// # Panics
    /// When the node was removed or belongs to another model; ids held across an edit are checked with [`Model::get`].
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        self.get(id).expect("the node was removed from the model")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.index()].as_mut().expect("the node was removed from the model")
    }

    /// Every node in the order of addition, which need not be an order of execution (see [`Model::topological_order`]).
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().filter_map(|(i, n)| n.as_ref().map(|n| (NodeId(i as u32), n)))
    }

    /// Type of a value.
    #[must_use]
    pub fn value_type(&self, value: Value) -> &OutputType {
        &self.node(value.node).outputs[value.output as usize]
    }

    /// Element type of a value.
    #[must_use]
    pub fn element_type(&self, value: Value) -> ElementType {
        self.value_type(value).element_type
    }

    /// Shape of a value.
    #[must_use]
    pub fn shape(&self, value: Value) -> &PartialShape {
        &self.value_type(value).shape
    }

    /// The tensor behind a value, if it is a constant.
    #[must_use]
    pub fn constant(&self, value: Value) -> Option<&Tensor> {
        self.get(value.node)?.constant()
    }

    /// Uses of one value by nodes; model outputs are not among them.
    pub fn uses(&self, value: Value) -> impl Iterator<Item = Use> + '_ {
        self.node(value.node)
            .users
            .iter()
            .copied()
            .filter(move |(user, input)| self.node(*user).inputs[*input as usize] == value)
    }

    /// Whether exactly one node input reads the value and it is no model output.
    #[must_use]
    pub fn has_single_use(&self, value: Value) -> bool {
        self.uses(value).count() == 1 && !self.is_output(value)
    }

    /// Whether the value is given out of the model.
    #[must_use]
    pub fn is_output(&self, value: Value) -> bool {
        self.outputs.iter().any(|o| o.value == value)
    }

    /// Name of input `index`.
    #[must_use]
    pub fn input_name(&self, index: usize) -> &str {
        self.node(self.parameters[index]).name()
    }

    /// Shape of output `index`.
    #[must_use]
    pub fn output_shape(&self, index: usize) -> &PartialShape {
        self.shape(self.outputs[index].value)
    }

    /// Whether any value has a dimension that is not known.
    #[must_use]
    pub fn is_dynamic(&self) -> bool {
        self.nodes().any(|(_, n)| n.outputs.iter().any(|o| !o.shape.is_static()))
    }
}
