//! The configuration of a compiled model: properties resolved once against the GPU, then plain fields.

use std::time::Duration;

use ov_core::{
    ElementType,
    cache::DigestSink,
    error::{PropertyError, Result},
    property::{
        PropertyInfo, PropertyMap, PropertyValue, device,
        hint::{self, ExecutionMode, PerformanceMode, Priority},
        info,
        streams::{self, Streams},
    },
};

use crate::driver::{About, Wait};

/// Properties of this device.
pub(crate) const PROPERTIES: &[PropertyInfo] = &[
    device::ID.info(),
    hint::PERFORMANCE_MODE.info(),
    hint::NUM_REQUESTS.info(),
    hint::EXECUTION_MODE.info(),
    hint::INFERENCE_PRECISION.info(),
    hint::MODEL_PRIORITY.info(),
    streams::NUM_STREAMS.info(),
    streams::OPTIMAL_NUMBER_OF_INFER_REQUESTS.info(),
    info::ENABLE_PROFILING.info(),
    info::SUPPORTED_PROPERTIES.info(),
    info::EXECUTION_DEVICES.info(),
    device::AVAILABLE_DEVICES.info(),
    device::FULL_NAME.info(),
    device::ARCHITECTURE.info(),
    device::UUID.info(),
    device::CAPABILITIES.info(),
];

/// What a compiled model answers.
pub(crate) const COMPILED: &[&str] = &[
    "NETWORK_NAME",
    "EXECUTION_DEVICES",
    "OPTIMAL_NUMBER_OF_INFER_REQUESTS",
    "DEVICE_ID",
    "PERFORMANCE_HINT",
    "PERFORMANCE_HINT_NUM_REQUESTS",
    "EXECUTION_MODE_HINT",
    "INFERENCE_PRECISION_HINT",
    "MODEL_PRIORITY",
    "NUM_STREAMS",
    "PERF_COUNT",
];

/// The variable with the number of seconds after which a GPU is taken to hang, 0 for never: debuggers make it slow.
const PATIENCE: &str = "OV_CUDA_TIMEOUT_SECONDS";

/// A day is for ever.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// How long to wait, by the text of [`PATIENCE`].
fn patience(text: Option<&str>) -> Duration {
    match text.and_then(|text| text.parse().ok()) {
        Some(0) => FOR_EVER,
        Some(seconds) => Duration::from_secs(seconds).min(FOR_EVER),
        None => Duration::from_secs(30),
    }
}

/// Streams per GPU where throughput is asked for and nobody says how many.
const THROUGHPUT_STREAMS: u32 = 4;

/// Everything that was asked for, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CudaConfig {
    /// The number of a GPU; none is all of them.
    pub(crate) device: Option<usize>,
    pub(crate) performance: PerformanceMode,
    pub(crate) requests: u32,
    pub(crate) mode: ExecutionMode,
    /// Type in which products are stored.
    pub(crate) precision: ElementType,
    pub(crate) priority: Priority,
    /// Slots per GPU.
    pub(crate) streams: usize,
    pub(crate) profiling: bool,
    /// How long results may take, beside what is usual for them, before the GPU is taken to hang.
    pub(crate) patience: Duration,
}

/// The number in `DEVICE_ID`, if there is one.
///
/// # Errors
/// When it is no number.
pub(crate) fn device_number(properties: &PropertyMap) -> Result<Option<usize>> {
    match properties.text("DEVICE_ID").filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(invalid("DEVICE_ID", text, "the number of a GPU")),
        },
    }
}

fn invalid(name: &str, value: &str, expected: &str) -> ov_core::Error {
    PropertyError::Value {
        name: name.to_owned(),
        device: crate::DEVICE_NAME.to_owned(),
        got: value.to_owned(),
        expected: expected.to_owned(),
    }
    .into()
}

