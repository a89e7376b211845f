//! The plugin: compiles for the first candidate that succeeds and hands its requests out.

use std::sync::Arc;

use ov_core::{
    Blob, Model, ModelSource, NodeSupport, PortInfo, PropertyMap, Result,
    error::{DeviceError, PropertyError},
    plugin::{CompiledDevice, DeviceInfo, DeviceModel, DeviceResolver, Plugin, SyncRequest},
    profiling::RuntimeNode,
    property::{PropertyInfo, PropertyValue, cache, device, hint, info, streams},
};

use crate::select::candidates;

/// The name in device strings.
pub const DEVICE_NAME: &str = "AUTO";

/// Its own properties, and those that it hands to the devices that know them.
const PROPERTIES: &[PropertyInfo] = &[
    device::PRIORITIES.info(),
    device::PROPERTIES.info(),
    hint::PERFORMANCE_MODE.info(),
    hint::NUM_REQUESTS.info(),
    hint::MODEL_PRIORITY.info(),
    hint::EXECUTION_MODE.info(),
    hint::INFERENCE_PRECISION.info(),
    hint::ENABLE_CPU_PINNING.info(),
    hint::ENABLE_CPU_RESERVATION.info(),
    hint::SCHEDULING_CORE_TYPE.info(),
    hint::ENABLE_HYPER_THREADING.info(),
    hint::MODEL_DISTRIBUTION_POLICY.info(),
    hint::DYNAMIC_QUANTIZATION_GROUP_SIZE.info(),
    hint::KV_CACHE_PRECISION.info(),
    streams::NUM_STREAMS.info(),
    streams::INFERENCE_NUM_THREADS.info(),
    streams::COMPILATION_NUM_THREADS.info(),
    cache::CACHE_DIR.info(),
    cache::CACHE_MODE.info(),
    cache::ENABLE_MMAP.info(),
    info::ENABLE_PROFILING.info(),
    device::FULL_NAME.info(),
];

/// The plugin that chooses a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct AutoPlugin;

impl AutoPlugin {
    /// Creates the plugin.
    #[must_use]
    pub fn create() -> Arc<dyn Plugin> {
        Arc::new(Self)
    }
}

fn plan(
    properties: &PropertyMap,
    devices: &dyn DeviceResolver,
) -> Result<Vec<(String, PropertyMap)>> {
    let list = properties.get_or(device::PRIORITIES, Vec::new())?;
    let names = candidates(&list, &devices.devices())?;
    let own = [device::PRIORITIES.name(), device::PROPERTIES.name()];
    let shared: Vec<(&str, &str)> = properties.iter().filter(|(n, _)| !own.contains(n)).collect();
    if let Some((name, _)) =
        shared.iter().find(|(n, _)| !names.iter().any(|d| devices.accepts(d, n)))
    {
        return Err(PropertyError::Unknown {
            name: (*name).to_owned(),
            device: format!("any device that {DEVICE_NAME} may choose ({})", names.join(", ")),
            nearest: String::new(),
        }
        .into());
    }
    let single = properties.get_or(device::PROPERTIES, Default::default())?.0;
    if let Some(name) = single
        .keys()
        .find(|n| !names.contains(n) && !devices.devices().iter().any(|(d, _)| d == *n))
    {
        return Err(DeviceError::BadName {
            text: name.clone(),
            detail: format!("DEVICE_PROPERTIES names a device that is not registered; {DEVICE_NAME} may choose {}", names.join(", ")),
        }
        .into());
    }
    names
        .into_iter()
        .map(|name| {
            let mut map = PropertyMap::new();
            for (property, text) in &shared {
                if devices.accepts(&name, property) {
                    map.set_text(property, text)?;
                }
            }
            for (property, text) in single.get(&name).into_iter().flatten() {
                map.set_text(property, text)?;
            }
            Ok((name, map))
        })
        .collect()
}

impl Plugin for AutoPlugin {
    fn name(&self) -> &str {
        DEVICE_NAME
    }

