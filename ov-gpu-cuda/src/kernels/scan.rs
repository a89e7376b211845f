//! Running sums and products along an axis.

use std::borrow::Cow;

use ov_core::op::{
    Op,
    reduction::{CumProd, CumSum},
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{storage_type, unsupported},
    host::{axis, choice},
    walk::{Walk, count, dense_strides},
};

/// The family.
pub(super) const SCAN: Kernel = Kernel { name: "scan", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/formula.cuh"),
    include_str!("cuda/scan.cu"),
);

/// Threads of a block.
const BLOCK: u32 = 256;

/// Lines from which on a thread for each keeps the GPU busy, and the longest that a thread alone goes along.
const MANY: usize = 4096;
const SHORT: usize = 64;

/// Exclusive, reverse, function and initial value.
fn attributes(op: &dyn Op) -> Option<(bool, bool, &'static str, &'static str)> {
    if let Some(op) = op.downcast::<CumSum>() {
        return Some((op.exclusive, op.reverse, "f_add", "0"));
    }
    op.downcast::<CumProd>().map(|op| (op.exclusive, op.reverse, "f_multiply", "1"))
}

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    attributes(node.op)?;
    let ty = node.inputs.first()?.element_type;
    if !ty.is_float() && !ty.is_integer() {
        return Some(Err(unsupported(ty)));
    }
    Some(choice(node, &[1]))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let (exclusive, reverse, join, initial) = attributes(node.op).ok_or("is another operator")?;
    let shape = node.inputs[0].shape;
    let ty = node.inputs[0].element_type;
    if shape.elements() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    count(shape.elements())?;
    let axis = axis(node, 1, 0, shape.rank())?;
    let strides = dense_strides(shape);
    let lines = Walk::merged(
        &[&shape[..axis], &shape[axis + 1..]].concat(),
        &[[&strides[..axis], &strides[axis + 1..]].concat()],
    );
    let mut record = lines.record()?;
    record.u32(count(shape[axis])?).i32(strides[axis] as i32);
    record.u32(u32::from(exclusive)).u32(u32::from(reverse));
    let storage = storage_type(ty).ok_or_else(|| unsupported(ty))?;
    let alone = lines.len() >= MANY || shape[axis] <= SHORT;
    let launch = Launch {
        source: Source {
            body: Cow::Borrowed(TEXT),
            defines: vec![
                ("OV_X", storage.to_owned()),
                ("OV_A", if ty.is_float() { "double" } else { storage }.to_owned()),
                ("OV_JOIN", join.to_owned()),
                ("OV_INITIAL", initial.to_owned()),
            ],
        },
        function: if alone { "scan_lines" } else { "scan_long" }.into(),
        grid: [if alone { count(lines.len())?.div_ceil(BLOCK) } else { count(lines.len())? }, 1, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args: vec![Arg::Input(0), Arg::Output(0), Arg::Bytes(record.bytes())],
    };
    Ok(Bound::Step(Step { launches: vec![launch], ..Step::default() }))
}
