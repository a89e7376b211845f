//! The scale of what is quantized while a model runs stays a factor of its own.

use crate::{
    ElementType, Model, Tensor,
    error::Result,
    model::{NodeId, Value},
    op::{
        arithmetic::Multiply,
        fused::integer::{IntegerConvolution, IntegerProduct, Port},
    },
};

/// Lets integer products multiply their scale by themselves, where it is the product of a constant and one computed number.
/// Returns the number of products that do.
///
/// # Errors
/// When an operator refuses its inputs, which a valid model rules out.
pub fn factors(model: &mut Model) -> Result<usize> {
    let mut changes = 0;
    for id in model.topological_order()? {
        let Some(node) = model.get(id) else { continue };
        if node.op().is::<IntegerConvolution>() || node.op().is::<IntegerProduct>() {
            changes += usize::from(apart(model, id)?);
        }
    }
    model.remove_dead();
    Ok(changes)
}

fn apart(model: &mut Model, id: NodeId) -> Result<bool> {
    let node = model.node(id);
    let Some((scale, factor)) = parts(model, node.inputs()[Port::SCALE]) else { return Ok(false) };
    let (op, name) = (node.op().clone_box(), node.name().to_owned());
    let mut inputs = node.inputs().to_vec();
    inputs[Port::SCALE] = scale;
    if inputs.len() > Port::FACTOR {
        return Ok(false);
    }
    let absent = model.add_constant(Tensor::absent(), "");
    inputs.resize(Port::FACTOR, absent);
    inputs.push(factor);
    let new = model.add_node(op, &inputs, name)?;
    model.replace(id.into(), new.into());
    Ok(true)
}

/// The constant and the computed number that a scale is the product of.
fn parts(model: &Model, scale: Value) -> Option<(Value, Value)> {
    let node = model.node(scale.node);
    node.op_as::<Multiply>()?;
    let (a, b) = (node.inputs()[0], node.inputs()[1]);
    let (constant, factor) = if model.constant(a).is_some() { (a, b) } else { (b, a) };
    let len = model.constant(constant)?.len();
    let elements = |v: Value| model.shape(v).to_shape().map(|s| s.elements());
    let fits = elements(factor) == Some(1)
        && elements(scale) == Some(len)
        && model.constant(factor).is_none()
        && model.element_type(factor) == ElementType::F32;
    fits.then_some((constant, factor))
}
