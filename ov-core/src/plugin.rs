//! What a device owes: the traits that plugins implement, with their contracts.
//!
//! Three traits, from the outside in. A [`Plugin`] stands for a kind of device (`CPU`, `CUDA`, `AUTO`); it compiles a
//! model into a [`DeviceModel`]; that creates [`SyncRequest`]s, which run inferences. Users never see them: they hold
//! [`Core`](crate::Core), [`CompiledModel`](crate::CompiledModel) and [`InferRequest`](crate::InferRequest), which check
//! what the user gives and add asynchronous running, so that a device can be thin:
//!
//! - Properties reach a plugin checked against [`Plugin::properties`] and in canonical text.
//! - Tensors reach a request with a valid index, the port's element type, a shape that the port admits, contiguous.
//! - A panic in a plugin becomes an error at the handle.
//!
//! [`testing::template_device`](crate::testing::template_device) is the smallest complete device.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use crate::{
    blob::Blob,
    cache::{CacheModel, DigestSink},
    error::{BlobError, DeviceError, InferError, Result},
    model::{Model, NodeId},
    profiling::{NodeProfile, RuntimeNode},
    property::{PropertyInfo, PropertyMap},
    tensor::{ElementType, PartialShape, Tensor},
};

/// One device that a plugin found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number, as in `CUDA.1`; empty for a kind that has one device only.
    pub id: String,
    /// Marketing name, for people.
    pub full_name: String,
}

/// A kind of device.
pub trait Plugin: Send + Sync {
    /// The name in device strings, upper case: `CPU`.
    fn name(&self) -> &str;

    /// The devices that can be used right now. Must not panic, also when a driver is missing, and should take less
    /// than a millisecond after the first call.
    ///
    /// # Errors
    /// The reason why there are none: *driver library libcuda.so.1 is not installed*.
    fn probe(&self) -> Result<Vec<DeviceInfo>, String>;

    /// Every property that the device knows, settable or not. Unknown ones are refused before the plugin sees them.
    fn properties(&self) -> &'static [PropertyInfo];

    /// Text of a property: the effective value, given what the user has `set` for this device (checked, canonical).
    /// Called for every name of [`Plugin::properties`] except `SUPPORTED_PROPERTIES`, `AVAILABLE_DEVICES` and those in
    /// `set`, which the core answers.
    ///
    /// # Errors
    /// When the value cannot be had.
    fn property(&self, name: &str, set: &PropertyMap) -> Result<String>;

    /// Compiles a model. `properties` are those of the device with those of this call laid over them, checked;
    /// `DEVICE_ID` is among them when the device string named one. `devices` is for plugins that use other devices.
    ///
    /// A device with blobs makes the blob here and binds from it, so that importing is the same code.
    ///
    /// # Errors
    /// [`CompileError`](crate::error::CompileError) with the reasons of every kernel that was asked, property errors
    /// for values that are not possible here.
    fn compile_model(
        &self,
        model: &ModelSource,
        properties: &PropertyMap,
        devices: &Arc<dyn DeviceResolver>,
    ) -> Result<Arc<dyn DeviceModel>>;

    /// Binds a blob that [`DeviceModel::blob`] gave, in this or another process. `properties` may hold run-time
    /// properties. The blob's structure (section table, ranges) has been checked, the content of sections has not:
    /// those are bytes from outside.
    ///
    /// # Errors
    /// [`BlobError`]: incompatible (other version, instruction set, device) or damaged.
    #[expect(unused_variables, reason = "the default refuses every blob")]
    fn import_model(&self, blob: Blob, properties: &PropertyMap) -> Result<Arc<dyn DeviceModel>> {
        Err(DeviceError::Unsupported {
            name: self.name().to_owned(),
            what: "importing blobs".to_owned(),
            hint: ": compile the model instead".to_owned(),
        }
        .into())
    }

    /// Per node of the model, in order of execution, whether the device can run it. Uses the same choice of kernels as
    /// compiling, so that both agree.
    ///
    /// # Errors
    /// When the model or the properties are not valid.
    fn query_model(
        &self,
        model: &Model,
        properties: &PropertyMap,
        devices: &Arc<dyn DeviceResolver>,
    ) -> Result<Vec<NodeSupport>>;

