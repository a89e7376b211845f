//! The threads that compile: a rayon pool of this crate's own, made when the first model needs it.

use std::sync::{Arc, Mutex, PoisonError};

use ov_core::io::BackgroundThread;
use rayon::{ThreadPool, ThreadPoolBuilder};

static POOL: Mutex<Option<Arc<ThreadPool>>> = Mutex::new(None);

/// Runs `work` with `threads` threads to share it; on the calling thread alone where the system gives none.
///
/// Threads are of their maker's priority: a pool of the background serves one compile and is gone.
pub(crate) fn run<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    let pool = if BackgroundThread::is_current() { made(threads) } else { kept(threads) };
    match pool {
        Some(pool) => pool.install(work),
        None => work(),
    }
}

fn kept(threads: usize) -> Option<Arc<ThreadPool>> {
    let mut held = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if held.as_ref().is_none_or(|pool| pool.current_num_threads() != threads) {
        *held = made(threads);
    }
    held.clone()
}

fn made(threads: usize) -> Option<Arc<ThreadPool>> {
    let name = |i| format!("ov-cpu-compile-{i}");
    ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build().ok().map(Arc::new)
}
