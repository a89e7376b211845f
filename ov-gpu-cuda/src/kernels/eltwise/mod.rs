//! Element-wise operators: one generated kernel per expression.

mod chain;
mod emit;
mod formula;
mod small;
#[cfg(test)]
mod tests;

use ov_core::{
    ElementType, Shape,
    op::{
        Op,
        activation::{PRelu, slope_as_channels},
        convert::ConvertLike,
        fused::element_wise::ElementWise,
        normalization::{BatchNormInference, BatchNormInference1},
        normalize_axis,
        quantize::{DequantizeLinear, QuantizeLinear},
    },
};

pub(crate) use self::chain::is_fusible;
use self::{
    chain::fused,
    formula::{Constant, Formula, formula},
};
use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Step,
    host::ensure,
    walk::{Walk, broadcast_strides, dense_strides},
};

/// The family.
pub(super) const ELTWISE: Kernel = Kernel { name: "eltwise", select, bind };

/// Threads of a block.
const BLOCK: u32 = 128;

/// The formula of an operator, or of several in one.
fn formula_of(
    op: &dyn Op,
    inputs: &[ElementType],
    output: ElementType,
) -> Option<Result<Formula, Reject>> {
    match op.downcast::<ElementWise>() {
        Some(several) => Some(fused(several)),
        None => formula(op, inputs, output),
    }
}

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let types: Vec<ElementType> = node.inputs.iter().map(|i| i.element_type).collect();
    let output = node.outputs.first()?.element_type;
    Some(formula_of(node.op, &types, output)?.map(|_| Choice::default()))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let types: Vec<ElementType> = node.inputs.iter().map(|i| i.element_type).collect();
    let output = node.outputs[0];
    let formula = formula_of(node.op, &types, output.element_type)
        .ok_or_else(|| Reject::from(format!("{} is not element-wise", node.op.kind())))??;
    if is_copy(&formula) && node.inputs[0].shape == output.shape {
        return Ok(Bound::Alias(0));
    }
    let (dims, strides) = operands(node, formula.inputs.len())?;
    let walk = Walk::merged(&dims, &strides);
    let args = (0..formula.inputs.len()).map(Arg::Input).chain([Arg::Output(0)]);
    Ok(Bound::Step(launch(&formula, &walk, args.collect())?))
}

/// Whether output 0 is the memory of input 0.
fn is_copy(formula: &Formula) -> bool {
    let [input] = formula.inputs[..] else { return false };
    let plain = ["x0".to_owned(), format!("ov_convert<{input}>(x0)")];
    input == formula.output && plain.contains(&formula.code)
}

