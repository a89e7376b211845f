//! Conversion between f32 and bytes with scales and zero points.

use std::ops::Range;

use ov_core::{
    ElementType, Tensor,
    op::{
        OpAttributes, OpError, OpResult, normalize_axis,
        quantize::{DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear},
    },
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, cost, view};
use crate::{
    kernels::int8::quantize::{Steps, Term, add, dequantize, parameters, quantize, range},
    ops::quantize::{BlockRanges, IntegerAdd, QuantizeByRanges},
    simd::{Isa, activation::Activation},
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[
    KernelEntry {
        name: "quantize_f32",
        ops: &[QuantizeLinear::KIND],
        select: select_quantize,
        bind: bind_quantize,
    },
    KernelEntry {
        name: "dequantize_f32",
        ops: &[DequantizeLinear::KIND],
        select: select_dequantize,
        bind: bind_dequantize,
    },
    KernelEntry {
        name: "dynamic_quantize_f32",
        ops: &[DynamicQuantizeLinear::KIND],
        select: select_any,
        bind: bind_dynamic,
    },
    KernelEntry {
        name: "block_ranges_f32",
        ops: &[BlockRanges::KIND],
        select: select_any,
        bind: bind_ranges,
    },
    KernelEntry {
        name: "quantize_by_ranges_f32",
        ops: &[QuantizeByRanges::KIND],
        select: select_any,
        bind: bind_by_ranges,
    },
    KernelEntry { name: "add_int8", ops: &[IntegerAdd::KIND], select: select_any, bind: bind_add },
];

/// Elements of a work item.
const BLOCK: usize = 4096;

fn select_any(_: &NodeView<'_>) -> Result<Choice, Reject> {
    Ok(Choice::default())
}

fn byte(ty: ElementType) -> bool {
    matches!(ty, ElementType::U8 | ElementType::I8)
}

fn select_quantize(view: &NodeView<'_>) -> Result<Choice, Reject> {
    let op = view.op.downcast::<QuantizeLinear>();
    let fits = op.is_some_and(|op| {
        op.block_size == 0 && matches!(op.precision, ElementType::Dynamic | ElementType::F32)
    });
    let floats = view.inputs[..2].iter().all(|i| i.element_type == ElementType::F32);
    if !fits || !floats || !byte(view.outputs[0].element_type) {
        return Err("takes f32 without blocks, gives u8 or i8".into());
    }
    Ok(Choice::default())
}

fn select_dequantize(view: &NodeView<'_>) -> Result<Choice, Reject> {
    let fits = view.op.downcast::<DequantizeLinear>().is_some_and(|op| op.block_size == 0);
    let floats = view.inputs[1].element_type == ElementType::F32
        && view.outputs[0].element_type == ElementType::F32;
    if !fits || !floats || !byte(view.inputs[0].element_type) {
        return Err("takes u8 or i8 without blocks, gives f32".into());
    }
    Ok(Choice::default())
}

/// How scales run through the elements: `extent` of them, each for `inner` elements in a row, again and again.
#[derive(Clone, Copy, Debug)]
struct Layout {
    isa: Isa,
    signed: bool,
    zero: bool,
    len: usize,
    extent: usize,
    inner: usize,
}

fn layout(cx: &BindContext<'_>, axis: i64, signed: bool) -> OpResult<Layout> {
    let shape = cx.inputs[0].shape;
    let zero = cx.inputs.get(2).is_some_and(|z| !z.value.is_some_and(Tensor::is_absent));
    let (extent, inner) = if cx.inputs[1].shape.elements() == 1 {
        (1, shape.elements())
    } else {
        let axis = normalize_axis(axis, shape.rank())?;
        (shape[axis], shape[axis + 1..].iter().product())
    };
    Ok(Layout { isa: cx.isa, signed, zero, len: shape.elements(), extent, inner })
}

impl Layout {
    /// Runs of elements with one scale each, or with one scale per element, and how many make an item.
    fn runs(&self) -> (usize, usize) {
        let run = if self.inner == 1 { self.extent } else { self.inner };
        (run.max(1), (BLOCK / run.max(1)).max(1))
    }

    fn items(&self) -> usize {
        if self.extent == 1 {
            return self.len.div_ceil(BLOCK);
        }
        let (run, per_item) = self.runs();
        (self.len / run).div_ceil(per_item)
    }

    fn scratch_len(&self) -> usize {
        if self.zero { 4 * self.extent } else { 0 }
    }

    /// Calls `f` with the elements of each run and its scales.
    fn each(
        &self,
        io: &Io<'_>,
        items: Range<usize>,
        scratch: &mut [u8],
        mut f: impl FnMut(Range<usize>, Steps<'_>),
    ) {
        let scale = io.input::<f32>(1);
        let zero: &mut [f32] = bytemuck::cast_slice_mut(&mut scratch[..self.scratch_len()]);
        if self.zero && self.signed {
            zero.iter_mut().zip(io.input::<i8>(2)).for_each(|(y, x)| *y = f32::from(*x));
        } else if self.zero {
            zero.iter_mut().zip(io.input::<u8>(2)).for_each(|(y, x)| *y = f32::from(*x));
        }
        if self.extent == 1 {
            let elements = items.start * BLOCK..(items.end * BLOCK).min(self.len);
            f(elements, Steps { scale: &scale[..1], zero });
            return;
        }
        let (run, per_item) = self.runs();
        let runs = items.start * per_item..(items.end * per_item).min(self.len / run);
        for i in runs {
            let elements = i * run..(i + 1) * run;
            if self.inner == 1 {
                f(elements, Steps { scale: &scale[..self.extent], zero });
            } else {
                let at = i % self.extent;
                let zero = if self.zero { &zero[at..=at] } else { &[] };
                f(elements, Steps { scale: &scale[at..=at], zero });
            }
        }
    }
}

fn bind_quantize(cx: &BindContext<'_>) -> OpResult<Bound> {
    let axis = cx.op.downcast::<QuantizeLinear>().map_or(1, |op| op.axis);
    let signed = cx.outputs[0].element_type == ElementType::I8;
    Bound::step(QuantizeStep(layout(cx, axis, signed)?))
}

fn bind_dequantize(cx: &BindContext<'_>) -> OpResult<Bound> {
    let axis = cx.op.downcast::<DequantizeLinear>().map_or(1, |op| op.axis);
    let signed = cx.inputs[0].element_type == ElementType::I8;
    Bound::step(DequantizeStep(layout(cx, axis, signed)?))
}

#[derive(Debug)]
struct QuantizeStep(Layout);

impl Step for QuantizeStep {
    fn items(&self) -> usize {
        self.0.items()
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.0.len, 8.0)
    }

    fn scratch_len(&self) -> usize {
        self.0.scratch_len()
    }

    fn run(&self, io: &Io<'_>, items: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        let (x, out) = (io.input::<f32>(0), io.output::<u8>(0));
        self.0.each(io, items, scratch, |r, steps| {
            let y = view::item(&out, r.start, r.len());
            quantize(self.0.isa, &x[r], steps, self.0.signed, y);
        });
        Ok(())
    }
}

#[derive(Debug)]
struct DequantizeStep(Layout);

impl Step for DequantizeStep {
    fn items(&self) -> usize {
        self.0.items()
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.0.len, 4.0)
    }

    fn scratch_len(&self) -> usize {
        self.0.scratch_len()
    }

    fn run(&self, io: &Io<'_>, items: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        let (x, out) = (io.input::<u8>(0), io.output::<f32>(0));
        self.0.each(io, items, scratch, |r, steps| {
            let y = view::item(&out, r.start, r.len());
            dequantize(self.0.isa, &x[r], steps, self.0.signed, y);
        });
        Ok(())
    }
}

