//! The devices and the cache that the program is linked with: the one list of them, chosen by features.

#[cfg(feature = "auto")]
use ov_auto as _;
#[cfg(feature = "cache")]
use ov_cache as _;
#[cfg(feature = "cpu")]
use ov_cpu as _;
#[cfg(feature = "cuda")]
use ov_gpu_cuda as _;

use anyhow::{Context, Result};
use ov_core::Core;

#[cfg(feature = "sim")]
ov_core::register_plugin!("SIM", || ov_core::testing::sim::SimPlugin::create());

/// A core with the linked devices.
///
/// # Errors
/// When two of them claim one name.
pub(crate) fn core() -> Result<Core> {
    Ok(Core::new()?)
}

/// The device to use when none is named: AUTO where it is linked and usable, else the first usable device.
///
/// # Errors
/// When no device is usable; the text has the reason of each.
pub(crate) fn default_device(core: &Core) -> Result<String> {
    let devices = core.devices();
    if devices.iter().any(|d| d.name == "AUTO" && d.devices.is_ok()) {
        return Ok("AUTO".to_owned());
    }
    core.available_devices().into_iter().next().with_context(|| {
        let reasons: Vec<String> = devices
            .iter()
            .filter_map(|d| Some(format!("{}: {}", d.name, d.devices.as_ref().err()?)))
            .collect();
        let reasons =
            if reasons.is_empty() { "none is linked".to_owned() } else { reasons.join("; ") };
        format!("no device is usable ({reasons}); build with the feature of one: cpu, cuda")
    })
}
