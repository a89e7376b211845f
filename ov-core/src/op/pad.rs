//! Padding.

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType,
    movement::{FILL, checked_len, gather_axes},
    present,
};
use crate::{
    choice,
    tensor::{Dimension, PartialShape, Tensor},
};

choice! {
    /// What the new elements are.
    pub enum PadMode {
        /// A given value.
        Constant = "constant",
        /// The nearest element.
        Edge = "edge",
        /// Mirrored about the outermost element.
        Reflect = "reflect",
        /// Mirrored about the border.
        Symmetric = "symmetric",
        /// Continued from the other end (ONNX only).
        Wrap = "wrap",
    }
}

define_op! {
    /// Elements added around the data; inputs data, `pads_begin`, `pads_end` and the value.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/pad-1.html>
    pub struct Pad1("Pad", 1) {
        /// What the new elements are.
        pad_mode: PadMode = PadMode::Constant,
    }
}

define_op! {
    /// Elements added around the data, or cut off where a pad is negative; inputs data, `pads_begin`, `pads_end` and the
    /// value.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/pad-12.html>
    pub struct Pad("Pad", 12) {
        /// What the new elements are.
        pad_mode: PadMode = PadMode::Constant,
    }
}

fn padded(extent: usize, begin: i64, end: i64) -> OpResult<usize> {
    let total = extent as i128 + i128::from(begin) + i128::from(end);
    op_ensure!(total >= 0, "padding {begin} and {end} cuts off more than the extent {extent}");
    usize::try_from(total)
        .map_err(|_| OpError::Invalid(format!("padding {extent} by {begin} and {end} is too much")))
}

/// Source index of each output position along one axis.
fn source_indices(mode: PadMode, extent: usize, begin: i64, end: i64) -> OpResult<Vec<usize>> {
    let len = padded(extent, begin, end)?;
    let n = i64::try_from(extent).unwrap_or(i64::MAX);
    let fits = mode == PadMode::Constant || extent > 0 || len == 0;
    op_ensure!(fits, "an axis of extent 0 has nothing to pad with");
    Ok((0..len as i64)
        .map(|i| {
            let at = i - begin;
            if (0..n).contains(&at) {
                return at as usize;
            }
            let source = match mode {
                PadMode::Constant => return FILL,
                PadMode::Edge => at.clamp(0, n - 1),
                PadMode::Wrap => at.rem_euclid(n),
                PadMode::Reflect if n == 1 => 0,
                PadMode::Reflect => {
                    let r = at.rem_euclid(2 * (n - 1));
                    r.min(2 * (n - 1) - r)
                }
                PadMode::Symmetric => {
                    let r = at.rem_euclid(2 * n);
                    r.min(2 * n - 1 - r)
                }
            };
            source as usize
        })
        .collect())
}

