//! The entry point: reads models, compiles them for devices, routes properties.

mod resolver;
mod source;
mod target;

use std::{
    collections::HashMap,
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use bytes::Bytes;
use resolver::Resolver;
use source::holds_blob;
use target::{Target, is_meta};

use crate::{
    blob::Blob,
    cache::{BytesSink, CacheOptions, CacheProvider, CacheRequest, CachedBlob, provider},
    checked::CheckedModel,
    compiled_model::CompiledModel,
    error::{BlobError, DeviceError, PropertyError, Result},
    frontend,
    infer_request::panic_text,
    model::Model,
    plugin::{
        CompiledDevice, DeviceInfo, DeviceModel, DeviceResolver, LoadTimes, ModelSource,
        NodeSupport, Plugin,
    },
    property::{
        Access, Property, PropertyInfo, PropertyMap, PropertyValue, cache, device, info, lookup,
    },
    registry,
};

pub use frontend::{Format, ReadOptions, Weights};

/// The devices of a program and what is set for them. Clones share both.
///
/// See the [crate documentation](crate) for an example.
#[derive(Clone)]
pub struct Core(Arc<Inner>);

struct Inner {
    /// Sorted by name.
    plugins: Vec<Arc<dyn Plugin>>,
    cache: Option<Arc<dyn CacheProvider>>,
    set: RwLock<Settings>,
}

#[derive(Clone, Debug, Default)]
struct Settings {
    global: PropertyMap,
    devices: HashMap<String, PropertyMap>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.0.plugins.iter().map(|p| p.name()).collect();
        f.debug_struct("Core").field("plugins", &names).finish_non_exhaustive()
    }
}

/// One kind of device as [`Core::devices`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStatus {
    /// The name in device strings.
    pub name: String,
    /// What the probe found, or why there is nothing.
    pub devices: Result<Vec<DeviceInfo>, String>,
    /// Whether it runs models on other devices, as AUTO does.
    pub is_meta: bool,
}

/// Properties that the core answers for every device.
const OWN: &[PropertyInfo] = &[
    cache::CACHE_DIR.info(),
    cache::CACHE_MODE.info(),
    cache::CACHE_VERIFY.info(),
    cache::CACHE_MAX_BYTES.info(),
    cache::CACHE_WAIT_MS.info(),
    cache::CACHE_ENCRYPTION_CALLBACKS.info(),
    cache::ENABLE_MMAP.info(),
];

impl Core {
    /// The devices and the model cache that are linked into the program. A crate is linked only if the program names
    /// it: `use ov_cpu as _;`.
    ///
    /// # Errors
    /// [`DeviceError::Duplicate`] when two linked crates claim one device name, or the cache.
    pub fn new() -> Result<Self> {
        Ok(Self::build(registry::registered()?, provider()?))
    }

    /// These devices, and no model cache: nothing that is linked counts.
    ///
    /// # Errors
    /// [`DeviceError::Duplicate`] when two of them have the same name.
    pub fn with_plugins(plugins: impl IntoIterator<Item = Arc<dyn Plugin>>) -> Result<Self> {
        let mut plugins: Vec<_> = plugins.into_iter().collect();
        plugins.sort_by(|a, b| a.name().cmp(b.name()));
        registry::check_names(plugins.iter().map(|p| (p.name(), "a plugin that was given")))?;
        Ok(Self::build(plugins, None))
    }

    /// The same devices with what is set now, and this model cache.
    #[must_use]
    pub fn with_cache(&self, provider: Arc<dyn CacheProvider>) -> Self {
        let set = self.0.set.read().unwrap_or_else(PoisonError::into_inner).clone();
        Self(Arc::new(Inner {
            plugins: self.0.plugins.clone(),
            cache: Some(provider),
            set: RwLock::new(set),
        }))
    }

    fn build(plugins: Vec<Arc<dyn Plugin>>, cache: Option<Arc<dyn CacheProvider>>) -> Self {
        Self(Arc::new(Inner { plugins, cache, set: RwLock::default() }))
    }

    /// Reads an ONNX file or an OpenVINO IR (`.xml`, with its `.bin` beside it). Weights stay in the mapped file.
    ///
    /// # Errors
    /// [`ReadError`](crate::error::ReadError).
    pub fn read_model(&self, path: impl AsRef<Path>) -> Result<Model> {
        self.read_model_with(path, &ReadOptions::default())
    }

