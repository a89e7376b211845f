//! Which GPUs there are, or why none, without panicking.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
};

use cudarc::driver::result;
use ov_core::plugin::DeviceInfo;

use crate::driver::library_present;

/// The GPUs, found once per process: a driver does not come or go while a program runs.
pub(crate) fn devices() -> Result<Vec<DeviceInfo>, String> {
    static FOUND: OnceLock<Result<Vec<DeviceInfo>, String>> = OnceLock::new();
    FOUND.get_or_init(find).clone()
}

fn find() -> Result<Vec<DeviceInfo>, String> {
    // Any other call of the library panics when it is absent, so ask first; a symbol that an old driver lacks panics
    // too.
    if !catch_unwind(library_present).unwrap_or(false) {
        return Err(
            "the driver library (libcuda.so.1) is not installed: install the NVIDIA driver"
                .to_owned(),
        );
    }
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|_| {
        Err("the driver lacks functions that ov needs: install a newer one".to_owned())
    })
}

fn ask() -> Result<Vec<DeviceInfo>, String> {
    result::init().map_err(|e| format!("the driver does not start: {e}"))?;
    let count =
        result::device::get_count().map_err(|e| format!("the driver lists no devices: {e}"))?;
    let devices: Vec<DeviceInfo> = (0..count)
        .filter_map(|i| {
            let device = result::device::get(i).ok()?;
            let full_name = result::device::get_name(device).ok()?;
            Some(DeviceInfo { id: i.to_string(), full_name })
        })
        .collect();
    if devices.is_empty() { Err("the driver finds no GPU".to_owned()) } else { Ok(devices) }
}
