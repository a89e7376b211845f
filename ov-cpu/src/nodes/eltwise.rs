//! Element-wise operators.

use std::ops::Range;

use ov_core::{
    ElementType,
    op::{
        Op, OpAttributes, OpError, OpKind, OpResult,
        activation::{
            Abs, Acos, Acosh, Asin, Asinh, Atan, Atanh, Ceiling, Clamp, Cos, Cosh, Elu, Erf, Exp,
            Floor, Gelu, HSigmoid, HSwish, HardSigmoid, Log, Mish, Negative, PRelu, Relu, Round,
            RoundMode, Sigmoid, Sign, Sin, Sinh, SoftPlus, SoftSign, Sqrt, Swish, Tan, Tanh,
            slope_as_channels,
        },
        arithmetic::{
            Add, Divide, FloorMod, Maximum, Minimum, Mod, Multiply, Power, SquaredDifference,
            Subtract,
        },
        comparison::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual},
        logical::{LogicalAnd, LogicalOr, LogicalXor},
        select::Select,
    },
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, cost};
use crate::{
    kernels::eltwise::{
        binary::{
            BinaryOp, CompareOp, IntBinaryOp, LogicOp, binary_f32, binary_int, compare, logic,
            select,
        },
        broadcast::BroadcastPlan,
        unary::{UnaryOp, unary_f32, unary_in_place},
    },
    ops::activation,
    simd::Isa,
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[
    KernelEntry { name: "unary_f32", ops: UNARY, select: select_unary, bind: bind_unary },
    KernelEntry { name: "binary_f32", ops: BINARY, select: select_binary, bind: bind_binary },
    KernelEntry { name: "binary_int", ops: BINARY, select: select_int, bind: bind_int },
    KernelEntry { name: "compare", ops: COMPARE, select: select_compare, bind: bind_compare },
    KernelEntry { name: "logic", ops: LOGIC, select: select_logic, bind: bind_logic },
    KernelEntry { name: "select", ops: &[Select::KIND], select: select_select, bind: bind_select },
];

const UNARY: &[OpKind] = &[
    HSigmoid::KIND,
    Relu::KIND,
    Clamp::KIND,
    Sigmoid::KIND,
    Tanh::KIND,
    HSwish::KIND,
    Swish::KIND,
    HardSigmoid::KIND,
    Gelu::KIND,
    Elu::KIND,
    Mish::KIND,
    SoftPlus::KIND,
    PRelu::KIND,
    Abs::KIND,
    Negative::KIND,
    Exp::KIND,
    Log::KIND,
    Sqrt::KIND,
    Floor::KIND,
    Ceiling::KIND,
    Round::KIND,
    Sign::KIND,
    Sin::KIND,
    Cos::KIND,
    Tan::KIND,
    Asin::KIND,
    Acos::KIND,
    Atan::KIND,
    Sinh::KIND,
    Cosh::KIND,
    Asinh::KIND,
    Acosh::KIND,
    Atanh::KIND,
    Erf::KIND,
    Power::KIND,
    SoftSign::KIND,
];

const BINARY: &[OpKind] = &[
    Add::KIND,
    Subtract::KIND,
    Multiply::KIND,
    Divide::KIND,
    Maximum::KIND,
    Minimum::KIND,
    Power::KIND,
    SquaredDifference::KIND,
    Mod::KIND,
    FloorMod::KIND,
    PRelu::KIND,
];

const COMPARE: &[OpKind] =
    &[Equal::KIND, NotEqual::KIND, Less::KIND, LessEqual::KIND, Greater::KIND, GreaterEqual::KIND];

const LOGIC: &[OpKind] = &[LogicalAnd::KIND, LogicalOr::KIND, LogicalXor::KIND];

/// Elements of a work item.
const BLOCK: usize = 1024;

/// The elements of a range of items.
fn elements(items: &Range<usize>, len: usize) -> Range<usize> {
    (items.start * BLOCK).min(len)..(items.end * BLOCK).min(len)
}

fn broadcast_error(e: impl std::fmt::Display) -> OpError {
    OpError::Invalid(e.to_string())
}

/// The function of one element that an operator computes; `scalar(i)` is the constant of one element behind input `i`.
pub(super) fn unary_of(
    op: &dyn Op,
    inputs: usize,
    scalar: &dyn Fn(usize) -> Option<f32>,
) -> Option<UnaryOp> {
    let simple: &[(OpKind, UnaryOp)] = &[
        (Abs::KIND, UnaryOp::Abs),
        (Negative::KIND, UnaryOp::Neg),
        (Exp::KIND, UnaryOp::Exp),
        (Log::KIND, UnaryOp::Log),
        (Sqrt::KIND, UnaryOp::Sqrt),
        (Floor::KIND, UnaryOp::Floor),
        (Ceiling::KIND, UnaryOp::Ceil),
        (Sign::KIND, UnaryOp::Sign),
        (Sin::KIND, UnaryOp::Sin),
        (Cos::KIND, UnaryOp::Cos),
        (Tan::KIND, UnaryOp::Tan),
        (Asin::KIND, UnaryOp::Asin),
        (Acos::KIND, UnaryOp::Acos),
        (Atan::KIND, UnaryOp::Atan),
        (Sinh::KIND, UnaryOp::Sinh),
        (Cosh::KIND, UnaryOp::Cosh),
        (Asinh::KIND, UnaryOp::Asinh),
        (Acosh::KIND, UnaryOp::Acosh),
        (Atanh::KIND, UnaryOp::Atanh),
        (Erf::KIND, UnaryOp::Erf),
        (SoftSign::KIND, UnaryOp::Softsign),
    ];
    if let Some((_, found)) = simple.iter().find(|(kind, _)| *kind == op.kind()) {
        return Some(*found);
    }
    if let Some(round) = op.downcast::<Round>() {
        return Some(match round.mode {
            RoundMode::HalfToEven => UnaryOp::Round,
            RoundMode::HalfAwayFromZero => UnaryOp::RoundAway,
        });
    } else if op.is::<Power>() {
        return scalar(1).map(UnaryOp::Pow);
    }
    activation::of_operator(op, inputs, scalar).map(UnaryOp::Activation)
}

fn select_unary(view: &NodeView<'_>) -> Result<Choice, Reject> {
    view.expect_f32(&[])?;
    let scalar = |i: usize| {
        let tensor = view.inputs.get(i)?.constant?;
        (tensor.len() == 1 && tensor.rank() <= 1)
            .then(|| tensor.element_as_f64(0).map(|v| v as f32))?
    };
    match unary_of(view.op, view.inputs.len(), &scalar) {
        Some(_) => Ok(Choice::default()),
        None => Err("takes constant scalar parameters".into()),
    }
}

fn bind_unary(cx: &BindContext<'_>) -> OpResult<Bound> {
    let scalar = |i: usize| cx.inputs.get(i)?.value?.element_as_f64(0).map(|v| v as f32);
    let op = unary_of(cx.op, cx.inputs.len(), &scalar)
        .ok_or_else(|| OpError::Invalid("the parameters are not constants".to_owned()))?;
    Bound::step(UnaryStep { isa: cx.isa, op, len: cx.outputs[0].shape.elements() })
}

#[derive(Debug)]
struct UnaryStep {
    isa: Isa,
    op: UnaryOp,
    len: usize,
}

impl Step for UnaryStep {
    fn items(&self) -> usize {
        self.len.div_ceil(BLOCK)
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.len, 20.0)
    }

    fn in_place(&self) -> Option<usize> {
        Some(0)
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let range = elements(&range, self.len);
        let out = io.output::<f32>(0);
        if io.shares_memory(0, 0) {
            unary_in_place(self.isa, self.op, &out, range);
        } else {
            unary_f32(self.isa, self.op, io.input(0), &out, range);
        }
        Ok(())
    }
}