fn bind_dynamic(cx: &BindContext<'_>) -> OpResult<Bound> {
    Bound::step(DynamicStep { isa: cx.isa, len: cx.inputs[0].shape.elements() })
}

/// The whole of `DynamicQuantizeLinear` on one thread.
#[derive(Debug)]
struct DynamicStep {
    isa: Isa,
    len: usize,
}

impl Step for DynamicStep {
    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.len, 10.0)
    }

    fn run(&self, io: &Io<'_>, _: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let x = &io.input::<f32>(0)[..self.len];
        let (low, high) = range(self.isa, x);
        by_parameters(self.isa, io, x, (low, high), 0..self.len, true);
        Ok(())
    }
}

/// Quantizes the elements of `part` of `x` by the range of all, and stores scale and zero point if `first`.
fn by_parameters(
    isa: Isa,
    io: &Io<'_>,
    x: &[f32],
    (low, high): (f32, f32),
    part: Range<usize>,
    first: bool,
) {
    let (scale, zero) = parameters(low, high);
    // Where everything is 0, any divisor gives 0.
    let divisor = [if scale == 0.0 { 1.0 } else { scale }];
    let out = io.output::<u8>(0);
    let y = view::item(&out, part.start, part.len());
    let steps = Steps { scale: &divisor, zero: &[f32::from(zero)] };
    quantize(isa, &x[part], steps, false, y);
    if first {
        view::item(&io.output::<f32>(1), 0, 1)[0] = scale;
        view::item(&io.output::<u8>(2), 0, 1)[0] = zero;
    }
}

