//! Writing elements by index.
#![allow(clippy::eq_op, reason = "NaN is what differs from itself, for every element type")]

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType,
    gather::{element_positions, tuple_positions, wrap_index},
    movement::put_blocks,
    normalize_axis, present,
};
use crate::{
    choice, dispatch_numeric,
    tensor::{Element, ElementType, Tensor},
};

choice! {
    /// How an update meets what is there.
    pub enum Reduction {
        /// It replaces it.
        None = "none",
        /// It is added.
        Sum = "sum",
        /// It is subtracted.
        Sub = "sub",
        /// It is multiplied.
        Prod = "prod",
        /// The smaller one stays.
        Min = "min",
        /// The larger one stays.
        Max = "max",
        /// The mean of all of them.
        Mean = "mean",
    }
}

/// Updates blocks of `data` that start at `starts`. Without `use_init`, what is there counts only where nothing is
/// written.
fn scatter(
    data: &Tensor,
    updates: &Tensor,
    block: usize,
    starts: &[usize],
    reduction: Reduction,
    use_init: bool,
) -> OpResult<Tensor> {
    if reduction == Reduction::None {
        return put_blocks(data, updates, block, starts);
    }
    let ty = data.element_type();
    if ty == ElementType::Boolean {
        let reduction = match reduction {
            Reduction::Sum => Reduction::Max,
            Reduction::Prod => Reduction::Min,
            other => other,
        };
        let (data, updates) = (data.reinterpret(ElementType::U8)?, updates.reinterpret(ElementType::U8)?);
        let out = scatter(&data, &updates, block, starts, reduction, use_init)?;
        return Ok(out.reinterpret(ElementType::Boolean)?);
    }
    op_ensure!(
        starts.len().checked_mul(block) == Some(updates.len()),
        "{} blocks of {block} elements for {} updates",
        starts.len(),
        updates.len()
    );
    op_ensure!(updates.element_type() == ty, "updates of {} for data of {ty}", updates.element_type());
    let (mut out, updates) = (data.to_owned_tensor(), updates.to_contiguous());
    let positions = || {
        starts.iter().flat_map(|s| *s..*s + block).enumerate()
    };
    let mut counts = vec![u32::from(use_init); out.len()];
    dispatch_numeric!(ty, T => {
        let (target, source) = (out.as_mut_slice::<T>()?, updates.as_slice::<T>()?);
        for (u, at) in positions() {
            let (old, new) = (target[at], source[u]);
            target[at] = if counts[at] == 0 { new } else { combine(old, new, reduction, ty.is_float()) };
            counts[at] += 1;
        }
        if reduction == Reduction::Mean {
            for (t, count) in target.iter_mut().zip(&counts).filter(|(_, c)| **c > 1) {
                *t = if ty.is_float() {
                    T::from_f64(t.to_f64() / f64::from(*count))
                } else {
                    T::from_i64(t.to_i64() / i64::from(*count))
                };
            }
        }
        Ok(out)
    }, else Err(OpError::Unsupported(format!("element type {ty}"))))
}

fn combine<T: Element>(old: T, new: T, reduction: Reduction, float: bool) -> T {
    let real = |f: fn(f64, f64) -> f64| T::from_f64(f(old.to_f64(), new.to_f64()));
    let int = |f: fn(i64, i64) -> i64| T::from_i64(f(old.to_i64(), new.to_i64()));
    match reduction {
        Reduction::None => new,
        Reduction::Sum | Reduction::Mean if float => real(|a, b| a + b),
        Reduction::Sum | Reduction::Mean => int(i64::wrapping_add),
        Reduction::Sub if float => real(|a, b| a - b),
        Reduction::Sub => int(i64::wrapping_sub),
        Reduction::Prod if float => real(|a, b| a * b),
        Reduction::Prod => int(i64::wrapping_mul),
        Reduction::Min if new < old || new != new => new,
        Reduction::Max if new > old || new != new => new,
        Reduction::Min | Reduction::Max => old,
    }
}

fn infer_like_data(cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
    let ty = cx.common_type([0, 2])?;
    Ok(vec![OutputType::new(ty, cx.shape(0))])
}

define_op! {
    /// Slices of data along an axis replaced; inputs data, indices, updates, axis.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/scatter-update-3.html>
    pub struct ScatterUpdate("ScatterUpdate", 3) {}
}

