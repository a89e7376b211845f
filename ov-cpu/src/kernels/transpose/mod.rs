//! Strided copies of elements of any size: transpose, concat, split, slice, pad interior, tile,
//! broadcast and depth-to-space are all one plan with different strides.
#![allow(unsafe_code, reason = "copies between computed offsets of byte buffers")]

pub(crate) mod tile;

use std::ops::Range;

use smallvec::SmallVec;

use crate::kernels::out::Out;
use crate::simd::Isa;

/// Why a copy cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// Element sizes other than 1, 2, 4 and 8 bytes.
    #[error("expected elements of 1, 2, 4 or 8 bytes, found {0}")]
    ElementSize(usize),
    /// The lists of dimensions and strides differ in length.
    #[error("expected {0} strides on both sides, found {1} and {2}")]
    Rank(usize, usize, usize),
    /// The permutation is not one of `0..rank`.
    #[error("expected a permutation of {0} axes")]
    Permutation(usize),
    /// More dimensions are left after merging than are walked.
    #[error("expected at most {MAX_DIMS} dimensions after merging, found {0}")]
    TooManyDims(usize),
    /// The extent does not fit in `isize`.
    #[error("the copy reaches further than memory does")]
    TooLarge,
}

/// Most dimensions that are left after merging.
pub const MAX_DIMS: usize = 12;

/// Elements along the side of a transposed tile.
const TILE: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dim {
    len: usize,
    src: isize,
    dst: isize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inner {
    /// `bytes` contiguous on both sides.
    Block(usize),
    /// `p` elements contiguous in the source by `q` elements contiguous in the destination.
    Tiles { p: Dim, q: Dim },
    /// Single elements.
    Strided(Dim),
}

/// A copy of `shape` elements between two strided views, planned once.
///
/// Strides and extents are in bytes inside; offsets of the views are given at call time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyPlan {
    size: usize,
    outer: SmallVec<[Dim; MAX_DIMS]>,
    inner: Inner,
    items: usize,
    src_extent: (usize, usize),
    dst_extent: (usize, usize),
}

impl CopyPlan {
    /// Plans copying `shape` elements of `size` bytes, with strides in elements (a source stride
    /// of 0 repeats, a negative one reverses).
    ///
    /// # Errors
    /// If the ranks differ, the size is unusual or the extents overflow.
    pub fn new(
        shape: &[usize],
        src_strides: &[isize],
        dst_strides: &[isize],
        size: usize,
    ) -> Result<Self, CopyError> {
        if ![1, 2, 4, 8].contains(&size) {
            return Err(CopyError::ElementSize(size));
        }
        if shape.len() != src_strides.len() || shape.len() != dst_strides.len() {
            return Err(CopyError::Rank(shape.len(), src_strides.len(), dst_strides.len()));
        }
        let bytes = |s: isize| s.checked_mul(size as isize).ok_or(CopyError::TooLarge);
        let mut dims: SmallVec<[Dim; MAX_DIMS]> = SmallVec::new();
        for i in 0..shape.len() {
            if shape[i] != 1 {
                dims.push(Dim {
                    len: shape[i],
                    src: bytes(src_strides[i])?,
                    dst: bytes(dst_strides[i])?,
                });
            }
        }
        if dims.iter().any(|d| d.len == 0) {
            return Ok(Self {
                size,
                outer: SmallVec::new(),
                inner: Inner::Block(0),
                items: 0,
                src_extent: (0, 0),
                dst_extent: (0, 0),
            });
        }
        let src_extent = extent(dims.iter().map(|d| (d.len, d.src)), size)?;
        let dst_extent = extent(dims.iter().map(|d| (d.len, d.dst)), size)?;
        dims.sort_by_key(|d| std::cmp::Reverse(d.dst.unsigned_abs()));
        let mut merged: SmallVec<[Dim; MAX_DIMS]> = SmallVec::new();
        for d in dims.into_iter().rev() {
            match merged.last_mut() {
                Some(m)
                    if m.src.checked_mul(m.len as isize) == Some(d.src)
                        && m.dst.checked_mul(m.len as isize) == Some(d.dst) =>
                {
                    m.len *= d.len;
                }
                _ => merged.push(d),
            }
        }
        if merged.len() > MAX_DIMS {
            return Err(CopyError::TooManyDims(merged.len()));
        }
        let step = size as isize;
        let inner = match merged.first().copied() {
            None => Inner::Block(size),
            Some(d) if d.src == step && d.dst == step => {
                merged.remove(0);
                Inner::Block(d.len * size)
            }
            Some(q) if q.dst == step => match merged.iter().position(|d| d.src == step) {
                Some(at) => {
                    let p = merged.remove(at);
                    merged.remove(0);
                    Inner::Tiles { p, q }
                }
                None => {
                    merged.remove(0);
                    Inner::Strided(q)
                }
            },
            Some(d) => {
                merged.remove(0);
                Inner::Strided(d)
            }
        };
        merged.reverse();
        let outer_items: usize = merged.iter().map(|d| d.len).product();
        let per = if let Inner::Tiles { p, .. } = inner { p.len.div_ceil(TILE) } else { 1 };
        Ok(Self { size, outer: merged, inner, items: outer_items * per, src_extent, dst_extent })
    }

