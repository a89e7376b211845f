//! Devices: which one, and what it is.

use super::{Access, DeviceProperties, Effect, Property, PropertyInfo, value::text_enum};

text_enum! {
    /// Where a device sits.
    pub enum DeviceType {
        /// It shares the host's memory.
        Integrated = "integrated",
        /// It has memory of its own.
        Discrete = "discrete",
    }
}

const RO: Access = Access::ReadOnly;
const INFO: Effect = Effect::Info;

/// Which of several devices of a kind: the `1` of `CUDA.1`.
pub const ID: Property<String> = Property::new(
    "DEVICE_ID",
    Access::ReadWrite,
    Effect::Compile,
    "which of several devices of a kind: the 1 of CUDA.1",
);
/// Devices that AUTO chooses from, in order of preference.
pub const PRIORITIES: Property<Vec<String>> = Property::new(
    "MULTI_DEVICE_PRIORITIES",
    Access::ReadWrite,
    Effect::Compile,
    "devices that AUTO chooses from, in order of preference",
);
/// Properties of single devices under AUTO.
pub const PROPERTIES: Property<DeviceProperties> = Property::new(
    "DEVICE_PROPERTIES",
    Access::ReadWrite,
    Effect::Compile,
    "properties of single devices under AUTO",
);
/// Marketing name.
pub const FULL_NAME: Property<String> =
    Property::new("FULL_DEVICE_NAME", RO, INFO, "marketing name");
/// Architecture.
pub const ARCHITECTURE: Property<String> =
    Property::new("DEVICE_ARCHITECTURE", RO, INFO, "architecture");
/// Integrated or discrete.
pub const TYPE: Property<DeviceType> =
    Property::new("DEVICE_TYPE", RO, INFO, "integrated or discrete");
/// 16 bytes as hexadecimal digits that name the device.
pub const UUID: Property<String> =
    Property::new("DEVICE_UUID", RO, INFO, "16 bytes as hexadecimal digits that name the device");
/// Precisions and abilities such as `FP32`, `BF16`, `INT8`, `EXPORT_IMPORT`.
pub const CAPABILITIES: Property<Vec<String>> =
    Property::new("OPTIMIZATION_CAPABILITIES", RO, INFO, "precisions and abilities");
/// Numbers of the devices of this kind; empty for a device without numbers.
pub const AVAILABLE_DEVICES: Property<Vec<String>> =
    Property::new("AVAILABLE_DEVICES", RO, INFO, "numbers of the devices of this kind");

/// The properties of this category.
pub const ALL: &[PropertyInfo] = &[
    ID.info(),
    PRIORITIES.info(),
    PROPERTIES.info(),
    FULL_NAME.info(),
    ARCHITECTURE.info(),
    TYPE.info(),
    UUID.info(),
    CAPABILITIES.info(),
    AVAILABLE_DEVICES.info(),
];
