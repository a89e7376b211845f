//! Constant, Identity and `ConstantOfShape`'s kin.

use super::{super::NodeContext, ConvertResult, OnnxOp};
use crate::{op::OpError, tensor::Tensor};

fn constant(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let value = if let Some(t) = cx.optional_tensor("value")? {
        t
    } else if let Some(v) = cx.optional_f32("value_float")? {
        Tensor::scalar(v)
    } else if let Some(v) = cx.optional_f32s("value_floats")? {
        Tensor::from_vec([v.len()], v)?
    } else if let Some(v) = cx.optional_i64("value_int")? {
        Tensor::scalar(v)
    } else if let Some(v) = cx.optional_i64s("value_ints")? {
        Tensor::from_i64s(&v)
    } else if let Some(v) = cx.optional_str("value_string")? {
        Tensor::from_strings([], vec![v.to_owned()])?
    } else if let Some(v) = cx.optional_strs("value_strings")? {
        Tensor::from_strings([v.len()], v)?
    } else if let Some(sparse) = cx.attribute("sparse_value").and_then(|a| a.sparse_tensor.clone()) {
        super::super::tensor::convert_sparse(&sparse, cx.external())?
    } else {
        return Err(OpError::Invalid("no value attribute is given".to_owned()).into());
    };
    Ok(vec![cx.constant(value)])
}

fn identity(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    Ok(vec![cx.input(0)?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[("", "Constant", 1, constant), ("", "Identity", 1, identity)];
