//! Operators that move elements: views where nothing moves, strided copies elsewhere.

use std::ops::Range;

use ov_core::{
    ElementType, Shape,
    op::{
        OpAttributes, OpError, OpKind, OpResult,
        concat::{Concat, Split, VariadicSplit},
        core::Identity,
        gather::{Gather, Gather1, Gather7},
        normalize_axis,
        reshape::{Broadcast, BroadcastMode, Reshape, Squeeze, Squeeze15, Tile, Unsqueeze},
        slice::Slice,
        state::ReadState,
        transpose::Transpose,
    },
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, axis_of, cost};
use crate::{
    kernels::{gather::IndexError, out::Out, transpose::CopyPlan},
    simd::Isa,
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[
    KernelEntry {
        name: "view",
        ops: &[Reshape::KIND, Squeeze::KIND, Squeeze15::KIND, Unsqueeze::KIND, Identity::KIND],
        select: select_any,
        bind: |_| Ok(Bound::Alias(0)),
    },
    KernelEntry {
        name: "read_state",
        ops: &[ReadState::KIND],
        select: select_any,
        bind: |cx| Ok(Bound::Alias(ReadState::chosen(cx.inputs[2].shape.elements()))),
    },
    KernelEntry {
        name: "transpose",
        ops: &[Transpose::KIND],
        select: select_bytes,
        bind: bind_transpose,
    },
    KernelEntry { name: "concat", ops: &[Concat::KIND], select: select_bytes, bind: bind_concat },
    KernelEntry { name: "split", ops: SPLITS, select: select_bytes, bind: bind_split },
    KernelEntry { name: "slice", ops: &[Slice::KIND], select: select_bytes, bind: bind_slice },
    KernelEntry {
        name: "broadcast",
        ops: &[Broadcast::KIND],
        select: select_broadcast,
        bind: bind_broadcast,
    },
    KernelEntry { name: "tile", ops: &[Tile::KIND], select: select_bytes, bind: bind_tile },
    KernelEntry {
        name: "gather",
        ops: &[Gather::KIND, Gather7::KIND, Gather1::KIND],
        select: select_gather,
        bind: bind_gather,
    },
];

const SPLITS: &[OpKind] = &[Split::KIND, VariadicSplit::KIND];

fn select_any(view: &NodeView<'_>) -> Result<Choice, Reject> {
    if view.outputs[0].element_type.bits() == 0 {
        return Err("takes no texts".into());
    }
    Ok(Choice::default())
}

pub(super) fn select_bytes(view: &NodeView<'_>) -> Result<Choice, Reject> {
    if !matches!(view.outputs[0].element_type.bits(), 8 | 16 | 32 | 64) {
        return Err(format!(
            "takes elements of 1, 2, 4 or 8 bytes, not {}",
            view.outputs[0].element_type
        )
        .into());
    }
    Ok(Choice::default())
}

fn select_broadcast(view: &NodeView<'_>) -> Result<Choice, Reject> {
    let op: &Broadcast = view.op.downcast().ok_or("takes Broadcast of opset 3")?;
    if !matches!(op.mode, BroadcastMode::Numpy | BroadcastMode::Bidirectional) {
        return Err("takes numpy and bidirectional mode".into());
    }
    select_bytes(view)
}

pub(super) fn size_of(ty: ElementType) -> usize {
    ty.bits() / 8
}

fn invalid(e: impl std::fmt::Display) -> OpError {
    OpError::Invalid(e.to_string())
}

/// The integers behind an input that the program knows when it is bound.
pub(super) fn known(cx: &BindContext<'_>, index: usize) -> OpResult<Vec<i64>> {
    let value = cx.inputs.get(index).and_then(|i| i.value);
    value
        .ok_or_else(|| {
            OpError::Invalid(format!("input {index} is not known before the inference"))
        })?
        .to_i64_vec()
        .map_err(OpError::from)
}

fn signed(strides: &[usize]) -> Vec<isize> {
    strides.iter().map(|s| *s as isize).collect()
}

/// One strided copy from an input to an output.
#[derive(Debug)]
struct Copy {
    plan: CopyPlan,
    input: usize,
    input_offset: usize,
    output: usize,
    output_offset: usize,
}

/// Copies, one after the other in the order of items.
#[derive(Debug)]
struct CopyStep {
    isa: Isa,
    copies: Vec<Copy>,
    items: usize,
    bytes: usize,
}

impl CopyStep {
    fn bound(cx: &BindContext<'_>, copies: Vec<Copy>) -> OpResult<Bound> {
        let items = copies.iter().map(|c| c.plan.items()).sum();
        let bytes = cx.outputs.iter().map(|o| o.shape.elements() * size_of(o.element_type)).sum();
        Bound::step(Self { isa: cx.isa, copies, items, bytes })
    }
}

impl Step for CopyStep {
    fn items(&self) -> usize {
        self.items.max(1)
    }

    fn cost_ns(&self) -> f64 {
        cost::ns(0.0, 2.0 * self.bytes as f64) + 2.0 * self.items as f64
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let mut first = 0;
        for copy in &self.copies {
            let last = first + copy.plan.items();
            let part = range.start.clamp(first, last) - first..range.end.clamp(first, last) - first;
            if !part.is_empty() {
                let (src, out): (&[u8], Out<'_, u8>) =
                    (io.input(copy.input), io.output(copy.output));
                copy.plan.run(self.isa, src, copy.input_offset, &out, copy.output_offset, part);
            }
            first = last;
        }
        Ok(())
    }
}

fn bind_transpose(cx: &BindContext<'_>) -> OpResult<Bound> {
    let shape = cx.inputs[0].shape;
    let order = known(cx, 1)?;
    let axes: Vec<usize> = if order.is_empty() {
        (0..shape.rank()).rev().collect()
    } else {
        order.iter().map(|a| normalize_axis(*a, shape.rank())).collect::<OpResult<_>>()?
    };
    let moved: Vec<usize> = axes.iter().copied().filter(|a| shape[*a] != 1).collect();
    if moved.is_sorted() {
        return Ok(Bound::Alias(0));
    }
    let plan =
        CopyPlan::transpose(shape, &axes, size_of(cx.inputs[0].element_type)).map_err(invalid)?;
    CopyStep::bound(cx, vec![Copy { plan, input: 0, input_offset: 0, output: 0, output_offset: 0 }])
}

/// A part of a tensor along an axis, as three extents and the strides of the whole.
fn part(whole: &Shape, axis: usize, len: usize) -> ([usize; 3], [isize; 3]) {
    let outer = whole[..axis].iter().product();
    let inner: usize = whole[axis + 1..].iter().product();
    ([outer, len, inner], [(whole[axis] * inner) as isize, inner as isize, 1])
}

fn dense(shape: [usize; 3]) -> [isize; 3] {
    [(shape[1] * shape[2]) as isize, shape[2] as isize, 1]
}

fn bind_concat(cx: &BindContext<'_>) -> OpResult<Bound> {
    let whole = cx.outputs[0].shape;
    let axis = normalize_axis(axis_of(cx.op)?, whole.rank())?;
    let size = size_of(cx.outputs[0].element_type);
    let inner: usize = whole[axis + 1..].iter().product();
    let mut at = 0;
    let mut copies = Vec::with_capacity(cx.inputs.len());
    for (input, i) in cx.inputs.iter().enumerate() {
        let (shape, strides) = part(whole, axis, i.shape[axis]);
        let plan = CopyPlan::new(&shape, &dense(shape), &strides, size).map_err(invalid)?;
        copies.push(Copy {
            plan,
            input,
            input_offset: 0,
            output: 0,
            output_offset: at * inner * size,
        });
        at += i.shape[axis];
    }
    CopyStep::bound(cx, copies)
}

fn bind_split(cx: &BindContext<'_>) -> OpResult<Bound> {
    let whole = cx.inputs[0].shape;
    let axis = known(cx, 1)?.first().copied().unwrap_or(0);
    let axis = normalize_axis(axis, whole.rank())?;
    let size = size_of(cx.inputs[0].element_type);
    let inner: usize = whole[axis + 1..].iter().product();
    let mut at = 0;
    let mut copies = Vec::with_capacity(cx.outputs.len());
    for (output, o) in cx.outputs.iter().enumerate() {
        let (shape, strides) = part(whole, axis, o.shape[axis]);
        let plan = CopyPlan::new(&shape, &strides, &dense(shape), size).map_err(invalid)?;
        copies.push(Copy {
            plan,
            input: 0,
            input_offset: at * inner * size,
            output,
            output_offset: 0,
        });
        at += o.shape[axis];
    }
    CopyStep::bound(cx, copies)
}

fn bind_slice(cx: &BindContext<'_>) -> OpResult<Bound> {
    let (from, to) = (cx.inputs[0].shape, cx.outputs[0].shape);
    let (start, step) = (known(cx, 1)?, known(cx, 3)?);
    let axes = match cx.inputs.get(4) {
        Some(_) => known(cx, 4)?,
        None => (0..start.len() as i64).collect(),
    };
    let mut strides = signed(&from.strides());
    let mut offset = 0;
    for ((start, step), axis) in start.iter().zip(&step).zip(&axes) {
        let axis = normalize_axis(*axis, from.rank())?;
        let extent = from[axis] as i64;
        let start = if *start < 0 { start.saturating_add(extent) } else { *start };
        let first = if *step > 0 { start.clamp(0, extent) } else { start.clamp(-1, extent - 1) };
        if to[axis] > 0 {
            offset += first.max(0) as usize * strides[axis].unsigned_abs();
        }
        // A step that overflows takes one element at most.
        strides[axis] = strides[axis].saturating_mul(isize::try_from(*step).map_err(invalid)?);
    }
    let size = size_of(cx.inputs[0].element_type);
    let plan = CopyPlan::new(to, &strides, &signed(&to.strides()), size).map_err(invalid)?;
    CopyStep::bound(
        cx,
        vec![Copy { plan, input: 0, input_offset: offset * size, output: 0, output_offset: 0 }],
    )
}

fn bind_broadcast(cx: &BindContext<'_>) -> OpResult<Bound> {
    let (from, to) = (cx.inputs[0].shape, cx.outputs[0].shape);
    let lead = to
        .rank()
        .checked_sub(from.rank())
        .ok_or_else(|| invalid("broadcasting does not lower the rank"))?;
    let strides = from.strides();
    let strides: Vec<isize> = (0..to.rank())
        .map(|i| match i.checked_sub(lead) {
            Some(j) if from[j] != 1 || to[i] == 1 => strides[j] as isize,
            _ => 0,
        })
        .collect();
    let size = size_of(cx.inputs[0].element_type);
    let plan = CopyPlan::new(to, &strides, &signed(&to.strides()), size).map_err(invalid)?;
    CopyStep::bound(cx, vec![Copy { plan, input: 0, input_offset: 0, output: 0, output_offset: 0 }])
}

fn bind_tile(cx: &BindContext<'_>) -> OpResult<Bound> {
    let (from, to) = (cx.inputs[0].shape, cx.outputs[0].shape);
    let lead = to.rank() - from.rank();
    let strides = from.strides();
    let (mut shape, mut sources) = (Vec::new(), Vec::new());
    for i in 0..to.rank() {
        let (extent, stride) =
            if i < lead { (1, 0) } else { (from[i - lead], strides[i - lead] as isize) };
        shape.extend([to[i].checked_div(extent).unwrap_or(0), extent]);
        sources.extend([0, stride]);
    }
    let size = size_of(cx.inputs[0].element_type);
    let dense = signed(&Shape::new(&shape).strides());
    let plan = CopyPlan::new(&shape, &sources, &dense, size).map_err(invalid)?;
    CopyStep::bound(cx, vec![Copy { plan, input: 0, input_offset: 0, output: 0, output_offset: 0 }])
}

fn select_gather(view: &NodeView<'_>) -> Result<Choice, Reject> {
    let batch_dims = match (view.op.downcast::<Gather>(), view.op.downcast::<Gather7>()) {
        (Some(g), _) => g.batch_dims,
        (_, Some(g)) => g.batch_dims,
        _ => 0,
    };
    if batch_dims != 0 {
        return Err("takes no batch axes".into());
    }
    if !matches!(view.inputs[1].element_type, ElementType::I32 | ElementType::I64) {
        return Err(
            format!("takes i32 and i64 indices, not {}", view.inputs[1].element_type).into()
        );
    }
    view.constant(2)?;
    select_bytes(view)
}

fn bind_gather(cx: &BindContext<'_>) -> OpResult<Bound> {
    let data = cx.inputs[0].shape;
    let axis = normalize_axis(known(cx, 2)?.first().copied().unwrap_or(0), data.rank())?;
    let inner: usize =
        data[axis + 1..].iter().product::<usize>() * size_of(cx.inputs[0].element_type);
    let picked = cx.inputs[1].shape.elements();
    Bound::step(GatherStep {
        strict: cx.op.downcast::<Gather>().is_some_and(|g| g.strict),
        wide: cx.inputs[1].element_type == ElementType::I64,
        extent: data[axis],
        inner,
        picked,
        items: data[..axis].iter().product::<usize>() * picked,
    })
}

/// Slices along an axis; indices outside of it give zeros, as OpenVINO's Gather does, or an error, as ONNX's.
#[derive(Debug)]
struct GatherStep {
    strict: bool,
    wide: bool,
    extent: usize,
    inner: usize,
    picked: usize,
    items: usize,
}

impl GatherStep {
    fn gather(
        &self,
        io: &Io<'_>,
        range: Range<usize>,
        index: impl Fn(usize) -> i64,
    ) -> OpResult<()> {
        let (data, out): (&[u8], Out<'_, u8>) = (io.input(0), io.output(0));
        for item in range {
            let (outer, at) = (item / self.picked, item % self.picked);
            let index = index(at);
            let wrapped = if index < 0 { index.wrapping_add(self.extent as i64) } else { index };
            let row = super::view::item(&out, item * self.inner, self.inner);
            match usize::try_from(wrapped).ok().filter(|i| *i < self.extent) {
                Some(i) => {
                    let from = (outer * self.extent + i) * self.inner;
                    row.copy_from_slice(&data[from..from + self.inner]);
                }
                None if self.strict => {
                    return Err(invalid(IndexError { found: index, at, axis: self.extent }));
                }
                None => row.fill(0),
            }
        }
        Ok(())
    }
}

impl Step for GatherStep {
    fn items(&self) -> usize {
        self.items
    }

    fn cost_ns(&self) -> f64 {
        cost::ns(0.0, 2.0 * (self.items * self.inner) as f64) + 5.0 * self.items as f64
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        if self.wide {
            let indices = io.input::<i64>(1);
            self.gather(io, range, |i| indices[i])
        } else {
            let indices = io.input::<i32>(1);
            self.gather(io, range, |i| i64::from(indices[i]))
        }
    }
}
