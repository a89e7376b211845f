//! The plugin: what can be said without kernels.

use std::sync::Arc;

use ov_core::{
    Model, ModelSource, NodeSupport, PropertyMap, Result,
    error::{DeviceError, PropertyError},
    plugin::{DeviceInfo, DeviceModel, DeviceResolver, Plugin},
    property::{PropertyInfo, PropertyValue, device, hint, info, streams},
};

use crate::probe;

/// The name in device strings.
pub const DEVICE_NAME: &str = "CUDA";

const PROPERTIES: &[PropertyInfo] = &[
    device::ID.info(),
    hint::PERFORMANCE_MODE.info(),
    hint::NUM_REQUESTS.info(),
    hint::EXECUTION_MODE.info(),
    hint::INFERENCE_PRECISION.info(),
    hint::MODEL_PRIORITY.info(),
    streams::NUM_STREAMS.info(),
    info::ENABLE_PROFILING.info(),
    device::FULL_NAME.info(),
    device::CAPABILITIES.info(),
];

/// The plugin of NVIDIA GPUs.
#[derive(Clone, Copy, Debug, Default)]
pub struct CudaPlugin;

impl CudaPlugin {
    /// Creates the plugin; the driver is not touched before [`Plugin::probe`].
    #[must_use]
    pub fn create() -> Arc<dyn Plugin> {
        Arc::new(Self)
    }
}

impl Plugin for CudaPlugin {
    fn name(&self) -> &str {
        DEVICE_NAME
    }

    fn probe(&self) -> Result<Vec<DeviceInfo>, String> {
        probe::devices()
    }

    fn properties(&self) -> &'static [PropertyInfo] {
        PROPERTIES
    }

    fn property(&self, name: &str, set: &PropertyMap) -> Result<String> {
        Ok(match name {
            "DEVICE_ID" => "0".to_owned(),
            "PERFORMANCE_HINT" => hint::PerformanceMode::Latency.to_text(),
            "PERFORMANCE_HINT_NUM_REQUESTS" => 0.to_text(),
            "EXECUTION_MODE_HINT" => hint::ExecutionMode::Performance.to_text(),
            "INFERENCE_PRECISION_HINT" => ov_core::ElementType::F32.to_text(),
            "MODEL_PRIORITY" => hint::Priority::Medium.to_text(),
            "NUM_STREAMS" => 1.to_text(),
            "PERF_COUNT" => false.to_text(),
            "OPTIMIZATION_CAPABILITIES" => String::new(),
            "FULL_DEVICE_NAME" => {
                let not_usable =
                    |reason| DeviceError::NotUsable { name: DEVICE_NAME.to_owned(), reason };
                let devices = self.probe().map_err(not_usable)?;
                let id = set.text("DEVICE_ID").unwrap_or("0");
                let found = devices.into_iter().find(|d| d.id == id);
                found.ok_or_else(|| not_usable(format!("there is no device {id}")))?.full_name
            }
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
        _: &ModelSource,
        _: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Arc<dyn DeviceModel>> {
        Err(DeviceError::Unsupported {
            name: DEVICE_NAME.to_owned(),
            what: "compiling models yet: its kernels are not built".to_owned(),
            hint: ": compile for CPU, or for AUTO:CUDA,CPU, which takes the CPU until then"
                .to_owned(),
        }
        .into())
    }

    fn query_model(
        &self,
        model: &Model,
        _: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Vec<NodeSupport>> {
        let support = |id| {
            let node = model.node(id);
            let op = node.op().kind().to_string();
            let kernel = Err(format!("{DEVICE_NAME} has no kernel for {op} yet"));
            NodeSupport { node: id, name: node.name().to_owned(), op, kernel }
        };
        Ok(model.topological_order()?.into_iter().map(support).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probing_gives_devices_or_a_reason_and_never_panics() {
        match CudaPlugin.probe() {
            Ok(devices) => assert!(!devices.is_empty()),
            Err(reason) => assert!(!reason.is_empty()),
        }
    }

    #[test]
    fn every_listed_property_answers() {
        for property in PROPERTIES.iter().filter(|p| p.name != "FULL_DEVICE_NAME") {
            let text =
                CudaPlugin.property(property.name, &PropertyMap::new()).expect(property.name);
            assert_eq!((property.canonical)(&text), Some(text.clone()), "{}", property.name);
        }
        assert!(CudaPlugin.property("NOPE", &PropertyMap::new()).is_err());
    }
}
