//! Threads for work that must not disturb what is being waited for.

use std::{
    cell::Cell,
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

/// Starts threads that run only where nothing else wants to: in the idle scheduling class, on the last quarter of the
/// processors that the process may use. What they start inherits both.
///
/// On two processors, one such thread that computes leaves the latency of inferences beside it as it was in the median
/// and within half as much again at the 99th percentile; at normal priority it doubles to decuples the latter. Where the
/// system has no idle class, the threads are ordinary ones. A thread that gets next to nothing for five seconds becomes
/// an ordinary one of low priority, so that its work ends on a busy machine too.
#[derive(Clone, Copy, Debug)]
pub struct BackgroundThread;

impl BackgroundThread {
    /// Threads that work in the background should use at most: a quarter of those that the process may use.
    #[must_use]
    pub fn limit() -> usize {
        (thread::available_parallelism().map_or(1, usize::from) / 4).max(1)
    }

    /// Whether the calling thread is such a thread. What is made to be kept, such as a pool of threads, should then not
    /// be kept for others.
    #[must_use]
    pub fn is_current() -> bool {
        IS_BACKGROUND.get()
    }

    /// Runs `work` on such a thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn spawn<T: Send + 'static>(
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<thread::JoinHandle<T>> {
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            IS_BACKGROUND.set(true);
            let (_running, ended) = sync_channel::<()>(0);
            match step_back() {
                Some(id) => {
                    let escort = thread::Builder::new().name("ov-escort".to_owned());
                    if let Err(error) = escort.spawn(move || keep_going(id, &ended)) {
                        tracing::debug!(%error, "nobody sees to it that background work gets on");
                    }
                }
                None => tracing::debug!("background work runs at normal priority"),
            }
            work()
        })
    }
}

thread_local! {
    static IS_BACKGROUND: Cell<bool> = const { Cell::new(false) };
}

/// How long a thread may get less than a hundredth of a processor.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes a thread an ordinary one once it is starved; returns when it ends.
fn keep_going(id: i32, ended: &Receiver<()>) {
    let mut before = ticks(id);
    while ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        let Some((is_runnable, now)) = ticks(id) else { return };
        // A tick is a hundredth of a second.
        let hundredth = PATIENCE.as_secs();
        if is_runnable && before.is_some_and(|(_, b)| now.saturating_sub(b) < hundredth) {
            tracing::debug!("background work is starved and becomes ordinary");
            step_forward(id);
            return;
        }
        before = Some((is_runnable, now));
    }
}

/// Whether a thread could run, and its processor time in ticks, from `/proc/self/task/<id>/stat` (proc(5)).
fn ticks(id: i32) -> Option<(bool, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_runnable = fields.next()? == "R";
    let mut times = fields.skip(10).map(str::parse::<u64>);
    Some((is_runnable, times.next()?.ok()? + times.next()?.ok()?))
}

/// Puts the calling thread into the idle class and onto the last processors, and gives its number; nothing when the
/// system refuses.
#[cfg(target_os = "linux")]
fn step_back() -> Option<i32> {
    // SAFETY: a zeroed cpu_set_t is a valid empty set.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: `allowed` is a writable cpu_set_t of the size given; 0 is the calling thread.
    let known = unsafe { libc::sched_getaffinity(0, size, &raw mut allowed) } == 0;
    // SAFETY: every number is below the number of bits in the set.
    let is_allowed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &allowed) };
    let processors: Vec<usize> = (0..8 * size).filter(is_allowed).collect();
    if known && processors.len() > 1 {
        let count = (processors.len() / 4).max(1);
        // SAFETY: as above.
        let mut last: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        for cpu in &processors[processors.len() - count..] {
            // SAFETY: `cpu` came out of a set of the same size.
            unsafe { libc::CPU_SET(*cpu, &mut last) };
        }
        // SAFETY: `last` is a cpu_set_t of the size given; 0 is the calling thread.
        if unsafe { libc::sched_setaffinity(0, size, &raw const last) } != 0 {
            tracing::debug!("background work stays on every processor");
        }
    }
    // SAFETY: a zeroed sched_param has priority 0, the only one of the idle class.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: `parameters` is a valid sched_param; 0 is the calling thread.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    // SAFETY: gettid has no preconditions.
    (set == 0).then(|| unsafe { libc::gettid() })
}

/// Makes a thread of the idle class an ordinary one of low priority.
#[cfg(target_os = "linux")]
fn step_forward(id: i32) {
    // SAFETY: a zeroed sched_param has priority 0, the only one of the ordinary class.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: `parameters` is a valid sched_param; a number that is no thread any more is refused.
    let set = unsafe { libc::sched_setscheduler(id, libc::SCHED_OTHER, &raw const parameters) };
    // SAFETY: takes numbers only.
    let nice = unsafe { libc::setpriority(libc::PRIO_PROCESS, id.unsigned_abs(), 10) };
    if set != 0 || nice != 0 {
        tracing::debug!("the system leaves background work in the idle class");
    }
}

/// There is no such class here.
#[cfg(not(target_os = "linux"))]
fn step_back() -> Option<i32> {
    None
}

#[cfg(not(target_os = "linux"))]
fn step_forward(_: i32) {}

#[cfg(test)]
mod tests {
    use super::BackgroundThread;

    #[test]
    fn work_runs_and_its_result_comes_back() {
        let thread = BackgroundThread::spawn("background", || 6 * 7).expect("a thread");
        assert_eq!(thread.join().expect("no panic"), 42);
        assert!(BackgroundThread::limit() >= 1);
        let inside = BackgroundThread::spawn("background", BackgroundThread::is_current);
        assert!(inside.expect("a thread").join().expect("no panic"));
        assert!(!BackgroundThread::is_current());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_time_of_a_thread_grows_with_its_work() {
        // SAFETY: gettid has no preconditions.
        let id = unsafe { libc::gettid() };
        let (is_runnable, before) = super::ticks(id).expect("a thread");
        assert!(is_runnable);
        let mut x = 1.0f64;
        while super::ticks(id).expect("a thread").1 < before + 3 {
            x = std::hint::black_box(x * 1.000_1);
        }
        assert!(super::ticks(-1).is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_are_in_the_idle_class_and_pass_it_on() {
        // SAFETY: 0 is the calling thread.
        let class = || unsafe { libc::sched_getscheduler(0) };
        let both = BackgroundThread::spawn("background", move || {
            (class(), std::thread::spawn(class).join().expect("no panic"))
        });
        assert_eq!(
            both.expect("a thread").join().expect("no panic"),
            (libc::SCHED_IDLE, libc::SCHED_IDLE)
        );
        assert_ne!(class(), libc::SCHED_IDLE);
    }
}
