//! Facts about this process.

use std::{
    fs,
    sync::OnceLock,
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

static MAIN_NS: OnceLock<u64> = OnceLock::new();

/// Notes that the program has begun; the first call counts.
pub(crate) fn began() {
    MAIN_NS.get_or_init(wall_clock_ns);
}

/// When the program began, in nanoseconds since 1970.
pub(crate) fn began_ns() -> u64 {
    MAIN_NS.get().copied().unwrap_or_default()
}

/// Memory in MiB that this process shares with no other: what it wrote, and files that nobody else maps; 0 where the
/// system does not tell.
pub(crate) fn private_mb() -> f64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    private_of(&rollup) as f64 / 1024.0
}

/// Memory in MiB that this process has written; 0 where the system does not tell.
pub(crate) fn dirty_mb() -> f64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let dirty = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
    let count = dirty.and_then(|d| d.split_whitespace().next()?.parse::<u64>().ok());
    count.unwrap_or(0) as f64 / 1024.0
}

fn private_of(rollup: &str) -> u64 {
    let private = rollup.lines().filter_map(|line| {
        let count = line
            .strip_prefix("Private_Clean:")
            .or_else(|| line.strip_prefix("Private_Dirty:"))
            .or_else(|| line.strip_prefix("Private_Hugetlb:"))?;
        count.split_whitespace().next()?.parse::<u64>().ok()
    });
    private.sum()
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
        assert_eq!(private_of("Rss: 9 kB\nPrivate_Clean: 3 kB\nPrivate_Dirty:   4 kB\n"), 7);
    }
}
