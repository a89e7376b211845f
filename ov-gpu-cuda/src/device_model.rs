//! A compiled model: the blob, bound to its GPUs.

use std::sync::Arc;

use ov_core::{
    Blob, ElementType, Model, Shape,
    blob::{BlobWriter, Meta, SectionKind},
    error::{BlobError, CompileError, DeviceError, PropertyError, Result},
    model::Variable,
    plugin::{DeviceModel, PortInfo, SyncRequest},
    profiling::RuntimeNode,
    program::{Kernel, decode, encode},
    property::PropertyMap,
    states::States,
    tensor::{AlignedBuffer, TensorBuffer},
};

use crate::{
    DEVICE_NAME,
    compile::Compiler,
    config::{self, CudaConfig},
    driver::Device,
    images::Code,
    kernels::Gpu,
    loaded::{Loaded, failed},
    lower::{self, Options},
    plan::{Executable, Plan},
    pool::Pool,
    program::{ALIGNMENT, Constant, Port, Program, WeightBytes, Weights},
    request::CudaRequest,
    slot::{Slot, SlotOptions, is_out_of_memory, not_bound},
    states::DeviceStates,
};

/// Blobs of another build are refused: kernels and layouts of weights may differ.
pub(crate) const BUILD: &str = env!("CARGO_PKG_VERSION");

/// How many bytes the weights section begins with a description of the GPU in the plan section.
const GPU_WORDS: usize = 4;

/// A GPU as kernels see it.
pub(crate) fn gpu_of(device: &Device) -> Gpu {
    Gpu {
        capability: device.about.capability,
        multiprocessors: device.about.multiprocessors,
        shared_per_block: device.about.shared_per_block,
    }
}

/// The target in a blob's header: `sm_90`.
pub(crate) fn target_text((major, minor): (u32, u32)) -> String {
    format!("sm_{major}{minor}")
}

/// The one product of a compile.
///
/// # Errors
/// When the model is not valid, or the compiler refuses a kernel.
pub(crate) fn compile_blob(
    model: &Model,
    config: &CudaConfig,
    device: &Device,
    compiler: Option<&'static dyn Compiler>,
) -> Result<Blob> {
    let gpu = gpu_of(device);
    let options = Options { gpu, precision: config.precision, round: config.round() };
    let mut weights = Weights::aligned(ALIGNMENT);
    let program = lower::lower(&lower::prepare(model, &options)?, &options, &mut weights)?;
    let plan = encode_plan(&program, gpu)?;
    let len = weights.len();
    let mut packed = buffer(len)?;
    if let Some(section) = packed.bytes_mut() {
        weights.write(section);
    }
    let packed = Arc::new(packed);
    let meta = Meta {
        model_name: model.name().to_owned(),
        inputs: PortInfo::inputs_of(model),
        outputs: PortInfo::outputs_of(model),
        variables: model.variables().to_vec(),
        properties: PropertyMap::new(),
    };
    let shared: Arc<dyn TensorBuffer> = Arc::<AlignedBuffer>::clone(&packed);
    let exe = Executable::new(program, WeightBytes(shared), gpu).with_variables(&meta.variables);
    let code = compile_code(&exe, &meta, compiler)?.encode();
    let meta = meta.encode();
    let mut writer = BlobWriter::new(DEVICE_NAME, target_text(gpu.capability), BUILD);
    writer.reserve(SectionKind::Meta, meta.len())?;
    writer.reserve(SectionKind::Plan, plan.len())?;
    writer.reserve(SectionKind::Code, code.len())?;
    writer.reserve(SectionKind::Weights, len)?;
    let mut blob = writer.allocate()?;
    blob.fill(SectionKind::Meta, &meta)?;
    blob.fill(SectionKind::Plan, &plan)?;
    blob.fill(SectionKind::Code, &code)?;
    blob.section_mut(SectionKind::Weights)?.copy_from_slice(packed.bytes());
    blob.finish()
}

