//! Binds a program to shapes: infers every node, evaluates what follows from shapes, binds kernels, places memory.

use std::collections::{HashMap, HashSet};

use ov_core::{
    ElementType, Shape,
    op::{OpError, OpResult},
    program::{Lifetime, place},
};

use super::{
    Argument, BuildError, DevicePlace, Download, Executable, Given, GivenFrom, GraphPart,
    HostInput, HostPart, HostSource, Kept, Part, Plan, PlannedLaunch, Signature, StateMemory, Tail,
    Upload,
    infer::{Inferred, State, infer},
    kept::uses,
    reads::{needed_nodes, wanted_later},
};
use crate::{
    kernels::{Arg, Binding, Bound, BoundInput, BoundOutput, Reject, Step},
    lower::is_stored,
    program::{ALIGNMENT, Constant, NodeDesc, Runner, ValueId},
};

pub(super) fn first(exe: &Executable, inputs: &[(ElementType, Shape)]) -> Result<Plan, BuildError> {
    let mut builder = Builder::new(exe)?;
    for (index, (port, (element_type, shape))) in exe.program.inputs.iter().zip(inputs).enumerate()
    {
        let state = State { element_type: *element_type, shape: shape.clone(), value: None };
        builder.states[port.value as usize] = Some(state);
        match exe.states.iter().position(|s| s.on_device && s.input == index) {
            Some(variable) => builder.read_state(port.value, variable),
            None => builder.on_host[port.value as usize] = Some(HostSource::Input(index)),
        }
    }
    let mut plan = builder.build(0, true)?;
    plan.inputs = inputs.to_vec();
    Ok(plan)
}

/// The plan for what comes after the node that ended a stage.
pub(super) fn next(
    exe: &Executable,
    tail: &Tail,
    outputs: &[(ElementType, Shape)],
) -> Result<Plan, BuildError> {
    let mut builder = Builder::new(exe)?;
    for (value, state, source) in &tail.live {
        builder.states[*value as usize] = Some(state.clone());
        builder.on_host[*value as usize] = *source;
        if let Some(variable) = builder.variable_of(*value) {
            builder.read_state(*value, variable);
        }
    }
    for (value, (element_type, shape)) in exe.node(tail.step.node).outputs.iter().zip(outputs) {
        let state = State { element_type: *element_type, shape: shape.clone(), value: None };
        builder.states[*value as usize] = Some(state);
        builder.on_host[*value as usize] = Some(HostSource::Made(*value));
    }
    builder.build(tail.step.node + 1, false)
}

/// Where a value lies on the device, before memory is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// Memory of a need.
    Need(usize),
    /// Memory of a variable.
    State(StateMemory),
}

impl Home {
    fn place(self, offsets: &[usize]) -> DevicePlace {
        match self {
            Self::Need(need) => DevicePlace::Arena(offsets[need]),
            Self::State(memory) => DevicePlace::State(memory),
        }
    }
}

/// An argument before memory is placed.
enum Draft {
    /// Memory of a need, from an offset on.
    Need(usize, usize),
    /// Anything that is final.
    Done(Argument),
}

pub(super) struct Builder<'a> {
    pub(super) exe: &'a Executable,
    states: Vec<Option<State>>,
    /// The value whose memory a value is.
    pub(super) root: Vec<ValueId>,
    /// Where a value is found on the host.
    pub(super) on_host: Vec<Option<HostSource>>,
    /// Where a value lies on the device.
    pub(super) on_device: Vec<Option<Home>>,
    /// The memory of variables, by the root of the value that is to lie there.
    pub(super) claims: HashMap<ValueId, StateMemory>,
    /// What variables hold after the inference.
    pub(super) kept: Vec<Kept>,
    /// Outputs by the root of their value, those that a download fills taken out.
    pub(super) outputs: HashMap<ValueId, Vec<usize>>,
    /// Roots of outputs that a download fills.
    filled: HashSet<ValueId>,
    pub(super) needs: Vec<Lifetime>,
    time: usize,
    parts: Vec<Part>,
    /// Arguments of the launches of each part, and the needs of its copies.
    drafts: Vec<Drafts>,
    open: Option<(GraphPart, Drafts)>,
    constants: Vec<(usize, ValueId)>,
    constants_len: usize,
    zeroed: usize,
    pinned: usize,
}

