//! A pool of requests of one compiled model that takes inferences as long as one of them is idle.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{DROP_PATIENCE, InferRequest, Port, panicked, worker::adopt_thread};
use crate::{
    compiled_model::CompiledModel,
    error::{DeviceError, Error, InferError, Result},
    plugin::CancelToken,
    property::streams,
    tensor::Tensor,
};

/// How an [`AsyncInferQueue`] runs its inferences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueOptions {
    /// Number of requests, and so of inferences at a time; 0 is the model's `OPTIMAL_NUMBER_OF_INFER_REQUESTS`.
    pub requests: usize,
    /// Whether the callbacks come one at a time and in the order in which the inferences were started; else each comes
    /// when its inference has ended, and several may run at once.
    pub ordered: bool,
}

/// What became of an inference that was not to wait, or not for long.
#[must_use = "the inference was not started if the queue is full"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submission<T> {
    /// It was started.
    Started,
    /// Every request is in use; here is the user data again.
    Full(T),
}

type QueueCallback<T> = dyn Fn(Result<&InferRequest, &Error>, T) -> Result<()> + Send + Sync;

/// Runs inferences of one compiled model on a pool of requests, the counterpart of OpenVINO's `AsyncInferQueue`.
///
/// Starting takes an idle request, or waits for one: there is no line of waiting inferences behind it. Each inference
/// has its user data `T`, which the callback gets with the request that holds the outputs, or with the error. The
/// callback is called exactly once for every inference that was started, on the thread of its request, which is idle
/// again when the callback has returned. The queue can be shared between threads.
///
/// Dropping the queue cancels what runs and gives it 50 ms to end, callbacks included; a device that ignores that goes
/// on by itself until it ends. Call [`AsyncInferQueue::wait_all`] first to let everything finish.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use ov_core::{Core, ElementType, Model, PropertyMap, Tensor, op::activation::Relu};
/// # use ov_core::testing::template_device::TemplatePlugin;
/// # let mut model = Model::new("m");
/// # let x = model.add_parameter("x", ElementType::F32, [2])?;
/// # let y = model.add(Relu {}, &[x], "y")?;
/// # model.add_output("y", y);
/// # let core = Core::with_plugins([TemplatePlugin::create()])?;
/// # let compiled = core.compile_model(model, "TEMPLATE", &PropertyMap::new())?;
/// use ov_core::{AsyncInferQueue, QueueOptions};
///
/// let (sender, results) = std::sync::mpsc::channel();
/// let queue = AsyncInferQueue::new(&compiled, QueueOptions::default(), move |request, id: u32| {
///     if let Ok(request) = request {
///         sender.send((id, request.output(0)?.as_slice::<f32>()?[1])).ok();
///     }
///     Ok(())
/// })?;
/// for id in 0..10 {
///     queue.start_async(&[Tensor::from_vec([2], vec![-1.0, id as f32])?], id)?;
/// }
/// queue.wait_all()?;
/// assert!(results.try_iter().all(|(id, value)| value == id as f32));
/// # }
/// # Ok::<(), ov_core::Error>(())
/// ```
pub struct AsyncInferQueue<T: Send + 'static> {
    model: CompiledModel,
    shared: Arc<Shared<T>>,
    workers: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> fmt::Debug for AsyncInferQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncInferQueue").field("requests", &self.len()).finish_non_exhaustive()
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// A request became idle.
    freed: Condvar,
    /// The last inference has ended.
    quiet: Condvar,
    /// With ordered callbacks: the next one's turn.
    turn: Condvar,
    /// By request: it has an inference to run, or shall end.
    called: Box<[Condvar]>,
    /// By request.
    tokens: Box<[CancelToken]>,
    callback: Box<QueueCallback<T>>,
    ordered: bool,
}

struct State<T> {
    /// Idle requests with their numbers, the one used last on top: its memory is warm.
    idle: Vec<(usize, InferRequest)>,
    /// By request: an inference that its thread has not yet begun.
    accepted: Box<[Option<Job<T>>]>,
    /// Inferences started, ever.
    started: u64,
    /// Inferences that have ended, callbacks included.
    ended: u64,
    failed: u64,
    /// The error of the failed inference that was started first.
    first: Option<(u64, Error)>,
    closing: bool,
}

