//! Recognises convolutions and matrix products of quantized tensors, and computes them in integers.
//!
//! Three spellings lead to [`IntegerConvolution`] and [`IntegerProduct`]: real products of dequantized tensors
//! (`DequantizeLinear` on both sides), integer convolutions of tensors that zero points were taken from, and
//! `MatMulInteger`, the last two with a conversion to `f32` behind them. What follows a product is absorbed by
//! [`fuse`], after tensors have become channels-last.

mod factors;
mod fuse;
mod sink;
mod spell;

pub use factors::factors;
pub use fuse::fuse;
pub use sink::sink;
pub use spell::spell_out;

use crate::{
    ElementType, Model, Shape, Tensor,
    error::Result,
    model::{Node, NodeId, Value},
    op::{
        Op,
        arithmetic::{Add, Multiply, Subtract},
        convert::Convert,
        convolution::{Convolution, GroupConvolution},
        fused::{
            activation::Activation,
            integer::{IntegerConvolution, IntegerProduct},
            quantize::IntegerAdd,
        },
        matmul::{MatMul, MatMulInteger},
        pooling::{MaxPool, MaxPool1, MaxPool8},
        quantize::{DequantizeLinear, QuantizeLinear},
        reshape::Reshape,
        transpose::Transpose,
    },
};

use super::fuse::activation_of;

/// Turns products of quantized tensors into integer ones. Returns whether anything changed.
///
/// # Errors
/// When an operator refuses its inputs, which a valid model rules out.
pub fn products(model: &mut Model) -> Result<bool> {
    let quantized = |model: &Model| {
        model.nodes().any(|(_, n)| {
            let op = n.op();
            op.is::<DequantizeLinear>()
                || op.is::<MatMulInteger>()
                || op.is::<QuantizeLinear>()
                || (op.is::<Convolution>() || op.is::<GroupConvolution>())
                    && n.element_type(0) == ElementType::I32
                || widens(model, n)
        })
    };
    if !quantized(model) {
        return Ok(false);
    }
    for id in model.topological_order()? {
        if model.get(id).is_some() {
            without_round_trip(model, id)?;
        }
    }
    for id in model.topological_order()? {
        if model.get(id).is_some() {
            sum(model, id)?;
        }
    }
    for id in model.topological_order()? {
        if model.get(id).is_none() {
            continue;
        }
        let op = model.node(id).op();
        if op.is::<Convolution>() || op.is::<GroupConvolution>() || op.is::<MatMul>() {
            real(model, id)?;
        } else if op.is::<Convert>() {
            integer(model, id)?;
        }
    }
    model.remove_dead();
    for id in model.topological_order()? {
        if model.get(id).is_some() {
            expand(model, id)?;
        }
    }
    model.remove_dead();
    Ok(true)
}

/// A sum of dequantized tensors that is quantized.
fn sum(model: &mut Model, id: NodeId) -> Result<()> {
    let Some(to) = quantizes(model, id) else { return Ok(()) };
    let mut x = model.node(id).inputs()[0];
    let mut activation = Activation::None;
    if !model.has_single_use(x) {
        return Ok(());
    }
    if let Some(found) = activation_of(model, x.node) {
        (activation, x) = (found, model.node(x.node).inputs()[0]);
    }
    let node = model.node(x.node);
    if !node.op().is::<Add>() || !model.has_single_use(x) {
        return Ok(());
    }
    let (a, b) = (node.inputs()[0], node.inputs()[1]);
    let (Some(a), Some(b)) = (dequantized(model, a), dequantized(model, b)) else { return Ok(()) };
    let (a_shape, b_shape) =
        (model.shape(a.quantized).to_shape(), model.shape(b.quantized).to_shape());
    if a_shape.is_none() || a_shape != b_shape {
        return Ok(());
    }
    let name = node.name().to_owned();
    let mut inputs = Vec::new();
    for part in [a, b, to] {
        if part.quantized != to.quantized {
            inputs.push(part.quantized);
        }
        let ty = model.element_type(part.quantized);
        inputs.push(part.scale);
        inputs.push(match part.zero {
            Some(zero) => zero,
            None => model.add_constant(Tensor::from_vec([1], vec![0u8])?.cast(ty)?, ""),
        });
    }
    let mut op = IntegerAdd::default();
    op.set_activation(activation);
    let new = model.add(op, &inputs, name)?;
    model.replace(id.into(), new);
    Ok(())
}

/// Whether a node widens a constant of bytes to integers.
fn widens(model: &Model, node: &Node) -> bool {
    node.op().is::<Convert>()
        && node.element_type(0) == ElementType::I32
        && model.constant(node.inputs()[0]).is_some()
}