/// Compiles the modules that the model needs for its static shapes. For dynamic shapes those that a few of them need,
/// the rest when they come.
fn compile_code(
    exe: &Executable,
    meta: &Meta,
    compiler: Option<&'static dyn Compiler>,
) -> Result<Code> {
    let mut code = Code::default();
    let states = States::new(meta.variables.clone())?;
    let mut plans: Vec<Arc<Plan>> = Vec::new();
    match static_types(meta, &states) {
        Some(types) => {
            plans.push(exe.plan(&types).map_err(|e| not_bound(&e))?);
            let later = later_types(meta, &types);
            if later != types {
                plans.push(exe.plan(&later).map_err(|e| not_bound(&e))?);
            }
        }
        None => {
            for extent in SAMPLED {
                plans.extend(sample(meta, &states, extent).and_then(|types| exe.plan(&types).ok()));
            }
        }
    }
    for plan in &plans {
        for source in plan.sources() {
            let Some(compiler) = compiler else {
                return Err(DeviceError::Unsupported {
                    name: DEVICE_NAME.to_owned(),
                    what: "compiling models without NVRTC".to_owned(),
                    hint:
                        ": install it (the package nvidia-cuda-nvrtc, or a CUDA toolkit), or set \
                           OV_CUDA_LIBRARY_PATH to its folder; compiled blobs run without it"
                            .to_owned(),
                }
                .into());
            };
            code.add(source, exe.gpu.capability, compiler).map_err(|e| CompileError::Other {
                device: DEVICE_NAME.to_owned(),
                model: meta.model_name.clone(),
                detail: e.to_string(),
            })?;
        }
    }
    tracing::debug!(modules = code.len(), model = meta.model_name, "compiled for the GPU");
    Ok(code)
}

/// Extents that stand for the unknown ones of dynamic shapes while kernels are compiled ahead.
const SAMPLED: [usize; 2] = [1, 16];

fn sample(meta: &Meta, states: &States, extent: usize) -> Option<Vec<(ElementType, Shape)>> {
    let port = |p: &PortInfo| {
        let dims = p.shape.dims()?;
        let known = p.element_type != ElementType::Dynamic;
        let dims = dims.iter().map(|d| d.value().unwrap_or_else(|| extent.max(d.min())));
        known.then(|| (p.element_type, dims.collect()))
    };
    meta.inputs.iter().map(port).chain(hidden_types(states)).collect()
}

fn hidden_types(states: &States) -> impl Iterator<Item = Option<(ElementType, Shape)>> {
    states.initial().iter().map(|t| Some((t.element_type(), t.shape().clone())))
}

/// Types of the inferences after the first one: variables hold values, which is said by flags without elements.
fn later_types(meta: &Meta, first: &[(ElementType, Shape)]) -> Vec<(ElementType, Shape)> {
    let mut types = first.to_vec();
    let mut at = meta.inputs.len();
    for variable in &meta.variables {
        if variable.has_initial && variable.shape.is_static() {
            types[at + 1].1 = Shape::new(&[0]);
        }
        at += variable.parameters();
    }
    types
}

fn static_types(meta: &Meta, states: &States) -> Option<Vec<(ElementType, Shape)>> {
    let port = |p: &PortInfo| {
        let known = p.element_type != ElementType::Dynamic;
        Some((p.element_type, p.shape.to_shape().filter(|_| known)?))
    };
    meta.inputs.iter().map(port).chain(hidden_types(states)).collect()
}

fn buffer(len: usize) -> Result<AlignedBuffer> {
    AlignedBuffer::zeroed(len).ok_or_else(|| {
        BlobError::Check {
            check: "memory",
            expected: format!("{len} bytes for the weights"),
            got: "less".to_owned(),
        }
        .into()
    })
}

/// The plan section: the GPU that kernels were chosen for, then the program.
fn encode_plan(program: &Program, gpu: Gpu) -> Result<Vec<u8>> {
    let words = [gpu.capability.0, gpu.capability.1, gpu.multiprocessors, gpu.shared_per_block];
    let mut plan: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    plan.extend(encode(program)?);
    Ok(plan)
}

fn decode_plan(bytes: &[u8], weights: usize) -> Result<(Program, Gpu)> {
    let short = || BlobError::Check {
        check: "plan",
        expected: "the description of a GPU".to_owned(),
        got: format!("{} bytes", bytes.len()),
    };
    let (head, rest) = bytes.split_at_checked(GPU_WORDS * 4).ok_or_else(short)?;
    let word = |i: usize| {
        let bytes = head[4 * i..].first_chunk().copied().unwrap_or_default();
        u32::from_le_bytes(bytes)
    };
    let gpu = Gpu {
        capability: (word(0), word(1)),
        multiprocessors: word(2).clamp(1, 1 << 16),
        shared_per_block: word(3),
    };
    Ok((decode(rest, weights)?, gpu))
}

