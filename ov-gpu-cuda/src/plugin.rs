//! The plugin: what users reach through the core.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
};

use ov_core::{
    Blob, Model, ModelSource, NodeSupport, PropertyMap, Result,
    cache::DigestSink,
    error::{BlobError, DeviceError, PropertyError},
    plugin::{DeviceInfo, DeviceModel, DeviceResolver, Plugin},
    property::{PropertyInfo, PropertyValue, hint},
};

use crate::{
    compile::{Compiler, Nvrtc},
    config::{self, CudaConfig, device_number},
    device_model::{BUILD, CudaModel, compile_blob, gpu_of, target_text},
    driver::{Api, Device, Driver},
    images,
    lower::{self, Options},
};

/// The name in device strings.
pub const DEVICE_NAME: &str = "CUDA";

/// The plugin of NVIDIA GPUs.
#[derive(Debug, Default)]
pub struct CudaPlugin {
    /// Started by the first probe: a driver does not come or go while a program runs.
    driver: OnceLock<Result<Driver, String>>,
    compiler: OnceLock<Option<&'static dyn Compiler>>,
}

impl CudaPlugin {
    /// Creates the plugin; the driver is not touched before [`Plugin::probe`].
    #[must_use]
    pub fn create() -> Arc<dyn Plugin> {
        Arc::new(Self::default())
    }

    /// A plugin over a driver and a compiler of the caller's choice.
    #[cfg(test)]
    pub(crate) fn with(driver: Driver, compiler: Option<&'static dyn Compiler>) -> Self {
        Self { driver: OnceLock::from(Ok(driver)), compiler: OnceLock::from(compiler) }
    }

    fn driver(&self) -> Result<&Driver, String> {
        self.driver.get_or_init(start).as_ref().map_err(Clone::clone)
    }

    fn compiler(&self) -> Option<&'static dyn Compiler> {
        let newest = self.driver().map_or(0, Driver::version);
        let find = || match Nvrtc::get(newest) {
            Ok(found) => Some(found as &'static dyn Compiler),
            Err(reason) => {
                tracing::debug!(reason, "NVRTC is not there");
                None
            }
        };
        *self.compiler.get_or_init(find)
    }

    /// The GPUs that the properties name: one by its number, else all that are like the first.
    fn devices(&self, properties: &PropertyMap) -> Result<Vec<Arc<Device>>> {
        let not_usable =
            |reason: String| DeviceError::NotUsable { name: DEVICE_NAME.to_owned(), reason };
        let every = self.driver().map_err(not_usable)?.devices();
        let usable = || every.iter().filter(|d| unusable(d).is_none());
        let found: Vec<Arc<Device>> = match device_number(properties)? {
            Some(number) => usable().filter(|d| d.ordinal == number).cloned().collect(),
            None => {
                let first = usable().next().map(|d| d.about.capability);
                usable().filter(|d| Some(d.about.capability) == first).cloned().collect()
            }
        };
        if found.is_empty() {
            let named = device_number(properties)?;
            let reason = match named.map(|n| (n, every.iter().find(|d| d.ordinal == n))) {
                Some((n, Some(device))) => {
                    let why = unusable(device).unwrap_or_else(|| "is not usable".to_owned());
                    format!("GPU {n} {why}")
                }
                Some((n, None)) => format!("there is no GPU {n}; there are {}", every.len()),
                None => none_left(every),
            };
            return Err(not_usable(reason).into());
        }
        Ok(found)
    }

    fn first(&self, properties: &PropertyMap) -> Result<Arc<Device>> {
        let devices = self.devices(properties)?;
        let first = devices.into_iter().next();
        first.ok_or_else(|| {
            DeviceError::NotUsable { name: DEVICE_NAME.to_owned(), reason: "no GPU".to_owned() }
                .into()
        })
    }
}

/// Why a GPU cannot be used, if so.
fn unusable(device: &Device) -> Option<String> {
    if device.is_lost() {
        return Some("is lost to this process".to_owned());
    }
    let ((major, minor), (least_major, least_minor)) = (device.about.capability, images::LEAST);
    ((major, minor) < (least_major, least_minor)).then(|| {
        format!(
            "has compute capability {major}.{minor}, {least_major}.{least_minor} is the least that kernels are written \
             for"
        )
    })
}

