//! How much memory this process may have.

use std::sync::OnceLock;

/// Bytes that this process can have at most: the machine's memory, or less where the control group or the address-space
/// limit (`ulimit -v`) says so. Read once; `usize::MAX` where none of them is known.
///
/// Results whose size is known before they are made are compared with it, so that a model that asks for more is refused
/// with an error instead of ending the process.
#[must_use]
pub fn memory_limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        [
            machine(&read("/proc/meminfo")),
            read("/sys/fs/cgroup/memory.max").trim().parse().ok(),
            address_space(&read("/proc/self/limits")),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(usize::MAX)
    })
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn machine(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// The soft limit of `/proc/self/limits`.
fn address_space(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|l| l.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_the_files_of_the_system() {
        assert_eq!(machine("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!(machine("MemTotal: lots\n"), None);
        let limits =
            "Limit  Soft Limit Hard Limit Units\nMax address space 536870912 unlimited bytes\n";
        assert_eq!(address_space(limits), Some(512 << 20));
        assert_eq!(address_space("Max address space unlimited unlimited bytes\n"), None);
        assert!(memory_limit() > 1 << 20);
    }
}
