//! One model on one device at a time: compiles, serves, switches and falls back as the [`Machine`] says.
//!
//! Every action of the machine runs on a thread of its own that ends with it; between them nothing runs. What was given
//! up is not waited for: its thread ends when the device lets it, and what it brings then is dropped.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ov_core::{
    CancelToken, Error, ModelSource, PropertyMap, Result,
    error::DeviceError,
    io::BackgroundThread,
    plugin::{CompiledDevice, DeviceResolver},
    property::streams,
};

use crate::{
    DEVICE_NAME,
    executor::{Executor, Released},
    machine::{Action, Event, Machine},
    options::Options,
    select::Candidate,
    switch::Switch,
    warming::{self, Sample, Verdict, Warmed},
};

/// What the requests and the working threads of a model share.
pub(crate) struct Handover {
    me: Weak<Self>,
    devices: Arc<dyn DeviceResolver>,
    source: ModelSource,
    candidates: Vec<Candidate>,
    pub(crate) options: Options,
    pub(crate) switch: Switch<Executor>,
    /// Whether requests should time themselves: a better candidate is on its way and will be compared.
    is_timing: AtomicBool,
    /// Whether the next request should leave its inputs and outputs for the comparison.
    wants_sample: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    machine: Machine,
    compiled: Vec<Option<CompiledDevice>>,
    /// Counts the compiles of each candidate, so that the result of one that was given up is known as such.
    attempts: Vec<u64>,
    errors: Vec<(String, Error)>,
    sample: Option<Sample>,
    ended: bool,
}

