//! The request that users hold: checks what they give, runs it here or on a thread of its own.

mod future;
mod queue;
mod worker;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{RecvTimeoutError, TryRecvError},
    time::Duration,
};

use crate::{
    compiled_model::CompiledModel,
    error::{DeviceError, Error, InferError, Result},
    plugin::{CancelToken, PortInfo, SyncRequest},
    profiling::NodeProfile,
    tensor::Tensor,
};
use worker::{Done, Job, Worker, worker_ended};

pub use future::InferFuture;
pub use queue::{AsyncInferQueue, IdleRequest, QueueOptions, Submission};

/// An input or output by index or by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port<'a> {
    /// Position among the inputs or outputs.
    Index(usize),
    /// Name.
    Name(&'a str),
}

impl From<usize> for Port<'_> {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

impl<'a> From<&'a str> for Port<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<&'a String> for Port<'a> {
    fn from(name: &'a String) -> Self {
        Self::Name(name)
    }
}

impl Port<'_> {
    pub(crate) fn find(self, direction: &'static str, ports: &[PortInfo]) -> Result<usize> {
        let found = match self {
            Self::Index(i) => Some(i).filter(|i| *i < ports.len()),
            Self::Name(name) => ports.iter().position(|p| p.name == name),
        };
        found.ok_or_else(|| no_such_port(self, direction, ports))
    }
}

#[cold]
fn no_such_port(port: Port<'_>, direction: &'static str, ports: &[PortInfo]) -> Error {
    let known: Vec<String> =
        ports.iter().enumerate().map(|(i, p)| format!("{i} {:?}", p.name)).collect();
    InferError::NoSuchPort {
        direction,
        port: match port {
            Port::Index(i) => i.to_string(),
            Port::Name(n) => format!("{n:?}"),
        },
        known: if known.is_empty() { "none".to_owned() } else { known.join(", ") },
    }
    .into()
}

/// Called on the worker thread when an asynchronous inference has ended. An error that it returns, or a panic, comes
/// out of [`InferRequest::wait`].
pub type Callback = Box<dyn FnMut(Result<(), &Error>) -> Result<()> + Send>;

type Running = Box<dyn SyncRequest>;

/// Runs inferences of a compiled model, one at a time.
///
/// [`InferRequest::infer`] runs on the calling thread; [`InferRequest::start_async`] on a thread of the request, which
/// is started on first use, and [`InferRequest::start_async_future`] gives its end as a future. An [`AsyncInferQueue`]
/// holds several requests. While an inference runs, everything but waiting and cancelling answers
/// [`InferError::Busy`]. Dropping a running request cancels it.
pub struct InferRequest {
    model: CompiledModel,
    /// The device's request; the worker has it while an inference runs.
    idle: Option<Running>,
    /// Inputs that may be without a tensor.
    unsettled: Box<[usize]>,
    cancel: CancelToken,
    worker: Option<Worker>,
    /// Result of a finished asynchronous inference that nobody has waited for.
    outcome: Option<Result<()>>,
    started: bool,
    callback: Option<Callback>,
}

impl std::fmt::Debug for InferRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InferRequest").field("busy", &self.idle.is_none()).finish_non_exhaustive()
    }
}

impl InferRequest {
    pub(crate) fn new(model: CompiledModel, request: Running) -> Self {
        let unsettled = model
            .inputs()
            .iter()
            .enumerate()
            .filter(|(i, _)| request.input(*i).is_none())
            .map(|(i, _)| i)
            .collect();
        Self {
            model,
            idle: Some(request),
            unsettled,
            cancel: CancelToken::new(),
            worker: None,
            outcome: None,
            started: false,
            callback: None,
        }
    }

    /// The model that this request runs.
    #[must_use]
    pub fn compiled_model(&self) -> &CompiledModel {
        &self.model
    }

    /// The device that ran the last inference: under AUTO it changes when the request moves, elsewhere it is
    /// [`CompiledModel::device`].
    ///
    /// # Errors
    /// [`InferError::Busy`].
    pub fn execution_device(&self) -> Result<&str> {
        Ok(self.request()?.execution_device().unwrap_or_else(|| self.model.device()))
    }

