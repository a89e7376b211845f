//! Quantization that models spell as arithmetic becomes [`QuantizeLinear`] and [`DequantizeLinear`].

use crate::{
    ElementType, Model, Shape, Tensor,
    error::Result,
    model::{NodeId, Value},
    op::{
        arithmetic::{Multiply, Subtract},
        convert::Convert,
        convolution::GroupConvolution,
        quantize::{DequantizeLinear, FakeQuantize, QuantizeLinear},
        reshape::Reshape,
    },
};

use super::{evaluated, is_byte};

/// Spells [`FakeQuantize`] of 256 levels between equal steps, and weights of bytes that are converted and scaled, as the
/// operators of quantization that they are, so that [`products`](super::products) finds them. Values half-way between two
/// steps may come to lie on the other one. Returns the number of changes; a model without [`FakeQuantize`] stays as it is.
///
/// # Errors
/// When an operator refuses its inputs, which a valid model rules out.
pub fn spell_out(model: &mut Model) -> Result<usize> {
    if !model.nodes().any(|(_, n)| n.op().is::<FakeQuantize>()) {
        return Ok(0);
    }
    let mut changes = 0;
    for id in model.topological_order()? {
        let Some(node) = model.get(id) else { continue };
        let new = if node.op().is::<FakeQuantize>() {
            activations(model, id)?
        } else if node.op().is::<Multiply>() {
            weights(model, id)?
        } else {
            None
        };
        if let Some(new) = new {
            model.replace(id.into(), new);
            changes += 1;
        }
    }
    model.remove_dead();
    Ok(changes)
}

/// Steps between two limits: their size, and the number of the one that is zero.
fn steps(low: f64, high: f64) -> Option<(f32, u8)> {
    let step = (high - low) / 255.0;
    let zero = -low / step;
    let near = (zero - zero.round()).abs() <= NEAR && (0.0..=255.0).contains(&zero.round());
    (step.is_finite() && step as f32 >= f32::MIN_POSITIVE && near)
        .then_some((step as f32, zero.round() as u8))
}

/// Limits are rounded to floats of 24 bits, or of 11, so that zero is not a whole number of steps from them.
const NEAR: f64 = 1.0 / 32.0;

fn activations(model: &mut Model, id: NodeId) -> Result<Option<Value>> {
    let node = model.node(id);
    let levels = node.op_as::<FakeQuantize>().map(|op| op.levels);
    if levels != Some(256) || node.element_type(0) != ElementType::F32 {
        return Ok(None);
    }
    let (x, name) = (node.inputs()[0], node.name().to_owned());
    if model.constant(x).is_some() {
        return Ok(None);
    }
    let limit = |i: usize| {
        let tensor = evaluated(model, node.inputs()[i])?;
        (tensor.len() == 1).then(|| tensor.element_as_f64(0))?
    };
    let limits: Option<Vec<f64>> = (1..5).map(limit).collect();
    let Some(&[low, high, out_low, out_high]) = limits.as_deref() else {
        return Ok(None);
    };
    let (Some((step, zero)), Some((out_step, out_zero))) =
        (steps(low, high), steps(out_low, out_high))
    else {
        return Ok(None);
    };
    if zero != out_zero {
        return Ok(None);
    }
    let [step, out_step] = [step, out_step].map(|v| model.add_constant(Tensor::scalar(v), ""));
    let zero = model.add_constant(Tensor::scalar(zero), "");
    let bytes = model.add(QuantizeLinear::default(), &[x, step, zero], name.clone())?;
    Ok(Some(model.add(DequantizeLinear::default(), &[bytes, out_step, zero], name)?))
}