/// Evaluates what is left of constants in narrow types.
fn expand(model: &mut Model, id: NodeId) -> Result<()> {
    let node = model.node(id);
    if !node.op().is::<DequantizeLinear>() && !widens(model, node) {
        return Ok(());
    }
    let inputs = node.inputs().iter().map(|v| model.constant(*v).cloned());
    let Some(inputs) = inputs.collect::<Option<Vec<_>>>() else { return Ok(()) };
    let Ok(values) = node.op().evaluate(&inputs) else { return Ok(()) };
    let name = node.name().to_owned();
    if let Some(value) = values.into_iter().next() {
        let constant = model.add_constant(value, name);
        model.replace(id.into(), constant);
    }
    Ok(())
}

/// Scale and zero point of a quantized tensor, of one element each.
#[derive(Clone, Copy, Debug)]
struct PerTensor {
    quantized: Value,
    scale: Value,
    zero: Option<Value>,
}

fn elements(model: &Model, value: Value) -> Option<usize> {
    model.shape(value).to_shape().map(|s| s.elements())
}

fn is_byte(model: &Model, value: Value) -> bool {
    matches!(model.element_type(value), ElementType::I8 | ElementType::U8)
}

fn given(model: &Model, inputs: &[Value], index: usize) -> Option<Value> {
    inputs.get(index).copied().filter(|v| !model.constant(*v).is_some_and(Tensor::is_absent))
}

/// What a value was dequantized from, with one scale for the whole tensor.
fn dequantized(model: &Model, value: Value) -> Option<PerTensor> {
    let node = model.node(value.node);
    let op = node.op_as::<DequantizeLinear>()?;
    let inputs = node.inputs();
    let zero = given(model, inputs, 2);
    let fits = op.block_size == 0
        && node.element_type(0) == ElementType::F32
        && model.element_type(inputs[1]) == ElementType::F32
        && is_byte(model, inputs[0])
        && elements(model, inputs[1]) == Some(1)
        && zero.is_none_or(|z| elements(model, z) == Some(1));
    fits.then_some(PerTensor { quantized: inputs[0], scale: inputs[1], zero })
}

/// The same for what a value is quantized to.
fn quantizes(model: &Model, id: NodeId) -> Option<PerTensor> {
    let node = model.node(id);
    let op = node.op_as::<QuantizeLinear>()?;
    let inputs = node.inputs();
    let zero = given(model, inputs, 2);
    let fits = op.block_size == 0
        && is_byte(model, id.into())
        && model.element_type(inputs[0]) == ElementType::F32
        && elements(model, inputs[1]) == Some(1)
        && zero.is_none_or(|z| elements(model, z) == Some(1));
    fits.then_some(PerTensor { quantized: id.into(), scale: inputs[1], zero })
}

/// Whether both tensors have the same constant scale and zero point, and the same type.
fn same_steps(model: &Model, a: PerTensor, b: PerTensor) -> bool {
    let equal = |a: Value, b: Value| {
        a == b
            || model.constant(a).zip(model.constant(b)).is_some_and(|(a, b)| {
                a.element_type() == b.element_type()
                    && a.to_contiguous().bytes() == b.to_contiguous().bytes()
            })
    };
    let zero = match (a.zero, b.zero) {
        (None, None) => true,
        (Some(a), Some(b)) => equal(a, b),
        _ => false,
    };
    let positive = model
        .constant(a.scale)
        .and_then(|s| s.element_as_f64(0))
        .is_some_and(|s| s.is_finite() && s >= f64::from(f32::MIN_POSITIVE));
    let same_type = model.element_type(a.quantized) == model.element_type(b.quantized);
    same_type && positive && equal(a.scale, b.scale) && zero
}

/// Quantizing what was just dequantized with the same scale gives what was there; so it does around an operator that
/// only moves elements or takes the largest.
fn without_round_trip(model: &mut Model, id: NodeId) -> Result<()> {
    let Some(to) = quantizes(model, id) else { return Ok(()) };
    let x = model.node(id).inputs()[0];
    if let Some(from) = dequantized(model, x) {
        if same_steps(model, from, to) {
            model.replace(id.into(), from.quantized);
        }
        return Ok(());
    }
    let mover = model.node(x.node);
    let op = mover.op();
    let moves = x.output == 0
        && (op.is::<Reshape>()
            || op.is::<Transpose>()
            || op.is::<MaxPool>()
            || op.is::<MaxPool1>()
            || op.is::<MaxPool8>());
    if !moves || !model.has_single_use(x) {
        return Ok(());
    }
    let mut inputs = mover.inputs().to_vec();
    let Some(from) = dequantized(model, inputs[0]) else { return Ok(()) };
    if !same_steps(model, from, to) {
        return Ok(());
    }
    let (op, name) = (op.clone_box(), mover.name().to_owned());
    inputs[0] = from.quantized;
    let new = model.add_node(op, &inputs, name)?;
    model.replace(id.into(), new.into());
    Ok(())
}

