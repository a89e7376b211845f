//! Numpy broadcasting reduced to few dimensions once, so that inner loops do no index arithmetic.

use std::ops::Range;

use smallvec::SmallVec;

/// Most dimensions that are left after collapsing.
pub const MAX_DIMS: usize = 8;

/// Why shapes cannot be broadcast.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BroadcastError {
    /// An input dimension is neither 1 nor that of the other inputs.
    #[error(
        "expected dimensions that are equal or 1 along axis {axis} of {rank}, found {found} and {expected}"
    )]
    Mismatch {
        /// Axis of the output.
        axis: usize,
        /// Rank of the output.
        rank: usize,
        /// Dimension of the output so far.
        expected: usize,
        /// The other dimension.
        found: usize,
    },
    /// More dimensions are left after collapsing than the kernels walk.
    #[error("expected at most {MAX_DIMS} dimensions after collapsing, found {0}")]
    TooManyDims(usize),
    /// The number of elements does not fit in `usize`.
    #[error("the broadcast shape has more elements than fit in memory")]
    TooLarge,
}

/// How `N` inputs map on a broadcast output: collapsed dimensions and the inputs' strides.
///
/// The last dimension is the inner run; each input's stride along it is 0 (one value for the
/// run) or 1 (contiguous).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BroadcastPlan<const N: usize> {
    dims: SmallVec<[usize; MAX_DIMS]>,
    strides: SmallVec<[[usize; N]; MAX_DIMS]>,
    len: usize,
    input_len: [usize; N],
}

/// A stretch of the output along which every input has one stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<const N: usize> {
    /// First element of the output.
    pub out: usize,
    /// First element of each input.
    pub input: [usize; N],
    /// Elements.
    pub len: usize,
}

impl<const N: usize> BroadcastPlan<N> {
    /// Plans `shapes` with numpy rules: aligned at the last axis, 1 stretches.
    ///
    /// # Errors
    /// If the shapes do not fit together, are too large or keep too many dimensions.
    pub fn new(shapes: [&[usize]; N]) -> Result<Self, BroadcastError> {
        let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
        let dim = |i: usize, axis: usize| {
            let s = shapes[i];
            (axis + s.len()).checked_sub(rank).map_or(1, |a| s[a])
        };
        let mut shape: SmallVec<[usize; MAX_DIMS]> = SmallVec::new();
        for axis in 0..rank {
            let mut d = 1;
            for i in 0..N {
                let found = dim(i, axis);
                if found != 1 && d != 1 && found != d {
                    return Err(BroadcastError::Mismatch { axis, rank, expected: d, found });
                }
                if found != 1 {
                    d = found;
                }
            }
            shape.push(d);
        }
        let mut len = 1usize;
        for d in &shape {
            len = len.checked_mul(*d).ok_or(BroadcastError::TooLarge)?;
        }
        let mut strides: SmallVec<[[usize; N]; MAX_DIMS]> = SmallVec::new();
        strides.resize(rank, [0; N]);
        let mut input_len = [1usize; N];
        for i in 0..N {
            for axis in (0..rank).rev() {
                let d = dim(i, axis);
                if d != 1 {
                    strides[axis][i] = input_len[i];
                }
                input_len[i] = input_len[i].checked_mul(d).ok_or(BroadcastError::TooLarge)?;
            }
        }
        let mut plan = Self { dims: SmallVec::new(), strides: SmallVec::new(), len, input_len };
        for axis in (0..rank).rev() {
            plan.push_outer(shape[axis], strides[axis]);
        }
        if plan.dims.is_empty() {
            plan.dims.push(1);
            plan.strides.push([0; N]);
        }
        plan.dims.reverse();
        plan.strides.reverse();
        if plan.dims.len() > MAX_DIMS {
            return Err(BroadcastError::TooManyDims(plan.dims.len()));
        }
        Ok(plan)
    }

    /// Adds the next outer dimension while the lists are innermost first.
    fn push_outer(&mut self, dim: usize, strides: [usize; N]) {
        if dim == 1 {
            return;
        }
        if let (Some(d), Some(s)) = (self.dims.last_mut(), self.strides.last())
            && (0..N).all(|i| strides[i] == s[i].saturating_mul(*d))
        {
            *d = d.saturating_mul(dim);
            return;
        }
        self.dims.push(dim);
        self.strides.push(strides);
    }

    /// Elements of the output; also the number of work items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the output has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements of each input.
    #[must_use]
    pub fn input_len(&self) -> [usize; N] {
        self.input_len
    }