struct Job<T> {
    request: InferRequest,
    /// Position among all inferences of the queue.
    number: u64,
    userdata: T,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sleep<'a, T>(on: &Condvar, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
    on.wait(state).unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static> AsyncInferQueue<T> {
    /// Makes the requests and starts a thread for each. `callback` gets the request, idle and with its outputs, or the
    /// error of the inference, and the user data; an error that it returns, or its panic, makes the inference a failed
    /// one.
    ///
    /// # Errors
    /// As [`CompiledModel::create_infer_request`]; when the device does not say how many requests are optimal;
    /// [`DeviceError::Failed`] when no thread can be started.
    pub fn new(
        model: &CompiledModel,
        options: QueueOptions,
        callback: impl Fn(Result<&InferRequest, &Error>, T) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let len = match options.requests {
            0 => (model.get(streams::OPTIMAL_NUMBER_OF_INFER_REQUESTS)? as usize).max(1),
            n => n,
        };
        let mut idle =
            (0..len).map(|i| Ok((i, model.create_infer_request()?))).collect::<Result<Vec<_>>>()?;
        idle.reverse();
        let shared = Arc::new(Shared {
            freed: Condvar::new(),
            quiet: Condvar::new(),
            turn: Condvar::new(),
            called: (0..len).map(|_| Condvar::new()).collect(),
            tokens: idle.iter().rev().map(|(_, request)| request.cancel_token()).collect(),
            callback: Box::new(callback),
            ordered: options.ordered,
            state: Mutex::new(State {
                idle,
                accepted: (0..len).map(|_| None).collect(),
                started: 0,
                ended: 0,
                failed: 0,
                first: None,
                closing: false,
            }),
        });
        let mut queue = Self { model: model.clone(), shared, workers: Vec::with_capacity(len) };
        for i in 0..len {
            let shared = Arc::clone(&queue.shared);
            let worker = thread::Builder::new()
                .name(format!("ov-queue-{i}"))
                .spawn(move || serve(&shared, i))
                .map_err(|e| DeviceError::Failed {
                    name: model.device().to_owned(),
                    source: Box::new(e),
                })?;
            queue.workers.push(worker);
        }
        Ok(queue)
    }

    /// Number of requests.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a queue has at least one request")]
    pub fn len(&self) -> usize {
        self.shared.called.len()
    }

    /// The model that the requests run.
    #[must_use]
    pub fn compiled_model(&self) -> &CompiledModel {
        &self.model
    }

    /// Starts an inference with a tensor for each input, in the model's order, as soon as a request is idle. The
    /// tensors are read in place, so do not change their memory before the inference has ended.
    ///
    /// # Errors
    /// As [`InferRequest::set_input`], and [`InferError::NotSet`] when there are fewer tensors than inputs: nothing is
    /// started then. [`InferError::WaitsForItself`] in a callback of this queue when no request is idle.
    pub fn start_async(&self, inputs: &[Tensor], userdata: T) -> Result<()> {
        let mut request = self.idle_request()?;
        request.set_inputs(inputs)?;
        request.start(userdata)
    }

    /// Starts an inference if a request is idle.
    ///
    /// # Errors
    /// As [`InferRequest::set_input`], and [`InferError::NotSet`] when there are fewer tensors than inputs.
    pub fn try_start(&self, inputs: &[Tensor], userdata: T) -> Result<Submission<T>> {
        let Some(mut request) = self.try_idle_request() else {
            return Ok(Submission::Full(userdata));
        };
        request.set_inputs(inputs)?;
        request.start(userdata)?;
        Ok(Submission::Started)
    }

    /// Starts an inference if a request is idle within `timeout`.
    ///
    /// # Errors
    /// As [`AsyncInferQueue::start_async`].
    pub fn start_timeout(
        &self,
        inputs: &[Tensor],
        userdata: T,
        timeout: Duration,
    ) -> Result<Submission<T>> {
        let Some(mut request) = self.wait_idle(Instant::now().checked_add(timeout))? else {
            return Ok(Submission::Full(userdata));
        };
        request.set_inputs(inputs)?;
        request.start(userdata)?;
        Ok(Submission::Started)
    }

    /// An idle request, to fill in place and start; waits until there is one.
    ///
    /// # Errors
    /// [`InferError::WaitsForItself`] in a callback of this queue when no request is idle.
    pub fn idle_request(&self) -> Result<IdleRequest<'_, T>> {
        match self.wait_idle(None)? {
            Some(request) => Ok(request),
            None => Err(InferError::Busy.into()),
        }
    }