    /// Feeds everything to `key` that decides what [`Plugin::compile_model`] makes of a model with these properties:
    /// version of the device crate, target (instruction set, compute capability), and the resolved configuration.
    /// False when this device's models cannot be cached.
    ///
    /// # Errors
    /// When the properties are not valid.
    #[expect(unused_variables, reason = "by default nothing is cached")]
    fn cache_key(&self, properties: &PropertyMap, key: &mut dyn DigestSink) -> Result<bool> {
        Ok(false)
    }
}

/// Whether a device can run a node, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSupport {
    /// The node.
    pub node: NodeId,
    /// Its friendly name.
    pub name: String,
    /// Its operator type.
    pub op: String,
    /// The kernel that would run it (or the device, for AUTO), or why none would.
    pub kernel: Result<String, String>,
}

/// A model compiled for a device. Shared by its requests, so everything takes `&self`.
pub trait DeviceModel: Send + Sync {
    /// The inputs, in order.
    fn inputs(&self) -> &[PortInfo];

    /// The outputs, in order.
    fn outputs(&self) -> &[PortInfo];

    /// A request with memory of its own. Static inputs start as zeros.
    ///
    /// # Errors
    /// When memory or streams run out.
    fn create_request(&self) -> Result<Box<dyn SyncRequest>>;

    /// The compiled form, if the device has one.
    fn blob(&self) -> Option<&Blob> {
        None
    }

    /// Writes the compiled form.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] when there is no blob, [`BlobError::Io`] when writing fails.
    fn export(&self, to: &mut dyn Write) -> Result<()> {
        let Some(blob) = self.blob() else {
            let devices = self.property("EXECUTION_DEVICES").unwrap_or_default();
            return Err(DeviceError::Unsupported {
                name: devices,
                what: "exporting compiled models".to_owned(),
                hint: String::new(),
            }
            .into());
        };
        to.write_all(blob.bytes())
            .map_err(|source| BlobError::Io { path: PathBuf::new(), source }.into())
    }

    /// Names of the properties that [`DeviceModel::property`] answers.
    fn property_names(&self) -> &[&'static str];

    /// Text of a property: the effective values that the compile resolved, and `EXECUTION_DEVICES`,
    /// `OPTIMAL_NUMBER_OF_INFER_REQUESTS`, `NETWORK_NAME`. `LOADED_FROM_CACHE` and `SUPPORTED_PROPERTIES` are answered
    /// by the core.
    ///
    /// # Errors
    /// [`PropertyError::Unknown`](crate::error::PropertyError::Unknown).
    fn property(&self, name: &str) -> Result<String>;

    /// Names of the states (variables that live from one inference of a request to the next).
    fn state_names(&self) -> Vec<String> {
        Vec::new()
    }

    /// What runs: one entry per step, in order, with kernel, layouts and precision.
    fn runtime_nodes(&self) -> Vec<RuntimeNode> {
        Vec::new()
    }
}

/// One inference at a time, on the calling thread (and whatever the device adds to it).
///
/// The handle has checked indices, element types and shapes, and calls never overlap.
pub trait SyncRequest: Send {
    /// Lets an input read this tensor, without copying it where alignment allows. The tensor is contiguous.
    ///
    /// # Errors
    /// When the device cannot take it (memory of another device, for example).
    fn set_input(&mut self, index: usize, tensor: Tensor) -> Result<()>;

    /// The tensor of an input: what was set, or for a static port the request's own. `None` for a dynamic port that
    /// was not set.
    fn input(&self, index: usize) -> Option<&Tensor>;

    /// The same, to write into: the caller fills it in place. The handle replaces a tensor whose memory cannot be
    /// written.
    fn input_mut(&mut self, index: usize) -> Option<&mut Tensor>;

    /// Lets the results of an output be written into this tensor's memory, from now on. The tensor is contiguous and
    /// its memory is writable and held by it alone.
    ///
    /// # Errors
    /// When the device cannot write there.
    fn set_output(&mut self, index: usize, tensor: Tensor) -> Result<()>;

    /// The tensor of an output: for a static port memory of the request (or what was set) at any time; for a dynamic
    /// port `None` until an inference has run. If somebody holds a clone of it, the next inference leaves that clone
    /// alone and writes into fresh memory.
    fn output(&self, index: usize) -> Option<&Tensor>;

    /// Runs one inference. With static shapes: no allocation, no lock, no log. Polls `cancel` between steps. After an
    /// error the request can be used again and outputs hold no particular values.
    ///
    /// # Errors
    /// [`InferError`]: an input that was not set, values that an operator refuses, a caller-owned output whose shape
    /// is not that of the result, [`InferError::Canceled`].
    fn infer(&mut self, cancel: &CancelToken) -> Result<()>;

