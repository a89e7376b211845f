//! Kernels as the graph sees them: which operator each takes, what it packs, and the step that it becomes.

mod attention;
mod byte_weights;
mod chain;
mod convert;
mod convolution;
mod cost;
mod depthwise;
mod eltwise;
mod group_norm;
mod indexing;
mod integer;
mod integer_depthwise;
mod integer_lstm;
mod matmul;
mod movement;
mod pad;
mod pad_edge;
mod pooling;
mod predicate;
mod product;
mod quantize;
mod recurrent;
mod reference;
mod resize;
mod rows;
#[cfg(test)]
pub(crate) mod testing;
mod transposed;
mod trees;
mod view;

use std::{borrow::Cow, fmt, ops::Range};

use ov_core::{
    ElementType, PartialShape, Shape, Tensor,
    op::{Attribute, AttributeVisitor, Op, OpError, OpKind, OpResult, OutputType},
};

pub(crate) use chain::is_fusible;
pub(crate) use reference::{LentInput, Results, evaluate_lent};

use crate::{kernels::out::Out, simd::Isa, team::Barrier};

/// Why a kernel does not take a node, in words for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject(pub Cow<'static, str>);

impl From<&'static str> for Reject {
    fn from(reason: &'static str) -> Self {
        Self(reason.into())
    }
}

impl From<String> for Reject {
    fn from(reason: String) -> Self {
        Self(reason.into())
    }
}

/// One input of a node that is being compiled.
#[derive(Clone, Copy, Debug)]
pub struct InputDesc<'a> {
    /// Element type.
    pub element_type: ElementType,
    /// Shape as far as known.
    pub shape: &'a PartialShape,
    /// The value, if it is a constant.
    pub constant: Option<&'a Tensor>,
}

/// A node that is being compiled.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// The operator.
    pub op: &'a dyn Op,
    /// Its inputs.
    pub inputs: &'a [InputDesc<'a>],
    /// Types of its outputs.
    pub outputs: &'a [OutputType],
    /// The instruction set that kernels are chosen for.
    pub isa: Isa,
    /// Whether products may be computed in bf16.
    pub bf16: bool,
    /// Whether all weights of the model stay in the last-level cache from one inference to the next.
    pub weights_fit_cache: bool,
}

impl NodeView<'_> {
    /// Rejects the node unless every input and output is `f32`, the inputs in `except` aside.
    ///
    /// # Errors
    /// The reason.
    pub fn expect_f32(&self, except: &[usize]) -> Result<(), Reject> {
        let inputs = self
            .inputs
            .iter()
            .enumerate()
            .filter(|(i, _)| !except.contains(i))
            .map(|(_, i)| i.element_type);
        for ty in inputs.chain(self.outputs.iter().map(|o| o.element_type)) {
            if ty != ElementType::F32 {
                return Err(format!("takes f32, not {ty}").into());
            }
        }
        Ok(())
    }

    /// The constant behind input `index`.
    ///
    /// # Errors
    /// A rejection when it is computed at run time.
    pub fn constant(&self, index: usize) -> Result<&Tensor, Reject> {
        self.inputs
            .get(index)
            .and_then(|i| i.constant)
            .ok_or_else(|| format!("input {index} is not a constant").into())
    }

    /// Rank of input `index`.
    ///
    /// # Errors
    /// A rejection when it is not known.
    pub fn rank(&self, index: usize) -> Result<usize, Reject> {
        self.inputs
            .get(index)
            .and_then(|i| i.shape.rank())
            .ok_or_else(|| format!("the rank of input {index} is not known").into())
    }
}

/// Writes packed weights.
pub type Fill = Box<dyn FnOnce(&mut [u8]) + Send>;

/// Bytes to pack into the weights section.
pub struct Pack {
    /// How many.
    pub len: usize,
    /// Writes them.
    pub fill: Fill,
}

impl fmt::Debug for Pack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pack({})", self.len)
    }
}

impl Pack {
    /// `len` values of `f32`, written by `fill` into zeroed memory.
    pub fn f32s(len: usize, fill: impl FnOnce(&mut [f32]) + Send + 'static) -> Self {
        Self { len: len * 4, fill: Box::new(move |bytes| fill(bytemuck::cast_slice_mut(bytes))) }
    }
}

/// What a kernel keeps of a node that it takes.
#[derive(Debug, Default)]
pub struct Choice {
    /// Numbers for the binding.
    pub params: Vec<i64>,
    /// Packed weights, in the order in which the binding finds them.
    pub packed: Vec<Pack>,
    /// Inputs whose constants are needed in packed form only.
    pub consumed: Vec<usize>,
}