    /// An idle request, to fill in place and start, if there is one.
    #[must_use]
    pub fn try_idle_request(&self) -> Option<IdleRequest<'_, T>> {
        let (number, request) = self.shared.lock().idle.pop()?;
        Some(IdleRequest { shared: &self.shared, number, request: Some(request) })
    }

    /// Waits for an idle request until `deadline`, or for as long as it takes.
    fn wait_idle(&self, deadline: Option<Instant>) -> Result<Option<IdleRequest<'_, T>>> {
        let shared = &*self.shared;
        let mut state = shared.lock();
        loop {
            if let Some((number, request)) = state.idle.pop() {
                return Ok(Some(IdleRequest { shared, number, request: Some(request) }));
            }
            self.refuse_in_callback("waiting for an idle request", "call try_start there")?;
            let Some(deadline) = deadline else {
                state = sleep(&shared.freed, state);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let held = shared.freed.wait_timeout(state, left);
            state = held.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn refuse_in_callback(&self, call: &'static str, fix: &'static str) -> Result<()> {
        let here = thread::current().id();
        if self.workers.iter().any(|worker| worker.thread().id() == here) {
            return Err(InferError::WaitsForItself { call, fix }.into());
        }
        Ok(())
    }

    /// Whether a request is idle, so that starting would not wait.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.shared.lock().idle.is_empty()
    }

    /// Waits until every inference that was started has ended and its callback has returned.
    ///
    /// # Errors
    /// [`InferError::Jobs`] when inferences or callbacks have failed since the last time, with the error of the one that
    /// was started first. [`InferError::WaitsForItself`] in a callback of this queue.
    pub fn wait_all(&self) -> Result<()> {
        self.refuse_in_callback("wait_all", "call it on another thread")?;
        let mut state = self.shared.lock();
        while state.ended < state.started {
            state = sleep(&self.shared.quiet, state);
        }
        let failed = std::mem::take(&mut state.failed);
        match state.first.take() {
            Some((_, source)) => Err(InferError::Jobs { failed, source: Box::new(source) }.into()),
            None => Ok(()),
        }
    }

    /// Asks every inference that was started and has not ended to stop; their callbacks get
    /// [`InferError::Canceled`], unless they end before.
    pub fn cancel(&self) {
        let _starts_and_ends_wait = self.shared.lock();
        self.shared.tokens.iter().for_each(CancelToken::cancel);
    }
}

impl<T: Send + 'static> Drop for AsyncInferQueue<T> {
    fn drop(&mut self) {
        self.cancel();
        let shared = &*self.shared;
        let mut state = shared.lock();
        state.closing = true;
        shared.called.iter().for_each(Condvar::notify_all);
        if self.refuse_in_callback("drop", "").is_ok() {
            let running = |state: &mut State<T>| state.ended < state.started;
            let held = shared.quiet.wait_timeout_while(state, DROP_PATIENCE, running);
            state = held.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.ended < state.started {
            let device = self.model.device();
            tracing::debug!(device, "inferences of a dropped queue are still running");
            return;
        }
        drop(state);
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a thread of an AsyncInferQueue had panicked");
            }
        }
    }
}

/// An idle request of an [`AsyncInferQueue`], to be filled and started. Dropped, it is idle again.
pub struct IdleRequest<'a, T: Send + 'static> {
    shared: &'a Shared<T>,
    number: usize,
    request: Option<InferRequest>,
}

