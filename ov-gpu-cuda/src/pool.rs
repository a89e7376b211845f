//! The slots of a compiled model over its GPUs: requests borrow one for an inference.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use ov_core::error::{DeviceError, Result};

use crate::{DEVICE_NAME, slot::Slot};

/// Which slot of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    /// The GPU's number.
    pub(crate) ordinal: usize,
    /// The slot's number among all of the pool.
    number: usize,
}

/// Slots that nobody uses now.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Mutex<Free>,
    returned: Condvar,
}

#[derive(Debug)]
struct Free {
    slots: Vec<(Seat, Slot)>,
    /// Slots that exist, lent ones among them.
    alive: usize,
}

impl Pool {
    /// A pool of slots.
    pub(crate) fn new(slots: Vec<Slot>) -> Self {
        let alive = slots.len();
        let seat = |(number, slot): (usize, Slot)| {
            let ordinal = slot.loaded().context.device().ordinal;
            (Seat { ordinal, number }, slot)
        };
        let slots = slots.into_iter().enumerate().map(seat).collect();
        Self { free: Mutex::new(Free { slots, alive }), returned: Condvar::new() }
    }

    /// A slot: the one that is asked for, else one of its GPU, else one of the GPU with the most that are free; waits while
    /// there is none. Slots of GPUs that are lost are not lent.
    ///
    /// # Errors
    /// When every GPU is lost.
    pub(crate) fn borrow(self: &Arc<Self>, wish: Option<Seat>) -> Result<Lent> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let before = free.slots.len();
            free.slots.retain(|(_, s)| !s.loaded().context.device().is_lost());
            free.alive -= before - free.slots.len();
            if free.alive == 0 {
                return Err(DeviceError::NotUsable {
                    name: DEVICE_NAME.to_owned(),
                    reason:
                        "an earlier error has corrupted the context of every GPU of this model; \
                             restart the process"
                            .to_owned(),
                }
                .into());
            }
            if let Some(at) = choose(&free.slots, wish) {
                let slot = free.slots.swap_remove(at);
                return Ok(Lent { slot: Some(slot), pool: Arc::clone(self) });
            }
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Slots that work.
    pub(crate) fn alive(&self) -> usize {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).alive
    }
}

/// The slot that is wished for, or one of its GPU; else one of the GPU with the most free slots. Among those of a GPU the one
/// that was used last, whose memory is warm.
fn choose(slots: &[(Seat, Slot)], wish: Option<Seat>) -> Option<usize> {
    let near = |seat: Seat| wish.map(|w| (seat.ordinal == w.ordinal, seat == w));
    let count = |seat: Seat| slots.iter().filter(|(s, _)| s.ordinal == seat.ordinal).count();
    (0..slots.len()).max_by_key(|i| (near(slots[*i].0), count(slots[*i].0), *i))
}

/// A slot on loan.
#[derive(Debug)]
pub(crate) struct Lent {
    slot: Option<(Seat, Slot)>,
    pool: Arc<Pool>,
}

impl Lent {
    pub(crate) fn slot(&mut self) -> &mut Slot {
        &mut self.slot.as_mut().expect("held until it is dropped").1
    }

    /// Which one it is.
    pub(crate) fn seat(&self) -> Option<Seat> {
        self.slot.as_ref().map(|(seat, _)| *seat)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.slots.extend(self.slot.take());
        drop(free);
        // All: a lost device concerns everyone who waits.
        self.pool.returned.notify_all();
    }
}