/// The work of a binary or ternary operator.
trait Work<const N: usize>: std::fmt::Debug + Send + Sync {
    fn run(&self, isa: Isa, plan: &BroadcastPlan<N>, io: &Io<'_>, range: Range<usize>);
}

#[derive(Debug)]
struct BroadcastStep<const N: usize, W> {
    isa: Isa,
    plan: BroadcastPlan<N>,
    work: W,
}

impl<const N: usize, W: Work<N>> Step for BroadcastStep<N, W> {
    fn items(&self) -> usize {
        self.plan.len().div_ceil(BLOCK)
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.plan.len(), 4.0)
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        self.work.run(self.isa, &self.plan, io, elements(&range, self.plan.len()));
        Ok(())
    }
}

fn broadcast_step<const N: usize>(
    cx: &BindContext<'_>,
    work: impl Work<N> + 'static,
) -> OpResult<Bound> {
    let mut shapes: [&[usize]; N] = [&[]; N];
    for (slot, input) in shapes.iter_mut().zip(cx.inputs) {
        *slot = input.shape;
    }
    let slope = cx.op.is::<PRelu>().then(|| slope_as_channels(shapes[1], shapes[0]));
    if let Some(slope) = &slope {
        shapes[1] = slope;
    }
    let plan = BroadcastPlan::new(shapes).map_err(broadcast_error)?;
    Bound::step(BroadcastStep { isa: cx.isa, plan, work })
}

