//! Bias, residual and activation move into the convolution or matrix product that feeds them.

use ov_core::{
    Dimension, ElementType, Model, Tensor,
    error::Result,
    model::{NodeId, Value},
    op::{Op, OpAttributes, OpKind, arithmetic::Add, matmul::MatMul},
};

use crate::{
    kernels::eltwise::unary::UnaryOp,
    nodes::unary_of,
    ops::{
        convolution::FusedConvolution, matmul::FullyConnected,
        transposed::FusedConvolutionTransposed,
    },
    simd::activation::Activation,
};

/// Operators that absorb what follows them.
const PRODUCTS: &[OpKind] =
    &[FusedConvolution::KIND, FusedConvolutionTransposed::KIND, FullyConnected::KIND];

/// Turns products with constant matrices into [`FullyConnected`], then lets it and the convolutions
/// absorb what follows them.
///
/// # Errors
/// When an operator refuses its inputs, which a valid model rules out.
pub(crate) fn fuse(model: &mut Model) -> Result<()> {
    for id in model.topological_order()? {
        if model.get(id).is_some() {
            fully_connected(model, id)?;
        }
    }
    for id in model.topological_order()? {
        let Some(node) = model.get(id) else { continue };
        if PRODUCTS.contains(&node.op().kind()) {
            absorb(model, id)?;
        }
    }
    model.remove_dead();
    Ok(())
}

fn fully_connected(model: &mut Model, id: NodeId) -> Result<()> {
    let node = model.node(id);
    let Some(product) = node.op_as::<MatMul>() else { return Ok(()) };
    let (x, w) = (node.inputs()[0], node.inputs()[1]);
    let Some(weights) = model.constant(w) else { return Ok(()) };
    let matrix =
        weights.rank() >= 2 && weights.shape()[..weights.rank() - 2].iter().all(|d| *d == 1);
    let x_rank = model.shape(x).rank();
    let suits = matrix
        && weights.element_type() == ElementType::F32
        && model.element_type(x) == ElementType::F32
        && !product.transpose_a
        && x_rank.is_some_and(|r| r >= 2 && r >= weights.rank());
    if !suits {
        return Ok(());
    }
    let matrix = weights.reshape(&weights.shape()[weights.rank() - 2..])?;
    let op = FullyConnected { transpose_b: product.transpose_b, ..FullyConnected::default() };
    let names = (node.name().to_owned(), model.node(w.node).name().to_owned());
    let weights = model.add_constant(matrix, names.1);
    let new = model.add(op, &[x, weights], names.0)?;
    model.replace(id.into(), new);
    Ok(())
}

/// What has been absorbed so far.
#[derive(Default)]
struct Absorbed {
    bias: Option<Value>,
    residual: Option<Value>,
    activation: Activation,
    residual_after: bool,
    /// The value that the fused operator stands for.
    end: Option<Value>,
}

fn absorb(model: &mut Model, id: NodeId) -> Result<()> {
    let mut a = Absorbed::default();
    let mut value = Value::from(id);
    while model.has_single_use(value) {
        let Some((user, input)) = model.uses(value).next() else { break };
        if !step(model, &mut a, value, user, input as usize) {
            break;
        }
        value = user.into();
        a.end = Some(value);
    }
    let Some(end) = a.end else { return Ok(()) };
    let node = model.node(id);
    let (x, w, name) = (node.inputs()[0], node.inputs()[1], node.name().to_owned());
    let op: Box<dyn Op> = if let Some(conv) = node.op_as::<FusedConvolution>() {
        let mut conv = conv.clone();
        conv.set_activation(a.activation);
        conv.residual_after = a.residual_after;
        Box::new(conv)
    } else if let Some(fc) = node.op_as::<FullyConnected>() {
        let mut fc = fc.clone();
        fc.set_activation(a.activation);
        fc.residual_after = a.residual_after;
        Box::new(fc)
    } else if let Some(conv) = node.op_as::<FusedConvolutionTransposed>() {
        let mut conv = conv.clone();
        conv.set_activation(a.activation);
        conv.residual_after = a.residual_after;
        Box::new(conv)
    } else {
        return Ok(());
    };
    let mut inputs = vec![x, w];
    if a.bias.is_some() || a.residual.is_some() {
        let bias = match a.bias {
            Some(b) => flat(model, b)?,
            None => model.add_constant(Tensor::absent(), ""),
        };
        inputs.push(bias);
        inputs.extend(a.residual);
    }
    let new = model.add_node(op, &inputs, name)?;
    model.replace(end, new.into());
    Ok(())
}

/// A per-channel constant as `[c]`.
fn flat(model: &mut Model, bias: Value) -> Result<Value> {
    let tensor = model.constant(bias).expect("only constants are absorbed as bias").clone();
    let tensor = tensor.reshape([tensor.len()])?;
    let name = model.node(bias.node).name().to_owned();
    Ok(model.add_constant(tensor, name))
}

/// Absorbs the one user of `value`, if it fits.
fn step(model: &Model, a: &mut Absorbed, value: Value, user: NodeId, input: usize) -> bool {
    let node = model.node(user);
    if node.op().is::<Add>() {
        let other = node.inputs()[1 - input];
        return add(model, a, value, user, other);
    }
    if a.activation != Activation::None || a.residual_after || input != 0 {
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

fn add(model: &Model, a: &mut Absorbed, value: Value, user: NodeId, other: Value) -> bool {
    let shape = model.shape(value);
    let Some(channels) = shape.dims().and_then(|d| d.last()).and_then(|d| d.value()) else {
        return false;
    };
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

/// The activation that a node computes of its first input, if it is one that kernels fuse.
pub(crate) fn activation_of(model: &Model, id: NodeId) -> Option<Activation> {
    let node = model.node(id);
    if node.element_type(0) != ElementType::F32 {
        return None;
    }
    let op = node.op();
    let scalar = |input: usize| {
        let tensor = model.constant(*node.inputs().get(input)?)?;
        (tensor.len() == 1).then(|| tensor.element_as_f64(0).map(|v| v as f32))?
    };
    match unary_of(op, node.inputs().len(), &scalar)? {
        UnaryOp::Activation(activation) => Some(activation),
        _ => None,
    }
}
