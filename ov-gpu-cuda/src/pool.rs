//! The slots of a compiled model over its GPUs: requests borrow one for an inference.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use ov_core::error::{DeviceError, Result};

use crate::{DEVICE_NAME, slot::Slot};

/// Slots that nobody uses now.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Mutex<Free>,
    returned: Condvar,
}

#[derive(Debug)]
struct Free {
    slots: Vec<Slot>,
    /// Slots that exist, lent ones among them.
    alive: usize,
}

impl Pool {
    /// A pool of slots.
    pub(crate) fn new(slots: Vec<Slot>) -> Self {
        let alive = slots.len();
        Self { free: Mutex::new(Free { slots, alive }), returned: Condvar::new() }
    }

    /// A slot, of the GPU with the most that are free; waits while there is none. Slots of GPUs that are lost are not
    /// lent.
    ///
    /// # Errors
    /// When every GPU is lost.
    pub(crate) fn borrow(self: &Arc<Self>) -> Result<Lent> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let before = free.slots.len();
            free.slots.retain(|s| !s.loaded().context.device().is_lost());
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
            if let Some(at) = idlest(&free.slots) {
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

/// A slot of the GPU with the most free slots; the one that was used last, whose memory is warm.
fn idlest(slots: &[Slot]) -> Option<usize> {
    let ordinal = |slot: &Slot| slot.loaded().context.device().ordinal;
    let count = |of: usize| slots.iter().filter(|s| ordinal(s) == of).count();
    (0..slots.len()).max_by_key(|i| (count(ordinal(&slots[*i])), *i))
}

/// A slot on loan.
#[derive(Debug)]
pub(crate) struct Lent {
    slot: Option<Slot>,
    pool: Arc<Pool>,
}

impl Lent {
    pub(crate) fn slot(&mut self) -> &mut Slot {
        self.slot.as_mut().expect("held until it is dropped")
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
