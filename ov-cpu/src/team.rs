//! The threads of a stream: the caller is worker 0, the others wait spinning, then parked.
#![allow(unsafe_code, reason = "lends the caller's closure to the other threads")]

use std::{
    cell::UnsafeCell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ov_core::property::ProcessorSet;

use crate::affinity;

/// A value alone on its cache lines (two, as processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// Polls between looks at the clock: about a microsecond.
const POLLS: u32 = 64;
/// After this long in a barrier the thread lets others run between polls.
const YIELD_AFTER: Duration = Duration::from_micros(50);

type Job<'a> = dyn Fn(usize) + Sync + 'a;

struct Shared {
    /// Counts regions; a worker runs the job when the number changes.
    generation: Padded<AtomicU32>,
    finished: Padded<AtomicUsize>,
    parked: Padded<AtomicUsize>,
    stop: AtomicBool,
    spin: Duration,
    job: UnsafeCell<Option<*const Job<'static>>>,
}

// SAFETY: `job` is written by the owner of the region only, before the release store of `generation` and after every
// worker has counted itself finished; workers read it between the two.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is only followed while `Team::run` keeps its target alive.
unsafe impl Send for Shared {}

/// A team of threads that runs one parallel region at a time.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    is_bound: bool,
    busy: AtomicBool,
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

impl Team {
    /// A team of `threads` in all, the caller of [`Team::run`] included. Between regions the others poll for `spin`
    /// before they sleep; `bind` has the processors of each thread when they shall be bound, the caller's first, which
    /// is not bound here.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(threads: usize, spin: Duration, bind: &[ProcessorSet]) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            generation: Padded::default(),
            finished: Padded::default(),
            parked: Padded::default(),
            stop: AtomicBool::new(false),
            spin,
            job: UnsafeCell::new(None),
        });
        let is_bound = !bind.is_empty();
        let mut team = Self { shared, workers: Vec::new(), is_bound, busy: AtomicBool::new(false) };
        let elsewhere = Elsewhere::of_this_thread();
        for index in 1..threads.max(1) {
            let shared = Arc::clone(&team.shared);
            let bound = bind.get(index).cloned();
            let release = elsewhere.as_ref().filter(|_| bound.is_none()).map(|e| e.allowed.clone());
            let worker =
                thread::Builder::new().name(format!("ov-cpu-{index}")).spawn(move || {
                    if let Some(processors) = bound {
                        affinity::bind_to(processors.ids());
                    }
                    work(&shared, index, release.as_deref());
                })?;
            if let Some(elsewhere) = elsewhere.as_ref().filter(|_| bind.get(index).is_none()) {
                affinity::bind_thread(&worker, &elsewhere.others);
            }
            team.workers.push(worker);
        }
        Ok(team)
    }

    /// Whether the threads have processors of their own, near to memory of their own.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// Number of threads, the caller included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(thread)` on every thread at once, the caller being thread 0, and returns when all are done. When the
    /// team is busy with another caller, nothing is run and the result is false. `job` must not panic.
    pub fn run(&self, job: &Job<'_>) -> bool {
        if self.workers.is_empty() {
            job(0);
            return true;
        }
        if self.busy.swap(true, Ordering::Acquire) {
            return false;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; the pointer is cleared below, after every worker has finished with it.
        let erased = unsafe {
            std::mem::transmute::<*const Job<'_>, *const Job<'static>>(std::ptr::from_ref(job))
        };
        // SAFETY: no region is running (`busy` was taken above, and every region waits for all workers).
        unsafe { *shared.job.get() = Some(erased) };
        shared.finished.0.store(0, Ordering::Relaxed);
        shared.generation.0.fetch_add(1, Ordering::SeqCst);
        if shared.parked.0.load(Ordering::SeqCst) > 0 {
            for worker in &self.workers {
                worker.thread().unpark();
            }
        }
        job(0);
        wait(|| shared.finished.0.load(Ordering::Acquire) == self.workers.len());
        // SAFETY: every worker has finished the region.
        unsafe { *shared.job.get() = None };
        self.busy.store(false, Ordering::Release);
        true
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.generation.0.fetch_add(1, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            if worker.join().is_err() {
                tracing::error!("a worker thread of the CPU device had panicked");
            }
        }
    }
}

/// Where a new worker starts: the system likes to put a thread onto the processor of its maker, and takes milliseconds
/// to move it from there when both compute.
struct Elsewhere {
    allowed: Vec<usize>,
    others: Vec<usize>,
}

impl Elsewhere {
    /// Nothing where there is no other processor.
    fn of_this_thread() -> Option<Self> {
        let here = affinity::current_processor()?;
        let allowed = affinity::allowed_processors();
        let others: Vec<usize> = allowed.iter().copied().filter(|cpu| *cpu != here).collect();
        (!others.is_empty()).then_some(Self { allowed, others })
    }
}

