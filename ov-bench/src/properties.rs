//! From command-line options and configuration files to properties.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use ov_core::{
    Core, ElementType, PropertyMap,
    property::{
        Access, cache,
        hint::{self, PerformanceMode},
        info, streams,
    },
};
use serde_json::Value;

use crate::args::{ExecutionMode, Hint, Precision, Priority, Target};

/// What a run sets beyond the options of [`Target`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extra {
    /// Requests in flight.
    pub(crate) nireq: Option<u32>,
    /// Times by node.
    pub(crate) counters: bool,
}

/// The properties to compile with. Settings of a configuration file go to the core.
///
/// # Errors
/// Values that are not of the property's type, files that are not as documented, unknown devices.
pub(crate) fn resolve(
    core: &Core,
    device: &str,
    target: &Target,
    extra: Extra,
) -> Result<PropertyMap> {
    if let Some(path) = &target.config {
        read_config(core, path)?;
    }
    let known = core.supported_properties(device)?;
    let accepts = |name: &str| known.iter().any(|p| p.name == name && p.access != Access::ReadOnly);
    let mut map = PropertyMap::new();
    match target.hint {
        Some(Hint::Latency) => map.set(hint::PERFORMANCE_MODE, &PerformanceMode::Latency),
        Some(Hint::Throughput) => map.set(hint::PERFORMANCE_MODE, &PerformanceMode::Throughput),
        Some(Hint::CumulativeThroughput) => {
            map.set(hint::PERFORMANCE_MODE, &PerformanceMode::CumulativeThroughput);
        }
        None if accepts(hint::PERFORMANCE_MODE.name()) => {
            map.set(hint::PERFORMANCE_MODE, &PerformanceMode::Latency);
        }
        Some(Hint::None) | None => {}
    }
    if let Some(nireq) = extra.nireq
        && target.hint != Some(Hint::None)
        && accepts(hint::NUM_REQUESTS.name())
    {
        map.set(hint::NUM_REQUESTS, &nireq);
    }
    if let Some(text) = &target.nstreams {
        map.set_text(streams::NUM_STREAMS.name(), text)?;
    }
    if let Some(threads) = target.nthreads {
        map.set(streams::INFERENCE_NUM_THREADS, &threads);
    }
    if let Some(precision) = target.infer_precision {
        let element_type = match precision {
            Precision::F32 => ElementType::F32,
            Precision::Bf16 => ElementType::Bf16,
            Precision::F16 => ElementType::F16,
        };
        map.set(hint::INFERENCE_PRECISION, &element_type);
    }
    if let Some(mode) = target.execution_mode {
        let mode = match mode {
            ExecutionMode::Performance => hint::ExecutionMode::Performance,
            ExecutionMode::Accuracy => hint::ExecutionMode::Accuracy,
        };
        map.set(hint::EXECUTION_MODE, &mode);
    }
    if let Some(priority) = target.model_priority {
        let priority = match priority {
            Priority::Low => hint::Priority::Low,
            Priority::Medium => hint::Priority::Medium,
            Priority::High => hint::Priority::High,
        };
        map.set(hint::MODEL_PRIORITY, &priority);
    }
    if let Some(dir) = &target.cache_dir {
        map.set(cache::CACHE_DIR, dir);
    }
    if extra.counters {
        map.set(info::ENABLE_PROFILING, &true);
    }
    for (name, text) in &target.set {
        map.set_text(name, text)?;
    }
    Ok(map)
}

/// Properties given as `KEY=VALUE`.
///
/// # Errors
/// Values that are not of the property's type.
pub(crate) fn from_pairs(pairs: &[(String, String)]) -> Result<PropertyMap> {
    let mut map = PropertyMap::new();
    for (name, text) in pairs {
        map.set_text(name, text)?;
    }
    Ok(map)
}

/// `{"CPU": {"NUM_STREAMS": "1"}}`
fn read_config(core: &Core, path: &Path) -> Result<()> {
    let name = || path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", name()))?;
    let expected = "expected {\"CPU\": {\"NUM_STREAMS\": \"1\"}}";
    let value: Value = serde_json::from_str(&text)
        .with_context(|| format!("{} is not JSON, {expected}", name()))?;
    let Value::Object(devices) = value else {
        bail!("{} is no object by device, {expected}", name());
    };
    for (device, properties) in &devices {
        let Value::Object(properties) = properties else {
            bail!("{device:?} of {} is no object by property, {expected}", name());
        };
        let mut map = PropertyMap::new();
        for (key, value) in properties {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            map.set_text(key, &text).with_context(|| name().to_string())?;
        }
        core.set_properties(device, &map).with_context(|| name().to_string())?;
    }
    Ok(())
}