    fn probe(&self) -> Result<Vec<DeviceInfo>, String> {
        Ok(vec![DeviceInfo { id: String::new(), full_name: DEVICE_NAME.to_owned() }])
    }

    fn properties(&self) -> &'static [PropertyInfo] {
        PROPERTIES
    }

    /// The defaults; the chosen device may decide otherwise, which its compiled model says.
    fn property(&self, name: &str, _: &PropertyMap) -> Result<String> {
        Ok(match name {
            "FULL_DEVICE_NAME" => DEVICE_NAME.to_owned(),
            "PERFORMANCE_HINT" => hint::PerformanceMode::Latency.to_text(),
            "PERFORMANCE_HINT_NUM_REQUESTS" => "0".to_owned(),
            "MODEL_PRIORITY" => hint::Priority::Medium.to_text(),
            "EXECUTION_MODE_HINT" => hint::ExecutionMode::Performance.to_text(),
            "ENABLE_MMAP" => true.to_text(),
            "PERF_COUNT" => false.to_text(),
            _ => String::new(),
        })
    }

    fn compile_model(
        &self,
        model: &ModelSource,
        properties: &PropertyMap,
        devices: &Arc<dyn DeviceResolver>,
    ) -> Result<Arc<dyn DeviceModel>> {
        let mut failures = Vec::new();
        for (name, map) in plan(properties, &**devices)? {
            match devices.compile(model, &name, &map) {
                Ok(target) => {
                    tracing::info!(device = name, "chosen");
                    return Ok(Arc::new(AutoModel { target }));
                }
                // A file that cannot be read or a property that is wrong is so on every device.
                Err(e @ (ov_core::Error::Read(_) | ov_core::Error::Property(_))) => return Err(e),
                Err(e) => {
                    tracing::warn!(device = name, error = %e, "the device is passed over");
                    failures.push((name, e));
                }
            }
        }
        match failures.len() {
            1 => Err(failures.remove(0).1),
            _ => {
                let texts: Vec<String> =
                    failures.iter().map(|(n, e)| format!("{n}: {e}")).collect();
                Err(DeviceError::Failed {
                    name: DEVICE_NAME.to_owned(),
                    source: format!("no device compiles the model: {}", texts.join("; ")).into(),
                }
                .into())
            }
        }
    }

    fn query_model(
        &self,
        model: &Model,
        properties: &PropertyMap,
        devices: &Arc<dyn DeviceResolver>,
    ) -> Result<Vec<NodeSupport>> {
        let mut best: Option<(usize, Vec<NodeSupport>)> = None;
        for (name, map) in plan(properties, &**devices)? {
            let mut support = devices.query(model, &name, &map)?;
            let missing = support.iter().filter(|s| s.kernel.is_err()).count();
            for node in &mut support {
                node.kernel = node.kernel.clone().map(|k| format!("{name}: {k}"));
            }
            if best.as_ref().is_none_or(|(m, _)| missing < *m) {
                best = Some((missing, support));
            }
        }
        Ok(best.map(|(_, support)| support).unwrap_or_default())
    }
}

/// A model that a chosen device compiled.
struct AutoModel {
    target: CompiledDevice,
}

impl DeviceModel for AutoModel {
    fn inputs(&self) -> &[PortInfo] {
        self.target.model.inputs()
    }

    fn outputs(&self) -> &[PortInfo] {
        self.target.model.outputs()
    }

    fn create_request(&self) -> Result<Box<dyn SyncRequest>> {
        self.target.model.create_request()
    }

    fn blob(&self) -> Option<&Blob> {
        self.target.model.blob()
    }

    fn property_names(&self) -> &'static [&'static str] {
        self.target.model.property_names()
    }

    fn property(&self, name: &str) -> Result<String> {
        if name == info::EXECUTION_DEVICES.name() {
            return Ok(self.target.device.clone());
        }
        self.target.model.property(name)
    }

    fn runtime_nodes(&self) -> Vec<RuntimeNode> {
        self.target.model.runtime_nodes()
    }
}
