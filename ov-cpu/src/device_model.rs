//! A compiled model: a blob bound to this process.

use std::sync::{Arc, Mutex, PoisonError};

use ov_core::{
    ElementType, Shape,
    blob::{Blob, Meta, SectionKind},
    error::{BlobError, PropertyError, Result},
    model::Variable,
    plugin::{DeviceModel, PortInfo, SyncRequest},
    profiling::RuntimeNode,
    states::States,
    tensor::{AlignedBuffer, TensorBuffer},
};

use crate::{
    DEVICE_NAME, affinity,
    config::{self, CpuConfig},
    plan::{Executable, Runner, Target},
    priority::Place,
    program::{self, Port, Program, WeightBytes},
    request::{CpuRequest, Seat},
    reservation::Lease,
    team::Team,
    teams,
};

/// A blob bound to this process.
#[derive(Debug)]
pub(crate) struct CpuModel {
    blob: Blob,
    name: String,
    inputs: Vec<PortInfo>,
    outputs: Vec<PortInfo>,
    variables: Vec<Variable>,
    config: CpuConfig,
    exe: Arc<Executable>,
    streams: Mutex<Vec<Stream>>,
    place: Arc<Place>,
    _lease: Option<Lease>,
}

#[derive(Debug, Default)]
struct Stream {
    /// Made for the first request: threads are like the one that makes them, and a model may be compiled on a thread of
    /// the background.
    team: Option<Arc<Team>>,
    /// Held by each of its requests.
    user: Arc<()>,
}

impl CpuModel {
    /// Binds a blob; its weights stay where they are.
    pub(crate) fn bind(blob: Blob, config: CpuConfig, lease: Option<Lease>) -> Result<Self> {
        let missing = |what: &'static str| BlobError::Check {
            check: "sections",
            expected: format!("a {what} section"),
            got: "none".to_owned(),
        };
        let meta = Meta::of(&blob)?;
        let plan = blob.copy_section(SectionKind::Plan).ok_or_else(|| missing("PLAN"))?;
        let weights = blob.section(SectionKind::Weights).ok_or_else(|| missing("WEIGHTS"))?;
        let program = program::decode(&plan, weights.len())?;
        let hidden: usize = meta.variables.iter().map(Variable::parameters).sum();
        let ports = [meta.inputs.len() + hidden, meta.outputs.len() + meta.variables.len()];
        if [program.inputs.len(), program.outputs.len()] != ports {
            return Err(BlobError::Check {
                check: "ports",
                expected: format!("{} inputs and {} outputs", ports[0], ports[1]),
                got: format!("{} and {}", program.inputs.len(), program.outputs.len()),
            }
            .into());
        }
        check_variables(&program, meta.inputs.len(), meta.outputs.len(), &meta.variables)?;
        let weights: Arc<dyn TensorBuffer> = if weights.as_ptr().addr().is_multiple_of(64) {
            Arc::new(weights)
        } else {
            Arc::new(aligned(&weights)?)
        };
        let target = Target { isa: config.isa, threads: config.threads_per_stream() };
        let exe = Arc::new(Executable::new(program, WeightBytes(weights), target));
        let states = States::new(meta.variables.clone())?;
        let first = states.initial().iter().map(|t| Some((t.element_type(), t.shape().clone())));
        let types: Option<Vec<(ElementType, Shape)>> = meta
            .inputs
            .iter()
            .map(|p| {
                let known = p.element_type != ElementType::Dynamic;
                Some((p.element_type, p.shape.to_shape().filter(|_| known)?))
            })
            .chain(first)
            .collect();
        if let Some(types) = types {
            exe.plan(&types).map_err(|e| BlobError::Check {
                check: "plan",
                expected: "a program that can be bound".to_owned(),
                got: e.to_string(),
            })?;
        }
        let streams = config.places.iter().map(|_| Stream::default()).collect();
        let place = Place::new(config.priority);
        Ok(Self {
            blob,
            name: meta.model_name,
            inputs: meta.inputs,
            outputs: meta.outputs,
            variables: meta.variables,
            config,
            exe,
            streams: Mutex::new(streams),
            place,
            _lease: lease,
        })
    }

    /// The stream with the fewest requests, of several the one on the caller's NUMA node.
    fn choose(&self, streams: &[Stream], caller: Option<usize>) -> usize {
        let far = |s: usize| !caller.is_some_and(|c| self.config.places[s].allowed.contains(c));
        let users = |s: usize| Arc::strong_count(&streams[s].user);
        (0..streams.len()).min_by_key(|s| (users(*s), far(*s))).unwrap_or(0)
    }
}

/// Checks that the hidden inputs and outputs of a program are of their variables' types: what an output gives is taken as
/// the input of the next inference.
fn check_variables(
    program: &Program,
    inputs: usize,
    outputs: usize,
    variables: &[Variable],
) -> Result<()> {
    let type_of = |port: &Port| program.values[port.value as usize].element_type;
    let (mut input, mut fits) = (inputs, true);
    for (variable, output) in variables.iter().zip(&program.outputs[outputs..]) {
        let sized = variable.element_type.bits() > 0;
        fits &= sized && type_of(&program.inputs[input]) == variable.element_type;
        fits &= type_of(output) == variable.element_type;
        let flag = variable.has_initial.then(|| type_of(&program.inputs[input + 1]));
        fits &= flag.is_none_or(|t| t == ElementType::Boolean);
        input += variable.parameters();
    }
    if fits {
        return Ok(());
    }
    Err(BlobError::Check {
        check: "variables",
        expected: "hidden inputs and outputs of their types".to_owned(),
        got: "others".to_owned(),
    }
    .into())
}

