//! Bias, residual and activation move into the convolution or matrix product that feeds them.

use crate::{
    Dimension, ElementType, Model, Tensor,
    error::Result,
    model::{NodeId, Value},
    op::{
        Op, OpAttributes, OpKind,
        arithmetic::{Add, Multiply},
        matmul::MatMul,
    },
};

use crate::op::fused::{
    activation::{self, Activation},
    common::with_finish,
    convolution::FusedConvolution,
    matmul::FullyConnected,
    transposed::FusedConvolutionTransposed,
};

/// Operators that absorb what follows them.
const PRODUCTS: &[OpKind] =
    &[FusedConvolution::KIND, FusedConvolutionTransposed::KIND, FullyConnected::KIND];

/// Turns products with constant matrices into [`FullyConnected`], then lets it and the convolutions
/// absorb what follows them.
///
/// # Errors
/// When an operator refuses its inputs, which a valid model rules out.
pub fn fuse(model: &mut Model) -> Result<()> {
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

/// What a product does after its sums, as far as it has been absorbed.
#[derive(Debug, Default)]
pub struct Tail {
    /// A constant with one number for each channel.
    pub bias: Option<Value>,
    /// A value of the product's shape.
    pub residual: Option<Value>,
    /// What is applied to the sum.
    pub activation: Activation,
    /// Whether the residual is added after the activation.
    pub residual_after: bool,
}

impl Tail {
    /// The product `op` with this activation and place of the residual.
    pub fn apply(&self, op: &dyn Op) -> Option<Box<dyn Op>> {
        with_finish(op, self.activation, self.residual_after)
    }

    /// Absorbs the activation that `user` computes of the product, if there is none yet.
    pub fn activate(&mut self, model: &Model, user: NodeId) -> bool {
        if self.activation != Activation::None || self.residual_after {
            return false;
        }
        let Some(activation) = activation_of(model, user) else { return false };
        self.activation = activation;
        true
    }

    /// Absorbs the sum or product `user` of the activation's result and one constant number.
    fn scale_or_shift(&mut self, model: &Model, value: Value, user: NodeId, other: Value) -> bool {
        let number = model.constant(other).filter(|t| {
            t.len() == 1
                && t.element_type() == ElementType::F32
                && model.shape(user.into()) == model.shape(value)
                && !self.residual_after
        });
        let Some(number) = number.and_then(|t| t.element_as_f64(0)).map(|v| v as f32) else {
            return false;
        };
        let (scale, shift) =
            if model.node(user).op().is::<Add>() { (1.0, number) } else { (number, 0.0) };
        match self.activation.then(scale, shift) {
            Some(activation) => {
                self.activation = activation;
                true
            }
            None => false,
        }
    }

    /// Absorbs the sum `user` of the product's `value` and `other`: a bias, or a residual of the same shape.
    pub fn add(&mut self, model: &Model, value: Value, user: NodeId, other: Value) -> bool {
        let shape = model.shape(value);
        let Some(channels) = shape.dims().and_then(|d| d.last()).and_then(|d| d.value()) else {
            return false;
        };
        if model.element_type(other) != ElementType::F32 || model.shape(user.into()) != shape {
            return false;
        }
        if let Some(constant) = model.constant(other) {
            let per_channel =
                constant.shape().last() == Some(&channels) && constant.len() == channels;
            let fits = per_channel
                && self.bias.is_none()
                && self.residual.is_none()
                && self.activation == Activation::None;
            if fits {
                self.bias = Some(other);
            }
            return fits;
        }
        let same = match (shape.dims(), model.shape(other).dims()) {
            (Some(x), Some(y)) => {
                x.len() == y.len() && x.iter().zip(y).all(|(x, y)| Dimension::same(*x, *y))
            }
            _ => false,
        };
        if !same || self.residual.is_some() {
            return false;
        }
        self.residual = Some(other);
        self.residual_after = self.activation != Activation::None;
        true
    }
}

fn absorb(model: &mut Model, id: NodeId) -> Result<()> {
    let mut tail = Tail::default();
    let mut end = Value::from(id);
    while model.has_single_use(end) {
        let Some((user, input)) = model.uses(end).next() else { break };
        let node = model.node(user);
        let absorbed = if node.op().is::<Add>() || node.op().is::<Multiply>() {
            let other = node.inputs()[1 - input as usize];
            tail.scale_or_shift(model, end, user, other)
                || node.op().is::<Add>() && tail.add(model, end, user, other)
        } else {
            input == 0 && tail.activate(model, user)
        };
        if !absorbed {
            break;
        }
        end = user.into();
    }
    let node = model.node(id);
    let Some(op) = tail.apply(node.op()).filter(|_| end != id.into()) else { return Ok(()) };
    let (mut inputs, name) = (node.inputs()[..2].to_vec(), node.name().to_owned());
    if tail.bias.is_some() || tail.residual.is_some() {
        let bias = match tail.bias {
            Some(b) => flat(model, b)?,
            None => model.add_constant(Tensor::absent(), ""),
        };
        inputs.push(bias);
        inputs.extend(tail.residual);
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

/// The activation that a node computes of its first input, if it is one that kernels fuse.
pub fn activation_of(model: &Model, id: NodeId) -> Option<Activation> {
    let node = model.node(id);
    if node.element_type(0) != ElementType::F32 {
        return None;
    }
    let op = node.op();
    let scalar = |input: usize| {
        let tensor = model.constant(*node.inputs().get(input)?)?;
        (tensor.len() == 1).then(|| tensor.element_as_f64(0).map(|v| v as f32))?
    };
    activation::of_operator(op, node.inputs().len(), &scalar)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        op::activation::{HSwish, Relu},
        pass::testing::{assert_same_on, parameter, random},
    };

    /// `relu(x w) 2 - 1`, with the numbers as tensors of this rank.
    fn affine_after(op: impl Op, rank: usize) -> Model {
        let mut m = Model::new("m");
        let x = parameter(&mut m, "x", &[3, 5]);
        let w = m.add_constant(random([5, 4], 1), "w");
        let y = m.add(MatMul::default(), &[x, w], "product").expect("valid");
        let y = m.add(op, &[y], "activation").expect("valid");
        let mut number = |v: f32| {
            m.add_constant(Tensor::from_vec(vec![1; rank].as_slice(), vec![v]).expect("fits"), "")
        };
        let (two, one) = (number(2.0), number(-1.0));
        let y = m.add(Multiply::default(), &[y, two], "scaled").expect("valid");
        let y = m.add(Add::default(), &[one, y], "shifted").expect("valid");
        m.add_output("y", y);
        m
    }

    fn fused(model: &Model) -> usize {
        let mut after = model.clone();
        fuse(&mut after).expect("valid");
        let x = random([3, 5], 7);
        assert_same_on(model, &after, &[x]);
        after.nodes().filter(|(_, n)| n.constant().is_none()).count() - 1
    }

    #[test]
    fn a_scale_and_a_shift_follow_the_activation_into_the_product() {
        assert_eq!(fused(&affine_after(Relu {}, 0)), 1);
        assert_eq!(fused(&affine_after(HSwish {}, 2)), 1);
        assert_eq!(fused(&affine_after(Relu {}, 3)), 3, "the numbers would change the rank");
        assert_eq!(fused(&affine_after(crate::op::activation::Tanh {}, 1)), 3);
    }
}