    /// Called on a thread that will run inferences of this request, and of no other, before the first of them: it may be
    /// bound to the processors of the request's stream.
    fn adopt_thread(&mut self) {}

    /// The device that ran the last inference, for requests that move between devices; `None` where there is one only.
    fn execution_device(&self) -> Option<&str> {
        None
    }

    /// Times of the last inference by node, when `PERF_COUNT` was set at compile time, else empty.
    fn profiling(&self) -> Vec<NodeProfile> {
        Vec::new()
    }

    /// The value of a state.
    ///
    /// # Errors
    /// When there is no such state.
    fn state(&self, name: &str) -> Result<Tensor> {
        Err(no_state(name))
    }

    /// Sets a state.
    ///
    /// # Errors
    /// When there is no such state or the tensor does not fit.
    #[expect(unused_variables, reason = "by default there are no states")]
    fn set_state(&mut self, name: &str, value: &Tensor) -> Result<()> {
        Err(no_state(name))
    }

    /// Gives every state its initial value.
    fn reset_states(&mut self) {}
}

fn no_state(name: &str) -> crate::Error {
    InferError::NoSuchPort {
        direction: "state",
        port: format!("{name:?}"),
        known: "no states".to_owned(),
    }
    .into()
}

/// An input or output of a compiled model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Its name.
    pub name: String,
    /// Element type of its tensors; `Dynamic` admits any.
    pub element_type: ElementType,
    /// Shape that its tensors must fit.
    pub shape: PartialShape,
}

impl PortInfo {
    /// The inputs of a model.
    #[must_use]
    pub fn inputs_of(model: &Model) -> Vec<Self> {
        model
            .inputs()
            .iter()
            .map(|id| {
                let node = model.node(*id);
                Self {
                    name: node.name().to_owned(),
                    element_type: node.element_type(0),
                    shape: node.shape(0),
                }
            })
            .collect()
    }

    /// The outputs of a model.
    #[must_use]
    pub fn outputs_of(model: &Model) -> Vec<Self> {
        model
            .results()
            .iter()
            .map(|output| Self {
                name: output.name.clone(),
                element_type: model.element_type(output.value),
                shape: model.shape(output.value).clone(),
            })
            .collect()
    }

    /// Whether a tensor fits, as far as type and shape go.
    #[must_use]
    pub fn admits(&self, tensor: &Tensor) -> bool {
        (self.element_type == ElementType::Dynamic || self.element_type == tensor.element_type())
            && self.shape.admits(tensor.shape())
    }

    /// `f32[1,3,?,?]`, for errors and tables.
    #[must_use]
    pub fn type_text(&self) -> String {
        format!("{}{}", self.element_type, self.shape)
    }
}

/// Asks a running inference to stop. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that nobody has cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether somebody asked to stop. One relaxed load.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error if somebody asked to stop.
    ///
    /// # Errors
    /// [`InferError::Canceled`].
    pub fn check(&self) -> Result<()> {
        if self.is_canceled() { Err(InferError::Canceled.into()) } else { Ok(()) }
    }

    pub(crate) fn reset(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// How a plugin that uses other devices (AUTO) reaches them: by name, through the core that it was called from.
pub trait DeviceResolver: Send + Sync {
    /// Every registered device but the caller's own kind, with what its probe found, sorted by name.
    fn devices(&self) -> Vec<(String, Result<Vec<DeviceInfo>, String>)>;

    /// Text of a property of a device.
    ///
    /// # Errors
    /// As [`Core::property`](crate::Core::property).
    fn property(&self, device: &str, name: &str) -> Result<String>;

    /// Whether a device lists a property that may be set.
    fn accepts(&self, device: &str, name: &str) -> bool;

    /// Compiles for a device, through the cache if `CACHE_DIR` is among the properties.
    ///
    /// # Errors
    /// As [`Plugin::compile_model`]; devices that are unknown or not usable.
    fn compile(
        &self,
        model: &ModelSource,
        device: &str,
        properties: &PropertyMap,
    ) -> Result<CompiledDevice>;

    /// Binds the model from the cache if `CACHE_DIR` is among the properties and holds a blob that the device takes;
    /// never compiles.
    ///
    /// # Errors
    /// As [`DeviceResolver::compile`], as far as devices and properties go.
    fn load_cached(
        &self,
        model: &ModelSource,
        device: &str,
        properties: &PropertyMap,
    ) -> Result<Option<CompiledDevice>>;

    /// As [`Plugin::query_model`].
    ///
    /// # Errors
    /// As [`Plugin::query_model`]; devices that are unknown or not usable.
    fn query(
        &self,
        model: &Model,
        device: &str,
        properties: &PropertyMap,
    ) -> Result<Vec<NodeSupport>>;
}

/// A compiled model with what the core knows about it.
#[derive(Clone)]
pub struct CompiledDevice {
    /// The model.
    pub model: Arc<dyn DeviceModel>,
    /// The device, with its number if it has one: `CUDA.1`.
    pub device: String,
    /// Whether a cached blob was bound instead of compiling.
    pub loaded_from_cache: bool,
    /// How long compiling or loading took.
    pub duration: Duration,
    /// How long the steps of loading took.
    pub times: LoadTimes,
}

/// How long the steps from a model to a compiled one took; zero for steps that were not needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadTimes {
    /// Finding the key of the cached blob: identity or content of the model's files.
    pub key: Duration,
    /// Opening, checking and mapping the blob; on a miss, looking for it.
    pub map: Duration,
    /// Binding the blob.
    pub bind: Duration,
}