/// Weights in bytes, their zero points (none, one, or one per output channel) and scales (one, or one per channel).
struct Weights {
    bytes: Tensor,
    zeros: Option<Tensor>,
    scale: Tensor,
}

/// The constant that weights are dequantized from, with scales along `axis` if there are several.
fn constant_weights(model: &Model, value: Value, axis: usize) -> Option<Weights> {
    let node = model.node(value.node);
    let op = node.op_as::<DequantizeLinear>()?;
    let inputs = node.inputs();
    let bytes = model.constant(inputs[0])?;
    let scale = model.constant(inputs[1])?;
    let zeros = match given(model, inputs, 2) {
        Some(v) => Some(model.constant(v)?.clone()),
        None => None,
    };
    let along = crate::op::normalize_axis(op.axis, bytes.rank()).ok() == Some(axis);
    let per = |t: &Tensor| t.len() == 1 || (along && t.len() == bytes.shape()[axis]);
    let fits = op.block_size == 0
        && is_byte(model, inputs[0])
        && node.element_type(0) == ElementType::F32
        && scale.element_type() == ElementType::F32
        && per(scale)
        && zeros.as_ref().is_none_or(per);
    fits.then(|| Weights { bytes: bytes.clone(), zeros, scale: scale.clone() })
}

/// A constant as a flat list, or the absent marker.
fn flat(model: &mut Model, tensor: Option<Tensor>) -> Result<Value> {
    Ok(match tensor {
        None => model.add_constant(Tensor::absent(), ""),
        Some(t) => {
            let len = t.len();
            model.add_constant(t.to_contiguous().reshape([len])?, "")
        }
    })
}

/// The scale of both factors: a constant where it can be.
fn joint_scale(model: &mut Model, x: Value, w: &Tensor) -> Result<Value> {
    let w = w.to_contiguous().reshape([w.len()])?;
    if let Some(x) = model.constant(x).and_then(|t| t.element_as_f64(0)) {
        let product: Vec<f32> = w.as_slice::<f32>()?.iter().map(|w| x as f32 * *w).collect();
        return Ok(model.add_constant(Tensor::from_vec([product.len()], product)?, ""));
    }
    let w = model.add_constant(w, "");
    model.add(Multiply {}, &[w, x], "")
}

/// Inputs of an integer operator up to the scale.
fn inputs(model: &mut Model, x: PerTensor, weights: &Weights) -> Result<Vec<Value>> {
    let x_zero = match x.zero {
        Some(zero) => zero,
        None => flat(model, None)?,
    };
    let scale = joint_scale(model, x.scale, &weights.scale)?;
    let w = model.add_constant(weights.bytes.clone(), "");
    let w_zero = flat(model, weights.zeros.clone())?;
    Ok(vec![x.quantized, w, x_zero, w_zero, scale])
}

/// A convolution's attributes; filters of a grouped one as `[groups, o / groups, …]` become `[o, …]`.
fn integer_convolution(op: &dyn Op, filters: &[usize]) -> Option<(IntegerConvolution, Shape)> {
    macro_rules! common {
        ($conv:expr, $groups:expr) => {
            IntegerConvolution {
                strides: $conv.strides.clone(),
                dilations: $conv.dilations.clone(),
                pads_begin: $conv.pads_begin.clone(),
                pads_end: $conv.pads_end.clone(),
                auto_pad: $conv.auto_pad,
                groups: $groups,
                ..IntegerConvolution::default()
            }
        };
    }
    if let Some(conv) = op.downcast::<Convolution>() {
        return Some((common!(conv, 1), Shape::from(filters.to_vec())));
    }
    let conv = op.downcast::<GroupConvolution>()?;
    let (&groups, rest) = filters.split_first()?;
    let (&outputs, rest) = rest.split_first()?;
    let mut dims = vec![groups.checked_mul(outputs)?];
    dims.extend_from_slice(rest);
    Some((common!(conv, i64::try_from(groups).ok()?), Shape::from(dims)))
}

