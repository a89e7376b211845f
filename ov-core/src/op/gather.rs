//! Reading elements by index.

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType,
    movement::{FILL, checked_len, take_blocks},
    normalize_axis,
};
use crate::tensor::{Dimension, PartialShape, Shape, Tensor};

define_op! {
    /// Slices along an axis by index; indices from 0.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/gather-1.html>
    pub struct Gather1("Gather", 1) {}
}

define_op! {
    /// Slices along an axis by index, batch by batch; indices from 0.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/gather-7.html>
    pub struct Gather7("Gather", 7) {
        /// Number of leading axes that data and indices share.
        batch_dims: i64 = 0,
    }
}

define_op! {
    /// Slices along an axis by index, batch by batch; negative indices count from the end, and ones out of range give
    /// zeros, or an error where ONNX asks for one. Inputs data, indices, axis.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/gather-8.html>
    /// <https://onnx.ai/onnx/operators/onnx__Gather.html>
    pub struct Gather("Gather", 8) {
        /// Number of leading axes that data and indices share.
        batch_dims: i64 = 0,
        /// Whether an index out of range is an error.
        strict: bool = false,
    }
}

/// Index counted from the front, or `None` when it is outside the extent.
pub(super) fn wrap_index(index: i64, extent: usize) -> Option<usize> {
    let n = i64::try_from(extent).ok()?;
    let index = if index < 0 { index.checked_add(n)? } else { index };
    usize::try_from(index).ok().filter(|i| *i < extent)
}

fn single(values: &[i64]) -> OpResult<i64> {
    match values {
        [v] => Ok(*v),
        _ => Err(OpError::Invalid(format!("the axis input has {} values, expected 1", values.len()))),
    }
}

fn batch_axes(batch_dims: i64, indices_rank: usize) -> OpResult<usize> {
    let rank = i64::try_from(indices_rank).unwrap_or(i64::MAX);
    let batch = if batch_dims < 0 { batch_dims.saturating_add(rank) } else { batch_dims };
    usize::try_from(batch).ok().filter(|b| *b <= indices_rank).ok_or_else(|| OpError::Attribute {
        name: "batch_dims",
        got: batch_dims.to_string(),
        expected: format!("at most the indices' rank {indices_rank}"),
    })
}

impl OpRules for Gather {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=3)?;
        let (data, indices) = (cx.shape(0), cx.shape(1));
        let ty = cx.element_type(0);
        let (Some(d), Some(i)) = (data.dims(), indices.dims()) else {
            return Ok(vec![OutputType::new(ty, PartialShape::dynamic())]);
        };
        let batch = batch_axes(self.batch_dims, i.len())?;
        let Some(axis) = cx.i64s(2)? else {
            let rank = (d.len() + i.len()).checked_sub(1 + batch);
            let shape = rank.map_or_else(PartialShape::dynamic, PartialShape::dynamic_rank);
            return Ok(vec![OutputType::new(ty, shape)]);
        };
        let axis = normalize_axis(single(&axis)?, d.len())?;
        op_ensure!(batch <= axis, "{batch} batch axes reach past axis {axis}");
        let mut out = Vec::new();
        for (a, b) in d[..batch].iter().zip(i) {
            out.push(a.intersect(*b).ok_or_else(|| {
                OpError::Invalid(format!("batches of {data} and {indices} differ"))
            })?);
        }
        out.extend(&d[batch..axis]);
        out.extend(&i[batch..]);
        out.extend(&d[axis + 1..]);
        let value = match (cx.dims(0), cx.i64s(1)?) {
            (Some(whole), Some(picks)) if d.len() == 1 && out.len() <= 1 => {
                picks.iter().map(|p| whole.get(wrap_index(*p, whole.len())?).copied()).collect()
            }
            _ => None,
        };
        Ok(vec![OutputType::new(ty, PartialShape::new(&out)).with_dims(value)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (data, indices) = (inputs[0].shape(), inputs[1].shape());
        let axis = normalize_axis(single(&inputs[2].to_i64_vec()?)?, data.rank())?;
        let batch = batch_axes(self.batch_dims, indices.rank())?;
        op_ensure!(
            batch <= axis && data[..batch] == indices[..batch],
            "{batch} batch axes of {data} and {indices} differ or reach past axis {axis}"
        );
        let shape: Vec<usize> =
            [&data[..axis], &indices[batch..], &data[axis + 1..]].concat();
        checked_len(&shape)?;
        let picks = inputs[1].to_i64_vec()?;
        let batches: usize = data[..batch].iter().product();
        let outer: usize = data[batch..axis].iter().product();
        let block: usize = data[axis + 1..].iter().product();
        let extent = data[axis];
        let per_batch = picks.len().checked_div(batches).unwrap_or(0);
        let mut starts = Vec::with_capacity(batches * outer * per_batch);
        for b in 0..batches {
            for o in 0..outer {
                let base = (b * outer + o) * extent * block;
                for pick in &picks[b * per_batch..(b + 1) * per_batch] {
                    let at = wrap_index(*pick, extent).map(|i| base + i * block);
                    op_ensure!(
                        at.is_some() || !self.strict,
                        "index {pick} is outside axis {axis} of {data}, expected -{extent} to {}",
                        extent as i64 - 1
                    );
                    starts.push(at.unwrap_or(FILL));
                }
            }
        }
        Ok(vec![take_blocks(&inputs[0], &shape, block, &starts)?])
    }
}

