//! A request that moves between executors.
//!
//! In steady state an inference costs two loads more than the device's own request. When something else serves, the
//! request moves before its next inference: a request of the new device takes over its inputs and the memory that the
//! caller gave for outputs. When an inference fails, the inputs are still there, and it runs again elsewhere.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use ov_core::{
    CancelToken, Error, Result, Tensor,
    error::{DeviceError, InferError},
    plugin::SyncRequest,
    profiling::NodeProfile,
};

use crate::{DEVICE_NAME, executor::Executor, handover::guarded, warming::Sample};

/// Where a request finds what to run on.
pub(crate) trait Route: Send + Sync {
    /// Whether what the request runs on is still what it should run on.
    fn is_current(&self, executor: &Executor) -> bool;

    /// What to run on now; waits while nothing serves, and is `None` when nothing will.
    fn current(&self, cancel: &CancelToken) -> Option<Arc<Executor>>;

    /// Replaces what failed, as far as there is something else.
    fn replace(
        &self,
        executor: &Arc<Executor>,
        error: &Error,
        cancel: &CancelToken,
    ) -> Option<Arc<Executor>>;

    /// How long an inference may take.
    fn infer_timeout(&self) -> Option<Duration>;

    /// Whether inferences are timed.
    fn is_timing(&self) -> bool {
        false
    }

    /// Whether the caller is to leave a sample.
    fn claims_sample(&self) -> bool {
        false
    }

    /// Takes a sample.
    fn leave_sample(&self, _: Sample) {}
}

/// Most moves of one inference: a device that fails, its substitute that fails, and so on.
const MOST_MOVES: usize = 8;

pub(crate) struct AutoRequest {
    route: Arc<dyn Route>,
    executor: Arc<Executor>,
    /// Gone only while an inference that was given up has it.
    inner: Option<Box<dyn SyncRequest>>,
    inputs: usize,
    /// Outputs whose memory the caller gave.
    lent: Vec<bool>,
    watched: Option<Watched>,
    /// Whether the thread that runs the inferences runs no other request's.
    has_thread: bool,
}

impl AutoRequest {
    pub(crate) fn new(route: Arc<dyn Route>, executor: Arc<Executor>) -> Result<Self> {
        let model = &executor.target.model;
        let (inputs, outputs) = (model.inputs().len(), model.outputs().len());
        let inner = Some(model.create_request()?);
        let lent = vec![false; outputs];
        Ok(Self { route, executor, inner, inputs, lent, watched: None, has_thread: false })
    }

    fn inner(&self) -> Option<&dyn SyncRequest> {
        self.inner.as_deref()
    }

    fn inner_mut(&mut self) -> Result<&mut Box<dyn SyncRequest>> {
        self.inner.as_mut().ok_or_else(|| {
            InferError::Other {
                device: DEVICE_NAME.to_owned(),
                detail: "no device took over from one that hung: create another request".to_owned(),
            }
            .into()
        })
    }

    /// Moves to another executor, with the inputs and the caller's output memory.
    #[cold]
    fn move_to(
        &mut self,
        executor: Arc<Executor>,
        kept: Option<Vec<Option<Tensor>>>,
    ) -> Result<()> {
        let mut request =
            guarded(&executor.target.device, || executor.target.model.create_request())?;
        let mut old = self.inner.take();
        let inputs = kept.unwrap_or_else(|| {
            (0..self.inputs).map(|i| old.as_ref().and_then(|r| r.input(i).cloned())).collect()
        });
        let outputs: Vec<(usize, Tensor)> = (0..self.lent.len())
            .filter(|i| self.lent[*i])
            .filter_map(|i| Some((i, old.as_ref()?.output(i)?.clone())))
            .collect();
        if !outputs.is_empty() {
            // The new request must hold the caller's memory alone.
            old = None;
        }
        let moved = (|| {
            for (i, input) in inputs.into_iter().enumerate() {
                if let Some(input) = input {
                    request.set_input(i, input)?;
                }
            }
            for (i, output) in outputs {
                request.set_output(i, output)?;
            }
            Ok(())
        })();
        if self.has_thread && self.route.infer_timeout().is_none() {
            request.adopt_thread();
        }
        // The next request gets a thread of its own in turn.
        self.watched = None;
        let previous = std::mem::replace(&mut self.executor, executor);
        self.inner = Some(request);
        // Giving back the memory of a whole model takes milliseconds, which no inference should pay.
        let retired = Retired(old, previous);
        if thread::Builder::new().name("ov-auto".to_owned()).spawn(move || drop(retired)).is_err() {
            tracing::debug!("the old executor is released on the thread of the request");
        }
        moved
    }

    fn attempt(&mut self, cancel: &CancelToken) -> Result<()> {
        if let Some(limit) = self.route.infer_timeout() {
            return self.attempt_watched(cancel, limit);
        }
        let device = &self.executor.target.device;
        let request = self.inner.as_mut().ok_or_else(|| hung(device, Duration::ZERO))?;
        guarded(device, || request.infer(cancel))
    }

