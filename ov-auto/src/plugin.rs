//! The plugin: checks what is asked, and chooses how requests reach devices.

use std::sync::Arc;

use ov_core::{
    Model, ModelSource, NodeSupport, PropertyMap, Result,
    plugin::{DeviceInfo, DeviceModel, DeviceResolver, Plugin},
    property::{
        PropertyInfo, PropertyValue, auto, cache, device,
        hint::{self, PerformanceMode},
        info, streams,
    },
};

use crate::{
    fleet::Fleet,
    handover::Handover,
    model::{AutoModel, Owner, Way},
    options::Options,
    priority::Hold,
    select::{Candidate, plan},
};

/// The name in device strings.
pub const DEVICE_NAME: &str = "AUTO";

/// Its own properties, and those that it hands to the devices that know them.
const PROPERTIES: &[PropertyInfo] = &[
    device::PRIORITIES.info(),
    device::PROPERTIES.info(),
    auto::ENABLE_STARTUP_FALLBACK.info(),
    auto::ENABLE_RUNTIME_FALLBACK.info(),
    auto::SCHEDULE_POLICY.info(),
    auto::VERIFY_SWITCH.info(),
    auto::REQUIRE_FASTER.info(),
    auto::COMPILE_DEADLINE.info(),
    auto::INFER_TIMEOUT.info(),
    hint::PERFORMANCE_MODE.info(),
    hint::NUM_REQUESTS.info(),
    hint::MODEL_PRIORITY.info(),
    hint::EXECUTION_MODE.info(),
    hint::INFERENCE_PRECISION.info(),
    hint::ENABLE_CPU_PINNING.info(),
    hint::ENABLE_CPU_RESERVATION.info(),
    hint::CPU_PROCESSORS.info(),
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
            "PERFORMANCE_HINT" => PerformanceMode::Latency.to_text(),
            "PERFORMANCE_HINT_NUM_REQUESTS" => "0".to_owned(),
            "MODEL_PRIORITY" => hint::Priority::Medium.to_text(),
            "EXECUTION_MODE_HINT" => hint::ExecutionMode::Performance.to_text(),
            "ENABLE_STARTUP_FALLBACK" | "ENABLE_RUNTIME_FALLBACK" | "AUTO_REQUIRE_FASTER" => {
                true.to_text()
            }
            "SCHEDULE_POLICY" => auto::SchedulePolicy::DevicePriority.to_text(),
            "AUTO_VERIFY_SWITCH" => auto::VerifySwitch::Report.to_text(),
            "AUTO_COMPILE_DEADLINE" | "AUTO_INFER_TIMEOUT" => 0.to_text(),
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
        let options = Options::resolve(properties)?;
        let mut candidates = plan(properties, options.priority, &**devices)?;
        if options.mode == PerformanceMode::CumulativeThroughput && candidates.len() > 1 {
            let fleet = Fleet::start(devices, model, &candidates, options)?;
            let members = fleet.members.iter();
            let hold = members.map(|m| Hold::new(&m.executor.target.device, options.priority));
            let hold = hold.collect();
            return Ok(Arc::new(AutoModel::new(Way::Fleet(fleet), hold)?));
        }
        let hold = vec![Hold::new(&candidates[0].name, options.priority)];
        let way = if candidates.len() == 1 && options.infer_timeout.is_none() {
            let only = candidates.swap_remove(0);
            Way::Direct(devices.compile(model, &only.name, &only.properties)?)
        } else {
            let handover = Handover::start(devices, model, candidates, options)?;
            Way::Handover(Arc::new(Owner(handover)))
        };
        Ok(Arc::new(AutoModel::new(way, hold)?))
    }

    fn query_model(
        &self,
        model: &Model,
        properties: &PropertyMap,
        devices: &Arc<dyn DeviceResolver>,
    ) -> Result<Vec<NodeSupport>> {
        let mut best: Option<(usize, Vec<NodeSupport>)> = None;
        let options = Options::resolve(properties)?;
        for Candidate { name, properties, .. } in plan(properties, options.priority, &**devices)? {
            let mut support = devices.query(model, &name, &properties)?;
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
