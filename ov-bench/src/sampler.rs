//! Timed runs of inference requests: closed loops, and an open loop on a fixed schedule.
//!
//! Nothing is printed and no report is made while samples are taken. A sample costs two clock readings and a push into
//! memory that was reserved before.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use ov_core::{CompiledModel, InferRequest, Tensor};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    Time(Duration),
    Count(u64),
}

/// Samples of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    /// Latency of each inference in microseconds, in order of completion.
    pub(crate) latency_us: Vec<f64>,
    /// When each inference ended, in microseconds from the start of the run.
    pub(crate) end_us: Vec<f64>,
    /// From the first start to the last end, in seconds.
    pub(crate) duration_s: f64,
    /// Devices that served the requests from the sample of that index on, where they were watched.
    pub(crate) devices: Vec<(usize, String)>,
}

impl Run {
    fn with_room(limit: Limit, once: Duration) -> Self {
        let expected = match limit {
            Limit::Count(n) => n as f64,
            Limit::Time(time) => 2.0 * time.as_secs_f64() / once.as_secs_f64().max(1e-7),
        };
        let room = (expected as usize).clamp(1024, MOST_RESERVED);
        Self {
            latency_us: Vec::with_capacity(room),
            end_us: Vec::with_capacity(room),
            ..Self::default()
        }
    }

    fn push(&mut self, run_start: Instant, start: Instant, end: Instant) {
        self.latency_us.push(microseconds(end.saturating_duration_since(start)));
        self.end_us.push(microseconds(end.saturating_duration_since(run_start)));
    }

    /// Inferences a second.
    pub(crate) fn throughput(&self) -> f64 {
        self.latency_us.len() as f64 / self.duration_s.max(f64::MIN_POSITIVE)
    }
}

impl Limit {
    fn goes_on(self, run_start: Instant, done: usize) -> bool {
        match self {
            Self::Count(n) => (done as u64) < n,
            Self::Time(time) => done < LEAST_SAMPLES || run_start.elapsed() < time,
        }
    }
}

/// Runs one request again and again on this thread.
///
/// # Errors
/// Those of the inference.
pub(crate) fn closed_sync(
    request: &mut InferRequest,
    limit: Limit,
    once: Duration,
    watch: Option<&CompiledModel>,
) -> Result<Run> {
    let mut run = Run::with_room(limit, once);
    let mut watch = watch.map(Watch::new);
    let run_start = Instant::now();
    while limit.goes_on(run_start, run.latency_us.len()) {
        if let Some(watch) = &mut watch {
            watch.look(&mut run);
        }
        let start = Instant::now();
        request.infer()?;
        run.push(run_start, start, Instant::now());
    }
    run.duration_s = run_start.elapsed().as_secs_f64();
    Ok(run)
}

/// Keeps `requests` in flight; each starts again as soon as it has ended.
///
/// # Errors
/// Those of the inferences.
pub(crate) fn closed_async(
    requests: &mut [InferRequest],
    limit: Limit,
    once: Duration,
    watch: Option<&CompiledModel>,
) -> Result<Run> {
    let ended = announce(requests)?;
    let mut run = Run::with_room(limit, once);
    let mut watch = watch.map(Watch::new);
    let mut starts = vec![Instant::now(); requests.len()];
    let (mut started, mut flying) = (0, 0);
    let run_start = Instant::now();
    for (request, start) in requests.iter_mut().zip(&mut starts) {
        if limit.goes_on(run_start, started) {
            *start = Instant::now();
            request.start_async()?;
            started += 1;
            flying += 1;
        }
    }
    while flying > 0 {
        let (index, end) = ended.recv().context("the requests' threads have ended")?;
        run.push(run_start, starts[index], end);
        requests[index].wait()?;
        if let Some(watch) = &mut watch {
            watch.look(&mut run);
        }
        if limit.goes_on(run_start, started) {
            starts[index] = Instant::now();
            requests[index].start_async()?;
            started += 1;
        } else {
            flying -= 1;
        }
    }
    run.duration_s = run_start.elapsed().as_secs_f64();
    Ok(run)
}

