//! Which inference goes on when models of several priorities share the processor.
//!
//! Inferences of a class hold back, between two steps, while one of a higher class runs. Each holds back for a bounded
//! time only, so that no class starves. Nothing is counted, and a step costs one load, unless models of two classes are
//! there.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ov_core::{plugin::CancelToken, property::hint::Priority};

const CLASSES: usize = 3;

const fn class(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Medium => 1,
        Priority::Low => 2,
    }
}

/// The models and inferences of a processor, by class.
#[derive(Debug)]
pub(crate) struct Gate {
    models: [AtomicU32; CLASSES],
    running: [AtomicU32; CLASSES],
    /// Threads that hold back.
    waiting: AtomicU32,
    door: Mutex<()>,
    opened: Condvar,
}

/// The gate of this process.
static GATE: Gate = Gate::new();

impl Gate {
    const fn new() -> Self {
        Self {
            models: [const { AtomicU32::new(0) }; CLASSES],
            running: [const { AtomicU32::new(0) }; CLASSES],
            waiting: AtomicU32::new(0),
            door: Mutex::new(()),
            opened: Condvar::new(),
        }
    }

    fn is_shared(&self) -> bool {
        self.models.iter().filter(|n| n.load(Ordering::Relaxed) > 0).count() > 1
    }

    fn is_closed_for(&self, class: usize) -> bool {
        self.running[..class].iter().any(|n| n.load(Ordering::SeqCst) > 0)
    }

    /// Sleeps until nothing higher than `class` runs, or until `deadline`.
    fn wait(&self, class: usize, deadline: Instant) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        while self.is_closed_for(class) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let held = self.opened.wait_timeout(door, left);
            door = held.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(door);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn open(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.door.lock().unwrap_or_else(PoisonError::into_inner));
            self.opened.notify_all();
        }
    }
}

/// A compiled model's place among the models of the processor, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Place {
    gate: &'static Gate,
    class: usize,
    /// Nanoseconds of an inference that did not hold back, smoothed; 0 before the first.
    alone: AtomicU64,
}

impl Place {
    /// A place in this process's gate.
    pub(crate) fn new(priority: Priority) -> Arc<Self> {
        Self::at(&GATE, priority)
    }

    fn at(gate: &'static Gate, priority: Priority) -> Arc<Self> {
        let class = class(priority);
        gate.models[class].fetch_add(1, Ordering::SeqCst);
        Arc::new(Self { gate, class, alone: AtomicU64::new(0) })
    }

    /// Begins an inference.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let counted = self.gate.is_shared();
        if counted {
            self.gate.running[self.class].fetch_add(1, Ordering::SeqCst);
        }
        Turn { place: self, start: counted.then(Instant::now), held: AtomicBool::new(false) }
    }

    /// How long an inference may take before it stops holding back.
    fn patience(&self) -> Duration {
        match self.alone.load(Ordering::Relaxed) {
            0 => FIRST_PATIENCE,
            alone => Duration::from_nanos(alone.saturating_mul(PATIENCE)),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.models[self.class].fetch_sub(1, Ordering::SeqCst);
    }
}

/// An inference holds back for five times as long as it takes alone.
const PATIENCE: u64 = 6;
/// What an inference may take in all when it is not known how long one takes.
const FIRST_PATIENCE: Duration = Duration::from_millis(100);

/// One inference.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    place: &'a Place,
    /// Nothing unless there are models of other classes.
    start: Option<Instant>,
    held: AtomicBool,
}

impl Turn<'_> {
    /// Holds the thread back while something more important runs. Called between two steps.
    pub(crate) fn hold_back(&self) {
        let Some(start) = self.start else { return };
        if self.place.gate.is_closed_for(self.place.class) {
            let deadline = start + self.place.patience();
            if Instant::now() < deadline {
                self.held.store(true, Ordering::Relaxed);
                self.place.gate.wait(self.place.class, deadline);
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(start) = self.start else { return };
        let gate = self.place.gate;
        if gate.running[self.place.class].fetch_sub(1, Ordering::SeqCst) == 1 {
            gate.open();
        }
        if !self.held.load(Ordering::Relaxed) {
            let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let before = self.place.alone.load(Ordering::Relaxed);
            let smoothed = if before == 0 { took } else { before - before / 8 + took / 8 };
            self.place.alone.store(smoothed, Ordering::Relaxed);
        }
    }
}

/// What may stop an inference between two steps, or hold it back.
#[derive(Debug)]
pub struct Control<'a> {
    cancel: &'a CancelToken,
    turn: Option<Turn<'a>>,
}

impl<'a> Control<'a> {
    /// Stops when `cancel` is set.
    #[must_use]
    pub const fn new(cancel: &'a CancelToken) -> Self {
        Self { cancel, turn: None }
    }

    pub(crate) fn with_turn(mut self, turn: Turn<'a>) -> Self {
        self.turn = Some(turn);
        self
    }

    /// Whether the inference shall stop.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.cancel.is_canceled()
    }

    /// Returns when the inference may go on.
    pub(crate) fn hold_back(&self) {
        if let Some(turn) = &self.turn {
            turn.hold_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    fn gate() -> &'static Gate {
        Box::leak(Box::new(Gate::new()))
    }

    #[test]
    fn the_lower_class_holds_back_until_the_higher_has_finished() {
        let gate = gate();
        let (high, low) = (Place::at(gate, Priority::High), Place::at(gate, Priority::Low));
        low.alone.store(10_000_000_000, Ordering::Relaxed);
        let important = high.turn();
        let (sender, receiver) = mpsc::channel();
        thread::scope(|s| {
            s.spawn(|| {
                let turn = low.turn();
                turn.hold_back();
                sender.send(()).expect("the receiver lives");
            });
            while gate.waiting.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            assert!(receiver.try_recv().is_err());
            drop(important);
            receiver.recv().expect("the lower class goes on");
        });
        assert_eq!(gate.waiting.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn no_class_holds_back_for_an_equal_or_lower_one() {
        let gate = gate();
        let places = [Priority::High, Priority::Medium, Priority::Low].map(|p| Place::at(gate, p));
        let (one, low) = (places[1].turn(), places[2].turn());
        places[1].turn().hold_back();
        one.hold_back();
        places[0].turn().hold_back();
        assert_eq!(gate.waiting.load(Ordering::SeqCst), 0);
        drop((one, low));
        assert!(gate.running.iter().all(|n| n.load(Ordering::SeqCst) == 0));
    }

    #[test]
    fn patience_ends() {
        let gate = gate();
        let (high, low) = (Place::at(gate, Priority::High), Place::at(gate, Priority::Low));
        low.alone.store(1_000, Ordering::Relaxed);
        let _busy = high.turn();
        low.turn().hold_back();
    }

    #[test]
    fn one_class_alone_is_not_counted() {
        let gate = gate();
        let (a, _b) = (Place::at(gate, Priority::Low), Place::at(gate, Priority::Low));
        let turn = a.turn();
        assert!(turn.start.is_none());
        let high = Place::at(gate, Priority::High);
        assert!(high.turn().start.is_some());
        drop(high);
        assert!(a.turn().start.is_none());
    }
}
