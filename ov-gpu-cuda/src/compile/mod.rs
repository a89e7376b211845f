//! From the text of a module to what a GPU loads.
#![allow(unsafe_code, reason = "calls the compiler library")]

mod library;
mod nvrtc;

use std::fmt;

pub(crate) use nvrtc::Nvrtc;

use crate::kernels::Source;

/// What a compiler produces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Format {
    /// Machine code of one architecture.
    Cubin,
    /// Assembly that a driver translates for its GPU; runs on every architecture from its own on.
    Ptx,
}

/// What a module is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Target {
    /// Compute capability, major and minor: (9, 0) is Hopper.
    pub(crate) capability: (u32, u32),
    /// Whether the instructions are used that only this capability has, and no later one (`sm_90a`).
    pub(crate) specific: bool,
    /// Machine code or assembly.
    pub(crate) format: Format,
}

impl Target {
    /// Machine code for a compute capability, with its own instructions where kernels may use them.
    pub(crate) fn cubin(capability: (u32, u32)) -> Self {
        Self { capability, specific: capability == (9, 0), format: Format::Cubin }
    }

    /// Assembly for a compute capability and later ones.
    pub(crate) fn ptx(capability: (u32, u32)) -> Self {
        Self { capability, specific: false, format: Format::Ptx }
    }

    /// The name in options and cache keys: `sm_90a`, `compute_80`.
    pub(crate) fn name(self) -> String {
        let (major, minor) = self.capability;
        let kind = match self.format {
            Format::Cubin => "sm",
            Format::Ptx => "compute",
        };
        format!("{kind}_{major}{minor}{}", if self.specific { "a" } else { "" })
    }
}

/// A compiled module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// What the driver loads.
    pub(crate) bytes: Vec<u8>,
    /// What the compiler said, with the registers and memory of each kernel where it says so.
    pub(crate) log: String,
}

/// Why a module was not compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompileError(pub(crate) String);

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CompileError {}

/// Something that compiles modules.
pub(crate) trait Compiler: fmt::Debug + Send + Sync {
    /// What images depend on beside source and target: the compiler with its version, its options and the wrappers. Part of
    /// cache keys.
    fn identity(&self) -> String;

    /// The newest capability, up to this one, that it compiles for.
    fn nearest(&self, capability: (u32, u32)) -> (u32, u32) {
        capability
    }

    /// Compiles a module.
    ///
    /// # Errors
    /// [`CompileError`] with what the compiler says.
    fn compile(&self, source: &Source, target: Target) -> Result<Image, CompileError>;
}
