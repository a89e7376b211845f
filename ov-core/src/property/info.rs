//! Facts about devices and compiled models, and profiling.

use super::{Access, Effect, Property, PropertyInfo};

const RO: Access = Access::ReadOnly;
const INFO: Effect = Effect::Info;

/// Whether the time of each node is taken.
pub const ENABLE_PROFILING: Property<bool> = Property::new(
    "PERF_COUNT",
    Access::ReadWrite,
    Effect::Runtime,
    "whether the time of each node is taken",
);
/// Names and access of every property: `NAME:RW,…`.
pub const SUPPORTED_PROPERTIES: Property<Vec<String>> =
    Property::new("SUPPORTED_PROPERTIES", RO, INFO, "names and access of every property");
/// Devices that run the compiled model.
pub const EXECUTION_DEVICES: Property<Vec<String>> =
    Property::new("EXECUTION_DEVICES", RO, INFO, "devices that run the compiled model");
/// Name of the model.
pub const MODEL_NAME: Property<String> =
    Property::new("NETWORK_NAME", RO, INFO, "name of the model");
/// What a blob of the compiled model needs to run elsewhere.
pub const RUNTIME_REQUIREMENTS: Property<String> = Property::new(
    "RUNTIME_REQUIREMENTS",
    RO,
    INFO,
    "what a blob of the compiled model needs to run elsewhere",
);

/// The properties of this category.
pub const ALL: &[PropertyInfo] = &[
    ENABLE_PROFILING.info(),
    SUPPORTED_PROPERTIES.info(),
    EXECUTION_DEVICES.info(),
    MODEL_NAME.info(),
    RUNTIME_REQUIREMENTS.info(),
];
