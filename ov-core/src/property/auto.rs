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

text_enum! {
    /// What happens with the comparison of results before requests move to another device.
    pub enum VerifySwitch {
        /// There is none.
        Off = "OFF",
        /// Results that differ are logged.
        Report = "REPORT",
        /// A device whose results differ is not used.
        Veto = "VETO",
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
/// Comparison of results before requests move to another device.
pub const VERIFY_SWITCH: Property<VerifySwitch> = Property::new(
    "AUTO_VERIFY_SWITCH",
    RW,
    RUNTIME,
    "comparison of results before requests move to another device",
);
/// Whether a device that is not faster than the one that serves is not used.
pub const REQUIRE_FASTER: Property<bool> = Property::new(
    "AUTO_REQUIRE_FASTER",
    RW,
    RUNTIME,
    "whether a device that is not faster than the one that serves is not used",
);
/// Milliseconds after which a compile in the background is given up; 0 is never.
pub const COMPILE_DEADLINE: Property<u32> = Property::new(
    "AUTO_COMPILE_DEADLINE",
    RW,
    RUNTIME,
    "milliseconds after which a compile in the background is given up; 0 is never",
);
/// Milliseconds after which an inference counts as hung and runs on another device; 0 is never.
pub const INFER_TIMEOUT: Property<u32> = Property::new(
    "AUTO_INFER_TIMEOUT",
    RW,
    RUNTIME,
    "milliseconds after which an inference counts as hung and runs on another device; 0 is never",
);
/// Where AUTO stands between its devices.
pub const PHASE: Property<String> = Property::new(
    "AUTO_PHASE",
    Access::ReadOnly,
    Effect::Info,
    "where AUTO stands between its devices",
);

/// The properties of this category.
pub const ALL: &[PropertyInfo] = &[
    ENABLE_STARTUP_FALLBACK.info(),
    ENABLE_RUNTIME_FALLBACK.info(),
    SCHEDULE_POLICY.info(),
    VERIFY_SWITCH.info(),
    REQUIRE_FASTER.info(),
    COMPILE_DEADLINE.info(),
    INFER_TIMEOUT.info(),
    PHASE.info(),
];