    fn request(&self) -> Result<&dyn SyncRequest> {
        self.idle.as_deref().ok_or_else(|| InferError::Busy.into())
    }

    fn request_mut(&mut self) -> Result<&mut Running> {
        self.poll();
        self.idle.as_mut().ok_or_else(|| InferError::Busy.into())
    }

    /// Lets an input read this tensor. Its memory is used in place, so do not change it (through another handle to it)
    /// before the inference has ended. Strided tensors are copied.
    ///
    /// # Errors
    /// [`InferError::NoSuchPort`], [`InferError::Mismatch`] (element type or shape), [`InferError::Busy`].
    pub fn set_input<'p>(&mut self, port: impl Into<Port<'p>>, tensor: Tensor) -> Result<()> {
        let index = port.into().find("input", self.model.inputs())?;
        expect("input", &self.model.inputs()[index], &tensor)?;
        let tensor = if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() };
        self.request_mut()?.set_input(index, tensor)
    }

    /// The tensor of an input.
    ///
    /// # Errors
    /// [`InferError::NoSuchPort`], [`InferError::Busy`], [`InferError::NotSet`] for a dynamic input without one.
    pub fn input<'p>(&self, port: impl Into<Port<'p>>) -> Result<&Tensor> {
        let index = port.into().find("input", self.model.inputs())?;
        self.request()?.input(index).ok_or_else(|| not_set(&self.model.inputs()[index]))
    }

    /// The tensor of an input, to fill in place. Memory that cannot be written (shared with another tensor, or a mapped
    /// file) is replaced by a copy.
    ///
    /// # Errors
    /// As [`InferRequest::input`].
    pub fn input_mut<'p>(&mut self, port: impl Into<Port<'p>>) -> Result<&mut Tensor> {
        let index = port.into().find("input", self.model.inputs())?;
        let model = self.model.clone();
        let request = self.request_mut()?;
        let missing = || not_set(&model.inputs()[index]);
        let tensor = request.input_mut(index).ok_or_else(missing)?;
        if !tensor.is_writable() && tensor.as_strings().is_err() {
            let copy = tensor.to_owned_tensor();
            request.set_input(index, copy)?;
        }
        request.input_mut(index).ok_or_else(missing)
    }

    /// Lets an output be written into this tensor's memory from now on. To find the results at an address of your own,
    /// make the tensor over a [`TensorBuffer`](crate::tensor::TensorBuffer) that lends it.
    ///
    /// # Errors
    /// [`InferError::NoSuchPort`], [`InferError::Mismatch`] (element type, shape, strides),
    /// [`TensorError::ReadOnly`](crate::tensor::TensorError::ReadOnly) when other tensors share the memory,
    /// [`InferError::Busy`].
    pub fn set_output<'p>(&mut self, port: impl Into<Port<'p>>, mut tensor: Tensor) -> Result<()> {
        let index = port.into().find("output", self.model.outputs())?;
        expect("output", &self.model.outputs()[index], &tensor)?;
        if tensor.as_strings().is_err() {
            tensor.bytes_mut()?;
        }
        self.request_mut()?.set_output(index, tensor)
    }

    /// The tensor of an output.
    ///
    /// # Errors
    /// [`InferError::NoSuchPort`], [`InferError::Busy`], [`InferError::NotSet`] for a dynamic output before the first
    /// inference.
    pub fn output<'p>(&self, port: impl Into<Port<'p>>) -> Result<&Tensor> {
        let index = port.into().find("output", self.model.outputs())?;
        self.request()?.output(index).ok_or_else(|| not_set(&self.model.outputs()[index]))
    }

    /// The tensor of the input or output of that name; inputs first.
    ///
    /// # Errors
    /// As [`InferRequest::input`] and [`InferRequest::output`].
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        if self.model.inputs().iter().any(|p| p.name == name) {
            self.input(name)
        } else {
            self.output(name)
        }
    }

    /// Sets the tensor of the input or output of that name; inputs first.
    ///
    /// # Errors
    /// As [`InferRequest::set_input`] and [`InferRequest::set_output`].
    pub fn set_tensor(&mut self, name: &str, tensor: Tensor) -> Result<()> {
        if self.model.inputs().iter().any(|p| p.name == name) {
            self.set_input(name, tensor)
        } else {
            self.set_output(name, tensor)
        }
    }

    /// Runs an inference on the calling thread. With static shapes there is no allocation, lock or log on the way. The
    /// callback is not called.
    ///
    /// # Errors
    /// [`InferError`]; the request can be used again.
    pub fn infer(&mut self) -> Result<()> {
        self.check_ready()?;
        self.cancel.reset();
        self.infer_accepted()
    }

    /// Runs an inference whose inputs were checked, and whose cancel token was reset, when it was accepted.
    fn infer_accepted(&mut self) -> Result<()> {
        let Some(request) = self.idle.as_deref_mut() else { return Err(InferError::Busy.into()) };
        run(request, &self.cancel, self.model.device())
    }

    /// Refuses a request that runs or lacks an input.
    fn check_ready(&mut self) -> Result<()> {
        self.poll();
        let Some(request) = self.idle.as_deref() else { return Err(InferError::Busy.into()) };
        check_inputs(request, &self.unsettled, self.model.inputs())
    }

    /// Sets the inputs in order, runs, and gives the outputs. Convenient, not the fastest: outputs that the caller keeps
    /// are not written again, so each call needs fresh memory for them.
    ///
    /// # Errors
    /// As [`InferRequest::set_input`] and [`InferRequest::infer`].
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        for (i, tensor) in inputs.iter().enumerate() {
            self.set_input(i, tensor.clone())?;
        }
        self.infer()?;
        (0..self.model.outputs().len()).map(|i| self.output(i).cloned()).collect()
    }

    /// Starts an inference on the request's own thread.
    ///
    /// # Errors
    /// [`InferError::Busy`], [`InferError::NotSet`]; [`DeviceError::Failed`] when no thread can be started.
    pub fn start_async(&mut self) -> Result<()> {
        self.check_ready()?;
        if self.worker.is_none() {
            self.worker = Some(Worker::start().map_err(|e| DeviceError::Failed {
                name: self.model.device().to_owned(),
                source: Box::new(e),
            })?);
        }
        let (Some(worker), Some(request)) = (&self.worker, self.idle.take()) else {
            return Err(InferError::Busy.into());
        };
        self.cancel.reset();
        self.outcome = None;
        self.started = true;
        let job = Job {
            request,
            cancel: self.cancel.clone(),
            callback: self.callback.take(),
            device: self.model.device_shared(),
        };
        worker.jobs.send(job).map_err(|lost| {
            self.idle = Some(lost.0.request);
            self.callback = lost.0.callback;
            worker_ended(self.model.device())
        })
    }

    /// Starts an inference as [`InferRequest::start_async`] does and gives a future of its end, which any executor can
    /// poll. The callback is called, too.
    ///
    /// # Errors
    /// As [`InferRequest::start_async`].
    pub fn start_async_future(&mut self) -> Result<InferFuture<'_>> {
        self.start_async()?;
        Ok(InferFuture::new(self))
    }

    /// Waits for the inference that [`InferRequest::start_async`] started and gives its result, once. Without one it
    /// returns at once.
    ///
    /// # Errors
    /// That of the inference ([`InferError::Canceled`] after a cancel) or of the callback. The request can be used
    /// again.
    pub fn wait(&mut self) -> Result<()> {
        if self.idle.is_none() {
            let done = self.worker.as_ref().map(|w| w.done.recv());
            match done {
                Some(Ok(done)) => self.finish(done),
                _ => return Err(worker_ended(self.model.device())),
            }
        }
        self.outcome.take().unwrap_or(Ok(()))
    }

    /// Waits at most `timeout` and says whether the inference has ended; its result still comes from
    /// [`InferRequest::wait`]. False before the first start; a zero timeout polls.
    ///
    /// # Errors
    /// [`DeviceError::Failed`] when the request's thread is gone.
    pub fn wait_for(&mut self, timeout: Duration) -> Result<bool> {
        if self.idle.is_none() {
            let done = self.worker.as_ref().map(|w| w.done.recv_timeout(timeout));
            match done {
                Some(Ok(done)) => self.finish(done),
                Some(Err(RecvTimeoutError::Timeout)) => return Ok(false),
                _ => return Err(worker_ended(self.model.device())),
            }
        }
        Ok(self.started)
    }

    /// Asks the running inference to stop; [`InferRequest::wait`] then gives [`InferError::Canceled`], unless it ended
    /// before. Nothing happens when none runs.
    pub fn cancel(&self) {
        if self.idle.is_none() {
            self.cancel.cancel();
        }
    }

    /// A handle with which another thread can cancel, also an [`InferRequest::infer`]. Starting an inference resets it.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Sets what is called when an asynchronous inference has ended.
    ///
    /// # Errors
    /// [`InferError::Busy`].
    pub fn set_callback(
        &mut self,
        callback: impl FnMut(Result<(), &Error>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        self.request_mut()?;
        self.callback = Some(Box::new(callback));
        Ok(())
    }

    /// Whether an asynchronous inference runs.
    pub fn is_busy(&mut self) -> bool {
        self.poll();
        self.idle.is_none()
    }

    /// Times of the last inference by node; empty unless the model was compiled with `PERF_COUNT`.
    ///
    /// # Errors
    /// [`InferError::Busy`].
    pub fn profiling(&self) -> Result<Vec<NodeProfile>> {
        Ok(self.request()?.profiling())
    }

    /// The value of a state, one of [`CompiledModel::state_names`].
    ///
    /// # Errors
    /// [`InferError::Busy`]; when there is no such state.
    pub fn state(&self, name: &str) -> Result<Tensor> {
        self.request()?.state(name)
    }

    /// Sets a state.
    ///
    /// # Errors
    /// [`InferError::Busy`]; when there is no such state or the tensor does not fit it.
    pub fn set_state(&mut self, name: &str, value: &Tensor) -> Result<()> {
        self.request_mut()?.set_state(name, value)
    }

    /// Gives every state its initial value.
    ///
    /// # Errors
    /// [`InferError::Busy`].
    pub fn reset_states(&mut self) -> Result<()> {
        self.request_mut()?.reset_states();
        Ok(())
    }

    /// Takes the device's request back if the inference has ended.
    fn poll(&mut self) {
        if self.idle.is_some() {
            return;
        }
        let Some(worker) = &self.worker else { return };
        match worker.done.try_recv() {
            Ok(done) => self.finish(done),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
    }

    fn finish(&mut self, done: Done) {
        self.idle = Some(done.request);
        self.callback = done.callback;
        self.outcome = Some(done.result);
    }
}

impl Drop for InferRequest {
    /// Cancels a running inference and gives it a moment; a device that ignores that keeps its thread until it ends.
    fn drop(&mut self) {
        self.cancel();
        if let (None, Some(worker)) = (&self.idle, &self.worker)
            && worker.done.recv_timeout(DROP_PATIENCE).is_err()
        {
            tracing::debug!(device = self.model.device(), "a dropped request is still running");
        }
    }
}

const DROP_PATIENCE: Duration = Duration::from_millis(50);

fn run(request: &mut dyn SyncRequest, cancel: &CancelToken, device: &str) -> Result<()> {
    catch_unwind(AssertUnwindSafe(|| request.infer(cancel)))
        .unwrap_or_else(|p| Err(panicked(device, &*p)))
}

#[cold]
fn panicked(device: &str, payload: &(dyn Any + Send)) -> Error {
    InferError::Panicked { device: device.to_owned(), detail: panic_text(payload) }.into()
}

/// The message of a panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

fn check_inputs(request: &dyn SyncRequest, unsettled: &[usize], ports: &[PortInfo]) -> Result<()> {
    match unsettled.iter().find(|i| request.input(**i).is_none()) {
        Some(i) => Err(not_set(&ports[*i])),
        None => Ok(()),
    }
}

#[cold]
fn not_set(port: &PortInfo) -> Error {
    InferError::NotSet { port: port.name.clone(), expected: port.type_text() }.into()
}

fn expect(direction: &'static str, port: &PortInfo, tensor: &Tensor) -> Result<()> {
    if port.admits(tensor) {
        return Ok(());
    }
    Err(InferError::Mismatch {
        direction,
        port: port.name.clone(),
        expected: port.type_text(),
        got: format!("{}{}", tensor.element_type(), tensor.shape()),
    }
    .into())
}
