//! Walks over dense arrays: broadcasting, merged dimensions, and division by multiplication.

use ov_core::Shape;

use super::Reject;

/// Most merged dimensions that a kernel walks.
pub(super) const MAX_RANK: usize = 8;

/// Bytes of a structure that a kernel takes by value. Members are pushed in order of the declaration; each is 4 bytes
/// wide, or 8 and then stands at a multiple of 8.
#[derive(Clone, Debug, Default)]
pub(super) struct Record(Vec<u8>);

impl Record {
    /// A member of 4 bytes.
    pub(super) fn u32(&mut self, v: u32) -> &mut Self {
        self.0.extend(v.to_le_bytes());
        self
    }

    /// A member of 4 bytes.
    pub(super) fn i32(&mut self, v: i32) -> &mut Self {
        self.0.extend(v.to_le_bytes());
        self
    }

    /// A member of 4 bytes.
    pub(super) fn f32(&mut self, v: f32) -> &mut Self {
        self.0.extend(v.to_le_bytes());
        self
    }

    /// A member of 8 bytes.
    pub(super) fn i64(&mut self, v: i64) -> &mut Self {
        debug_assert!(self.0.len().is_multiple_of(8), "a member of 8 bytes is aligned");
        self.0.extend(v.to_le_bytes());
        self
    }

    /// A divisor of numbers below 2³¹: the struct `ov_divisor`.
    pub(super) fn divisor(&mut self, d: u32) -> &mut Self {
        let (multiplier, shift) = magic(d);
        self.u32(d).u32(multiplier).u32(shift)
    }

    /// The bytes.
    pub(super) fn bytes(self) -> Vec<u8> {
        self.0
    }
}

impl From<Vec<u8>> for Record {
    /// A structure that begins with these bytes.
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

/// Multiplier and shift with which `n / d == (high(n · multiplier) + n) >> shift` for every `n` below 2³¹: Granlund and
/// Montgomery, "Division by invariant integers using multiplication", 1994, figure 4.1.
fn magic(d: u32) -> (u32, u32) {
    let d = d.max(1);
    let shift = u32::BITS - (d - 1).leading_zeros();
    let multiplier = ((1u64 << 32) * ((1u64 << shift) - u64::from(d))) / u64::from(d) + 1;
    (multiplier as u32, shift)
}

/// A count of elements or an extent that kernels can count in 31 bits.
///
/// # Errors
/// When it is too large.
pub(super) fn count(n: usize) -> Result<u32, Reject> {
    u32::try_from(n)
        .ok()
        .filter(|n| *n < 1 << 31)
        .ok_or_else(|| format!("takes fewer than 2^31 elements, not {n}").into())
}

/// Strides of a dense array in elements.
pub(super) fn dense_strides(dims: &[usize]) -> Vec<i64> {
    let mut strides = vec![1i64; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i] as i64;
    }
    strides
}

/// Strides of a dense array of `shape` that broadcasts to `to`: 0 where it has extent 1.
///
/// # Errors
/// When it does not broadcast.
pub(super) fn broadcast_strides(shape: &[usize], to: &[usize]) -> Result<Vec<i64>, Reject> {
    let skipped = to.len().checked_sub(shape.len());
    let suits = skipped.is_some_and(|n| shape.iter().zip(&to[n..]).all(|(s, t)| s == t || *s == 1));
    let (Some(skipped), true) = (skipped, suits) else {
        return Err(format!(
            "shape {} does not broadcast to {}",
            Shape::new(shape),
            Shape::new(to)
        )
        .into());
    };
    let dense = dense_strides(shape);
    Ok((0..to.len())
        .map(|i| match i.checked_sub(skipped) {
            Some(j) if shape[j] != 1 => dense[j],
            _ => 0,
        })
        .collect())
}

/// Dimensions that several operands walk together, each by its own strides (in elements).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    /// Extents, outermost first.
    pub(super) dims: Vec<usize>,
    /// Per operand the stride of every dimension.
    pub(super) strides: Vec<Vec<i64>>,
}