/// A product of dequantized tensors.
fn real(model: &mut Model, id: NodeId) -> Result<()> {
    let node = model.node(id);
    if node.element_type(0) != ElementType::F32 {
        return Ok(());
    }
    let (x, w, name) = (node.inputs()[0], node.inputs()[1], node.name().to_owned());
    let Some(from) = dequantized(model, x) else { return Ok(()) };
    let new = if let Some(product) = node.op_as::<MatMul>() {
        let product = product.clone();
        let axis = usize::from(!product.transpose_b);
        let Some(weights) = constant_weights(model, w, axis) else { return Ok(()) };
        let x_rank = model.shape(x).rank().unwrap_or(0);
        if weights.bytes.rank() != 2 || product.transpose_a || x_rank < 2 {
            return Ok(());
        }
        let inputs = inputs(model, from, &weights)?;
        let op = IntegerProduct { transpose_b: product.transpose_b, ..IntegerProduct::default() };
        model.add(op, &inputs, name)?
    } else {
        // Filters of groups are reshaped from those of all channels.
        let source = model.node(w.node);
        let source = if source.op().is::<Reshape>() { source.inputs()[0] } else { w };
        let Some(shape) = model.shape(w).to_shape() else { return Ok(()) };
        let Some((op, dims)) = integer_convolution(model.node(id).op(), &shape) else {
            return Ok(());
        };
        let Some(mut weights) = constant_weights(model, source, 0) else { return Ok(()) };
        if source != w && weights.bytes.shape().first() != dims.first() {
            return Ok(());
        }
        if weights.bytes.shape() != &dims {
            let per_channel = |t: &Tensor| t.len() == 1 || Some(&t.len()) == dims.first();
            if !per_channel(&weights.scale) || !weights.zeros.as_ref().is_none_or(per_channel) {
                return Ok(());
            }
            weights.bytes = weights.bytes.to_contiguous().reshape(dims)?;
        }
        let inputs = inputs(model, from, &weights)?;
        model.add(op, &inputs, name)?
    };
    model.replace(id.into(), new);
    Ok(())
}

/// `Convert(i32 product)`, where nothing or a bias lies between, times a scale of one that the next multiplication
/// replaces.
fn integer(model: &mut Model, id: NodeId) -> Result<()> {
    let node = model.node(id);
    if node.element_type(0) != ElementType::F32 {
        return Ok(());
    }
    let name = node.name().to_owned();
    let product = node.inputs()[0];
    if model.element_type(product) != ElementType::I32 || product.output != 0 {
        return Ok(());
    }
    // A bias is added to the real result: with the scale still to come, it must be exact in f32.
    let (product, bias) = match model.node(product.node).op_as::<Add>() {
        Some(_) => {
            let inputs = model.node(product.node).inputs();
            match model.constant(inputs[1]) {
                Some(b) if b.to_i64_vec()?.iter().all(|b| b.unsigned_abs() < 1 << 24) => {
                    (inputs[0], Some(inputs[1]))
                }
                _ => return Ok(()),
            }
        }
        None => (product, None),
    };
    let Some(new) = integer_product(model, product, name)? else { return Ok(()) };
    let new = match bias {
        Some(bias) => {
            let bias = model.constant(bias).expect("checked above").cast(ElementType::F32)?;
            let bias = model.add_constant(bias, "");
            model.add(Add {}, &[new, bias], "")?
        }
        None => new,
    };
    model.replace(id.into(), new);
    Ok(())
}

fn integer_product(model: &mut Model, product: Value, name: String) -> Result<Option<Value>> {
    let one = Tensor::from_vec([1], vec![1f32])?;
    let node = model.node(product.node);
    let operands = node.inputs().to_vec();
    if node.op().is::<MatMulInteger>() {
        let Some(bytes) = model.constant(operands[1]).cloned() else { return Ok(None) };
        let x_zero = given(model, &operands, 2);
        let w_zero = given(model, &operands, 3);
        let zeros = match w_zero {
            Some(z) => match model.constant(z) {
                Some(z) => Some(z.clone()),
                None => return Ok(None),
            },
            None => None,
        };
        let fits = bytes.rank() == 2
            && model.shape(operands[0]).rank().is_some_and(|r| r >= 2)
            && x_zero.is_none_or(|z| elements(model, z) == Some(1))
            && zeros.as_ref().is_none_or(|z| z.len() == 1 || z.len() == bytes.shape()[1]);
        if !fits {
            return Ok(None);
        }
        let scale = model.add_constant(one.clone(), "");
        let x = PerTensor { quantized: operands[0], scale, zero: x_zero };
        let inputs = inputs(model, x, &Weights { bytes, zeros, scale: one })?;
        return Ok(Some(model.add(IntegerProduct::default(), &inputs, name)?));
    }
    let [x, w, ..] = operands[..] else { return Ok(None) };
    let Some(shape) = model.shape(w).to_shape() else { return Ok(None) };
    let Some((op, dims)) = integer_convolution(node.op(), &shape) else { return Ok(None) };
    let Some((quantized, zero)) = without_zero(model, x) else { return Ok(None) };
    let (bytes, zeros) = match constant_bytes(model, w, dims.clone())? {
        Some(found) => found,
        None => match evaluated(model, w).map(|w| narrow(&w, dims)).transpose()?.flatten() {
            Some((bytes, zero)) => (bytes, Some(zero)),
            None => return Ok(None),
        },
    };
    let scale = model.add_constant(one.clone(), "");
    let x = PerTensor { quantized, scale, zero };
    let inputs = inputs(model, x, &Weights { bytes, zeros, scale: one })?;
    Ok(Some(model.add(op, &inputs, name)?))
}