/// Enters the weights of a mapped blob into the page tables, in the order of their use, beside whatever binds and runs
/// the model: a page that is not there yet costs the first inference more than anything else.
pub(crate) fn prefetch(blob: &Blob) {
    let Some(weights) = blob.section(SectionKind::Weights).filter(|w| w.len() >= WORTH_A_THREAD)
    else {
        return;
    };
    let work = move || weights.chunks(WINDOW).for_each(ov_core::io::populate);
    if let Err(error) = std::thread::Builder::new().name("ov-cpu-prefetch".to_owned()).spawn(work) {
        tracing::debug!(%error, "no thread to prefetch weights");
    }
}

/// Fewer bytes are faulted in as fast as a thread starts.
const WORTH_A_THREAD: usize = 32 << 20;
/// Bytes that are asked for at a time: faults of the inference wait for one call at most.
const WINDOW: usize = 8 << 20;

fn aligned(bytes: &[u8]) -> Result<AlignedBuffer> {
    let mut buffer = AlignedBuffer::zeroed(bytes.len()).ok_or_else(|| BlobError::Check {
        check: "memory",
        expected: format!("{} bytes for the weights", bytes.len()),
        got: "less".to_owned(),
    })?;
    if let Some(copy) = buffer.bytes_mut() {
        copy.copy_from_slice(bytes);
    }
    Ok(buffer)
}

impl DeviceModel for CpuModel {
    fn inputs(&self) -> &[PortInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[PortInfo] {
        &self.outputs
    }

    fn create_request(&self) -> Result<Box<dyn SyncRequest>> {
        let (seat, team) = {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            let index = self.choose(&streams, affinity::current_processor());
            let stream = &mut streams[index];
            let team = match &stream.team {
                Some(team) => Arc::clone(team),
                None => Arc::clone(stream.team.insert(teams::of_stream(&self.config, index)?)),
            };
            let bind = self.config.bindings(index).into_iter().next();
            (Seat { bind, _user: Arc::clone(&stream.user) }, team)
        };
        let runner = Runner::new(Arc::clone(&self.exe), team, self.config.profiling);
        let place = Arc::clone(&self.place);
        let states = States::new(self.variables.clone())?;
        let request = CpuRequest::new(runner, place, seat, &self.inputs, &self.outputs, states)?;
        Ok(Box::new(request))
    }

    fn blob(&self) -> Option<&Blob> {
        Some(&self.blob)
    }

    fn property_names(&self) -> &'static [&'static str] {
        config::COMPILED
    }

    fn property(&self, name: &str) -> Result<String> {
        match name {
            "NETWORK_NAME" => Ok(self.name.clone()),
            "EXECUTION_DEVICES" => Ok(DEVICE_NAME.to_owned()),
            _ => self.config.property(name).ok_or_else(|| {
                PropertyError::Unknown {
                    name: name.to_owned(),
                    device: DEVICE_NAME.to_owned(),
                    nearest: String::new(),
                }
                .into()
            }),
        }
    }

    fn state_names(&self) -> Vec<String> {
        self.variables.iter().map(|v| v.name.clone()).collect()
    }

    fn runtime_nodes(&self) -> Vec<RuntimeNode> {
        self.exe
            .program()
            .nodes
            .iter()
            .map(|n| RuntimeNode {
                name: n.name.clone(),
                op: n.op.kind().to_string(),
                kernel: n.kernel.name.to_owned(),
                original: Vec::new(),
                precision: n
                    .outputs
                    .first()
                    .map(|v| self.exe.program().values[*v as usize].element_type.to_string())
                    .unwrap_or_default(),
                layout: String::new(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{Model, op::activation::Relu, property::PropertyMap};

    use super::*;
    use crate::{plugin, topology::machines};

    #[test]
    fn requests_take_the_least_used_stream_and_then_the_one_of_their_callers_node() {
        let mut model = Model::new("m");
        let x = model.add_parameter("x", ElementType::F32, [2]).expect("valid");
        let y = model.add(Relu {}, &[x], "y").expect("valid");
        model.add_output("y", y);
        let mut map = PropertyMap::new();
        for (name, text) in [("NUM_STREAMS", "2"), ("INFERENCE_NUM_THREADS", "2")] {
            map.set_text(name, text).expect("valid");
        }
        let config = CpuConfig::resolve(&map, &machines::SMT_OFF.topology()).expect("possible");
        let blob = plugin::compile_blob(&model, &config).expect("compiles");
        let model = CpuModel::bind(blob, config, None).expect("binds");
        let streams = || model.streams.lock().expect("no panic");
        let chosen = || [Some(3), Some(20), None].map(|c| model.choose(&streams(), c));
        assert_eq!(chosen(), [0, 1, 0]);
        let far = Arc::clone(&streams()[1].user);
        assert_eq!(chosen(), [0, 0, 0]);
        drop(far);
        assert_eq!(chosen(), [0, 1, 0]);
        let requests: Vec<_> = (0..4).map(|_| model.create_request().expect("memory")).collect();
        let users = || [0, 1].map(|s| Arc::strong_count(&streams()[s].user) - 1);
        assert_eq!(users(), [2, 2], "they are spread wherever the caller is");
        drop(requests);
        assert_eq!(users(), [0, 0]);
    }
}