fn numpy_only(view: &NodeView<'_>) -> Result<(), Reject> {
    if view.inputs.len() != 2 {
        return Err("takes two inputs".into());
    }
    Ok(())
}

/// The function of two elements that an operator computes.
pub(super) fn binary_op(op: &dyn Op) -> Option<BinaryOp> {
    [
        (Add::KIND, BinaryOp::Add),
        (Subtract::KIND, BinaryOp::Sub),
        (Multiply::KIND, BinaryOp::Mul),
        (Divide::KIND, BinaryOp::Div),
        (Maximum::KIND, BinaryOp::Max),
        (Minimum::KIND, BinaryOp::Min),
        (Power::KIND, BinaryOp::Pow),
        (SquaredDifference::KIND, BinaryOp::SquaredDifference),
        (Mod::KIND, BinaryOp::Mod),
        (FloorMod::KIND, BinaryOp::FloorMod),
        (PRelu::KIND, BinaryOp::PRelu),
    ]
    .into_iter()
    .find(|(kind, _)| *kind == op.kind())
    .map(|(_, op)| op)
}

fn select_binary(view: &NodeView<'_>) -> Result<Choice, Reject> {
    numpy_only(view)?;
    view.expect_f32(&[])?;
    Ok(Choice::default())
}

impl Work<2> for BinaryOp {
    fn run(&self, isa: Isa, plan: &BroadcastPlan<2>, io: &Io<'_>, range: Range<usize>) {
        binary_f32(isa, *self, plan, io.input(0), io.input(1), &io.output(0), range);
    }
}

fn missing(op: &dyn Op) -> OpError {
    OpError::Unsupported(format!("{} in this kernel", op.kind()))
}

fn bind_binary(cx: &BindContext<'_>) -> OpResult<Bound> {
    broadcast_step(cx, binary_op(cx.op).ok_or_else(|| missing(cx.op))?)
}

/// Operators on integers that cannot fail: division by zero is the reference's to refuse.
fn int_op(op: &dyn Op) -> Option<IntBinaryOp> {
    [
        (Add::KIND, IntBinaryOp::Add),
        (Subtract::KIND, IntBinaryOp::Sub),
        (Multiply::KIND, IntBinaryOp::Mul),
        (Maximum::KIND, IntBinaryOp::Max),
        (Minimum::KIND, IntBinaryOp::Min),
    ]
    .into_iter()
    .find(|(kind, _)| *kind == op.kind())
    .map(|(_, op)| op)
}

fn expect_int(view: &NodeView<'_>, inputs: Range<usize>) -> Result<(), Reject> {
    for i in inputs {
        let ty = view.inputs[i].element_type;
        if !matches!(ty, ElementType::I32 | ElementType::I64) {
            return Err(format!("takes i32 and i64, not {ty}").into());
        }
    }
    Ok(())
}

fn select_int(view: &NodeView<'_>) -> Result<Choice, Reject> {
    numpy_only(view)?;
    expect_int(view, 0..2)?;
    int_op(view.op)
        .map(|_| Choice::default())
        .ok_or_else(|| "takes add, subtract, multiply, maximum, minimum".into())
}

#[derive(Debug)]
struct IntWork(IntBinaryOp, ElementType);

impl Work<2> for IntWork {
    fn run(&self, isa: Isa, plan: &BroadcastPlan<2>, io: &Io<'_>, range: Range<usize>) {
        if self.1 == ElementType::I64 {
            binary_int::<i64>(isa, self.0, plan, io.input(0), io.input(1), &io.output(0), range);
        } else {
            binary_int::<i32>(isa, self.0, plan, io.input(0), io.input(1), &io.output(0), range);
        }
    }
}

fn bind_int(cx: &BindContext<'_>) -> OpResult<Bound> {
    broadcast_step(
        cx,
        IntWork(int_op(cx.op).ok_or_else(|| missing(cx.op))?, cx.inputs[0].element_type),
    )
}

