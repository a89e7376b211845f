//! Errors: one variant per stage of the way of a model, each saying what was expected, found and how to mend it.

use std::path::PathBuf;

use crate::{op::OpError, tensor::TensorError};

/// The result of most functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that can go wrong between a model file and an inference result, by stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or parsed.
    #[error(transparent)]
    Read(Box<ReadError>),
    /// A model graph is not valid.
    #[error(transparent)]
    Model(Box<ModelError>),
    /// A property name or value is not valid.
    #[error(transparent)]
    Property(Box<PropertyError>),
    /// A device is missing, not usable, or failed.
    #[error(transparent)]
    Device(Box<DeviceError>),
    /// A device cannot compile a model.
    #[error(transparent)]
    Compile(Box<CompileError>),
    /// A compiled blob is not valid here.
    #[error(transparent)]
    Blob(Box<BlobError>),
    /// An inference failed.
    #[error(transparent)]
    Infer(Box<InferError>),
}

macro_rules! from_stage {
    ($($variant:ident: $stage:ty),*) => {$(
        impl From<$stage> for Error {
            fn from(e: $stage) -> Self {
                Self::$variant(Box::new(e))
            }
        }
    )*};
}
from_stage!(
    Read: ReadError,
    Model: ModelError,
    Property: PropertyError,
    Device: DeviceError,
    Compile: CompileError,
    Blob: BlobError,
    Infer: InferError
);

impl From<TensorError> for Error {
    fn from(e: TensorError) -> Self {
        InferError::Tensor(e).into()
    }
}

/// Why a file could not become a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The operating system refused.
    #[error("cannot read {path:?}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The content is no model format that this build reads.
    #[error(
        "{what} is neither ONNX, OpenVINO IR nor a compiled blob{hint}; readable here: {readable}"
    )]
    UnknownFormat {
        /// The file or "the given bytes".
        what: String,
        /// A guess at the cause, empty or starting with ": ".
        hint: String,
        /// Formats of this build.
        readable: String,
    },
    /// The bytes are not well-formed.
    #[error("{format} model {what} is damaged: {detail}")]
    Malformed {
        /// `ONNX`, `IR`.
        format: &'static str,
        /// The file or "from memory".
        what: String,
        /// Where, and what is wrong.
        detail: String,
    },
    /// External data may not or cannot be read.
    #[error("external data {location:?} of tensor {tensor:?} is refused: {detail}")]
    ExternalData {
        /// The tensor.
        tensor: String,
        /// Where the model says that its data is.
        location: String,
        /// Why it is refused.
        detail: String,
    },
    /// An operator that this build does not know.
    #[error("operator {domain}::{op} of opset {opset} (node {node:?}) is not supported{nearest}")]
    UnsupportedOp {
        /// Operator name.
        op: String,
        /// Domain; `ai.onnx` for the default one.
        domain: String,
        /// Version that the model imports.
        opset: i64,
        /// Node name, or its first output.
        node: String,
        /// The nearest known operators, empty or starting with "; ".
        nearest: String,
    },
    /// An operator is known, but not like this.
    #[error("operator {domain}::{op} of opset {opset} (node {node:?}): {source}")]
    Node {
        /// Operator name.
        op: String,
        /// Domain; `ai.onnx` for the default one.
        domain: String,
        /// Version that the model imports.
        opset: i64,
        /// Node name, or its first output.
        node: String,
        /// What is wrong.
        source: OpError,
    },
    /// A limit that protects against hostile files.
    #[error("{what} is {got}, more than the limit of {limit}")]
    Limit {
        /// What is counted.
        what: String,
        /// How much the file asks for.
        got: u64,
        /// How much is allowed.
        limit: u64,
    },
}

/// What is wrong with a model graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// An operator refuses its inputs or attributes.
    #[error("{op} {node:?}: {source}")]
    Op {
        /// Operator type.
        op: String,
        /// Node name.
        node: String,
        /// What is wrong.
        source: OpError,
    },
    /// The graph itself is broken.
    #[error("model {model:?}: {detail}")]
    Graph {
        /// Model name.
        model: String,
        /// What is wrong.
        detail: String,
    },
    /// The graph has a cycle.
    #[error("model {model:?} has a cycle through {path}")]
    Cycle {
        /// Model name.
        model: String,
        /// The nodes of the cycle.
        path: String,
    },
}

/// What is wrong with a property.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PropertyError {
    /// No device knows the name.
    #[error("property {name:?} is not known to {device}{nearest}")]
    Unknown {
        /// The name given.
        name: String,
        /// The device asked, or "any registered device".
        device: String,
        /// The nearest known name or the devices that know it; empty or starting with "; ".
        nearest: String,
    },
    /// The value does not parse.
    #[error("property {name} of {device} cannot be {got:?}, expected {expected}")]
    Value {
        /// The property.
        name: String,
        /// The device.
        device: String,
        /// The text given.
        got: String,
        /// What would do.
        expected: String,
    },
    /// The property can only be read.
    #[error("property {name} of {device} is read-only")]
    ReadOnly {
        /// The property.
        name: String,
        /// The device.
        device: String,
    },
    /// A model cache was asked for but none is linked.
    #[error(
        "CACHE_DIR is set, but no model cache is linked; depend on ov-cache and name it once: `use ov_cache as _;`"
    )]
    NoCacheProvider,
}

