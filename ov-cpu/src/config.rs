//! The configuration of a compiled model: properties resolved once against the machine, then plain fields.

use std::time::Duration;

use ov_core::{
    ElementType,
    cache::DigestSink,
    error::{PropertyError, Result},
    property::{
        PropertyInfo, PropertyMap, cache, device,
        hint::{self, ExecutionMode, PerformanceMode, Priority, SchedulingCoreType},
        info, log,
        streams::{self, Streams},
    },
};

use crate::{DEVICE_NAME, lower::Options, simd::Isa, topology::Topology};

/// How long idle threads of a latency stream poll before they sleep.
const LATENCY_SPIN: Duration = Duration::from_micros(200);
/// The same for streams that share their cores.
const THROUGHPUT_SPIN: Duration = Duration::from_micros(20);

/// Properties of this device.
pub(crate) const PROPERTIES: &[PropertyInfo] = &[
    hint::PERFORMANCE_MODE.info(),
    hint::NUM_REQUESTS.info(),
    hint::MODEL_PRIORITY.info(),
    hint::EXECUTION_MODE.info(),
    hint::INFERENCE_PRECISION.info(),
    hint::ENABLE_CPU_PINNING.info(),
    hint::SCHEDULING_CORE_TYPE.info(),
    hint::ENABLE_HYPER_THREADING.info(),
    streams::NUM_STREAMS.info(),
    streams::INFERENCE_NUM_THREADS.info(),
    streams::COMPILATION_NUM_THREADS.info(),
    streams::OPTIMAL_NUMBER_OF_INFER_REQUESTS.info(),
    streams::RANGE_FOR_STREAMS.info(),
    streams::RANGE_FOR_ASYNC_INFER_REQUESTS.info(),
    info::ENABLE_PROFILING.info(),
    info::SUPPORTED_PROPERTIES.info(),
    info::EXECUTION_DEVICES.info(),
    info::MODEL_NAME.info(),
    device::AVAILABLE_DEVICES.info(),
    device::FULL_NAME.info(),
    device::ARCHITECTURE.info(),
    device::TYPE.info(),
    device::CAPABILITIES.info(),
    cache::CACHE_DIR.info(),
    cache::CACHE_MODE.info(),
    cache::ENABLE_MMAP.info(),
    cache::LOADED_FROM_CACHE.info(),
    log::LEVEL.info(),
];

/// What a compile and its requests go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// What to optimise for.
    pub mode: PerformanceMode,
    /// Upper bound of requests used at the same time, 0 for none.
    pub num_requests: u32,
    /// Inferences side by side.
    pub streams: usize,
    /// Threads of all streams.
    pub threads: usize,
    /// Threads for compiling.
    pub compilation_threads: usize,
    /// Precision of the arithmetic.
    pub precision: ElementType,
    /// Whether precision may be traded for speed.
    pub execution_mode: ExecutionMode,
    /// Precedence over other models on the same cores.
    pub priority: Priority,
    /// Whether threads are bound to processors.
    pub pinning: bool,
    /// Whether siblings of a core are used.
    pub hyper_threading: bool,
    /// Which cores are used.
    pub core_type: SchedulingCoreType,
    /// Whether inferences are timed step by step.
    pub profiling: bool,
    /// Instruction set of the kernels.
    pub isa: Isa,
}

