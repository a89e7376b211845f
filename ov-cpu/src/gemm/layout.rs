//! Shape of a packed right-hand matrix.

use std::ops::Range;

use crate::simd::Isa;

/// How B `[k, n]` is packed: column panels one after another, each `[k][width]`, the last one
/// possibly narrower and padded with zeros.
///
/// It depends on `k`, `n` and the instruction-set level only, so packed weights serve any number
/// of rows. It may be stored as integers ([`to_words`](Self::to_words)) beside the packed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedLayout {
    k: u32,
    n: u32,
    width: u16,
    tail: u16,
}

/// One panel of a [`PackedLayout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panel {
    /// First element of the panel in the packed data.
    pub offset: usize,
    /// Columns that are stored per row, a multiple of the vector length.
    pub width: usize,
    /// First column of B.
    pub col: usize,
    /// Columns that exist in B, at most `width`.
    pub cols: usize,
}

impl PackedLayout {
    /// The layout that the kernels of `isa` want.
    ///
    /// AVX-512: panels of 32 columns, or 48 where that leaves no remainder and 32 does; AVX2: 16;
    /// portable: 8. The last panel is rounded up to the vector length.
    ///
    /// # Panics
    /// If `k` or `n` exceeds `u32::MAX`.
    #[must_use]
    pub fn new(isa: Isa, k: usize, n: usize) -> Self {
        let (lanes, width) = if isa.has_avx512() {
            (16, if n.is_multiple_of(48) && !n.is_multiple_of(32) { 48 } else { 32 })
        } else if isa.has_avx2() {
            (8, 16)
        } else {
            (8, 8)
        };
        let rest = n % width;
        let tail = if rest == 0 { width } else { rest.next_multiple_of(lanes) };
        let narrow = |x: usize| u32::try_from(x).expect("matrix dimensions fit 32 bits");
        Self { k: narrow(k), n: narrow(n), width: width as u16, tail: tail as u16 }
    }

    /// Rows of B.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k as usize
    }

    /// Columns of B.
    #[must_use]
    pub fn n(&self) -> usize {
        self.n as usize
    }

    /// Width of all panels but the last.
    #[must_use]
    pub fn width(&self) -> usize {
        usize::from(self.width)
    }

    /// Number of panels.
    #[must_use]
    pub fn panels(&self) -> usize {
        self.n().div_ceil(self.width())
    }

    /// Elements of the packed data.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.panels() {
            0 => 0,
            p => ((p - 1) * self.width() + usize::from(self.tail)) * self.k(),
        }
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Panel number `p`.
    ///
    /// # Panics
    /// If there is no such panel.
    #[inline]
    #[must_use]
    pub fn panel(&self, p: usize) -> Panel {
        assert!(p < self.panels(), "panel {p} of {}", self.panels());
        let (col, last) = (p * self.width(), p + 1 == self.panels());
        Panel {
            offset: col * self.k(),
            width: usize::from(if last { self.tail } else { self.width }),
            col,
            cols: self.width().min(self.n() - col),
        }
    }

    /// All panels.
    #[must_use]
    pub fn all_panels(&self) -> Range<usize> {
        0..self.panels()
    }

    /// `[k, n, width, tail]`.
    #[must_use]
    pub fn to_words(self) -> [u32; 4] {
        [self.k, self.n, u32::from(self.width), u32::from(self.tail)]
    }

    /// The inverse of [`to_words`](Self::to_words); `None` unless it is the layout that
    /// [`new`](Self::new) gives for `isa`.
    #[must_use]
    pub fn from_words(isa: Isa, words: [u32; 4]) -> Option<Self> {
        let layout = Self::new(isa, words[0] as usize, words[1] as usize);
        let padded = u64::from(words[1]).checked_next_multiple_of(64)?;
        let fits = padded.checked_mul(u64::from(words[0]))? <= isize::MAX as u64 / 4;
        (fits && layout.to_words() == words).then_some(layout)
    }
}
