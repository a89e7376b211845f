//! Kernels as the graph sees them: which node each takes, what it packs, and the launches that a node becomes.

mod affine;
mod attention;
mod cache;
mod convolution;
mod copy;
mod dynamic_quantize;
mod element;
mod eltwise;
mod gather;
mod generate;
mod grid;
mod host;
mod integer;
mod linear;
mod lrn;
mod matmul;
mod movement;
mod normalize;
mod pad;
mod parts;
mod pool;
mod product;
mod recurrence;
mod reduce;
mod resize;
mod scan;
mod scatter;
mod softmax;
#[cfg(test)]
pub(crate) mod tests;
mod topk;
mod walk;

#[cfg(test)]
pub(crate) mod ladder {
    //! The modules of families, for the test that compiles every one of them.
    pub(crate) use super::{
        attention::ladder as attention, convolution::ladder as convolution,
        integer::ladder as integer, linear::ladder as linear, matmul::ladder as matmul,
        product::ladder as product, recurrence::ladder as recurrence,
    };
}

use std::borrow::Cow;

use ov_core::{
    ElementType, PartialShape, Shape, Tensor,
    op::{Op, OutputType},
};

pub(crate) use eltwise::is_fusible;
pub(crate) use integer::moves_bytes;

/// Why a kernel does not take a node, in words for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reject(pub(crate) Cow<'static, str>);

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

/// The GPU that kernels are chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// Compute capability, major and minor: (9, 0) is Hopper.
    pub(crate) capability: (u32, u32),
    /// Streaming multiprocessors.
    pub(crate) multiprocessors: u32,
    /// Shared memory that one block may use when it asks for more than the default, in bytes.
    pub(crate) shared_per_block: u32,
}

/// The text of a module: a file of `kernels/cuda` behind `#define`s. Equal sources share one compiled module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Source {
    /// Body, without the wrappers of `ov_dev.cuh`, which every module begins with.
    pub(crate) body: Cow<'static, str>,
    /// Names and values that are defined before the body.
    pub(crate) defines: Vec<(&'static str, String)>,
}

impl Source {
    /// The defines and the body, as compilers see them after the wrappers.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(self.body.len() + 64 * self.defines.len());
        for (name, value) in &self.defines {
            text.push_str(&format!("#define {name} {value}\n"));
        }
        text.push_str(&self.body);
        text
    }
}

/// An argument of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Arg {
    /// Address of an input.
    Input(usize),
    /// Address of an output.
    Output(usize),
    /// Address of packed weights, by their place in [`Choice::packed`].
    Packed(usize),
    /// Address within the step's scratch memory.
    Scratch(usize),
    /// A number.
    I32(i32),
    /// A number.
    I64(i64),
    /// A number.
    F32(f32),
    /// A structure passed by value, as it lies in memory (alignment at most 8).
    Bytes(Vec<u8>),
}

/// One launch, with everything resolved but addresses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Launch {
    /// Module.
    pub(crate) source: Source,
    /// Function within it.
    pub(crate) function: Cow<'static, str>,
    /// Blocks.
    pub(crate) grid: [u32; 3],
    /// Threads per block.
    pub(crate) block: [u32; 3],
    /// Dynamic shared memory per block, in bytes.
    pub(crate) shared: u32,
    /// Arguments in order.
    pub(crate) args: Vec<Arg>,
}

/// What a node becomes: launches that run one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Step {
    /// In order. None: nothing is left to do, as for outputs without elements.
    pub(crate) launches: Vec<Launch>,
    /// Bytes of scratch memory while the step runs, at a 256-byte boundary.
    pub(crate) scratch: usize,
    /// How many bytes from the start of the scratch memory must be zero before the first launch of an inference. A
    /// step leaves them zero (counters of split-K count back to zero), so that they are cleared once, at binding; such
    /// memory belongs to this step alone. It does not lie before the rest: an address reaches one or the other.
    pub(crate) zeroed: usize,
    /// How the step can work in the memory of an input, if it can.
    pub(crate) update: Option<Update>,
}

/// A step that changes some of an input's elements: where output 0 has the memory of the input, the launches that copy it
/// there are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    /// The input.
    pub(crate) input: usize,
    /// So many launches, the first ones, copy it; no other one reads it.
    pub(crate) copies: usize,
}

