//! Memory behind tensors: owned, the caller's, or a slice of a mapped file.
#![allow(unsafe_code, reason = "allocates memory of a stricter alignment than Vec gives")]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    fmt,
    ops::Range,
    ptr::NonNull,
    sync::{Arc, OnceLock},
};

/// Memory that a tensor can stand on.
///
/// Implemented for `Vec` of plain elements and `bytes::Bytes`; implement it to lend memory of your own to a tensor
/// without copying. The returned slices must stay at the same address with the same length until the owner is
/// dropped, as they do for a heap block or a mapping.
pub trait TensorBuffer: Send + Sync + 'static {
    /// The bytes.
    fn bytes(&self) -> &[u8];

    /// The bytes to write, or `None` when the memory is read-only.
    fn bytes_mut(&mut self) -> Option<&mut [u8]>;

    /// The same bytes at whatever address they lie, for those who copy or compare them.
    fn unaligned_bytes(&self) -> &[u8] {
        self.bytes()
    }
}

macro_rules! vec_buffer {
    ($($t:ty),*) => {$(
        impl TensorBuffer for Vec<$t> {
            fn bytes(&self) -> &[u8] {
                bytemuck::cast_slice(self)
            }
            fn bytes_mut(&mut self) -> Option<&mut [u8]> {
                Some(bytemuck::cast_slice_mut(self))
            }
        }
    )*};
}
vec_buffer!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64, half::f16, half::bf16);

impl TensorBuffer for bytes::Bytes {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        None
    }
}

/// A slice of memory that is not aligned for its elements. It is copied when somebody first reads elements, not before:
/// most weights are only ever packed, which takes bytes at any address.
pub(super) struct LateCopy {
    source: Arc<dyn TensorBuffer>,
    range: Range<usize>,
    copy: OnceLock<AlignedBuffer>,
}

impl LateCopy {
    /// `range` of `source`, which must be inside it.
    pub(super) fn new(source: Arc<dyn TensorBuffer>, range: Range<usize>) -> Self {
        Self { source, range, copy: OnceLock::new() }
    }
}

impl TensorBuffer for LateCopy {
    fn bytes(&self) -> &[u8] {
        let copy = self.copy.get_or_init(|| {
            let bytes = self.unaligned_bytes();
            let mut copy =
                AlignedBuffer::zeroed(bytes.len()).expect("as long as a slice that exists");
            if let Some(to) = copy.bytes_mut() {
                to.copy_from_slice(bytes);
            }
            copy
        });
        copy.bytes()
    }

    fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        None
    }

    fn unaligned_bytes(&self) -> &[u8] {
        &self.source.unaligned_bytes()[self.range.clone()]
    }
}

/// Zeroed heap memory at a 64-byte boundary: one cache line, and the widest vector load.
pub struct AlignedBuffer {
    /// What the allocator gave.
    base: NonNull<u8>,
    /// The first boundary in it.
    ptr: NonNull<u8>,
    len: usize,
}

/// A type as strictly aligned as the buffer, so that an empty buffer casts to slices of any element.
#[repr(align(64))]
struct CacheLine(#[expect(dead_code, reason = "only its alignment is used")] [u8; 64]);

/// Alignment of [`AlignedBuffer`] in bytes.
pub const BUFFER_ALIGNMENT: usize = 64;

/// Alignment that every allocation has.
const USUAL_ALIGNMENT: usize = 16;

// SAFETY: the buffer owns its memory exclusively and has no interior mutability.
unsafe impl Send for AlignedBuffer {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// `len` zero bytes, or `None` when no address range of that length exists.
    #[must_use]
    pub fn zeroed(len: usize) -> Option<Self> {
        let layout = Self::layout(len)?;
        if len == 0 {
            let ptr = NonNull::<CacheLine>::dangling().cast();
            return Some(Self { base: ptr, ptr, len });
        }
        // SAFETY: the layout has a non-zero size, checked above.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base)?;
        let skip = base.as_ptr().align_offset(BUFFER_ALIGNMENT);
        // SAFETY: the layout has room for `len` bytes after the first boundary.
        let ptr = unsafe { base.add(skip) };
        Some(Self { base, ptr, len })
    }

    /// Room for a boundary and `len` bytes. Allocators give memory of a usual alignment that is already zero without
    /// touching it, which they do not for a stricter one.
    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len.checked_add(BUFFER_ALIGNMENT)?, USUAL_ALIGNMENT).ok()
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        if let (Some(layout), true) = (Self::layout(self.len), self.len > 0) {
            // SAFETY: `base` came from `alloc_zeroed` with this same layout in `zeroed`.
            unsafe { dealloc(self.base.as_ptr(), layout) };
        }
    }
}

impl TensorBuffer for AlignedBuffer {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `ptr` is valid for `len` initialised bytes (dangling only when `len` is 0) for the life of `self`.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        // SAFETY: as in `bytes`, and `&mut self` makes the access exclusive.
        Some(unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) })
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_buffers_are_zeroed_and_aligned() {
        for len in [0, 1, 63, 64, 4097] {
            let mut b = AlignedBuffer::zeroed(len).expect("fits");
            assert_eq!(b.bytes(), vec![0; len]);
            if len > 0 {
                assert_eq!(b.bytes().as_ptr().addr() % BUFFER_ALIGNMENT, 0);
                b.bytes_mut().expect("writable")[len - 1] = 7;
                assert_eq!(b.bytes()[len - 1], 7);
            }
        }
        assert!(AlignedBuffer::zeroed(usize::MAX).is_none());
    }
}