    /// Plans a transpose: axis `i` of the output is axis `axes[i]` of the dense input `shape`.
    ///
    /// # Errors
    /// If `axes` is not a permutation, or as for [`Self::new`].
    pub fn transpose(shape: &[usize], axes: &[usize], size: usize) -> Result<Self, CopyError> {
        let rank = shape.len();
        let mut seen = SmallVec::<[bool; MAX_DIMS]>::from_elem(false, rank);
        for a in axes {
            match seen.get_mut(*a) {
                Some(s) if !*s => *s = true,
                _ => return Err(CopyError::Permutation(rank)),
            }
        }
        if axes.len() != rank {
            return Err(CopyError::Permutation(rank));
        }
        let strides = dense_strides(shape)?;
        let out: SmallVec<[usize; MAX_DIMS]> = axes.iter().map(|a| shape[*a]).collect();
        let src: SmallVec<[isize; MAX_DIMS]> = axes.iter().map(|a| strides[*a]).collect();
        Self::new(&out, &src, &dense_strides(&out)?, size)
    }

    /// Work items; about equal amounts of data each.
    #[must_use]
    pub fn items(&self) -> usize {
        self.items
    }

    /// Bytes written per item, for deciding how many items a thread should take.
    #[must_use]
    pub fn item_bytes(&self) -> usize {
        match self.inner {
            Inner::Block(bytes) => bytes,
            Inner::Tiles { p, q } => p.len.min(TILE) * q.len * self.size,
            Inner::Strided(d) => d.len * self.size,
        }
    }

    /// Copies items `range` from `src`, whose element 0 of the view is at byte `src_offset`, to
    /// `out`, whose element 0 is at byte `out_offset`.
    ///
    /// # Panics
    /// If the views reach outside the buffers.
    pub fn run(
        &self,
        isa: Isa,
        src: &[u8],
        src_offset: usize,
        out: &Out<'_, u8>,
        out_offset: usize,
        range: Range<usize>,
    ) {
        let range = range.start..range.end.min(self.items);
        if range.is_empty() {
            return;
        }
        let fits = |(below, above): (usize, usize), offset: usize, len: usize| {
            offset >= below && offset <= len && above <= len - offset
        };
        assert!(fits(self.src_extent, src_offset, src.len()), "source shorter than the copy");
        assert!(fits(self.dst_extent, out_offset, out.len()), "output shorter than the copy");
        // SAFETY: the offsets were checked to lie in the buffers.
        let (x, y) = unsafe { (src.as_ptr().add(src_offset), out.at(0, 0).add(out_offset)) };
        let per = if let Inner::Tiles { p, .. } = self.inner { p.len.div_ceil(TILE) } else { 1 };
        let mut walk = Walk::new(&self.outer, range.start / per);
        let mut part = range.start % per;
        for _ in range {
            // SAFETY: `walk` yields offsets of the planned view, whose extents were checked.
            unsafe {
                let (x, y) = (x.offset(walk.src), y.offset(walk.dst));
                match self.inner {
                    Inner::Block(bytes) => copy_block(x, y, bytes),
                    Inner::Strided(d) => strided(self.size, x, y, d),
                    Inner::Tiles { p, q } => {
                        let first = part * TILE;
                        let n = TILE.min(p.len - first);
                        let x = x.add(first * self.size);
                        let y = y.offset(first as isize * p.dst);
                        tile::rows(isa, self.size, x, q.src, y, p.dst, n, q.len);
                    }
                }
            }
            part += 1;
            if part == per {
                part = 0;
                walk.next(&self.outer);
            }
        }
    }
}

