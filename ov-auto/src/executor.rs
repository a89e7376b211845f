//! A compiled candidate that requests run on.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ov_core::plugin::CompiledDevice;

/// Told when the last request has left an executor.
pub(crate) trait Released: Send + Sync {
    /// No request holds it any more.
    fn released(self: Arc<Self>);
}

/// A model compiled for one candidate. Requests hold it while they use it; with the last one it goes.
pub(crate) struct Executor {
    pub(crate) candidate: usize,
    /// Counts the executors of a model, from 1.
    pub(crate) epoch: u64,
    pub(crate) target: CompiledDevice,
    pub(crate) pace: Pace,
    owner: Weak<dyn Released>,
}

impl Executor {
    pub(crate) fn new(
        candidate: usize,
        epoch: u64,
        target: CompiledDevice,
        owner: Weak<dyn Released>,
    ) -> Self {
        Self { candidate, epoch, target, pace: Pace::default(), owner }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.released();
        }
    }
}

/// The latest latencies of an executor. Writers on several threads may lose a sample to each other, never more.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    latest_us: [AtomicU32; 16],
    count: AtomicUsize,
}

impl Pace {
    pub(crate) fn record(&self, latency: Duration) {
        let at = self.count.fetch_add(1, Ordering::Relaxed) % self.latest_us.len();
        let us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        self.latest_us[at].store(us, Ordering::Relaxed);
    }

    /// The median, once there are three samples.
    pub(crate) fn median(&self) -> Option<Duration> {
        let count = self.count.load(Ordering::Relaxed).min(self.latest_us.len());
        if count < 3 {
            return None;
        }
        let mut latest: Vec<u32> =
            self.latest_us[..count].iter().map(|us| us.load(Ordering::Relaxed)).collect();
        latest.sort_unstable();
        Some(Duration::from_micros(latest[count / 2].into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_the_latest() {
        let pace = Pace::default();
        for us in [5, 1] {
            pace.record(Duration::from_micros(us));
        }
        assert_eq!(pace.median(), None);
        pace.record(Duration::from_micros(3));
        assert_eq!(pace.median(), Some(Duration::from_micros(3)));
        for _ in 0..16 {
            pace.record(Duration::from_micros(7));
        }
        assert_eq!(pace.median(), Some(Duration::from_micros(7)));
    }
}