    /// Reads a model file in a particular way.
    ///
    /// # Errors
    /// [`ReadError`](crate::error::ReadError).
    pub fn read_model_with(&self, path: impl AsRef<Path>, options: &ReadOptions) -> Result<Model> {
        let mut options = options.clone();
        let set = self.0.set.read().unwrap_or_else(PoisonError::into_inner);
        options.copy_files |= !set.global.get_or(cache::ENABLE_MMAP, true)?;
        drop(set);
        frontend::read_file(path.as_ref(), &options)
    }

    /// Reads a model from bytes: ONNX without external data, or an IR with its weights in `options`.
    ///
    /// # Errors
    /// [`ReadError`](crate::error::ReadError).
    pub fn read_model_from_bytes(
        &self,
        bytes: impl Into<Bytes>,
        options: &ReadOptions,
    ) -> Result<Model> {
        frontend::read_bytes(bytes.into(), options)
    }

    /// Compiles a model for a device: `CPU`, `CUDA.1`, `AUTO`, `AUTO:CUDA,CPU`. The model is a [`Model`] or the path of
    /// a file; with `CACHE_DIR` set, a file that was compiled before is not even read. A file that holds a compiled
    /// blob is imported.
    ///
    /// Properties of this call win over those set for the device, which win over global ones.
    ///
    /// # Errors
    /// [`DeviceError`], [`PropertyError`], [`ReadError`](crate::error::ReadError),
    /// [`CompileError`](crate::error::CompileError).
    pub fn compile_model(
        &self,
        model: impl Into<ModelSource>,
        device: &str,
        properties: &PropertyMap,
    ) -> Result<CompiledModel> {
        let source = model.into();
        if let Some(path) = source.path().filter(|p| holds_blob(p)) {
            return self.import_model_from(path, device, properties);
        }
        self.0.compile(&source, device, properties).map(CompiledModel::from)
    }

    /// Binds a blob that [`CompiledModel::export`] wrote, on the device that made it or a meta device.
    ///
    /// # Errors
    /// [`BlobError`] when it is damaged or was made for something else; [`DeviceError`], [`PropertyError`].
    pub fn import_model(
        &self,
        blob: Blob,
        device: &str,
        properties: &PropertyMap,
    ) -> Result<CompiledModel> {
        let start = Instant::now();
        let mut target = target::find(&self.0.plugins, device)?;
        if is_meta(&*target.plugin) {
            target = target::find(&self.0.plugins, &blob.header().device)?;
        }
        target.expect_usable()?;
        let mut properties = self.0.effective(&target, properties)?;
        OWN.iter().for_each(|own| drop(properties.remove(own.name)));
        let model = import(&target, blob, &properties)?;
        let duration = start.elapsed();
        Ok(CompiledDevice {
            model,
            device: target.name,
            loaded_from_cache: false,
            duration,
            times: LoadTimes { bind: duration, ..LoadTimes::default() },
        }
        .into())
    }

    /// As [`Core::import_model`], from a file, which is mapped unless `ENABLE_MMAP` says otherwise.
    ///
    /// # Errors
    /// As [`Core::import_model`].
    pub fn import_model_from(
        &self,
        path: impl AsRef<Path>,
        device: &str,
        properties: &PropertyMap,
    ) -> Result<CompiledModel> {
        let map = match properties.get(cache::ENABLE_MMAP)? {
            Some(map) => map,
            None => self
                .0
                .set
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .global
                .get_or(cache::ENABLE_MMAP, true)?,
        };
        let blob = if map { Blob::open(path.as_ref())? } else { Blob::read(path.as_ref())? };
        self.import_model(blob, device, properties)
    }