    /// Length of the inner run.
    #[must_use]
    pub fn inner(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// Each input's stride along the inner run: 0 or 1.
    #[must_use]
    pub fn inner_strides(&self) -> [usize; N] {
        self.strides.last().copied().unwrap_or([0; N])
    }

    /// Collapsed dimensions, outermost first.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Strides of the inputs per collapsed dimension, in elements.
    #[must_use]
    pub fn strides(&self) -> &[[usize; N]] {
        &self.strides
    }

    /// Calls `f` with the runs that cover the output elements `range`, in order.
    #[inline(always)]
    pub fn for_each_run(&self, range: Range<usize>, mut f: impl FnMut(Run<N>)) {
        let end = range.end.min(self.len);
        if range.start >= end {
            return;
        }
        let outer = self.dims.len() - 1;
        let inner = self.dims[outer];
        let inner_strides = self.strides[outer];
        let mut index = [0usize; MAX_DIMS];
        let mut base = [0usize; N];
        let mut rest = range.start / inner;
        for d in (0..outer).rev() {
            index[d] = rest % self.dims[d];
            rest /= self.dims[d];
            for i in 0..N {
                base[i] += index[d] * self.strides[d][i];
            }
        }
        let mut out = range.start;
        let mut col = range.start % inner;
        while out < end {
            let len = (inner - col).min(end - out);
            let mut input = base;
            for i in 0..N {
                input[i] += col * inner_strides[i];
            }
            f(Run { out, input, len });
            out += len;
            col = 0;
            for d in (0..outer).rev() {
                index[d] += 1;
                for i in 0..N {
                    base[i] += self.strides[d][i];
                }
                if index[d] < self.dims[d] {
                    break;
                }
                for i in 0..N {
                    base[i] -= self.dims[d] * self.strides[d][i];
                }
                index[d] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collapses() {
        struct Case(&'static [usize], &'static [usize], &'static [usize], &'static [[usize; 2]]);
        let table = [
            Case(&[2, 3, 4], &[2, 3, 4], &[24], &[[1, 1]]),
            Case(&[2, 3, 4], &[], &[24], &[[1, 0]]),
            Case(&[2, 3, 4], &[1], &[24], &[[1, 0]]),
            Case(&[2, 3, 4], &[4], &[6, 4], &[[4, 0], [1, 1]]),
            Case(&[2, 3, 4], &[2, 3, 1], &[6, 4], &[[4, 1], [1, 0]]),
            Case(&[2, 1, 1, 4], &[2, 5, 6, 4], &[2, 30, 4], &[[4, 120], [0, 4], [1, 1]]),
            Case(&[3, 1], &[1, 4], &[3, 4], &[[1, 0], [0, 1]]),
            Case(&[1, 1], &[1], &[1], &[[0, 0]]),
        ];
        for Case(a, b, dims, strides) in table {
            let plan = BroadcastPlan::new([a, b]).expect("fits");
            assert_eq!(plan.dims(), dims, "{a:?} {b:?}");
            assert_eq!(plan.strides(), strides, "{a:?} {b:?}");
        }
    }

    #[test]
    fn runs_cover_every_split_once() {
        let plan = BroadcastPlan::new([&[2, 1, 3][..], &[4, 1][..], &[2, 4, 1][..]]).expect("fits");
        assert_eq!(plan.len(), 24);
        for split in 0..=24 {
            let mut seen = vec![];
            for r in [0..split, split..24] {
                plan.for_each_run(r, |run| {
                    for k in 0..run.len {
                        let s = plan.inner_strides();
                        let at = |i: usize| run.input[i] + k * s[i];
                        seen.push((run.out + k, at(0), at(1), at(2)));
                    }
                });
            }
            let expected: Vec<_> = (0..24)
                .map(|o| {
                    let (i, j, k) = (o / 12, o / 3 % 4, o % 3);
                    (o, i * 3 + k, j, i * 4 + j)
                })
                .collect();
            assert_eq!(seen, expected, "split {split}");
        }
    }

    #[test]
    fn rejects_and_zero_sizes() {
        assert_eq!(
            BroadcastPlan::new([&[2, 3][..], &[2][..]]),
            Err(BroadcastError::Mismatch { axis: 1, rank: 2, expected: 3, found: 2 })
        );
        let huge = [usize::MAX / 2, 5];
        assert_eq!(BroadcastPlan::new([&huge[..], &[][..]]), Err(BroadcastError::TooLarge));
        let plan = BroadcastPlan::new([&[3, 0][..], &[1][..]]).expect("fits");
        assert_eq!(plan.len(), 0);
        plan.for_each_run(0..0, |_| panic!("no run in an empty output"));
        assert_eq!(BroadcastPlan::new([&[3][..], &[0][..]]).map(|p| p.len()).ok(), None);
    }
}
