//! Scale, bias, residual, activation and quantization move into the integer product before them.

use crate::{
    ElementType, Model, Tensor,
    error::Result,
    model::{NodeId, Value},
    op::{
        Op,
        arithmetic::{Add, Multiply},
        fused::{
            activation::Activation,
            integer::{IntegerConvolution, IntegerProduct, Port},
        },
        quantize::QuantizeLinear,
    },
    pass::fuse::Tail,
};

/// Lets [`IntegerConvolution`] and [`IntegerProduct`] absorb what follows them. Output channels are on the last axis.
///
/// # Errors
/// When an operator refuses its inputs, which a valid model rules out.
pub fn fuse(model: &mut Model) -> Result<()> {
    for id in model.topological_order()? {
        let Some(node) = model.get(id) else { continue };
        let last = node.op_as::<IntegerConvolution>().is_some_and(|c| c.last);
        if last || node.op().is::<IntegerProduct>() {
            absorb(model, id)?;
        }
    }
    model.remove_dead();
    Ok(())
}

#[derive(Default)]
struct Absorbed {
    scale: Option<Value>,
    /// Whether the bias was there before the scale.
    scaled_bias: bool,
    tail: Tail,
    /// Scale, zero point and type of the output.
    quantized: Option<(Value, Option<Value>, ElementType)>,
}

fn absorb(model: &mut Model, id: NodeId) -> Result<()> {
    let mut a = Absorbed::default();
    let mut end = Value::from(id);
    while a.quantized.is_none() && model.has_single_use(end) {
        let Some((user, input)) = model.uses(end).next() else { break };
        if !step(model, &mut a, id, end, user, input as usize) {
            break;
        }
        end = user.into();
    }
    let node = model.node(id);
    let (mut inputs, name) = (node.inputs()[..=Port::SCALE].to_vec(), node.name().to_owned());
    let output_type = a.quantized.map_or(ElementType::F32, |q| q.2);
    let Some(op) = a.tail.apply(node.op()).filter(|_| end != id.into()) else { return Ok(()) };
    let op = with_output(op, output_type);
    if let Some(scale) = a.scale {
        inputs[Port::SCALE] = scale;
    }
    let absent = model.add_constant(Tensor::absent(), "");
    let bias = match a.tail.bias {
        Some(b) => {
            let tensor = model.constant(b).expect("only constants are absorbed as bias");
            let scale = a.scale.filter(|_| a.scaled_bias).and_then(|s| model.constant(s));
            let bias = flat_bias(tensor, scale)?;
            model.add_constant(bias, "")
        }
        None => absent,
    };
    inputs.push(bias);
    inputs.push(a.tail.residual.unwrap_or(absent));
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

/// The integer product with another type of output.
fn with_output(op: Box<dyn Op>, output_type: ElementType) -> Box<dyn Op> {
    if let Some(conv) = op.downcast::<IntegerConvolution>() {
        Box::new(IntegerConvolution { output_type, ..conv.clone() })
    } else if let Some(product) = op.downcast::<IntegerProduct>() {
        Box::new(IntegerProduct { output_type, ..product.clone() })
    } else {
        op
    }
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
    let plain = a.tail.activation == Activation::None && a.tail.residual.is_none();
    if node.op().is::<Multiply>() {
        let other = node.inputs()[1 - input.min(1)];
        // A bias that was added to the sums counts in units of the scale.
        let fits = plain
            && a.scale.is_none()
            && (a.tail.bias.is_none() || model.constant(other).is_some());
        if fits
            && is_one(model, model.node(id).inputs()[Port::SCALE])
            && scales(model, value, user, other)
        {
            a.scale = Some(other);
            a.scaled_bias = a.tail.bias.is_some();
            return true;
        }
        return false;
    }
    if node.op().is::<Add>() {
        let other = node.inputs()[1 - input.min(1)];
        return a.tail.add(model, value, user, other);
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
    a.tail.activate(model, user)
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
