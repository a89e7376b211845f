//! The plan: a program bound to shapes. Launches with their arguments as offsets, copies between host and device, and
//! what the host computes in between.
//!
//! A plan is a *stage* of a program: the nodes up to one whose result shapes depend on data, which runs on the host and
//! after which the rest is planned for the shapes that came. Within a stage, *parts* follow each other: graphs of
//! launches, and host steps.

mod build;
mod infer;
mod kept;
mod reads;

use std::sync::{Arc, Mutex, PoisonError};

use ov_core::{ElementType, Shape, Tensor, model::Variable, op::OpError};

pub(crate) use infer::evaluate;

use crate::{
    kernels::{Gpu, Source},
    lower::is_stored,
    program::{NodeDesc, Program, ValueId, WeightBytes},
};

/// Types and shapes of the tensors that a plan is made for.
pub(crate) type Signature = Vec<(ElementType, Shape)>;

/// Where a value that lies on the host is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostSource {
    /// The caller's tensor for an input.
    Input(usize),
    /// What a host step, a download or an earlier stage left.
    Made(ValueId),
}

/// A copy from the host to the device.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Upload {
    pub(crate) from: HostSource,
    /// Offset in the pinned memory of the slot.
    pub(crate) pinned: usize,
    /// Offset in the arena.
    pub(crate) device: usize,
    pub(crate) len: usize,
}

/// Memory of a variable, which belongs to the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateMemory {
    /// With its value before the inference, or the one that is brought up to date in place.
    Before(usize),
    /// For its value after the inference.
    After(usize),
}

/// Where a value lies on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DevicePlace {
    /// Offset in the arena.
    Arena(usize),
    /// Memory of a variable.
    State(StateMemory),
}

/// A copy within the device, to where a variable's value after the inference lies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Move {
    pub(crate) from: DevicePlace,
    /// The variable.
    pub(crate) to: usize,
    pub(crate) len: usize,
}

/// A copy from the device to the host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Download {
    pub(crate) pinned: usize,
    pub(crate) device: DevicePlace,
    pub(crate) len: usize,
    /// The value to make a tensor of, with its type and shape, when host steps or later stages read it.
    pub(crate) keep: Option<(ValueId, ElementType, Shape)>,
    /// Outputs that are filled from it.
    pub(crate) outputs: Vec<usize>,
}

/// An argument of a launch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Argument {
    /// An address in the arena.
    Arena(usize),
    /// An address in the weights.
    Weights(usize),
    /// An address in the plan's own constants.
    Constants(usize),
    /// An address in memory that is zero at the start of every inference.
    Zeroed(usize),
    /// The memory of a variable.
    State(StateMemory),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A launch with everything resolved but base addresses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlannedLaunch {
    /// Index in [`Program::nodes`].
    pub(crate) node: usize,
    pub(crate) source: Source,
    pub(crate) function: String,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u32,
    pub(crate) args: Vec<Argument>,
}

/// Copies and launches that become one graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GraphPart {
    pub(crate) uploads: Vec<Upload>,
    pub(crate) launches: Vec<PlannedLaunch>,
    /// After the launches, beside the downloads.
    pub(crate) moves: Vec<Move>,
    pub(crate) downloads: Vec<Download>,
}

impl std::fmt::Display for GraphPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [up, down] = [self.uploads.len(), self.downloads.len()];
        write!(f, "{up} copies in, {} launches, {down} copies out", self.launches.len())?;
        let ends = self.launches.first().zip(self.launches.last());
        ends.map_or(Ok(()), |(first, last)| {
            write!(f, ", from {} to {}", first.function, last.function)
        })
    }
}

/// An input of a node that the host runs.
#[derive(Clone, Debug)]
pub(crate) enum HostInput {
    /// Its value is known.
    Held(Tensor),
    /// It is found on the host, and has this shape.
    Found(HostSource, Shape),
}

/// A node that the host runs.
#[derive(Clone, Debug)]
pub(crate) struct HostPart {
    /// Index in [`Program::nodes`].
    pub(crate) node: usize,
    pub(crate) inputs: Vec<HostInput>,
    /// Types of its outputs; empty for a node whose results' shapes are not known.
    pub(crate) outputs: Signature,
}

/// What is done in order.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// On the device.
    Graph(GraphPart),
    /// On the host.
    Host(HostPart),
}

/// A value that is given out.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// Index of the output.
    pub(crate) output: usize,
    pub(crate) element_type: ElementType,
    pub(crate) shape: Shape,
    pub(crate) from: GivenFrom,
}

/// How an output gets its value.
#[derive(Clone, Debug)]
pub(crate) enum GivenFrom {
    /// It follows from shapes.
    Held(Tensor),
    /// A [`Download`] fills it.
    Download,
    /// It is on the host when the stage has run.
    Host(HostSource),
}

/// A variable of which the stage knows what it holds after the inference.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The variable.
    pub(crate) variable: usize,
    pub(crate) element_type: ElementType,
    pub(crate) shape: Shape,
    pub(crate) from: KeptFrom,
}

/// How a variable gets the value that it has after the inference.
#[derive(Clone, Debug)]
pub(crate) enum KeptFrom {
    /// It is the value before it, or was brought up to date in its memory.
    Same,
    /// It lies in [`StateMemory::After`].
    Written,
    /// It follows from shapes.
    Held(Tensor),
    /// It is on the host when the stage has run.
    Host(HostSource),
}

/// What a stage needs of a variable's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StateUse {
    /// The variable.
    pub(crate) variable: usize,
    /// Whether its value before the inference has to be on the device.
    pub(crate) before: bool,
    /// Bytes that are written to its memory for the value after the inference.
    pub(crate) after: Option<usize>,
}

