//! The commands, one file each.

pub(crate) mod bench;
pub(crate) mod beside;
pub(crate) mod cache;
pub(crate) mod compile;
pub(crate) mod conformance;
pub(crate) mod infer;
pub(crate) mod query;
pub(crate) mod roundtrip;
pub(crate) mod zoo;

use anyhow::Result;
use ov_core::{Core, PropertyMap};

use crate::{
    args::Target,
    devices,
    properties::{self, Extra},
};

/// Where a command runs.
pub(crate) struct Place {
    pub(crate) core: Core,
    pub(crate) device: String,
    pub(crate) properties: PropertyMap,
}

impl Place {
    /// The device that the options name, or the default one, with its properties.
    ///
    /// # Errors
    /// When no device is usable, or the options do not suit the device.
    pub(crate) fn of(target: &Target, extra: Extra) -> Result<Self> {
        let core = devices::core()?;
        let device = match &target.device {
            Some(device) => device.clone(),
            None => devices::default_device(&core)?,
        };
        let properties = properties::resolve(&core, &device, target, extra)?;
        Ok(Self { core, device, properties })
    }
}
