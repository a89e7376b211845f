//! The configuration of a model under AUTO.

use std::time::Duration;

use ov_core::{
    PropertyMap, Result,
    property::{
        auto::{self, SchedulePolicy, VerifySwitch},
        hint::{self, PerformanceMode, Priority},
    },
};

/// What a compile goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) mode: PerformanceMode,
    pub(crate) priority: Priority,
    pub(crate) startup_fallback: bool,
    pub(crate) runtime_fallback: bool,
    pub(crate) policy: SchedulePolicy,
    pub(crate) verify: VerifySwitch,
    pub(crate) require_faster: bool,
    pub(crate) compile_deadline: Option<Duration>,
    pub(crate) infer_timeout: Option<Duration>,
}

impl Options {
    pub(crate) fn resolve(map: &PropertyMap) -> Result<Self> {
        let limit = |ms: u32| (ms > 0).then(|| Duration::from_millis(ms.into()));
        Ok(Self {
            mode: map.get_or(hint::PERFORMANCE_MODE, PerformanceMode::Latency)?,
            priority: map.get_or(hint::MODEL_PRIORITY, Priority::Medium)?,
            startup_fallback: map.get_or(auto::ENABLE_STARTUP_FALLBACK, true)?,
            runtime_fallback: map.get_or(auto::ENABLE_RUNTIME_FALLBACK, true)?,
            policy: map.get_or(auto::SCHEDULE_POLICY, SchedulePolicy::DevicePriority)?,
            verify: map.get_or(auto::VERIFY_SWITCH, VerifySwitch::Report)?,
            require_faster: map.get_or(auto::REQUIRE_FASTER, true)?,
            compile_deadline: limit(map.get_or(auto::COMPILE_DEADLINE, 0)?),
            infer_timeout: limit(map.get_or(auto::INFER_TIMEOUT, 0)?),
        })
    }
}
