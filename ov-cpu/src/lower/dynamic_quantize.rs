//! Dynamic quantization in two steps that threads can share.

use ov_core::{
    Model,
    error::Result,
    model::{NodeId, Value},
    op::quantize::DynamicQuantizeLinear,
};

use crate::ops::quantize::{BlockRanges, QuantizeByRanges};

/// Finds the range of large tensors in one step and quantizes them in another.
///
/// # Errors
/// When an operator refuses its inputs, which a valid model rules out.
pub(crate) fn share(model: &mut Model) -> Result<()> {
    for id in model.topological_order()? {
        if model.node(id).op().is::<DynamicQuantizeLinear>() {
            split(model, id)?;
        }
    }
    model.remove_dead();
    Ok(())
}

fn split(model: &mut Model, id: NodeId) -> Result<()> {
    let node = model.node(id);
    let (x, name) = (node.inputs()[0], node.name().to_owned());
    if model.shape(x).to_shape().is_some_and(|s| s.elements() < SHARED) {
        return Ok(());
    }
    let ranges = model.add(BlockRanges::default(), &[x], name.clone())?;
    let new = model.add_node(Box::new(QuantizeByRanges {}), &[x, ranges], name)?;
    for output in 0..3 {
        model.replace(Value { node: id, output }, Value { node: new, output });
    }
    Ok(())
}

/// Tensors of fewer elements are quantized by one thread in one step.
const SHARED: usize = 1 << 14;