fn compare_op(op: &dyn Op) -> Option<CompareOp> {
    [
        (Equal::KIND, CompareOp::Equal),
        (NotEqual::KIND, CompareOp::NotEqual),
        (Less::KIND, CompareOp::Less),
        (LessEqual::KIND, CompareOp::LessEqual),
        (Greater::KIND, CompareOp::Greater),
        (GreaterEqual::KIND, CompareOp::GreaterEqual),
    ]
    .into_iter()
    .find(|(kind, _)| *kind == op.kind())
    .map(|(_, op)| op)
}

fn select_compare(view: &NodeView<'_>) -> Result<Choice, Reject> {
    numpy_only(view)?;
    let ty = view.inputs[0].element_type;
    if !matches!(ty, ElementType::F32 | ElementType::I32 | ElementType::I64)
        || view.inputs[1].element_type != ty
    {
        return Err(format!("takes f32, i32 and i64, not {ty}").into());
    }
    Ok(Choice::default())
}

#[derive(Debug)]
struct CompareWork(CompareOp, ElementType);

impl Work<2> for CompareWork {
    fn run(&self, isa: Isa, plan: &BroadcastPlan<2>, io: &Io<'_>, range: Range<usize>) {
        let out = io.output(0);
        match self.1 {
            ElementType::I64 => {
                compare::<i64>(isa, self.0, plan, io.input(0), io.input(1), &out, range);
            }
            ElementType::I32 => {
                compare::<i32>(isa, self.0, plan, io.input(0), io.input(1), &out, range);
            }
            _ => compare::<f32>(isa, self.0, plan, io.input(0), io.input(1), &out, range),
        }
    }
}

fn bind_compare(cx: &BindContext<'_>) -> OpResult<Bound> {
    broadcast_step(
        cx,
        CompareWork(compare_op(cx.op).ok_or_else(|| missing(cx.op))?, cx.inputs[0].element_type),
    )
}

fn select_logic(view: &NodeView<'_>) -> Result<Choice, Reject> {
    numpy_only(view)?;
    if view.inputs.iter().any(|i| i.element_type != ElementType::Boolean) {
        return Err("takes booleans".into());
    }
    Ok(Choice::default())
}

#[derive(Debug)]
struct LogicWork(LogicOp);

impl Work<2> for LogicWork {
    fn run(&self, isa: Isa, plan: &BroadcastPlan<2>, io: &Io<'_>, range: Range<usize>) {
        logic(isa, self.0, plan, io.input(0), io.input(1), &io.output(0), range);
    }
}

fn bind_logic(cx: &BindContext<'_>) -> OpResult<Bound> {
    let kind = cx.op.kind();
    let op = if kind == LogicalAnd::KIND {
        LogicOp::And
    } else if kind == LogicalOr::KIND {
        LogicOp::Or
    } else {
        LogicOp::Xor
    };
    broadcast_step(cx, LogicWork(op))
}

fn select_select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    let ty = view.outputs[0].element_type;
    if view.inputs[0].element_type != ElementType::Boolean || !matches!(ty.bits(), 8 | 32 | 64) {
        return Err(format!("takes elements of 1, 4 or 8 bytes, not {ty}").into());
    }
    if view.inputs[1..].iter().any(|i| i.element_type != ty) {
        return Err("takes two inputs of one type".into());
    }
    Ok(Choice::default())
}

#[derive(Debug)]
struct SelectWork(usize);

impl Work<3> for SelectWork {
    fn run(&self, isa: Isa, plan: &BroadcastPlan<3>, io: &Io<'_>, range: Range<usize>) {
        match self.0 {
            8 => {
                select::<u8>(
                    isa,
                    plan,
                    io.input(0),
                    io.input(1),
                    io.input(2),
                    &io.output(0),
                    range,
                );
            }
            32 => select::<u32>(
                isa,
                plan,
                io.input(0),
                io.input(1),
                io.input(2),
                &io.output(0),
                range,
            ),
            _ => select::<u64>(
                isa,
                plan,
                io.input(0),
                io.input(1),
                io.input(2),
                &io.output(0),
                range,
            ),
        }
    }
}

fn bind_select(cx: &BindContext<'_>) -> OpResult<Bound> {
    broadcast_step(cx, SelectWork(cx.outputs[0].element_type.bits()))
}