impl OpRules for ScatterUpdate {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(4..=4)?;
        infer_like_data(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let data = inputs[0].shape();
        let axis = inputs[3].to_i64_vec()?.first().copied().unwrap_or(0);
        let axis = normalize_axis(axis, data.rank())?;
        let block: usize = data[axis + 1..].iter().product();
        let outer: usize = data[..axis].iter().product();
        let picks = inputs[1].to_i64_vec()?;
        let wanted = [&data[..axis], inputs[1].shape(), &data[axis + 1..]].concat();
        op_ensure!(
            inputs[2].shape()[..] == wanted[..],
            "updates have shape {}, expected {wanted:?}",
            inputs[2].shape()
        );
        let mut starts = Vec::new();
        for o in 0..outer {
            for pick in &picks {
                let at = wrap_index(*pick, data[axis]).ok_or_else(|| {
                    OpError::Invalid(format!("index {pick} is outside axis {axis} of {data}"))
                })?;
                starts.push((o * data[axis] + at) * block);
            }
        }
        Ok(vec![put_blocks(&inputs[0], &inputs[2], block, &starts)?])
    }
}

define_op! {
    /// One element per index replaced; inputs data, indices, updates, axis.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/scatter-elements-update-3.html>
    pub struct ScatterElementsUpdate3("ScatterElementsUpdate", 3) {}
}

define_op! {
    /// One element per index updated; inputs data, indices, updates, axis.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/scatter-elements-update-12.html>
    pub struct ScatterElementsUpdate("ScatterElementsUpdate", 12) {
        /// How an update meets what is there.
        reduction: Reduction = Reduction::None,
        /// Whether what is there takes part.
        use_init_val: bool = true,
    }
}

impl OpRules for ScatterElementsUpdate {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(4..=4)?;
        infer_like_data(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let axis = inputs[3].to_i64_vec()?.first().copied().unwrap_or(0);
        let axis = normalize_axis(axis, inputs[0].rank())?;
        op_ensure!(
            inputs[1].shape() == inputs[2].shape(),
            "indices {} and updates {} differ in shape",
            inputs[1].shape(),
            inputs[2].shape()
        );
        let starts = element_positions(inputs[0].shape(), &inputs[1], axis)?;
        let out = scatter(&inputs[0], &inputs[2], 1, &starts, self.reduction, self.use_init_val)?;
        Ok(vec![out])
    }
}

impl OpRules for ScatterElementsUpdate3 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        ScatterElementsUpdate::default().infer(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        ScatterElementsUpdate::default().evaluate(inputs)
    }
}

define_op! {
    /// Slices by index tuple replaced; inputs data, indices, updates.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/scatter-nd-update-3.html>
    pub struct ScatterNdUpdate3("ScatterNDUpdate", 3) {}
}

define_op! {
    /// Slices by index tuple updated; inputs data, indices, updates.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/scatter-nd-update-15.html>
    pub struct ScatterNdUpdate("ScatterNDUpdate", 15) {
        /// How an update meets what is there.
        reduction: Reduction = Reduction::None,
    }
}

impl OpRules for ScatterNdUpdate {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=3)?;
        infer_like_data(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (starts, block) = tuple_positions(inputs[0].shape(), &inputs[1], 0)?;
        Ok(vec![scatter(&inputs[0], &inputs[2], block, &starts, self.reduction, true)?])
    }
}

impl OpRules for ScatterNdUpdate3 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        ScatterNdUpdate::default().infer(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        ScatterNdUpdate::default().evaluate(inputs)
    }
}

choice! {
    /// What happens past the end of a cache.
    pub enum CacheMode {
        /// Nothing may be written there.
        Linear = "linear",
        /// Writing goes on at the beginning.
        Circular = "circular",
    }
}

define_op! {
    /// Writes a run of slices into each batch of a cache; inputs cache, update, and where each batch starts, as ONNX's
    /// `TensorScatter`. <https://onnx.ai/onnx/operators/onnx__TensorScatter.html>
    pub struct TensorScatter("TensorScatter", 0) {
        /// Axis of the sequence.
        axis: i64 = -2,
        /// What happens past the end.
        mode: CacheMode = CacheMode::Linear,
    }
}