    /// Runs an inference on a thread that can be left alone with it.
    fn attempt_watched(&mut self, cancel: &CancelToken, limit: Duration) -> Result<()> {
        let device = self.executor.target.device.clone();
        let watched = match self.watched.take() {
            Some(watched) => watched,
            None => Watched::start(self.has_thread)
                .map_err(|e| DeviceError::Failed { name: device.clone(), source: e.into() })?,
        };
        let request = self.inner.take().ok_or_else(|| hung(&device, limit))?;
        let inner_cancel = CancelToken::new();
        let job = Job { request, cancel: inner_cancel.clone(), device: device.clone() };
        if let Err(lost) = watched.jobs.send(job) {
            self.inner = Some(lost.0.request);
            return Err(hung(&device, limit));
        }
        let end = Instant::now() + limit;
        let mut nap = limit.min(POLL);
        loop {
            if let Ok((request, result)) = watched.done.recv_timeout(nap) {
                self.inner = Some(request);
                self.watched = Some(watched);
                return result;
            }
            if cancel.is_canceled() {
                inner_cancel.cancel();
            }
            nap = end.saturating_duration_since(Instant::now()).min(POLL);
            if nap.is_zero() {
                // The thread and the request go when the device lets go of them; what it gives then nobody sees.
                inner_cancel.cancel();
                return Err(hung(&device, limit));
            }
        }
    }

    /// Runs again elsewhere after a failure, from the inputs that are still there.
    #[cold]
    fn recover(
        &mut self,
        mut error: Error,
        mut kept: Option<Vec<Option<Tensor>>>,
        cancel: &CancelToken,
    ) -> Result<()> {
        for _ in 0..MOST_MOVES {
            if !is_of_the_device(&error) || cancel.is_canceled() {
                break;
            }
            let Some(next) = self.route.replace(&self.executor, &error, cancel) else { break };
            let inputs = kept.clone();
            match self.move_to(next, inputs).and_then(|()| self.attempt(cancel)) {
                Ok(()) => return Ok(()),
                Err(e) => error = e,
            }
        }
        if self.inner.is_none() {
            self.refill(kept.take(), cancel);
        }
        if cancel.is_canceled() { cancel.check() } else { Err(error) }
    }

    /// A request that hung is lost; the next inference needs another.
    fn refill(&mut self, kept: Option<Vec<Option<Tensor>>>, cancel: &CancelToken) {
        if let Some(current) = self.route.current(cancel)
            && let Err(error) = self.move_to(current, kept)
        {
            tracing::debug!(%error, "no request takes the place of the one that hung");
        }
    }
}

/// What a request leaves behind, in the order in which it has to go.
struct Retired(
    #[expect(dead_code, reason = "held to be dropped")] Option<Box<dyn SyncRequest>>,
    #[expect(dead_code, reason = "held to be dropped")] Arc<Executor>,
);

/// How often a watched inference looks whether it was cancelled.
const POLL: Duration = Duration::from_millis(2);

/// Whether another device may do better: not when the caller asked for what cannot be, or an operator refuses its input.
fn is_of_the_device(error: &Error) -> bool {
    match error {
        Error::Infer(e) => matches!(**e, InferError::Panicked { .. } | InferError::Other { .. }),
        Error::Device(_) => true,
        _ => false,
    }
}

#[cold]
fn hung(device: &str, limit: Duration) -> Error {
    DeviceError::Failed {
        name: device.to_owned(),
        source: format!(
            "an inference took longer than AUTO_INFER_TIMEOUT, {} ms",
            limit.as_millis()
        )
        .into(),
    }
    .into()
}

/// A thread that runs inferences which may never end.
struct Watched {
    jobs: SyncSender<Job>,
    done: Receiver<(Box<dyn SyncRequest>, Result<()>)>,
}

struct Job {
    request: Box<dyn SyncRequest>,
    cancel: CancelToken,
    device: String,
}

