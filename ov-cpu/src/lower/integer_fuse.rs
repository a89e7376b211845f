//! Scale, bias, residual, activation and quantization move into the integer product before them.

use ov_core::{
    Dimension, ElementType, Model, Tensor,
    error::Result,
    model::{NodeId, Value},
    op::{
        Op,
        arithmetic::{Add, Multiply},
        quantize::{DynamicQuantizeLinear, QuantizeLinear},
    },
};

use super::fuse::activation_of;
use crate::{
    ops::{
        integer::{IntegerConvolution, IntegerProduct, Port},
        quantize::{BlockRanges, QuantizeByRanges},
    },
    simd::activation::Activation,
};

/// Lets [`IntegerConvolution`] and [`IntegerProduct`] absorb what follows them. Output channels are on the last axis.
///
/// # Errors
/// When an operator refuses its inputs, which a valid model rules out.
pub(crate) fn fuse(model: &mut Model) -> Result<()> {
    for id in model.topological_order()? {
        let Some(node) = model.get(id) else { continue };
        let last = node.op_as::<IntegerConvolution>().is_some_and(|c| c.last);
        if last || node.op().is::<IntegerProduct>() {
            absorb(model, id)?;
        }
    }
    for id in model.topological_order()? {
        if model.node(id).op().is::<DynamicQuantizeLinear>() {
            split(model, id)?;
        }
    }
    model.remove_dead();
    Ok(())
}

/// Tensors of fewer elements are quantized by one thread in one step.
const SHARED: usize = 1 << 14;

/// Finds the range of a tensor in one step and quantizes it in another, so that threads can share both.
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

#[derive(Default)]
struct Absorbed {
    scale: Option<Value>,
    bias: Option<Value>,
    /// Whether the bias was there before the scale.
    scaled_bias: bool,
    residual: Option<Value>,
    activation: Activation,
    residual_after: bool,
    /// Scale, zero point and type of the output.
    quantized: Option<(Value, Option<Value>, ElementType)>,
    /// The value that the fused operator stands for.
    end: Option<Value>,
}

fn absorb(model: &mut Model, id: NodeId) -> Result<()> {
    let mut a = Absorbed::default();
    let mut value = Value::from(id);
    while a.quantized.is_none() && model.has_single_use(value) {
        let Some((user, input)) = model.uses(value).next() else { break };
        if !step(model, &mut a, id, value, user, input as usize) {
            break;
        }
        value = user.into();
        a.end = Some(value);
    }
    let Some(end) = a.end else { return Ok(()) };
    let node = model.node(id);
    let (mut inputs, name) = (node.inputs()[..=Port::SCALE].to_vec(), node.name().to_owned());
    let output_type = a.quantized.map_or(ElementType::F32, |q| q.2);
    let op: Box<dyn Op> = if let Some(conv) = node.op_as::<IntegerConvolution>() {
        let mut conv =
            IntegerConvolution { residual_after: a.residual_after, output_type, ..conv.clone() };
        conv.set_activation(a.activation);
        Box::new(conv)
    } else if let Some(product) = node.op_as::<IntegerProduct>() {
        let mut product =
            IntegerProduct { residual_after: a.residual_after, output_type, ..product.clone() };
        product.set_activation(a.activation);
        Box::new(product)
    } else {
        return Ok(());
    };
    if let Some(scale) = a.scale {
        inputs[Port::SCALE] = scale;
    }
    let absent = model.add_constant(Tensor::absent(), "");
    let bias = match a.bias {
        Some(b) => {
            let tensor = model.constant(b).expect("only constants are absorbed as bias");
            let scale = a.scale.filter(|_| a.scaled_bias).and_then(|s| model.constant(s));
            let bias = flat_bias(tensor, scale)?;
            model.add_constant(bias, "")
        }
        None => absent,
    };
    inputs.push(bias);
    inputs.push(a.residual.unwrap_or(absent));
    if let Some((scale, zero, ty)) = a.quantized {
        let zero = match zero {
            Some(zero) => zero,
            None => model.add_constant(Tensor::from_vec([1], vec![0u8])?.cast(ty)?, ""),
        };
        inputs.extend([scale, zero]);
    }
    let new = model.add_node(op, &inputs, name)?;
    model.replace(end, new.into());
    Ok(())
}