/// One input of a node that is being bound.
#[derive(Clone, Copy, Debug)]
pub struct BoundInput<'a> {
    /// Element type.
    pub element_type: ElementType,
    /// Shape.
    pub shape: &'a Shape,
    /// The value, when it is a constant or follows from shapes.
    pub value: Option<&'a Tensor>,
}

/// One output of a node that is being bound.
#[derive(Clone, Copy, Debug)]
pub struct BoundOutput<'a> {
    /// Element type.
    pub element_type: ElementType,
    /// Shape.
    pub shape: &'a Shape,
}

/// A node with concrete shapes.
#[derive(Clone, Copy, Debug)]
pub struct BindContext<'a> {
    /// The operator.
    pub op: &'a dyn Op,
    /// Its inputs.
    pub inputs: &'a [BoundInput<'a>],
    /// Its outputs.
    pub outputs: &'a [BoundOutput<'a>],
    /// Numbers from [`Choice::params`].
    pub params: &'a [i64],
    /// Packed weights as tensors of bytes.
    pub packed: &'a [Tensor],
    /// The instruction set.
    pub isa: Isa,
    /// Threads that will share the work.
    pub threads: usize,
}

impl BindContext<'_> {
    /// Packed weights `index` as `f32`; sharing memory with the blob.
    ///
    /// # Errors
    /// When there are no such weights.
    pub fn packed_f32(&self, index: usize) -> OpResult<Weights> {
        let bytes = self.packed.get(index).ok_or_else(|| {
            OpError::Invalid(format!("the program holds no packed weights {index}"))
        })?;
        Weights::new(bytes.clone())
    }
}

/// Packed `f32` weights, kept alive by the step that reads them.
#[derive(Clone, Debug)]
pub struct Weights(Tensor);

impl Weights {
    fn new(bytes: Tensor) -> OpResult<Self> {
        bytemuck::try_cast_slice::<u8, f32>(bytes.bytes())
            .map_err(|e| OpError::Invalid(format!("packed weights are not f32: {e}")))?;
        Ok(Self(bytes))
    }

    /// The values.
    #[must_use]
    pub fn get(&self) -> &[f32] {
        bytemuck::cast_slice(self.0.bytes())
    }
}

/// What a node becomes.
pub enum Bound {
    /// A step.
    Step(Box<dyn Step>),
    /// Nothing: output 0 is the memory of this input.
    Alias(usize),
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(s) => s.fmt(f),
            Self::Alias(i) => write!(f, "Alias({i})"),
        }
    }
}

impl Bound {
    /// A step.
    ///
    /// # Errors
    /// Never; the signature is that of [`Bind`].
    pub fn step(step: impl Step + 'static) -> OpResult<Self> {
        Ok(Self::Step(Box::new(step)))
    }
}

/// Work with everything resolved but the addresses.
pub trait Step: fmt::Debug + Send + Sync {
    /// Items of work that threads may share; 1 is work for one thread.
    fn items(&self) -> usize {
        1
    }

    /// Time of the whole on one thread, in nanoseconds, as a model of this processor estimates it.
    fn cost_ns(&self) -> f64;

    /// Bytes of scratch memory that a thread needs, at a 64-byte boundary.
    fn scratch_len(&self) -> usize {
        0
    }

    /// An input whose memory output 0 may take over when nobody reads it later: item for item, elements are read
    /// before they are written.
    fn in_place(&self) -> Option<usize> {
        None
    }

    /// Whether the threads wait for each other inside [`Step::run`] by [`Io::wait`]. As many items as threads are then
    /// run at once, one by each thread, or all of them by one thread.
    fn waits(&self) -> bool {
        false
    }

    /// Does the items of `range`. Items write disjoint parts of the outputs.
    ///
    /// # Errors
    /// When the values are not valid, for example an index out of range.
    fn run(&self, io: &Io<'_>, range: Range<usize>, scratch: &mut [u8]) -> OpResult<()>;
}

/// The memory of one step's inputs and outputs.
#[derive(Clone, Copy, Debug)]
pub struct Io<'a> {
    pub(crate) addresses: &'a [*mut u8],
    pub(crate) lens: &'a [usize],
    pub(crate) inputs: &'a [u32],
    pub(crate) outputs: &'a [u32],
    /// Of the threads that run the step at once.
    pub(crate) barrier: Option<&'a Barrier>,
}

