//! A slot: a stream of a GPU with memory of its own, and the graphs of the plans that ran there last.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ov_core::{
    Tensor,
    error::{CompileError, Error, InferError, Result},
};

use crate::{
    driver::{
        DeviceMemory, DriverError, ErrorKind, Event, Function, Graph, GraphBuilder, KernelNode,
        Patience, Pinned, Side, Stream, Transfer, Wait,
    },
    loaded::{Loaded, failed},
    plan::{Argument, DevicePlace, GraphPart, HostSource, Part, Plan, PlannedLaunch, StateMemory},
    states::DeviceStates,
};

/// How slots run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotOptions {
    /// Priority of the stream, at which its graphs run, within the driver's range.
    pub(crate) priority: i32,
    /// How a thread waits for results.
    pub(crate) wait: Wait,
    /// How long results may take beyond what is usual for them before the GPU is given up.
    pub(crate) patience: Duration,
    /// Whether every launch is timed.
    pub(crate) profile: bool,
}

/// So many times the longest that a graph took is not taken for a hang, beside [`SlotOptions::patience`].
const SLOWER: u32 = 50;

/// A stream with its memory.
#[derive(Debug)]
pub(crate) struct Slot {
    // Graphs first: they use everything below, which is dropped after them.
    instances: Vec<Instance>,
    arena: Option<DeviceMemory>,
    zeroed: Option<DeviceMemory>,
    pinned: Option<Pinned>,
    stream: Stream,
    loaded: Arc<Loaded>,
    options: SlotOptions,
}

/// A plan's graphs on a slot.
#[derive(Debug)]
struct Instance {
    graphs: Vec<Option<PartGraph>>,
    /// Where the variables lie that its graphs use: before the inference, and after it.
    addresses: Vec<[u64; 2]>,
    _constants: Option<DeviceMemory>,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct PartGraph {
    graph: Graph,
    /// The longest that it took.
    slowest: Duration,
    /// Between launches, when they are timed.
    events: Vec<Event>,
    /// Keep the modules loaded.
    _functions: Vec<Arc<Function>>,
}

/// Memory of a graph that is not the slot's own.
struct Bases<'a> {
    constants: Option<&'a DeviceMemory>,
    states: &'a DeviceStates,
}

/// Where the host's values of an inference are.
pub(crate) struct HostValues<'a> {
    /// The caller's tensors.
    pub(crate) inputs: &'a [Tensor],
    /// Tensors of the hidden inputs, which follow them.
    pub(crate) hidden: &'a [Tensor],
    /// By value: what host steps and downloads left.
    pub(crate) made: &'a mut [Option<Tensor>],
}

impl HostValues<'_> {
    /// A value that the plan says is there.
    ///
    /// # Errors
    /// When it is not, which a plan rules out.
    pub(crate) fn get(&self, source: HostSource) -> Result<&Tensor> {
        let found = match source {
            HostSource::Input(i) => match i.checked_sub(self.inputs.len()) {
                Some(hidden) => self.hidden.get(hidden),
                None => self.inputs.get(i),
            },
            HostSource::Made(v) => self.made.get(v as usize).and_then(Option::as_ref),
        };
        found.ok_or_else(|| unexpected(format!("there is no value for {source:?}")))
    }
}

pub(crate) fn unexpected(detail: String) -> Error {
    InferError::Other { device: crate::DEVICE_NAME.to_owned(), detail }.into()
}

impl Slot {
    /// Graphs of so many plans are kept. With variables each place where they lie needs graphs of its own: two places that
    /// take turns, for every request that runs here.
    const INSTANCES: usize = 8;
    const INSTANCES_WITH_VARIABLES: usize = 16;

