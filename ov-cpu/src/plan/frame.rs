//! The memory of one stage of a request: arena, scratch, and the address of every slot.
#![allow(unsafe_code, reason = "holds raw addresses of memory that it owns")]

use std::sync::{Arc, atomic::AtomicUsize};

use ov_core::{
    Tensor,
    io::{HugeBuffer, memory_limit},
};

use super::{Home, Plan, Source};
use crate::team::Team;

/// One stage of a request.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub(super) plan: Option<Arc<Plan>>,
    /// The arena, and after it the scratch memory of each thread: one block, so that huge pages serve all of it.
    memory: Option<HugeBuffer>,
    arena_len: usize,
    scratch_len: usize,
    threads: usize,
    pub(super) addresses: Vec<*mut u8>,
    pub(super) lens: Vec<usize>,
    /// Per step and thread, how many items of the thread's share have been handed out.
    pub(super) counters: Vec<AtomicUsize>,
    /// Results of the node that ends the stage.
    pub(super) tail: Vec<Tensor>,
}

// SAFETY: the addresses point into memory that the frame, its plan or its request owns; a frame is used by one
// inference at a time, which orders all access with the team's barriers.
unsafe impl Send for Frame {}
// SAFETY: shared access only reads addresses.
unsafe impl Sync for Frame {}

/// Arena and scratch memories start at multiples of this: no two threads write one page.
const APART: usize = 4096;

/// No memory for an inference.
#[derive(Debug, thiserror::Error)]
#[error("the plan needs {0} bytes for activations, more than there is")]
pub(super) struct OutOfMemory(usize);

impl Frame {
    /// Makes the frame ready for `plan` on a team; does nothing when it already is.
    pub(super) fn prepare(&mut self, plan: &Arc<Plan>, team: &Team) -> Result<(), OutOfMemory> {
        let threads = team.threads();
        if self.plan.as_ref().is_some_and(|p| Arc::ptr_eq(p, plan)) && self.threads == threads {
            return Ok(());
        }
        if self.memory.is_none()
            || self.arena_len < plan.arena_len
            || self.scratch_len < plan.scratch_len
            || self.threads != threads
        {
            self.memory = None;
            self.arena_len = plan.arena_len.max(self.arena_len).next_multiple_of(APART);
            self.scratch_len = plan.scratch_len.max(self.scratch_len).next_multiple_of(APART);
            self.threads = threads;
            let needed = self
                .scratch_len
                .checked_mul(threads)
                .and_then(|scratch| scratch.checked_add(self.arena_len))
                .filter(|needed| *needed <= memory_limit())
                .ok_or(OutOfMemory(plan.arena_len))?;
            let mut memory = HugeBuffer::zeroed(needed).map_err(|_| OutOfMemory(needed))?;
            // A page lies near the thread that touches it first: of a bound team, that shall be the one that uses it.
            if !team.is_bound() {
                memory.fault_in();
            }
            self.memory = Some(memory);
        }
        let base = self.memory.as_mut().map_or(std::ptr::null_mut(), |memory| memory.as_mut_ptr());
        self.addresses.clear();
        self.addresses.extend(plan.slots.iter().map(|slot| match &slot.home {
            // SAFETY: the plan keeps offset + length within `arena_len`, which the arena has.
            Home::Arena(offset) => unsafe { base.add(*offset) },
            Home::Held(tensor) => tensor.bytes().as_ptr().cast_mut(),
            Home::Input(_) | Home::Output(_) | Home::Earlier(_) => std::ptr::null_mut(),
        }));
        self.lens.clear();
        self.lens.extend(plan.slots.iter().map(|s| s.len));
        self.counters.clear();
        self.counters.extend((0..plan.steps.len() * threads).map(|_| AtomicUsize::new(0)));
        self.plan = Some(Arc::clone(plan));
        Ok(())
    }

    /// Scratch memory of a thread.
    ///
    /// # Safety
    /// Only thread `thread` of the running inference may call this, and not while it holds an earlier result.
    #[expect(clippy::mut_from_ref, reason = "each thread has scratch memory of its own")]
    pub(super) unsafe fn scratch(&self, thread: usize) -> &mut [u8] {
        let memory = self.memory.as_deref().unwrap_or_default();
        let start = self.arena_len + thread * self.scratch_len;
        let bytes = &memory[start..start + self.scratch_len];
        // SAFETY: the buffer is owned by the frame, and only this thread uses this part of it during an inference.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_ptr().cast_mut(), bytes.len()) }
    }

    /// The bytes of a slot.
    ///
    /// # Safety
    /// The addresses must be those of the running inference, and no step may be writing the slot.
    pub(super) unsafe fn bytes(&self, slot: u32) -> &[u8] {
        let (address, len) = (self.addresses[slot as usize], self.lens[slot as usize]);
        if len == 0 {
            return &[];
        }
        // SAFETY: the plan gives the slot memory of this length; the caller orders the access.
        unsafe { std::slice::from_raw_parts(address, len) }
    }
}

/// The address of a value that an earlier stage made.
pub(super) fn earlier(frames: &[Frame], source: Source) -> *mut u8 {
    match source {
        Source::Slot { stage, slot } => frames[stage].addresses[slot as usize],
        Source::Tail { stage, output } => frames[stage].tail[output].bytes().as_ptr().cast_mut(),
        // Only values without bytes come from there, and no step reads them.
        Source::Input(_) => std::ptr::dangling_mut(),
    }
}

/// The tensor of a value without bytes, which an earlier stage or the caller holds.
pub(super) fn held<'a>(
    frames: &'a [Frame],
    inputs: &'a [Tensor],
    source: Source,
) -> Option<&'a Tensor> {
    match source {
        Source::Tail { stage, output } => frames.get(stage)?.tail.get(output),
        Source::Input(index) => inputs.get(index),
        Source::Slot { .. } => None,
    }
}