/// Why none of the GPUs can be used.
fn none_left(every: &[Arc<Device>]) -> String {
    let reasons = every.iter().filter_map(|d| Some(format!("GPU {} {}", d.ordinal, unusable(d)?)));
    let reasons: Vec<String> = reasons.collect();
    if reasons.is_empty() { "the driver finds no GPU".to_owned() } else { reasons.join("; ") }
}

/// The oldest CUDA version of a driver that has every function, as drivers count.
const OLDEST: i32 = 12_000;

fn cuda_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The driver of this system, or why there is none.
fn start() -> Result<Driver, String> {
    // No call is made of a function that is not there; the guard is for what a damaged library may do to its callers.
    let start = || begin(Api::system().map_err(|e| e.to_string())?);
    catch_unwind(AssertUnwindSafe(start))
        .unwrap_or_else(|_| Err("the driver library cannot be used".to_owned()))
}

/// A driver that is started, or why it does not serve.
pub(crate) fn begin(api: Api) -> Result<Driver, String> {
    let driver = Driver::start(api).map_err(|e| {
            let meaning = match e.code {
                3 => {
                    "CUDA does not start in a process that was forked from one that uses it: start processes anew (`spawn`)"
                }
                100 => "the driver finds no GPU (is one hidden by CUDA_VISIBLE_DEVICES?)",
                802 => {
                    "the GPUs' fabric is not ready yet: start its manager, then this program again"
                }
                803 => {
                    "the driver library does not fit the driver in the kernel: restart the system"
                }
                804 => "the driver library is a compatibility package that this GPU does not take",
                _ => "the driver does not start",
            };
            format!("{meaning} ({e})")
        })?;
    if driver.version() < OLDEST {
        let (is, needed) = (cuda_text(driver.version()), cuda_text(OLDEST));
        return Err(format!("the driver knows CUDA {is}, {needed} is needed: install a newer one"));
    }
    Ok(driver)
}

impl Plugin for CudaPlugin {
    fn name(&self) -> &str {
        DEVICE_NAME
    }

    fn probe(&self) -> Result<Vec<DeviceInfo>, String> {
        let every = self.driver()?.devices();
        let devices: Vec<DeviceInfo> = every
            .iter()
            .filter(|d| unusable(d).is_none())
            .map(|d| DeviceInfo { id: d.ordinal.to_string(), full_name: d.about.name.clone() })
            .collect();
        if devices.is_empty() { Err(none_left(every)) } else { Ok(devices) }
    }

