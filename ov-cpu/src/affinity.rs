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

/// Binds the calling thread to one processor; false when the system refuses or has no such call.
pub fn pin_to(processor: usize) -> bool {
    #[cfg(target_os = "linux")]
    {
        if processor >= 8 * size_of::<libc::cpu_set_t>() {
            return false;
        }
        // SAFETY: a zeroed cpu_set_t is a valid empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `processor` is below the number of bits in the set, checked above.
        unsafe { libc::CPU_SET(processor, &mut set) };
        // SAFETY: `set` is a cpu_set_t of the size given; 0 is the calling thread.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _unused = processor;
        false
    }
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
}