/// What is wrong with a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No plugin of that name is linked.
    #[error("device {name:?} is not registered (registered: {registered}){hint}")]
    NotRegistered {
        /// The name asked for.
        name: String,
        /// Registered names.
        registered: String,
        /// The fix, empty or starting with ". ".
        hint: String,
    },
    /// The plugin is linked, but finds nothing to run on.
    #[error("device {name} is linked but not usable: {reason}")]
    NotUsable {
        /// The device.
        name: String,
        /// What its probe found.
        reason: String,
    },
    /// The text does not name a device.
    #[error("device string {text:?} is not valid: {detail}")]
    BadName {
        /// The text.
        text: String,
        /// What is wrong, and the form expected.
        detail: String,
    },
    /// Two linked crates claim one name.
    #[error("device {name} is registered twice, by {first} and {second}: link only one of them")]
    Duplicate {
        /// The name.
        name: String,
        /// One crate.
        first: String,
        /// The other crate.
        second: String,
    },
    /// The device cannot do what was asked.
    #[error("device {name} does not support {what}{hint}")]
    Unsupported {
        /// The device.
        name: String,
        /// What was asked.
        what: String,
        /// What to do instead, empty or starting with ": ".
        hint: String,
    },
    /// Other models have reserved what was asked for.
    #[error(
        "No {name} resources available: asked for {asked}, reserved by other models are {reserved}{hint}"
    )]
    Reserved {
        /// The device.
        name: String,
        /// What was asked for, and what of it there is.
        asked: String,
        /// What is not free.
        reserved: String,
        /// What to do, empty or starting with ": ".
        hint: String,
    },
    /// The device failed.
    #[error("device {name} failed: {source}")]
    Failed {
        /// The device.
        name: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a model cannot be compiled for a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// No kernel takes a node.
    #[error("{device} has no kernel for {op} {node:?}: {reasons}")]
    NoKernel {
        /// The device.
        device: String,
        /// Operator type.
        op: String,
        /// Node name.
        node: String,
        /// Each candidate with its reason.
        reasons: String,
    },
    /// A limit would be passed.
    #[error("compiling for {device} needs {got} bytes of {what}, more than the limit of {limit}")]
    Limit {
        /// The device.
        device: String,
        /// What is counted.
        what: String,
        /// How much is needed.
        got: u64,
        /// How much is allowed.
        limit: u64,
    },
    /// Anything else, with the device's words.
    #[error("{device} cannot compile {model:?}: {detail}")]
    Other {
        /// The device.
        device: String,
        /// Model name.
        model: String,
        /// What is wrong.
        detail: String,
    },
}

/// Why a compiled blob cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// A check of the blob failed.
    #[error("blob check {check} failed: expected {expected}, got {got}")]
    Check {
        /// Which check.
        check: &'static str,
        /// What a good blob has.
        expected: String,
        /// What this one has.
        got: String,
    },
    /// The blob was made for something else.
    #[error("blob was compiled for {made_for}, this is {here}: compile the model again")]
    Incompatible {
        /// Device, instruction set and version of the blob.
        made_for: String,
        /// The same of this program.
        here: String,
    },
    /// The file could not be read or written.
    #[error("cannot access blob {path:?}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Why an inference failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// No port has that name or index.
    #[error("model has no {direction} {port}; it has {known}")]
    NoSuchPort {
        /// `input` or `output`.
        direction: &'static str,
        /// The name or index asked for.
        port: String,
        /// The ports there are.
        known: String,
    },
    /// A tensor does not fit its port.
    #[error("{direction} {port:?} expects {expected}, got {got}")]
    Mismatch {
        /// `input` or `output`.
        direction: &'static str,
        /// Port name.
        port: String,
        /// Element type and shape of the port.
        expected: String,
        /// Element type and shape of the tensor.
        got: String,
    },
    /// An input was never set.
    #[error("input {port:?} has no tensor: set it before infer ({expected})")]
    NotSet {
        /// Port name.
        port: String,
        /// Element type and shape of the port.
        expected: String,
    },
    /// The request is running.
    #[error("infer request is busy: wait for it, or use another request")]
    Busy,
    /// The request was cancelled.
    #[error("inference was canceled")]
    Canceled,
    /// Inferences of a queue failed, or their callbacks did.
    #[error("failed inferences of the queue: {failed}, the first with: {source}")]
    Jobs {
        /// How many.
        failed: u64,
        /// The error of the one that was started first.
        source: Box<Error>,
    },
    /// A callback of a queue would wait for its own end.
    #[error("{call} in a callback of the same queue would wait for itself: {fix}")]
    WaitsForItself {
        /// What was called.
        call: &'static str,
        /// What to do instead.
        fix: &'static str,
    },
    /// An operator failed on the values it got.
    #[error("{op} {node:?}: {source}")]
    Op {
        /// Operator type.
        op: String,
        /// Node name.
        node: String,
        /// What is wrong.
        source: OpError,
    },
    /// A tensor access failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A plugin panicked; the request may be used again.
    #[error("inference on {device} panicked: {detail}")]
    Panicked {
        /// The device.
        device: String,
        /// The panic's message.
        detail: String,
    },
    /// Anything else, with the device's words.
    #[error("inference on {device} failed: {detail}")]
    Other {
        /// The device.
        device: String,
        /// What is wrong.
        detail: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stay_small() {
        assert!(size_of::<Result<()>>() <= 16);
    }
}
