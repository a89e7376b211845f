//! A compiled model: a blob bound to this process.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

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
    DEVICE_NAME,
    config::{self, CpuConfig},
    plan::{Executable, Runner, Target},
    priority::Place,
    program::{self, Port, Program, WeightBytes},
    request::CpuRequest,
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
    teams: Vec<Arc<Team>>,
    next_stream: AtomicUsize,
    place: Arc<Place>,
}

impl CpuModel {
    /// Binds a blob; its weights stay where they are.
    pub(crate) fn bind(blob: Blob, config: CpuConfig) -> Result<Self> {
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
        let teams =
            (0..config.streams).map(|s| teams::of_stream(&config, s)).collect::<Result<_>>()?;
        let place = Place::new(config.priority);
        Ok(Self {
            blob,
            name: meta.model_name,
            inputs: meta.inputs,
            outputs: meta.outputs,
            variables: meta.variables,
            config,
            exe,
            teams,
            next_stream: AtomicUsize::new(0),
            place,
        })
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
const WORTH_A_THREAD: usize = 4 << 20;
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
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed) % self.teams.len();
        let runner = Runner::new(
            Arc::clone(&self.exe),
            Arc::clone(&self.teams[stream]),
            self.config.profiling,
        );
        let states = States::new(self.variables.clone())?;
        let place = Arc::clone(&self.place);
        Ok(Box::new(CpuRequest::new(runner, place, &self.inputs, &self.outputs, states)?))
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
