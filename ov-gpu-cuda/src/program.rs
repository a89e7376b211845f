//! The program: what a blob of this device holds of a compiled model.

pub(crate) use ov_core::program::{Constant, Port, ValueId, WeightBytes, Weights};
use ov_core::{op::OpKind, program};

use crate::kernels::{KERNELS, Kernel};

/// Where every tensor in the weights section begins: kernels load 16 bytes at a time, and addresses of values are
/// multiples of this.
pub(crate) const ALIGNMENT: usize = 256;

/// What runs a node.
#[derive(Clone, Copy)]
pub(crate) enum Runner {
    /// A family of kernels.
    Kernel(&'static Kernel),
    /// The reference evaluation, on the host.
    Host,
}

/// The name of [`Runner::Host`] in blobs, profiles and queries.
pub(crate) const HOST: &str = "host";

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(program::Kernel::name(*self))
    }
}

impl program::Kernel for Runner {
    fn name(self) -> &'static str {
        match self {
            Self::Kernel(kernel) => kernel.name,
            Self::Host => HOST,
        }
    }

    fn by_name(name: &str) -> Option<Self> {
        if name == HOST {
            return Some(Self::Host);
        }
        KERNELS.iter().find(|k| k.name == name).map(Self::Kernel)
    }

    fn takes(self, _: OpKind) -> bool {
        // A family says at binding what it cannot run; a blob that is wrong about it ends in that error.
        true
    }
}

/// Operators in order of execution, with kernels chosen and weights packed.
pub(crate) type Program = program::Program<Runner>;
/// A node with what runs it.
pub(crate) type NodeDesc = program::NodeDesc<Runner>;