    /// As [`Core::import_model`], from a stream, which is read to its end.
    ///
    /// # Errors
    /// As [`Core::import_model`], and what reading gives.
    pub fn import_model_from_stream(
        &self,
        from: &mut dyn Read,
        device: &str,
        properties: &PropertyMap,
    ) -> Result<CompiledModel> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)
            .map_err(|source| BlobError::Io { path: "(stream)".into(), source })?;
        self.import_model(Blob::from_bytes(bytes.into())?, device, properties)
    }

    /// Waits until every model that was compiled is stored in the model cache. Dropping the last handle to a core waits
    /// as well; a process that ends in another way leaves unfinished models uncached.
    pub fn finish_caching(&self) {
        if let Some(cache) = &self.0.cache {
            cache.finish();
        }
    }

    /// Per node, in order of execution, whether a device can run it, and with which kernel.
    ///
    /// # Errors
    /// As [`Core::compile_model`], as far as devices and properties go.
    pub fn query_model(
        &self,
        model: &Model,
        device: &str,
        properties: &PropertyMap,
    ) -> Result<Vec<NodeSupport>> {
        self.0.query(model, device, properties)
    }

    /// Names that can be compiled for: `CPU`, `CUDA.0`, `CUDA.1`; meta devices such as AUTO are not among them.
    #[must_use]
    pub fn available_devices(&self) -> Vec<String> {
        let mut names = Vec::new();
        for status in self.devices().into_iter().filter(|s| !s.is_meta) {
            for device in status.devices.unwrap_or_default() {
                names.push(numbered(&status.name, &device.id));
            }
        }
        names
    }

    /// Every registered kind of device, usable or not.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceStatus> {
        let status = |p: &Arc<dyn Plugin>| DeviceStatus {
            name: p.name().to_owned(),
            devices: p.probe(),
            is_meta: is_meta(&**p),
        };
        self.0.plugins.iter().map(status).collect()
    }

    /// Sets properties for a device (`CPU`, `CUDA.1`), for models that are compiled from now on.
    ///
    /// # Errors
    /// [`PropertyError`] for names that the device does not know, values that do not parse, read-only properties.
    pub fn set_properties(&self, device: &str, properties: &PropertyMap) -> Result<()> {
        let target = target::find(&self.0.plugins, device)?;
        let checked = properties.check(&target.name, &self.0.known(&target))?;
        let mut set = self.0.set.write().unwrap_or_else(PoisonError::into_inner);
        let entry = set.devices.entry(target.name).or_default();
        *entry = entry.merged(&checked);
        Ok(())
    }

    /// Sets properties for every device that knows them.
    ///
    /// # Errors
    /// [`PropertyError`] for names that no registered device knows, values that do not parse, read-only properties.
    pub fn set_global_properties(&self, properties: &PropertyMap) -> Result<()> {
        let lists = self.0.plugins.iter().flat_map(|p| p.properties());
        let known: Vec<PropertyInfo> = OWN.iter().chain(lists).copied().collect();
        let checked = properties.check("any registered device", &known)?;
        let mut set = self.0.set.write().unwrap_or_else(PoisonError::into_inner);
        set.global = set.global.merged(&checked);
        Ok(())
    }

    /// Every property of a device, settable or not.
    ///
    /// # Errors
    /// [`DeviceError`] for unknown devices.
    pub fn supported_properties(&self, device: &str) -> Result<Vec<PropertyInfo>> {
        let target = target::find(&self.0.plugins, device)?;
        let mut known = self.0.known(&target);
        known.sort_by_key(|p| p.name);
        Ok(known)
    }

    /// Text of a property of a device: what was set, else the device's own value.
    ///
    /// # Errors
    /// [`PropertyError::Unknown`] with the nearest known name; [`DeviceError`].
    pub fn property(&self, device: &str, name: &str) -> Result<String> {
        self.0.property_text(device, name)
    }

    /// Value of a property of a device.
    ///
    /// # Errors
    /// As [`Core::property`].
    pub fn get<T: PropertyValue>(&self, device: &str, key: Property<T>) -> Result<T> {
        let text = self.property(device, key.name())?;
        T::parse_text(&text).ok_or_else(|| {
            PropertyError::Value {
                name: key.name().to_owned(),
                device: device.to_owned(),
                got: text,
                expected: T::expected(),
            }
            .into()
        })
    }
}

impl Inner {
    /// What may be set or read for a device.
    fn known(&self, target: &Target) -> Vec<PropertyInfo> {
        let own = target.plugin.properties();
        let ours = [info::SUPPORTED_PROPERTIES.info(), device::AVAILABLE_DEVICES.info()];
        let mut known = own.to_vec();
        for extra in OWN.iter().chain(&ours) {
            if !known.iter().any(|p| p.name == extra.name) {
                known.push(*extra);
            }
        }
        known
    }

