//! The processors that this process may use.
#![allow(unsafe_code, reason = "asks the operating system for the affinity mask")]

/// Processors in the affinity mask of the calling thread, ascending; every processor where there is no such mask.
#[must_use]
pub fn allowed_processors() -> Vec<usize> {
    let all =
        || (0..std::thread::available_parallelism().map_or(1, usize::from)).collect::<Vec<_>>();
    #[cfg(target_os = "linux")]
    {
        // SAFETY: a zeroed cpu_set_t is a valid empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is a writable cpu_set_t of the size given; 0 is the calling thread.
        let failed =
            unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        if failed == 0 {
            let count = 8 * size_of::<libc::cpu_set_t>();
            // SAFETY: `cpu` is below the number of bits in the set.
            let allowed: Vec<usize> =
                (0..count).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect();
            if !allowed.is_empty() {
                return allowed;
            }
        }
        all()
    }
    #[cfg(not(target_os = "linux"))]
    all()
}

/// Binds the calling thread to these processors; false when the system refuses or has no such call.
pub fn bind_to(processors: &[usize]) -> bool {
    #[cfg(target_os = "linux")]
    {
        let Some(set) = set_of(processors) else { return false };
        // SAFETY: `set` is a cpu_set_t of the size given; 0 is the calling thread.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _unused = processors;
        false
    }
}

/// Binds another thread to these processors; false as [`bind_to`].
pub(crate) fn bind_thread<T>(thread: &std::thread::JoinHandle<T>, processors: &[usize]) -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::thread::JoinHandleExt;
        let Some(set) = set_of(processors) else { return false };
        let (id, size) = (thread.as_pthread_t(), size_of::<libc::cpu_set_t>());
        // SAFETY: the handle keeps the thread's identifier valid, and `set` is a cpu_set_t of the size given.
        unsafe { libc::pthread_setaffinity_np(id, size, &raw const set) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _unused = (thread, processors);
        false
    }
}

#[cfg(target_os = "linux")]
fn set_of(processors: &[usize]) -> Option<libc::cpu_set_t> {
    if processors.iter().any(|id| *id >= 8 * size_of::<libc::cpu_set_t>()) {
        return None;
    }
    // SAFETY: a zeroed cpu_set_t is a valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for id in processors {
        // SAFETY: `id` is below the number of bits in the set, checked above.
        unsafe { libc::CPU_SET(*id, &mut set) };
    }
    Some(set)
}

/// The processor that the calling thread runs on right now, where the system tells.
#[must_use]
pub fn current_processor() -> Option<usize> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the call has no preconditions.
        usize::try_from(unsafe { libc::sched_getcpu() }).ok()
    }
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_the_running_processor_is_allowed() {
        let allowed = allowed_processors();
        assert!(!allowed.is_empty());
        assert!(allowed.is_sorted());
    }

    #[test]
    fn a_bound_thread_stays_where_it_was_bound() {
        let last = *allowed_processors().last().expect("at least one");
        let there = std::thread::spawn(move || {
            assert!(bind_to(&[last]) || cfg!(not(target_os = "linux")));
            (allowed_processors(), current_processor())
        });
        let (allowed, current) = there.join().expect("runs");
        if cfg!(target_os = "linux") {
            assert_eq!((allowed, current), (vec![last], Some(last)));
        }
        assert!(!bind_to(&[]), "nowhere");
        assert!(!bind_to(&[usize::MAX]));
    }

    #[test]
    fn a_thread_is_bound_from_outside() {
        let last = *allowed_processors().last().expect("at least one");
        let (bound, wait) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            wait.recv().expect("is bound");
            allowed_processors()
        });
        assert_eq!(bind_thread(&thread, &[last]), cfg!(target_os = "linux"));
        bound.send(()).expect("waits");
        let there = thread.join().expect("runs");
        assert!(there == [last] || cfg!(not(target_os = "linux")));
    }
}
