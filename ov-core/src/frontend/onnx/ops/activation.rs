//! Activations.

use super::{super::NodeContext, ConvertResult, OnnxOp};
use crate::op::activation::{Elu, Relu};

fn relu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![cx.add(Relu {}, &[x])?])
}

fn elu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, alpha) = (cx.input(0)?, f64::from(cx.f32("alpha", 1.0)?));
    Ok(vec![cx.add(Elu { alpha }, &[x])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[("", "Relu", 6, relu), ("", "Elu", 6, elu)];
