//! Turns values that were computed from shapes and are fully known into constants.

use super::Pass;
use crate::{
    error::Result,
    model::{Model, NodeId, Value},
    op::OutputType,
    tensor::{Element, ElementType, Tensor},
};

/// Replaces every output whose value type inference already knows (see [`OutputType::dims`]) with a constant.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShapeFolding;

impl Pass for ShapeFolding {
    fn name(&self) -> &'static str {
        "shape folding"
    }

    fn run(&self, model: &mut Model) -> Result<usize> {
        let known: Vec<(Value, Tensor)> = model
            .nodes()
            .filter(|(_, node)| !node.op().is::<crate::op::core::Parameter>())
            .filter(|(_, node)| node.constant().is_none())
            .flat_map(|(id, node)| {
                let outputs = node.outputs().iter().zip(0..);
                outputs.filter_map(move |(ty, output)| {
                    Some((Value { node: id, output }, known_value(ty)?))
                })
            })
            .collect();
        let mut changes = 0;
        for (value, tensor) in known {
            if model.uses(value).next().is_none() && !model.is_output(value) {
                continue;
            }
            let name = model.node(value.node).name().to_owned();
            let constant = model.add_constant(tensor, name);
            model.replace(value, constant);
            changes += 1;
        }
        if changes > 0 {
            let all: Vec<NodeId> = model.nodes().map(|(id, _)| id).collect();
            all.into_iter().for_each(|id| model.remove_unused(id));
            model.infer_all()?;
        }
        Ok(changes)
    }
}

/// The value as a tensor, when every element of it is known.
fn known_value(ty: &OutputType) -> Option<Tensor> {
    let values: Vec<i64> = ty
        .dims
        .as_ref()?
        .iter()
        .map(|d| d.value().and_then(|v| i64::try_from(v).ok()))
        .collect::<Option<_>>()?;
    let shape = ty.shape.to_shape()?;
    match ty.element_type {
        ElementType::I64 => Tensor::from_vec(shape, values).ok(),
        ElementType::I32 if values.iter().all(|v| i32::try_from(*v).is_ok()) => {
            Tensor::from_vec(shape, values.iter().map(|v| i32::from_i64(*v)).collect::<Vec<_>>())
                .ok()
        }
        _ => None,
    }
}