impl CudaConfig {
    /// Resolves what was set against a GPU.
    ///
    /// # Errors
    /// When a value is not possible there.
    pub(crate) fn resolve(properties: &PropertyMap, gpu: &About) -> Result<Self> {
        let performance = properties.get_or(hint::PERFORMANCE_MODE, PerformanceMode::Latency)?;
        let mode = properties.get_or(hint::EXECUTION_MODE, ExecutionMode::Performance)?;
        let open = match mode {
            ExecutionMode::Performance if gpu.capability >= (8, 0) => ElementType::Bf16,
            ExecutionMode::Performance | ExecutionMode::Accuracy => ElementType::F32,
        };
        let precision = match properties.get_or(hint::INFERENCE_PRECISION, ElementType::Dynamic)? {
            ElementType::Dynamic => open,
            ty @ (ElementType::F32 | ElementType::F16) => ty,
            ElementType::Bf16 if gpu.capability >= (8, 0) => ElementType::Bf16,
            other => {
                let expected = match gpu.capability >= (8, 0) {
                    true => "f32, f16 or bf16",
                    false => "f32 or f16 (this GPU does not multiply bf16)",
                };
                return Err(invalid("INFERENCE_PRECISION_HINT", &other.to_text(), expected));
            }
        };
        let requests = properties.get_or(hint::NUM_REQUESTS, 0)?;
        let open = match performance {
            PerformanceMode::Latency => 1,
            _ if requests > 0 => requests.min(THROUGHPUT_STREAMS),
            _ => THROUGHPUT_STREAMS,
        };
        let streams = match properties.get_or(streams::NUM_STREAMS, Streams::Count(0))? {
            Streams::Count(0) => open,
            Streams::Count(n) => n,
            Streams::Auto => THROUGHPUT_STREAMS,
            Streams::Numa => 1,
        };
        Ok(Self {
            device: device_number(properties)?,
            performance,
            requests,
            mode,
            precision,
            priority: properties.get_or(hint::MODEL_PRIORITY, Priority::Medium)?,
            streams: streams as usize,
            profiling: properties.get_or(info::ENABLE_PROFILING, false)?,
            patience: patience(std::env::var(PATIENCE).ok().as_deref()),
        })
    }

    /// How threads wait for results.
    pub(crate) fn wait(&self) -> Wait {
        match self.performance {
            PerformanceMode::Latency => Wait::Spin,
            _ => Wait::Sleep,
        }
    }

    /// Whether results of narrow types in the model are rounded one by one.
    pub(crate) fn round(&self) -> bool {
        self.mode == ExecutionMode::Accuracy
    }

    /// The stream priority within the driver's range, from the least urgent to the most urgent.
    pub(crate) fn stream_priority(&self, (least, greatest): (i32, i32)) -> i32 {
        match self.priority {
            Priority::Low => least,
            Priority::Medium => least + (greatest - least) / 2,
            Priority::High => greatest,
        }
    }

    /// Feeds what decides the compiled model.
    pub(crate) fn cache_key(&self, key: &mut dyn DigestSink) {
        key.field("precision", self.precision.to_text().as_bytes());
        key.field("round", &[u8::from(self.round())]);
    }

    /// Text of a property of a compiled model.
    pub(crate) fn property(&self, name: &str) -> Option<String> {
        Some(match name {
            "DEVICE_ID" => self.device.map(|d| d.to_string()).unwrap_or_default(),
            "PERFORMANCE_HINT" => self.performance.to_text(),
            "PERFORMANCE_HINT_NUM_REQUESTS" => self.requests.to_text(),
            "EXECUTION_MODE_HINT" => self.mode.to_text(),
            "INFERENCE_PRECISION_HINT" => self.precision.to_text(),
            "MODEL_PRIORITY" => self.priority.to_text(),
            "NUM_STREAMS" => self.streams.to_string(),
            "PERF_COUNT" => self.profiling.to_text(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_half_a_minute_or_what_is_said() {
        for (text, seconds) in
            [(None, 30), (Some("5"), 5), (Some("x"), 30), (Some("0"), FOR_EVER.as_secs())]
        {
            assert_eq!(patience(text).as_secs(), seconds, "{text:?}");
        }
        assert_eq!(patience(Some("18446744073709551615")), FOR_EVER);
    }
}
