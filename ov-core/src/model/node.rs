//! Nodes of a model and the values between them.

use std::fmt;

use smallvec::SmallVec;

use crate::{
    op::{Op, OutputType, core::Constant},
    tensor::{ElementType, PartialShape, Tensor},
};

/// A node of a [`Model`](super::Model); stays valid while other nodes come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) u32);

impl NodeId {
    /// Position of the node in the model's list.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node.
    pub node: NodeId,
    /// Index among the node's outputs.
    pub output: u32,
}

impl From<NodeId> for Value {
    /// The first output.
    fn from(node: NodeId) -> Self {
        Self { node, output: 0 }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.output {
            0 => write!(f, "%{}", self.node.0),
            n => write!(f, "%{}.{n}", self.node.0),
        }
    }
}

/// A use of a value: the consuming node and the index of its input.
pub type Use = (NodeId, u32);

/// An operator in a model: its attributes, where its inputs come from, and what it gives.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) op: Box<dyn Op>,
    pub(super) inputs: SmallVec<[Value; 3]>,
    pub(super) outputs: SmallVec<[OutputType; 1]>,
    pub(super) users: SmallVec<[Use; 2]>,
    pub(super) name: String,
}

impl Node {
    /// The operator.
    #[must_use]
    pub fn op(&self) -> &dyn Op {
        &*self.op
    }

    /// The operator, if it is of type `T`.
    #[must_use]
    pub fn op_as<T: Op>(&self) -> Option<&T> {
        self.op.downcast()
    }

    /// Where the inputs come from.
    #[must_use]
    pub fn inputs(&self) -> &[Value] {
        &self.inputs
    }

    /// Types of the outputs.
    #[must_use]
    pub fn outputs(&self) -> &[OutputType] {
        &self.outputs
    }

    /// Friendly name; unique names are not required.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every use of any output, in no particular order. Model outputs are not among them.
    #[must_use]
    pub fn users(&self) -> &[Use] {
        &self.users
    }

    /// The value, if the node is a constant.
    #[must_use]
    pub fn constant(&self) -> Option<&Tensor> {
        self.op_as::<Constant>().map(|c| &*c.value)
    }

    /// Element type of output `index`.
    #[must_use]
    pub fn element_type(&self, index: usize) -> ElementType {
        self.outputs.get(index).map_or(ElementType::Dynamic, |o| o.element_type)
    }

    /// Shape of output `index`.
    #[must_use]
    pub fn shape(&self, index: usize) -> PartialShape {
        self.outputs.get(index).map_or_else(PartialShape::dynamic, |o| o.shape.clone())
    }
}