/// Row-major strides of `shape`, in elements.
///
/// # Errors
/// If the number of elements does not fit in `isize`.
pub fn dense_strides(shape: &[usize]) -> Result<SmallVec<[isize; MAX_DIMS]>, CopyError> {
    let mut strides = SmallVec::from_elem(0, shape.len());
    let mut step = 1isize;
    for i in (0..shape.len()).rev() {
        strides[i] = step;
        let len = isize::try_from(shape[i].max(1)).map_err(|_| CopyError::TooLarge)?;
        step = step.checked_mul(len).ok_or(CopyError::TooLarge)?;
    }
    Ok(strides)
}

/// How many bytes a view reaches below and above its element 0, the element included.
fn extent(
    dims: impl Iterator<Item = (usize, isize)>,
    size: usize,
) -> Result<(usize, usize), CopyError> {
    let (mut below, mut above) = (0usize, size);
    for (len, stride) in dims {
        let reach = (len - 1).checked_mul(stride.unsigned_abs()).ok_or(CopyError::TooLarge)?;
        let side = if stride < 0 { &mut below } else { &mut above };
        *side = side
            .checked_add(reach)
            .filter(|r| *r <= isize::MAX as usize)
            .ok_or(CopyError::TooLarge)?;
    }
    Ok((below, above))
}

struct Walk {
    index: [usize; MAX_DIMS],
    src: isize,
    dst: isize,
}

impl Walk {
    fn new(dims: &[Dim], mut at: usize) -> Self {
        let mut w = Self { index: [0; MAX_DIMS], src: 0, dst: 0 };
        for (i, d) in dims.iter().enumerate().rev() {
            w.index[i] = at % d.len;
            at /= d.len;
            w.src += w.index[i] as isize * d.src;
            w.dst += w.index[i] as isize * d.dst;
        }
        w
    }

    #[inline(always)]
    fn next(&mut self, dims: &[Dim]) {
        for (i, d) in dims.iter().enumerate().rev() {
            self.index[i] += 1;
            self.src += d.src;
            self.dst += d.dst;
            if self.index[i] < d.len {
                return;
            }
            self.src -= d.len as isize * d.src;
            self.dst -= d.len as isize * d.dst;
            self.index[i] = 0;
        }
    }
}

/// # Safety
/// `bytes` must be readable at `x` and writable at `y`, without overlap.
#[inline(always)]
unsafe fn copy_block(x: *const u8, y: *mut u8, bytes: usize) {
    // SAFETY: the caller's contract; constant lengths become single loads and stores.
    unsafe {
        match bytes {
            1 => x.copy_to_nonoverlapping(y, 1),
            2 => x.copy_to_nonoverlapping(y, 2),
            4 => x.copy_to_nonoverlapping(y, 4),
            8 => x.copy_to_nonoverlapping(y, 8),
            16 => x.copy_to_nonoverlapping(y, 16),
            32 => x.copy_to_nonoverlapping(y, 32),
            64 => x.copy_to_nonoverlapping(y, 64),
            128 => x.copy_to_nonoverlapping(y, 128),
            _ => x.copy_to_nonoverlapping(y, bytes),
        }
    }
}

/// # Safety
/// The `d.len` elements of `size` bytes must be readable and writable at the strides of `d`.
unsafe fn strided(size: usize, x: *const u8, y: *mut u8, d: Dim) {
    // SAFETY: the caller's contract, for each element type of that size.
    unsafe {
        match size {
            1 => strided_as::<u8>(x, y, d),
            2 => strided_as::<u16>(x, y, d),
            4 => strided_as::<u32>(x, y, d),
            _ => strided_as::<u64>(x, y, d),
        }
    }
}

/// # Safety
/// As for [`strided`], with elements the size of `T`.
#[inline(always)]
unsafe fn strided_as<T: Copy>(x: *const u8, y: *mut u8, d: Dim) {
    // SAFETY: the caller's contract; unaligned accesses take any address.
    unsafe {
        if d.src == 0 && d.dst == size_of::<T>() as isize {
            let v = x.cast::<T>().read_unaligned();
            for i in 0..d.len {
                y.cast::<T>().add(i).write_unaligned(v);
            }
            return;
        }
        for i in 0..d.len as isize {
            let v = x.offset(i * d.src).cast::<T>().read_unaligned();
            y.offset(i * d.dst).cast::<T>().write_unaligned(v);
        }
    }
}

#[cfg(test)]
mod tests;
