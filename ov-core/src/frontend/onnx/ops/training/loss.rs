//! `NegativeLogLikelihoodLoss` and `SoftmaxCrossEntropyLoss`, as compositions.

use super::{
    super::super::{Attr, ConvertError, NodeContext},
    ConvertResult,
};
use crate::{model::Value, op::OpError};

/// The loss of log probabilities `[n, classes, …]` for targets `[n, …]`, with a weight per class if given.
fn loss(
    cx: &mut NodeContext<'_, '_>,
    log_probabilities: Value,
    target: Value,
    weights: Option<Value>,
) -> Result<Value, ConvertError> {
    let mut target = target;
    let mut ignored = None;
    if let Some(index) = cx.optional_i64("ignore_index")? {
        let index = cx.scalar_like(index as f64, target)?;
        let mask = cx.compose("Equal", &[target, index], &[])?;
        // An ignored target may lie outside the classes: it looks at the first one, with weight 0.
        let zero = cx.scalar_like(0.0, target)?;
        target = cx.compose("Where", &[mask, zero, target], &[])?;
        ignored = Some(mask);
    }
    let axis = cx.i64s_constant(&[1]);
    let column = cx.compose("Unsqueeze", &[target, axis], &[])?;
    let picked =
        cx.compose("GatherElements", &[log_probabilities, column], &[("axis", Attr::Int(1))])?;
    let picked = cx.compose("Squeeze", &[picked, axis], &[])?;
    let mut loss = cx.compose("Neg", &[picked], &[])?;
    let mut weight = match weights {
        Some(weights) => Some(cx.compose("Gather", &[weights, target], &[("axis", Attr::Int(0))])?),
        None => None,
    };
    if let Some(mask) = ignored {
        let (zero, one) = (cx.scalar_like(0.0, loss)?, cx.scalar_like(1.0, loss)?);
        weight = Some(cx.compose("Where", &[mask, zero, weight.unwrap_or(one)], &[])?);
    }
    if let Some(weight) = weight {
        loss = cx.compose("Mul", &[loss, weight], &[])?;
    }
    let all = [("keepdims", Attr::Int(0))];
    match (cx.str("reduction", "mean")?, weight) {
        ("none", _) => Ok(loss),
        ("sum", _) => cx.compose("ReduceSum", &[loss], &all),
        ("mean", None) => cx.compose("ReduceMean", &[loss], &all),
        ("mean", Some(weight)) => {
            let loss = cx.compose("ReduceSum", &[loss], &all)?;
            let weight = cx.compose("ReduceSum", &[weight], &all)?;
            cx.compose("Div", &[loss, weight], &[])
        }
        (other, _) => Err(OpError::Attribute {
            name: "reduction",
            got: other.to_owned(),
            expected: "none, sum or mean".to_owned(),
        }
        .into()),
    }
}

pub(super) fn negative_log_likelihood(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, target, weights) = (cx.input(0)?, cx.input(1)?, cx.optional_input(2));
    Ok(vec![loss(cx, x, target, weights)?])
}

pub(super) fn softmax_cross_entropy(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, target, weights) = (cx.input(0)?, cx.input(1)?, cx.optional_input(2));
    let log = cx.compose("LogSoftmax", &[x], &[("axis", Attr::Int(1))])?;
    Ok(vec![loss(cx, log, target, weights)?, log])
}