impl std::fmt::Debug for CompiledDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompiledDevice")
            .field("device", &self.device)
            .field("loaded_from_cache", &self.loaded_from_cache)
            .finish_non_exhaustive()
    }
}

type ReadModel = dyn Fn() -> Result<Model> + Send + Sync;

/// A model to compile: one in memory, or a file that is read when somebody asks for the graph, which a hit in the
/// cache never does. Clones share the model.
#[derive(Clone)]
pub struct ModelSource(Arc<Source>, Option<Arc<str>>);

struct Source {
    path: Option<PathBuf>,
    bytes: Option<Bytes>,
    read: Box<ReadModel>,
    model: OnceLock<Model>,
}

impl std::fmt::Debug for ModelSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelSource")
            .field("path", &self.0.path)
            .field("read", &self.0.model.get().is_some())
            .finish_non_exhaustive()
    }
}

impl From<Model> for ModelSource {
    fn from(model: Model) -> Self {
        let source = Source {
            path: None,
            bytes: None,
            read: Box::new(|| {
                Err(InferError::Other {
                    device: "the core".to_owned(),
                    detail: "a model in memory is never read".to_owned(),
                }
                .into())
            }),
            model: OnceLock::from(model),
        };
        Self(Arc::new(source), None)
    }
}

impl ModelSource {
    /// A file, read by `read` when it is needed.
    pub fn file(
        path: impl Into<PathBuf>,
        read: impl Fn() -> Result<Model> + Send + Sync + 'static,
    ) -> Self {
        let source = Arc::new(Source {
            path: Some(path.into()),
            bytes: None,
            read: Box::new(read),
            model: OnceLock::new(),
        });
        Self(source, None)
    }

    /// The bytes of a file that refers to no other, read by `read` when it is needed.
    pub fn bytes(
        bytes: impl Into<Bytes>,
        read: impl Fn() -> Result<Model> + Send + Sync + 'static,
    ) -> Self {
        let source = Arc::new(Source {
            path: None,
            bytes: Some(bytes.into()),
            read: Box::new(read),
            model: OnceLock::new(),
        });
        Self(source, None)
    }

    /// Says what `read` changes of the file, so that the model cache tells it from the file as it is: shapes, for
    /// example.
    #[must_use]
    pub fn with_variant(self, variant: &str) -> Self {
        Self(self.0, Some(variant.into()))
    }

    /// What identifies the model in the cache, and its variant.
    pub(crate) fn cache_model(&self) -> Result<(CacheModel<'_>, &str)> {
        let model = match (&self.0.path, &self.0.bytes) {
            (Some(path), _) => CacheModel::File(path),
            (None, Some(bytes)) => CacheModel::Bytes(bytes),
            (None, None) => CacheModel::Graph(self.model()?),
        };
        Ok((model, self.1.as_deref().unwrap_or_default()))
    }

    /// The file, unless the model was given in memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The model, read now if it was not yet. A device that changes it clones it.
    ///
    /// # Errors
    /// What reading gives.
    pub fn model(&self) -> Result<&Model> {
        if let Some(model) = self.0.model.get() {
            return Ok(model);
        }
        let model = (self.0.read)()?;
        Ok(self.0.model.get_or_init(|| model))
    }
}