impl CpuConfig {
    /// Resolves properties on a machine: explicit values win over hints, and what cannot be is bounded by what is there.
    ///
    /// # Errors
    /// [`PropertyError::Value`] for a value that is not possible here.
    pub fn resolve(map: &PropertyMap, topology: &Topology) -> Result<Self> {
        let mode = map.get_or(hint::PERFORMANCE_MODE, PerformanceMode::Latency)?;
        let hyper_threading =
            map.get_or(hint::ENABLE_HYPER_THREADING, mode != PerformanceMode::Latency)?;
        let eligible =
            if hyper_threading { topology.limit(usize::MAX) } else { topology.latency_threads() };
        let threads = match map.get_or(streams::INFERENCE_NUM_THREADS, 0)? as usize {
            0 => eligible,
            n => topology.limit(n),
        };
        let num_requests = map.get_or(hint::NUM_REQUESTS, 0)?;
        let by_hint = match mode {
            PerformanceMode::Latency => topology.nodes().min(threads),
            PerformanceMode::Throughput | PerformanceMode::CumulativeThroughput => {
                threads.min(if num_requests == 0 { usize::MAX } else { num_requests as usize })
            }
        };
        let streams = match map.get(streams::NUM_STREAMS)? {
            None => by_hint,
            Some(Streams::Auto) => threads,
            Some(Streams::Numa) => topology.nodes().min(threads),
            Some(Streams::Count(n)) => (n as usize).clamp(1, threads),
        };
        let precision = map.get_or(hint::INFERENCE_PRECISION, ElementType::Dynamic)?;
        let possible =
            [ElementType::Dynamic, ElementType::F32, ElementType::F16, ElementType::Bf16];
        if !possible.contains(&precision) {
            return Err(PropertyError::Value {
                name: hint::INFERENCE_PRECISION.name().to_owned(),
                device: DEVICE_NAME.to_owned(),
                got: precision.to_string(),
                expected: "f32, bf16, f16 or dynamic".to_owned(),
            }
            .into());
        }
        let execution_mode = map.get_or(hint::EXECUTION_MODE, ExecutionMode::Performance)?;
        let isa = Isa::detect();
        let compilation_threads = match map.get_or(streams::COMPILATION_NUM_THREADS, 0)? as usize {
            0 => topology.limit(usize::MAX),
            n => topology.limit(n),
        };
        Ok(Self {
            mode,
            num_requests,
            streams,
            threads,
            compilation_threads,
            precision: effective_precision(precision, execution_mode, isa),
            execution_mode,
            priority: map.get_or(hint::MODEL_PRIORITY, Priority::Medium)?,
            pinning: map.get_or(hint::ENABLE_CPU_PINNING, false)?,
            hyper_threading,
            core_type: map.get_or(hint::SCHEDULING_CORE_TYPE, SchedulingCoreType::AnyCore)?,
            profiling: map.get_or(info::ENABLE_PROFILING, false)?,
            isa,
        })
    }

    /// What lowering decides by.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            isa: self.isa,
            bf16: self.precision == ElementType::Bf16,
            round: self.execution_mode == ExecutionMode::Accuracy,
        }
    }

    /// Threads of one stream, its caller included.
    #[must_use]
    pub fn threads_per_stream(&self) -> usize {
        (self.threads / self.streams.max(1)).max(1)
    }

    /// How long idle threads poll before they sleep.
    #[must_use]
    pub fn spin(&self) -> Duration {
        if self.mode == PerformanceMode::Latency { LATENCY_SPIN } else { THROUGHPUT_SPIN }
    }

    /// Feeds what decides the content of a blob.
    pub fn cache_key(&self, key: &mut dyn DigestSink) {
        let Self {
            // Run time: streams, threads and what follows from them are chosen when a blob is bound.
            mode: _,
            num_requests: _,
            streams: _,
            threads: _,
            compilation_threads: _,
            priority: _,
            pinning: _,
            hyper_threading: _,
            core_type: _,
            profiling: _,
            precision,
            execution_mode,
            isa,
        } = self;
        key.field("precision", precision.name().as_bytes());
        key.field("execution_mode", execution_mode.to_string().as_bytes());
        key.field("isa", isa.name().as_bytes());
    }

    /// The effective value of a property that follows from the configuration.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<String> {
        let yes_no = |v: bool| if v { "YES" } else { "NO" }.to_owned();
        Some(match name {
            "PERFORMANCE_HINT" => self.mode.to_string(),
            "PERFORMANCE_HINT_NUM_REQUESTS" => self.num_requests.to_string(),
            "MODEL_PRIORITY" => self.priority.to_string(),
            "EXECUTION_MODE_HINT" => self.execution_mode.to_string(),
            "INFERENCE_PRECISION_HINT" => self.precision.to_string(),
            "ENABLE_CPU_PINNING" => yes_no(self.pinning),
            "ENABLE_HYPER_THREADING" => yes_no(self.hyper_threading),
            "SCHEDULING_CORE_TYPE" => self.core_type.to_string(),
            "NUM_STREAMS" | "OPTIMAL_NUMBER_OF_INFER_REQUESTS" => self.streams.to_string(),
            "INFERENCE_NUM_THREADS" => self.threads.to_string(),
            "COMPILATION_NUM_THREADS" => self.compilation_threads.to_string(),
            "PERF_COUNT" => yes_no(self.profiling),
            _ => return None,
        })
    }
}

/// bf16 where it was asked for, or left open while speed goes before accuracy, and the processor multiplies it; else f32.
fn effective_precision(wanted: ElementType, mode: ExecutionMode, isa: Isa) -> ElementType {
    let allowed = match wanted {
        ElementType::Bf16 => true,
        ElementType::Dynamic => mode == ExecutionMode::Performance,
        _ => false,
    };
    if allowed && isa.has_bf16() { ElementType::Bf16 } else { ElementType::F32 }
}