impl<T: Send + 'static> fmt::Debug for IdleRequest<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdleRequest").field("number", &self.number).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> IdleRequest<'_, T> {
    /// The request's number, below [`AsyncInferQueue::len`].
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    fn request_mut(&mut self) -> Result<&mut InferRequest> {
        self.request.as_mut().ok_or_else(|| InferError::Busy.into())
    }

    /// As [`InferRequest::set_input`]. Inputs that are not set have the tensor of the inference before.
    ///
    /// # Errors
    /// As [`InferRequest::set_input`].
    pub fn set_input<'p>(&mut self, port: impl Into<Port<'p>>, tensor: Tensor) -> Result<()> {
        self.request_mut()?.set_input(port, tensor)
    }

    /// As [`InferRequest::input_mut`].
    ///
    /// # Errors
    /// As [`InferRequest::input_mut`].
    pub fn input_mut<'p>(&mut self, port: impl Into<Port<'p>>) -> Result<&mut Tensor> {
        self.request_mut()?.input_mut(port)
    }

    /// As [`InferRequest::reset_states`].
    ///
    /// # Errors
    /// As [`InferRequest::reset_states`].
    pub fn reset_states(&mut self) -> Result<()> {
        self.request_mut()?.reset_states()
    }

    fn set_inputs(&mut self, inputs: &[Tensor]) -> Result<()> {
        let request = self.request_mut()?;
        if let Some(port) = request.model.inputs().get(inputs.len()) {
            return Err(super::not_set(port));
        }
        for (i, tensor) in inputs.iter().enumerate() {
            request.set_input(i, tensor.clone())?;
        }
        Ok(())
    }

    /// Starts the inference.
    ///
    /// # Errors
    /// [`InferError::NotSet`] for an input without a tensor: nothing is started then.
    pub fn start(mut self, userdata: T) -> Result<()> {
        self.request_mut()?.check_ready()?;
        let mut state = self.shared.lock();
        let Some(request) = self.request.take() else { return Err(InferError::Busy.into()) };
        request.cancel.reset();
        let number = state.started;
        state.started += 1;
        state.accepted[self.number] = Some(Job { request, number, userdata });
        drop(state);
        self.shared.called[self.number].notify_one();
        Ok(())
    }
}

impl<T: Send + 'static> Drop for IdleRequest<'_, T> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.shared.lock().idle.push((self.number, request));
            self.shared.freed.notify_one();
        }
    }
}

/// Runs the inferences of request `lane` until the queue closes.
fn serve<T: Send + 'static>(shared: &Shared<T>, lane: usize) {
    let mut adopted = false;
    let mut state = shared.lock();
    loop {
        let Some(Job { mut request, number, userdata }) = state.accepted[lane].take() else {
            if state.closing {
                return;
            }
            state = sleep(&shared.called[lane], state);
            continue;
        };
        drop(state);
        if !std::mem::replace(&mut adopted, true)
            && let Some(device) = request.idle.as_deref_mut()
        {
            adopt_thread(device);
        }
        let mut result = request.cancel.check().and_then(|()| request.infer_accepted());
        if shared.ordered {
            let mut state = shared.lock();
            while state.ended != number {
                state = sleep(&shared.turn, state);
            }
        }
        let told = match &result {
            Ok(()) => Ok(&request),
            Err(error) => Err(error),
        };
        let answer = catch_unwind(AssertUnwindSafe(|| (shared.callback)(told, userdata)))
            .unwrap_or_else(|p| Err(panicked("the callback", &*p)));
        result = result.and(answer);
        state = shared.lock();
        state.ended += 1;
        if let Err(error) = result {
            state.failed += 1;
            if state.first.as_ref().is_none_or(|(first, _)| number < *first) {
                state.first = Some((number, error));
            }
        }
        state.idle.push((lane, request));
        shared.freed.notify_one();
        if shared.ordered {
            shared.turn.notify_all();
        }
        if state.ended == state.started {
            shared.quiet.notify_all();
        }
    }
}