    /// A slot of a loaded model; memory comes with the first plan.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn new(loaded: Arc<Loaded>, options: SlotOptions) -> Result<Self> {
        let stream = Stream::new(&loaded.context, options.priority)
            .map_err(|e| failed(loaded.context.device(), e))?;
        Ok(Self {
            instances: Vec::new(),
            arena: None,
            zeroed: None,
            pinned: None,
            stream,
            loaded,
            options,
        })
    }

    /// The model on the GPU.
    pub(crate) fn loaded(&self) -> &Arc<Loaded> {
        &self.loaded
    }

    /// The stream.
    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Allocates what the plan needs and loads its kernels, so that little is left for [`Slot::prepare`].
    ///
    /// # Errors
    /// When memory runs out, or a kernel cannot be had.
    pub(crate) fn warm(&mut self, plan: &Plan) -> Result<()> {
        self.reserve(plan).map_err(|e| self.failed(e))?;
        plan.launches().try_for_each(|l| self.loaded.function(&l.source, &l.function).map(drop))
    }

    /// Allocates what the plan needs and makes its graphs, unless they are there. The memory of `states` that the plan uses
    /// is there.
    ///
    /// # Errors
    /// When memory runs out, or a kernel cannot be had.
    pub(crate) fn prepare(&mut self, plan: &Arc<Plan>, states: &DeviceStates) -> Result<usize> {
        let suits = |i: &Instance| {
            Arc::ptr_eq(&i.plan, plan)
                && i.addresses.iter().copied().eq(states.addresses(&plan.state_uses))
        };
        if let Some(at) = self.instances.iter().rposition(suits) {
            let last = self.instances.len() - 1;
            self.instances[at..=last].rotate_left(1);
            return Ok(last);
        }
        self.reserve(plan).map_err(|e| self.failed(e))?;
        let most = match plan.state_uses.is_empty() {
            true => Self::INSTANCES,
            false => Self::INSTANCES_WITH_VARIABLES,
        };
        if self.instances.len() >= most {
            self.instances.remove(0);
        }
        let constants = self.constants(plan).map_err(|e| self.failed(e))?;
        let start = Instant::now();
        let mut functions = Vec::with_capacity(plan.parts.len());
        for part in &plan.parts {
            functions.push(match part {
                Part::Graph(part) => self.functions(part)?,
                Part::Host(_) => Vec::new(),
            });
        }
        let loaded = start.elapsed();
        tracing::debug!(microseconds = loaded.as_micros() as u64, "modules are loaded");
        let mut graphs = Vec::with_capacity(plan.parts.len());
        for (part, functions) in plan.parts.iter().zip(functions) {
            graphs.push(match part {
                Part::Graph(part) => {
                    Some(self.graph(part, constants.as_ref(), states, functions)?)
                }
                Part::Host(_) => None,
            });
        }
        let microseconds = (start.elapsed() - loaded).as_micros() as u64;
        tracing::debug!(microseconds, parts = graphs.len(), "graphs are made");
        let addresses = states.addresses(&plan.state_uses).collect();
        let plan = Arc::clone(plan);
        self.instances.push(Instance { graphs, addresses, _constants: constants, plan });
        Ok(self.instances.len() - 1)
    }

    fn failed(&self, error: DriverError) -> Error {
        failed(self.loaded.context.device(), error)
    }

    /// Lets the memory be large enough; graphs that use memory which is replaced are dropped.
    fn reserve(&mut self, plan: &Plan) -> Result<(), DriverError> {
        let context = &self.loaded.context;
        let short = |have: Option<usize>, need: usize| need > 0 && have.is_none_or(|h| h < need);
        if short(self.arena.as_ref().map(DeviceMemory::len), plan.arena) {
            self.instances.clear();
            self.arena = None;
            self.arena = Some(DeviceMemory::new(context, plan.arena)?);
        }
        if short(self.zeroed.as_ref().map(DeviceMemory::len), plan.zeroed) {
            self.instances.clear();
            self.zeroed = None;
            let memory = DeviceMemory::new(context, plan.zeroed)?;
            memory.zero(&self.stream)?;
            self.zeroed = Some(memory);
        }
        if short(self.pinned.as_ref().map(Pinned::len), plan.pinned) {
            self.instances.clear();
            self.pinned = None;
            self.pinned = Some(Pinned::new(context, plan.pinned)?);
        }
        Ok(())
    }

    /// The values of launches that follow from shapes, on the device.
    fn constants(&self, plan: &Plan) -> Result<Option<DeviceMemory>, DriverError> {
        if plan.constants_len == 0 {
            return Ok(None);
        }
        let context = &self.loaded.context;
        let memory = DeviceMemory::new(context, plan.constants_len)?;
        let mut staging = Pinned::new(context, plan.constants_len)?;
        for (at, value) in &plan.constants {
            let value = value.to_contiguous();
            staging.bytes_mut()[*at..at + value.byte_len()]
                .copy_from_slice(value.unaligned_bytes());
        }
        memory.write(0, &staging, plan.constants_len, &self.stream)?;
        self.stream.wait()?;
        Ok(Some(memory))
    }

    fn functions(&self, part: &GraphPart) -> Result<Vec<Arc<Function>>> {
        part.launches.iter().map(|l| self.loaded.function(&l.source, &l.function)).collect()
    }

    fn graph(
        &self,
        part: &GraphPart,
        constants: Option<&DeviceMemory>,
        states: &DeviceStates,
        functions: Vec<Arc<Function>>,
    ) -> Result<PartGraph> {
        let mut events = Vec::new();
        let bases = Bases { constants, states };
        let graph =
            self.build(part, &bases, &functions, &mut events).map_err(|e| self.failed(e))?;
        Ok(PartGraph { graph, slowest: Duration::ZERO, events, _functions: functions })
    }

    fn build(
        &self,
        part: &GraphPart,
        bases: &Bases<'_>,
        functions: &[Arc<Function>],
        events: &mut Vec<Event>,
    ) -> Result<Graph, DriverError> {
        let context = &self.loaded.context;
        let mut builder = GraphBuilder::new(context)?;
        if self.options.profile {
            builder.without_overlap();
        }
        if let (Some(arena), Some(pinned)) = (&self.arena, &self.pinned) {
            let copies = part.uploads.iter().map(|u| Transfer {
                from: Side::Host(pinned, u.pinned),
                to: Side::Device(arena, u.device),
                len: u.len,
            });
            builder.copies(&copies.collect::<Vec<_>>())?;
        }
        for (launch, function) in part.launches.iter().zip(functions) {
            if self.options.profile {
                let event = Event::timed(context)?;
                builder.record(&event)?;
                events.push(event);
            }
            let args = self.arguments(launch, bases);
            builder.kernel(KernelNode {
                function,
                grid: launch.grid,
                block: launch.block,
                shared: launch.shared,
                args: &args,
            })?;
        }
        if self.options.profile && !part.launches.is_empty() {
            let event = Event::timed(context)?;
            builder.record(&event)?;
            events.push(event);
        }
        let from = |place: DevicePlace| match place {
            DevicePlace::Arena(at) => Some(Side::Device(self.arena.as_ref()?, at)),
            DevicePlace::State(memory) => Some(Side::Device(bases.states.memory(memory)?, 0)),
        };
        let moves = part.moves.iter().filter_map(|m| {
            let to = Side::Device(bases.states.memory(StateMemory::After(m.to))?, 0);
            Some(Transfer { from: from(m.from)?, to, len: m.len })
        });
        let downloads = part.downloads.iter().filter_map(|d| {
            let to = Side::Host(self.pinned.as_ref()?, d.pinned);
            Some(Transfer { from: from(d.device)?, to, len: d.len })
        });
        builder.copies(&moves.chain(downloads).collect::<Vec<_>>())?;
        builder.finish(&self.stream)
    }

    fn arguments(&self, launch: &PlannedLaunch, bases: &Bases<'_>) -> Vec<Vec<u8>> {
        let base = |memory: Option<&DeviceMemory>| memory.map_or(0, DeviceMemory::address);
        let address = |memory: Option<&DeviceMemory>, offset: usize| {
            (base(memory) + offset as u64).to_ne_bytes().to_vec()
        };
        launch
            .args
            .iter()
            .map(|arg| match arg {
                Argument::Arena(at) => address(self.arena.as_ref(), *at),
                Argument::Weights(at) => address(Some(&self.loaded.weights), *at),
                Argument::Constants(at) => address(bases.constants, *at),
                Argument::Zeroed(at) => address(self.zeroed.as_ref(), *at),
                Argument::State(memory) => address(bases.states.memory(*memory), 0),
                Argument::Bytes(bytes) => bytes.clone(),
            })
            .collect()
    }

    /// Runs part `index` of a prepared plan: copies in, launches, copies out into `outputs` and `values`.
    ///
    /// # Errors
    /// What the driver says; the memory of a tensor.
    pub(crate) fn run(
        &mut self,
        instance: usize,
        index: usize,
        values: &mut HostValues<'_>,
        outputs: &mut [Tensor],
        times: Option<&mut Vec<(usize, Duration)>>,
    ) -> Result<()> {
        let Instance { graphs, plan, .. } = &mut self.instances[instance];
        let (Some(Part::Graph(part)), Some(Some(run))) =
            (plan.parts.get(index), graphs.get_mut(index))
        else {
            return Err(unexpected(format!("part {index} is no graph")));
        };
        if let Some(pinned) = &mut self.pinned {
            for upload in &part.uploads {
                let tensor = values.get(upload.from)?.to_contiguous();
                pinned.bytes_mut()[upload.pinned..upload.pinned + upload.len]
                    .copy_from_slice(tensor.unaligned_bytes());
            }
        }
        let device = self.loaded.context.device();
        let start = Instant::now();
        run.graph.launch(&self.stream).map_err(|e| failed(device, e))?;
        let most = self.options.patience + run.slowest * SLOWER;
        let patience = Patience { expected: run.slowest, most };
        self.stream.wait_by(self.options.wait, patience).map_err(|mut e| {
            e.text += &format!("; {part}");
            failed(device, e)
        })?;
        let took = start.elapsed();
        if run.slowest.is_zero() {
            tracing::debug!(microseconds = took.as_micros() as u64, "the first run");
        }
        run.slowest = run.slowest.max(took);
        if let Some(times) = times {
            for (launch, pair) in part.launches.iter().zip(run.events.windows(2)) {
                let time = pair[0].until(&pair[1]).map_err(|e| failed(device, e))?;
                times.push((launch.node, time));
            }
        }
        for download in &part.downloads {
            let pinned = self.pinned.as_ref().map_or(&[][..], Pinned::bytes);
            let bytes = &pinned[download.pinned..download.pinned + download.len];
            for output in &download.outputs {
                outputs[*output].bytes_mut()?.copy_from_slice(bytes);
            }
            if let Some((value, ty, shape)) = &download.keep {
                let mut tensor = Tensor::zeros(*ty, shape.clone())?;
                tensor.bytes_mut()?.copy_from_slice(bytes);
                values.made[*value as usize] = Some(tensor);
            }
        }
        Ok(())
    }
}

/// Whether an error means that less memory would help.
pub(crate) fn is_out_of_memory(error: &Error) -> bool {
    driver_error(error).is_some_and(|e| e.kind() == ErrorKind::OutOfMemory)
}

/// The driver's error inside an error, if there is one.
pub(crate) fn driver_error(error: &Error) -> Option<&DriverError> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<DriverError>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// What a plan that cannot be made means for compiling.
pub(crate) fn not_bound(error: &crate::plan::BuildError) -> Error {
    CompileError::NoKernel {
        device: crate::DEVICE_NAME.to_owned(),
        op: error.op.clone(),
        node: error.node.clone(),
        reasons: error.source.to_string(),
    }
    .into()
}
