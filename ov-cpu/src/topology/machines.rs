//! What sysfs shows on machines that exist, as tables, for tests.

use std::{fs, path::Path};

use ov_core::property::{ProcessorSet, PropertyValue};

use super::Topology;

/// A machine, or what a container shows of one.
#[derive(Clone, Copy)]
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    /// `devices/system/node/node*/cpulist`.
    nodes: &'static [&'static str],
    /// `devices/system/cpu/cpu*/topology/thread_siblings_list`.
    siblings: fn(usize) -> String,
    /// `devices/*/cpus`.
    units: &'static [(&'static str, &'static str)],
    /// `devices/system/cpu/cpu*/cpu_capacity`.
    capacities: &'static [(&'static str, u32)],
    /// Files of `/proc` and `/sys/fs/cgroup` by their paths below `/proc` and `/sys`.
    cgroup: &'static [(&'static str, &'static str)],
    /// The affinity mask; empty is every processor.
    allowed: &'static str,
}

fn alone(cpu: usize) -> String {
    cpu.to_string()
}

/// Two Xeon 8375C (Ice Lake) of 32 cores with hyper-threading: AWS c6i.metal.
pub(crate) const TWO_SOCKETS: Machine = Machine {
    name: "c6i.metal",
    nodes: &["0-31,64-95", "32-63,96-127"],
    siblings: |cpu| format!("{},{}", cpu % 64, cpu % 64 + 64),
    units: &[],
    capacities: &[],
    cgroup: &[("self/cgroup", "0::/user.slice/user-1000.slice/session-1.scope\n")],
    allowed: "",
};

/// Two Xeon Gold 6148 of 20 cores in a Dell R640, whose firmware numbers processors in turns.
pub(crate) const INTERLEAVED: Machine = Machine {
    name: "PowerEdge R640",
    nodes: &[
        "0,2,4,6,8,10,12,14,16,18,20,22,24,26,28,30,32,34,36,38,40,42,44,46,48,50,52,54,56,58,60,62,64,66,68,70,72,74,76,78",
        "1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39,41,43,45,47,49,51,53,55,57,59,61,63,65,67,69,71,73,75,77,79",
    ],
    siblings: |cpu| format!("{},{}", cpu % 40, cpu % 40 + 40),
    ..TWO_SOCKETS
};

/// Two EPYC 7313 of 16 cores, booted with `nosmt`: siblings are offline.
pub(crate) const SMT_OFF: Machine = Machine {
    name: "two EPYC 7313, nosmt",
    nodes: &["0-15", "16-31"],
    siblings: alone,
    ..TWO_SOCKETS
};

/// Core i7-1260P (Alder Lake): 4 P cores with hyper-threading and 8 E cores.
pub(crate) const HYBRID: Machine = Machine {
    name: "i7-1260P",
    nodes: &["0-15"],
    siblings: |cpu| if cpu < 8 { format!("{}-{}", cpu & !1, cpu | 1) } else { alone(cpu) },
    units: &[("cpu_core", "0-7"), ("cpu_atom", "8-15")],
    ..TWO_SOCKETS
};

/// Core i9-12900K (Alder Lake): 8 P cores with hyper-threading and 8 E cores.
pub(crate) const HYBRID_DESKTOP: Machine = Machine {
    name: "i9-12900K",
    nodes: &["0-23"],
    siblings: |cpu| if cpu < 16 { format!("{}-{}", cpu & !1, cpu | 1) } else { alone(cpu) },
    units: &[("cpu_core", "0-15"), ("cpu_atom", "16-23")],
    ..TWO_SOCKETS
};

/// RK3588: four Cortex-A55 and four Cortex-A76, which the scheduler's capacities tell apart.
pub(crate) const BIG_LITTLE: Machine = Machine {
    name: "RK3588",
    nodes: &["0-7"],
    siblings: alone,
    capacities: &[("0-3", 414), ("4-7", 1024)],
    ..TWO_SOCKETS
};

/// `docker run --cpuset-cpus=0-3,64-67 --cpus=2.5` on [`TWO_SOCKETS`] with cgroup v1: the path is the host's, the
/// group is mounted at the root.
pub(crate) const CONTAINER_V1: Machine = Machine {
    name: "container, cgroup v1",
    cgroup: &[
        (
            "self/cgroup",
            "11:cpuset:/docker/4f1a\n4:cpu,cpuacct:/docker/4f1a\n1:name=systemd:/docker/4f1a\n0::/docker/4f1a\n",
        ),
        ("fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n"),
        ("fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
    ],
    allowed: "0-3,64-67",
    ..TWO_SOCKETS
};

/// The same with cgroup v2 and a namespace of its own.
pub(crate) const CONTAINER_V2: Machine = Machine {
    name: "container, cgroup v2",
    cgroup: &[
        ("self/cgroup", "0::/\n"),
        ("fs/cgroup/cpu.max", "250000 100000\n"),
        ("fs/cgroup/cpuset.cpus.effective", "0-3,64-67\n"),
    ],
    allowed: "0-3,64-67",
    ..TWO_SOCKETS
};

/// A virtual machine of one, two or eight processors that shows neither siblings nor quotas.
pub(crate) fn plain(processors: usize) -> Machine {
    let nodes: &[&str] = match processors {
        1 => &["0"],
        2 => &["0-1"],
        _ => &["0-7"],
    };
    Machine { name: "virtual machine", nodes, siblings: alone, ..TWO_SOCKETS }
}

pub(super) fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("below the root")).expect("made");
    fs::write(path, text).expect("written");
}

fn set(text: &str) -> ProcessorSet {
    ProcessorSet::parse_text(text).expect("a list of processors")
}

impl Machine {
    /// Its topology, read from a tree of files.
    pub(crate) fn topology(&self) -> Topology {
        let dir = tempfile::tempdir().expect("temporary folder");
        let root = dir.path();
        let mut all = Vec::new();
        for (node, cpus) in self.nodes.iter().enumerate() {
            write(root, &format!("devices/system/node/node{node}/cpulist"), &format!("{cpus}\n"));
            for cpu in set(cpus).ids() {
                let path = format!("devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
                write(root, &path, &format!("{}\n", (self.siblings)(*cpu)));
                all.push(*cpu);
            }
        }
        for (unit, cpus) in self.units {
            write(root, &format!("devices/{unit}/cpus"), &format!("{cpus}\n"));
        }
        for (cpus, capacity) in self.capacities {
            for cpu in set(cpus).ids() {
                let path = format!("devices/system/cpu/cpu{cpu}/cpu_capacity");
                write(root, &path, &format!("{capacity}\n"));
            }
        }
        for (path, text) in self.cgroup {
            write(root, path, text);
        }
        let allowed = set(self.allowed);
        Topology::read(root, root, if allowed.is_empty() { &all } else { allowed.ids() })
    }
}