/// A compiled model on one GPU or several.
#[derive(Debug)]
pub(crate) struct CudaModel {
    blob: Blob,
    meta: Meta,
    config: CudaConfig,
    devices: Vec<Arc<Device>>,
    exe: Arc<Executable>,
    pool: Arc<Pool>,
}

impl CudaModel {
    /// Binds a blob to GPUs: one plan, the weights once per GPU, slots on each.
    ///
    /// # Errors
    /// When the blob is damaged, memory runs out before one slot exists, or a GPU fails.
    pub(crate) fn bind(
        blob: Blob,
        config: CudaConfig,
        devices: Vec<Arc<Device>>,
        compiler: Option<&'static dyn Compiler>,
    ) -> Result<Self> {
        let missing = |what: &'static str| BlobError::Check {
            check: "sections",
            expected: format!("a {what} section"),
            got: "none".to_owned(),
        };
        let meta = Meta::of(&blob)?;
        let plan = blob.copy_section(SectionKind::Plan).ok_or_else(|| missing("PLAN"))?;
        let code = blob.copy_section(SectionKind::Code).ok_or_else(|| missing("CODE"))?;
        let weights = blob.section(SectionKind::Weights).ok_or_else(|| missing("WEIGHTS"))?;
        let (program, gpu) = decode_plan(&plan, weights.len())?;
        check_ports(&program, &meta)?;
        check_alignment(&program)?;
        let code = Arc::new(Code::decode(&code)?);
        let exe = Executable::new(program, WeightBytes(Arc::new(weights.clone())), gpu)
            .with_variables(&meta.variables);
        let states = States::new(meta.variables.clone())?;
        let plan = static_types(&meta, &states).map(|types| exe.plan(&types)).transpose().map_err(
            |e| BlobError::Check {
                check: "plan",
                expected: "a program that can be bound".to_owned(),
                got: e.to_string(),
            },
        )?;
        let image = Loading { weights: &weights, code: &code, compiler, plan: plan.as_ref() };
        let (mut slots, mut used, mut short) = (Vec::new(), Vec::new(), None);
        for device in devices {
            match image.slots(&device, &config) {
                Ok(made) => {
                    slots.extend(made);
                    used.push(device);
                }
                // The others go on where one has no room.
                Err(e) if is_out_of_memory(&e) => {
                    tracing::warn!(device = device.ordinal, error = %e, "a GPU is left out");
                    short = Some(e);
                }
                Err(e) => return Err(e),
            }
        }
        if let (true, Some(e)) = (slots.is_empty(), short) {
            return Err(e);
        }
        let devices = used;
        let pool = Arc::new(Pool::new(slots));
        Ok(Self { blob, meta, config, devices, exe: Arc::new(exe), pool })
    }
}

/// What is brought to a GPU.
struct Loading<'a> {
    weights: &'a [u8],
    code: &'a Arc<Code>,
    compiler: Option<&'static dyn Compiler>,
    /// What slots prepare at once.
    plan: Option<&'a Arc<Plan>>,
}

