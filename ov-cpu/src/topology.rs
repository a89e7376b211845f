//! Processors, their NUMA nodes and siblings, as sysfs tells, within the affinity mask and the cgroup's quota.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::affinity;

/// One logical processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Number in the operating system.
    pub id: usize,
    /// NUMA node.
    pub node: usize,
    /// Physical core, unique over all packages.
    pub core: usize,
    /// Whether this is the first logical processor of its core among those that may be used.
    pub first_of_core: bool,
}

/// What may be used of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Usable processors: every core's first logical processor, then its siblings.
    pub processors: Vec<Processor>,
    /// Whole processors' worth of time that the cgroup allows, if it sets a quota.
    pub quota: Option<usize>,
}

impl Topology {
    /// The topology of this machine as this process may use it.
    #[must_use]
    pub fn detect() -> Self {
        Self::read(Path::new("/sys"), Path::new("/proc"), &affinity::allowed_processors())
    }

    /// The topology that the trees under `sys` and `proc` describe, restricted to `allowed` processors.
    #[must_use]
    pub fn read(sys: &Path, proc: &Path, allowed: &[usize]) -> Self {
        let mut processors: Vec<Processor> = allowed
            .iter()
            .map(|id| {
                let topology = sys.join(format!("devices/system/cpu/cpu{id}/topology"));
                let siblings = read_list(&topology.join("thread_siblings_list"));
                Processor {
                    id: *id,
                    node: node_of(sys, *id),
                    core: siblings.first().copied().unwrap_or(*id),
                    first_of_core: false,
                }
            })
            .collect();
        let mut seen = Vec::new();
        for p in &mut processors {
            p.first_of_core = !seen.contains(&p.core);
            seen.push(p.core);
        }
        processors.sort_by_key(|p| (!p.first_of_core, p.id));
        Self { processors, quota: quota(sys, proc) }
    }

    /// Threads that a latency stream uses: one per physical core, at most the quota, at least one.
    #[must_use]
    pub fn latency_threads(&self) -> usize {
        let cores = self.processors.iter().filter(|p| p.first_of_core).count();
        self.limit(cores)
    }

    /// Number of NUMA nodes with usable processors.
    #[must_use]
    pub fn nodes(&self) -> usize {
        let mut nodes: Vec<usize> = self.processors.iter().map(|p| p.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.len().max(1)
    }

    /// `threads`, at most the processors and the quota, at least one.
    #[must_use]
    pub fn limit(&self, threads: usize) -> usize {
        threads.min(self.processors.len()).min(self.quota.unwrap_or(usize::MAX)).max(1)
    }
}

/// Numbers in a list such as `0-3,8`.
fn parse_list(text: &str) -> Vec<usize> {
    text.trim()
        .split(',')
        .filter_map(|part| match part.split_once('-') {
            None => part.parse().ok().map(|n| n..=n),
            Some((lo, hi)) => Some(lo.parse().ok()?..=hi.parse().ok()?),
        })
        .filter(|r: &std::ops::RangeInclusive<usize>| r.end().saturating_sub(*r.start()) < 1 << 16)
        .flatten()
        .collect()
}

fn read_list(path: &Path) -> Vec<usize> {
    fs::read_to_string(path).map(|t| parse_list(&t)).unwrap_or_default()
}

fn node_of(sys: &Path, cpu: usize) -> usize {
    let Ok(entries) = fs::read_dir(sys.join(format!("devices/system/cpu/cpu{cpu}"))) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .find_map(|e| {
            e.file_name().to_string_lossy().strip_prefix("node").and_then(|n| n.parse().ok())
        })
        .unwrap_or(0)
}

/// The smallest CPU quota of this process's cgroup and those above it, rounded up to whole processors.
fn quota(sys: &Path, proc: &Path) -> Option<usize> {
    let membership = fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
    let root = sys.join("fs/cgroup");
    let mut quotas: Vec<usize> = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let hierarchy: PathBuf = match controllers {
            "" => root.clone(),
            c if c.split(',').any(|c| c == "cpu") => root.join(c),
            _ => continue,
        };
        let group = hierarchy.join(path.trim_start_matches('/'));
        // Inside a container the path is often that of the host, and the group itself is mounted at the root.
        for folder in group.ancestors().take_while(|a| a.starts_with(&hierarchy)) {
            quotas.extend(group_quota(folder));
        }
    }
    quotas.into_iter().min()
}

fn group_quota(folder: &Path) -> Option<usize> {
    let (quota, period) = match fs::read_to_string(folder.join("cpu.max")) {
        Ok(text) => {
            let mut fields = text.split_whitespace();
            (fields.next()?.parse::<f64>().ok()?, fields.next()?.parse::<f64>().ok()?)
        }
        Err(_) => {
            let number =
                |name| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<f64>().ok();
            (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
        }
    };
    (quota > 0.0 && period > 0.0).then(|| (quota / period).ceil().max(1.0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, text).expect("written");
    }

    #[test]
    fn physical_cores_come_first_and_nodes_are_found() {
        let dir = tempfile::tempdir().expect("temporary folder");
        for cpu in 0..4 {
            let first = cpu % 2;
            let topology = format!("devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            write(dir.path(), &topology, &format!("{first},{}\n", first + 2));
            write(dir.path(), &format!("devices/system/cpu/cpu{cpu}/node{first}/x"), "");
        }
        let t = Topology::read(dir.path(), dir.path(), &[0, 1, 2, 3]);
        assert_eq!(t.processors.iter().map(|p| p.id).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(t.processors.iter().map(|p| p.node).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert_eq!(t.latency_threads(), 2);
        let t = Topology::read(dir.path(), dir.path(), &[2, 3]);
        assert_eq!(
            t.latency_threads(),
            2,
            "siblings whose first processor is masked out count as cores"
        );
    }

    #[test]
    fn the_tightest_quota_of_the_hierarchy_counts() {
        let dir = tempfile::tempdir().expect("temporary folder");
        write(dir.path(), "self/cgroup", "0::/a/b\n");
        write(dir.path(), "fs/cgroup/a/cpu.max", "150000 100000\n");
        write(dir.path(), "fs/cgroup/a/b/cpu.max", "max 100000\n");
        assert_eq!(quota(dir.path(), dir.path()), Some(2));
        write(dir.path(), "fs/cgroup/cpu.max", "50000 100000\n");
        assert_eq!(quota(dir.path(), dir.path()), Some(1));
        let t = Topology::read(dir.path(), dir.path(), &[0, 1, 2]);
        assert_eq!(t.latency_threads(), 1);
    }

    #[test]
    fn lists_have_ranges() {
        assert_eq!(parse_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_list("x,3"), [3]);
    }
}
