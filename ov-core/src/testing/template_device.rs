//! The smallest complete device: `TEMPLATE` runs every operator by its reference evaluation. Start a device from here.
//!
//! It shows what a device owes: probing, properties, compiling into a blob and binding from it, importing, querying,
//! requests with the user's memory, cancelling, profiling.

use std::{sync::Arc, time::Instant};

use crate::{
    blob::{Blob, BlobWriter, Decoder, Encoder, Meta, SectionKind},
    cache::DigestSink,
    error::{BlobError, InferError, PropertyError, Result},
    model::Model,
    plugin::{
        CancelToken, DeviceInfo, DeviceModel, DeviceResolver, ModelSource, NodeSupport, Plugin,
        PortInfo, SyncRequest,
    },
    profiling::{NodeProfile, NodeStatus, RuntimeNode},
    property::{PropertyInfo, PropertyMap, PropertyValue, device, hint, info, streams},
    reference,
    states::States,
    tensor::Tensor,
};

const NAME: &str = "TEMPLATE";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the device knows; everything that users set is checked against this list.
const PROPERTIES: &[PropertyInfo] = &[
    hint::PERFORMANCE_MODE.info(),
    info::ENABLE_PROFILING.info(),
    device::FULL_NAME.info(),
    device::CAPABILITIES.info(),
    streams::OPTIMAL_NUMBER_OF_INFER_REQUESTS.info(),
];

/// What a compiled model answers.
const MODEL_PROPERTIES: &[&str] = &[
    info::MODEL_NAME.name(),
    info::EXECUTION_DEVICES.name(),
    info::ENABLE_PROFILING.name(),
    streams::OPTIMAL_NUMBER_OF_INFER_REQUESTS.name(),
];

/// The plugin.
#[derive(Clone, Debug, Default)]
pub struct TemplatePlugin;

impl TemplatePlugin {
    /// What [`register_plugin!`](crate::register_plugin) takes.
    #[must_use]
    pub fn create() -> Arc<dyn Plugin> {
        Arc::new(Self)
    }
}

/// Resolved once per compile; plain fields from there on.
#[derive(Clone, Copy, Debug)]
struct Config {
    profiling: bool,
}

impl Config {
    fn resolve(properties: &PropertyMap) -> Result<Self> {
        Ok(Self { profiling: properties.get_or(info::ENABLE_PROFILING, false)? })
    }
}

impl Plugin for TemplatePlugin {
    fn name(&self) -> &str {
        NAME
    }

    fn probe(&self) -> Result<Vec<DeviceInfo>, String> {
        Ok(vec![DeviceInfo { id: String::new(), full_name: "reference evaluation".to_owned() }])
    }

