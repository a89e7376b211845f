//! The plan: a program bound to shapes, ready to run.

mod build;
mod frame;
mod memory;
mod run;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use ov_core::{ElementType, Shape, Tensor};
use smallvec::SmallVec;

pub use build::BuildError;
pub use run::{Profile, Runner, StepTime};

use crate::{
    nodes::Step,
    program::{NodeDesc, Program, ValueId, WeightBytes},
    simd::Isa,
};

/// Where the memory of a slot comes from.
#[derive(Clone, Debug)]
enum Home {
    /// Bytes of the arena.
    Arena(usize),
    /// A constant or a value that follows from shapes.
    Held(Tensor),
    /// The caller's tensor for an input.
    Input(usize),
    /// The tensor for an output.
    Output(usize),
    /// A value of an earlier stage.
    Earlier(Source),
}

/// A value that an earlier stage made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A slot of the stage.
    Slot { stage: usize, slot: u32 },
    /// An output of the node that ends the stage.
    Tail { stage: usize, output: usize },
    /// The caller's tensor for an input that has no bytes (texts, sequences, maps, optionals).
    Input(usize),
}

/// Memory of one value.
#[derive(Clone, Debug)]
struct Slot {
    home: Home,
    len: usize,
}

#[derive(Debug)]
struct PlannedStep {
    step: Box<dyn Step>,
    /// Index in [`Program::nodes`].
    node: usize,
    inputs: SmallVec<[u32; 4]>,
    outputs: SmallVec<[u32; 2]>,
    items: usize,
    /// Whether several threads share the items.
    parallel: bool,
    /// Whether the threads that share the items wait for each other meanwhile.
    waits: bool,
    /// Whether every thread must have finished what came before.
    sync: bool,
    /// Items that a thread takes at a time, when they are handed out while running.
    chunk: Option<usize>,
}

/// A value that is given out.
#[derive(Clone, Debug)]
struct Given {
    /// Index of the output.
    output: usize,
    element_type: ElementType,
    shape: Shape,
    /// The slot to copy from when the steps do not write the output's memory themselves.
    copy_from: Option<u32>,
    /// The value itself, when it has no bytes in memory and follows from shapes.
    held: Option<Tensor>,
    /// Who holds it, when it has no bytes in memory and is made by running.
    holder: Option<Source>,
}

/// The node whose result shapes are only known once it has run, and what later nodes need of this stage.
#[derive(Debug)]
struct Tail {
    node: usize,
    /// Its inputs.
    inputs: Vec<Known>,
    /// Values made so far that later nodes or outputs read.
    live: Vec<(ValueId, Known)>,
    /// Plans of the rest, by the types and shapes of the node's outputs.
    next: Mutex<PlanCache<Signature>>,
}

/// A value as later nodes see it.
#[derive(Clone, Debug)]
enum Known {
    /// Its value follows from shapes, or is constant.
    Value(Tensor),
    /// Its memory.
    Memory { element_type: ElementType, shape: Shape, source: Source },
}

/// A part of a program bound to shapes.
#[derive(Debug)]
pub struct Plan {
    slots: Vec<Slot>,
    steps: Vec<PlannedStep>,
    arena_len: usize,
    scratch_len: usize,
    given: Vec<Given>,
    tail: Option<Tail>,
    /// Whether the work is worth waking other threads for.
    parallel: bool,
    inputs: Signature,
}

/// Types and shapes of the tensors that a plan is made for.
type Signature = Vec<(ElementType, Shape)>;

/// How a program is bound and run.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Threads that share the work.
    pub threads: usize,
}

/// A program with its weights and the plans made of it so far.
#[derive(Debug)]
pub struct Executable {
    pub(crate) program: Program,
    pub(crate) weights: WeightBytes,
    pub(crate) target: Target,
    plans: Mutex<PlanCache<Signature>>,
    /// The same for the bodies of control-flow nodes, by node.
    bodies: Vec<Vec<Arc<Self>>>,
}

impl Executable {
    /// A program ready to be bound to shapes.
    #[must_use]
    pub fn new(mut program: Program, weights: WeightBytes, target: Target) -> Self {
        let bodies = program
            .nodes
            .iter_mut()
            .map(|n| {
                std::mem::take(&mut n.bodies)
                    .into_iter()
                    .map(|b| Arc::new(Self::new(b, weights.clone(), target)))
                    .collect()
            })
            .collect();
        Self { program, weights, target, plans: Mutex::default(), bodies }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    fn node(&self, index: usize) -> &NodeDesc {
        &self.program.nodes[index]
    }

    /// The plan for inputs of these types and shapes, from the cache or made now.
    ///
    /// # Errors
    /// When an operator refuses the shapes.
    pub fn plan(&self, inputs: &[(ElementType, Shape)]) -> Result<Arc<Plan>, BuildError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.find(|key| key == inputs) {
            return Ok(plan);
        }
        let plan = Arc::new(build::first(self, inputs)?);
        plans.insert(inputs.to_vec(), Arc::clone(&plan));
        Ok(plan)
    }
}

/// The most recently used plans, newest last.
#[derive(Debug)]
struct PlanCache<K> {
    plans: Vec<(K, Arc<Plan>)>,
}

impl<K> Default for PlanCache<K> {
    fn default() -> Self {
        Self { plans: Vec::new() }
    }
}

impl<K> PlanCache<K> {
    const CAPACITY: usize = 64;

    fn find(&mut self, same: impl Fn(&K) -> bool) -> Option<Arc<Plan>> {
        let at = self.plans.iter().rposition(|(k, _)| same(k))?;
        let last = self.plans.len() - 1;
        self.plans[at..=last].rotate_left(1);
        Some(Arc::clone(&self.plans[last].1))
    }

    fn insert(&mut self, key: K, plan: Arc<Plan>) {
        if self.plans.len() == Self::CAPACITY {
            self.plans.remove(0);
        }
        self.plans.push((key, plan));
    }
}
