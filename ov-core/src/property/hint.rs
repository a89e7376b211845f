//! Hints: what the caller wants, from which devices derive streams, threads and precision.

use super::{Access, Effect, ProcessorSet, Property, PropertyInfo, value::text_enum};
use crate::tensor::ElementType;

text_enum! {
    /// What to optimise for.
    pub enum PerformanceMode {
        /// The time of a single inference.
        Latency = "LATENCY",
        /// Inferences per second of one device.
        Throughput = "THROUGHPUT",
        /// Inferences per second of all devices together.
        CumulativeThroughput = "CUMULATIVE_THROUGHPUT",
    }
}

text_enum! {
    /// Which of several models on the same devices goes first.
    pub enum Priority {
        /// After the others.
        Low = "LOW",
        /// Neither.
        Medium = "MEDIUM" | "DEFAULT",
        /// Before the others.
        High = "HIGH",
    }
}

text_enum! {
    /// Whether a device may trade accuracy for speed.
    pub enum ExecutionMode {
        /// Lower precision where it is faster.
        Performance = "PERFORMANCE",
        /// The model's own precision: results of `f16` and `bf16` operators are rounded to their type.
        Accuracy = "ACCURACY",
    }
}

text_enum! {
    /// Which cores of a hybrid processor run inferences.
    pub enum SchedulingCoreType {
        /// All.
        AnyCore = "ANY_CORE",
        /// Performance cores.
        PcoreOnly = "PCORE_ONLY",
        /// Efficiency cores.
        EcoreOnly = "ECORE_ONLY",
    }
}

text_enum! {
    /// How one model may be spread over several sockets or devices.
    pub enum ModelDistributionPolicy {
        /// Each operator is split.
        TensorParallel = "TENSOR_PARALLEL",
        /// The graph is split.
        PipelineParallel = "PIPELINE_PARALLEL",
    }
}

const RW: Access = Access::ReadWrite;
const COMPILE: Effect = Effect::Compile;
const RUNTIME: Effect = Effect::Runtime;

/// What to optimise for.
pub const PERFORMANCE_MODE: Property<PerformanceMode> =
    Property::new("PERFORMANCE_HINT", RW, COMPILE, "what to optimise for: latency or throughput");
/// Upper bound of infer requests used at the same time; 0 is no bound.
pub const NUM_REQUESTS: Property<u32> = Property::new(
    "PERFORMANCE_HINT_NUM_REQUESTS",
    RW,
    COMPILE,
    "upper bound of infer requests used at the same time; 0 is no bound",
);
/// Which of several models on the same devices goes first.
pub const MODEL_PRIORITY: Property<Priority> = Property::new(
    "MODEL_PRIORITY",
    RW,
    RUNTIME,
    "which of several models on the same devices goes first",
);
/// Whether a device may trade accuracy for speed.
pub const EXECUTION_MODE: Property<ExecutionMode> = Property::new(
    "EXECUTION_MODE_HINT",
    RW,
    COMPILE,
    "whether a device may trade accuracy for speed",
);
/// Precision of the arithmetic.
pub const INFERENCE_PRECISION: Property<ElementType> = Property::new(
    "INFERENCE_PRECISION_HINT",
    RW,
    COMPILE,
    "precision of the arithmetic; dynamic keeps the model's own",
);
/// Whether threads are bound to cores.
pub const ENABLE_CPU_PINNING: Property<bool> =
    Property::new("ENABLE_CPU_PINNING", RW, RUNTIME, "whether threads are bound to cores");
/// Whether the model's cores are closed to other models.
pub const ENABLE_CPU_RESERVATION: Property<bool> = Property::new(
    "ENABLE_CPU_RESERVATION",
    RW,
    RUNTIME,
    "whether the model's cores are closed to other models",
);
/// The logical processors that a model's threads may run on; empty is all. OpenVINO has no such key.
pub const CPU_PROCESSORS: Property<ProcessorSet> = Property::new(
    "CPU_PROCESSORS",
    RW,
    RUNTIME,
    "the logical processors that a model's threads may run on; empty is all",
);
/// Which cores of a hybrid processor run inferences.
pub const SCHEDULING_CORE_TYPE: Property<SchedulingCoreType> = Property::new(
    "SCHEDULING_CORE_TYPE",
    RW,
    RUNTIME,
    "which cores of a hybrid processor run inferences",
);
/// Whether both threads of a core are used.
pub const ENABLE_HYPER_THREADING: Property<bool> =
    Property::new("ENABLE_HYPER_THREADING", RW, RUNTIME, "whether both threads of a core are used");
/// How one model may be spread over several sockets or devices.
pub const MODEL_DISTRIBUTION_POLICY: Property<Vec<ModelDistributionPolicy>> = Property::new(
    "MODEL_DISTRIBUTION_POLICY",
    RW,
    COMPILE,
    "how one model may be spread over several sockets or devices",
);
/// Group size of activations that are quantized on the fly; 0 is off.
pub const DYNAMIC_QUANTIZATION_GROUP_SIZE: Property<u64> = Property::new(
    "DYNAMIC_QUANTIZATION_GROUP_SIZE",
    RW,
    COMPILE,
    "group size of activations that are quantized on the fly; 0 is off",
);
/// Element type of key and value caches.
pub const KV_CACHE_PRECISION: Property<ElementType> =
    Property::new("KV_CACHE_PRECISION", RW, COMPILE, "element type of key and value caches");
/// Element type of key caches.
pub const KEY_CACHE_PRECISION: Property<ElementType> =
    Property::new("KEY_CACHE_PRECISION", RW, COMPILE, "element type of key caches");
/// Element type of value caches.
pub const VALUE_CACHE_PRECISION: Property<ElementType> =
    Property::new("VALUE_CACHE_PRECISION", RW, COMPILE, "element type of value caches");
/// Scale that keeps f16 activations in range; negative is off.
pub const ACTIVATIONS_SCALE_FACTOR: Property<f32> = Property::new(
    "ACTIVATIONS_SCALE_FACTOR",
    RW,
    COMPILE,
    "scale that keeps f16 activations in range; negative is off",
);
/// Whether requests may be joined into batches.
pub const ALLOW_AUTO_BATCHING: Property<bool> = Property::new(
    "ALLOW_AUTO_BATCHING",
    RW,
    RUNTIME,
    "whether requests may be joined into batches",
);

/// The properties of this category.
pub const ALL: &[PropertyInfo] = &[
    PERFORMANCE_MODE.info(),
    NUM_REQUESTS.info(),
    MODEL_PRIORITY.info(),
    EXECUTION_MODE.info(),
    INFERENCE_PRECISION.info(),
    ENABLE_CPU_PINNING.info(),
    ENABLE_CPU_RESERVATION.info(),
    CPU_PROCESSORS.info(),
    SCHEDULING_CORE_TYPE.info(),
    ENABLE_HYPER_THREADING.info(),
    MODEL_DISTRIBUTION_POLICY.info(),
    DYNAMIC_QUANTIZATION_GROUP_SIZE.info(),
    KV_CACHE_PRECISION.info(),
    KEY_CACHE_PRECISION.info(),
    VALUE_CACHE_PRECISION.info(),
    ACTIVATIONS_SCALE_FACTOR.info(),
    ALLOW_AUTO_BATCHING.info(),
];
