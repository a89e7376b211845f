//! Shape rules that operators share: arity, broadcasting, axes.

use std::ops::RangeInclusive;

use super::{InferContext, InputInfo, OpError, OpResult, OutputType};
use crate::tensor::{Dimension, ElementType, PartialShape, Tensor};

impl<'a> InferContext<'a> {
    /// Number of inputs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether there are no inputs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Checks the number of inputs.
    ///
    /// # Errors
    /// [`OpError::InputCount`].
    pub fn expect_inputs(&self, count: RangeInclusive<usize>) -> OpResult<()> {
        if count.contains(&self.len()) {
            return Ok(());
        }
        let expected = if count.start() == count.end() {
            count.start().to_string()
        } else if *count.end() == usize::MAX {
            format!("at least {}", count.start())
        } else {
            format!("{} to {}", count.start(), count.end())
        };
        Err(OpError::InputCount { got: self.len(), expected })
    }

    /// Input `index`.
    ///
    /// # Errors
    /// [`OpError::InputCount`] when there is none.
    pub fn input(&self, index: usize) -> OpResult<InputInfo<'a>> {
        self.inputs.get(index).copied().ok_or_else(|| OpError::InputCount {
            got: self.len(),
            expected: format!("at least {}", index + 1),
        })
    }

    /// Element type of input `index`, `Dynamic` when there is no such input.
    #[must_use]
    pub fn element_type(&self, index: usize) -> ElementType {
        self.inputs.get(index).map_or(ElementType::Dynamic, |i| i.element_type)
    }

    /// Shape of input `index`, dynamic when there is no such input.
    #[must_use]
    pub fn shape(&self, index: usize) -> PartialShape {
        self.inputs.get(index).map_or_else(PartialShape::dynamic, |i| i.shape.clone())
    }

    /// Value of input `index`, if known.
    #[must_use]
    pub fn value(&self, index: usize) -> Option<&'a Tensor> {
        self.inputs.get(index).and_then(|i| i.value)
    }

    /// Value of input `index` as integers, if known.
    ///
    /// # Errors
    /// [`OpError::Tensor`] when the value is not of an integer type.
    pub fn i64s(&self, index: usize) -> OpResult<Option<Vec<i64>>> {
        self.value(index).map(Tensor::to_i64_vec).transpose().map_err(OpError::from)
    }

    /// Value of input `index` as dimensions, as far as known.
    #[must_use]
    pub fn dims(&self, index: usize) -> Option<Vec<Dimension>> {
        let input = self.inputs.get(index)?;
        if let Some(dims) = input.dims {
            return Some(dims.to_vec());
        }
        let value = input.value?;
        (value.rank() <= 1 && value.element_type().is_integer()).then_some(())?;
        value
            .to_i64_vec()
            .ok()?
            .into_iter()
            .map(|v| usize::try_from(v).ok().map(Dimension::fixed))
            .collect()
    }

    /// Whether input `index` is there and is not the absent marker (see [`Tensor::absent`]).
    #[must_use]
    pub fn is_present(&self, index: usize) -> bool {
        self.inputs.get(index).is_some_and(|i| !i.value.is_some_and(Tensor::is_absent))
    }

    /// A type equal to that of input `index`.
    #[must_use]
    pub fn same_as(&self, index: usize) -> OutputType {
        OutputType::new(self.element_type(index), self.shape(index))
    }

    /// Checks that the rank of input `index` is one of `ranks` when it is known.
    ///
    /// # Errors
    /// [`OpError::Input`].
    pub fn expect_rank(&self, index: usize, ranks: RangeInclusive<usize>) -> OpResult<()> {
        match self.shape(index).rank() {
            Some(rank) if !ranks.contains(&rank) => Err(OpError::Input {
                index,
                got: format!("rank {rank}"),
                expected: if ranks.start() == ranks.end() {
                    format!("rank {}", ranks.start())
                } else {
                    format!("rank {} to {}", ranks.start(), ranks.end())
                },
            }),
            _ => Ok(()),
        }
    }

    /// Checks the element type of input `index` when it is known.
    ///
    /// # Errors
    /// [`OpError::Input`].
    pub fn expect_type(
        &self,
        index: usize,
        what: &str,
        accept: impl Fn(ElementType) -> bool,
    ) -> OpResult<()> {
        let ty = self.element_type(index);
        if ty == ElementType::Dynamic || accept(ty) {
            return Ok(());
        }
        Err(OpError::Input { index, got: format!("element type {ty}"), expected: what.to_owned() })
    }

    /// The one element type that the inputs `indices` share (`Dynamic` inputs agree with any).
    ///
    /// # Errors
    /// [`OpError::Input`] when two differ.
    pub fn common_type(&self, indices: impl IntoIterator<Item = usize>) -> OpResult<ElementType> {
        let mut common = ElementType::Dynamic;
        for index in indices {
            let ty = self.element_type(index);
            if common == ElementType::Dynamic {
                common = ty;
            } else if ty != ElementType::Dynamic && ty != common {
                return Err(OpError::Input {
                    index,
                    got: format!("element type {ty}"),
                    expected: format!("{common}, as the inputs before it"),
                });
            }
        }
        Ok(common)
    }
}

