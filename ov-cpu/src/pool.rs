//! The threads that compile: a rayon pool of this crate's own, made when the first model needs it.

use std::sync::{Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

static POOL: Mutex<Option<(usize, std::sync::Arc<ThreadPool>)>> = Mutex::new(None);

/// Runs `work` with `threads` threads to share it; on the calling thread alone where the system gives none.
pub(crate) fn run<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    let pool = {
        let mut held = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some((n, pool)) if *n == threads => Some(std::sync::Arc::clone(pool)),
            _ => {
                let made = ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .thread_name(|i| format!("ov-cpu-compile-{i}"))
                    .build()
                    .ok()
                    .map(std::sync::Arc::new);
                *held = made.clone().map(|p| (threads, p));
                made
            }
        }
    };
    match pool {
        Some(pool) => pool.install(work),
        None => work(),
    }
}
