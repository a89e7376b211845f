//! Gathering slices along an axis, and single elements along an axis.
#![allow(unsafe_code, reason = "each call writes its own part of a shared output")]

use std::ops::Range;

use crate::kernels::out::Out;

/// An index outside its axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an index in -{axis}..{axis}, found {found} at position {at}")]
pub struct IndexError {
    /// The index.
    pub found: i64,
    /// Its position in the index tensor.
    pub at: usize,
    /// Length of the axis.
    pub axis: usize,
}

/// Element types of index tensors.
pub trait Index: Copy + Send + Sync + 'static {
    /// The index as a signed number.
    fn signed(self) -> i64;
}
impl Index for i32 {
    #[inline(always)]
    fn signed(self) -> i64 {
        i64::from(self)
    }
}
impl Index for i64 {
    #[inline(always)]
    fn signed(self) -> i64 {
        self
    }
}

/// The position that `index` means on an axis of `len` (negative ones count from the end).
///
/// # Errors
/// If it lies outside; `at` is reported as its position.
#[inline(always)]
pub fn resolve(index: i64, len: usize, at: usize) -> Result<usize, IndexError> {
    let shifted = if index < 0 { index.wrapping_add(len as i64) } else { index };
    usize::try_from(shifted).ok().filter(|i| *i < len).ok_or(IndexError {
        found: index,
        at,
        axis: len,
    })
}

/// Gathers `inner` bytes at each of the indices from `x: [outer, axis, inner]` into
/// `out: [outer, indices.len(), inner]`. Items are pairs of (outer, index), so there are
/// `outer * indices.len()` of them.
///
/// # Errors
/// At the first index outside the axis; items before it are written.
///
/// # Panics
/// If a slice is shorter than its shape.
pub fn gather<I: Index>(
    axis: usize,
    inner: usize,
    x: &[u8],
    indices: &[I],
    out: &Out<'_, u8>,
    range: Range<usize>,
) -> Result<(), IndexError> {
    for item in range {
        let (o, at) = (item / indices.len(), item % indices.len());
        let k = resolve(indices[at].signed(), axis, at)?;
        // SAFETY: each item has its own bytes.
        let y = unsafe { out.slice(item * inner..(item + 1) * inner) };
        let from = (o * axis + k) * inner;
        y.copy_from_slice(&x[from..from + inner]);
    }
    Ok(())
}

/// `out[o, j, i] = x[o, indices[o, j, i], i]` for `x: [outer, axis, inner]` and indices
/// `[outer, picked, inner]`: ONNX `GatherElements` whose other dimensions agree. Items are
/// elements of the output.
///
/// # Errors
/// At the first index outside the axis.
///
/// # Panics
/// If a slice is shorter than its shape.
pub fn gather_elements<T: Copy, I: Index>(
    axis: usize,
    picked: usize,
    inner: usize,
    x: &[T],
    indices: &[I],
    out: &Out<'_, T>,
    range: Range<usize>,
) -> Result<(), IndexError> {
    // SAFETY: the elements of an item range belong to it alone.
    let y = unsafe { out.slice(range.clone()) };
    for (y, item) in y.iter_mut().zip(range) {
        let k = resolve(indices[item].signed(), axis, item)?;
        *y = x[(item / (picked * inner) * axis + k) * inner + item % inner];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathers_rows() {
        let x: Vec<u8> = (0..2 * 5 * 6).collect();
        let indices = [4i64, -5, 0, -1];
        let mut y = vec![0; 2 * 4 * 6];
        let out = Out::new(&mut y);
        gather(5, 6, &x, &indices, &out, 0..3).expect("valid");
        gather(5, 6, &x, &indices, &out, 3..8).expect("valid");
        for i in 0..48 {
            let k = [4, 0, 0, 4][i / 6 % 4];
            assert_eq!(usize::from(y[i]), (i / 24 * 5 + k) * 6 + i % 6);
        }
    }

    #[test]
    fn gathers_elements() {
        let x: Vec<f32> = (0..2 * 3 * 4).map(|i| i as f32).collect();
        let indices: Vec<i32> = (0..2 * 2 * 4).map(|i| i % 5 % 3 - 1).collect();
        let mut y = vec![0.0; 16];
        gather_elements(3, 2, 4, &x, &indices, &Out::new(&mut y), 0..16).expect("valid");
        for i in 0..16 {
            let k = indices[i].rem_euclid(3) as usize;
            assert_eq!(y[i] as usize, (i / 8 * 3 + k) * 4 + i % 4);
        }
    }

    #[test]
    fn rejects_indices_outside() {
        let table = [(5i64, 1), (-6, 1), (i64::MIN, 1), (i64::MAX, 1)];
        for (index, at) in table {
            let mut y = vec![0; 4];
            let e = gather(5, 2, &[0; 10], &[0, index], &Out::new(&mut y), 0..2);
            assert_eq!(e, Err(IndexError { found: index, at, axis: 5 }));
        }
        let mut y = vec![];
        assert!(gather::<i32>(5, 2, &[0; 10], &[], &Out::new(&mut y), 0..0).is_ok());
        let mut y = vec![0; 1];
        assert!(gather(0, 1, &[], &[0i32], &Out::new(&mut y), 0..1).is_err());
    }
}
