//! Topologies of real machines, read from trees like theirs.

use super::{machines::*, *};

fn ids(topology: &Topology) -> Vec<usize> {
    topology.processors.iter().map(|p| p.id).collect()
}

fn node(topology: &Topology, node: usize) -> String {
    topology.restricted(|p| p.node == node).ids().to_text()
}

#[test]
fn machines_are_read_as_they_are() {
    // Machine, processors, P cores, E cores, processors of the two nodes, quota.
    for (machine, processors, performance, efficiency, nodes, quota) in [
        (TWO_SOCKETS, 128, 64, 0, ["0-31,64-95", "32-63,96-127"], None),
        (SMT_OFF, 32, 32, 0, ["0-15", "16-31"], None),
        (HYBRID, 16, 4, 8, ["0-15", ""], None),
        (HYBRID_DESKTOP, 24, 8, 8, ["0-23", ""], None),
        (BIG_LITTLE, 8, 4, 4, ["0-7", ""], None),
        (CONTAINER_V1, 8, 4, 0, ["0-3,64-67", ""], Some(3)),
        (CONTAINER_V2, 8, 4, 0, ["0-3,64-67", ""], Some(3)),
        (plain(1), 1, 1, 0, ["0", ""], None),
    ] {
        let t = machine.topology();
        assert_eq!(t.processors.len(), processors, "{}", machine.name);
        assert_eq!(t.cores_of(CoreType::Performance), performance, "{}", machine.name);
        assert_eq!(t.cores_of(CoreType::Efficiency), efficiency, "{}", machine.name);
        assert_eq!(t.cores(), performance + efficiency, "{}", machine.name);
        assert_eq!([node(&t, 0), node(&t, 1)], nodes, "{}", machine.name);
        assert_eq!(t.quota, quota, "{}", machine.name);
        assert_eq!(t.limit(usize::MAX), quota.unwrap_or(processors), "{}", machine.name);
    }
    let t = INTERLEAVED.topology();
    assert_eq!((t.cores(), t.processors.len()), (40, 80));
    assert!(t.processors.iter().all(|p| p.node == p.id % 2));
}

#[test]
fn processors_to_prefer_come_first() {
    let t = TWO_SOCKETS.topology();
    assert!(ids(&t).is_sorted(), "every core's first processor, then siblings");
    let t = HYBRID.topology();
    assert_eq!(ids(&t), [0, 2, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15, 1, 3, 5, 7]);
    let t = BIG_LITTLE.topology();
    assert_eq!(ids(&t), [4, 5, 6, 7, 0, 1, 2, 3]);
}

#[test]
fn siblings_whose_first_processor_is_left_out_count_as_cores() {
    let t = TWO_SOCKETS.topology().restricted(|p| p.id >= 64);
    assert_eq!((t.cores(), t.processors.len()), (64, 64));
}

#[test]
fn a_machine_that_tells_nothing_has_equal_cores_on_one_node() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let t = Topology::read(dir.path(), dir.path(), &[3, 1]);
    assert_eq!(ids(&t), [1, 3]);
    assert_eq!((t.cores(), t.quota), (2, None));
    assert!(t.processors.iter().all(|p| p.node == 0 && p.core_type == CoreType::Performance));
}

#[test]
fn the_tightest_quota_of_the_hierarchy_counts() {
    for (files, expected) in [
        (&[("self/cgroup", "0::/a/b\n"), ("fs/cgroup/a/cpu.max", "150000 100000\n")][..], Some(2)),
        (
            &[
                ("self/cgroup", "0::/a/b\n"),
                ("fs/cgroup/a/b/cpu.max", "max 100000\n"),
                ("fs/cgroup/a/cpu.max", "800000 100000\n"),
                ("fs/cgroup/cpu.max", "50000 100000\n"),
            ],
            Some(1),
        ),
        (&[("self/cgroup", "0::/a\n"), ("fs/cgroup/a/cpu.max", "max 100000\n")], None),
        (
            &[
                ("self/cgroup", "4:cpu,cpuacct:/kubepods/pod1/c1\n"),
                ("fs/cgroup/cpu,cpuacct/kubepods/pod1/cpu.cfs_quota_us", "400000\n"),
                ("fs/cgroup/cpu,cpuacct/kubepods/pod1/cpu.cfs_period_us", "100000\n"),
                ("fs/cgroup/cpu,cpuacct/kubepods/pod1/c1/cpu.cfs_quota_us", "-1\n"),
                ("fs/cgroup/cpu,cpuacct/kubepods/pod1/c1/cpu.cfs_period_us", "100000\n"),
            ],
            Some(4),
        ),
        // Controllers that are mounted one by one under the names of both.
        (
            &[
                ("self/cgroup", "4:cpuacct,cpu:/\n"),
                ("fs/cgroup/cpu/cpu.cfs_quota_us", "20000\n"),
                ("fs/cgroup/cpu/cpu.cfs_period_us", "10000\n"),
            ],
            Some(2),
        ),
        (&[("self/cgroup", "5:cpuset:/a\n"), ("fs/cgroup/cpuset/cpu.max", "1 1\n")], None),
        (&[("self/cgroup", "0::/\n"), ("fs/cgroup/cpu.max", "x y\n")], None),
    ] {
        let dir = tempfile::tempdir().expect("temporary folder");
        for (path, text) in files {
            write(dir.path(), path, text);
        }
        assert_eq!(quota(dir.path(), dir.path()), expected, "{files:?}");
    }
}