    fn properties(&self) -> &'static [PropertyInfo] {
        config::PROPERTIES
    }

    fn property(&self, name: &str, set: &PropertyMap) -> Result<String> {
        let about = || self.first(set).map(|device| device.about.clone());
        Ok(match name {
            "DEVICE_ID" => String::new(),
            "PERFORMANCE_HINT" => hint::PerformanceMode::Latency.to_text(),
            "PERFORMANCE_HINT_NUM_REQUESTS" => 0.to_text(),
            "EXECUTION_MODE_HINT" => hint::ExecutionMode::Performance.to_text(),
            "INFERENCE_PRECISION_HINT" => match about() {
                Ok(about) => CudaConfig::resolve(set, &about)?.precision.to_text(),
                Err(_) => ov_core::ElementType::F32.to_text(),
            },
            "MODEL_PRIORITY" => hint::Priority::Medium.to_text(),
            "NUM_STREAMS" => 1.to_text(),
            "PERF_COUNT" => false.to_text(),
            "OPTIMIZATION_CAPABILITIES" => match about() {
                Ok(about) if about.capability >= (8, 0) => {
                    "FP32,FP16,BF16,EXPORT_IMPORT".to_owned()
                }
                Ok(_) => "FP32,FP16,EXPORT_IMPORT".to_owned(),
                Err(_) => String::new(),
            },
            "EXECUTION_DEVICES" => DEVICE_NAME.to_owned(),
            "OPTIMAL_NUMBER_OF_INFER_REQUESTS" => {
                let devices = self.devices(set).map_or(1, |d| d.len());
                let streams = match about() {
                    Ok(about) => CudaConfig::resolve(set, &about)?.streams,
                    Err(_) => 1,
                };
                (devices * streams).to_string()
            }
            "FULL_DEVICE_NAME" => about()?.name,
            "DEVICE_UUID" => about()?.uuid,
            "DEVICE_ARCHITECTURE" => {
                let about = about()?;
                let (major, minor) = about.capability;
                format!(
                    "CUDA: sm={major}.{minor}, multiprocessors={}, memory={} MiB, pci={}",
                    about.multiprocessors,
                    about.memory >> 20,
                    about.pci
                )
            }
            _ => {
                return Err(PropertyError::Unknown {
                    name: name.to_owned(),
                    device: DEVICE_NAME.to_owned(),
                    nearest: String::new(),
                }
                .into());
            }
        })
    }

    fn compile_model(
        &self,
        model: &ModelSource,
        properties: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Arc<dyn DeviceModel>> {
        let devices = self.devices(properties)?;
        let first = self.first(properties)?;
        let config = CudaConfig::resolve(properties, &first.about)?;
        let compiler = self.compiler();
        let blob = compile_blob(model.model()?, &config, &first, compiler)?;
        Ok(Arc::new(CudaModel::bind(blob, config, devices, compiler)?))
    }

    fn import_model(&self, blob: Blob, properties: &PropertyMap) -> Result<Arc<dyn DeviceModel>> {
        let devices = self.devices(properties)?;
        let first = self.first(properties)?;
        let config = CudaConfig::resolve(properties, &first.about)?;
        let header = blob.header();
        let (major, minor) = first.about.capability;
        // Code for older GPUs comes with assembly that the driver of a newer one translates.
        let older = (0..=major).any(|m| {
            (0..=9).any(|n| (m, n) <= (major, minor) && header.target == target_text((m, n)))
        });
        if header.device != DEVICE_NAME || header.build != BUILD || !older {
            return Err(BlobError::Incompatible {
                made_for: format!("{} {} build {}", header.device, header.target, header.build),
                here: format!("{DEVICE_NAME} {} build {BUILD}", target_text((major, minor))),
            }
            .into());
        }
        Ok(Arc::new(CudaModel::bind(blob, config, devices, self.compiler())?))
    }

    fn query_model(
        &self,
        model: &Model,
        properties: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Vec<NodeSupport>> {
        let device = self.first(properties)?;
        let config = CudaConfig::resolve(properties, &device.about)?;
        let gpu = gpu_of(&device);
        let options = Options { gpu, precision: config.precision, round: config.round() };
        lower::query(&lower::prepare(model, &options)?, &options)
    }

    fn cache_key(&self, properties: &PropertyMap, key: &mut dyn DigestSink) -> Result<bool> {
        let device = self.first(properties)?;
        key.field("device", DEVICE_NAME.as_bytes());
        key.field("build", BUILD.as_bytes());
        let gpu = gpu_of(&device);
        key.field("target", target_text(gpu.capability).as_bytes());
        key.field("multiprocessors", &gpu.multiprocessors.to_le_bytes());
        key.field("shared", &gpu.shared_per_block.to_le_bytes());
        CudaConfig::resolve(properties, &device.about)?.cache_key(key);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probing_gives_devices_or_a_reason_and_never_panics() {
        match CudaPlugin::default().probe() {
            Ok(devices) => assert!(!devices.is_empty()),
            Err(reason) => assert!(!reason.is_empty()),
        }
    }

    #[test]
    fn every_property_with_a_default_answers_without_a_gpu() {
        let plugin = CudaPlugin::default();
        let about = ["FULL_DEVICE_NAME", "DEVICE_UUID", "DEVICE_ARCHITECTURE"];
        let core = ["SUPPORTED_PROPERTIES", "AVAILABLE_DEVICES"];
        for property in config::PROPERTIES {
            if about.contains(&property.name) || core.contains(&property.name) {
                continue;
            }
            let text = plugin.property(property.name, &PropertyMap::new()).expect(property.name);
            assert_eq!((property.canonical)(&text), Some(text.clone()), "{}", property.name);
        }
        assert!(plugin.property("NOPE", &PropertyMap::new()).is_err());
    }
}
