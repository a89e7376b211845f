//! Properties of the AUTO device.

use super::{Access, Effect, Property, PropertyInfo, value::text_enum};

text_enum! {
    /// How requests are spread over several devices.
    pub enum SchedulePolicy {
        /// In turn.
        RoundRobin = "ROUND_ROBIN",
        /// To the first device that is free.
        DevicePriority = "DEVICE_PRIORITY",
    }
}

const RW: Access = Access::ReadWrite;
const RUNTIME: Effect = Effect::Runtime;

/// Whether requests run on the CPU until the preferred device is ready.
pub const ENABLE_STARTUP_FALLBACK: Property<bool> = Property::new(
    "ENABLE_STARTUP_FALLBACK",
    RW,
    RUNTIME,
    "whether requests run on the CPU until the preferred device is ready",
);
/// Whether a request that fails on one device runs on another.
pub const ENABLE_RUNTIME_FALLBACK: Property<bool> = Property::new(
    "ENABLE_RUNTIME_FALLBACK",
    RW,
    RUNTIME,
    "whether a request that fails on one device runs on another",
);
/// How requests are spread over several devices.
pub const SCHEDULE_POLICY: Property<SchedulePolicy> =
    Property::new("SCHEDULE_POLICY", RW, RUNTIME, "how requests are spread over several devices");

/// The properties of this category.
pub const ALL: &[PropertyInfo] =
    &[ENABLE_STARTUP_FALLBACK.info(), ENABLE_RUNTIME_FALLBACK.info(), SCHEDULE_POLICY.info()];