/// The step of one element-wise kernel; the walk has one operand per input of the formula.
fn launch(formula: &Formula, walk: &Walk, mut args: Vec<Arg>) -> Result<Step, Reject> {
    let len = walk.len();
    if len == 0 {
        return Ok(Step::default());
    }
    let vector = emit::vector(formula);
    let lanes = if suits_vectors(walk, vector) { vector } else { 1 };
    args.push(Arg::Bytes(walk.record()?.bytes()));
    args.extend(formula.constants.iter().map(|c| match *c {
        Constant::F32(v) => Arg::F32(v),
        Constant::F64(v) => Arg::Bytes(v.to_le_bytes().to_vec()),
        Constant::I64(v) => Arg::I64(v),
    }));
    let launch = Launch {
        source: emit::source(formula),
        function: if lanes > 1 { "eltwise_vector" } else { "eltwise_single" }.into(),
        grid: [super::walk::count(len.div_ceil(lanes))?.div_ceil(BLOCK), 1, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args,
    };
    Ok(Step { launches: vec![launch], ..Step::default() })
}

/// Whether `vector` neighbours of the result are `vector` neighbours, or one element, of every operand, and lie at
/// multiples of their size.
fn suits_vectors(walk: &Walk, vector: usize) -> bool {
    let Some((inner, outer)) = walk.dims.split_last() else { return false };
    let whole = outer.is_empty() || inner.is_multiple_of(vector);
    let suits = |strides: &Vec<i64>| {
        strides.split_last().is_some_and(|(step, outer)| {
            *step == 0
                || (*step == 1
                    && outer.iter().all(|s| s.unsigned_abs().is_multiple_of(vector as u64)))
        })
    };
    vector > 1 && whole && walk.strides.iter().all(suits)
}

/// Dimensions of the result and the strides of the first `count` inputs along them.
fn operands(node: &Binding<'_>, count: usize) -> Result<(Vec<usize>, Vec<Vec<i64>>), Reject> {
    let output = node.outputs[0].shape;
    if let Some((axis, block)) = blocks(node.op) {
        return scaled(node, count, axis, block);
    }
    if let Some(data) = normalized(node.op) {
        // Every other input has one element per channel.
        let mut channel = vec![0; output.rank()];
        *channel.get_mut(1).ok_or("takes data with a channel axis")? = 1;
        let mut strides = vec![channel; count];
        strides[data] = dense_strides(output);
        return Ok((output.to_vec(), strides));
    }
    let mut strides = Vec::with_capacity(count);
    for (index, input) in node.inputs.iter().take(count).enumerate() {
        let slope = (index == 1 && node.op.is::<PRelu>())
            .then(|| slope_as_channels(input.shape, node.inputs[0].shape));
        let shape = slope.as_ref().unwrap_or(input.shape);
        let one = shape.elements() == 1 && index > 0 && !node.op.is::<ConvertLike>();
        // Scalars of activations may have any rank.
        let shape: &[usize] = if one { &[] } else { shape };
        strides.push(broadcast_strides(shape, output)?);
    }
    Ok((output.to_vec(), strides))
}

/// Which input is the data of a normalization per channel.
fn normalized(op: &dyn Op) -> Option<usize> {
    op.is::<BatchNormInference>()
        .then_some(0)
        .or_else(|| op.is::<BatchNormInference1>().then_some(2))
}

/// Axis and block size of the scales of a quantization.
fn blocks(op: &dyn Op) -> Option<(i64, i64)> {
    if let Some(op) = op.downcast::<QuantizeLinear>() {
        return Some((op.axis, op.block_size));
    }
    op.downcast::<DequantizeLinear>().map(|op| (op.axis, op.block_size))
}

/// Data with scales that are one, one per element of an axis, or one per block of an axis.
fn scaled(
    node: &Binding<'_>,
    count: usize,
    axis: i64,
    block: i64,
) -> Result<(Vec<usize>, Vec<Vec<i64>>), Reject> {
    let data: &Shape = node.inputs[0].shape;
    let scales = node.inputs[1].shape;
    let mut dims = data.to_vec();
    let parameter = if scales.elements() == 1 && block == 0 {
        vec![0; dims.len()]
    } else {
        let axis = normalize_axis(axis, data.rank()).map_err(|e| Reject::from(e.to_string()))?;
        if block == 0 {
            let mut strides = vec![0; dims.len()];
            strides[axis] = 1;
            strides
        } else {
            let block = usize::try_from(block).unwrap_or(1).max(1);
            if !dims[axis].is_multiple_of(block) {
                return Err(format!(
                    "takes an axis of whole blocks, not {} in blocks of {block}",
                    dims[axis]
                )
                .into());
            }
            let mut strides = dense_strides(scales);
            strides.insert(axis + 1, 0);
            dims.splice(axis..=axis, [dims[axis] / block, block]);
            strides
        }
    };
    let zeros = node.inputs.get(2).map_or(scales, |z| z.shape);
    ensure(zeros.elements() == scales.elements(), "takes as many zero points as scales")?;
    let mut strides = vec![parameter; count];
    strides[0] = dense_strides(&dims);
    Ok((dims, strides))
}