/// Starts an inference every `1 / rate` seconds, on a schedule laid out before, on the next free request. Latency counts
/// from the intended start, so that waiting for a free request is seen.
///
/// # Errors
/// Those of the inferences.
pub(crate) fn open_loop(
    requests: &mut [InferRequest],
    rate: f64,
    limit: Limit,
    watch: Option<&CompiledModel>,
) -> Result<Run> {
    let count = match limit {
        Limit::Count(n) => n,
        Limit::Time(time) => ((rate * time.as_secs_f64()).ceil() as u64).max(1),
    };
    let ended = announce(requests)?;
    let mut run = Run::with_room(Limit::Count(count), Duration::ZERO);
    let mut watch = watch.map(Watch::new);
    let mut intended = vec![Instant::now(); requests.len()];
    let mut free: Vec<usize> = (0..requests.len()).rev().collect();
    let run_start = Instant::now();
    for i in 0..count {
        let due = run_start + Duration::from_secs_f64(i as f64 / rate);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            let next = if free.is_empty() {
                Some(ended.recv().context("the requests' threads have ended")?)
            } else if left > SPIN {
                match ended.recv_timeout(left - SPIN) {
                    Ok(next) => Some(next),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(anyhow!("the requests' threads have ended"));
                    }
                }
            } else {
                ended.try_recv().ok()
            };
            if let Some((index, end)) = next {
                run.push(run_start, intended[index], end);
                requests[index].wait()?;
                free.push(index);
            } else if left.is_zero() && !free.is_empty() {
                break;
            }
        }
        if let Some(watch) = &mut watch {
            watch.look(&mut run);
        }
        let index = free.pop().context("a request is free")?;
        intended[index] = due;
        requests[index].start_async()?;
    }
    while free.len() < requests.len() {
        let (index, end) = ended.recv().context("the requests' threads have ended")?;
        run.push(run_start, intended[index], end);
        requests[index].wait()?;
        free.push(index);
    }
    run.duration_s = run_start.elapsed().as_secs_f64();
    Ok(run)
}

/// Requests of a compiled model that share the input tensors.
///
/// # Errors
/// When the device has no room for them, or a tensor does not fit.
pub(crate) fn requests(
    compiled: &CompiledModel,
    first: InferRequest,
    count: usize,
    inputs: &[Tensor],
) -> Result<Vec<InferRequest>> {
    let mut requests = vec![first];
    while requests.len() < count {
        let mut request = compiled.create_infer_request()?;
        set_inputs(&mut request, inputs)?;
        requests.push(request);
    }
    Ok(requests)
}

/// Sets every input.
///
/// # Errors
/// When a tensor does not fit.
pub(crate) fn set_inputs(request: &mut InferRequest, inputs: &[Tensor]) -> Result<()> {
    for (i, tensor) in inputs.iter().enumerate() {
        request.set_input(i, tensor.clone())?;
    }
    Ok(())
}

/// Lets every request tell when it has ended.
fn announce(requests: &mut [InferRequest]) -> Result<Receiver<(usize, Instant)>> {
    let (sender, receiver) = channel();
    for (index, request) in requests.iter_mut().enumerate() {
        let sender = sender.clone();
        request.set_callback(move |result| {
            let gone = sender.send((index, Instant::now())).is_err();
            debug_assert!(!gone || result.is_err(), "the receiver outlives the run");
            Ok(())
        })?;
    }
    Ok(receiver)
}

/// Notices when a model starts to be served by other devices; asks at most once a millisecond, between inferences.
struct Watch<'a> {
    compiled: &'a CompiledModel,
    next: Instant,
}

impl<'a> Watch<'a> {
    fn new(compiled: &'a CompiledModel) -> Self {
        Self { compiled, next: Instant::now() }
    }

    fn look(&mut self, run: &mut Run) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + Duration::from_millis(1);
        let devices = self.compiled.property("EXECUTION_DEVICES").unwrap_or_default();
        if run.devices.last().is_none_or(|(_, last)| *last != devices) {
            run.devices.push((run.latency_us.len(), devices));
        }
    }
}

pub(crate) fn microseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

/// A run by time takes at least so many samples, so that percentiles mean something.
const LEAST_SAMPLES: usize = 10;

/// Room for so many samples is reserved at most.
const MOST_RESERVED: usize = 1 << 22;

/// The last stretch before an intended start is spent looking at the clock: waking up takes up to 50 us.
const SPIN: Duration = Duration::from_micros(100);
