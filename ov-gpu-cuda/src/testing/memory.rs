//! Memory as a kernel sees it: at 256-byte boundaries, between guards that show writes beside it.

/// Bytes between two guards.
#[derive(Debug)]
pub(crate) struct Guarded {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

/// On each side. What lies there is no number in any floating-point type, so that reads beside a tensor show too.
const GUARD: usize = 512;
const ALIGNMENT: usize = 256;

impl Guarded {
    /// Memory that holds no numbers.
    pub(crate) fn new(len: usize) -> Self {
        let bytes = vec![0xff; len + 2 * GUARD + ALIGNMENT];
        let start = GUARD + (bytes.as_ptr() as usize + GUARD).wrapping_neg() % ALIGNMENT;
        Self { bytes, start, len }
    }

    /// Memory that holds these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut made = Self::new(bytes.len());
        made.bytes_mut().copy_from_slice(bytes);
        made
    }

    /// The bytes between the guards.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// The bytes between the guards.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }

    /// Their address.
    pub(crate) fn address(&mut self) -> u64 {
        self.bytes_mut().as_mut_ptr() as u64
    }

    /// Whether nothing was written beside them.
    pub(crate) fn is_intact(&self) -> bool {
        let (before, rest) = self.bytes.split_at(self.start);
        before.iter().chain(&rest[self.len..]).all(|b| *b == 0xff)
    }
}
