//! Joining and splitting along an axis.

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType,
    movement::{join, signed_strides, strided_copy},
    normalize_axis,
};
use crate::tensor::{Dimension, PartialShape, Tensor};

define_op! {
    /// The inputs one after the other along an axis.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/concat-1.html>
    pub struct Concat("Concat", 1) {
        /// The axis.
        axis: i64 = 0,
    }
}

/// The value of input `index` as dimensions; integers that are no extents become unknown ones.
fn lenient_dims(cx: &InferContext<'_>, index: usize) -> Option<Vec<Dimension>> {
    if let Some(d) = cx.inputs[index].dims {
        return Some(d.to_vec());
    }
    let value = cx.value(index).filter(|v| v.rank() == 1 && v.element_type().is_integer())?;
    let to_dim = |v: i64| usize::try_from(v).map_or(Dimension::DYNAMIC, Dimension::fixed);
    Some(value.to_i64_vec().ok()?.into_iter().map(to_dim).collect())
}

impl OpRules for Concat {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=usize::MAX)?;
        let ty = cx.common_type(0..cx.len())?;
        let mut joined: Option<Vec<Dimension>> = None;
        let mut unknown_rank = false;
        let mut total = Dimension::fixed(0);
        for index in 0..cx.len() {
            let shape = cx.shape(index);
            let Some(dims) = shape.dims() else {
                unknown_rank = true;
                continue;
            };
            let axis = normalize_axis(self.axis, dims.len())?;
            total = total.add(dims[axis]);
            let refuse = || OpError::Input {
                index,
                got: format!("shape {shape}"),
                expected: format!("{}, except for axis {axis}", cx.shape(0)),
            };
            match &mut joined {
                None => joined = Some(dims.to_vec()),
                Some(j) if j.len() == dims.len() => {
                    for (_, (a, b)) in
                        j.iter_mut().zip(dims).enumerate().filter(|(i, _)| *i != axis)
                    {
                        *a = a.intersect(*b).ok_or_else(refuse)?;
                    }
                }
                Some(_) => return Err(refuse()),
            }
        }
        let Some(mut dims) = joined else {
            return Ok(vec![OutputType::new(ty, PartialShape::dynamic())]);
        };
        let axis = normalize_axis(self.axis, dims.len())?;
        dims[axis] = if unknown_rank { Dimension::DYNAMIC } else { total };
        let value = (dims.len() == 1)
            .then(|| {
                let parts: Option<Vec<_>> = (0..cx.len()).map(|i| lenient_dims(cx, i)).collect();
                parts.map(|p| p.concat()).filter(|v| v.len() <= 64)
            })
            .flatten();
        Ok(vec![OutputType::new(ty, PartialShape::new(&dims)).with_dims(value)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let axis = normalize_axis(self.axis, inputs[0].rank())?;
        let tensors: Vec<&Tensor> = inputs.iter().collect();
        Ok(vec![join(&tensors, axis)?])
    }
}

define_op! {
    /// Equal parts along an axis, given by the second input.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/split-1.html>
    pub struct Split("Split", 1) {
        /// Number of parts.
        num_splits: i64 = 1,
    }
}

define_op! {
    /// Parts of given lengths along an axis; one length may be −1, what is left.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/variadic-split-1.html>
    pub struct VariadicSplit("VariadicSplit", 1) {}
}

/// More outputs than any model has.
const MAX_PARTS: usize = 1 << 16;

fn scalar_axis(values: &[i64]) -> OpResult<i64> {
    match values {
        [axis] => Ok(*axis),
        _ => Err(OpError::Invalid(format!("the axis input has {} values, expected 1", values.len()))),
    }
}

/// Cuts parts of the given lengths off along an axis.
pub(super) fn cut(data: &Tensor, axis: usize, lengths: &[usize]) -> OpResult<Vec<Tensor>> {
    let strides = signed_strides(data.shape());
    let mut start = 0usize;
    let parts = lengths
        .iter()
        .map(|len| {
            let mut shape = data.shape().clone();
            shape.dims_mut()[axis] = *len;
            let part = strided_copy(data, &shape, start * strides[axis].unsigned_abs(), &strides);
            start += len;
            part
        })
        .collect::<OpResult<Vec<_>>>()?;
    op_ensure!(start == data.shape()[axis], "parts {lengths:?} do not sum to {}", data.shape()[axis]);
    Ok(parts)
}

impl Split {
    fn parts(&self) -> OpResult<usize> {
        let parts = usize::try_from(self.num_splits).ok().filter(|n| (1..=MAX_PARTS).contains(n));
        parts.ok_or_else(|| OpError::Attribute {
            name: "num_splits",
            got: self.num_splits.to_string(),
            expected: format!("1 to {MAX_PARTS}"),
        })
    }
}