/// What a bound node is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Bound {
    /// Launches.
    Step(Step),
    /// Nothing: output 0 is the memory of this input.
    Alias(usize),
}

/// One input of a node that is being compiled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InputDesc<'a> {
    /// Element type.
    pub(crate) element_type: ElementType,
    /// Shape as far as known.
    pub(crate) shape: &'a PartialShape,
    /// The value, if it is a constant.
    pub(crate) constant: Option<&'a Tensor>,
}

/// A node that is being compiled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selecting<'a> {
    /// The operator.
    pub(crate) op: &'a dyn Op,
    /// Its inputs.
    pub(crate) inputs: &'a [InputDesc<'a>],
    /// Types of its outputs.
    pub(crate) outputs: &'a [OutputType],
    /// The GPU.
    pub(crate) gpu: Gpu,
    /// Whether results of half types are those of the operator's specification, which may round them step by step, and
    /// not the nearest ones to real numbers.
    pub(crate) specified: bool,
}

/// Writes packed weights into zeroed memory.
pub(crate) type Fill = Box<dyn FnOnce(&mut [u8]) + Send>;

/// Bytes to pack into the weights section.
pub(crate) struct Pack {
    /// How many.
    pub(crate) len: usize,
    /// Writes them.
    pub(crate) fill: Fill,
}

impl std::fmt::Debug for Pack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pack({})", self.len)
    }
}

/// What a kernel keeps of a node that it takes.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// Numbers for the binding.
    pub(crate) params: Vec<i64>,
    /// Packed weights, in the order in which the binding finds them.
    pub(crate) packed: Vec<Pack>,
    /// Inputs whose constants are needed in packed form only.
    pub(crate) consumed: Vec<usize>,
    /// Inputs whose values the binding must know on the host (axes, shapes): constants or what follows from shapes.
    pub(crate) host: Vec<usize>,
}

/// One input of a node that is being bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundInput<'a> {
    /// Element type.
    pub(crate) element_type: ElementType,
    /// Shape.
    pub(crate) shape: &'a Shape,
    /// The value, when it is known on the host.
    pub(crate) value: Option<&'a Tensor>,
}

/// One output of a node that is being bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundOutput<'a> {
    /// Element type.
    pub(crate) element_type: ElementType,
    /// Shape.
    pub(crate) shape: &'a Shape,
}

/// A node with concrete shapes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding<'a> {
    /// The operator.
    pub(crate) op: &'a dyn Op,
    /// Its inputs.
    pub(crate) inputs: &'a [BoundInput<'a>],
    /// Its outputs.
    pub(crate) outputs: &'a [BoundOutput<'a>],
    /// Numbers from [`Choice::params`].
    pub(crate) params: &'a [i64],
    /// The GPU.
    pub(crate) gpu: Gpu,
}

/// A family of kernels.
pub(crate) struct Kernel {
    /// Name in blobs, profiles and `query_model`.
    pub(crate) name: &'static str,
    /// Whether it takes the node. `None`: the operator is not one of its own; a reason when it is but cannot be taken.
    pub(crate) select: fn(&Selecting<'_>) -> Option<Result<Choice, Reject>>,
    /// What the node becomes.
    pub(crate) bind: fn(&Binding<'_>) -> Result<Bound, Reject>,
}

/// Every family; the first that takes a node gets it.
pub(crate) const KERNELS: &[Kernel] = &[
    linear::LINEAR,
    integer::INTEGER,
    integer::INTEGER_ADD,
    convolution::CONVOLUTION,
    matmul::MATMUL,
    attention::ATTENTION,
    recurrence::RECURRENCE,
    movement::MOVEMENT,
    eltwise::ELTWISE,
    reduce::REDUCE,
    softmax::SOFTMAX,
    normalize::NORMALIZE,
    pool::POOL,
    resize::RESIZE,
    pad::PAD,
    gather::GATHER,
    scatter::SCATTER,
    topk::TOPK,
    scan::SCAN,
    generate::GENERATE,
    grid::GRID,
    lrn::LRN,
    dynamic_quantize::DYNAMIC_QUANTIZE,
    cache::CACHE,
    affine::AFFINE,
];
