//! Choice between two values.

use super::{BroadcastPlan, InferContext, OpEntry, OpResult, OpRules, OutputType, broadcast_shapes, unsupported_type};
use crate::tensor::{Dimension, ElementType, Tensor};

define_op! {
    /// `condition ? a : b`; inputs condition (boolean), `a` and `b`, which broadcast together.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/condition/select-1.html>
    pub struct Select("Select", 1) {}
}

/// Truth values as far as known, 0 or 1.
fn known_condition(cx: &InferContext<'_>) -> Option<Vec<Dimension>> {
    if let Some(value) = cx.value(0).filter(|v| v.rank() <= 1) {
        let bits = value.to_i64_vec().ok()?;
        return Some(bits.into_iter().map(|b| Dimension::fixed(usize::from(b != 0))).collect());
    }
    cx.dims(0)
}

fn select_dims(cx: &InferContext<'_>, len: usize) -> Option<Vec<Dimension>> {
    let (condition, a, b) = (known_condition(cx)?, cx.dims(1), cx.dims(2));
    let at = |v: &Option<Vec<Dimension>>, i: usize| {
        let v = v.as_ref()?;
        v.get(if v.len() == 1 { 0 } else { i }).copied()
    };
    let condition = Some(condition);
    (0..len)
        .map(|i| match at(&condition, i)?.value() {
            Some(0) => at(&b, i),
            Some(_) => at(&a, i),
            None => Some(at(&a, i)?.union(at(&b, i)?)),
        })
        .collect()
}

impl OpRules for Select {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=3)?;
        cx.expect_type(0, "boolean", |t| t == ElementType::Boolean)?;
        let ty = cx.common_type(1..3)?;
        let shape = broadcast_shapes(&broadcast_shapes(&cx.shape(0), &cx.shape(1))?, &cx.shape(2))?;
        let known = shape
            .to_shape()
            .filter(|s| s.rank() <= 1)
            .and_then(|s| select_dims(cx, s.elements()));
        Ok(vec![OutputType::new(ty, shape).with_dims(known)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (condition, a, b) = (inputs[0].to_contiguous(), inputs[1].to_contiguous(), inputs[2].to_contiguous());
        let ty = a.element_type();
        let plan = BroadcastPlan::new([condition.shape(), a.shape(), b.shape()])?;
        let condition = condition.as_slice::<u8>()?;
        if ty == ElementType::String {
            let data = choose(&plan, condition, a.as_strings()?, b.as_strings()?);
            return Ok(vec![Tensor::from_strings(plan.shape, data)?]);
        }
        let bytes: Vec<u8> = match ty.bits() {
            8 => choose(&plan, condition, a.bytes(), b.bytes()),
            16 => choose_wide::<u16>(&plan, condition, &a, &b),
            32 => choose_wide::<u32>(&plan, condition, &a, &b),
            64 => choose_wide::<u64>(&plan, condition, &a, &b),
            128 => choose_wide::<[u64; 2]>(&plan, condition, &a, &b),
            _ => return Err(unsupported_type(ty)),
        };
        Ok(vec![Tensor::from_bytes(ty, plan.shape, &bytes)?])
    }
}

fn choose<T: Clone>(plan: &BroadcastPlan<3>, condition: &[u8], a: &[T], b: &[T]) -> Vec<T> {
    let mut out = Vec::with_capacity(plan.shape.elements());
    plan.for_each_run(|[c, i, j], [r, s, t], n| {
        out.extend((0..n).map(|k| {
            if condition[c + r * k] != 0 { a[i + s * k].clone() } else { b[j + t * k].clone() }
        }));
    });
    out
}

fn choose_wide<T: bytemuck::Pod>(plan: &BroadcastPlan<3>, condition: &[u8], a: &Tensor, b: &Tensor) -> Vec<u8> {
    let data = choose::<T>(plan, condition, bytemuck::cast_slice(a.bytes()), bytemuck::cast_slice(b.bytes()));
    bytemuck::cast_slice(&data).to_vec()
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[OpEntry::of::<Select>()];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::InputInfo;

    #[test]
    fn every_width_is_chosen_from() {
        let condition = Tensor::from_bools([3, 1], &[true, false, true]).expect("fits");
        for ty in [ElementType::U8, ElementType::F16, ElementType::F32, ElementType::I64] {
            let t = |v: &[f64]| Tensor::from_f64s::<f64>([v.len()], v).expect("fits").cast(ty).expect("native");
            let got = Select {}.evaluate(&[condition.clone(), t(&[1., 2.]), t(&[3.])]).expect("valid");
            assert_eq!(got[0].to_f64_vec().expect("numeric"), [1., 2., 3., 3., 1., 2.]);
        }
        let texts = |v: &[&str]| Tensor::from_strings([v.len()], v.iter().map(|s| (*s).to_owned()).collect()).expect("fits");
        let got = Select {}.evaluate(&[condition, texts(&["a"]), texts(&["b"])]).expect("valid");
        assert_eq!(got[0].as_strings().expect("texts"), ["a", "b", "a"]);
    }

    #[test]
    fn shapes_chosen_by_known_conditions_are_known() {
        let shape = crate::PartialShape::from([2]);
        let condition = [Dimension::fixed(0), Dimension::fixed(1)];
        let (a, b) = ([Dimension::fixed(5), Dimension::fixed(6)], [Dimension::DYNAMIC.with_symbol(3), Dimension::DYNAMIC]);
        let info = |ty, dims| InputInfo { element_type: ty, shape: &shape, value: None, dims: Some(dims) };
        let inputs = [
            info(ElementType::Boolean, &condition[..]),
            info(ElementType::I64, &a[..]),
            info(ElementType::I64, &b[..]),
        ];
        let out = Select {}.infer(&InferContext { inputs: &inputs }).expect("valid").remove(0);
        assert_eq!(out.dims.expect("known"), [b[0], a[1]]);
    }
}
