//! Slots, lifetimes and outputs of a plan under construction.

use ov_core::program::{Lifetime, TENSOR_ALIGNMENT, place};
use smallvec::SmallVec;

use super::{
    Executable, Given, Home, Plan, PlannedStep, Slot,
    build::{Origin, State},
};
use crate::{
    nodes::Bound,
    program::{NodeDesc, ValueId},
};

/// A step below this is not shared between threads: the barrier costs more than it saves.
const WORTH_SHARING_NS: f64 = 1_500.0;
/// Plans below this run on the calling thread alone: no thread is woken.
const WORTH_WAKING_NS: f64 = 20_000.0;
/// Steps above this hand items out while running, so that a thread that lost its core costs one chunk.
const WORTH_CHUNKING_NS: f64 = 60_000.0;
/// Time of one chunk.
const CHUNK_NS: f64 = 12_000.0;

/// Memory that one or more values share.
#[derive(Debug)]
struct Root {
    len: usize,
    home: Option<Home>,
    first: usize,
    last: usize,
    /// Values that later stages read must stay.
    pinned: bool,
}

/// A step with the roots of its inputs and outputs, and the input whose memory it may take over.
type Draft = (PlannedStep, SmallVec<[usize; 4]>, SmallVec<[usize; 2]>, Option<usize>);

pub(super) struct Memory<'a> {
    exe: &'a Executable,
    states: &'a [Option<State>],
    roots: Vec<Root>,
    /// Root of each value that has memory.
    root_of: Vec<Option<usize>>,
    steps: Vec<Draft>,
    scratch_len: usize,
    cost_ns: f64,
}

impl<'a> Memory<'a> {
    pub(super) fn new(exe: &'a Executable, states: &'a [Option<State>]) -> Self {
        Self {
            exe,
            states,
            roots: Vec::new(),
            root_of: vec![None; states.len()],
            steps: Vec::new(),
            scratch_len: 0,
            cost_ns: 0.0,
        }
    }