impl Loading<'_> {
    /// The slots of a GPU: as many as are wished, or fewer where its memory ends.
    ///
    /// # Errors
    /// When there is no room for one, or the GPU fails.
    fn slots(&self, device: &Arc<Device>, config: &CudaConfig) -> Result<Vec<Slot>> {
        let context = device.context().map_err(|e| failed(device, e))?;
        let options = SlotOptions {
            priority: config.stream_priority(context.priorities()),
            wait: config.wait(),
            patience: config.patience,
            profile: config.profiling,
        };
        let loaded = Loaded::new(context, self.weights, Arc::clone(self.code), self.compiler)
            .map_err(|e| failed(device, e))?;
        let loaded = Arc::new(loaded);
        let mut slots = Vec::new();
        for stream in 0..config.streams {
            let slot = Slot::new(Arc::clone(&loaded), options).and_then(|mut slot| {
                match self.plan {
                    Some(plan) if plan.state_uses.is_empty() => {
                        slot.prepare(plan, &DeviceStates::none())?;
                    }
                    // Its graphs depend on where a request has its variables.
                    Some(plan) => slot.warm(plan)?,
                    None => {}
                }
                Ok(slot)
            });
            match slot {
                Ok(slot) => slots.push(slot),
                // One stream is enough to go on with.
                Err(e) if stream > 0 && is_out_of_memory(&e) => {
                    tracing::warn!(device = device.ordinal, streams = stream, error = %e, "fewer streams");
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(slots)
    }
}

#[cfg(test)]
impl CudaModel {
    /// The slots.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

/// Checks that kernels may load weights in words of any size: an address that does not suit loses the GPU.
fn check_alignment(program: &Program) -> Result<()> {
    let packed = program.nodes.iter().flat_map(|n| &n.packed);
    let stored = program.values.iter().filter_map(|v| match &v.constant {
        Constant::Stored(range) => Some(range),
        _ => None,
    });
    if let Some(range) = packed.chain(stored).find(|r| !r.start.is_multiple_of(ALIGNMENT)) {
        return Err(BlobError::Check {
            check: "weights",
            expected: format!("constants at multiples of {ALIGNMENT}"),
            got: format!("offset {}", range.start),
        }
        .into());
    }
    program.nodes.iter().flat_map(|n| &n.bodies).try_for_each(check_alignment)
}

/// Checks that a program has the inputs and outputs of its model, hidden ones included, and that what an output gives can
/// be taken as the input of the next inference.
fn check_ports(program: &Program, meta: &Meta) -> Result<()> {
    let hidden: usize = meta.variables.iter().map(Variable::parameters).sum();
    let expected = [meta.inputs.len() + hidden, meta.outputs.len() + meta.variables.len()];
    let got = [program.inputs.len(), program.outputs.len()];
    let check = |check, expected: String, got: String| BlobError::Check { check, expected, got };
    if got != expected {
        let text = |[i, o]: [usize; 2]| format!("{i} inputs and {o} outputs");
        return Err(check("ports", text(expected), text(got)).into());
    }
    let type_of = |port: &Port| program.values[port.value as usize].element_type;
    let (mut input, mut fits) = (meta.inputs.len(), true);
    for (variable, output) in meta.variables.iter().zip(&program.outputs[meta.outputs.len()..]) {
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
    let expected = "hidden inputs and outputs of their types".to_owned();
    Err(check("variables", expected, "others".to_owned()).into())
}

impl DeviceModel for CudaModel {
    fn inputs(&self) -> &[PortInfo] {
        &self.meta.inputs
    }

    fn outputs(&self) -> &[PortInfo] {
        &self.meta.outputs
    }

    fn create_request(&self) -> Result<Box<dyn SyncRequest>> {
        let (exe, pool) = (Arc::clone(&self.exe), Arc::clone(&self.pool));
        let Meta { inputs, outputs, variables, .. } = &self.meta;
        let profile = self.config.profiling;
        Ok(Box::new(CudaRequest::new(exe, pool, inputs, outputs, variables, profile)?))
    }

    fn blob(&self) -> Option<&Blob> {
        Some(&self.blob)
    }

    fn property_names(&self) -> &'static [&'static str] {
        config::COMPILED
    }

    fn property(&self, name: &str) -> Result<String> {
        Ok(match name {
            "NETWORK_NAME" => self.meta.model_name.clone(),
            "EXECUTION_DEVICES" => {
                let names = self.devices.iter().map(|d| format!("{DEVICE_NAME}.{}", d.ordinal));
                names.collect::<Vec<_>>().join(",")
            }
            "OPTIMAL_NUMBER_OF_INFER_REQUESTS" => self.pool.alive().max(1).to_string(),
            _ => self.config.property(name).ok_or_else(|| PropertyError::Unknown {
                name: name.to_owned(),
                device: DEVICE_NAME.to_owned(),
                nearest: String::new(),
            })?,
        })
    }

    fn state_names(&self) -> Vec<String> {
        self.meta.variables.iter().map(|v| v.name.clone()).collect()
    }

    fn runtime_nodes(&self) -> Vec<RuntimeNode> {
        let program = &self.exe.program;
        program
            .nodes
            .iter()
            .map(|n| RuntimeNode {
                name: n.name.clone(),
                op: n.op.kind().to_string(),
                kernel: n.kernel.name().to_owned(),
                original: Vec::new(),
                precision: n
                    .outputs
                    .first()
                    .map(|v| program.values[*v as usize].element_type.to_string())
                    .unwrap_or_default(),
                layout: String::new(),
            })
            .collect()
    }
}
