//! The configuration of a compiled model: properties resolved once against the machine, then plain fields.

use std::time::Duration;

use ov_core::{
    ElementType,
    cache::DigestSink,
    error::{PropertyError, Result},
    property::{
        ProcessorSet, PropertyInfo, PropertyMap, cache, device,
        hint::{self, ExecutionMode, PerformanceMode, Priority, SchedulingCoreType},
        info, log, streams,
    },
};

use crate::{
    DEVICE_NAME,
    lower::Options,
    placement::{StreamPlace, Wish},
    reservation,
    simd::Isa,
    topology::Topology,
};

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
    hint::ENABLE_CPU_RESERVATION.info(),
    hint::CPU_PROCESSORS.info(),
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
    /// Inferences side by side; 0 is one, on the thread that calls.
    pub streams: usize,
    /// Threads of all streams; 0 with 0 streams.
    pub threads: usize,
    /// The processors of each stream; of one for 0 streams.
    pub places: Vec<StreamPlace>,
    /// Threads for compiling.
    pub compilation_threads: usize,
    /// Precision of the arithmetic.
    pub precision: ElementType,
    /// Whether precision may be traded for speed.
    pub execution_mode: ExecutionMode,
    /// Precedence over other models on the same cores.
    pub priority: Priority,
    /// Whether threads are bound to a processor each.
    pub pinning: bool,
    /// Whether the processors are closed to models that are compiled later.
    pub reservation: bool,
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
        Self::resolve_beside(map, topology, &ProcessorSet::default())
    }

    /// As [`CpuConfig::resolve`], beside models that have reserved processors.
    ///
    /// # Errors
    /// [`PropertyError::Value`] for a value that is not possible here;
    /// [`DeviceError::Reserved`](ov_core::error::DeviceError::Reserved) when no processor is left.
    pub(crate) fn resolve_beside(
        map: &PropertyMap,
        topology: &Topology,
        reserved: &ProcessorSet,
    ) -> Result<Self> {
        let num_requests = map.get_or(hint::NUM_REQUESTS, 0)?;
        let wish = Wish {
            mode: map.get(hint::PERFORMANCE_MODE)?,
            num_requests: num_requests as usize,
            streams: map.get(streams::NUM_STREAMS)?,
            threads: map.get_or(streams::INFERENCE_NUM_THREADS, 0)? as usize,
            core_type: map.get(hint::SCHEDULING_CORE_TYPE)?,
            hyper_threading: map.get(hint::ENABLE_HYPER_THREADING)?,
            processors: usable_processors(map, topology)?,
        };
        let precision = usable_precision(map)?;
        let execution_mode = map.get_or(hint::EXECUTION_MODE, ExecutionMode::Performance)?;
        let isa = Isa::detect();
        let compilation_threads = match map.get_or(streams::COMPILATION_NUM_THREADS, 0)? as usize {
            0 => topology.limit(usize::MAX),
            n => topology.limit(n),
        };
        let reservation = map.get_or(hint::ENABLE_CPU_RESERVATION, false)?;
        let eligible = wish.eligible(topology);
        let placement = wish
            .place(&eligible, reserved)
            .ok_or_else(|| reservation::nothing_left(&eligible, reserved))?;
        Ok(Self {
            mode: placement.mode,
            num_requests,
            streams: placement.streams,
            threads: placement.threads,
            places: placement.places,
            compilation_threads,
            precision: effective_precision(precision, execution_mode, isa),
            execution_mode,
            priority: map.get_or(hint::MODEL_PRIORITY, Priority::Medium)?,
            pinning: map.get_or(hint::ENABLE_CPU_PINNING, reservation)?,
            reservation,
            hyper_threading: placement.hyper_threading,
            core_type: placement.core_type,
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

    /// Threads of the largest stream, its caller included.
    #[must_use]
    pub fn threads_per_stream(&self) -> usize {
        self.places.iter().map(|place| place.processors.len()).max().unwrap_or(1)
    }

    /// Where the threads of stream number `stream` may be, the caller's first: a processor each when they are pinned,
    /// a part of the machine when the stream has one, and nothing for anywhere.
    #[must_use]
    pub fn bindings(&self, stream: usize) -> Vec<ProcessorSet> {
        let place = &self.places[stream];
        if self.pinning {
            place.processors.iter().map(|id| ProcessorSet::from_iter([*id])).collect()
        } else if place.is_confined {
            vec![place.allowed.clone(); place.processors.len()]
        } else {
            Vec::new()
        }
    }

    /// The processors that threads may run on.
    fn processors(&self) -> ProcessorSet {
        let ids = |place: &StreamPlace| {
            if self.pinning { place.processors.clone() } else { place.allowed.ids().to_vec() }
        };
        self.places.iter().flat_map(ids).collect()
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
            places: _,
            compilation_threads: _,
            priority: _,
            pinning: _,
            reservation: _,
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
            "ENABLE_CPU_RESERVATION" => yes_no(self.reservation),
            "CPU_PROCESSORS" => self.processors().to_string(),
            "ENABLE_HYPER_THREADING" => yes_no(self.hyper_threading),
            "SCHEDULING_CORE_TYPE" => self.core_type.to_string(),
            "NUM_STREAMS" => self.streams.to_string(),
            "OPTIMAL_NUMBER_OF_INFER_REQUESTS" => self.places.len().to_string(),
            "INFERENCE_NUM_THREADS" => self.threads.to_string(),
            "COMPILATION_NUM_THREADS" => self.compilation_threads.to_string(),
            "PERF_COUNT" => yes_no(self.profiling),
            _ => return None,
        })
    }
}

/// The processors that the model is confined to; none for all.
fn usable_processors(map: &PropertyMap, topology: &Topology) -> Result<ProcessorSet> {
    let wanted = map.get_or(hint::CPU_PROCESSORS, ProcessorSet::default())?;
    let here = topology.ids();
    if wanted.ids().iter().all(|id| here.contains(*id)) {
        return Ok(wanted);
    }
    Err(PropertyError::Value {
        name: hint::CPU_PROCESSORS.name().to_owned(),
        device: DEVICE_NAME.to_owned(),
        got: wanted.to_string(),
        expected: format!("processors among {here}, which this process may use"),
    }
    .into())
}

fn usable_precision(map: &PropertyMap) -> Result<ElementType> {
    let precision = map.get_or(hint::INFERENCE_PRECISION, ElementType::Dynamic)?;
    let possible = [ElementType::Dynamic, ElementType::F32, ElementType::F16, ElementType::Bf16];
    if possible.contains(&precision) {
        return Ok(precision);
    }
    Err(PropertyError::Value {
        name: hint::INFERENCE_PRECISION.name().to_owned(),
        device: DEVICE_NAME.to_owned(),
        got: precision.to_string(),
        expected: "f32, bf16, f16 or dynamic".to_owned(),
    }
    .into())
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
    "ENABLE_CPU_RESERVATION",
    "CPU_PROCESSORS",
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
mod tests;