/// A bias as a flat list, times a scale if there is one.
fn flat_bias(bias: &Tensor, scale: Option<&Tensor>) -> Result<Tensor> {
    let bias = bias.to_contiguous().reshape([bias.len()])?;
    let Some(scale) = scale else { return Ok(bias) };
    let scale = scale.to_contiguous();
    let scale = scale.as_slice::<f32>()?;
    let values = bias.as_slice::<f32>()?.iter().enumerate();
    let scaled: Vec<f32> = values.map(|(i, b)| b * scale[i % scale.len()]).collect();
    Ok(Tensor::from_vec([scaled.len()], scaled)?)
}

/// Absorbs the one user of `value`, if it fits.
fn step(
    model: &Model,
    a: &mut Absorbed,
    id: NodeId,
    value: Value,
    user: NodeId,
    input: usize,
) -> bool {
    let node = model.node(user);
    let plain = a.activation == Activation::None && a.residual.is_none();
    if node.op().is::<Multiply>() {
        let other = node.inputs()[1 - input.min(1)];
        // A bias that was added to the sums counts in units of the scale.
        let fits =
            plain && a.scale.is_none() && (a.bias.is_none() || model.constant(other).is_some());
        if fits
            && is_one(model, model.node(id).inputs()[Port::SCALE])
            && scales(model, value, user, other)
        {
            a.scale = Some(other);
            a.scaled_bias = a.bias.is_some();
            return true;
        }
        return false;
    }
    if node.op().is::<Add>() {
        let other = node.inputs()[1 - input.min(1)];
        return add(model, a, value, user, other);
    }
    if input != 0 {
        return false;
    }
    if let Some(op) = node.op_as::<QuantizeLinear>() {
        let inputs = node.inputs();
        let zero =
            inputs.get(2).copied().filter(|z| !model.constant(*z).is_some_and(Tensor::is_absent));
        let one = |v: Value| model.shape(v).to_shape().is_some_and(|s| s.elements() == 1);
        let ty = node.element_type(0);
        let fits = matches!(ty, ElementType::U8 | ElementType::I8)
            && op.block_size == 0
            && matches!(op.precision, ElementType::Dynamic | ElementType::F32)
            && model.element_type(inputs[1]) == ElementType::F32
            && one(inputs[1])
            && zero.is_none_or(one);
        if fits {
            a.quantized = Some((inputs[1], zero, ty));
        }
        return fits;
    }
    if a.activation != Activation::None || a.residual_after {
        return false;
    }
    match activation_of(model, user) {
        Some(activation) => {
            a.activation = activation;
            true
        }
        None => false,
    }
}

fn is_one(model: &Model, scale: Value) -> bool {
    model.constant(scale).is_some_and(|t| t.len() == 1 && t.element_as_f64(0) == Some(1.0))
}

/// Output channels of a value, if known.
fn channels(model: &Model, value: Value) -> Option<usize> {
    model.shape(value).dims()?.last()?.value()
}

/// Whether `scale` is one factor for all of `value`, or one per channel, and leaves its shape as it is.
fn scales(model: &Model, value: Value, product: NodeId, scale: Value) -> bool {
    let Some(shape) = model.shape(scale).to_shape() else { return false };
    let per_channel =
        channels(model, value).is_some_and(|n| shape.elements() == n && shape.last() == Some(&n));
    model.element_type(scale) == ElementType::F32
        && (shape.elements() == 1 || per_channel)
        && model.shape(product.into()) == model.shape(value)
}

fn add(model: &Model, a: &mut Absorbed, value: Value, user: NodeId, other: Value) -> bool {
    let shape = model.shape(value);
    let Some(channels) = channels(model, value) else { return false };
    if model.element_type(other) != ElementType::F32 || model.shape(user.into()) != shape {
        return false;
    }
    if let Some(constant) = model.constant(other) {
        let per_channel = constant.shape().last() == Some(&channels) && constant.len() == channels;
        let fits = per_channel
            && a.bias.is_none()
            && a.residual.is_none()
            && a.activation == Activation::None;
        if fits {
            a.bias = Some(other);
        }
        return fits;
    }
    let other_shape = model.shape(other);
    let same = match (shape.dims(), other_shape.dims()) {
        (Some(x), Some(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| Dimension::same(*x, *y))
        }
        _ => false,
    };
    if !same || a.residual.is_some() {
        return false;
    }
    a.residual = Some(other);
    a.residual_after = a.activation != Activation::None;
    true
}