impl Watched {
    /// `own` tells the device that the thread is the request's own.
    fn start(mut own: bool) -> std::io::Result<Self> {
        let (jobs, incoming) = sync_channel::<Job>(1);
        let (finished, done) = sync_channel(1);
        thread::Builder::new().name("ov-auto-watched".to_owned()).spawn(move || {
            while let Ok(Job { mut request, cancel, device }) = incoming.recv() {
                let result = guarded(&device, || {
                    if std::mem::take(&mut own) {
                        request.adopt_thread();
                    }
                    request.infer(&cancel)
                });
                if finished.send((request, result)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, done })
    }
}

impl SyncRequest for AutoRequest {
    fn set_input(&mut self, index: usize, tensor: Tensor) -> Result<()> {
        self.inner_mut()?.set_input(index, tensor)
    }

    fn input(&self, index: usize) -> Option<&Tensor> {
        self.inner()?.input(index)
    }

    fn input_mut(&mut self, index: usize) -> Option<&mut Tensor> {
        self.inner.as_mut()?.input_mut(index)
    }

    fn set_output(&mut self, index: usize, tensor: Tensor) -> Result<()> {
        self.inner_mut()?.set_output(index, tensor)?;
        self.lent[index] = true;
        Ok(())
    }

    fn output(&self, index: usize) -> Option<&Tensor> {
        self.inner()?.output(index)
    }

    fn infer(&mut self, cancel: &CancelToken) -> Result<()> {
        if !self.route.is_current(&self.executor) {
            match self.route.current(cancel) {
                Some(current) => {
                    if let Err(e) = self.move_to(current, None) {
                        return self.recover(e, None, cancel);
                    }
                }
                None => cancel.check()?,
            }
        }
        // A watched inference may take its request with it.
        let kept = self
            .route
            .infer_timeout()
            .map(|_| (0..self.inputs).map(|i| self.inner()?.input(i).cloned()).collect());
        let start = self.route.is_timing().then(Instant::now);
        match self.attempt(cancel) {
            Ok(()) => {
                if let Some(start) = start {
                    self.executor.pace.record(start.elapsed());
                    if self.route.claims_sample()
                        && let Some(request) = self.inner()
                    {
                        self.route.leave_sample(Sample::of(request, self.inputs, self.lent.len()));
                    }
                }
                Ok(())
            }
            Err(error) => self.recover(error, kept, cancel),
        }
    }

    fn adopt_thread(&mut self) {
        self.has_thread = true;
        if self.route.infer_timeout().is_none()
            && let Some(request) = &mut self.inner
        {
            request.adopt_thread();
        }
    }

    fn execution_device(&self) -> Option<&str> {
        Some(&self.executor.target.device)
    }

    fn profiling(&self) -> Vec<NodeProfile> {
        self.inner().map(SyncRequest::profiling).unwrap_or_default()
    }

    fn state(&self, name: &str) -> Result<Tensor> {
        match self.inner() {
            Some(request) => request.state(name),
            None => Err(hung(&self.executor.target.device, Duration::ZERO)),
        }
    }

    fn set_state(&mut self, name: &str, value: &Tensor) -> Result<()> {
        self.inner_mut()?.set_state(name, value)
    }

    fn reset_states(&mut self) {
        if let Some(request) = &mut self.inner {
            request.reset_states();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Weak,
        atomic::{AtomicUsize, Ordering},
    };

    use ov_core::plugin::{CompiledDevice, DeviceModel};

    use super::*;
    use crate::{executor::Released, testing::Fake};

    struct Owner;

    impl Released for Owner {
        fn released(self: Arc<Self>) {}
    }

    /// Always leads to one executor.
    struct To(Arc<Executor>, Option<Duration>);

    impl Route for To {
        fn is_current(&self, executor: &Executor) -> bool {
            executor.epoch == self.0.epoch
        }

        fn current(&self, _: &CancelToken) -> Option<Arc<Executor>> {
            Some(Arc::clone(&self.0))
        }

        fn replace(&self, _: &Arc<Executor>, _: &Error, _: &CancelToken) -> Option<Arc<Executor>> {
            None
        }

        fn infer_timeout(&self) -> Option<Duration> {
            self.1
        }
    }

    fn executor(epoch: u64) -> (Arc<Executor>, Arc<AtomicUsize>) {
        let adopted = Arc::new(AtomicUsize::new(0));
        let model: Arc<dyn DeviceModel> =
            Arc::new(Fake { adopted: Arc::clone(&adopted), output: None });
        let target = CompiledDevice {
            model,
            device: "FAKE".to_owned(),
            loaded_from_cache: false,
            duration: Duration::ZERO,
            times: ov_core::plugin::LoadTimes::default(),
        };
        (Arc::new(Executor::new(0, epoch, target, Weak::<Owner>::new())), adopted)
    }

    #[test]
    fn every_device_hears_once_of_a_thread_of_its_own() {
        for limit in [None, Some(Duration::from_secs(60))] {
            let ((old, before), (new, after)) = (executor(1), executor(2));
            let counts = || [&before, &after].map(|c| c.load(Ordering::Relaxed));
            let route = |executor| Arc::new(To(executor, limit));
            let mut request = AutoRequest::new(route(Arc::clone(&old)), old).expect("a request");
            request.adopt_thread();
            for _ in 0..3 {
                request.infer(&CancelToken::new()).expect("runs");
            }
            assert_eq!(counts(), [1, 0], "{limit:?}");
            request.route = route(new);
            for _ in 0..3 {
                request.infer(&CancelToken::new()).expect("runs");
            }
            assert_eq!(counts(), [1, 1], "{limit:?}");
        }
    }
}
