//! Softmax, its logarithm and Hardmax along any axis.

use std::borrow::Cow;

use ov_core::{
    ElementType,
    op::{
        Op, OpAttributes,
        softmax::{Hardmax, LogSoftmax, SoftMax, SoftMax1},
    },
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{compute_type, storage_type, unsupported},
    host::{choice, from_front},
    reduce::Plan,
    walk::count,
};

/// The family.
pub(super) const SOFTMAX: Kernel = Kernel { name: "softmax", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/formula.cuh"),
    include_str!("cuda/group.cuh"),
    include_str!("cuda/accumulate.cuh"),
    include_str!("cuda/softmax.cu"),
);

/// Function of `softmax.cu`, and the axis.
fn function(op: &dyn Op) -> Option<(&'static str, i64)> {
    let kind = op.kind();
    Some(if kind == SoftMax::KIND {
        ("Softmax", op.downcast::<SoftMax>()?.axis)
    } else if kind == SoftMax1::KIND {
        ("Softmax", op.downcast::<SoftMax1>()?.axis)
    } else if kind == LogSoftmax::KIND {
        ("LogSoftmax", op.downcast::<LogSoftmax>()?.axis)
    } else {
        ("Hardmax", op.downcast::<Hardmax>()?.axis)
    })
}

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let (function, _) = function(node.op)?;
    let ty = node.inputs.first()?.element_type;
    if ty == ElementType::Boolean || (function != "Hardmax" && !ty.is_float()) {
        return Some(Err(unsupported(ty)));
    }
    if node.specified && matches!(ty, ElementType::F16 | ElementType::Bf16) {
        return Some(Err("does not round step by step".into()));
    }
    Some(choice(node, &[]))
}

/// Threads of a block that has `elements` elements, of which a thread keeps at most 8 in registers; false when those are
/// not enough.
pub(super) fn block_for(elements: usize) -> (u32, bool) {
    const KEPT: usize = 8;
    const MOST: usize = 1024;
    // Four elements a thread, until there are no more threads.
    let threads = elements.div_ceil(4).next_multiple_of(32).clamp(32, MOST);
    (threads as u32, elements <= threads * KEPT)
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let (function, axis) = function(node.op)
        .ok_or_else(|| Reject::from(format!("{} is no softmax", node.op.kind())))?;
    let shape = node.inputs[0].shape;
    let ty = node.inputs[0].element_type;
    if shape.elements() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    let flatten = node.op.downcast::<Hardmax>().is_some_and(|h| h.flatten);
    let plan = if flatten {
        let axis = if axis == 0 { 0 } else { from_front(axis, shape.rank())? };
        let outer: usize = shape[..axis].iter().product();
        Plan::new(&[outer, shape.elements() / outer], &[1])
    } else {
        Plan::new(shape, &[from_front(axis, shape.rank())?])
    };
    let mut extents = plan.kept.record()?.bytes();
    extents.extend(plan.reduced.record()?.bytes());
    let (threads, short) = block_for(plan.reduced.len());
    let storage = storage_type(ty).ok_or_else(|| unsupported(ty))?;
    let launch = Launch {
        source: Source {
            body: Cow::Borrowed(TEXT),
            defines: vec![
                ("OV_X", storage.to_owned()),
                ("OV_V", compute_type(ty).unwrap_or(storage).to_owned()),
                ("OV_FUNCTION", function.to_owned()),
            ],
        },
        function: if short { "line_short" } else { "line_long" }.into(),
        grid: [count(plan.kept.len())?, 1, 1],
        block: [threads, 1, 1],
        shared: 0,
        args: vec![Arg::Input(0), Arg::Output(0), Arg::Bytes(extents)],
    };
    Ok(Bound::Step(Step { launches: vec![launch], ..Step::default() }))
}