#[derive(Default)]
pub(super) struct Drafts {
    args: Vec<Vec<Draft>>,
    uploads: Vec<usize>,
    pub(super) moves: Vec<Home>,
    downloads: Vec<Home>,
    begin: usize,
}

impl<'a> Builder<'a> {
    fn new(exe: &'a Executable) -> Result<Self, BuildError> {
        let count = exe.program.values.len();
        let mut states = Vec::with_capacity(count);
        for v in &exe.program.values {
            let shape = || v.shape.to_shape().unwrap_or_default();
            states.push(match &v.constant {
                Constant::No => None,
                Constant::Held(t) => Some(State::held(t.clone())),
                Constant::Stored(range) => {
                    let tensor = exe.weights.tensor(v.element_type, shape(), range);
                    Some(State::held(tensor.map_err(|e| BuildError {
                        op: "Constant".to_owned(),
                        node: String::new(),
                        source: e.into(),
                    })?))
                }
                Constant::Packed => {
                    Some(State { element_type: v.element_type, shape: shape(), value: None })
                }
            });
        }
        Ok(Self {
            exe,
            states,
            root: (0..count as ValueId).collect(),
            on_host: vec![None; count],
            on_device: vec![None; count],
            claims: HashMap::new(),
            kept: Vec::new(),
            outputs: HashMap::new(),
            filled: HashSet::new(),
            needs: Vec::new(),
            time: 0,
            parts: Vec::new(),
            drafts: Vec::new(),
            open: None,
            constants: Vec::new(),
            constants_len: 0,
            zeroed: 0,
            pinned: 0,
        })
    }

    fn build(mut self, start: usize, first: bool) -> Result<Plan, BuildError> {
        let (end, computed) = self.infer_from(start)?;
        let exe = self.exe;
        let wanted = wanted_later(exe, end);
        let needed = needed_nodes(exe, &computed, &wanted);
        let is_new = |value: ValueId| {
            first || exe.program.nodes[start - 1..end].iter().any(|n| n.outputs.contains(&value))
        };
        let given: Vec<(usize, ValueId)> = exe
            .program
            .outputs
            .iter()
            .enumerate()
            .filter(|(_, p)| self.states[p.value as usize].is_some() && is_new(p.value))
            .map(|(i, p)| (i, p.value))
            .collect();
        let visible = exe.program.outputs.len() - exe.states.len();
        let (given, assigned): (Vec<_>, Vec<_>) = given.into_iter().partition(|g| g.0 < visible);
        // Binding first: aliases must be known before outputs are looked up by their roots.
        let mut bound = Vec::with_capacity(needed.len());
        for index in needed {
            let node = exe.node(index);
            let what = self.bind(node).map_err(|source| error(node, source))?;
            if let Ok(Bound::Alias(input)) = what {
                self.root[node.outputs[0] as usize] = self.root[node.inputs[input] as usize];
                continue;
            }
            bound.push((index, what));
        }
        for (output, value) in &given {
            let root = self.root[*value as usize];
            self.outputs.entry(root).or_default().push(*output);
        }
        self.claim(&assigned, &mut bound, end == exe.program.nodes.len());
        for (index, what) in bound {
            match what {
                Ok(Bound::Step(step)) => self.launch(index, step),
                Ok(Bound::Alias(_)) => unreachable!("aliases were taken out"),
                Err(Reject(reason)) => self.host(index, &reason)?,
            }
        }
        self.keep(&assigned);
        let tail = if end < exe.program.nodes.len() {
            Some(self.tail(end, &wanted)?)
        } else {
            self.close(&[]);
            None
        };
        let given = given.into_iter().map(|(output, value)| self.give(output, value)).collect();
        Ok(self.finish(given, tail))
    }

