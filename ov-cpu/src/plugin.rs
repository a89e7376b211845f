//! The plugin: compiles models to blobs, binds blobs, answers for the device.

use std::sync::Arc;

use ov_core::{
    ElementType, Model,
    blob::{Blob, BlobWriter, Meta, SectionKind},
    cache::DigestSink,
    error::{BlobError, PropertyError, Result},
    plugin::{DeviceInfo, DeviceModel, DeviceResolver, ModelSource, NodeSupport, Plugin, PortInfo},
    property::{
        PropertyInfo, PropertyMap,
        streams::{self, Streams},
    },
};

use crate::{
    DEVICE_NAME, compile,
    config::{self, CpuConfig},
    device_model::{self, CpuModel},
    lower, pool, reservation,
    simd::Isa,
    topology::Topology,
};

/// Version and digest of the sources: blobs of another build are compiled anew.
pub(crate) const BUILD: &str = env!("OV_CPU_BUILD");

/// Ends the target of a blob whose kernels compute in bf16.
const BF16_SUFFIX: &str = "+bf16";

/// The CPU device.
#[derive(Debug)]
pub struct CpuPlugin {
    topology: Topology,
}

impl CpuPlugin {
    /// The plugin for this machine.
    #[must_use]
    pub fn create() -> Arc<dyn Plugin> {
        Arc::new(Self { topology: Topology::detect() })
    }

    /// The largest `NUM_STREAMS` that is not clamped.
    fn most_streams(&self, set: &PropertyMap) -> Result<usize> {
        let all = set.clone().with(streams::NUM_STREAMS, Streams::Count(i32::MAX as u32));
        Ok(CpuConfig::resolve(&all, &self.topology)?.streams)
    }

    /// Reads a file that is long on large machines, so it is asked for by name only.
    fn full_name() -> String {
        std::fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|t| {
                t.lines().find_map(|l| {
                    Some(l.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned())
                })
            })
            .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
    }
}

impl Plugin for CpuPlugin {
    fn name(&self) -> &str {
        DEVICE_NAME
    }

    fn probe(&self) -> Result<Vec<DeviceInfo>, String> {
        Ok(vec![DeviceInfo {
            id: String::new(),
            full_name: crate::simd::brand().unwrap_or_else(Self::full_name),
        }])
    }

    fn properties(&self) -> &'static [PropertyInfo] {
        config::PROPERTIES
    }

    fn property(&self, name: &str, set: &PropertyMap) -> Result<String> {
        let config = CpuConfig::resolve(set, &self.topology)?;
        if let Some(text) = config.property(name) {
            return Ok(text);
        }
        Ok(match name {
            "FULL_DEVICE_NAME" => Self::full_name(),
            "DEVICE_ARCHITECTURE" => std::env::consts::ARCH.to_owned(),
            "DEVICE_TYPE" => "integrated".to_owned(),
            "OPTIMIZATION_CAPABILITIES" => {
                let bf16 = if config.isa.has_bf16() { "BF16," } else { "" };
                format!("FP32,{bf16}WINOGRAD,EXPORT_IMPORT")
            }
            "RANGE_FOR_STREAMS" => format!("1,{}", self.most_streams(set)?),
            "RANGE_FOR_ASYNC_INFER_REQUESTS" => format!("1,{},1", self.most_streams(set)?),
            "EXECUTION_DEVICES" => DEVICE_NAME.to_owned(),
            "ENABLE_MMAP" => "YES".to_owned(),
            "CACHE_MODE" => "optimize_speed".to_owned(),
            "LOG_LEVEL" => "LOG_NONE".to_owned(),
            "CACHE_DIR" | "NETWORK_NAME" => String::new(),
            "LOADED_FROM_CACHE" => "NO".to_owned(),
            _ => {
                return Err(PropertyError::Unknown {
                    name: name.to_owned(),
                    device: DEVICE_NAME.to_owned(),
                    nearest: String::new(),
                }
                .into());
            }
        })
    }

    fn compile_model(
        &self,
        model: &ModelSource,
        properties: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Arc<dyn DeviceModel>> {
        let (config, lease) = reservation::claim(properties, &self.topology)?;
        let blob = compile_blob(model.model()?, &config)?;
        Ok(Arc::new(CpuModel::bind(blob, config, lease)?))
    }

    fn import_model(&self, blob: Blob, properties: &PropertyMap) -> Result<Arc<dyn DeviceModel>> {
        let (mut config, lease) = reservation::claim(properties, &self.topology)?;
        let header = blob.header();
        let incompatible = || BlobError::Incompatible {
            made_for: format!("{} {} build {}", header.device, header.target, header.build),
            here: format!("{DEVICE_NAME} {} build {BUILD}", Isa::detect()),
        };
        if header.device != DEVICE_NAME || header.build != BUILD {
            return Err(incompatible().into());
        }
        let (isa, bf16) = match header.target.strip_suffix(BF16_SUFFIX) {
            Some(isa) => (isa, true),
            None => (header.target.as_str(), false),
        };
        config.isa =
            Isa::named(isa).filter(|isa| !bf16 || isa.has_bf16()).ok_or_else(incompatible)?;
        config.precision = if bf16 { ElementType::Bf16 } else { ElementType::F32 };
        device_model::prefetch(&blob);
        Ok(Arc::new(CpuModel::bind(blob, config, lease)?))
    }

    fn query_model(
        &self,
        model: &Model,
        properties: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Vec<NodeSupport>> {
        let config = CpuConfig::resolve(properties, &self.topology)?;
        let options = config.options();
        lower::query(&compile::prepare(model, options)?, &options)
    }

    fn cache_key(&self, properties: &PropertyMap, key: &mut dyn DigestSink) -> Result<bool> {
        key.field("device", DEVICE_NAME.as_bytes());
        key.field("build", BUILD.as_bytes());
        CpuConfig::resolve(properties, &self.topology)?.cache_key(key);
        Ok(true)
    }
}

/// The one product of a compile.
pub(crate) fn compile_blob(model: &Model, config: &CpuConfig) -> Result<Blob> {
    let compiled = compile::compile(model, &config.options())?;
    let meta = Meta {
        model_name: model.name().to_owned(),
        inputs: PortInfo::inputs_of(model),
        outputs: PortInfo::outputs_of(model),
        variables: model.variables().to_vec(),
        properties: PropertyMap::new(),
    }
    .encode();
    let suffix = if config.options().bf16 { BF16_SUFFIX } else { "" };
    let target = format!("{}{suffix}", config.isa);
    let mut writer = BlobWriter::new(DEVICE_NAME, &target, BUILD);
    writer.reserve(SectionKind::Meta, meta.len())?;
    writer.reserve(SectionKind::Plan, compiled.plan.len())?;
    writer.reserve(SectionKind::Weights, compiled.weights.len())?;
    let mut buffer = writer.allocate()?;
    buffer.fill(SectionKind::Meta, &meta)?;
    buffer.fill(SectionKind::Plan, &compiled.plan)?;
    let section = buffer.section_mut(SectionKind::Weights)?;
    let weights = compiled.weights;
    pool::run(config.compilation_threads, || weights.write(section));
    buffer.finish()
}