impl OpRules for Pad {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=4)?;
        let data = cx.shape(0);
        let ty = cx.element_type(0);
        let Some(dims) = data.dims() else { return Ok(vec![cx.same_as(0)]) };
        let (Some(begin), Some(end)) = (cx.i64s(1)?, cx.i64s(2)?) else {
            return Ok(vec![OutputType::new(ty, PartialShape::dynamic_rank(dims.len()))]);
        };
        op_ensure!(
            begin.len() == dims.len() && end.len() == dims.len(),
            "pads {begin:?} and {end:?} do not suit {data}"
        );
        let mut shape = data.clone();
        if let Some(out) = shape.dims_mut() {
            for (i, d) in out.iter_mut().enumerate() {
                if begin[i] != 0 || end[i] != 0 {
                    *d = match d.value() {
                        Some(v) => Dimension::fixed(padded(v, begin[i], end[i])?),
                        None => d.map(|v| {
                            let total = v as i128 + i128::from(begin[i]) + i128::from(end[i]);
                            usize::try_from(total.max(0)).unwrap_or(usize::MAX)
                        }),
                    };
                }
            }
        }
        let value = match (cx.dims(0), self.pad_mode, cx.i64s(3), shape.dims()) {
            (Some(d), PadMode::Constant, Ok(fill), Some([n])) if n.value().is_some_and(|n| n <= 64) => {
                let fill = match fill.as_deref() {
                    Some([v]) => usize::try_from(*v).map_or(Dimension::DYNAMIC, Dimension::fixed),
                    None if cx.len() < 4 => Dimension::fixed(0),
                    _ => Dimension::DYNAMIC,
                };
                let map = source_indices(PadMode::Constant, d.len(), begin[0], end[0])?;
                Some(map.into_iter().map(|i| d.get(i).copied().unwrap_or(fill)).collect())
            }
            _ => None,
        };
        Ok(vec![OutputType::new(ty, shape).with_dims(value)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let data = &inputs[0];
        let (begin, end) = (inputs[1].to_i64_vec()?, inputs[2].to_i64_vec()?);
        op_ensure!(
            begin.len() == data.rank() && end.len() == data.rank(),
            "pads {begin:?} and {end:?} do not suit {}",
            data.shape()
        );
        let lengths = data.shape().iter().zip(begin.iter().zip(&end));
        let shape: Vec<usize> =
            lengths.clone().map(|(d, (b, e))| padded(*d, *b, *e)).collect::<OpResult<_>>()?;
        checked_len(&shape)?;
        op_ensure!(
            shape.iter().all(|d| *d <= super::movement::MAX_ELEMENTS),
            "output shape {shape:?} is too large"
        );
        let maps: Vec<Vec<usize>> = lengths
            .map(|(d, (b, e))| source_indices(self.pad_mode, *d, *b, *e))
            .collect::<OpResult<_>>()?;
        let fill = present(inputs, 3).filter(|_| self.pad_mode == PadMode::Constant);
        Ok(vec![gather_axes(data, &maps, fill)?])
    }
}

impl OpRules for Pad1 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        Pad { pad_mode: self.pad_mode }.infer(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Pad { pad_mode: self.pad_mode }.evaluate(inputs)
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[OpEntry::of::<Pad1>(), OpEntry::of::<Pad>()];

#[cfg(test)]
mod tests {
    use super::*;

    fn pad(pad_mode: PadMode, data: &[i32], begin: i64, end: i64) -> OpResult<Vec<i64>> {
        let x = Tensor::from_vec([data.len()], data.to_vec())?;
        let inputs =
            [x, Tensor::from_i64s(&[begin]), Tensor::from_i64s(&[end]), Tensor::scalar(9i32)];
        Ok(Pad { pad_mode }.evaluate(&inputs)?[0].to_i64_vec()?)
    }

    #[test]
    fn every_mode_continues_its_way() {
        let x = [1, 2, 3];
        for (mode, data, begin, end, expected) in [
            (PadMode::Constant, &x[..], 1, 2, &[9i64, 1, 2, 3, 9, 9][..]),
            (PadMode::Constant, &x, -1, -1, &[2]),
            (PadMode::Constant, &x, -2, 3, &[3, 9, 9, 9]),
            (PadMode::Constant, &[], 1, 1, &[9, 9]),
            (PadMode::Edge, &x, 2, 1, &[1, 1, 1, 2, 3, 3]),
            (PadMode::Reflect, &x, 3, 3, &[2, 3, 2, 1, 2, 3, 2, 1, 2]),
            (PadMode::Reflect, &[7], 1, 1, &[7, 7, 7]),
            (PadMode::Symmetric, &x, 2, 2, &[2, 1, 1, 2, 3, 3, 2]),
            (PadMode::Wrap, &x, 1, 4, &[3, 1, 2, 3, 1, 2, 3, 1]),
        ] {
            assert_eq!(pad(mode, data, begin, end).expect("valid"), expected, "{mode}");
        }
        assert!(pad(PadMode::Edge, &[], 1, 0).is_err());
        assert!(pad(PadMode::Constant, &x, -2, -2).is_err());
        assert!(pad(PadMode::Constant, &x, 1 << 40, 0).is_err());
        assert!(pad(PadMode::Constant, &x, i64::MAX, i64::MAX).is_err());
    }
}