    /// Infers nodes from `start` on; gives the node at which the stage ends and the nodes that have to be run.
    fn infer_from(&mut self, start: usize) -> Result<(usize, Vec<usize>), BuildError> {
        let mut computed = Vec::new();
        for (index, node) in self.exe.program.nodes.iter().enumerate().skip(start) {
            let inputs: Vec<&State> = node.inputs.iter().map(|v| self.state(*v)).collect();
            let inferred = infer(node, !self.exe.bodies[index].is_empty(), &inputs)
                .map_err(|source| error(node, source))?;
            match inferred {
                Inferred::Dynamic => return Ok((index, computed)),
                Inferred::Values(values) => {
                    for (value, tensor) in node.outputs.iter().zip(values) {
                        self.states[*value as usize] = Some(State::held(tensor));
                    }
                }
                Inferred::Types(types) => {
                    computed.push(index);
                    for (value, (element_type, shape)) in node.outputs.iter().zip(types) {
                        let state = State { element_type, shape, value: None };
                        self.states[*value as usize] = Some(state);
                    }
                }
            }
        }
        Ok((self.exe.program.nodes.len(), computed))
    }

    pub(super) fn state(&self, value: ValueId) -> &State {
        self.states[value as usize].as_ref().expect("a program reads no value before it is made")
    }