impl OpRules for TensorScatter {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=3)?;
        cx.common_type([0, 1])?;
        if let Some(rank) = cx.shape(0).rank() {
            normalize_axis(self.axis, rank)?;
        }
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (cache, update) = (inputs[0].shape(), inputs[1].shape());
        let axis = normalize_axis(self.axis, cache.rank())?;
        let fits = cache.rank() == update.rank()
            && (0..cache.rank()).all(|a| a == axis || cache[a] == update[a]);
        op_ensure!(fits && axis > 0, "update {update} does not suit cache {cache} on axis {axis}");
        let (n, m) = (cache[axis], update[axis]);
        op_ensure!(m <= n, "{m} slices do not fit a cache of {n}");
        let begins = match present(inputs, 2) {
            Some(t) => super::reshape::usizes(t, "write index")?,
            None => vec![0; cache[0]],
        };
        op_ensure!(begins.len() == cache[0], "{} write indices for {} batches", begins.len(), cache[0]);
        let block: usize = cache[axis + 1..].iter().product();
        let middle: usize = cache[1..axis].iter().product();
        let mut starts = Vec::new();
        for (batch, begin) in begins.iter().enumerate() {
            for o in 0..middle {
                for i in 0..m {
                    let at = begin.saturating_add(i);
                    let at = if self.mode == CacheMode::Circular { at % n } else { at };
                    op_ensure!(at < n, "slice {at} is outside a cache of {n}");
                    starts.push(((batch * middle + o) * n + at) * block);
                }
            }
        }
        Ok(vec![put_blocks(&inputs[0], &inputs[1], block, &starts)?])
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<ScatterUpdate>(),
    OpEntry::of::<ScatterElementsUpdate3>(),
    OpEntry::of::<ScatterElementsUpdate>(),
    OpEntry::of::<ScatterNdUpdate3>(),
    OpEntry::of::<ScatterNdUpdate>(),
    OpEntry::of::<TensorScatter>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn f(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec()).expect("fits")
    }

    #[test]
    fn every_reduction_combines() {
        let at = Tensor::from_i64s(&[1, 1, -2]);
        for (reduction, use_init_val, expected) in [
            (Reduction::None, true, [1.0, 4.0, 3.0]),
            (Reduction::Sum, true, [1.0, 17.0, 3.0]),
            (Reduction::Sum, false, [1.0, 15.0, 3.0]),
            (Reduction::Prod, true, [1.0, 240.0, 3.0]),
            (Reduction::Min, true, [1.0, 2.0, 3.0]),
            (Reduction::Min, false, [1.0, 4.0, 3.0]),
            (Reduction::Max, true, [1.0, 6.0, 3.0]),
            (Reduction::Mean, false, [1.0, 5.0, 3.0]),
        ] {
            let op = ScatterElementsUpdate { reduction, use_init_val };
            let inputs = [f(&[3], &[1., 2., 3.]), at.clone(), f(&[3], &[5., 6., 4.]), Tensor::scalar(0i64)];
            let y = op.evaluate(&inputs).expect("valid");
            assert_eq!(y[0].to_f64_vec().expect("f32"), expected, "{reduction} {use_init_val}");
        }
    }

    #[test]
    fn slices_are_written_by_tuple_axis_and_batch() {
        let x = f(&[3, 2], &[0.; 6]);
        let nd = ScatterNdUpdate { reduction: Reduction::Sub };
        let y = nd.evaluate(&[x.clone(), Tensor::from_vec([2, 1], vec![2i64, 2]).expect("fits"), f(&[2, 2], &[1., 2., 3., 4.])]);
        assert_eq!(y.expect("valid")[0].to_f64_vec().expect("f32"), [0., 0., 0., 0., -4., -6.]);
        let inputs = [x.clone(), Tensor::from_i64s(&[1]), f(&[3, 1], &[1., 2., 3.]), Tensor::scalar(1i64)];
        let y = ScatterUpdate {}.evaluate(&inputs).expect("valid");
        assert_eq!(y[0].to_f64_vec().expect("f32"), [0., 1., 0., 2., 0., 3.]);
        let circular = TensorScatter { axis: 1, mode: CacheMode::Circular };
        let cache = f(&[1, 3], &[0.; 3]);
        let inputs = [cache.clone(), f(&[1, 2], &[1., 2.]), Tensor::from_i64s(&[2])];
        assert_eq!(circular.evaluate(&inputs).expect("valid")[0].to_f64_vec().expect("f32"), [2., 0., 1.]);
        let linear = TensorScatter { axis: 1, mode: CacheMode::Linear };
        assert!(linear.evaluate(&inputs).is_err());
        let out_of_range = [x, Tensor::from_vec([1, 1], vec![3i64]).expect("fits"), f(&[1, 2], &[1., 2.])];
        assert!(nd.evaluate(&out_of_range).is_err());
    }
}