impl Handover {
    /// Compiles, and returns when something serves. With a helper among the candidates that is soon.
    pub(crate) fn start(
        devices: &Arc<dyn DeviceResolver>,
        source: &ModelSource,
        candidates: Vec<Candidate>,
        options: Options,
    ) -> Result<Arc<Self>> {
        let cached = devices.load_cached(source, &candidates[0].name, &candidates[0].properties)?;
        let helper = candidates
            .iter()
            .position(|c| c.is_helper)
            .filter(|_| options.startup_fallback && cached.is_none());
        let count = candidates.len();
        let handover = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            devices: Arc::clone(devices),
            source: source.clone(),
            candidates,
            options,
            switch: Switch::new(),
            is_timing: AtomicBool::new(false),
            wants_sample: AtomicBool::new(false),
            state: Mutex::new(State {
                machine: Machine::new(count, helper, options.runtime_fallback),
                compiled: vec![None; count],
                attempts: vec![0; count],
                errors: Vec::new(),
                sample: None,
                ended: false,
            }),
            changed: Condvar::new(),
        });
        match cached {
            Some(cached) => {
                let mut state = handover.lock();
                let ignored = state.machine.on(Event::Start);
                debug_assert_eq!(ignored.len(), 1, "only the first compiles");
                state.compiled[0] = Some(cached);
                handover.take_in(state, Event::Compiled(0));
            }
            None => handover.take_in(handover.lock(), Event::Start),
        }
        handover.wait_for_first()?;
        Ok(handover)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_first(&self) -> Result<()> {
        let mut state = self.lock();
        loop {
            if state.machine.serving().is_some() {
                return Ok(());
            }
            if state.machine.has_given_up() {
                return Err(no_device(std::mem::take(&mut state.errors)));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The state's name.
    pub(crate) fn phase(&self) -> &'static str {
        self.lock().machine.phase()
    }

    /// What serves, in parentheses while a better candidate is on its way; nothing while none serves.
    pub(crate) fn serving_device(&self) -> String {
        let Some(executor) = self.switch.get().1 else { return String::new() };
        if self.lock().machine.is_waiting_for_better() {
            format!("({})", executor.target.device)
        } else {
            executor.target.device.clone()
        }
    }

    /// Whether requests should time themselves.
    pub(crate) fn is_timing(&self) -> bool {
        self.is_timing.load(Ordering::Relaxed)
    }

    /// Whether the caller, and nobody else, is to leave a sample.
    pub(crate) fn claims_sample(&self) -> bool {
        self.wants_sample.load(Ordering::Relaxed) && self.wants_sample.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn leave_sample(&self, sample: Sample) {
        self.lock().sample = Some(sample);
        self.changed.notify_all();
    }

    /// What serves; waits while nothing does, and gives nothing when nothing will.
    pub(crate) fn current(&self, cancel: &CancelToken) -> Option<Arc<Executor>> {
        self.wait_for_current(self.lock(), cancel)
    }

    fn wait_for_current(
        &self,
        mut state: MutexGuard<'_, State>,
        cancel: &CancelToken,
    ) -> Option<Arc<Executor>> {
        loop {
            if let (_, Some(current)) = self.switch.get() {
                return Some(current);
            }
            if state.machine.has_given_up() || cancel.is_canceled() {
                return None;
            }
            let woken = self.changed.wait_timeout(state, CANCEL_POLL);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// An inference failed on `executor`. Waits for what takes its place; `None` when nothing does.
    pub(crate) fn replace(
        &self,
        executor: &Arc<Executor>,
        error: &Error,
        cancel: &CancelToken,
    ) -> Option<Arc<Executor>> {
        let mut state = self.lock();
        if self.switch.epoch() == executor.epoch {
            tracing::warn!(device = executor.target.device, %error, "inference failed");
            self.take_in(state, Event::Failed(executor.candidate));
            state = self.lock();
        }
        self.wait_for_current(state, cancel).filter(|current| current.epoch != executor.epoch)
    }

    /// Tells the machine and does what it says.
    fn take_in(&self, mut state: MutexGuard<'_, State>, event: Event) {
        let serving = state.machine.serving();
        let todo = state.machine.on(event);
        tracing::debug!(?event, ?todo, phase = state.machine.phase(), "AUTO");
        let mut old = Vec::new();
        if serving.is_some() && state.machine.serving().is_none() {
            old.push(self.switch.set(|_| None));
        }
        let mut later = Vec::new();
        for action in todo {
            match action {
                Action::Serve(candidate) => {
                    if let Some(target) = state.compiled[candidate].take() {
                        let owner: Weak<dyn Released> = self.me.clone();
                        tracing::info!(device = target.device, "requests move to it");
                        old.push(self.switch.set(|epoch| {
                            Some(Arc::new(Executor::new(candidate, epoch, target, owner)))
                        }));
                    }
                }
                Action::Discard(candidate) => later.push(state.compiled[candidate].take()),
                Action::Compile { candidate, background } => {
                    state.attempts[candidate] += 1;
                    let attempt = state.attempts[candidate];
                    self.spawn(move |h| h.compile(candidate, attempt, background));
                    if let Some(limit) = self.options.compile_deadline.filter(|_| background) {
                        self.spawn(move |h| h.give_up(candidate, attempt, limit));
                    }
                }
                Action::Warm(candidate) => {
                    let attempt = state.attempts[candidate];
                    self.spawn(move |h| h.warm(candidate, attempt));
                }
                Action::Rest(candidate, rest) => self.spawn(move |h| {
                    if h.sleep(rest) {
                        h.take_in(h.lock(), Event::Rested(candidate));
                    }
                }),
            }
        }
        let timing = state.machine.is_waiting_for_better();
        self.is_timing.store(timing, Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
        // Dropping a model may take long, and its executor reports back.
        drop((old, later));
    }

    /// Runs work on a thread; without one, or when the model is gone, it does not run.
    ///
    /// The thread is an ordinary one, because whoever starts it is: what is heavy goes to [`in_background`] from there.
    /// Requests are made on it as well, because the threads that a device makes for them are like their maker.
    fn spawn(&self, work: impl FnOnce(&Self) + Send + 'static) {
        let me = Weak::clone(&self.me);
        let started = thread::Builder::new().name("ov-auto".to_owned()).spawn(move || {
            if let Some(handover) = me.upgrade() {
                work(&handover);
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "AUTO cannot start a thread");
        }
    }

    /// Whether a compile is still wanted.
    fn is_current(state: &State, candidate: usize, attempt: u64) -> bool {
        !state.ended && state.attempts[candidate] == attempt
    }

    fn compile(&self, candidate: usize, attempt: u64, background: bool) {
        let Candidate { name, properties, .. } = &self.candidates[candidate];
        let mut properties = properties.clone();
        if background {
            self.bound_threads(name, &mut properties);
            self.give_a_head_start();
        }
        let (devices, source, device) =
            (Arc::clone(&self.devices), self.source.clone(), name.clone());
        let compile = move || devices.compile(&source, &device, &properties);
        let compiled =
            if background { in_background(name, compile) } else { guarded(name, compile) };
        let mut state = self.lock();
        if !Self::is_current(&state, candidate, attempt) {
            tracing::debug!(device = name, "a compile that was given up has ended");
            return;
        }
        let event = match compiled {
            Ok(compiled) => {
                if !compiled.model.state_names().is_empty() {
                    state.machine.on(Event::Stateful);
                }
                state.compiled[candidate] = Some(compiled);
                Event::Compiled(candidate)
            }
            Err(error) => {
                tracing::warn!(device = name, %error, "the device is passed over");
                // A file that cannot be read, or a wrong property, is so on every device.
                let refused = matches!(error, Error::Read(_) | Error::Property(_));
                state.errors.push((name.clone(), error));
                if refused { Event::Refused(candidate) } else { Event::CompileFailed(candidate) }
            }
        };
        self.take_in(state, event);
    }

    /// Lets what shall serve first have processors, disk and memory for itself; not for long, as it may be large.
    fn give_a_head_start(&self) {
        let end = Instant::now() + HEAD_START;
        let mut state = self.lock();
        while state.machine.serving().is_none() && !state.machine.has_given_up() && !state.ended {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// In the background few threads compile, unless the user says how many.
    fn bound_threads(&self, device: &str, properties: &mut PropertyMap) {
        let key = streams::COMPILATION_NUM_THREADS;
        if properties.text(key.name()).is_some() || !self.devices.accepts(device, key.name()) {
            return;
        }
        let limit = BackgroundThread::limit().to_string();
        if let Err(error) = properties.set_text(key.name(), &limit) {
            tracing::debug!(device, %error, "the number of compiling threads stays");
        }
    }

    fn warm(&self, candidate: usize, attempt: u64) {
        let Some(target) = self.lock().compiled[candidate].clone() else { return };
        let verdict = self.verdict(&target);
        let mut state = self.lock();
        if !Self::is_current(&state, candidate, attempt) {
            return;
        }
        let event = match verdict {
            Ok(Verdict::Fit) => Event::Warmed(candidate),
            Ok(Verdict::Unfit(reason)) => {
                tracing::warn!(device = target.device, reason, "requests stay where they are");
                Event::Rejected(candidate)
            }
            Err(error) => {
                tracing::warn!(device = target.device, %error, "its first inferences failed");
                state.errors.push((target.device.clone(), error));
                Event::Rejected(candidate)
            }
        };
        self.take_in(state, event);
    }

    fn verdict(&self, target: &CompiledDevice) -> Result<Verdict> {
        let sample = self.wait_for_sample();
        let prepared = guarded(&target.device, || warming::prepare(target, sample.as_ref()))?;
        let Some(request) = prepared else {
            tracing::debug!(device = target.device, "nothing to learn its shapes from");
            return Ok(Verdict::Fit);
        };
        let (device, verify) = (target.device.clone(), self.options.verify);
        let warmed = in_background(&target.device, move || {
            warming::first(request, &device, sample.as_ref(), verify)
        })?;
        match warmed {
            Warmed::Unfit(reason) => Ok(Verdict::Unfit(reason)),
            Warmed::Ready(_) if !self.options.require_faster => Ok(Verdict::Fit),
            Warmed::Ready(mut request) => {
                let pace = self.switch.get().1.and_then(|e| e.pace.median());
                guarded(&target.device, || warming::judge(&mut *request, pace))
            }
        }
    }

    /// What the next inference reads and gives; nothing when there is none soon.
    fn wait_for_sample(&self) -> Option<Sample> {
        let end = Instant::now() + SAMPLE_PATIENCE;
        let mut state = self.lock();
        state.sample = None;
        self.wants_sample.store(true, Ordering::Release);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if state.sample.is_some() || left.is_zero() || state.ended {
                self.wants_sample.store(false, Ordering::Release);
                return state.sample.take();
            }
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives a compile up that has not ended in time, warming included.
    fn give_up(&self, candidate: usize, attempt: u64, limit: Duration) {
        if !self.sleep(limit) {
            return;
        }
        let mut state = self.lock();
        if !Self::is_current(&state, candidate, attempt) || !state.machine.is_underway(candidate) {
            return;
        }
        let name = &self.candidates[candidate].name;
        tracing::warn!(device = name, ?limit, "its compile is given up");
        state.attempts[candidate] += 1;
        let late =
            format!("compiling took longer than AUTO_COMPILE_DEADLINE, {} ms", limit.as_millis());
        state.errors.push((
            name.clone(),
            DeviceError::Failed { name: name.clone(), source: late.into() }.into(),
        ));
        self.take_in(state, Event::CompileFailed(candidate));
    }

    /// Sleeps; false when the model is gone meanwhile.
    fn sleep(&self, duration: Duration) -> bool {
        let end = Instant::now() + duration;
        let mut state = self.lock();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return !state.ended;
            }
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nobody holds the model any more: what is under way ends for nothing.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

impl Released for Handover {
    fn released(self: Arc<Self>) {
        self.take_in(self.lock(), Event::Drained);
    }
}

/// How often a request that waits for a device looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(5);
/// How much later than that of the device that serves first a compile in the background may begin.
const HEAD_START: Duration = Duration::from_millis(100);
/// How long a comparison waits for somebody's inference.
const SAMPLE_PATIENCE: Duration = Duration::from_millis(200);

/// Turns a panic of a device into an error.
pub(crate) fn guarded<T>(device: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(panicked(device, &*panic)))
}

/// Runs a call of a device on a background thread and waits for it; a panic is an error.
fn in_background<T: Send + 'static>(
    device: &str,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let name = device.to_owned();
    match BackgroundThread::spawn("ov-auto", move || guarded(&name, call)) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| Err(panicked(device, &*panic))),
        Err(error) => {
            Err(DeviceError::Failed { name: device.to_owned(), source: error.into() }.into())
        }
    }
}

#[cold]
pub(crate) fn panicked(device: &str, panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let detail = format!("it panicked: {}", text.unwrap_or("no message"));
    DeviceError::Failed { name: device.to_owned(), source: detail.into() }.into()
}

/// Why no candidate serves.
pub(crate) fn no_device(mut errors: Vec<(String, Error)>) -> Error {
    let shared = errors.iter().position(|(_, e)| matches!(e, Error::Read(_) | Error::Property(_)));
    if let Some(at) = shared.or_else(|| (errors.len() == 1).then_some(0)) {
        return errors.swap_remove(at).1;
    }
    let texts: Vec<String> = errors.iter().map(|(n, e)| format!("{n}: {e}")).collect();
    DeviceError::Failed {
        name: DEVICE_NAME.to_owned(),
        source: format!("no device compiles the model: {}", texts.join("; ")).into(),
    }
    .into()
}