impl Tensor {
    /// The marker for an optional input that is left out while a later one is given.
    ///
    /// # Panics
    /// Never: the marker is empty.
    #[must_use]
    pub fn absent() -> Self {
        Self::zeros(ElementType::Dynamic, [0]).expect("an empty tensor always fits")
    }

    /// Whether this is [`Tensor::absent`].
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.element_type() == ElementType::Dynamic
    }
}

/// The input `index` of an evaluation, unless it is left out.
#[must_use]
pub fn present(inputs: &[Tensor], index: usize) -> Option<&Tensor> {
    inputs.get(index).filter(|t| !t.is_absent())
}

/// `axis` counted from the front: negative ones count from the back.
///
/// # Errors
/// [`OpError::Attribute`] when it is outside `-rank..rank`.
pub fn normalize_axis(axis: i64, rank: usize) -> OpResult<usize> {
    let signed_rank = i64::try_from(rank).unwrap_or(i64::MAX);
    let from_front = if axis < 0 { axis.saturating_add(signed_rank) } else { axis };
    if (0..signed_rank).contains(&from_front) {
        return Ok(usize::try_from(from_front).unwrap_or(0));
    }
    Err(OpError::Attribute {
        name: "axis",
        got: axis.to_string(),
        expected: format!("an axis of rank {rank}"),
    })
}

/// Axes counted from the front, sorted.
///
/// # Errors
/// [`OpError::Attribute`] when one is outside `-rank..rank`, [`OpError::Invalid`] when one is given twice.
pub fn normalize_axes(axes: &[i64], rank: usize) -> OpResult<Vec<usize>> {
    let mut axes = axes.iter().map(|a| normalize_axis(*a, rank)).collect::<OpResult<Vec<_>>>()?;
    axes.sort_unstable();
    if let Some(pair) = axes.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(OpError::Invalid(format!(
            "axis {} is given twice, expected distinct axes",
            pair[0]
        )));
    }
    Ok(axes)
}

/// Two dimensions under numpy broadcasting.
fn broadcast_dim(a: Dimension, b: Dimension) -> Option<Dimension> {
    match (a.value(), b.value()) {
        (Some(1), _) => Some(b),
        (_, Some(1)) => Some(a),
        (Some(x), Some(y)) => (x == y).then_some(a),
        (Some(_), None) => {
            b.admits(1).then_some(()).or_else(|| b.admits(a.min()).then_some(())).map(|()| a)
        }
        (None, Some(_)) => broadcast_dim(b, a),
        (None, None) if a.same(b) => Some(a),
        (None, None) => Some(Dimension::bounded(
            a.min().min(b.min()),
            a.max().max(b.max()).filter(|_| a.max().is_some() && b.max().is_some()),
        )),
    }
}

/// The shape of two operands under numpy broadcasting.
///
/// # Errors
/// [`OpError::Invalid`] when they do not broadcast.
pub fn broadcast_shapes(a: &PartialShape, b: &PartialShape) -> OpResult<PartialShape> {
    let (Some(x), Some(y)) = (a.dims(), b.dims()) else { return Ok(PartialShape::dynamic()) };
    let rank = x.len().max(y.len());
    let at = |d: &[Dimension], i: usize| {
        (i + d.len()).checked_sub(rank).map_or(Dimension::fixed(1), |i| d[i])
    };
    (0..rank)
        .map(|i| broadcast_dim(at(x, i), at(y, i)))
        .collect::<Option<PartialShape>>()
        .ok_or_else(|| OpError::Invalid(format!("shapes {a} and {b} do not broadcast")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> PartialShape {
        super::super::parse_partial_shape("shape", text).expect("valid")
    }

    #[test]
    fn shapes_broadcast_as_in_numpy() {
        for (a, b, expected) in [
            ("2,3", "3", "[2,3]"),
            ("2,1", "1,4", "[2,4]"),
            ("", "5", "[5]"),
            ("0,1", "1,3", "[0,3]"),
            ("?,3", "1,3", "[?,3]"),
            ("?", "4", "[4]"),
            ("...", "4", "[...]"),
        ] {
            assert_eq!(
                broadcast_shapes(&shape(a), &shape(b)).expect("broadcast").to_string(),
                expected
            );
        }
        assert!(broadcast_shapes(&shape("2"), &shape("3")).is_err());
        assert!(broadcast_shapes(&shape("2..3"), &shape("5")).is_err());
    }

    #[test]
    fn axes_count_from_both_ends() {
        assert_eq!(normalize_axis(-1, 3), Ok(2));
        assert_eq!(normalize_axes(&[2, -3], 3), Ok(vec![0, 2]));
        assert!(normalize_axes(&[2, -3, 0], 3).is_err());
        assert!(normalize_axis(3, 3).is_err());
        assert!(normalize_axis(i64::MIN, 3).is_err());
    }
}