/// `release` are the processors that the worker may use from its first region on; by then nobody binds it any more.
fn work(shared: &Shared, index: usize, release: Option<&[usize]>) {
    crate::simd::denormals::flush();
    let mut seen = next_generation(shared, 0);
    if let Some(processors) = release {
        affinity::bind_to(processors);
    }
    loop {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: the job was stored before the generation that was just seen.
        let job = unsafe { *shared.job.get() };
        if let Some(job) = job {
            // SAFETY: `Team::run` keeps the closure alive until this worker counts itself finished.
            unsafe { (*job)(index) };
        }
        shared.finished.0.fetch_add(1, Ordering::Release);
        seen = next_generation(shared, seen);
    }
}

/// Waits for a generation other than `seen`: polling for the spin time, then asleep.
fn next_generation(shared: &Shared, seen: u32) -> u32 {
    let mut start = None;
    loop {
        for _ in 0..POLLS {
            let now = shared.generation.0.load(Ordering::Acquire);
            if now != seen {
                return now;
            }
            std::hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() >= shared.spin {
            break;
        }
    }
    shared.parked.0.fetch_add(1, Ordering::SeqCst);
    let now = loop {
        let now = shared.generation.0.load(Ordering::SeqCst);
        if now != seen {
            break now;
        }
        thread::park();
    };
    shared.parked.0.fetch_sub(1, Ordering::SeqCst);
    now
}

/// Polls until `done`, after a while letting other threads run in between.
fn wait(done: impl Fn() -> bool) {
    wait_or(done, thread::yield_now);
}

/// Polls until `done`, after a while calling `idle` in between.
fn wait_or(done: impl Fn() -> bool, idle: impl Fn()) {
    let mut start: Option<Instant> = None;
    loop {
        for _ in 0..POLLS {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() > YIELD_AFTER {
            idle();
        }
    }
}

/// A barrier inside a region, which a failing thread can break so that nobody waits for it.
#[derive(Debug)]
pub struct Barrier {
    arrived: Padded<AtomicUsize>,
    generation: Padded<AtomicU32>,
    broken: AtomicBool,
    threads: usize,
}

impl Barrier {
    /// A barrier for `threads`.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self {
            arrived: Padded::default(),
            generation: Padded::default(),
            broken: AtomicBool::new(false),
            threads,
        }
    }

    /// Makes the barrier usable again; no thread may be in it.
    pub fn reset(&self) {
        self.arrived.0.store(0, Ordering::Relaxed);
        self.broken.store(false, Ordering::Relaxed);
    }

    /// Waits until every thread is here; false when the barrier was broken.
    #[must_use]
    pub fn wait(&self) -> bool {
        self.wait_or(|| {})
    }

    /// As [`Barrier::wait`]; a thread that waits for long calls `idle`, which may sleep, between looks.
    #[must_use]
    pub(crate) fn wait_or(&self, idle: impl Fn()) -> bool {
        let generation = self.generation.0.load(Ordering::Relaxed);
        if self.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.0.store(0, Ordering::Relaxed);
            self.generation.0.store(generation.wrapping_add(1), Ordering::Release);
        } else {
            let done = || {
                self.generation.0.load(Ordering::Acquire) != generation
                    || self.broken.load(Ordering::Relaxed)
            };
            wait_or(done, || {
                idle();
                thread::yield_now();
            });
        }
        !self.broken.load(Ordering::Acquire)
    }

    /// Lets every thread that waits, now or later, go on with a false.
    pub fn break_it(&self) {
        self.broken.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_runs_each_region_once() {
        for threads in [1, 2, 5] {
            let team = Team::new(threads, Duration::from_micros(20), &[]).expect("threads");
            let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for round in 1..200 {
                assert!(team.run(&|t| {
                    counts[t].fetch_add(1, Ordering::Relaxed);
                }));
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == round));
                if round % 50 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    #[test]
    fn barriers_separate_phases() {
        const THREADS: usize = 3;
        let team = Team::new(THREADS, Duration::ZERO, &[]).expect("threads");
        let (barrier, sum) = (Barrier::new(THREADS), AtomicUsize::new(0));
        assert!(team.run(&|_| {
            for phase in 1..=100 {
                sum.fetch_add(1, Ordering::Relaxed);
                assert!(barrier.wait());
                assert_eq!(sum.load(Ordering::Relaxed), phase * THREADS);
                assert!(barrier.wait());
            }
        }));
    }

    #[test]
    fn a_broken_barrier_holds_nobody() {
        let team = Team::new(2, Duration::ZERO, &[]).expect("threads");
        let barrier = Barrier::new(2);
        assert!(team.run(&|t| if t == 1 { barrier.break_it() } else { assert!(!barrier.wait()) }));
        barrier.reset();
        assert!(team.run(&|_| assert!(barrier.wait())));
    }

    #[test]
    fn a_busy_team_refuses_a_second_region() {
        let team = Team::new(2, Duration::ZERO, &[]).expect("threads");
        assert!(team.run(&|t| if t == 0 {
            assert!(!team.run(&|_| {}));
        }));
    }
}
