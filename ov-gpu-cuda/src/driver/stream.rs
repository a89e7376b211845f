//! Streams and events.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use cudarc::driver::sys::{CUevent, CUstream};

use super::{
    device::{Context, Result},
    error::{DriverError, ErrorKind},
};

/// How a thread waits for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Asks again and again for a while, then blocks: the least latency.
    Spin,
    /// Blocks at once, so that the processor is free for others.
    Block,
}

/// How long [`Wait::Spin`] asks before it blocks.
const SPIN: Duration = Duration::from_millis(5);

/// Work in order.
pub(crate) struct Stream {
    context: Arc<Context>,
    pub(super) handle: CUstream,
    done: Event,
}

// SAFETY: handles of streams may be used from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl Stream {
    /// Does not wait for the default stream.
    const NON_BLOCKING: u32 = 1;

    /// A stream of a priority within [`Context::priorities`].
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn new(context: &Arc<Context>, priority: i32) -> Result<Self> {
        let done = Event::new(context, Event::BLOCKING | Event::NO_TIMES)?;
        let mut handle: CUstream = std::ptr::null_mut();
        // SAFETY: writes one handle.
        context.check("cuStreamCreateWithPriority", unsafe {
            (context.device.api.functions.cuStreamCreateWithPriority)(
                &raw mut handle,
                Self::NON_BLOCKING,
                priority,
            )
        })?;
        Ok(Self { context: Arc::clone(context), handle, done })
    }

    /// Waits until everything in the stream is done.
    ///
    /// # Errors
    /// What went wrong in the stream.
    pub(crate) fn wait(&self) -> Result<()> {
        self.context.current("cuStreamSynchronize")?;
        // SAFETY: the handle is valid.
        self.context.check("cuStreamSynchronize", unsafe {
            (self.context.device.api.functions.cuStreamSynchronize)(self.handle)
        })
    }

    /// [`Stream::wait`], in a way.
    ///
    /// # Errors
    /// What went wrong in the stream.
    pub(crate) fn wait_by(&self, how: Wait) -> Result<()> {
        match how {
            Wait::Spin => {
                let start = Instant::now();
                while start.elapsed() < SPIN {
                    if self.is_done()? {
                        return Ok(());
                    }
                    std::hint::spin_loop();
                }
                self.wait()
            }
            Wait::Block => {
                self.done.record(self)?;
                self.done.wait()
            }
        }
    }

    fn is_done(&self) -> Result<bool> {
        self.context.device.expect_alive("cuStreamQuery")?;
        // SAFETY: the handle is valid.
        let code = unsafe { (self.context.device.api.functions.cuStreamQuery)(self.handle) };
        match ErrorKind::of(code) {
            ErrorKind::NotReady => Ok(false),
            _ => self.context.check("cuStreamQuery", code).map(|()| true),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.context.current("cuStreamDestroy").is_ok() {
            // SAFETY: made by `new`; the driver lets pending work finish first.
            unsafe { (self.context.device.api.functions.cuStreamDestroy_v2)(self.handle) };
        }
    }
}

/// A point in a stream.
pub(crate) struct Event {
    context: Arc<Context>,
    pub(super) handle: CUevent,
}

// SAFETY: handles of events may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Event")
    }
}

impl Event {
    const BLOCKING: u32 = 1;
    const NO_TIMES: u32 = 2;

    /// An event that keeps the time.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn timed(context: &Arc<Context>) -> Result<Self> {
        Self::new(context, 0)
    }

    fn new(context: &Arc<Context>, flags: u32) -> Result<Self> {
        context.current("cuEventCreate")?;
        let mut handle: CUevent = std::ptr::null_mut();
        // SAFETY: writes one handle.
        context.check("cuEventCreate", unsafe {
            (context.device.api.functions.cuEventCreate)(&raw mut handle, flags)
        })?;
        Ok(Self { context: Arc::clone(context), handle })
    }

    fn record(&self, stream: &Stream) -> Result<()> {
        self.context.current("cuEventRecord")?;
        // SAFETY: both handles are valid.
        self.context.check("cuEventRecord", unsafe {
            (self.context.device.api.functions.cuEventRecord)(self.handle, stream.handle)
        })
    }

    fn wait(&self) -> Result<()> {
        self.context.current("cuEventSynchronize")?;
        // SAFETY: the handle is valid.
        self.context.check("cuEventSynchronize", unsafe {
            (self.context.device.api.functions.cuEventSynchronize)(self.handle)
        })
    }

    /// Time from this event to a later one; both must have been reached and [`Event::timed`].
    ///
    /// # Errors
    /// What the driver says; a driver that does not tell times.
    pub(crate) fn until(&self, later: &Self) -> Result<Duration> {
        let call = "cuEventElapsedTime";
        self.context.current(call)?;
        let get = self.context.device.api.functions.cuEventElapsedTime;
        let get = get.ok_or_else(|| DriverError {
            code: 500,
            call,
            text: "the driver does not export it".to_owned(),
        })?;
        let mut milliseconds = 0.0f32;
        // SAFETY: writes one number; both handles are valid.
        let code = unsafe { get(&raw mut milliseconds, self.handle, later.handle) };
        self.context.check(call, code)?;
        Ok(Duration::from_secs_f32(milliseconds.max(0.0) / 1000.0))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.current("cuEventDestroy").is_ok() {
            // SAFETY: made by `new`.
            unsafe { (self.context.device.api.functions.cuEventDestroy_v2)(self.handle) };
        }
    }
}
