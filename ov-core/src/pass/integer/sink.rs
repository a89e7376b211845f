//! Bytes go through operators that only move them.

use crate::{
    ElementType, Model,
    error::Result,
    model::{NodeId, Value},
    op::{Op, concat::Concat, quantize::DequantizeLinear},
};

use super::{dequantized, same_steps};

/// Moves [`DequantizeLinear`] with one scale behind operators that `moves` accepts: such as give nothing but elements of
/// their input (of all inputs, for [`Concat`]), or the largest of some, and that the device computes in bytes. Returns the
/// number of operators that work on bytes now.
///
/// # Errors
/// When an operator refuses its inputs, which a valid model rules out.
pub fn sink(model: &mut Model, moves: &dyn Fn(&dyn Op) -> bool) -> Result<usize> {
    if !model.nodes().any(|(_, n)| n.op().is::<DequantizeLinear>()) {
        return Ok(0);
    }
    let mut changes = 0;
    for id in model.topological_order()? {
        if model.get(id).is_some_and(|node| moves(node.op())) {
            changes += usize::from(below(model, id)?);
        }
    }
    model.remove_dead();
    Ok(changes)
}

/// Lets one operator work on what its data were dequantized from.
fn below(model: &mut Model, id: NodeId) -> Result<bool> {
    let node = model.node(id);
    let (op, name) = (node.op().clone_box(), node.name().to_owned());
    let mut inputs = node.inputs().to_vec();
    let data = if op.is::<Concat>() { inputs.len() } else { 1 };
    let Some(data) = inputs.get_mut(..data) else { return Ok(false) };
    let found: Option<Vec<_>> = data.iter().map(|value| dequantized(model, *value)).collect();
    let Some(found) = found else { return Ok(false) };
    let Some(first) = found.first().copied() else { return Ok(false) };
    // Weights are looked for behind what reshapes them.
    let constant = found.iter().any(|from| model.constant(from.quantized).is_some());
    if constant || !found.iter().all(|other| same_steps(model, first, *other)) {
        return Ok(false);
    }
    for (value, from) in data.iter_mut().zip(&found) {
        *value = from.quantized;
    }
    let types: Vec<ElementType> = node.outputs().iter().map(|o| o.element_type).collect();
    let new = model.add_node(op, &inputs, name.clone())?;
    for (output, ty) in (0..).zip(types) {
        let moved = Value { node: new, output };
        let whole = if ty == ElementType::F32 {
            let steps = [first.scale].into_iter().chain(first.zero);
            let inputs: Vec<Value> = [moved].into_iter().chain(steps).collect();
            model.add(DequantizeLinear::default(), &inputs, name.clone())?
        } else {
            moved
        };
        model.replace(Value { node: id, output }, whole);
    }
    Ok(true)
}
