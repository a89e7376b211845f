//! How many streams a model has, and which processors their threads run on.
//!
//! The performance hint sets defaults, explicit values win. With `c` physical cores and `l` logical processors to choose
//! from (affinity mask, cgroup quota, `CPU_PROCESSORS`, core type, reservations of others) on `n` NUMA nodes:
//!
//! | asked | streams | threads |
//! | --- | --- | --- |
//! | nothing, LATENCY, `NUM_STREAMS=NUMA` | `n` | `c`, each stream's on its node |
//! | `THROUGHPUT`, `CUMULATIVE_THROUGHPUT`, `NUM_STREAMS=AUTO` | `l`, at most `PERFORMANCE_HINT_NUM_REQUESTS` | `l` |
//! | `NUM_STREAMS=k` | `k`, at most `l` | as the hint gives, but a lone stream's on one node |
//! | `NUM_STREAMS=0` | 0: the thread that calls, alone | 0 |
//! | `INFERENCE_NUM_THREADS=t` | as above; LATENCY on as many nodes as it takes | `t`, at most `l` |
//!
//! `NUM_STREAMS=AUTO` turns the hint into THROUGHPUT and `NUMA` into LATENCY, as in OpenVINO, and so they read back.

use std::collections::BTreeMap;

use ov_core::property::{
    ProcessorSet,
    hint::{PerformanceMode, SchedulingCoreType},
    streams::Streams,
};

use crate::topology::{CoreType, Processor, Topology};

/// What is asked for; explicit values win over what the mode gives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) mode: Option<PerformanceMode>,
    /// Requests used at the same time, 0 for any number.
    pub(crate) num_requests: usize,
    pub(crate) streams: Option<Streams>,
    /// Threads of all streams, 0 for as many as are eligible.
    pub(crate) threads: usize,
    pub(crate) core_type: Option<SchedulingCoreType>,
    pub(crate) hyper_threading: Option<bool>,
    /// Processors to choose from; empty is all.
    pub(crate) processors: ProcessorSet,
}

/// The processors of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPlace {
    /// One processor per thread, the caller's first.
    pub processors: Vec<usize>,
    /// Where its threads may be when they are not pinned: every processor of its nodes that the model may use.
    pub allowed: ProcessorSet,
    /// Whether `allowed` leaves out some processors of this process.
    pub is_confined: bool,
    /// The NUMA node, if it is one.
    pub node: Option<usize>,
}

/// What becomes of a wish on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) mode: PerformanceMode,
    /// Inferences side by side; 0 is one, on the thread that calls.
    pub(crate) streams: usize,
    /// Threads of all streams.
    pub(crate) threads: usize,
    pub(crate) core_type: SchedulingCoreType,
    pub(crate) hyper_threading: bool,
    /// One per stream, one for 0 streams.
    pub(crate) places: Vec<StreamPlace>,
}

/// The part of a machine that a wish allows.
#[derive(Debug)]
pub(crate) struct Eligible {
    pub(crate) mode: PerformanceMode,
    pub(crate) core_type: SchedulingCoreType,
    hyper_threading: bool,
    /// With siblings, unless they were ruled out: more threads than cores may be asked for.
    pub(crate) topology: Topology,
    /// Every processor of the process.
    all: ProcessorSet,
}

impl Wish {
    /// The processors to choose from, whether reserved or not.
    pub(crate) fn eligible(&self, topology: &Topology) -> Eligible {
        let mode = match self.streams {
            Some(Streams::Auto) => PerformanceMode::Throughput,
            Some(Streams::Numa) => PerformanceMode::Latency,
            _ => self.mode.unwrap_or(PerformanceMode::Latency),
        };
        let chosen =
            topology.restricted(|p| self.processors.is_empty() || self.processors.contains(p.id));
        let core_type = self.core_type(mode, &chosen);
        let of_type = chosen.restricted(|p| match core_type {
            SchedulingCoreType::AnyCore => true,
            SchedulingCoreType::PcoreOnly => p.core_type == CoreType::Performance,
            SchedulingCoreType::EcoreOnly => p.core_type == CoreType::Efficiency,
        });
        let usable = of_type.restricted(|p| self.hyper_threading != Some(false) || p.first_of_core);
        Eligible {
            mode,
            core_type,
            hyper_threading: self.hyper_threading.unwrap_or(mode != PerformanceMode::Latency),
            topology: usable,
            all: topology.ids(),
        }
    }

    /// A type that there is. Left open, a latency stream uses efficiency cores only when they are at least twice as many
    /// as performance cores, as OpenVINO does for f32, or when more threads were asked for than those have: the slowest
    /// core sets the time of a parallel step.
    fn core_type(&self, mode: PerformanceMode, chosen: &Topology) -> SchedulingCoreType {
        let [performance, efficiency] =
            [CoreType::Performance, CoreType::Efficiency].map(|t| chosen.cores_of(t));
        match self.core_type {
            Some(SchedulingCoreType::PcoreOnly) if performance == 0 => SchedulingCoreType::AnyCore,
            Some(SchedulingCoreType::EcoreOnly) if efficiency == 0 => SchedulingCoreType::AnyCore,
            Some(given) => given,
            None => {
                let fast = match self.hyper_threading {
                    Some(true) => {
                        let is_fast = |p: &&Processor| p.core_type == CoreType::Performance;
                        chosen.processors.iter().filter(is_fast).count()
                    }
                    _ => performance,
                };
                let leave_out = mode == PerformanceMode::Latency
                    && (1..2 * performance).contains(&efficiency)
                    && self.threads <= fast;
                if leave_out { SchedulingCoreType::PcoreOnly } else { SchedulingCoreType::AnyCore }
            }
        }
    }

