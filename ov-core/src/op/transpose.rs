//! Operators that reorder axes and elements: Transpose, `DepthToSpace` and its kin, Reverse.

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType,
    movement::{permute, signed_strides, strided_copy, take_blocks},
    normalize_axes, normalize_axis,
    reshape::usizes,
};
use crate::{
    choice,
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

define_op! {
    /// Axes in another order; an empty order reverses them.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/transpose-1.html>
    pub struct Transpose("Transpose", 1) {}
}

fn full_order(order: Vec<usize>, rank: usize) -> OpResult<Vec<usize>> {
    let order = if order.is_empty() { (0..rank).rev().collect() } else { order };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    op_ensure!(
        sorted.iter().copied().eq(0..rank),
        "order {order:?} is not a permutation of {rank} axes"
    );
    Ok(order)
}

impl OpRules for Transpose {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        let data = cx.shape(0);
        let order = cx.value(1).map(|v| usizes(v, "axis")).transpose()?;
        let shape = match (data.dims(), order) {
            (Some(dims), Some(order)) => {
                full_order(order, dims.len())?.into_iter().map(|a| dims[a]).collect()
            }
            (Some(dims), None) => PartialShape::dynamic_rank(dims.len()),
            (None, Some(order)) if !order.is_empty() => PartialShape::dynamic_rank(order.len()),
            _ => PartialShape::dynamic(),
        };
        Ok(vec![OutputType::new(cx.element_type(0), shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let order = full_order(usizes(&inputs[1], "axis")?, inputs[0].rank())?;
        Ok(vec![permute(&inputs[0], &order)?])
    }
}

choice! {
    /// Where the block position lies within the channels.
    pub enum DepthMode {
        /// Outermost: channel = block position × depth + d.
        BlocksFirst = "blocks_first",
        /// Innermost: channel = d × block positions + block position.
        DepthFirst = "depth_first",
    }
}

define_op! {
    /// Moves channels into blocks of the spatial axes.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/depth-to-space-1.html>
    pub struct DepthToSpace("DepthToSpace", 1) {
        /// Extent of a block along each spatial axis.
        block_size: i64 = 1,
        /// Where the block position lies within the channels.
        mode: DepthMode = DepthMode::BlocksFirst,
    }
}

define_op! {
    /// Moves blocks of the spatial axes into channels.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/space-to-depth-1.html>
    pub struct SpaceToDepth("SpaceToDepth", 1) {
        /// Extent of a block along each spatial axis.
        block_size: i64 = 1,
        /// Where the block position lies within the channels.
        mode: DepthMode = DepthMode::BlocksFirst,
    }
}

/// Block extent and block volume for `spatial` axes.
fn blocks(block_size: i64, spatial: usize) -> OpResult<(usize, usize)> {
    let refuse = || OpError::Attribute {
        name: "block_size",
        got: block_size.to_string(),
        expected: "1 to 65535".to_owned(),
    };
    let block = usize::from(u16::try_from(block_size).ok().filter(|b| *b > 0).ok_or_else(refuse)?);
    let volume = u32::try_from(spatial).ok().and_then(|s| block.checked_pow(s)).ok_or_else(refuse)?;
    Ok((block, volume))
}

fn divide(d: Dimension, by: usize, what: &str) -> OpResult<Dimension> {
    if let Some(v) = d.value() {
        op_ensure!(v % by == 0, "extent {v} of {what} is not a multiple of {by}");
    }
    Ok(d.map(|v| v / by))
}

impl OpRules for DepthToSpace {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_rank(0, 3..=8)?;
        let mut shape = cx.shape(0);
        if let Some(dims) = shape.dims_mut() {
            let (block, volume) = blocks(self.block_size, dims.len() - 2)?;
            dims[1] = divide(dims[1], volume, "the channels")?;
            for d in &mut dims[2..] {
                *d = d.mul(Dimension::fixed(block));
            }
        }
        Ok(vec![OutputType::new(cx.element_type(0), shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape();
        op_ensure!(shape.rank() >= 3, "input has rank {}, expected 3 or more", shape.rank());
        let n = shape.rank() - 2;
        let (block, volume) = blocks(self.block_size, n)?;
        op_ensure!(shape[1].is_multiple_of(volume), "{} channels are no multiple of {volume}", shape[1]);
        let depth = shape[1] / volume;
        let mut split = vec![shape[0]];
        let (depth_axis, block_axis) = if self.mode == DepthMode::BlocksFirst {
            split.extend(std::iter::repeat_n(block, n));
            split.push(depth);
            (n + 1, 1)
        } else {
            split.push(depth);
            split.extend(std::iter::repeat_n(block, n));
            (1, 2)
        };
        split.extend(&shape[2..]);
        let mut order = vec![0, depth_axis];
        let mut out = vec![shape[0], depth];
        for i in 0..n {
            order.extend([n + 2 + i, block_axis + i]);
            out.push(shape[2 + i].saturating_mul(block));
        }
        Ok(vec![permute(&inputs[0].reshape(split)?, &order)?.reshape(out)?])
    }
}

impl OpRules for SpaceToDepth {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_rank(0, 3..=8)?;
        let mut shape = cx.shape(0);
        if let Some(dims) = shape.dims_mut() {
            let (block, volume) = blocks(self.block_size, dims.len() - 2)?;
            dims[1] = dims[1].mul(Dimension::fixed(volume));
            for d in &mut dims[2..] {
                *d = divide(*d, block, "a spatial axis")?;
            }
        }
        Ok(vec![OutputType::new(cx.element_type(0), shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape();
        op_ensure!(shape.rank() >= 3, "input has rank {}, expected 3 or more", shape.rank());
        let n = shape.rank() - 2;
        let (block, volume) = blocks(self.block_size, n)?;
        let mut split = vec![shape[0], shape[1]];
        let mut out = vec![shape[0], shape[1].saturating_mul(volume)];
        for d in &shape[2..] {
            op_ensure!(d % block == 0, "spatial extent {d} is not a multiple of {block}");
            split.extend([d / block, block]);
            out.push(d / block);
        }
        let spatial = (0..n).map(|i| 2 + 2 * i);
        let inside = (0..n).map(|i| 3 + 2 * i);
        let mut order = vec![0];
        if self.mode == DepthMode::BlocksFirst {
            order.extend(inside);
            order.push(1);
        } else {
            order.push(1);
            order.extend(inside);
        }
        order.extend(spatial);
        Ok(vec![permute(&inputs[0].reshape(split)?, &order)?.reshape(out)?])
    }
}

define_op! {
    /// Splits an axis into groups and transposes groups and members.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/shuffle-channels-1.html>
    pub struct ShuffleChannels("ShuffleChannels", 1) {
        /// The axis.
        axis: i64 = 1,
        /// Number of groups.
        group: i64 = 1,
    }
}

impl OpRules for ShuffleChannels {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        if let Some(rank) = cx.shape(0).rank() {
            normalize_axis(self.axis, rank)?;
        }
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape();
        let axis = normalize_axis(self.axis, shape.rank())?;
        let group = usize::try_from(self.group).unwrap_or(0);
        op_ensure!(
            group > 0 && shape[axis].is_multiple_of(group),
            "axis {axis} of {shape} does not divide into {} groups",
            self.group
        );
        let outer: usize = shape[..axis].iter().product();
        let inner: usize = shape[axis + 1..].iter().product();
        let split = inputs[0].reshape([outer, group, shape[axis] / group, inner])?;
        Ok(vec![permute(&split, &[0, 2, 1, 3])?.reshape(shape.clone())?])
    }
}

choice! {
    /// What the second input of Reverse holds.
    pub enum ReverseMode {
        /// Axes.
        Index = "index",
        /// One truth value per axis.
        Mask = "mask",
    }
}

define_op! {
    /// Elements along some axes in reverse order.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/reverse-1.html>
    pub struct Reverse("Reverse", 1) {
        /// What the second input holds.
        mode: ReverseMode = ReverseMode::Index,
    }
}

impl OpRules for Reverse {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        if let (Some(rank), ReverseMode::Index, Some(axes)) =
            (cx.shape(0).rank(), self.mode, cx.i64s(1)?)
        {
            normalize_axes(&axes, rank)?;
        }
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape();
        let values = inputs[1].to_i64_vec()?;
        let axes = match self.mode {
            ReverseMode::Index => normalize_axes(&values, shape.rank())?,
            ReverseMode::Mask => {
                op_ensure!(values.len() == shape.rank(), "{} flags for {shape}", values.len());
                (0..values.len()).filter(|i| values[*i] != 0).collect()
            }
        };
        let mut strides = signed_strides(shape);
        let mut offset = 0;
        for axis in axes {
            offset += shape[axis].saturating_sub(1) * strides[axis].unsigned_abs();
            strides[axis] = -strides[axis];
        }
        Ok(vec![strided_copy(&inputs[0], shape, offset, &strides)?])
    }
}

define_op! {
    /// Reverses the first elements of each sequence of a batch.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/reverse-sequence-1.html>
    pub struct ReverseSequence("ReverseSequence", 1) {
        /// Axis of the batch.
        batch_axis: i64 = 0,
        /// Axis of the sequence.
        seq_axis: i64 = 1,
    }
}

impl OpRules for ReverseSequence {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        if let Some(rank) = cx.shape(0).rank() {
            normalize_axis(self.batch_axis, rank)?;
            normalize_axis(self.seq_axis, rank)?;
        }
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape();
        let batch = normalize_axis(self.batch_axis, shape.rank())?;
        let seq = normalize_axis(self.seq_axis, shape.rank())?;
        op_ensure!(batch != seq, "batch_axis and seq_axis are both {batch}");
        let lengths = usizes(&inputs[1].cast(ElementType::I64)?, "sequence length")?;
        op_ensure!(
            lengths.len() == shape[batch] && lengths.iter().all(|l| *l <= shape[seq]),
            "sequence lengths {lengths:?} do not suit {shape}"
        );
        let strides = shape.strides();
        let split = batch.max(seq) + 1;
        let block: usize = shape[split..].iter().product();
        let outer: usize = shape[..split].iter().product();
        let starts: Vec<usize> = (0..outer)
            .map(|i| {
                let at = i * block;
                let b = at / strides[batch] % shape[batch];
                let s = at / strides[seq] % shape[seq];
                if s < lengths[b] { at + (lengths[b] - 1 - s) * strides[seq] - s * strides[seq] } else { at }
            })
            .collect();
        Ok(vec![take_blocks(&inputs[0], shape, block, &starts)?])
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<Transpose>(),
    OpEntry::of::<DepthToSpace>(),
    OpEntry::of::<SpaceToDepth>(),
    OpEntry::of::<ShuffleChannels>(),
    OpEntry::of::<Reverse>(),
    OpEntry::of::<ReverseSequence>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn iota(shape: &[usize]) -> Tensor {
        let len: usize = shape.iter().product();
        Tensor::from_vec(shape, (0..len as i64).collect::<Vec<_>>()).expect("fits")
    }

    fn run(op: &dyn crate::op::Op, inputs: &[Tensor]) -> Vec<i64> {
        op.evaluate(inputs).expect("valid")[0].to_i64_vec().expect("i64")
    }

    #[test]
    fn elements_move_where_the_specification_says() {
        let reverse = Reverse { mode: ReverseMode::Index };
        let mask = Reverse { mode: ReverseMode::Mask };
        let sequence = ReverseSequence { batch_axis: 1, seq_axis: 0 };
        let shuffle = ShuffleChannels { axis: 1, group: 2 };
        let cases: Vec<(&dyn crate::op::Op, Vec<Tensor>, Vec<i64>)> = vec![
            (&Transpose {}, vec![iota(&[2, 3]), Tensor::from_i64s(&[])], vec![0, 3, 1, 4, 2, 5]),
            (&Transpose {}, vec![iota(&[0, 3]), Tensor::from_i64s(&[1, 0])], vec![]),
            (&reverse, vec![iota(&[2, 2]), Tensor::from_i64s(&[-1])], vec![1, 0, 3, 2]),
            (&mask, vec![iota(&[2, 2]), Tensor::from_bools([2], &[true, false]).expect("fits")], vec![2, 3, 0, 1]),
            (&sequence, vec![iota(&[3, 2]), Tensor::from_i64s(&[2, 3])], vec![2, 5, 0, 3, 4, 1]),
            (&shuffle, vec![iota(&[1, 4])], vec![0, 2, 1, 3]),
        ];
        for (op, inputs, expected) in cases {
            assert_eq!(run(op, &inputs), expected, "{op:?}");
        }
    }

    #[test]
    fn depth_and_space_are_inverse() {
        for mode in [DepthMode::BlocksFirst, DepthMode::DepthFirst] {
            let to_space = DepthToSpace { block_size: 2, mode };
            let to_depth = SpaceToDepth { block_size: 2, mode };
            let x = iota(&[1, 8, 1, 3]);
            let y = to_space.evaluate(std::slice::from_ref(&x)).expect("valid");
            assert_eq!(y[0].shape().to_vec(), [1, 2, 2, 6]);
            assert_eq!(to_depth.evaluate(&y).expect("valid")[0], x);
        }
        for block_size in [0, -2, 3, i64::MAX] {
            let op = DepthToSpace { block_size, mode: DepthMode::DepthFirst };
            assert!(op.evaluate(&[iota(&[1, 8, 1, 1])]).is_err());
        }
    }

    #[test]
    fn wrong_orders_and_lengths_are_refused() {
        assert!(Transpose {}.evaluate(&[iota(&[2, 3]), Tensor::from_i64s(&[0, 0])]).is_err());
        let op = ReverseSequence { batch_axis: 0, seq_axis: 1 };
        assert!(op.evaluate(&[iota(&[2, 3]), Tensor::from_i64s(&[1, 4])]).is_err());
        assert!(op.evaluate(&[iota(&[2, 3]), Tensor::from_i64s(&[1])]).is_err());
    }
}
