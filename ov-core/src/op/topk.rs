//! The largest or smallest elements along an axis.

use std::cmp::Ordering;

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType, movement::checked_len, normalize_axis,
};
use crate::{
    choice, dispatch_numeric,
    tensor::{Dimension, Element, ElementType, Tensor, TensorBuffer},
};

choice! {
    /// Which elements are wanted.
    pub enum TopKMode {
        /// The largest.
        Max = "max",
        /// The smallest.
        Min = "min",
    }
}

choice! {
    /// In which order they are given.
    pub enum TopKSort {
        /// By value, best first.
        Value = "value",
        /// By index, lowest first.
        Index = "index",
        /// Any.
        None = "none",
    }
}

macro_rules! topk_op {
    ($(#[$meta:meta])* $name:ident($opset:literal) { $($(#[$fmeta:meta])* $field:ident: $ty:ty = $default:expr),* $(,)? }) => {
        define_op! {
            $(#[$meta])*
            pub struct $name("TopK", $opset) {
                /// The axis.
                axis: i64 = -1,
                /// Which elements are wanted.
                mode: TopKMode = TopKMode::Max,
                /// In which order they are given.
                sort: TopKSort = TopKSort::Value,
                /// Element type of the indices.
                index_element_type: ElementType = ElementType::I32,
                $($(#[$fmeta])* $field: $ty = $default),*
            }
        }

        impl OpRules for $name {
            fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
                infer(cx, self.axis, self.index_element_type)
            }

            fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
                let (values, indices) = evaluate(inputs, self.axis, self.mode, self.sort)?;
                Ok(vec![values, indices.cast(self.index_element_type)?])
            }
        }
    };
}

topk_op! {
    /// The k best elements and their indices.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/sort/top-k-1.html>
    TopK1(1) {}
}

topk_op! {
    /// The k best elements and their indices.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/sort/top-k-3.html>
    TopK3(3) {}
}

topk_op! {
    /// The k best elements and their indices; of equal elements the first is better.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/sort/top-k-11.html>
    TopK(11) {
        /// Whether equal elements keep their order (they always do here).
        stable: bool = false,
    }
}

fn infer(cx: &InferContext<'_>, axis: i64, index_type: ElementType) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(2..=2)?;
    let mut shape = cx.shape(0);
    if let Some(dims) = shape.dims_mut() {
        let axis = normalize_axis(axis, dims.len())?;
        let k = cx.dims(1).and_then(|k| k.first().copied());
        if let (Some(k), Some(n)) = (k.and_then(Dimension::value), dims[axis].value()) {
            op_ensure!(k <= n, "k is {k}, the axis has {n} elements");
        }
        dims[axis] = k.unwrap_or_else(|| Dimension::bounded(0, dims[axis].max()));
    }
    Ok(vec![OutputType::new(cx.element_type(0), shape.clone()), OutputType::new(index_type, shape)])
}

/// Ascending order with NaN above everything.
pub(super) fn ascending<T: PartialOrd + Copy>(a: T, b: T) -> Ordering {
    let is_nan = |v: T| v.partial_cmp(&v).is_none();
    a.partial_cmp(&b).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)))
}

fn evaluate(inputs: &[Tensor], axis: i64, mode: TopKMode, sort: TopKSort) -> OpResult<(Tensor, Tensor)> {
    let data = inputs[0].to_contiguous();
    let axis = normalize_axis(axis, data.rank())?;
    let k = inputs[1].to_i64_vec()?;
    let n = data.shape()[axis];
    let k = match k.as_slice() {
        [k] => usize::try_from(*k).ok().filter(|k| *k <= n),
        _ => None,
    }
    .ok_or_else(|| OpError::Invalid(format!("k is {k:?}, expected 0 to {n}")))?;
    let ty = data.element_type();
    dispatch_numeric!(ty, T => typed::<T>(&data, axis, k, mode, sort), else {
        Err(OpError::Unsupported(format!("element type {ty}")))
    })
}