impl Walk {
    /// The walk with extents of 1 left out and neighbours merged that every operand walks as one. At least rank 1.
    pub(super) fn merged(dims: &[usize], strides: &[Vec<i64>]) -> Self {
        let mut merged = Self { dims: Vec::new(), strides: vec![Vec::new(); strides.len()] };
        for (axis, &extent) in dims.iter().enumerate() {
            if extent == 1 {
                continue;
            }
            let joins =
                !merged.dims.is_empty()
                    && merged.strides.iter().zip(strides).all(|(m, s)| {
                        m.last().is_some_and(|last| *last == s[axis] * extent as i64)
                    });
            match merged.dims.last_mut() {
                Some(last) if joins => {
                    *last *= extent;
                    for (m, s) in merged.strides.iter_mut().zip(strides) {
                        if let Some(stride) = m.last_mut() {
                            *stride = s[axis];
                        }
                    }
                }
                _ => {
                    merged.dims.push(extent);
                    merged.strides.iter_mut().zip(strides).for_each(|(m, s)| m.push(s[axis]));
                }
            }
        }
        if merged.dims.is_empty() {
            merged.dims.push(1);
            merged.strides.iter_mut().for_each(|m| m.push(0));
        }
        merged
    }

    /// Elements.
    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// The struct `ov_walk<operands>`: elements, rank, divisors, strides per operand.
    ///
    /// # Errors
    /// When there are more than [`MAX_RANK`] dimensions, or an offset needs more than 31 bits.
    pub(super) fn record(&self) -> Result<Record, Reject> {
        if self.dims.len() > MAX_RANK {
            return Err(format!(
                "takes {MAX_RANK} dimensions that do not merge, not {}",
                self.dims.len()
            )
            .into());
        }
        let mut record = Record::default();
        record.u32(count(self.len())?).u32(self.dims.len() as u32);
        for axis in 0..MAX_RANK {
            record.divisor(count(self.dims.get(axis).copied().unwrap_or(1))?);
        }
        for strides in &self.strides {
            let reach: i64 =
                strides.iter().zip(&self.dims).map(|(s, d)| s.abs() * (*d as i64 - 1).max(0)).sum();
            count(usize::try_from(reach).unwrap_or(usize::MAX))?;
            for axis in 0..MAX_RANK {
                record.i32(strides.get(axis).map_or(0, |s| i32::try_from(*s).unwrap_or(0)));
            }
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplication_divides_every_number() {
        let edges = [
            1u32,
            2,
            3,
            5,
            7,
            9,
            10,
            641,
            1000,
            65_535,
            65_536,
            65_537,
            (1 << 30) + 1,
            (1 << 31) - 1,
        ];
        for d in edges {
            let (multiplier, shift) = magic(d);
            let near = |v: u32| [v.saturating_sub(1), v, v.saturating_add(1)];
            let multiples = [1u32, 2, 3, 1000].map(|k| d.saturating_mul(k));
            for n in edges
                .into_iter()
                .chain(multiples)
                .flat_map(near)
                .chain([0])
                .filter(|n| *n < 1 << 31)
            {
                let high = ((u64::from(n) * u64::from(multiplier)) >> 32) as u32;
                assert_eq!((high + n) >> shift, n / d, "{n} / {d}");
            }
        }
    }

    #[test]
    fn neighbours_merge_where_all_operands_allow_it() {
        let dims = [2, 1, 3, 4];
        let whole = dense_strides(&dims);
        let row = broadcast_strides(&[3, 4], &dims).expect("broadcasts");
        let walk = Walk::merged(&dims, &[whole.clone(), row]);
        assert_eq!((walk.dims, walk.strides), (vec![2, 12], vec![vec![12, 1], vec![0, 1]]));
        let scalar = broadcast_strides(&[], &dims).expect("broadcasts");
        assert_eq!(Walk::merged(&dims, &[whole, scalar]).strides, [[1], [0]]);
        assert_eq!(Walk::merged(&[], &[vec![]]).dims, [1]);
        assert!(broadcast_strides(&[2], &[3]).is_err());
        assert!(Walk::merged(&[2; 9], &[vec![1; 9]]).record().is_err());
    }
}
