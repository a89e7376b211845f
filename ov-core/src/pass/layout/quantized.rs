//! Layout of operators on quantized tensors.

use crate::{
    error::Result,
    model::{NodeId, Value},
};

use super::{
    Layout,
    rules::{PLANAR_CHANNELS, axis_attribute, turned},
};
use crate::op::fused::integer::{IntegerConvolution, Port};

/// An integer convolution becomes channels-last; a few planar channels are read as they are.
pub(super) fn convolution(layout: &mut Layout<'_>, id: NodeId) -> Result<bool> {
    let node = layout.old.node(id);
    let Some(conv) = node.op_as::<IntegerConvolution>() else { return Ok(false) };
    let old = node.inputs().to_vec();
    let x = old[Port::X];
    let rank = layout.shape(x).rank().filter(|r| (3..=5).contains(r));
    let Some(w) = layout.old.constant(old[Port::W]) else { return Ok(false) };
    if rank.is_none() || w.is_empty() || conv.last || old.len() > Port::SCALE + 1 {
        return Ok(false);
    }
    let few = w.shape()[1] <= PLANAR_CHANNELS && conv.groups == 1;
    let planar = few && !layout.has_last(x);
    let op = IntegerConvolution { last: true, planar, ..conv.clone() };
    let mut inputs = vec![if planar { layout.plain(x)? } else { layout.last(x)? }];
    for value in &old[1..] {
        inputs.push(layout.plain(*value)?);
    }
    layout.give_last(id, Box::new(op), &inputs)?;
    Ok(true)
}

/// An operator whose other inputs are scalars, or lists along its `axis`.
pub(super) fn element_wise(
    layout: &mut Layout<'_>,
    id: NodeId,
    data: Value,
    rank: usize,
) -> Result<bool> {
    let node = layout.old.node(id);
    let mut op = node.op().clone_box();
    let others = node.inputs()[1..].to_vec();
    if others.iter().any(|v| layout.shape(*v).rank().is_none_or(|r| r > 1)) {
        return Ok(false);
    }
    if let Some(axis) = axis_attribute(&mut *op, None) {
        let per_axis =
            others.iter().any(|v| layout.shape(*v).to_shape().is_none_or(|s| s.elements() != 1));
        match turned(axis, rank) {
            Some(axis) => {
                axis_attribute(&mut *op, Some(axis));
            }
            None if per_axis => return Ok(false),
            None => {}
        }
    }
    let mut inputs = vec![layout.last(data)?];
    for value in others {
        inputs.push(layout.plain(value)?);
    }
    let outputs = node.outputs().len();
    layout.give_last(id, op, &inputs)?;
    // Scales and zero points that an operator gives have no layout.
    for output in 1..outputs as u32 {
        let forms = layout.forms.entry(Value { node: id, output }).or_default();
        forms.plain = forms.last;
    }
    Ok(true)
}

/// A sum of two tensors of bytes follows whichever is channels-last.
pub(super) fn add(layout: &mut Layout<'_>, id: NodeId) -> Result<bool> {
    let old = layout.old.node(id).inputs().to_vec();
    let known = layout.shape(old[0]).rank().is_some() && layout.shape(old[3]).rank().is_some();
    if !known || !(layout.is_last(old[0]) || layout.is_last(old[3])) {
        return Ok(false);
    }
    let mut inputs = Vec::new();
    for (i, value) in old.iter().enumerate() {
        inputs.push(if i % 3 == 0 && i < 6 {
            layout.last(*value)?
        } else {
            layout.plain(*value)?
        });
    }
    let op = layout.old.node(id).op().clone_box();
    layout.give_last(id, op, &inputs)?;
    Ok(true)
}
