//! Conversions between element types that no rounding rule can make differ.

use std::ops::Range;

use half::{bf16, f16};
use ov_core::{
    Element, ElementType,
    op::{OpAttributes, OpResult, convert::Convert, logical::LogicalNot},
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, cost, view};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[
    KernelEntry { name: "convert", ops: &[Convert::KIND], select, bind },
    KernelEntry {
        name: "logical_not",
        ops: &[LogicalNot::KIND],
        select: select_not,
        bind: bind_not,
    },
];

/// Elements of a work item.
const BLOCK: usize = 4096;

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    let (from, to) = (view.inputs[0].element_type, view.outputs[0].element_type);
    if from != to && conversion(from, to).is_none() {
        return Err(format!("does not convert {from} to {to}").into());
    }
    Ok(Choice::default())
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    let (from, to) = (cx.inputs[0].element_type, cx.outputs[0].element_type);
    match conversion(from, to) {
        Some(convert) => Bound::step(ConvertStep { convert, len: cx.outputs[0].shape.elements() }),
        None => Ok(Bound::Alias(0)),
    }
}

type Conversion = fn(&Io<'_>, Range<usize>);

fn convert<A: Element, B: Element>(io: &Io<'_>, range: Range<usize>, f: impl Fn(A) -> B) {
    let out = io.output::<B>(0);
    let y = view::item(&out, range.start, range.len());
    for (y, x) in y.iter_mut().zip(&io.input::<A>(0)[range]) {
        *y = f(*x);
    }
}

/// Widening conversions, integers to floats, and floats to `i64` (towards zero).
fn conversion(from: ElementType, to: ElementType) -> Option<Conversion> {
    use ElementType::{Bf16, Boolean, F16, F32, F64, I8, I32, I64, U8};
    Some(match (from, to) {
        (F32, F64) => |io, r| convert(io, r, |v: f32| f64::from(v)),
        (F64, F32) => |io, r| convert(io, r, |v: f64| v as f32),
        (F16, F32) => |io, r| convert(io, r, f16::to_f32),
        (F32, F16) => |io, r| convert(io, r, f16::from_f32),
        (Bf16, F32) => |io, r| convert(io, r, bf16::to_f32),
        (F32, Bf16) => |io, r| convert(io, r, bf16::from_f32),
        (F32, I64) => |io, r| convert(io, r, |v: f32| v as i64),
        (I64, F32) => |io, r| convert(io, r, |v: i64| v as f32),
        (I32, F32) => |io, r| convert(io, r, |v: i32| v as f32),
        (I32, I64) => |io, r| convert(io, r, |v: i32| i64::from(v)),
        (I64, I32) => |io, r| convert(io, r, |v: i64| v as i32),
        (Boolean | U8, F32) => |io, r| convert(io, r, |v: u8| f32::from(v)),
        (Boolean | U8, I64) => |io, r| convert(io, r, |v: u8| i64::from(v)),
        (Boolean | U8, I32) => |io, r| convert(io, r, |v: u8| i32::from(v)),
        (I8, F32) => |io, r| convert(io, r, |v: i8| f32::from(v)),
        (I32, Boolean) => |io, r| convert(io, r, |v: i32| u8::from(v != 0)),
        (I64, Boolean) => |io, r| convert(io, r, |v: i64| u8::from(v != 0)),
        (F32, Boolean) => |io, r| convert(io, r, |v: f32| u8::from(v != 0.0)),
        _ => return None,
    })
}

#[derive(Debug)]
struct ConvertStep {
    convert: Conversion,
    len: usize,
}

impl Step for ConvertStep {
    fn items(&self) -> usize {
        self.len.div_ceil(BLOCK)
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.len, 4.0)
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        (self.convert)(io, (range.start * BLOCK).min(self.len)..(range.end * BLOCK).min(self.len));
        Ok(())
    }
}

fn select_not(view: &NodeView<'_>) -> Result<Choice, Reject> {
    if view.inputs[0].element_type != ElementType::Boolean {
        return Err("takes booleans".into());
    }
    Ok(Choice::default())
}

fn bind_not(cx: &BindContext<'_>) -> OpResult<Bound> {
    let not: Conversion = |io, r| convert(io, r, |v: u8| u8::from(v == 0));
    Bound::step(ConvertStep { convert: not, len: cx.outputs[0].shape.elements() })
}