/// The input and the output of a program that stand for a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatePort {
    /// Index in the program's inputs.
    pub(crate) input: usize,
    /// Index in the program's outputs.
    pub(crate) output: usize,
    /// Whether its value may lie in the memory of a GPU.
    pub(crate) on_device: bool,
}

/// The node whose result shapes are only known once it has run, and what comes after it.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) step: HostPart,
    /// What is known of values that later nodes read, and where they are found on the host.
    live: Vec<(ValueId, infer::State, Option<HostSource>)>,
    /// Plans of the rest, by the types and shapes of the node's outputs.
    next: Mutex<PlanCache>,
}

/// A part of a program bound to shapes.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<Part>,
    /// Bytes of the memory of values and scratch.
    pub(crate) arena: usize,
    /// Bytes of memory that starts as zeros and that every step leaves so: all plans of a slot share it.
    pub(crate) zeroed: usize,
    /// Bytes of pinned memory.
    pub(crate) pinned: usize,
    /// What launches read that follows from shapes, with offsets, and how many bytes that is.
    pub(crate) constants: Vec<(usize, Tensor)>,
    pub(crate) constants_len: usize,
    pub(crate) given: Vec<Given>,
    pub(crate) kept: Vec<Kept>,
    /// What launches and copies use of variables.
    pub(crate) state_uses: Vec<StateUse>,
    pub(crate) tail: Option<Tail>,
    pub(crate) inputs: Signature,
}

impl Plan {
    /// The modules that launches need.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Source> {
        self.launches().map(|launch| &launch.source)
    }

    /// The launches in order.
    pub(crate) fn launches(&self) -> impl Iterator<Item = &PlannedLaunch> {
        self.parts
            .iter()
            .filter_map(|part| match part {
                Part::Graph(graph) => Some(&graph.launches),
                Part::Host(_) => None,
            })
            .flatten()
    }
}

/// An operator that refuses the shapes.
#[derive(Debug, thiserror::Error)]
#[error("{op} {node:?}: {source}")]
pub(crate) struct BuildError {
    /// Operator type.
    pub(crate) op: String,
    /// Node name.
    pub(crate) node: String,
    /// What is wrong.
    pub(crate) source: OpError,
}

/// A program with its weights and the plans made of it so far.
#[derive(Debug)]
pub(crate) struct Executable {
    pub(crate) program: Program,
    pub(crate) weights: WeightBytes,
    pub(crate) gpu: Gpu,
    /// The variables, whose inputs and outputs are the last ones.
    pub(crate) states: Vec<StatePort>,
    plans: Mutex<PlanCache>,
    /// The same for the bodies of control-flow nodes, by node.
    pub(crate) bodies: Vec<Vec<Arc<Self>>>,
}

impl Executable {
    /// A program ready to be bound to shapes.
    pub(crate) fn new(mut program: Program, weights: WeightBytes, gpu: Gpu) -> Self {
        let bodies = program
            .nodes
            .iter_mut()
            .map(|n| {
                std::mem::take(&mut n.bodies)
                    .into_iter()
                    .map(|b| Arc::new(Self::new(b, weights.clone(), gpu)))
                    .collect()
            })
            .collect();
        Self { program, weights, gpu, states: Vec::new(), plans: Mutex::default(), bodies }
    }

    /// The same for a program whose last inputs and outputs are those of these variables.
    pub(crate) fn with_variables(mut self, variables: &[Variable]) -> Self {
        let hidden: usize = variables.iter().map(Variable::parameters).sum();
        let mut input = self.program.inputs.len().saturating_sub(hidden);
        let first = self.program.outputs.len().saturating_sub(variables.len());
        for (i, variable) in variables.iter().enumerate() {
            let on_device = is_stored(variable.element_type);
            self.states.push(StatePort { input, output: first + i, on_device });
            input += variable.parameters();
        }
        self
    }

    pub(crate) fn node(&self, index: usize) -> &NodeDesc {
        &self.program.nodes[index]
    }

    /// The plan for inputs of these types and shapes, from the cache or made now.
    ///
    /// # Errors
    /// When an operator refuses the shapes.
    pub(crate) fn plan(&self, inputs: &[(ElementType, Shape)]) -> Result<Arc<Plan>, BuildError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.find_or_insert(inputs, || build::first(self, inputs))
    }

    /// The plan for what comes after a tail that gave results of these types and shapes.
    ///
    /// # Errors
    /// When an operator refuses the shapes.
    pub(crate) fn plan_after(
        &self,
        tail: &Tail,
        outputs: &[(ElementType, Shape)],
    ) -> Result<Arc<Plan>, BuildError> {
        let mut plans = tail.next.lock().unwrap_or_else(PoisonError::into_inner);
        plans.find_or_insert(outputs, || build::next(self, tail, outputs))
    }
}

/// The most recently used plans, newest last.
#[derive(Debug, Default)]
struct PlanCache {
    plans: Vec<(Signature, Arc<Plan>)>,
}

impl PlanCache {
    const CAPACITY: usize = 64;

    fn find_or_insert(
        &mut self,
        key: &[(ElementType, Shape)],
        make: impl FnOnce() -> Result<Plan, BuildError>,
    ) -> Result<Arc<Plan>, BuildError> {
        if let Some(at) = self.plans.iter().rposition(|(k, _)| k == key) {
            let last = self.plans.len() - 1;
            self.plans[at..=last].rotate_left(1);
            return Ok(Arc::clone(&self.plans[last].1));
        }
        let plan = Arc::new(make()?);
        if self.plans.len() == Self::CAPACITY {
            self.plans.remove(0);
        }
        self.plans.push((key.to_vec(), Arc::clone(&plan)));
        Ok(plan)
    }
}
