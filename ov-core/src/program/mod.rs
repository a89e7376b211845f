//! The program: what a device's blob holds of a compiled model, without reference to the model that it came from.

mod arena;
mod build;
mod decode;
mod encode;

use std::{fmt, ops::Range, sync::Arc};

use crate::{
    ElementType, PartialShape, Tensor,
    op::{Op, OpKind},
    tensor::TensorBuffer,
};

pub use arena::{Lifetime, place};
pub use build::{Fill, Lowering, Selected, build};
pub use decode::decode;
pub use encode::{TENSOR_ALIGNMENT, Weights, encode};

/// What a device writes about how it runs a node: a kernel, which blobs hold by its name.
pub trait Kernel: Copy + fmt::Debug + Send + Sync + 'static {
    /// Its name, unique in this device.
    fn name(self) -> &'static str;

    /// The kernel of a name.
    fn by_name(name: &str) -> Option<Self>;

    /// Whether it may run operators of this kind.
    fn takes(self, kind: OpKind) -> bool;
}

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
pub struct NodeDesc<K> {
    /// The operator.
    pub op: Box<dyn Op>,
    /// The kernel.
    pub kernel: K,
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
    pub bodies: Vec<Program<K>>,
}

/// Operators in order of execution, with kernels chosen and weights packed.
#[derive(Clone, Debug)]
pub struct Program<K> {
    /// The model's name.
    pub name: String,
    /// Every value.
    pub values: Vec<ValueDesc>,
    /// Inputs in the model's order.
    pub inputs: Vec<Port>,
    /// Outputs in the model's order.
    pub outputs: Vec<Port>,
    /// Nodes in order of execution.
    pub nodes: Vec<NodeDesc<K>>,
}

impl<K> Default for Program<K> {
    fn default() -> Self {
        Self {
            name: String::new(),
            values: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            nodes: Vec::new(),
        }
    }
}

/// The packed weights of a program: bytes in memory or in a mapped file.
#[derive(Clone)]
pub struct WeightBytes(pub Arc<dyn TensorBuffer>);

impl fmt::Debug for WeightBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeightBytes({})", self.0.bytes().len())
    }
}

impl WeightBytes {
    /// A tensor over a range of the weights, without copying.
    ///
    /// # Errors
    /// When the range does not fit the type and shape.
    pub fn tensor(
        &self,
        element_type: ElementType,
        shape: impl Into<crate::Shape>,
        range: &Range<usize>,
    ) -> Result<Tensor, crate::tensor::TensorError> {
        Tensor::from_buffer_range(element_type, shape, Arc::clone(&self.0), range.clone())
    }
}