fn bind_ranges(cx: &BindContext<'_>) -> OpResult<Bound> {
    let (len, blocks) = (cx.inputs[0].shape.elements(), cx.outputs[0].shape[0]);
    Bound::step(RangesStep { isa: cx.isa, len, blocks })
}

/// The range of each block of elements.
#[derive(Debug)]
struct RangesStep {
    isa: Isa,
    len: usize,
    blocks: usize,
}

impl Step for RangesStep {
    fn items(&self) -> usize {
        self.blocks
    }

    fn cost_ns(&self) -> f64 {
        cost::ns(2.0 * self.len as f64, 4.0 * self.len as f64)
    }

    fn run(&self, io: &Io<'_>, items: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let (x, out) = (io.input::<f32>(0), io.output::<f32>(0));
        for i in items {
            let part = BlockRanges::block(self.len, self.blocks, i);
            let (low, high) = range(self.isa, &x[part]);
            view::item(&out, 2 * i, 2).copy_from_slice(&[low, high]);
        }
        Ok(())
    }
}

fn bind_by_ranges(cx: &BindContext<'_>) -> OpResult<Bound> {
    let len = cx.inputs[0].shape.elements();
    Bound::step(ByRangesStep { isa: cx.isa, len, ranges: cx.inputs[1].shape.elements() })
}

/// Quantizes by the union of ranges.
#[derive(Debug)]
struct ByRangesStep {
    isa: Isa,
    len: usize,
    ranges: usize,
}

impl Step for ByRangesStep {
    fn items(&self) -> usize {
        self.len.div_ceil(BLOCK).max(1)
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.len, 8.0)
    }

    fn run(&self, io: &Io<'_>, items: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let ranges = range(self.isa, &io.input::<f32>(1)[..self.ranges]);
        let part = (items.start * BLOCK).min(self.len)..(items.end * BLOCK).min(self.len);
        by_parameters(self.isa, io, io.input::<f32>(0), ranges, part, items.start == 0);
        Ok(())
    }
}

fn bind_add(cx: &BindContext<'_>) -> OpResult<Bound> {
    let op = cx.op.downcast::<IntegerAdd>().expect("the table lists this kernel for it only");
    if cx.inputs[0].shape != cx.inputs[3].shape {
        return Err(OpError::Input {
            index: 3,
            got: cx.inputs[3].shape.to_string(),
            expected: cx.inputs[0].shape.to_string(),
        });
    }
    for i in [1, 2, 4, 5, 6, 7] {
        if cx.inputs[i].shape.elements() != 1 {
            return Err(OpError::Input {
                index: i,
                got: cx.inputs[i].shape.to_string(),
                expected: "one element".to_owned(),
            });
        }
    }
    let signed = |i: usize| cx.inputs[i].element_type == ElementType::I8;
    Bound::step(AddStep {
        isa: cx.isa,
        len: cx.inputs[0].shape.elements(),
        activation: op.activation()?,
        signed: [signed(0), signed(3), signed(7)],
    })
}

/// A sum of bytes.
#[derive(Debug)]
struct AddStep {
    isa: Isa,
    len: usize,
    activation: Activation,
    signed: [bool; 3],
}

impl Step for AddStep {
    fn items(&self) -> usize {
        self.len.div_ceil(BLOCK)
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.len, 8.0)
    }

    fn run(&self, io: &Io<'_>, items: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let term = |scale: usize, zero: usize, signed: bool| Term {
            scale: io.input::<f32>(scale)[0],
            zero: if signed {
                f32::from(io.input::<i8>(zero)[0])
            } else {
                f32::from(io.input::<u8>(zero)[0])
            },
            signed,
        };
        let [a, b, y] = self.signed;
        let part = items.start * BLOCK..(items.end * BLOCK).min(self.len);
        let out = io.output::<u8>(0);
        add(
            self.isa,
            (&io.input::<u8>(0)[part.clone()], term(1, 2, a)),
            (&io.input::<u8>(3)[part.clone()], term(4, 5, b)),
            self.activation,
            term(6, 7, y),
            view::item(&out, part.start, part.len()),
        );
        Ok(())
    }
}

#[cfg(test)]
#[path = "quantize_tests.rs"]
mod tests;