impl OpRules for Split {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        let parts = self.parts()?;
        let mut shape = cx.shape(0);
        match (shape.dims_mut(), cx.i64s(1)?) {
            (Some(dims), Some(axis)) => {
                let axis = normalize_axis(scalar_axis(&axis)?, dims.len())?;
                if let Some(v) = dims[axis].value() {
                    op_ensure!(v % parts == 0, "extent {v} does not divide into {parts} parts");
                }
                dims[axis] = dims[axis].map(|v| v / parts);
            }
            (Some(dims), None) => shape = PartialShape::dynamic_rank(dims.len()),
            _ => {}
        }
        Ok(vec![OutputType::new(cx.element_type(0), shape); parts])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let axis = normalize_axis(scalar_axis(&inputs[1].to_i64_vec()?)?, inputs[0].rank())?;
        let (extent, parts) = (inputs[0].shape()[axis], self.parts()?);
        op_ensure!(extent % parts == 0, "extent {extent} does not divide into {parts} parts");
        cut(&inputs[0], axis, &vec![extent / parts; parts])
    }
}

fn resolve_lengths(lengths: &[i64], extent: usize) -> OpResult<Vec<usize>> {
    let fail = || OpError::Invalid(format!("parts {lengths:?} do not make up {extent}"));
    let known = lengths
        .iter()
        .filter(|l| **l != -1)
        .try_fold(0usize, |a, l| a.checked_add(usize::try_from(*l).ok()?))
        .ok_or_else(fail)?;
    let open = lengths.iter().filter(|l| **l == -1).count();
    let rest = extent.checked_sub(known).ok_or_else(fail)?;
    if open > 1 || (open == 0 && rest > 0) {
        return Err(fail());
    }
    Ok(lengths.iter().map(|l| usize::try_from(*l).unwrap_or(rest)).collect())
}

impl OpRules for VariadicSplit {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=3)?;
        let (data, lengths) = (cx.shape(0), cx.i64s(2)?);
        let count = match &lengths {
            Some(l) => l.len(),
            None => cx.shape(2).dim(0).value().ok_or_else(|| OpError::Input {
                index: 2,
                got: "an unknown number of parts".to_owned(),
                expected: "a known number".to_owned(),
            })?,
        };
        op_ensure!(count <= MAX_PARTS, "{count} parts are more than {MAX_PARTS}");
        let mut types = vec![OutputType::new(cx.element_type(0), data.clone()); count];
        let axis = cx.i64s(1)?.map(|a| scalar_axis(&a)).transpose()?;
        let (Some(rank), Some(axis)) = (data.rank(), axis) else {
            let shape = data.rank().map_or_else(PartialShape::dynamic, PartialShape::dynamic_rank);
            types.iter_mut().for_each(|t| t.shape = shape.clone());
            return Ok(types);
        };
        let axis = normalize_axis(axis, rank)?;
        let extent = data.dim(axis);
        let parts: Vec<Dimension> = match (extent.value(), lengths) {
            (Some(extent), Some(l)) => {
                resolve_lengths(&l, extent)?.into_iter().map(Dimension::fixed).collect()
            }
            (None, Some(l)) => l
                .iter()
                .map(|l| usize::try_from(*l).map_or(Dimension::DYNAMIC, Dimension::fixed))
                .collect(),
            (_, None) => vec![Dimension::DYNAMIC; count],
        };
        for (ty, part) in types.iter_mut().zip(parts) {
            if let Some(dims) = ty.shape.dims_mut() {
                dims[axis] = part;
            }
        }
        Ok(types)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let axis = normalize_axis(scalar_axis(&inputs[1].to_i64_vec()?)?, inputs[0].rank())?;
        let lengths = resolve_lengths(&inputs[2].to_i64_vec()?, inputs[0].shape()[axis])?;
        cut(&inputs[0], axis, &lengths)
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] =
    &[OpEntry::of::<Concat>(), OpEntry::of::<Split>(), OpEntry::of::<VariadicSplit>()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_join_to_the_whole() {
        let x = Tensor::from_vec([2, 5], (0..10).collect::<Vec<i32>>()).expect("fits");
        let axis = Tensor::scalar(-1i64);
        for lengths in [&[2i64, 3][..], &[0, -1, 1], &[5]] {
            let inputs = [x.clone(), axis.clone(), Tensor::from_i64s(lengths)];
            let parts = VariadicSplit {}.evaluate(&inputs).expect("valid");
            assert_eq!(Concat { axis: 1 }.evaluate(&parts).expect("joins")[0], x);
        }
        for lengths in [&[2i64, 2][..], &[-1, -1], &[6], &[-2, 7], &[i64::MAX, i64::MAX]] {
            let inputs = [x.clone(), axis.clone(), Tensor::from_i64s(lengths)];
            assert!(VariadicSplit {}.evaluate(&inputs).is_err(), "{lengths:?}");
        }
        let halves = Split { num_splits: 2 }.evaluate(&[x.clone(), Tensor::scalar(0i64)]).expect("valid");
        assert_eq!(halves[1].as_slice::<i32>().expect("i32"), [5, 6, 7, 8, 9]);
        assert!(Split { num_splits: 2 }.evaluate(&[x.clone(), axis]).is_err());
        assert!(Split { num_splits: 0 }.evaluate(&[x, Tensor::scalar(0i64)]).is_err());
    }
}