    /// Global, device and call properties laid over each other and checked.
    fn effective(&self, target: &Target, properties: &PropertyMap) -> Result<PropertyMap> {
        let known = self.known(target);
        let given =
            properties.check(&target.name, &known).map_err(|e| self.who_knows(e, target))?;
        if let Some(clash) =
            target.properties.iter().find(|(n, t)| given.text(n).is_some_and(|g| g != *t))
        {
            return Err(DeviceError::BadName {
                text: target.name.clone(),
                detail: format!("it says {}={}, the properties say otherwise", clash.0, clash.1),
            }
            .into());
        }
        let set = self.set.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = PropertyMap::new();
        for (name, text) in set.global.iter() {
            if known.iter().any(|p| p.name == name) {
                all.set_text(name, text)?;
            }
        }
        for name in [target.plugin.name(), &target.name] {
            if let Some(map) = set.devices.get(name) {
                all = all.merged(map);
            }
        }
        Ok(all.merged(&given).merged(&target.properties))
    }

    /// Adds the devices that know a property to the error about it.
    fn who_knows(&self, error: crate::Error, target: &Target) -> crate::Error {
        let crate::Error::Property(inner) = &error else { return error };
        let PropertyError::Unknown { name, device, nearest: near } = &**inner else { return error };
        let others: Vec<&str> = self
            .plugins
            .iter()
            .filter(|p| p.name() != target.plugin.name())
            .filter(|p| p.properties().iter().any(|i| i.name == name))
            .map(|p| p.name())
            .collect();
        if others.is_empty() {
            return error;
        }
        PropertyError::Unknown {
            name: name.clone(),
            device: device.clone(),
            nearest: format!("{near}; {} knows it", others.join(", ")),
        }
        .into()
    }

    fn property_text(&self, device: &str, name: &str) -> Result<String> {
        let target = target::find(&self.plugins, device)?;
        let known = self.known(&target);
        let described =
            lookup(&target.name, &known, name).map_err(|e| self.who_knows(e, &target))?;
        if name == info::SUPPORTED_PROPERTIES.name() {
            let texts: Vec<_> = known.iter().map(|p| format!("{}:{}", p.name, p.access)).collect();
            return Ok(texts.join(","));
        }
        if name == device::AVAILABLE_DEVICES.name() {
            let devices = target.plugin.probe().unwrap_or_default();
            return Ok(devices.iter().map(|d| d.id.as_str()).collect::<Vec<_>>().join(","));
        }
        let set = self.effective(&target, &PropertyMap::new())?;
        if let Some(text) = set.text(name) {
            return Ok(text.to_owned());
        }
        if described.access == Access::WriteOnly {
            return Err(PropertyError::Unknown {
                name: name.to_owned(),
                device: target.name,
                nearest: "; it can only be set".to_owned(),
            }
            .into());
        }
        if !target.plugin.properties().iter().any(|p| p.name == name) {
            let default = CacheOptions::default();
            return Ok(match name {
                "ENABLE_MMAP" => default.map.to_text(),
                "CACHE_MODE" => default.mode.to_text(),
                "CACHE_VERIFY" => default.verify.to_text(),
                "CACHE_MAX_BYTES" => 0u64.to_text(),
                "CACHE_WAIT_MS" => default.wait.as_millis().to_string(),
                _ => String::new(),
            });
        }
        target.plugin.property(name, &set)
    }

    fn compile(
        self: &Arc<Self>,
        source: &ModelSource,
        device: &str,
        properties: &PropertyMap,
    ) -> Result<CompiledDevice> {
        let mut job = self.prepare(source, device, properties)?;
        if let Some(loaded) = job.load() {
            return Ok(loaded);
        }
        let target = &job.target;
        let resolver: Arc<dyn DeviceResolver> =
            Arc::new(Resolver { inner: Arc::clone(self), caller: target.plugin.name().to_owned() });
        let model =
            guarded(target, || target.plugin.compile_model(source, &job.properties, &resolver))?;
        if let (Some(entry), Some(blob)) = (job.entry.take(), model.blob()) {
            entry.publish(blob.clone());
        }
        Ok(job.done(model, false))
    }

