//! Typed slices over the memory of a step.
#![allow(unsafe_code, reason = "turns planned addresses into slices")]

use super::Io;
use crate::kernels::out::Out;

/// The contents of a slot.
pub(super) fn slice<'a, T: bytemuck::Pod>(io: &Io<'a>, slot: u32) -> &'a [T] {
    let (address, len) = (io.addresses[slot as usize], io.lens[slot as usize]);
    debug_assert_eq!(address.addr() % align_of::<T>(), 0);
    // SAFETY: the plan gives every slot an address that is valid for its length and aligned to 64 bytes, or to the
    // element type for the caller's tensors, while a step runs; no step writes a slot that another reads (barriers
    // separate them), and a step that writes over its input reads through this slice only what it has not written.
    unsafe { std::slice::from_raw_parts(address.cast::<T>(), len / size_of::<T>()) }
}

/// The memory of a slot, to write.
pub(super) fn out<'a, T: bytemuck::Pod>(io: &Io<'a>, slot: u32) -> Out<'a, T> {
    let (address, len) = (io.addresses[slot as usize], io.lens[slot as usize]);
    debug_assert_eq!(address.addr() % align_of::<T>(), 0);
    // SAFETY: as in `slice`; the threads of a step write disjoint items.
    unsafe { Out::from_raw_parts(address.cast::<T>(), len / size_of::<T>()) }
}

/// The part of an output that belongs to the item being computed.
#[expect(clippy::mut_from_ref, reason = "items own disjoint parts")]
#[inline(always)]
pub(super) fn item<'a, T>(out: &'a Out<'_, T>, start: usize, len: usize) -> &'a mut [T] {
    // SAFETY: a step asks for the part of an item that it was given to compute, one at a time, and the items of a step
    // write disjoint parts.
    unsafe { out.slice(start..start + len) }
}