    fn properties(&self) -> &'static [PropertyInfo] {
        PROPERTIES
    }

    fn property(&self, name: &str, _: &PropertyMap) -> Result<String> {
        Ok(match name {
            "PERFORMANCE_HINT" => hint::PerformanceMode::Latency.to_text(),
            "PERF_COUNT" => false.to_text(),
            "FULL_DEVICE_NAME" => "reference evaluation".to_owned(),
            "OPTIMIZATION_CAPABILITIES" => "FP32,EXPORT_IMPORT".to_owned(),
            "OPTIMAL_NUMBER_OF_INFER_REQUESTS" => 1.to_text(),
            _ => return Err(unknown(name)),
        })
    }

    fn compile_model(
        &self,
        model: &ModelSource,
        properties: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Arc<dyn DeviceModel>> {
        let blob = write(model.model()?, properties)?;
        self.import_model(blob, properties)
    }

    fn import_model(&self, blob: Blob, properties: &PropertyMap) -> Result<Arc<dyn DeviceModel>> {
        if blob.header().build != VERSION {
            let made_for = format!("{NAME} {}", blob.header().build);
            return Err(
                BlobError::Incompatible { made_for, here: format!("{NAME} {VERSION}") }.into()
            );
        }
        let meta = Meta::of(&blob)?;
        let plan = blob.copy_section(SectionKind::Plan).unwrap_or_default();
        let mut decoder = Decoder::new(&plan);
        let model = Arc::new(decoder.model()?);
        decoder.end()?;
        if PortInfo::inputs_of(&model).len() != meta.inputs.len()
            || PortInfo::outputs_of(&model).len() != meta.outputs.len()
        {
            return Err(BlobError::Check {
                check: "ports",
                expected: "those of the program".to_owned(),
                got: "others".to_owned(),
            }
            .into());
        }
        let config = Config::resolve(properties)?;
        Ok(Arc::new(TemplateModel { blob, meta, model, config }))
    }

    fn query_model(
        &self,
        model: &Model,
        _: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Vec<NodeSupport>> {
        let support = |id| {
            let node = model.node(id);
            NodeSupport {
                node: id,
                name: node.name().to_owned(),
                op: node.op().kind().to_string(),
                kernel: Ok("reference".to_owned()),
            }
        };
        Ok(model.topological_order()?.into_iter().map(support).collect())
    }

    fn cache_key(&self, properties: &PropertyMap, key: &mut dyn DigestSink) -> Result<bool> {
        let Config { profiling: _runtime_only } = Config::resolve(properties)?;
        key.field("version", VERSION.as_bytes());
        Ok(true)
    }
}

/// Compiling: the one product is the blob.
fn write(model: &Model, properties: &PropertyMap) -> Result<Blob> {
    let meta = Meta {
        model_name: model.name().to_owned(),
        inputs: PortInfo::inputs_of(model),
        outputs: PortInfo::outputs_of(model),
        variables: model.variables().to_vec(),
        properties: properties.clone(),
    }
    .encode();
    let mut encoder = Encoder::new();
    encoder.model(model)?;
    let plan = encoder.into_bytes();
    let mut writer = BlobWriter::new(NAME, "any", VERSION);
    writer.reserve(SectionKind::Meta, meta.len())?;
    writer.reserve(SectionKind::Plan, plan.len())?;
    let mut buffer = writer.allocate()?;
    buffer.fill(SectionKind::Meta, &meta)?;
    buffer.fill(SectionKind::Plan, &plan)?;
    buffer.finish()
}

fn unknown(name: &str) -> crate::Error {
    PropertyError::Unknown {
        name: name.to_owned(),
        device: NAME.to_owned(),
        nearest: String::new(),
    }
    .into()
}

struct TemplateModel {
    blob: Blob,
    meta: Meta,
    model: Arc<Model>,
    config: Config,
}

impl DeviceModel for TemplateModel {
    fn inputs(&self) -> &[PortInfo] {
        &self.meta.inputs
    }

    fn outputs(&self) -> &[PortInfo] {
        &self.meta.outputs
    }

    fn create_request(&self) -> Result<Box<dyn SyncRequest>> {
        let fresh = |port: &PortInfo| -> Result<Option<Tensor>> {
            let Some(shape) = port.shape.to_shape() else { return Ok(None) };
            Ok(Some(Tensor::zeros(port.element_type, shape)?))
        };
        let states = States::new(self.model.variables().to_vec())?;
        Ok(Box::new(TemplateRequest {
            hidden: states.initial().to_vec(),
            states,
            model: Arc::clone(&self.model),
            inputs: self.meta.inputs.iter().map(fresh).collect::<Result<_>>()?,
            outputs: self.meta.outputs.iter().map(fresh).collect::<Result<_>>()?,
            lent: vec![false; self.meta.outputs.len()],
            names: self.meta.outputs.iter().map(|p| p.name.clone()).collect(),
            profile: self.config.profiling.then(Vec::new),
        }))
    }

    fn blob(&self) -> Option<&Blob> {
        Some(&self.blob)
    }

    fn property_names(&self) -> &'static [&'static str] {
        MODEL_PROPERTIES
    }

    fn property(&self, name: &str) -> Result<String> {
        Ok(match name {
            "NETWORK_NAME" => self.meta.model_name.clone(),
            "EXECUTION_DEVICES" => NAME.to_owned(),
            "PERF_COUNT" => self.config.profiling.to_text(),
            "OPTIMAL_NUMBER_OF_INFER_REQUESTS" => 1.to_text(),
            _ => return Err(unknown(name)),
        })
    }

    fn state_names(&self) -> Vec<String> {
        self.meta.variables.iter().map(|v| v.name.clone()).collect()
    }

    fn runtime_nodes(&self) -> Vec<RuntimeNode> {
        let step = |node: &crate::model::Node| RuntimeNode {
            name: node.name().to_owned(),
            op: node.op().kind().to_string(),
            kernel: "reference".to_owned(),
            original: vec![node.name().to_owned()],
            precision: node.element_type(0).to_string(),
            layout: "any".to_owned(),
        };
        self.model.nodes().map(|(_, node)| step(node)).collect()
    }
}

