//! Times by node (`PERF_COUNT`) and the description of what runs.

use std::time::Duration;

/// What became of a node in an inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeStatus {
    /// It was not reached.
    NotRun,
    /// It was fused into another, folded, or is a view.
    OptimizedOut,
    /// It ran.
    Executed,
}

impl std::fmt::Display for NodeStatus {
    /// As benchmark reports spell it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::NotRun => "NOT_RUN",
            Self::OptimizedOut => "OPTIMIZED_OUT",
            Self::Executed => "EXECUTED",
        })
    }
}

/// The time of one node in the last inference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeProfile {
    /// Friendly name of the node.
    pub name: String,
    /// Operator type.
    pub op: String,
    /// Kernel.
    pub kernel: String,
    /// What became of it.
    pub status: NodeStatus,
    /// Time from start to end.
    pub wall: Duration,
    /// Time of all threads together, where the device can tell; else the same as `wall`.
    pub cpu: Duration,
}

/// One step of a compiled model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeNode {
    /// Friendly name.
    pub name: String,
    /// Operator type after fusion.
    pub op: String,
    /// Kernel.
    pub kernel: String,
    /// Nodes of the model that the step stands for.
    pub original: Vec<String>,
    /// Precision of the arithmetic: `f32`.
    pub precision: String,
    /// Layouts of the outputs: `NHWC`.
    pub layout: String,
}
