//! `CUMULATIVE_THROUGHPUT`: every candidate serves, each request stays on one of them as long as that works.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use ov_core::{
    CancelToken, Error, ModelSource, Result,
    plugin::{CompiledDevice, DeviceResolver},
    property::auto::SchedulePolicy,
};

use crate::{
    executor::{Executor, Released},
    handover::{guarded, no_device},
    options::Options,
    request::Route,
    select::Candidate,
};

/// The executors, in order of preference.
pub(crate) struct Fleet {
    pub(crate) members: Vec<Member>,
    options: Options,
    turn: AtomicUsize,
}

pub(crate) struct Member {
    pub(crate) executor: Arc<Executor>,
    /// Requests that keep it busy.
    pub(crate) slots: usize,
    taken: AtomicUsize,
    works: AtomicBool,
}

/// Executors of a fleet live as long as it does.
struct Nobody;

impl Released for Nobody {
    fn released(self: Arc<Self>) {}
}

impl Fleet {
    /// Compiles for every candidate at the same time; those that fail are left out.
    pub(crate) fn start(
        devices: &Arc<dyn DeviceResolver>,
        source: &ModelSource,
        candidates: &[Candidate],
        options: Options,
    ) -> Result<Arc<Self>> {
        // Read once, not by each of them.
        if candidates.len() > 1 {
            source.model()?;
        }
        let compile =
            |c: &Candidate| guarded(&c.name, || devices.compile(source, &c.name, &c.properties));
        let results: Vec<Result<CompiledDevice>> = thread::scope(|scope| {
            let running: Vec<_> =
                candidates.iter().map(|c| scope.spawn(move || compile(c))).collect();
            let join = |(thread, c): (thread::ScopedJoinHandle<'_, _>, &Candidate)| {
                thread
                    .join()
                    .unwrap_or_else(|panic| Err(crate::handover::panicked(&c.name, &*panic)))
            };
            running.into_iter().zip(candidates).map(join).collect()
        });
        let (mut members, mut errors) = (Vec::new(), Vec::new());
        for (i, (result, candidate)) in results.into_iter().zip(candidates).enumerate() {
            match result {
                Ok(target) => members.push(Member::new(i, target)),
                Err(error) => {
                    tracing::warn!(device = candidate.name, %error, "the device is passed over");
                    errors.push((candidate.name.clone(), error));
                }
            }
        }
        if members.is_empty() {
            return Err(no_device(errors));
        }
        Ok(Arc::new(Self { members, options, turn: AtomicUsize::new(0) }))
    }

    /// Where the next request goes: to the first that has a slot left, or to each in turn.
    pub(crate) fn next(&self) -> Option<Arc<Executor>> {
        let works: Vec<&Member> = self.members.iter().filter(|m| m.works()).collect();
        let free = |m: &&&Member| m.taken.load(Ordering::Relaxed) < m.slots;
        let in_turn = || {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            works.get(turn % works.len().max(1))
        };
        let chosen = match self.options.policy {
            SchedulePolicy::DevicePriority => works.iter().find(free).or_else(in_turn),
            SchedulePolicy::RoundRobin => in_turn(),
        }?;
        chosen.taken.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(&chosen.executor))
    }
}

impl Member {
    fn new(candidate: usize, target: CompiledDevice) -> Self {
        let slots = target.model.property("OPTIMAL_NUMBER_OF_INFER_REQUESTS");
        let slots = slots.ok().and_then(|t| t.parse().ok()).unwrap_or(1).max(1);
        let owner: Weak<dyn Released> = Weak::<Nobody>::new();
        let executor = Arc::new(Executor::new(candidate, candidate as u64 + 1, target, owner));
        Self { executor, slots, taken: AtomicUsize::new(0), works: AtomicBool::new(true) }
    }

    pub(crate) fn works(&self) -> bool {
        self.works.load(Ordering::Acquire)
    }
}

impl Route for Fleet {
    fn is_current(&self, _: &Executor) -> bool {
        true
    }

    fn current(&self, _: &CancelToken) -> Option<Arc<Executor>> {
        self.next()
    }

    fn replace(
        &self,
        executor: &Arc<Executor>,
        error: &Error,
        _: &CancelToken,
    ) -> Option<Arc<Executor>> {
        let others =
            self.members.iter().any(|m| m.works() && m.executor.candidate != executor.candidate);
        if !self.options.runtime_fallback || !others {
            return None;
        }
        let member = self.members.iter().find(|m| m.executor.candidate == executor.candidate)?;
        if member.works.swap(false, Ordering::AcqRel) {
            tracing::warn!(device = executor.target.device, %error, "the device is left out");
        }
        self.next()
    }

    fn infer_timeout(&self) -> Option<Duration> {
        self.options.infer_timeout
    }
}