/// `(bytes - zero) scale` of constants, with one scale and zero point or one per element of an axis: of the outputs, which
/// in filters of groups are the first two together.
fn weights(model: &mut Model, id: NodeId) -> Result<Option<Value>> {
    let node = model.node(id);
    if node.element_type(0) != ElementType::F32 {
        return Ok(None);
    }
    let (centred, scale) = (node.inputs()[0], evaluated(model, node.inputs()[1]));
    let (converted, zero) = if model.node(centred.node).op().is::<Subtract>() {
        let inputs = model.node(centred.node).inputs();
        (inputs[0], Some(evaluated(model, inputs[1])))
    } else {
        (centred, None)
    };
    let source = model.node(converted.node);
    if !source.op().is::<Convert>() || !is_byte(model, source.inputs()[0]) {
        return Ok(None);
    }
    let (Some(bytes), Some(scale)) = (model.constant(source.inputs()[0]).cloned(), scale) else {
        return Ok(None);
    };
    let zero = match zero {
        None => None,
        Some(zero) => match zero.map(|z| narrow_zero(&z, bytes.element_type())).transpose()? {
            Some(Some(zero)) => Some(zero),
            _ => return Ok(None),
        },
    };
    let grouped = model
        .uses(id.into())
        .any(|(user, input)| input == 1 && model.node(user).op().is::<GroupConvolution>());
    let (name, shape) = (node.name().to_owned(), bytes.shape().clone());
    let parameters = [Some(&scale), zero.as_ref()];
    let Some(axis) = axis_of(&shape, parameters.into_iter().flatten(), grouped) else {
        return Ok(None);
    };
    let flat = if grouped { merged(&shape) } else { shape.clone() };
    let count = flat[axis];
    let spread = |t: &Tensor| -> Result<Tensor> {
        let repeats = if t.len() == 1 { count } else { 1 };
        let values = t.to_f64_vec()?.repeat(repeats);
        Ok(Tensor::from_f64s::<f64>([count], &values)?.cast(t.element_type())?)
    };
    let scale = spread(&scale.cast(ElementType::F32)?)?;
    let mut inputs = vec![
        model.add_constant(bytes.to_contiguous().reshape(flat)?, ""),
        model.add_constant(scale, ""),
    ];
    if let Some(zero) = &zero {
        let zero = spread(zero)?;
        inputs.push(model.add_constant(zero, ""));
    }
    let op = DequantizeLinear { axis: axis as i64, ..DequantizeLinear::default() };
    let real = model.add(op, &inputs, name)?;
    if !grouped {
        return Ok(Some(real));
    }
    let dims: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
    let dims = model.add_constant(Tensor::from_i64s(&dims), "");
    Ok(Some(model.add(Reshape::default(), &[real, dims], "")?))
}

/// A zero point as a byte, if it is one.
fn narrow_zero(zero: &Tensor, ty: ElementType) -> Result<Option<Tensor>> {
    let narrow = zero.cast(ty)?;
    let same = narrow.to_f64_vec()? == zero.to_f64_vec()?;
    Ok(same.then_some(narrow))
}

/// Filters `[groups, outputs, …]` as `[groups · outputs, …]`.
fn merged(shape: &Shape) -> Shape {
    let outputs = shape.iter().take(2).product();
    std::iter::once(outputs).chain(shape.iter().skip(2).copied()).collect()
}

/// The axis that parameters run along, 0 where each is one number; `None` when they run along several, or along another
/// one than outputs do.
fn axis_of<'a>(
    shape: &Shape,
    parameters: impl Iterator<Item = &'a Tensor>,
    grouped: bool,
) -> Option<usize> {
    if shape.rank() < if grouped { 3 } else { 2 } {
        return None;
    }
    let mut found = None;
    for t in parameters.filter(|t| t.len() != 1) {
        let own = if grouped { merged(t.shape()) } else { t.shape().clone() };
        let whole = if grouped { merged(shape) } else { shape.clone() };
        let axis = own.iter().position(|d| *d != 1)?;
        let suits = t.rank() == shape.rank() && t.len() == own[axis] && own[axis] == whole[axis];
        if !suits || found.is_some_and(|f| f != axis) || grouped && axis != 0 {
            return None;
        }
        found = Some(axis);
    }
    Some(found.unwrap_or(0))
}
