//! Huffman codes and the bits of a scan. ITU-T T.81, annexes C and F.

/// A table of codes of up to 16 bits.
#[derive(Debug)]
pub(super) struct Table {
    /// One above the greatest code of each length, as the first bits of 16; 0 where there is none.
    limits: [u32; 16],
    /// What to add to a code of each length for its place among the values.
    offsets: [i32; 16],
    values: Vec<u8>,
}

impl Table {
    /// From the number of codes of each length and their values.
    pub(super) fn new(counts: &[u8; 16], values: &[u8]) -> Option<Self> {
        let mut table = Self { limits: [0; 16], offsets: [0; 16], values: values.to_vec() };
        let (mut code, mut place) = (0u32, 0i32);
        for (i, count) in counts.iter().enumerate() {
            table.offsets[i] = place - code as i32;
            code += u32::from(*count);
            place += i32::from(*count);
            if code > 1 << (i + 1) {
                return None;
            }
            table.limits[i] = if *count > 0 { code << (15 - i) } else { 0 };
            code <<= 1;
        }
        Some(table)
    }
}

/// The bits of a scan up to the next marker.
#[derive(Debug)]
pub(super) struct Bits<'b> {
    bytes: &'b [u8],
    held: u32,
    count: u32,
    /// Bits that were made up behind the end.
    missing: u32,
}

impl<'b> Bits<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, held: 0, count: 0, missing: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 24 {
            let byte = match self.bytes {
                [0xFF, 0, rest @ ..] => {
                    self.bytes = rest;
                    0xFF
                }
                [0xFF, ..] | [] => {
                    self.missing += 8;
                    0
                }
                [byte, rest @ ..] => {
                    self.bytes = rest;
                    *byte
                }
            };
            self.held |= u32::from(byte) << (24 - self.count);
            self.count += 8;
        }
    }

    fn drop_bits(&mut self, n: u32) -> Option<()> {
        self.held = self.held.checked_shl(n).unwrap_or(0);
        self.count -= n;
        // Made-up bits come last; they may be held, but not used.
        (self.missing <= self.count).then_some(())
    }

    /// The next `n` bits, at most 16.
    pub(super) fn take(&mut self, n: u32) -> Option<u32> {
        if n == 0 {
            return Some(0);
        }
        self.fill();
        let bits = self.held >> (32 - n);
        self.drop_bits(n)?;
        Some(bits)
    }

    /// The value of the next code.
    pub(super) fn code(&mut self, table: &Table) -> Option<u8> {
        self.fill();
        let next = self.held >> 16;
        let len = table.limits.iter().position(|limit| next < *limit)?;
        self.drop_bits(len as u32 + 1)?;
        let place = (next >> (15 - len)) as i32 + table.offsets[len];
        table.values.get(usize::try_from(place).ok()?).copied()
    }

    /// A number of `size` bits whose first bit says whether it is positive.
    pub(super) fn number(&mut self, size: u8) -> Option<i32> {
        if size == 0 {
            return Some(0);
        }
        let bits = self.take(u32::from(size).min(16))? as i32;
        let half = 1 << (size.min(16) - 1);
        Some(if bits < half { bits - 2 * half + 1 } else { bits })
    }

    /// What is left of the bytes once the bits before the next marker are used.
    pub(super) fn rest(&self) -> &'b [u8] {
        let at = self.bytes.windows(2).position(|w| w[0] == 0xFF && w[1] != 0);
        &self.bytes[at.unwrap_or(self.bytes.len())..]
    }
}
