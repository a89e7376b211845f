//! Several element-wise operators in one pass over memory.

use std::{collections::HashMap, ops::Range};

use ov_core::{
    ElementType, Model, Tensor,
    model::{Node, Value as NodeValue},
    op::{
        Op, OpAttributes, OpError, OpResult, activation::PRelu, fused::element_wise::ElementWise,
    },
};

use super::{
    BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, cost,
    eltwise::{binary_op, unary_of},
};
use crate::{
    kernels::eltwise::{
        program::{Input, Instruction, MAX_INPUTS, Program, ProgramPlan, Value},
        unary::UnaryOp,
    },
    simd::Isa,
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] =
    &[KernelEntry { name: "chain_f32", ops: &[ElementWise::KIND], select, bind }];

/// Whether a node may be one of several in one pass: everything that it reads and gives is `f32`, and it broadcasts as in
/// numpy.
pub(crate) fn is_fusible(model: &Model, node: &Node) -> bool {
    let f32s = node.inputs().iter().map(|v| model.element_type(*v)).chain([node.element_type(0)]);
    let scalar = |i: usize| number(model.constant(*node.inputs().get(i)?)?);
    // A slope of rank 1 may be one per channel.
    let slope_fits = !node.op().is::<PRelu>()
        || node.shape(0).rank().is_some_and(|rank| rank < 3)
        || model.shape(node.inputs()[1]).rank() != Some(1);
    let ranks_fit = node.inputs().iter().all(|v| {
        let (rank, most) = (model.shape(*v).rank(), node.shape(0).rank());
        rank.zip(most).is_some_and(|(rank, most)| rank <= most)
    });
    f32s.into_iter().all(|ty| ty == ElementType::F32)
        && ranks_fit
        && slope_fits
        && operation(node.op(), node.inputs().len(), &scalar).is_some()
}

/// What an operator computes of one element of each operand.
enum Operation {
    /// Of input 0; the others are in it.
    Unary(UnaryOp),
    /// Of inputs 0 and 1.
    Binary(crate::kernels::eltwise::binary::BinaryOp),
}

fn operation(
    op: &dyn Op,
    inputs: usize,
    scalar: &dyn Fn(usize) -> Option<f32>,
) -> Option<Operation> {
    if let Some(unary) = unary_of(op, inputs, scalar) {
        return Some(Operation::Unary(unary));
    }
    binary_op(op).filter(|_| inputs == 2).map(Operation::Binary)
}

/// The value of a tensor with one element.
fn number(tensor: &Tensor) -> Option<f32> {
    (tensor.len() == 1 && tensor.rank() <= 1).then(|| tensor.element_as_f64(0))?.map(|v| v as f32)
}

/// The program of a body, and which of the operator's inputs its inputs are; `constant(i)` is the value of the operator's
/// input `i`, if that is known. Inputs that are known numbers become constants of the program.
fn program<'t>(
    op: &ElementWise,
    constant: &dyn Fn(usize) -> Option<&'t Tensor>,
) -> Result<(Program, Vec<usize>), Reject> {
    let body = &op.body;
    let order = body.topological_order().map_err(|e| e.to_string())?;
    let place: HashMap<NodeValue, usize> =
        body.parameters().iter().enumerate().map(|(i, id)| ((*id).into(), i)).collect();
    let nodes: Vec<_> = order.into_iter().filter(|id| !body.parameters().contains(id)).collect();
    let mut operations = Vec::new();
    for id in &nodes {
        let node = body.node(*id);
        let scalar = |i: usize| number(constant(*place.get(node.inputs().get(i)?)?)?);
        let operation = operation(node.op(), node.inputs().len(), &scalar)
            .ok_or_else(|| format!("{} has no vector form", node.op().kind()))?;
        let operands = match operation {
            Operation::Unary(_) => &node.inputs()[..1],
            Operation::Binary(_) => &node.inputs()[..2],
        };
        operations.push((operation, operands));
    }
    let (mut read, mut numbers) = (Vec::new(), Vec::new());
    for v in operations.iter().flat_map(|(_, operands)| *operands) {
        let Some(input) = place.get(v).copied() else { continue };
        match constant(input).and_then(number) {
            Some(_) if numbers.contains(&input) => {}
            Some(_) => numbers.push(input),
            None if read.contains(&input) => {}
            None => read.push(input),
        }
    }
    if read.len() > MAX_INPUTS {
        return Err(format!("takes at most {MAX_INPUTS} inputs").into());
    }
    let mut values: HashMap<NodeValue, Value> = HashMap::new();
    for (id, input) in body.parameters().iter().zip(0..) {
        if let Some(at) = read.iter().chain(&numbers).position(|i| *i == input) {
            values.insert((*id).into(), at as Value);
        }
    }
    let first = read.len() + numbers.len();
    let mut instructions = Vec::new();
    for (at, (id, (operation, operands))) in nodes.iter().zip(operations).enumerate() {
        let of = |i: usize| {
            values.get(&operands[i]).copied().ok_or("the body reads what it does not compute")
        };
        instructions.push(match operation {
            Operation::Unary(unary) => Instruction::Unary(unary, of(0)?),
            Operation::Binary(binary) => Instruction::Binary(binary, of(0)?, of(1)?),
        });
        values.insert((*id).into(), (first + at) as Value);
    }
    let constants = numbers.iter().filter_map(|i| constant(*i).and_then(number)).collect();
    let outputs: Option<Vec<Value>> =
        body.outputs().iter().map(|o| values.get(&o.value).copied()).collect();
    let outputs = outputs.ok_or("the body gives what it does not compute")?;
    let program =
        Program::new(read.len(), constants, instructions, outputs).map_err(|e| e.to_string())?;
    Ok((program, read))
}