    /// Resolves what compiling or loading needs.
    fn prepare(&self, source: &ModelSource, device: &str, properties: &PropertyMap) -> Result<Job> {
        let start = Instant::now();
        let target = target::find(&self.plugins, device)?;
        let mut properties = self.effective(&target, properties)?;
        let dir = properties.get(cache::CACHE_DIR)?.filter(|d| !d.as_os_str().is_empty());
        if dir.is_some() && self.cache.is_none() {
            return Err(PropertyError::NoCacheProvider.into());
        }
        target.expect_usable()?;
        let dir = dir.filter(|_| !is_meta(&*target.plugin));
        let options = CacheOptions::of(&properties)?;
        // A meta device hands what concerns the cache on to the devices that it chooses.
        let known = target.plugin.properties();
        for own in OWN.iter().filter(|_| !is_meta(&*target.plugin)) {
            if !known.iter().any(|p| p.name == own.name) {
                properties.remove(own.name);
            }
        }
        let entry = match (&self.cache, dir) {
            (Some(cache), Some(dir)) => {
                let cache = (&**cache, dir.as_path(), options);
                self.entry(cache, &target, source, &properties)?
            }
            _ => None,
        };
        let times = LoadTimes { key: start.elapsed(), ..LoadTimes::default() };
        Ok(Job { start, target, properties, entry, times })
    }

    /// The place of a model in the cache, unless the device's models cannot be cached.
    fn entry(
        &self,
        (cache, dir, options): (&dyn CacheProvider, &Path, CacheOptions),
        target: &Target,
        source: &ModelSource,
        properties: &PropertyMap,
    ) -> Result<Option<Box<dyn crate::cache::CacheEntry>>> {
        let mut key = BytesSink::default();
        if !target.plugin.cache_key(properties, &mut key)? {
            tracing::debug!(device = target.name, "the device's models cannot be cached");
            return Ok(None);
        }
        let (model, variant) = source.cache_model()?;
        let device = &target.name;
        Ok(cache.open(&CacheRequest { dir, device, model, variant, key: &key.0, options }))
    }

    fn query(
        self: &Arc<Self>,
        model: &Model,
        device: &str,
        properties: &PropertyMap,
    ) -> Result<Vec<NodeSupport>> {
        let target = target::find(&self.plugins, device)?;
        let properties = self.effective(&target, properties)?;
        target.expect_usable()?;
        let resolver: Arc<dyn DeviceResolver> =
            Arc::new(Resolver { inner: Arc::clone(self), caller: target.plugin.name().to_owned() });
        guarded(&target, || target.plugin.query_model(model, &properties, &resolver))
    }
}

/// A model on its way to a device.
struct Job {
    start: Instant,
    target: Target,
    properties: PropertyMap,
    entry: Option<Box<dyn crate::cache::CacheEntry>>,
    times: LoadTimes,
}

impl Job {
    /// The model from the cache.
    fn load(&mut self) -> Option<CompiledDevice> {
        let entry = self.entry.as_mut()?;
        let found = entry.load();
        self.times.map = self.start.elapsed().saturating_sub(self.times.key);
        let CachedBlob { blob, check } = found?;
        match import(&self.target, blob, &self.properties) {
            Ok(model) => {
                let before = self.times.key + self.times.map;
                self.times.bind = self.start.elapsed().saturating_sub(before);
                let model = match check {
                    Some(check) => Arc::new(CheckedModel { model, check }),
                    None => model,
                };
                Some(self.done(model, true))
            }
            Err(e) => {
                // A device that has no resources left says nothing about the blob; compiling gives the same error.
                if !matches!(e, crate::Error::Device(_) | crate::Error::Property(_)) {
                    entry.reject(&e);
                }
                None
            }
        }
    }

    fn done(&self, model: Arc<dyn DeviceModel>, loaded_from_cache: bool) -> CompiledDevice {
        let (device, duration) = (self.target.name.clone(), self.start.elapsed());
        tracing::info!(device, loaded_from_cache, ?duration, "model compiled");
        CompiledDevice { model, device, loaded_from_cache, duration, times: self.times }
    }
}

fn import(target: &Target, blob: Blob, properties: &PropertyMap) -> Result<Arc<dyn DeviceModel>> {
    let made_for = &blob.header().device;
    if made_for != target.plugin.name() {
        return Err(BlobError::Incompatible {
            made_for: made_for.clone(),
            here: target.plugin.name().to_owned(),
        }
        .into());
    }
    guarded(target, || target.plugin.import_model(blob, properties))
}

/// Turns a panic of a plugin into an error.
fn guarded<T>(target: &Target, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|p| {
        Err(DeviceError::Failed {
            name: target.name.clone(),
            source: format!("it panicked: {}", panic_text(&*p)).into(),
        }
        .into())
    })
}

fn numbered(name: &str, id: &str) -> String {
    if id.is_empty() { name.to_owned() } else { format!("{name}.{id}") }
}