    fn state(&self, value: ValueId) -> &'a State {
        self.states[value as usize].as_ref().expect("a program reads no value before it is made")
    }

    /// The memory of a value, made on first use.
    fn root(&mut self, value: ValueId) -> usize {
        if let Some(root) = self.root_of[value as usize] {
            return root;
        }
        let state = self.state(value);
        let len = state.element_type.byte_len(state.shape.elements()).unwrap_or(0);
        let home = match state.origin {
            Origin::Held => {
                Some(Home::Held(state.value.clone().unwrap_or_else(ov_core::Tensor::absent)))
            }
            Origin::Input(index) => Some(Home::Input(index)),
            Origin::Earlier(source) => Some(Home::Earlier(source)),
            Origin::Node => None,
        };
        let now = self.steps.len();
        self.roots.push(Root { len, home, first: now, last: now, pinned: false });
        self.root_of[value as usize] = Some(self.roots.len() - 1);
        self.roots.len() - 1
    }

    pub(super) fn add(&mut self, index: usize, node: &NodeDesc, bound: Bound) {
        let step = match bound {
            Bound::Alias(input) => {
                let root = self.root(node.inputs[input]);
                self.root_of[node.outputs[0] as usize] = Some(root);
                return;
            }
            Bound::Step(step) => step,
        };
        let now = self.steps.len();
        let inputs: SmallVec<[usize; 4]> = node.inputs.iter().map(|v| self.root(*v)).collect();
        for root in &inputs {
            self.roots[*root].last = now;
        }
        let outputs: SmallVec<[usize; 2]> = node.outputs.iter().map(|v| self.root(*v)).collect();
        let (cost, items) = (step.cost_ns(), step.items());
        let parallel = self.exe.target.threads > 1 && items > 1 && cost > WORTH_SHARING_NS;
        let waits = step.waits();
        let chunk = (parallel && !waits && cost > WORTH_CHUNKING_NS)
            .then(|| ((items as f64 * CHUNK_NS / cost) as usize).max(1))
            .filter(|c| c * self.exe.target.threads * 2 <= items);
        self.scratch_len = self.scratch_len.max(step.scratch_len());
        self.cost_ns += cost;
        let in_place = step.in_place();
        let planned = PlannedStep {
            step,
            node: index,
            inputs: SmallVec::new(),
            outputs: SmallVec::new(),
            items,
            parallel,
            waits,
            sync: false,
            chunk,
        };
        self.steps.push((planned, inputs, outputs, in_place));
    }

    /// Places everything. `given` are outputs of the model that this stage gives, `wanted` the values that later
    /// stages read. Gives the plan and the slot of each value.
    pub(super) fn finish(
        mut self,
        given: &[(usize, ValueId)],
        wanted: &[bool],
    ) -> (Plan, Vec<Option<u32>>) {
        let end = self.steps.len();
        for (value, wanted) in wanted.iter().enumerate() {
            if *wanted && self.states[value].as_ref().is_some_and(|s| s.value.is_none()) {
                let root = self.root(value as ValueId);
                self.roots[root].last = end;
                self.roots[root].pinned = true;
            }
        }
        let given = self.place_outputs(given);
        self.merge_in_place();
        let arena_roots: Vec<usize> =
            (0..self.roots.len()).filter(|r| self.roots[*r].home.is_none()).collect();
        let lifetimes: Vec<Lifetime> = arena_roots
            .iter()
            .map(|r| &self.roots[*r])
            .map(|r| Lifetime { first: r.first, last: r.last, len: r.len })
            .collect();
        let (offsets, arena_len) = place(&lifetimes, TENSOR_ALIGNMENT);
        for (root, offset) in arena_roots.iter().zip(offsets) {
            self.roots[*root].home = Some(Home::Arena(offset));
        }
        let slots = self
            .roots
            .into_iter()
            .map(|r| Slot { home: r.home.expect("every root was placed above"), len: r.len })
            .collect();
        let parallel =
            self.cost_ns > WORTH_WAKING_NS && self.steps.iter().any(|(s, ..)| s.parallel);
        let mut before = false;
        let steps = self
            .steps
            .into_iter()
            .enumerate()
            .map(|(i, (mut step, inputs, outputs, _))| {
                step.inputs = inputs.iter().map(|r| *r as u32).collect();
                step.outputs = outputs.iter().map(|r| *r as u32).collect();
                step.sync = i > 0 && (before || step.parallel);
                before = step.parallel;
                step
            })
            .collect();
        let slot_of = self.root_of.iter().map(|r| r.map(|r| r as u32)).collect();
        let plan = Plan {
            slots,
            steps,
            arena_len,
            scratch_len: self.scratch_len,
            given,
            tail: None,
            parallel,
            inputs: Vec::new(),
        };
        (plan, slot_of)
    }

    /// Lets steps write outputs of the model in place where they can, and notes copies where they cannot.
    fn place_outputs(&mut self, given: &[(usize, ValueId)]) -> Vec<Given> {
        let end = self.steps.len();
        given
            .iter()
            .map(|&(output, value)| {
                let state = self.state(value);
                let mut given = Given {
                    output,
                    element_type: state.element_type,
                    shape: state.shape.clone(),
                    copy_from: None,
                    held: None,
                    holder: None,
                };
                if state.element_type.bits() == 0 {
                    given.held = state.value.clone();
                    given.holder = state.origin.holder();
                    return given;
                }
                let root = self.root(value);
                let len = state.element_type.byte_len(state.shape.elements()).unwrap_or(0);
                let root_entry = &mut self.roots[root];
                if root_entry.home.is_none() && root_entry.len == len && !root_entry.pinned {
                    root_entry.home = Some(Home::Output(output));
                } else {
                    root_entry.last = end;
                    given.copy_from = Some(root as u32);
                }
                given
            })
            .collect()
    }

    /// Lets outputs take over the memory of inputs that nobody reads later.
    fn merge_in_place(&mut self) {
        for now in 0..self.steps.len() {
            let (_, inputs, outputs, Some(input)) = &self.steps[now] else { continue };
            let (from, to) = (inputs[*input], outputs[0]);
            let (source, target) = (&self.roots[from], &self.roots[to]);
            let once = inputs.iter().filter(|r| **r == from).count() == 1;
            let takes_over = from != to
                && once
                && source.home.is_none()
                && !source.pinned
                && source.last == now
                && source.len == target.len;
            if !takes_over {
                continue;
            }
            // The input joins the output's memory: every earlier mention of it becomes the output's.
            let first = self.roots[from].first;
            self.roots[to].first = first.min(self.roots[to].first);
            self.roots[from].len = 0;
            self.roots[from].home = Some(Home::Arena(0));
            for (_, inputs, outputs, _) in &mut self.steps {
                for root in inputs.iter_mut().chain(outputs.iter_mut()).filter(|r| **r == from) {
                    *root = to;
                }
            }
            for root in self.root_of.iter_mut().flatten().filter(|r| **r == from) {
                *root = to;
            }
        }
    }
}