/// Weights that are bytes in the model, with one zero point at most, in another shape of as many elements.
fn constant_bytes(
    model: &Model,
    value: Value,
    dims: Shape,
) -> Result<Option<(Tensor, Option<Tensor>)>> {
    let skip = |value: Value, is: fn(&dyn Op) -> bool| {
        let node = model.node(value.node);
        is(node.op()).then(|| node.inputs()[0])
    };
    let value = skip(value, <dyn Op>::is::<Reshape>).unwrap_or(value);
    let zero = model.node(value.node).op().is::<Subtract>().then(|| {
        let zero = evaluated(model, model.node(value.node).inputs()[1])?;
        (zero.len() == 1).then_some(zero)
    });
    let value = skip(value, <dyn Op>::is::<Subtract>).unwrap_or(value);
    let Some(bytes) = skip(value, <dyn Op>::is::<Convert>).filter(|v| is_byte(model, *v)) else {
        return Ok(None);
    };
    let ty = model.element_type(bytes);
    let Some(bytes) = model.constant(bytes) else { return Ok(None) };
    let zero = match zero {
        Some(Some(zero)) => {
            let narrow = zero.cast(ty)?.reshape([1])?;
            if narrow.cast(zero.element_type())?.element_as_f64(0) != zero.element_as_f64(0) {
                return Ok(None);
            }
            Some(narrow)
        }
        Some(None) => return Ok(None),
        None => None,
    };
    Ok(Some((bytes.to_contiguous().reshape(dims)?, zero)))
}

/// A constant, or what conversions, differences and reshaping make of some.
fn evaluated(model: &Model, value: Value) -> Option<Tensor> {
    if let Some(constant) = model.constant(value) {
        return Some(constant.clone());
    }
    let node = model.node(value.node);
    let op = node.op();
    if !(op.is::<Convert>() || op.is::<Subtract>() || op.is::<Reshape>()) {
        return None;
    }
    let inputs: Option<Vec<_>> = node.inputs().iter().map(|v| evaluated(model, *v)).collect();
    op.evaluate(&inputs?).ok()?.pop()
}

/// Integer weights as bytes and the zero point that was taken from them.
fn narrow(w: &Tensor, dims: Shape) -> Result<Option<(Tensor, Tensor)>> {
    let w = w.to_contiguous();
    let Ok(values) = w.as_slice::<i32>() else { return Ok(None) };
    let (low, high) = values.iter().fold((0, 0), |(l, h), v| (*v.min(&l), *v.max(&h)));
    if low < -255 || i64::from(high) - i64::from(low) > 255 {
        return Ok(None);
    }
    let bytes: Vec<u8> = values.iter().map(|v| (v - low) as u8).collect();
    let zero = Tensor::from_vec([1], vec![(-low) as u8])?;
    Ok(Some((Tensor::from_vec(dims, bytes)?, zero)))
}

/// The bytes that a zero point was taken from, and the zero point.
fn without_zero(model: &Model, value: Value) -> Option<(Value, Option<Value>)> {
    let bytes = |value: Value| {
        let node = model.node(value.node);
        (node.op().is::<Convert>() && is_byte(model, node.inputs()[0])).then(|| node.inputs()[0])
    };
    if let Some(x) = bytes(value) {
        return Some((x, None));
    }
    let node = model.node(value.node);
    if !node.op().is::<Subtract>() {
        return None;
    }
    let (x, zero) = (bytes(node.inputs()[0])?, bytes(node.inputs()[1])?);
    let fits =
        elements(model, zero) == Some(1) && model.element_type(zero) == model.element_type(x);
    fits.then_some((x, Some(zero)))
}

#[cfg(test)]
mod tests;
