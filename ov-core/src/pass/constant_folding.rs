//! Evaluates operators whose every input is a constant.
#![allow(clippy::trivially_copy_pass_by_ref, reason = "the pass trait takes passes by reference")]

use super::Pass;
use crate::{
    error::Result,
    model::{Model, NodeId, Value},
    op::{core::Parameter, random::is_random},
    tensor::{ElementType, Tensor},
};

/// Largest folded result in bytes unless chosen otherwise.
pub const FOLD_LIMIT: usize = 64 << 20;

/// Replaces operators over constants with their values.
///
/// Left alone are operators that draw random numbers or have bodies, results over the limit, results above 1 MiB that are more than
/// four times as large as their inputs (a tensor of ones is cheaper to make than to store), and the expansion of
/// quantised weights, which devices want in their narrow type.
#[derive(Clone, Copy, Debug)]
pub struct ConstantFolding {
    /// Largest result in bytes.
    pub limit: usize,
}

impl Default for ConstantFolding {
    fn default() -> Self {
        Self { limit: FOLD_LIMIT }
    }
}

impl Pass for ConstantFolding {
    fn name(&self) -> &'static str {
        "constant folding"
    }

    fn run(&self, model: &mut Model) -> Result<usize> {
        let mut changes = 0;
        for id in model.topological_order()? {
            if model.get(id).is_some() && self.fold(model, id)? {
                changes += 1;
            }
        }
        if changes > 0 {
            model.infer_all()?;
        }
        Ok(changes)
    }
}

impl ConstantFolding {
    fn fold(&self, model: &mut Model, id: NodeId) -> Result<bool> {
        let node = model.node(id);
        if node.constant().is_some()
            || node.op().is::<Parameter>()
            || node.users().is_empty()
                && !(0..node.outputs().len()).any(|o| is_output(model, id, o))
            || KEPT.contains(&node.op().kind().name)
            || is_random(node.op().kind())
        {
            return Ok(false);
        }
        let Some(inputs) =
            node.inputs().iter().map(|v| model.constant(*v).cloned()).collect::<Option<Vec<_>>>()
        else {
            return Ok(false);
        };
        if node.op().kind().name == "Convert" && keeps_narrow(model, id, &inputs) {
            return Ok(false);
        }
        let input_bytes = inputs.iter().map(Tensor::byte_len).fold(0, usize::saturating_add);
        // Types are inferred again: constants that were folded before this node may have fixed its shape.
        let types = model.infer_types(node.op(), node.inputs(), node.name())?;
        let mut bytes = 0usize;
        for ty in &types {
            let len = ty.shape.to_shape().and_then(|s| s.checked_len());
            match len.and_then(|l| ty.element_type.byte_len(l)) {
                Some(size) => bytes = bytes.saturating_add(size),
                None if input_bytes > SMALL => return Ok(false),
                None => {}
            }
        }
        if !self.admits(bytes, input_bytes) {
            return Ok(false);
        }
        let results = match node.op().evaluate(&inputs) {
            Ok(results) if results.len() == types.len() => results,
            Ok(_) => return Ok(false),
            Err(reason) => {
                tracing::debug!(node = node.name(), %reason, "not folded");
                return Ok(false);
            }
        };
        let produced = results.iter().map(Tensor::byte_len).fold(0, usize::saturating_add);
        if !self.admits(produced, input_bytes)
            || results.iter().any(|t| t.is_absent() || t.element_type() == ElementType::Sequence)
        {
            return Ok(false);
        }
        let name = node.name().to_owned();
        for (result, output) in results.into_iter().zip(0..) {
            let old = Value { node: id, output };
            if model.uses(old).next().is_some() || model.is_output(old) {
                let constant = model.add_constant(result.to_contiguous(), name.clone());
                model.replace(old, constant);
            }
        }
        model.remove_unused(id);
        Ok(true)
    }

    fn admits(&self, bytes: usize, input_bytes: usize) -> bool {
        bytes <= self.limit && (bytes <= SMALL || bytes <= input_bytes.saturating_mul(4))
    }
}

fn is_output(model: &Model, node: NodeId, output: usize) -> bool {
    model.is_output(Value { node, output: output as u32 })
}

/// Whether a conversion widens quantised weights: to numbers, or for an integer convolution, which devices have for
/// bytes.
fn keeps_narrow(model: &Model, id: NodeId, inputs: &[Tensor]) -> bool {
    inputs.first().is_some_and(|t| {
        let narrow = t.element_type().is_integer()
            && t.element_type().bits() <= 8
            && t.element_type() != ElementType::Boolean;
        let to = model.node(id).element_type(0);
        narrow
            && t.len() > FEW
            && (to.is_float()
                || to == ElementType::I32 && leads_to_convolution(model, id.into(), 2))
    })
}

/// Whether every reader of a value is a convolution, but for up to `between` operators that centre or reshape it.
fn leads_to_convolution(model: &Model, value: Value, between: usize) -> bool {
    let mut users = model.uses(value).peekable();
    users.peek().is_some()
        && !model.is_output(value)
        && users.all(|(user, _)| match model.node(user).op().kind().name {
            "Convolution" | "GroupConvolution" => true,
            "Subtract" | "Reshape" if between > 0 => {
                leads_to_convolution(model, user.into(), between - 1)
            }
            _ => false,
        })
}

/// Results up to this size are folded however small the inputs are.
const SMALL: usize = 1 << 20;

/// Quantised constants up to this length are worth no special type.
const FEW: usize = 256;

/// Operators that are never folded besides random ones: the expansion of quantised weights, and bodies, which may run
/// for ever.
const KEPT: &[&str] =
    &["If", "Loop", "TensorIterator", "SequenceMap", "DequantizeLinear", "FakeQuantize"];
