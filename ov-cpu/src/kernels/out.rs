//! The output buffer that the threads of a team share while they write different items.
#![allow(unsafe_code, reason = "disjoint mutable views into one buffer")]

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

/// An output buffer of which a kernel call writes only the parts that belong to its items.
///
/// Kernels promise that the elements written for one item are never touched for another, so
/// several threads may each hold an `Out` over one buffer as long as their item ranges are
/// disjoint.
pub struct Out<'a, T> {
    start: *mut T,
    len: usize,
    buffer: PhantomData<&'a mut [T]>,
}

impl<T> fmt::Debug for Out<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Out[{}]", self.len)
    }
}

impl<'a, T> Out<'a, T> {
    /// The whole of `buffer`, for one thread.
    #[must_use]
    pub fn new(buffer: &'a mut [T]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len(), buffer: PhantomData }
    }

    /// A buffer of `len` elements at `start`.
    ///
    /// # Safety
    /// `start` must be valid for reads and writes of `len` elements for `'a`, and whoever else
    /// accesses the buffer meanwhile may only touch elements of items that calls with this
    /// value are not given.
    #[must_use]
    pub unsafe fn from_raw_parts(start: *mut T, len: usize) -> Self {
        Self { start, len, buffer: PhantomData }
    }

    /// Elements of the buffer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements of `range`.
    ///
    /// # Panics
    /// If the range does not lie in the buffer.
    ///
    /// # Safety
    /// No other reference to an element of the range may be alive, here or on another thread.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "output shorter than its items need"
        );
        // SAFETY: the range was checked; the caller promises that it is not aliased.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start)
        }
    }

    /// The address of element `at`, checked for `len` elements after it.
    ///
    /// # Panics
    /// If the elements do not lie in the buffer.
    #[inline(always)]
    #[must_use]
    pub fn at(&self, at: usize, len: usize) -> *mut T {
        assert!(at <= self.len && len <= self.len - at, "output shorter than its items need");
        // SAFETY: the offset was checked to lie in the buffer.
        unsafe { self.start.add(at) }
    }
}
