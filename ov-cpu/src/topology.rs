//! Processors, their NUMA nodes, siblings and core types, as sysfs tells, within the affinity mask and the cgroup's quota.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use ov_core::property::{ProcessorSet, PropertyValue};

use crate::affinity;

/// What kind of core of a hybrid processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CoreType {
    /// A fast one (P core, big), or one of a processor that has one kind only.
    Performance,
    /// A small one (E core, LITTLE).
    Efficiency,
}

/// One logical processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Number in the operating system.
    pub id: usize,
    /// NUMA node.
    pub node: usize,
    /// Physical core, unique over all packages.
    pub core: usize,
    /// Kind of that core.
    pub core_type: CoreType,
    /// Whether this is the first logical processor of its core among those that may be used.
    pub first_of_core: bool,
}

/// What may be used of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Usable processors, those to prefer first: the first logical processor of every performance core, then of every
    /// efficiency core, then siblings.
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
        let cpus = sys.join("devices/system/cpu");
        let nodes = nodes(sys);
        let efficient = efficiency_cores(sys, &cpus, allowed);
        let processors = allowed.iter().map(|id| {
            let siblings = read_set(&cpus.join(format!("cpu{id}/topology/thread_siblings_list")));
            let node = nodes.iter().find(|(_, set)| set.contains(*id)).map_or(0, |(node, _)| *node);
            Processor {
                id: *id,
                node,
                core: siblings.ids().first().copied().unwrap_or(*id),
                core_type: if efficient.contains(*id) {
                    CoreType::Efficiency
                } else {
                    CoreType::Performance
                },
                first_of_core: false,
            }
        });
        Self::of(processors.collect(), quota(sys, proc))
    }

    fn of(mut processors: Vec<Processor>, quota: Option<usize>) -> Self {
        processors.sort_by_key(|p| p.id);
        let mut seen = BTreeSet::new();
        for p in &mut processors {
            p.first_of_core = seen.insert(p.core);
        }
        processors.sort_by_key(|p| (!p.first_of_core, p.core_type, p.id));
        Self { processors, quota }
    }

    /// The part of it whose processors `keep` holds for.
    #[must_use]
    pub fn restricted(&self, keep: impl Fn(&Processor) -> bool) -> Self {
        let kept = self.processors.iter().filter(|p| keep(p)).cloned().collect();
        Self::of(kept, self.quota)
    }

    /// The processors, without their order.
    #[must_use]
    pub fn ids(&self) -> ProcessorSet {
        self.processors.iter().map(|p| p.id).collect()
    }

    /// Number of physical cores.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.processors.iter().filter(|p| p.first_of_core).count()
    }

    /// Number of physical cores of a type.
    #[must_use]
    pub fn cores_of(&self, core_type: CoreType) -> usize {
        self.processors.iter().filter(|p| p.first_of_core && p.core_type == core_type).count()
    }

    /// `threads`, at most the processors and the quota, at least one.
    #[must_use]
    pub fn limit(&self, threads: usize) -> usize {
        threads.min(self.processors.len()).min(self.quota.unwrap_or(usize::MAX)).max(1)
    }
}

fn read_set(path: &Path) -> ProcessorSet {
    let text = fs::read_to_string(path).unwrap_or_default();
    ProcessorSet::parse_text(&text).unwrap_or_default()
}

/// NUMA nodes with their processors.
fn nodes(sys: &Path) -> Vec<(usize, ProcessorSet)> {
    let Ok(entries) = fs::read_dir(sys.join("devices/system/node")) else { return Vec::new() };
    let node = |name: &str| name.strip_prefix("node")?.parse().ok();
    entries
        .filter_map(Result::ok)
        .filter_map(|e| Some((node(&e.file_name().to_string_lossy())?, e.path().join("cpulist"))))
        .map(|(node, list)| (node, read_set(&list)))
        .collect()
}

/// Processors of efficiency cores: Intel's hybrid processors have a performance monitoring unit per core type, which
/// lists its processors; elsewhere the scheduler's capacities tell.
fn efficiency_cores(sys: &Path, cpus: &Path, allowed: &[usize]) -> ProcessorSet {
    let unit = |name: &str| read_set(&sys.join("devices").join(name).join("cpus"));
    if !unit("cpu_core").is_empty() {
        let small = [unit("cpu_atom"), unit("cpu_lowpower")];
        return small.iter().flat_map(ProcessorSet::ids).copied().collect();
    }
    let capacity = |id: &usize| -> Option<u32> {
        fs::read_to_string(cpus.join(format!("cpu{id}/cpu_capacity"))).ok()?.trim().parse().ok()
    };
    let capacities: Option<Vec<u32>> = allowed.iter().map(capacity).collect();
    let Some(capacities) = capacities else { return ProcessorSet::default() };
    let most = capacities.iter().copied().max().unwrap_or(0);
    let small = |capacity: u32| u64::from(capacity) * 4 < u64::from(most) * 3;
    allowed.iter().zip(capacities).filter(|(_, c)| small(*c)).map(|(id, _)| *id).collect()
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
            c if c.split(',').any(|c| c == "cpu") => {
                Some(root.join(c)).filter(|h| h.is_dir()).unwrap_or_else(|| root.join("cpu"))
            }
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
pub(crate) mod machines;
#[cfg(test)]
mod tests;