impl OpRules for Gather1 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        Gather::default().infer(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Gather::default().evaluate(inputs)
    }
}

impl OpRules for Gather7 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        Gather { batch_dims: self.batch_dims, ..Gather::default() }.infer(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Gather { batch_dims: self.batch_dims, ..Gather::default() }.evaluate(inputs)
    }
}

define_op! {
    /// One element per index: `y[…, i, …] = x[…, indices[…, i, …], …]` along an axis.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/gather-elements-6.html>
    pub struct GatherElements("GatherElements", 6) {
        /// The axis.
        axis: i64 = 0,
    }
}

/// Flat data position of each index of an element-wise gather or scatter along `axis`.
pub(super) fn element_positions(data: &Shape, indices: &Tensor, axis: usize) -> OpResult<Vec<usize>> {
    let shape = indices.shape();
    let fits = shape.rank() == data.rank()
        && shape.iter().zip(data.iter()).enumerate().all(|(a, (i, d))| a == axis || i <= d);
    op_ensure!(fits || shape.contains(&0), "indices {shape} do not suit data {data} on axis {axis}");
    let strides = data.strides();
    let mut at = vec![0usize; shape.rank()];
    let mut positions = Vec::with_capacity(indices.len());
    for index in indices.to_i64_vec()? {
        let wrapped = wrap_index(index, data[axis]).ok_or_else(|| {
            OpError::Invalid(format!("index {index} is outside axis {axis} of {data}"))
        })?;
        let others: usize =
            at.iter().zip(&strides).enumerate().filter(|(a, _)| *a != axis).map(|(_, (i, s))| i * s).sum();
        positions.push(others + wrapped * strides[axis]);
        super::window::advance(&mut at, shape);
    }
    Ok(positions)
}

