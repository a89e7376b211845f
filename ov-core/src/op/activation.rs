//! Element-wise operators of one input that stand between layers.

use super::{InferContext, OpEntry, OpError, OpResult, OpRules, OutputType};
use crate::{
    dispatch_float, dispatch_numeric,
    tensor::{Element, ElementType, Tensor, TensorBuffer},
};

/// Applies `f` in `f64` to every element of a floating-point tensor.
///
/// # Errors
/// [`OpError::Unsupported`] for other element types.
pub fn map_float(input: &Tensor, f: impl Fn(f64) -> f64) -> OpResult<Tensor> {
    fn typed<T: Element>(input: &Tensor, f: impl Fn(f64) -> f64) -> OpResult<Tensor>
    where
        Vec<T>: TensorBuffer,
    {
        let input = input.to_contiguous();
        let data = input.as_slice::<T>()?.iter().map(|v| T::from_f64(f(v.to_f64()))).collect::<Vec<T>>();
        Ok(Tensor::from_vec(input.shape().clone(), data)?)
    }
    let ty = input.element_type();
    dispatch_float!(ty, T => typed::<T>(input, f), else Err(OpError::Unsupported(format!("element type {ty}"))))
}

/// Infers one output like the one input, which must be of a floating-point type.
///
/// # Errors
/// [`OpError::InputCount`] and [`OpError::Input`].
pub fn infer_float_unary(cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(1..=1)?;
    cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
    Ok(vec![cx.same_as(0)])
}

define_op! {
    /// `max(x, 0)`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/relu-1.html>
    pub struct Relu("ReLU", 1) {}
}

impl OpRules for Relu {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let input = inputs[0].to_contiguous();
        let ty = input.element_type();
        dispatch_numeric!(ty, T => {
            let zero = T::from_i64(0);
            let data: Vec<T> = input.as_slice::<T>()?.iter().map(|v| if *v < zero { zero } else { *v }).collect();
            Ok(vec![Tensor::from_vec(input.shape().clone(), data)?])
        }, else Err(OpError::Unsupported(format!("element type {ty}"))))
    }
}

define_op! {
    /// `x < 0 ? alpha (exp(x) - 1) : x`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/activation/elu-1.html>
    pub struct Elu("Elu", 1) {
        /// Scale of the negative part.
        alpha: f64 = 1.0,
    }
}

impl OpRules for Elu {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_float_unary(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Ok(vec![map_float(&inputs[0], |x| if x < 0.0 { self.alpha * x.exp_m1() } else { x })?])
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[OpEntry::of::<Relu>(), OpEntry::of::<Elu>()];
