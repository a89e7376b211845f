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
    /// Asks again and again around the time that is expected, and sleeps far from it: the least latency.
    Spin,
    /// Sleeps for most of the time that is expected, and between two questions, so that the processor is free for others.
    Sleep,
}

/// How long a thread waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// What the work took before; zero when nobody knows.
    pub(crate) expected: Duration,
    /// When the GPU is given up. No call of the driver is left with a limit of its own, so that nothing blocks in one.
    pub(crate) most: Duration,
}

impl Patience {
    /// How long to sleep after `waited`; `None`: ask again at once.
    fn pause(self, how: Wait, waited: Duration) -> Option<Duration> {
        const LEAST: Duration = Duration::from_micros(20);
        const MOST: Duration = Duration::from_millis(1);
        let early = (self.expected * 3 / 4).saturating_sub(waited);
        match how {
            Wait::Spin if early > 2 * MOST => Some(early),
            Wait::Spin if waited < SPIN.max(self.expected * 2) => None,
            Wait::Sleep if early > LEAST => Some(early),
            Wait::Spin | Wait::Sleep => Some((waited / 16).clamp(LEAST, MOST)),
        }
    }
}

/// How long [`Wait::Spin`] asks at least before it sleeps.
const SPIN: Duration = Duration::from_millis(5);

/// Work in order.
pub(crate) struct Stream {
    context: Arc<Context>,
    pub(super) handle: CUstream,
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
        context.current("cuStreamCreateWithPriority")?;
        let mut handle: CUstream = std::ptr::null_mut();
        // SAFETY: writes one handle.
        context.check("cuStreamCreateWithPriority", unsafe {
            (context.device.api.functions.cuStreamCreateWithPriority)(
                &raw mut handle,
                Self::NON_BLOCKING,
                priority,
            )
        })?;
        Ok(Self { context: Arc::clone(context), handle })
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

    /// [`Stream::wait`], in a way, and not for ever.
    ///
    /// # Errors
    /// What went wrong in the stream. When the patience ends: the GPU is lost then, because what still runs there may
    /// write at any time.
    pub(crate) fn wait_by(&self, how: Wait, patience: Patience) -> Result<()> {
        let start = Instant::now();
        loop {
            if self.is_done()? {
                return Ok(());
            }
            let waited = start.elapsed();
            if waited >= patience.most {
                return Err(self.context.device.lose(
                    "cuStreamQuery",
                    format!(
                        "no end after {waited:.1?}, where {:.1?} were seen before",
                        patience.expected
                    ),
                ));
            }
            match patience.pause(how, waited) {
                Some(pause) => std::thread::sleep(pause),
                None => std::hint::spin_loop(),
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
    /// An event that keeps the time.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn timed(context: &Arc<Context>) -> Result<Self> {
        context.current("cuEventCreate")?;
        let mut handle: CUevent = std::ptr::null_mut();
        // SAFETY: writes one handle.
        context.check("cuEventCreate", unsafe {
            (context.device.api.functions.cuEventCreate)(&raw mut handle, 0)
        })?;
        Ok(Self { context: Arc::clone(context), handle })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_suit_what_is_expected() {
        let us = Duration::from_micros;
        let cases = [
            (Wait::Spin, 200, 0, None),
            (Wait::Spin, 0, 4_000, None),
            (Wait::Spin, 0, 8_000, Some(500)),
            (Wait::Spin, 40_000, 0, Some(30_000)),
            (Wait::Spin, 40_000, 70_000, None),
            (Wait::Spin, 40_000, 90_000, Some(1_000)),
            (Wait::Sleep, 200, 0, Some(150)),
            (Wait::Sleep, 200, 160, Some(20)),
            (Wait::Sleep, 0, 0, Some(20)),
            (Wait::Sleep, 0, 1_000_000, Some(1_000)),
        ];
        for (how, expected, waited, pause) in cases {
            let patience = Patience { expected: us(expected), most: us(1) };
            let got = patience.pause(how, us(waited));
            assert_eq!(got, pause.map(us), "{how:?} {expected} {waited}");
        }
    }
}