    /// Streams, threads and processors on what is left of the eligible processors when others have `reserved` some;
    /// nothing if none is left.
    pub(crate) fn place(&self, eligible: &Eligible, reserved: &ProcessorSet) -> Option<Placement> {
        let free = eligible.topology.restricted(|p| !reserved.contains(p.id));
        if free.processors.is_empty() {
            return None;
        }
        let preferred = if eligible.hyper_threading { free.processors.len() } else { free.cores() };
        let threads = free.limit(if self.threads == 0 { preferred } else { self.threads });
        let counts = counts(&free, threads > free.cores());
        let equal = |streams: usize| {
            let largest = counts.first().copied().unwrap_or(1);
            let most = if self.threads == 0 { largest * streams } else { threads };
            let threads = threads.max(streams).min(most);
            (0..streams).map(|i| threads / streams + usize::from(i < threads % streams)).collect()
        };
        let sizes: Vec<usize> = match (self.streams, eligible.mode) {
            (None, PerformanceMode::Latency) => {
                share_out(&counts, nodes_for(&counts, threads), threads)
            }
            (Some(Streams::Numa), _) => share_out(&counts, counts.len().min(threads), threads),
            (None | Some(Streams::Auto), _) => equal(match self.num_requests {
                0 => threads,
                n => n.min(threads),
            }),
            (Some(Streams::Count(0)), _) => vec![1],
            (Some(Streams::Count(n)), _) => {
                let most = if self.threads == 0 { free.limit(usize::MAX) } else { threads };
                equal((n as usize).clamp(1, most))
            }
        };
        let (streams, threads) = match self.streams {
            Some(Streams::Count(0)) => (0, 0),
            _ => (sizes.len(), sizes.iter().sum()),
        };
        let places = carve(&free, &sizes).into_iter().map(|ids| eligible.stream(&free, ids));
        Some(Placement {
            mode: eligible.mode,
            streams,
            threads,
            core_type: eligible.core_type,
            hyper_threading: eligible.hyper_threading,
            places: places.collect(),
        })
    }
}

impl Eligible {
    fn stream(&self, free: &Topology, processors: Vec<usize>) -> StreamPlace {
        let own = free.processors.iter().filter(|p| processors.contains(&p.id));
        let mut nodes: Vec<usize> = own.map(|p| p.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let allowed = free.restricted(|p| nodes.contains(&p.node)).ids();
        StreamPlace {
            processors,
            is_confined: allowed != self.all,
            allowed,
            node: if let [node] = nodes[..] { Some(node) } else { None },
        }
    }
}

/// Cores of each node, or with `siblings` logical processors; most first.
fn counts(free: &Topology, siblings: bool) -> Vec<usize> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for p in free.processors.iter().filter(|p| siblings || p.first_of_core) {
        *counts.entry(p.node).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts
}

/// How many nodes it takes to give each of `threads` a processor.
fn nodes_for(counts: &[usize], threads: usize) -> usize {
    let mut room = 0;
    let enough = |count: &usize| {
        room += count;
        room >= threads
    };
    counts.iter().position(enough).map_or(counts.len(), |last| last + 1)
}

/// Threads for a stream on each of the `nodes` largest nodes, as equal as their sizes allow; most first.
fn share_out(counts: &[usize], nodes: usize, threads: usize) -> Vec<usize> {
    let mut left = threads;
    let mut sizes: Vec<usize> = Vec::with_capacity(nodes);
    for (i, count) in counts[..nodes].iter().enumerate().rev() {
        let size = (left / (i + 1)).min(*count);
        sizes.push(size);
        left -= size;
    }
    sizes.reverse();
    sizes
}

/// Processors for each stream: on one node where there is room, cores that are free before siblings of used ones.
fn carve(free: &Topology, sizes: &[usize]) -> Vec<Vec<usize>> {
    let mut nodes: BTreeMap<usize, Vec<&Processor>> = BTreeMap::new();
    for p in free.processors.iter().rev() {
        nodes.entry(p.node).or_default().push(p);
    }
    let mut nodes: Vec<Vec<&Processor>> = nodes.into_values().rev().collect();
    let mut carve_one = |size: usize| {
        let mut stream = Vec::with_capacity(size);
        while stream.len() < size {
            let missing = size - stream.len();
            let room = |node: &&mut Vec<&Processor>| {
                let cores = node.iter().filter(|p| p.first_of_core).count();
                (node.len() >= missing, cores, node.len())
            };
            let Some(node) = nodes.iter_mut().max_by_key(room).filter(|n| !n.is_empty()) else {
                break;
            };
            let keep = node.len().saturating_sub(missing);
            stream.extend(node.drain(keep..).rev().map(|p| p.id));
        }
        stream
    };
    sizes.iter().map(|size| carve_one(*size)).collect()
}

#[cfg(test)]
mod tests;
