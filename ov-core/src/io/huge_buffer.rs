//! Zeroed memory that is backed by huge pages where it is large enough for them.

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
    thread::{self, JoinHandle},
};

use memmap2::MmapMut;

use crate::tensor::{AlignedBuffer, TensorBuffer};

/// Zeroed memory that starts at a 64-byte boundary, or at a 2 MiB boundary from 2 MiB on.
///
/// Faulting in small anonymous pages costs more than anything else that happens to large fresh memory, so large buffers
/// ask for huge pages; memory is not touched before it is written.
pub struct HugeBuffer {
    memory: Memory,
    /// The thread that faults the memory in; it ends before the memory does.
    faulting: Option<JoinHandle<()>>,
}

enum Memory {
    Small(AlignedBuffer),
    Large { map: MmapMut, start: usize, len: usize },
}

/// Where a buffer lies, for a thread that touches no byte of it.
struct Pages {
    start: *mut u8,
    len: usize,
}

// SAFETY: the thread that gets it only asks the system to enter pages, which may happen beside any use of them.
unsafe impl Send for Pages {}

const HUGE_PAGE: usize = 2 << 20;

impl HugeBuffer {
    /// `len` zero bytes.
    ///
    /// # Errors
    /// When there is not so much memory.
    pub fn zeroed(len: usize) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        if len < HUGE_PAGE {
            return AlignedBuffer::zeroed(len)
                .map(|b| Self { memory: Memory::Small(b), faulting: None })
                .ok_or_else(too_large);
        }
        let map = MmapMut::map_anon(len.checked_add(HUGE_PAGE).ok_or_else(too_large)?)?;
        #[cfg(target_os = "linux")]
        if let Err(e) = map.advise(memmap2::Advice::HugePage) {
            tracing::debug!(error = %e, len, "no huge pages");
        }
        let start = map.as_ptr().addr().next_multiple_of(HUGE_PAGE) - map.as_ptr().addr();
        Ok(Self { memory: Memory::Large { map, start, len }, faulting: None })
    }

    /// Faults the memory in on a thread of its own: the system fills each page with zeros, which takes longer than
    /// anything else that a first inference would wait for. Small buffers are left as they are.
    pub fn fault_in(&mut self) {
        if self.faulting.is_some() || matches!(self.memory, Memory::Small(_)) {
            return;
        }
        let pages = Pages { start: self.as_mut_ptr(), len: self.len() };
        let work = move || {
            let pages = pages;
            // SAFETY: the buffer joins this thread before it unmaps the range, and only page tables are touched.
            unsafe { super::system::populate_range(pages.start, pages.len) };
        };
        self.faulting = thread::Builder::new().name("ov-fault-in".to_owned()).spawn(work).ok();
    }

    /// A copy of `bytes`.
    ///
    /// # Errors
    /// When there is not so much memory.
    pub fn copy_of(bytes: &[u8]) -> io::Result<Self> {
        let mut buffer = Self::zeroed(bytes.len())?;
        buffer.copy_from_slice(bytes);
        Ok(buffer)
    }
}

impl Drop for HugeBuffer {
    fn drop(&mut self) {
        if let Some(faulting) = self.faulting.take()
            && faulting.join().is_err()
        {
            tracing::error!("the thread that faults memory in had panicked");
        }
    }
}

impl Deref for HugeBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Small(b) => b.bytes(),
            Memory::Large { map, start, len } => &map[*start..*start + *len],
        }
    }
}

impl DerefMut for HugeBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Small(b) => b.bytes_mut().expect("an aligned buffer is writable"),
            Memory::Large { map, start, len } => &mut map[*start..*start + *len],
        }
    }
}

impl AsRef<[u8]> for HugeBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl TensorBuffer for HugeBuffer {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        Some(self)
    }
}

impl fmt::Debug for HugeBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HugeBuffer").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zeroed_aligned_and_writable() {
        for (len, alignment) in [
            (0, 64),
            (1, 64),
            (HUGE_PAGE - 1, 64),
            (HUGE_PAGE, HUGE_PAGE),
            (HUGE_PAGE + 1, HUGE_PAGE),
        ] {
            let mut b = HugeBuffer::zeroed(len).expect("fits");
            assert_eq!(b.len(), len);
            assert_eq!(b.as_ptr().addr() % alignment, 0, "{len}");
            if let Some(last) = b.last_mut() {
                assert_eq!(*last, 0);
                *last = 1;
                assert_eq!(b[len - 1], 1);
            }
        }
        assert!(HugeBuffer::zeroed(usize::MAX).is_err());
    }

    #[test]
    fn memory_may_be_used_while_it_is_faulted_in() {
        for len in [100, HUGE_PAGE, 5 * HUGE_PAGE + 1] {
            let mut b = HugeBuffer::zeroed(len).expect("fits");
            b.fault_in();
            b.fault_in();
            b.iter_mut().enumerate().for_each(|(i, b)| *b = i as u8);
            assert!(b.iter().enumerate().all(|(i, b)| *b == i as u8));
        }
    }
}
