//! Facts about this process.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

/// Largest resident set so far, in MiB; 0 where the system does not tell.
pub(crate) fn peak_rss_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    peak_of(&status).map_or(0.0, |kib| kib as f64 / 1024.0)
}

fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Nanoseconds since 1970, comparable between processes.
pub(crate) fn wall_clock_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_high_water_mark() {
        assert_eq!(peak_of("VmPeak:\t 9 kB\nVmHWM:\t    2048 kB\nVmRSS: 1 kB\n"), Some(2048));
        assert_eq!(peak_of("VmRSS: 1 kB\n"), None);
    }
}