struct TemplateRequest {
    model: Arc<Model>,
    inputs: Vec<Option<Tensor>>,
    outputs: Vec<Option<Tensor>>,
    states: States,
    /// Values of the states.
    hidden: Vec<Tensor>,
    /// Whether the user gave the memory of an output.
    lent: Vec<bool>,
    names: Vec<String>,
    profile: Option<Vec<NodeProfile>>,
}

impl SyncRequest for TemplateRequest {
    fn set_input(&mut self, index: usize, tensor: Tensor) -> Result<()> {
        self.inputs[index] = Some(tensor);
        Ok(())
    }

    fn input(&self, index: usize) -> Option<&Tensor> {
        self.inputs[index].as_ref()
    }

    fn input_mut(&mut self, index: usize) -> Option<&mut Tensor> {
        self.inputs[index].as_mut()
    }

    fn set_output(&mut self, index: usize, tensor: Tensor) -> Result<()> {
        self.outputs[index] = Some(tensor);
        self.lent[index] = true;
        Ok(())
    }

    fn output(&self, index: usize) -> Option<&Tensor> {
        self.outputs[index].as_ref()
    }

    fn infer(&mut self, cancel: &CancelToken) -> Result<()> {
        cancel.check()?;
        let start = Instant::now();
        let inputs: Vec<Tensor> =
            self.inputs.iter().flatten().chain(&self.hidden).cloned().collect();
        let mut results = reference::evaluate(&self.model, &inputs)?;
        cancel.check()?;
        let mut assigned = results.split_off(self.outputs.len());
        for (i, result) in results.into_iter().enumerate() {
            let place = &mut self.outputs[i];
            match place {
                Some(lent) if self.lent[i] => {
                    if lent.shape() != result.shape() {
                        return Err(InferError::Mismatch {
                            direction: "output",
                            port: self.names[i].clone(),
                            expected: format!("{}{}", lent.element_type(), lent.shape()),
                            got: format!("{}{}", result.element_type(), result.shape()),
                        }
                        .into());
                    }
                    lent.bytes_mut()?.copy_from_slice(result.to_contiguous().bytes());
                }
                _ => *place = Some(result.to_owned_tensor()),
            }
        }
        self.states.advance(&mut self.hidden, &mut assigned);
        if let Some(profile) = &mut self.profile {
            let wall = start.elapsed();
            *profile = vec![NodeProfile {
                name: self.model.name().to_owned(),
                op: "Model".to_owned(),
                kernel: "reference".to_owned(),
                status: NodeStatus::Executed,
                wall,
                cpu: wall,
            }];
        }
        Ok(())
    }

    fn profiling(&self) -> Vec<NodeProfile> {
        self.profile.clone().unwrap_or_default()
    }

    fn state(&self, name: &str) -> Result<Tensor> {
        self.states.value(&self.hidden, name)
    }

    fn set_state(&mut self, name: &str, value: &Tensor) -> Result<()> {
        self.states.set(&mut self.hidden, name, value)
    }

    fn reset_states(&mut self) {
        self.states.reset(&mut self.hidden);
    }
}
