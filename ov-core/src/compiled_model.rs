//! The compiled model that users hold.

use std::{fs, io::Write, path::Path, sync::Arc, time::Duration};

use crate::{
    blob::Blob,
    error::{BlobError, PropertyError, Result},
    infer_request::InferRequest,
    plugin::{CompiledDevice, DeviceModel, LoadTimes, PortInfo},
    profiling::RuntimeNode,
    property::{Property, PropertyValue, cache, info, nearest},
};

/// A model compiled for a device. Clones share it; it lives as long as any clone or request.
#[derive(Clone)]
pub struct CompiledModel(Arc<Inner>);

struct Inner {
    model: Arc<dyn DeviceModel>,
    device: Arc<str>,
    loaded_from_cache: bool,
    duration: Duration,
    times: LoadTimes,
}

impl std::fmt::Debug for CompiledModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompiledModel")
            .field("device", &self.0.device)
            .field("inputs", &self.inputs())
            .field("outputs", &self.outputs())
            .finish_non_exhaustive()
    }
}

impl From<CompiledDevice> for CompiledModel {
    fn from(compiled: CompiledDevice) -> Self {
        let CompiledDevice { model, device, loaded_from_cache, duration, times } = compiled;
        Self(Arc::new(Inner { model, device: device.into(), loaded_from_cache, duration, times }))
    }
}

impl CompiledModel {
    /// The inputs, in order.
    #[must_use]
    pub fn inputs(&self) -> &[PortInfo] {
        self.0.model.inputs()
    }

    /// The outputs, in order.
    #[must_use]
    pub fn outputs(&self) -> &[PortInfo] {
        self.0.model.outputs()
    }

    /// Names of the states: what each request keeps from one inference to the next.
    #[must_use]
    pub fn state_names(&self) -> Vec<String> {
        self.0.model.state_names()
    }

    /// A request with memory of its own. `OPTIMAL_NUMBER_OF_INFER_REQUESTS` of them keep the device busy.
    ///
    /// # Errors
    /// When memory or streams run out.
    pub fn create_infer_request(&self) -> Result<InferRequest> {
        Ok(InferRequest::new(self.clone(), self.0.model.create_request()?))
    }

    /// The device that was asked for, with its number if it has one. For AUTO see `EXECUTION_DEVICES`.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.0.device
    }

    pub(crate) fn device_shared(&self) -> Arc<str> {
        Arc::clone(&self.0.device)
    }

    /// Whether it was bound from a cached blob instead of compiled.
    #[must_use]
    pub fn loaded_from_cache(&self) -> bool {
        self.0.loaded_from_cache
    }

    /// How long compiling, loading or importing took, reading the model included when the device needed it.
    #[must_use]
    pub fn compile_duration(&self) -> Duration {
        self.0.duration
    }

    /// How long the steps of loading took.
    #[must_use]
    pub fn load_times(&self) -> LoadTimes {
        self.0.times
    }

    /// The compiled form, if the device has one.
    #[must_use]
    pub fn blob(&self) -> Option<&Blob> {
        self.0.model.blob()
    }

    /// Writes the compiled form, for [`Core::import_model`](crate::Core::import_model).
    ///
    /// # Errors
    /// When the device has none, or writing fails.
    pub fn export(&self, to: &mut dyn Write) -> Result<()> {
        self.0.model.export(to)
    }

    /// Writes the compiled form to a file: into a temporary one first, which then takes its place, so that a compiled
    /// model that is bound from the old file is not disturbed.
    ///
    /// # Errors
    /// When the device has none, or writing fails.
    pub fn export_to(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let io = |source| BlobError::Io { path: path.to_owned(), source };
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let written = (|| {
            let mut file = fs::File::create(&temporary).map_err(io)?;
            self.export(&mut file)?;
            file.sync_data().map_err(io)?;
            fs::rename(&temporary, path).map_err(io)?;
            Ok(())
        })();
        if written.is_err() && fs::remove_file(&temporary).is_err() {
            tracing::debug!(?temporary, "the temporary file could not be removed");
        }
        written
    }

    /// Names of the properties that can be read.
    pub fn property_names(&self) -> impl Iterator<Item = &'static str> {
        let own = self.0.model.property_names();
        let here = [info::SUPPORTED_PROPERTIES.name(), cache::LOADED_FROM_CACHE.name()];
        own.iter().copied().chain(here.into_iter().filter(|n| !own.contains(n)))
    }

    /// Text of a property.
    ///
    /// # Errors
    /// [`PropertyError::Unknown`] with the nearest known name.
    pub fn property(&self, name: &str) -> Result<String> {
        if name == cache::LOADED_FROM_CACHE.name() {
            return Ok(self.0.loaded_from_cache.to_text());
        }
        if name == info::SUPPORTED_PROPERTIES.name() {
            return Ok(self
                .property_names()
                .map(|n| format!("{n}:RO"))
                .collect::<Vec<_>>()
                .join(","));
        }
        if self.0.model.property_names().contains(&name) {
            return self.0.model.property(name);
        }
        Err(PropertyError::Unknown {
            name: name.to_owned(),
            device: format!("the model compiled for {}", self.0.device),
            nearest: nearest(name, self.property_names())
                .map(|n| format!("; did you mean {n}?"))
                .unwrap_or_default(),
        }
        .into())
    }

    /// Value of a property.
    ///
    /// # Errors
    /// As [`CompiledModel::property`]; [`PropertyError::Value`] when the device's text is not of the key's type.
    pub fn get<T: PropertyValue>(&self, key: Property<T>) -> Result<T> {
        let text = self.property(key.name())?;
        T::parse_text(&text).ok_or_else(|| {
            PropertyError::Value {
                name: key.name().to_owned(),
                device: self.0.device.to_string(),
                got: text,
                expected: T::expected(),
            }
            .into()
        })
    }

    /// What runs: one entry per step.
    #[must_use]
    pub fn runtime_nodes(&self) -> Vec<RuntimeNode> {
        self.0.model.runtime_nodes()
    }
}
