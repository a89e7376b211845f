//! Zeroed memory that is backed by huge pages where it is large enough for them.

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
};

use memmap2::MmapMut;

use crate::tensor::{AlignedBuffer, TensorBuffer};

/// Zeroed memory that starts at a 64-byte boundary, or at a 2 MiB boundary from 2 MiB on.
///
/// Faulting in small anonymous pages costs more than anything else that happens to large fresh memory, so large buffers
/// ask for huge pages; memory is not touched before it is written.
pub struct HugeBuffer(Memory);

enum Memory {
    Small(AlignedBuffer),
    Large { map: MmapMut, start: usize, len: usize },
}

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
                .map(|b| Self(Memory::Small(b)))
                .ok_or_else(too_large);
        }
        let map = MmapMut::map_anon(len.checked_add(HUGE_PAGE).ok_or_else(too_large)?)?;
        #[cfg(target_os = "linux")]
        if let Err(e) = map.advise(memmap2::Advice::HugePage) {
            tracing::debug!(error = %e, len, "no huge pages");
        }
        let start = map.as_ptr().addr().next_multiple_of(HUGE_PAGE) - map.as_ptr().addr();
        Ok(Self(Memory::Large { map, start, len }))
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

impl Deref for HugeBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Small(b) => b.bytes(),
            Memory::Large { map, start, len } => &map[*start..*start + *len],
        }
    }
}

impl DerefMut for HugeBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
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
}