impl OpRules for GatherElements {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        if let Some(rank) = cx.shape(0).rank() {
            normalize_axis(self.axis, rank)?;
            cx.expect_rank(1, rank..=rank)?;
        }
        Ok(vec![OutputType::new(cx.element_type(0), cx.shape(1))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let axis = normalize_axis(self.axis, inputs[0].rank())?;
        let starts = element_positions(inputs[0].shape(), &inputs[1], axis)?;
        Ok(vec![take_blocks(&inputs[0], inputs[1].shape(), 1, &starts)?])
    }
}

define_op! {
    /// Slices by index tuples along the last axis of the indices, batch by batch.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/gather-nd-8.html>
    pub struct GatherNd("GatherND", 8) {
        /// Number of leading axes that data and indices share.
        batch_dims: i64 = 0,
    }
}

define_op! {
    /// As version 8, with the batch axes of the output multiplied into one.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/gather-nd-5.html>
    pub struct GatherNd5("GatherND", 5) {
        /// Number of leading axes that data and indices share.
        batch_dims: i64 = 0,
    }
}

/// Start of the slice of each index tuple in row-major order, with the number of elements of a slice.
pub(super) fn tuple_positions(data: &Shape, indices: &Tensor, batch: usize) -> OpResult<(Vec<usize>, usize)> {
    let shape = indices.shape();
    op_ensure!(shape.rank() > batch, "indices {shape} have no axis after {batch} batch axes");
    let depth = shape[shape.rank() - 1];
    op_ensure!(
        batch + depth <= data.rank() && data[..batch] == shape[..batch],
        "index tuples of {depth} after {batch} batch axes do not suit data {data} and indices {shape}"
    );
    let strides = data.strides();
    let block: usize = data[batch + depth..].iter().product();
    let batches: usize = data[..batch].iter().product();
    let batch_len: usize = data[batch..].iter().product();
    let tuples: usize = shape[..shape.rank() - 1].iter().product();
    checked_len(&shape[..shape.rank() - 1])?;
    let per_batch = tuples.checked_div(batches).unwrap_or(0);
    let values = indices.to_i64_vec()?;
    let mut starts = Vec::with_capacity(tuples);
    for t in 0..tuples {
        let mut at = (t / per_batch.max(1)) * batch_len;
        for (k, index) in values[t * depth..(t + 1) * depth].iter().enumerate() {
            let axis = batch + k;
            let wrapped = wrap_index(*index, data[axis]).ok_or_else(|| {
                OpError::Invalid(format!("index {index} is outside axis {axis} of {data}"))
            })?;
            at += wrapped * strides[axis];
        }
        starts.push(at);
    }
    Ok((starts, block))
}

fn gather_nd_dims(cx: &InferContext<'_>, batch: usize) -> OpResult<Option<Vec<Dimension>>> {
    let (data, indices) = (cx.shape(0), cx.shape(1));
    let (Some(d), Some(i)) = (data.dims(), indices.dims()) else { return Ok(None) };
    op_ensure!(i.len() > batch && d.len() > batch, "{data} and {indices} have too few axes for {batch} batch axes");
    let Some(depth) = i[i.len() - 1].value() else { return Ok(None) };
    op_ensure!(batch + depth <= d.len(), "index tuples of {depth} are too long for {data}");
    let mut out = i[..i.len() - 1].to_vec();
    for (o, d) in out.iter_mut().zip(&d[..batch]) {
        *o = o.intersect(*d).ok_or_else(|| OpError::Invalid(format!("batches of {data} and {indices} differ")))?;
    }
    out.extend(&d[batch + depth..]);
    Ok(Some(out))
}

fn batch_count(batch_dims: i64) -> OpResult<usize> {
    usize::try_from(batch_dims).map_err(|_| OpError::Attribute {
        name: "batch_dims",
        got: batch_dims.to_string(),
        expected: "0 or more".to_owned(),
    })
}

impl OpRules for GatherNd {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        let shape = gather_nd_dims(cx, batch_count(self.batch_dims)?)?
            .map_or_else(PartialShape::dynamic, |d| PartialShape::new(&d));
        Ok(vec![OutputType::new(cx.element_type(0), shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let batch = batch_count(self.batch_dims)?;
        let (data, indices) = (inputs[0].shape(), inputs[1].shape());
        let (starts, block) = tuple_positions(data, &inputs[1], batch)?;
        let depth = indices[indices.rank() - 1];
        let shape = [&indices[..indices.rank() - 1], &data[batch + depth..]].concat();
        Ok(vec![take_blocks(&inputs[0], &shape, block, &starts)?])
    }
}

impl OpRules for GatherNd5 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        let batch = batch_count(self.batch_dims)?;
        let shape = gather_nd_dims(cx, batch)?.map_or_else(PartialShape::dynamic, |mut d| {
            if batch > 1 {
                let whole = d.drain(..batch).fold(Dimension::fixed(1), Dimension::mul);
                d.insert(0, whole);
            }
            PartialShape::new(&d)
        });
        Ok(vec![OutputType::new(cx.element_type(0), shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let batch = batch_count(self.batch_dims)?;
        let out = GatherNd { batch_dims: self.batch_dims }.evaluate(inputs)?;
        if batch < 2 {
            return Ok(out);
        }
        let shape = out[0].shape();
        let joined = [&[shape[..batch].iter().product()], &shape[batch..]].concat();
        Ok(vec![out[0].reshape(joined)?])
    }
}


/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<Gather1>(),
    OpEntry::of::<Gather7>(),
    OpEntry::of::<Gather>(),
    OpEntry::of::<GatherElements>(),
    OpEntry::of::<GatherNd5>(),
    OpEntry::of::<GatherNd>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn iota(shape: &[usize]) -> Tensor {
        let len: usize = shape.iter().product();
        Tensor::from_vec(shape, (0..len as i32).collect::<Vec<_>>()).expect("fits")
    }

    fn indices(shape: &[usize], values: &[i64]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec()).expect("fits")
    }

    #[test]
    fn gather_takes_slices() {
        for (data, shape, picks, axis, batch_dims, expected, out) in [
            (&[3, 2][..], &[2][..], &[2i64, -3][..], 0, 0, &[4i64, 5, 0, 1][..], &[2, 2][..]),
            (&[3, 2], &[], &[1], -1, 0, &[1, 3, 5], &[3]),
            (&[2, 3], &[2, 2], &[0, 2, 1, 1], 1, 1, &[0, 2, 4, 4], &[2, 2]),
            (&[2], &[2], &[5, 1], 0, 0, &[0, 1], &[2]),
            (&[2, 0], &[1], &[1], 0, 0, &[], &[1, 0]),
            (&[2, 3], &[0], &[], 1, 0, &[], &[2, 0]),
        ] {
            let inputs = [iota(data), indices(shape, picks), Tensor::scalar(i64::from(axis))];
            let y = Gather { batch_dims, ..Gather::default() }.evaluate(&inputs).expect("valid");
            assert_eq!(y[0].to_i64_vec().expect("i32"), expected, "{data:?} {picks:?}");
            assert_eq!(y[0].shape().to_vec(), out);
        }
        let inputs = [iota(&[2, 3]), indices(&[3], &[0, 0, 0]), Tensor::scalar(1i64)];
        assert!(Gather { batch_dims: 1, ..Gather::default() }.evaluate(&inputs).is_err());
        let strict = Gather { strict: true, ..Gather::default() };
        for (index, fits) in [(2i64, true), (-3, true), (3, false), (-4, false), (i64::MIN, false)] {
            let inputs = [iota(&[3, 2]), indices(&[1], &[index]), Tensor::scalar(0i64)];
            assert_eq!(strict.evaluate(&inputs).is_ok(), fits, "{index}");
        }
    }

    #[test]
    fn elements_and_tuples() {
        let x = iota(&[2, 3]);
        let y = GatherElements { axis: 1 }.evaluate(&[x.clone(), indices(&[2, 2], &[2, -3, 1, 1])]);
        assert_eq!(y.expect("valid")[0].to_i64_vec().expect("i32"), [2, 0, 4, 4]);
        assert!(GatherElements { axis: 1 }.evaluate(&[x.clone(), indices(&[1, 1], &[3])]).is_err());
        assert!(GatherElements { axis: 1 }.evaluate(&[x.clone(), indices(&[3, 1], &[0, 0, 0])]).is_err());
        let nd = GatherNd { batch_dims: 0 };
        let y = nd.evaluate(&[x.clone(), indices(&[2, 1], &[1, -2])]).expect("valid");
        assert_eq!(y[0].to_i64_vec().expect("i32"), [3, 4, 5, 0, 1, 2]);
        let y = GatherNd { batch_dims: 1 }.evaluate(&[x.clone(), indices(&[2, 1], &[1, 2])]);
        assert_eq!(y.expect("valid")[0].to_i64_vec().expect("i32"), [1, 5]);
        assert!(nd.evaluate(&[x.clone(), indices(&[1, 2], &[2, 0])]).is_err());
        assert!(nd.evaluate(&[x, indices(&[1, 3], &[0, 0, 0])]).is_err());
    }
}