impl<'a> Io<'a> {
    /// Number of inputs.
    #[must_use]
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Input `index`. `Boolean` is `u8`.
    #[must_use]
    pub fn input<T: bytemuck::Pod>(&self, index: usize) -> &'a [T] {
        view::slice(self, self.inputs[index])
    }

    /// Where input `index` begins, for steps whose output may take its memory over: no reference to it may live while
    /// other threads write.
    #[must_use]
    pub fn input_address<T: bytemuck::Pod>(&self, index: usize) -> *const T {
        self.addresses[self.inputs[index] as usize].cast_const().cast()
    }

    /// Returns when every thread of a step that [`Step::waits`] is here; false when one of them failed.
    #[must_use]
    pub fn wait(&self) -> bool {
        self.barrier.is_none_or(Barrier::wait)
    }

    /// Whether an output has taken over the memory of an input (see [`Step::in_place`]).
    #[must_use]
    pub fn shares_memory(&self, input: usize, output: usize) -> bool {
        self.inputs[input] == self.outputs[output]
    }

    /// Output `index`, of which each item writes its part.
    #[must_use]
    pub fn output<T: bytemuck::Pod>(&self, index: usize) -> Out<'a, T> {
        view::out(self, self.outputs[index])
    }
}

/// Takes a node, or says why not.
pub type Select = fn(&NodeView<'_>) -> Result<Choice, Reject>;
/// Makes a step of a node with concrete shapes.
pub type Bind = fn(&BindContext<'_>) -> OpResult<Bound>;

/// A kernel as the graph sees it.
pub struct KernelEntry {
    /// Name in blobs, logs and profiles: `{op}_{types}_{variant}`.
    pub name: &'static str,
    /// Operators that it may take; none is any operator.
    pub ops: &'static [OpKind],
    /// Takes a node, or says why not.
    pub select: Select,
    /// Makes a step of a node with concrete shapes.
    pub bind: Bind,
}

impl fmt::Debug for KernelEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every kernel, the more specific ones of an operator first, the reference evaluation last.
const FAMILIES: &[&[KernelEntry]] = &[
    depthwise::KERNELS,
    convolution::KERNELS,
    transposed::KERNELS,
    matmul::KERNELS,
    integer_depthwise::KERNELS,
    integer::KERNELS,
    integer_lstm::KERNELS,
    quantize::KERNELS,
    pooling::KERNELS,
    movement::KERNELS,
    pad::KERNELS,
    pad_edge::KERNELS,
    indexing::KERNELS,
    chain::KERNELS,
    eltwise::KERNELS,
    predicate::KERNELS,
    convert::KERNELS,
    rows::KERNELS,
    group_norm::KERNELS,
    attention::KERNELS,
    resize::KERNELS,
    trees::KERNELS,
    product::KERNELS,
    recurrent::KERNELS,
    reference::KERNELS,
];

/// Every kernel in order of preference.
pub fn all() -> impl Iterator<Item = &'static KernelEntry> {
    FAMILIES.iter().copied().flatten()
}

/// The kernel called `name`.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static KernelEntry> {
    all().find(|k| k.name == name)
}

/// The first kernel that takes the node, with what it keeps, or every candidate's reason.
///
/// # Errors
/// The reasons, `name: reason; …`.
pub fn select(view: &NodeView<'_>) -> Result<(&'static KernelEntry, Choice), String> {
    let kind = view.op.kind();
    let mut reasons = Vec::new();
    for entry in all().filter(|e| e.ops.is_empty() || e.ops.contains(&kind)) {
        match (entry.select)(view) {
            Ok(choice) => {
                tracing::debug!(op = kind.name, kernel = entry.name, rejected = ?reasons, "kernel chosen");
                return Ok((entry, choice));
            }
            Err(Reject(reason)) => reasons.push(format!("{}: {reason}", entry.name)),
        }
    }
    Err(reasons.join("; "))
}

/// The `axis` attribute of an operator.
pub(crate) fn axis_of(op: &dyn Op) -> OpResult<i64> {
    struct Axis(Option<i64>);
    impl AttributeVisitor for Axis {
        fn visit(&mut self, name: &'static str, attribute: Attribute<'_>) -> OpResult<()> {
            if let ("axis", Attribute::I64(v)) = (name, attribute) {
                self.0 = Some(*v);
            }
            Ok(())
        }
    }
    let mut axis = Axis(None);
    op.clone_box().visit_attributes(&mut axis)?;
    axis.0.ok_or_else(|| OpError::Invalid("the operator has no axis".to_owned()))
}