/// Properties that a compiled model answers besides `NETWORK_NAME` and `EXECUTION_DEVICES`.
pub(crate) const COMPILED: &[&str] = &[
    "PERFORMANCE_HINT",
    "PERFORMANCE_HINT_NUM_REQUESTS",
    "MODEL_PRIORITY",
    "EXECUTION_MODE_HINT",
    "INFERENCE_PRECISION_HINT",
    "ENABLE_CPU_PINNING",
    "ENABLE_HYPER_THREADING",
    "SCHEDULING_CORE_TYPE",
    "NUM_STREAMS",
    "INFERENCE_NUM_THREADS",
    "COMPILATION_NUM_THREADS",
    "OPTIMAL_NUMBER_OF_INFER_REQUESTS",
    "PERF_COUNT",
    "NETWORK_NAME",
    "EXECUTION_DEVICES",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Processor;

    fn machine(cores: usize, quota: Option<usize>) -> Topology {
        let processors =
            (0..cores).map(|id| Processor { id, node: 0, core: id, first_of_core: true }).collect();
        Topology { processors, quota }
    }

    fn resolved(properties: &[(&str, &str)], topology: &Topology) -> (usize, usize) {
        let mut map = PropertyMap::new();
        for (name, text) in properties {
            map.set_text(name, text).expect("valid");
        }
        let config = CpuConfig::resolve(&map, topology).expect("possible");
        (config.streams, config.threads)
    }

    #[test]
    fn hints_give_streams_and_explicit_values_win() {
        let two = machine(2, None);
        for (properties, expected) in [
            (&[][..], (1, 2)),
            (&[("PERFORMANCE_HINT", "THROUGHPUT")], (2, 2)),
            (&[("PERFORMANCE_HINT", "LATENCY"), ("NUM_STREAMS", "2")], (2, 2)),
            (&[("PERFORMANCE_HINT", "THROUGHPUT"), ("NUM_STREAMS", "1")], (1, 2)),
            (&[("PERFORMANCE_HINT", "THROUGHPUT"), ("PERFORMANCE_HINT_NUM_REQUESTS", "1")], (1, 2)),
            (&[("PERFORMANCE_HINT", "THROUGHPUT"), ("PERFORMANCE_HINT_NUM_REQUESTS", "8")], (2, 2)),
            (&[("PERFORMANCE_HINT_NUM_REQUESTS", "4")], (1, 2)),
            (&[("NUM_STREAMS", "AUTO")], (2, 2)),
            (&[("NUM_STREAMS", "NUMA")], (1, 2)),
            (&[("NUM_STREAMS", "7")], (2, 2)),
            (&[("INFERENCE_NUM_THREADS", "64")], (1, 2)),
            (&[("INFERENCE_NUM_THREADS", "1")], (1, 1)),
        ] {
            assert_eq!(resolved(properties, &two), expected, "{properties:?}");
        }
        assert_eq!(resolved(&[], &machine(8, Some(3))), (1, 3));
    }

    #[test]
    fn bf16_is_used_where_the_processor_has_it_and_accuracy_does_not_forbid_it() {
        let isa = Isa::detect();
        let narrow = if isa.has_bf16() { ElementType::Bf16 } else { ElementType::F32 };
        for (properties, expected) in [
            (&[][..], narrow),
            (&[("EXECUTION_MODE_HINT", "ACCURACY")], ElementType::F32),
            (&[("INFERENCE_PRECISION_HINT", "f32")], ElementType::F32),
            (&[("INFERENCE_PRECISION_HINT", "f16")], ElementType::F32),
            (&[("INFERENCE_PRECISION_HINT", "bf16"), ("EXECUTION_MODE_HINT", "ACCURACY")], narrow),
        ] {
            let mut map = PropertyMap::new();
            for (name, text) in properties {
                map.set_text(name, text).expect("valid");
            }
            let config = CpuConfig::resolve(&map, &machine(2, None)).expect("possible");
            assert_eq!(config.precision, expected, "{properties:?}");
            assert_eq!(config.options().bf16, expected == ElementType::Bf16);
        }
        assert_eq!(
            effective_precision(ElementType::Bf16, ExecutionMode::Performance, Isa::PORTABLE),
            ElementType::F32
        );
    }

    #[test]
    fn precisions_that_no_kernel_has_are_refused() {
        let map = PropertyMap::new().with_text("INFERENCE_PRECISION_HINT", "i8").expect("a type");
        let error = CpuConfig::resolve(&map, &machine(2, None)).expect_err("refused").to_string();
        assert!(error.contains("i8") && error.contains("f32"), "{error}");
    }
}
