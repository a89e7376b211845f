//! The program: what a blob holds of a compiled model, without reference to the model that it came from.

mod decode;
mod encode;

use std::{ops::Range, sync::Arc};

use ov_core::{ElementType, PartialShape, Tensor, op::Op, tensor::TensorBuffer};

pub use decode::decode;
pub use encode::{Weights, encode};

use crate::nodes::KernelEntry;

/// Index of a value in [`Program::values`].
pub type ValueId = u32;

/// A value between nodes.
#[derive(Clone, Debug)]
pub struct ValueDesc {
    /// Element type.
    pub element_type: ElementType,
    /// Shape as far as known when the model was compiled.
    pub shape: PartialShape,
    /// Where the value comes from when no node makes it.
    pub constant: Constant,
}

/// Whether a value is a constant.
#[derive(Clone, Debug, Default)]
pub enum Constant {
    /// A node or an input gives it.
    #[default]
    No,
    /// Its bytes in the weights.
    Stored(Range<usize>),
    /// Texts, or the absent marker: held by the program itself.
    Held(Tensor),
    /// Only packed forms of it are stored.
    Packed,
}

/// A model input or output.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: ValueId,
}

/// A node with the kernel that was chosen for it.
#[derive(Clone, Debug)]
pub struct NodeDesc {
    /// The operator.
    pub op: Box<dyn Op>,
    /// The kernel.
    pub kernel: &'static KernelEntry,
    /// Friendly name.
    pub name: String,
    /// Inputs.
    pub inputs: Vec<ValueId>,
    /// Outputs.
    pub outputs: Vec<ValueId>,
    /// What the kernel noted when it was chosen.
    pub params: Vec<i64>,
    /// Packed weights, as ranges of the weights section.
    pub packed: Vec<Range<usize>>,
    /// Bodies of a control-flow operator.
    pub bodies: Vec<Program>,
}

/// Operators in order of execution, with kernels chosen and weights packed.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The model's name.
    pub name: String,
    /// Every value.
    pub values: Vec<ValueDesc>,
    /// Inputs in the model's order.
    pub inputs: Vec<Port>,
    /// Outputs in the model's order.
    pub outputs: Vec<Port>,
    /// Nodes in order of execution.
    pub nodes: Vec<NodeDesc>,
}

/// The packed weights of a program: bytes in memory or in a mapped file.
#[derive(Clone)]
pub struct WeightBytes(pub Arc<dyn TensorBuffer>);

impl std::fmt::Debug for WeightBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WeightBytes({})", self.0.bytes().len())
    }
}

impl WeightBytes {
    /// A tensor over a range of the weights, without copying.
    pub(crate) fn tensor(
        &self,
        element_type: ElementType,
        shape: impl Into<ov_core::Shape>,
        range: &Range<usize>,
    ) -> Result<Tensor, ov_core::tensor::TensorError> {
        Tensor::from_buffer_range(element_type, shape, Arc::clone(&self.0), range.clone())
    }
}