fn typed<T: Element>(
    data: &Tensor,
    axis: usize,
    k: usize,
    mode: TopKMode,
    sort: TopKSort,
) -> OpResult<(Tensor, Tensor)>
where
    Vec<T>: TensorBuffer,
{
    let source = data.as_slice::<T>()?;
    let mut shape = data.shape().clone();
    let n = shape[axis];
    shape.dims_mut()[axis] = k;
    let len = checked_len(&shape)?;
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let mut values = vec![T::from_i64(0); len];
    let mut indices = vec![0i64; len];
    let mut order: Vec<u32> = Vec::with_capacity(n);
    op_ensure!(u32::try_from(n).is_ok(), "an axis of {n} elements is too long");
    for o in 0..outer {
        for i in 0..inner {
            let at = |j: u32| source[(o * n + j as usize) * inner + i];
            let better = |a: &u32, b: &u32| {
                let by_value = match mode {
                    TopKMode::Max => ascending(at(*b), at(*a)),
                    TopKMode::Min => ascending(at(*a), at(*b)),
                };
                by_value.then(a.cmp(b))
            };
            order.clear();
            order.extend(0..n as u32);
            if k > 0 && k < n {
                order.select_nth_unstable_by(k - 1, better);
            }
            order.truncate(k);
            if sort == TopKSort::Index {
                order.sort_unstable();
            } else {
                order.sort_unstable_by(better);
            }
            for (j, source_index) in order.iter().enumerate() {
                let target = (o * k + j) * inner + i;
                values[target] = at(*source_index);
                indices[target] = i64::from(*source_index);
            }
        }
    }
    let indices = Tensor::from_i64s(&indices).reshape(shape.clone())?;
    Ok((Tensor::from_vec(shape, values)?, indices))
}

/// Operators of this family.
pub const OPS: &[OpEntry] =
    &[OpEntry::of::<TopK1>(), OpEntry::of::<TopK3>(), OpEntry::of::<TopK>()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_ties_keep_their_order() {
        let x = [3f32, 1., 3., f32::NAN, -0., 0.];
        for (mode, sort, k, expected) in [
            (TopKMode::Max, TopKSort::Value, 3, &[3i64, 0, 2][..]),
            (TopKMode::Min, TopKSort::Value, 3, &[4, 5, 1]),
            (TopKMode::Max, TopKSort::Index, 3, &[0, 2, 3]),
            (TopKMode::Max, TopKSort::None, 0, &[]),
            (TopKMode::Min, TopKSort::Value, 6, &[4, 5, 1, 0, 2, 3]),
        ] {
            let op = TopK { axis: 0, mode, sort, index_element_type: ElementType::I64, stable: true };
            let t = Tensor::from_vec([6], x.to_vec()).expect("fits");
            let out = op.evaluate(&[t, Tensor::scalar(i64::from(k))]).expect("valid");
            assert_eq!(out[1].to_i64_vec().expect("i64"), expected);
        }
        let t = Tensor::zeros(ElementType::F32, [2, 3]).expect("small");
        for k in [-1i64, 4, i64::MAX] {
            assert!(TopK::default().evaluate(&[t.clone(), Tensor::scalar(k)]).is_err());
        }
        let axis = TopK { axis: 5, ..TopK::default() };
        assert!(axis.evaluate(&[t, Tensor::scalar(1i64)]).is_err());
    }

    #[test]
    fn large_integers_are_compared_exactly() {
        let t = Tensor::from_vec([2, 2], vec![i64::MAX - 1, 5, i64::MAX, 4]).expect("fits");
        let out = TopK { axis: 0, ..TopK::default() }.evaluate(&[t, Tensor::from_i64s(&[1])]);
        assert_eq!(out.expect("valid")[0].to_i64_vec().expect("i64"), [i64::MAX, 5]);
    }
}
