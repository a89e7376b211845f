//! The program: what a blob of this device holds of a compiled model.

pub use ov_core::program::{Constant, Port, ValueDesc, ValueId, WeightBytes, Weights, encode};
use ov_core::{error::Result, op::OpKind, program};

use crate::nodes::{self, KernelEntry};

/// Operators in order of execution, with kernels chosen and weights packed.
pub type Program = program::Program<&'static KernelEntry>;
/// A node with the kernel that was chosen for it.
pub type NodeDesc = program::NodeDesc<&'static KernelEntry>;

impl program::Kernel for &'static KernelEntry {
    fn name(self) -> &'static str {
        self.name
    }

    fn by_name(name: &str) -> Option<Self> {
        nodes::by_name(name)
    }

    fn takes(self, kind: OpKind) -> bool {
        self.ops.is_empty() || self.ops.contains(&kind)
    }
}

/// Reads a program whose weights section has `weights` bytes; see [`program::decode`].
///
/// # Errors
/// When the bytes are damaged or name an operator or kernel that this build does not have.
pub fn decode(bytes: &[u8], weights: usize) -> Result<Program> {
    program::decode(bytes, weights)
}