fn fused(op: &dyn Op) -> Result<&ElementWise, Reject> {
    op.downcast().ok_or_else(|| "takes several element-wise operators in one".into())
}

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    view.expect_f32(&[])?;
    program(fused(view.op)?, &|i| view.inputs.get(i)?.constant)?;
    Ok(Choice::default())
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    let (program, read) = fused(cx.op)
        .and_then(|op| program(op, &|i| cx.inputs.get(i)?.value))
        .map_err(|Reject(reason)| OpError::Invalid(reason.into_owned()))?;
    let output = cx.outputs[0].shape;
    let shapes: Vec<&[usize]> = read.iter().map(|i| cx.inputs[*i].shape as &[usize]).collect();
    let plan = ProgramPlan::new(&program, &shapes).map_err(|e| OpError::Invalid(e.to_string()))?;
    if plan.len() != output.elements() {
        return Err(OpError::Invalid(format!(
            "the operands broadcast to {} elements, not to {output}",
            plan.len()
        )));
    }
    let in_place = read.iter().copied().find(|i| {
        let input = &cx.inputs[*i];
        input.value.is_none() && input.shape == output && output.elements() > 1
    });
    Bound::step(ChainStep { isa: cx.isa, plan, read, in_place })
}

#[derive(Debug)]
struct ChainStep {
    isa: Isa,
    plan: ProgramPlan,
    /// The operator's inputs that the program reads.
    read: Vec<usize>,
    in_place: Option<usize>,
}

impl Step for ChainStep {
    fn items(&self) -> usize {
        self.plan.items()
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.plan.len(), 4.0 * self.plan.instructions() as f64)
    }

    fn scratch_len(&self) -> usize {
        self.plan.scratch_len() * 4
    }

    fn in_place(&self) -> Option<usize> {
        self.in_place
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        let mut inputs = [Input::Slice(&[]); MAX_INPUTS];
        for (to, i) in inputs.iter_mut().zip(&self.read) {
            let shares = io.shares_memory(*i, 0);
            *to = if shares { Input::Output(0) } else { Input::Slice(io.input(*i)) };
        }
        let out = io.output::<f32>(0);
        let scratch = bytemuck::cast_slice_mut(scratch);
        self.plan.run(self.isa, &inputs[..self.read.len()], &[&out], scratch, range);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ov_core::op::{
        activation::{Clamp, Elu, Relu, Sigmoid, Swish},
        arithmetic::{Add, Multiply, Power, Subtract},
        softmax::SoftMax,
    };

    use super::*;
    use crate::nodes::testing::{check, noise, parameter};

    /// `softmax(relu(x · scale + shift)) - prelu(elu(x) ^ 2 · gate, slope)`, the latter given out as well.
    fn model(shape: &[usize], gate: &[usize]) -> Model {
        let mut m = Model::new("chain");
        let channels = *shape.last().expect("not a scalar");
        let x = parameter(&mut m, "x", shape);
        let gate = parameter(&mut m, "gate", gate);
        let scale = m.add_constant(noise(&[channels], 5), "scale");
        let shift = m.add_constant(noise(&[1, channels], 6), "shift");
        let slope = m.add_constant(noise(&[1, 1, channels], 7), "slope");
        let two = m.add_constant(Tensor::scalar(2f32), "two");
        let product = m.add(Multiply {}, &[x, scale], "product").expect("valid");
        let sum = m.add(Add {}, &[shift, product], "sum").expect("valid");
        let relu = m.add(Relu {}, &[sum], "relu").expect("valid");
        let soft = m.add(SoftMax { axis: -1 }, &[relu], "soft").expect("valid");
        let elu = m.add(Elu { alpha: 0.5 }, &[x], "elu").expect("valid");
        let square = m.add(Power {}, &[elu, two], "square").expect("valid");
        let gated = m.add(Multiply {}, &[square, gate], "gated").expect("valid");
        let other = m.add(PRelu {}, &[gated, slope], "other").expect("valid");
        let y = m.add(Subtract {}, &[soft, other], "y").expect("valid");
        m.add_output("other", other);
        m.add_output("y", y);
        m
    }

    #[test]
    fn chains_match_the_reference() {
        let cases: &[(&[usize], &[usize])] = &[
            (&[2, 3, 17], &[2, 1, 17]),
            (&[1, 40, 96], &[1, 1, 1]),
            (&[3, 5, 1], &[3, 5, 1]),
            (&[1, 2, 1300], &[1, 2, 1]),
            (&[0, 3, 4], &[1, 3, 4]),
        ];
        for (shape, gate) in cases {
            let given = [noise(shape, 1), noise(gate, 2)];
            check(&format!("{shape:?} {gate:?}"), &model(shape, gate), &given, "chain_f32", 1e-5);
        }
    }

    #[test]
    fn results_take_over_the_memory_of_an_operand() {
        let mut m = Model::new("in place");
        let x = parameter(&mut m, "x", &[7, 600]);
        let soft = m.add(SoftMax { axis: -1 }, &[x], "soft").expect("valid");
        let clamp = m.add(Clamp { min: 0.001, max: 0.01 }, &[soft], "clamp").expect("valid");
        let gate = m.add(Sigmoid {}, &[soft], "gate").expect("valid");
        let beta = m.add_constant(Tensor::scalar(1.5f32), "beta");
        let swish = m.add(Swish {}, &[clamp, beta], "swish").expect("valid");
        let y = m.add(Multiply {}, &[swish, gate], "y").expect("valid");
        let y = m.add(SoftMax { axis: 0 }, &[y], "z").expect("valid");
        m.add_output("y", y);
        check("in place", &m, &[noise(&[7, 600], 1)], "chain_f32", 1e-5);
    }
}