    /// What a node becomes on the device, or why it runs on the host.
    fn bind(&self, node: &NodeDesc) -> OpResult<Result<Bound, Reject>> {
        let Runner::Kernel(kernel) = node.kernel else {
            return Ok(Err("no kernel took the node".into()));
        };
        let inputs: Vec<BoundInput<'_>> = node
            .inputs
            .iter()
            .map(|v| self.state(*v))
            .map(|s| BoundInput {
                element_type: s.element_type,
                shape: &s.shape,
                value: s.value.as_ref(),
            })
            .collect();
        let outputs: Vec<BoundOutput<'_>> = node
            .outputs
            .iter()
            .map(|v| self.state(*v))
            .map(|s| BoundOutput { element_type: s.element_type, shape: &s.shape })
            .collect();
        if let Some(o) = outputs.iter().find(|o| !is_stored(o.element_type)) {
            return Ok(Err(format!("gives {}", o.element_type).into()));
        }
        let binding = Binding {
            op: &*node.op,
            inputs: &inputs,
            outputs: &outputs,
            params: &node.params,
            gpu: self.exe.gpu,
        };
        let bound = (kernel.bind)(&binding);
        let valid = match &bound {
            Ok(Bound::Alias(input)) => {
                let same = |i: &BoundInput<'_>| {
                    let len = |ty: ElementType, s: &Shape| ty.byte_len(s.elements());
                    len(i.element_type, i.shape) == len(outputs[0].element_type, outputs[0].shape)
                };
                inputs.get(*input).is_some_and(same)
            }
            Ok(Bound::Step(step)) => step.launches.iter().all(|l| {
                l.args.iter().all(|a| match a {
                    Arg::Input(i) => *i < inputs.len(),
                    Arg::Output(i) => *i < outputs.len(),
                    Arg::Packed(i) => *i < node.packed.len(),
                    Arg::Scratch(at) => *at < step.scratch.max(1),
                    Arg::I32(_) | Arg::I64(_) | Arg::F32(_) | Arg::Bytes(_) => true,
                })
            }),
            Err(_) => true,
        };
        if !valid {
            return Err(OpError::Invalid(format!("{} does not fit the node", kernel.name)));
        }
        Ok(bound)
    }

    pub(super) fn tick(&mut self) -> usize {
        self.time += 1;
        self.time
    }

    /// The part that launches go to.
    pub(super) fn opened(&mut self) -> &mut (GraphPart, Drafts) {
        if self.open.is_none() {
            let begin = self.tick();
            self.open = Some((GraphPart::default(), Drafts { begin, ..Drafts::default() }));
        }
        self.open.as_mut().expect("just opened")
    }

    fn need(&mut self, len: usize, time: usize) -> usize {
        self.needs.push(Lifetime { len, first: time, last: time });
        self.needs.len() - 1
    }

    fn pin(&mut self, len: usize) -> usize {
        let at = self.pinned;
        self.pinned = (at + len).next_multiple_of(ALIGNMENT);
        at
    }

    /// The address of an input for a launch at `time`.
    fn address(&mut self, value: ValueId, time: usize) -> Draft {
        let root = self.root[value as usize];
        match self.on_device[root as usize] {
            Some(Home::Need(need)) => {
                self.needs[need].last = time;
                return Draft::Need(need, 0);
            }
            Some(Home::State(memory)) => return Draft::Done(Argument::State(memory)),
            None => {}
        }
        if let Constant::Stored(range) = &self.exe.program.values[root as usize].constant {
            return Draft::Done(Argument::Weights(range.start));
        }
        if self.state(root).value.is_some() {
            return Draft::Done(Argument::Constants(self.constant(root)));
        }
        let Some(from) = self.on_host[root as usize] else {
            // Only packed forms are stored; the launch does not read it.
            return Draft::Done(Argument::Weights(0));
        };
        let len = self.state(root).len();
        let pinned = self.pin(len);
        let begin = self.opened().1.begin;
        let need = self.need(len, begin);
        self.needs[need].last = time;
        self.on_device[root as usize] = Some(Home::Need(need));
        let (part, drafts) = self.opened();
        part.uploads.push(Upload { from, pinned, device: 0, len });
        drafts.uploads.push(need);
        Draft::Need(need, 0)
    }

    fn constant(&mut self, value: ValueId) -> usize {
        if let Some((at, _)) = self.constants.iter().find(|(_, v)| *v == value) {
            return *at;
        }
        let at = self.constants_len;
        self.constants_len = (at + self.state(value).len()).next_multiple_of(ALIGNMENT);
        self.constants.push((at, value));
        at
    }

    fn launch(&mut self, index: usize, step: Step) {
        let exe = self.exe;
        let node = exe.node(index);
        self.opened();
        let time = self.tick();
        // What must be zero belongs to the step alone; the rest is anybody's, and other plans keep nothing there.
        let counters = self.zeroed;
        self.zeroed = (counters + step.zeroed).next_multiple_of(ALIGNMENT);
        let shared = step.zeroed / ALIGNMENT * ALIGNMENT;
        let scratch = (step.scratch > step.zeroed).then(|| self.need(step.scratch - shared, time));
        for value in &node.outputs {
            let len = self.state(*value).len();
            let home = match self.claims.get(value) {
                Some(memory) => Home::State(*memory),
                None => Home::Need(self.need(len, time)),
            };
            self.on_device[*value as usize] = Some(home);
        }
        for launch in step.launches {
            let args = launch
                .args
                .into_iter()
                .map(|arg| match arg {
                    Arg::Input(i) => self.address(node.inputs[i], time),
                    Arg::Output(i) => self.address(node.outputs[i], time),
                    Arg::Packed(i) => Draft::Done(Argument::Weights(node.packed[i].start)),
                    Arg::Scratch(at) if at < step.zeroed => {
                        Draft::Done(Argument::Zeroed(counters + at))
                    }
                    Arg::Scratch(at) => match scratch {
                        Some(need) => Draft::Need(need, at - shared),
                        // The launch does not follow it.
                        None => Draft::Done(Argument::Zeroed(0)),
                    },
                    Arg::I32(v) => Draft::Done(Argument::Bytes(v.to_ne_bytes().to_vec())),
                    Arg::I64(v) => Draft::Done(Argument::Bytes(v.to_ne_bytes().to_vec())),
                    Arg::F32(v) => Draft::Done(Argument::Bytes(v.to_ne_bytes().to_vec())),
                    Arg::Bytes(bytes) => Draft::Done(Argument::Bytes(bytes)),
                })
                .collect();
            let (part, drafts) = self.opened();
            part.launches.push(PlannedLaunch {
                node: index,
                source: launch.source,
                function: launch.function.into_owned(),
                grid: launch.grid,
                block: launch.block,
                shared: launch.shared,
                args: Vec::new(),
            });
            drafts.args.push(args);
        }
    }

    /// Adds a node that the host runs.
    fn host(&mut self, index: usize, reason: &str) -> Result<(), BuildError> {
        let step = self.host_step(index, reason)?;
        self.parts.push(Part::Host(step));
        self.drafts.push(Drafts::default());
        for value in &self.exe.node(index).outputs {
            self.on_host[*value as usize] = Some(HostSource::Made(*value));
        }
        Ok(())
    }

    /// A node for the host, its inputs brought there.
    fn host_step(&mut self, index: usize, reason: &str) -> Result<HostPart, BuildError> {
        let exe = self.exe;
        let node = exe.node(index);
        let packed =
            |v: &ValueId| matches!(exe.program.values[*v as usize].constant, Constant::Packed);
        if node.inputs.iter().any(packed) {
            let text = format!("{reason}, and its weights are stored for the kernel only");
            return Err(error(node, OpError::Unsupported(text)));
        }
        let read: Vec<ValueId> = node.inputs.iter().map(|v| self.root[*v as usize]).collect();
        self.bring(&read);
        let inputs = node
            .inputs
            .iter()
            .map(|v| match self.known(*v) {
                Some(value) => HostInput::Held(value),
                None => HostInput::Found(
                    self.on_host[self.root[*v as usize] as usize].expect("brought to the host"),
                    self.state(*v).shape.clone(),
                ),
            })
            .collect();
        let outputs: Option<Signature> = node
            .outputs
            .iter()
            .map(|v| self.states[*v as usize].as_ref())
            .map(|s| s.map(|s| (s.element_type, s.shape.clone())))
            .collect();
        Ok(HostPart { node: index, inputs, outputs: outputs.unwrap_or_default() })
    }

    /// The value, when it is known; of an alias of a known value, in its shape.
    pub(super) fn known(&self, value: ValueId) -> Option<ov_core::Tensor> {
        let state = self.state(value);
        if let Some(value) = &state.value {
            return Some(value.clone());
        }
        let root = self.state(self.root[value as usize]);
        root.value.as_ref().and_then(|v| v.to_contiguous().reshape(state.shape.clone()).ok())
    }

    /// Makes values available on the host.
    fn bring(&mut self, roots: &[ValueId]) {
        let missing: Vec<ValueId> = roots
            .iter()
            .copied()
            .filter(|r| {
                self.on_host[*r as usize].is_none() && self.on_device[*r as usize].is_some()
            })
            .collect();
        // A node whose inputs are on the host already runs before the part that is open.
        if !missing.is_empty() {
            self.opened();
            self.close(&missing);
        }
    }

    /// Ends the part of the device: what is given out and was not yet, and what is kept, is copied to the host.
    fn close(&mut self, keep: &[ValueId]) {
        let Some((mut part, mut drafts)) = self.open.take() else { return };
        let time = self.tick();
        let mut due: Vec<ValueId> = self
            .outputs
            .keys()
            .copied()
            .filter(|r| {
                self.on_device[*r as usize].is_some() && self.on_host[*r as usize].is_none()
            })
            .chain(keep.iter().copied())
            .collect();
        due.sort_unstable();
        due.dedup();
        for root in due {
            let Some(home) = self.on_device[root as usize] else { continue };
            let outputs = match self.on_host[root as usize] {
                None => self.outputs.remove(&root).unwrap_or_default(),
                Some(_) => Vec::new(),
            };
            if !outputs.is_empty() {
                self.filled.insert(root);
            }
            if let Home::Need(need) = home {
                self.needs[need].last = time;
            }
            let state = self.state(root);
            let (ty, shape, len) = (state.element_type, state.shape.clone(), state.len());
            let keep = keep.contains(&root).then_some((root, ty, shape));
            if keep.is_some() {
                self.on_host[root as usize] = Some(HostSource::Made(root));
            }
            let pinned = self.pin(len);
            let device = DevicePlace::Arena(0);
            part.downloads.push(Download { pinned, device, len, keep, outputs });
            drafts.downloads.push(home);
        }
        self.parts.push(Part::Graph(part));
        self.drafts.push(drafts);
    }

    /// Ends the stage with a node whose result shapes are not known.
    fn tail(&mut self, end: usize, wanted: &[bool]) -> Result<Tail, BuildError> {
        let live: Vec<ValueId> = (0..self.states.len() as ValueId)
            .filter(|v| {
                let constant = &self.exe.program.values[*v as usize].constant;
                wanted[*v as usize]
                    && self.states[*v as usize].is_some()
                    && matches!(constant, Constant::No)
            })
            .collect();
        // The next stage reads variables where they are.
        let roots: Vec<ValueId> = live
            .iter()
            .filter(|v| self.variable_of(**v).is_none())
            .chain(&self.exe.node(end).inputs)
            .map(|v| self.root[*v as usize])
            .collect();
        self.bring(&roots);
        self.close(&[]);
        let step = self.host_step(end, "the shapes of its results depend on data")?;
        let live = live
            .into_iter()
            .map(|v| {
                let mut state = self.state(v).clone();
                state.value = self.known(v);
                let source = self.on_host[self.root[v as usize] as usize];
                (v, state, source)
            })
            .collect::<Vec<_>>();
        Ok(Tail { step, live, next: std::sync::Mutex::default() })
    }

    fn give(&self, output: usize, value: ValueId) -> Given {
        let state = self.state(value);
        let root = self.root[value as usize];
        let from = match (self.known(value), self.on_host[root as usize]) {
            (Some(value), _) => GivenFrom::Held(value),
            (None, Some(source)) if !self.filled.contains(&root) => GivenFrom::Host(source),
            (None, _) => GivenFrom::Download,
        };
        let (element_type, shape) = (state.element_type, state.shape.clone());
        Given { output, element_type, shape, from }
    }

    fn finish(self, given: Vec<Given>, tail: Option<Tail>) -> Plan {
        let (offsets, arena) = place(&self.needs, ALIGNMENT);
        let mut parts = self.parts;
        for (part, drafts) in parts.iter_mut().zip(self.drafts) {
            let Part::Graph(part) = part else { continue };
            for (launch, args) in part.launches.iter_mut().zip(drafts.args) {
                launch.args = args
                    .into_iter()
                    .map(|draft| match draft {
                        Draft::Need(need, at) => Argument::Arena(offsets[need] + at),
                        Draft::Done(argument) => argument,
                    })
                    .collect();
            }
            for (upload, need) in part.uploads.iter_mut().zip(drafts.uploads) {
                upload.device = offsets[need];
            }
            for (step, home) in part.moves.iter_mut().zip(drafts.moves) {
                step.from = home.place(&offsets);
            }
            for (download, home) in part.downloads.iter_mut().zip(drafts.downloads) {
                download.device = home.place(&offsets);
            }
        }
        let states = &self.states;
        let constants = self
            .constants
            .into_iter()
            .filter_map(|(at, v)| Some((at, states[v as usize].as_ref()?.value.clone()?)))
            .collect();
        let state_uses = uses(&parts, &self.kept);
        Plan {
            parts,
            arena,
            zeroed: self.zeroed,
            pinned: self.pinned,
            constants,
            constants_len: self.constants_len,
            given,
            kept: self.kept,
            state_uses,
            tail,
            inputs: Signature::new(),
        }
    }
}

fn error(node: &NodeDesc, source: OpError) -> BuildError {
    BuildError { op: node.op.kind().to_string(), node: node.name.clone(), source }
}
