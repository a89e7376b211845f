//! Kernels: pure functions over slices, each computing a range of work items.
