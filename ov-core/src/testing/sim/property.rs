//! The knobs of the simulated accelerator.

use crate::property::{Access, Effect, Property, PropertyInfo, text_enum};

text_enum! {
    /// How a simulated compile ends.
    pub enum CompileFault {
        /// With a model.
        None = "NONE",
        /// With an error.
        Error = "ERROR",
        /// With a panic.
        Panic = "PANIC",
        /// Not before the device is released.
        Hang = "HANG",
        /// With an error: the device has no memory left.
        OutOfMemory = "OUT_OF_MEMORY",
    }
}

text_enum! {
    /// How simulated inferences fail.
    pub enum InferFault {
        /// They do not.
        None = "NONE",
        /// With an error each.
        Error = "ERROR",
        /// With a panic each.
        Panic = "PANIC",
        /// They do not end before they are cancelled or the device is released.
        Hang = "HANG",
        /// The device is lost: they fail, and so does every compile until the device is released.
        Lost = "LOST",
        /// They succeed with NaN in every float.
        Nan = "NAN",
        /// They succeed with other values.
        Wrong = "WRONG",
    }
}

text_enum! {
    /// What a simulated inference writes into its outputs.
    pub enum SimOutput {
        /// What the reference evaluation gives.
        Evaluate = "EVALUATE",
        /// One mark in every element: of the device, of the compile, and of the request.
        Mark = "MARK",
    }
}

const RW: Access = Access::ReadWrite;
const RUNTIME: Effect = Effect::Runtime;

/// Milliseconds that a compile takes.
pub const COMPILE_MS: Property<u32> =
    Property::new("SIM_COMPILE_MS", RW, RUNTIME, "milliseconds that a compile takes");
/// Threads that compute while it compiles, up to `COMPILATION_NUM_THREADS`; 0 sleeps.
pub const COMPILE_THREADS: Property<u32> = Property::new(
    "SIM_COMPILE_THREADS",
    RW,
    RUNTIME,
    "threads that compute while it compiles, up to COMPILATION_NUM_THREADS; 0 sleeps",
);
/// How a compile ends.
pub const COMPILE_FAULT: Property<CompileFault> =
    Property::new("SIM_COMPILE_FAULT", RW, RUNTIME, "how a compile ends");
/// Per cent of the compile after which its fault strikes.
pub const COMPILE_FAULT_PERCENT: Property<u32> = Property::new(
    "SIM_COMPILE_FAULT_PERCENT",
    RW,
    RUNTIME,
    "per cent of the compile after which its fault strikes",
);
/// Microseconds that an inference takes at least.
pub const INFER_US: Property<u32> =
    Property::new("SIM_INFER_US", RW, RUNTIME, "microseconds that an inference takes at least");
/// Microseconds that an inference takes at most on top of that.
pub const INFER_JITTER_US: Property<u32> = Property::new(
    "SIM_INFER_JITTER_US",
    RW,
    RUNTIME,
    "microseconds that an inference takes at most on top of that",
);
/// How inferences fail.
pub const INFER_FAULT: Property<InferFault> =
    Property::new("SIM_INFER_FAULT", RW, RUNTIME, "how inferences fail");
/// Inferences of a compiled model that succeed before its fault strikes.
pub const INFER_FAULT_AFTER: Property<u32> = Property::new(
    "SIM_INFER_FAULT_AFTER",
    RW,
    RUNTIME,
    "inferences of a compiled model that succeed before its fault strikes",
);
/// Compiles whose models have the fault; 0 is all of them.
pub const INFER_FAULT_COMPILES: Property<u32> = Property::new(
    "SIM_INFER_FAULT_COMPILES",
    RW,
    RUNTIME,
    "compiles whose models have the fault; 0 is all of them",
);
/// Whether a running inference ignores that it is cancelled.
pub const IGNORE_CANCEL: Property<bool> = Property::new(
    "SIM_IGNORE_CANCEL",
    RW,
    RUNTIME,
    "whether a running inference ignores that it is cancelled",
);
/// What an inference writes.
pub const OUTPUT: Property<SimOutput> =
    Property::new("SIM_OUTPUT", RW, RUNTIME, "what an inference writes");

/// The properties of this category.
pub const ALL: &[PropertyInfo] = &[
    COMPILE_MS.info(),
    COMPILE_THREADS.info(),
    COMPILE_FAULT.info(),
    COMPILE_FAULT_PERCENT.info(),
    INFER_US.info(),
    INFER_JITTER_US.info(),
    INFER_FAULT.info(),
    INFER_FAULT_AFTER.info(),
    INFER_FAULT_COMPILES.info(),
    IGNORE_CANCEL.info(),
    OUTPUT.info(),
];
