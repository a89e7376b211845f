//! Reading and writing of slices and elements by computed indices.

use std::ops::Range;

use ov_core::{
    ElementType,
    op::{
        OpAttributes, OpError, OpResult,
        gather::{GatherElements, GatherNd, GatherNd5},
        normalize_axis,
        scatter::{
            Reduction, ScatterElementsUpdate, ScatterElementsUpdate3, ScatterNdUpdate,
            ScatterNdUpdate3, ScatterUpdate,
        },
    },
};

use super::{
    BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, axis_of, cost, movement,
    reference, view::item,
};
use crate::kernels::{
    gather::{IndexError, resolve},
    out::Out,
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[
    KernelEntry {
        name: "gather_nd",
        ops: &[GatherNd::KIND, GatherNd5::KIND],
        select: select_indices,
        bind: bind_gather_nd,
    },
    KernelEntry {
        name: "gather_elements",
        ops: &[GatherElements::KIND],
        select: select_indices,
        bind: bind_gather_elements,
    },
    KernelEntry {
        name: "scatter_elements",
        ops: &[ScatterElementsUpdate::KIND, ScatterElementsUpdate3::KIND],
        select: select_scatter_elements,
        bind: bind_scatter_elements,
    },
    KernelEntry {
        name: "scatter_slices",
        ops: &[ScatterUpdate::KIND, ScatterNdUpdate::KIND, ScatterNdUpdate3::KIND],
        select: select_scatter_slices,
        bind: bind_scatter_slices,
    },
];

fn select_indices(view: &NodeView<'_>) -> Result<Choice, Reject> {
    let ty = view.inputs[1].element_type;
    if !matches!(ty, ElementType::I32 | ElementType::I64) {
        return Err(format!("takes i32 and i64 indices, not {ty}").into());
    }
    movement::select_bytes(view)
}

/// The indices of a step, by their type.
#[derive(Clone, Copy)]
enum Indices<'a> {
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl<'a> Indices<'a> {
    fn of(io: &Io<'a>, wide: bool) -> Self {
        if wide { Self::I64(io.input(1)) } else { Self::I32(io.input(1)) }
    }

    /// The position that index `at` means on an axis.
    #[inline(always)]
    fn resolve(self, at: usize, axis: usize) -> Result<usize, IndexError> {
        let index = match self {
            Self::I32(i) => i64::from(i[at]),
            Self::I64(i) => i[at],
        };
        resolve(index, axis, at)
    }
}

fn outside(e: IndexError) -> OpError {
    OpError::Invalid(e.to_string())
}

/// Index tuples into some axes of a tensor.
#[derive(Debug)]
struct Tuples {
    wide: bool,
    /// Extent and stride in elements of each axis that a tuple indexes.
    axes: Vec<(usize, usize)>,
    /// Tuples of a batch, and elements of the data from one batch to the next.
    per_batch: usize,
    batch_len: usize,
}

impl Tuples {
    fn new(cx: &BindContext<'_>, batch: usize) -> OpResult<Self> {
        let (data, indices) = (cx.inputs[0].shape, cx.inputs[1].shape);
        let depth = indices.last().copied().unwrap_or(0);
        if indices.rank() <= batch
            || batch + depth > data.rank()
            || data[..batch] != indices[..batch]
        {
            return Err(OpError::Invalid(format!(
                "index tuples of {depth} after {batch} batch axes do not suit data {data} and indices {indices}"
            )));
        }
        let strides = data.strides();
        Ok(Self {
            wide: cx.inputs[1].element_type == ElementType::I64,
            axes: (batch..batch + depth).map(|a| (data[a], strides[a])).collect(),
            per_batch: indices[batch..indices.rank() - 1].iter().product(),
            batch_len: data[batch..].iter().product(),
        })
    }

    /// First element of the slice of a tuple.
    fn start(&self, indices: Indices<'_>, tuple: usize) -> OpResult<usize> {
        let mut at = tuple / self.per_batch.max(1) * self.batch_len;
        for (k, (extent, stride)) in self.axes.iter().enumerate() {
            let index = indices.resolve(tuple * self.axes.len() + k, *extent).map_err(outside)?;
            at += index * stride;
        }
        Ok(at)
    }
}

fn bind_gather_nd(cx: &BindContext<'_>) -> OpResult<Bound> {
    let batch = match (cx.op.downcast::<GatherNd>(), cx.op.downcast::<GatherNd5>()) {
        (Some(op), _) => op.batch_dims,
        (_, Some(op)) => op.batch_dims,
        _ => 0,
    };
    let batch = usize::try_from(batch).map_err(|e| OpError::Invalid(e.to_string()))?;
    let tuples = Tuples::new(cx, batch)?;
    let data = cx.inputs[0].shape;
    let size = movement::size_of(cx.inputs[0].element_type);
    let block = data[batch + tuples.axes.len()..].iter().product::<usize>() * size;
    let count = cx.outputs[0].shape.elements() * size;
    Bound::step(GatherNdStep { tuples, size, block, items: count.checked_div(block).unwrap_or(0) })
}

#[derive(Debug)]
struct GatherNdStep {
    tuples: Tuples,
    size: usize,
    /// Bytes of a slice.
    block: usize,
    items: usize,
}

impl Step for GatherNdStep {
    fn items(&self) -> usize {
        self.items
    }

    fn cost_ns(&self) -> f64 {
        cost::ns(0.0, 2.0 * (self.items * self.block) as f64) + 5.0 * self.items as f64
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let (data, out): (&[u8], Out<'_, u8>) = (io.input(0), io.output(0));
        let indices = Indices::of(io, self.tuples.wide);
        for tuple in range {
            let from = self.tuples.start(indices, tuple)? * self.size;
            item(&out, tuple * self.block, self.block)
                .copy_from_slice(&data[from..from + self.block]);
        }
        Ok(())
    }
}

/// A tensor around an axis, and how many elements along the axis are picked.
#[derive(Clone, Copy, Debug)]
struct Along {
    wide: bool,
    outer: usize,
    axis: usize,
    picked: usize,
    inner: usize,
}

impl Along {
    /// None unless indices and data have the same extents but for the axis.
    fn new(cx: &BindContext<'_>, axis: usize) -> Option<Self> {
        let (data, indices) = (cx.inputs[0].shape, cx.inputs[1].shape);
        let same = data.rank() == indices.rank()
            && (0..data.rank()).all(|a| a == axis || data[a] == indices[a]);
        same.then(|| Self {
            wide: cx.inputs[1].element_type == ElementType::I64,
            outer: data[..axis].iter().product(),
            axis: data[axis],
            picked: indices[axis],
            inner: data[axis + 1..].iter().product(),
        })
    }
}

fn bind_gather_elements(cx: &BindContext<'_>) -> OpResult<Bound> {
    let axis = normalize_axis(axis_of(cx.op)?, cx.inputs[0].shape.rank())?;
    let Some(along) = Along::new(cx, axis) else { return reference::bind(cx) };
    let size = movement::size_of(cx.inputs[0].element_type);
    Bound::step(GatherElementsStep { along, size, elements: cx.outputs[0].shape.elements() })
}

#[derive(Debug)]
struct GatherElementsStep {
    along: Along,
    size: usize,
    elements: usize,
}

impl GatherElementsStep {
    fn gather<T: bytemuck::Pod>(&self, io: &Io<'_>, range: Range<usize>) -> OpResult<()> {
        let Along { wide, axis, picked, inner, .. } = self.along;
        let (data, out) = (io.input::<T>(0), io.output::<T>(0));
        let indices = Indices::of(io, wide);
        let first = range.start;
        for (k, to) in item(&out, first, range.len()).iter_mut().enumerate() {
            let at = first + k;
            let index = indices.resolve(at, axis).map_err(outside)?;
            *to = data[(at / (picked * inner) * axis + index) * inner + at % inner];
        }
        Ok(())
    }
}

impl Step for GatherElementsStep {
    fn items(&self) -> usize {
        self.elements
    }

    fn cost_ns(&self) -> f64 {
        50.0 + 3.0 * self.elements as f64
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        match self.size {
            1 => self.gather::<u8>(io, range),
            2 => self.gather::<u16>(io, range),
            4 => self.gather::<u32>(io, range),
            _ => self.gather::<u64>(io, range),
        }
    }
}

/// The reduction, if kernels have it for elements of the node's type.
fn reduction_for(view: &NodeView<'_>, reduction: Reduction) -> Result<Choice, Reject> {
    let ty = view.inputs[0].element_type;
    let known = matches!(
        reduction,
        Reduction::None | Reduction::Sum | Reduction::Prod | Reduction::Min | Reduction::Max
    );
    if !known || (reduction != Reduction::None && ty != ElementType::F32) {
        return Err(format!("does not reduce {ty} by {reduction}").into());
    }
    select_indices(view)
}

fn select_scatter_elements(view: &NodeView<'_>) -> Result<Choice, Reject> {
    view.constant(3)?;
    let Some(op) = view.op.downcast::<ScatterElementsUpdate>() else {
        return select_indices(view);
    };
    if !op.use_init_val && op.reduction != Reduction::None {
        return Err("counts what is there".into());
    }
    reduction_for(view, op.reduction)
}

fn bind_scatter_elements(cx: &BindContext<'_>) -> OpResult<Bound> {
    let data = cx.inputs[0].shape;
    let axis = normalize_axis(movement::known(cx, 3)?.first().copied().unwrap_or(0), data.rank())?;
    let same = cx.inputs[1].shape == cx.inputs[2].shape;
    let Some(along) = Along::new(cx, axis).filter(|_| same) else { return reference::bind(cx) };
    let reduction =
        cx.op.downcast::<ScatterElementsUpdate>().map_or(Reduction::None, |op| op.reduction);
    Bound::step(ScatterElementsStep {
        along,
        reduction,
        size: movement::size_of(cx.inputs[0].element_type),
        stripes: along.inner.div_ceil(STRIPE),
        cost: cost::ns(0.0, 8.0 * data.elements() as f64)
            + 2.0 * cx.inputs[1].shape.elements() as f64,
    })
}

/// Neighbouring elements that one thread updates.
const STRIPE: usize = 16;

#[derive(Debug)]
struct ScatterElementsStep {
    along: Along,
    reduction: Reduction,
    size: usize,
    stripes: usize,
    cost: f64,
}

impl ScatterElementsStep {
    fn scatter<T: bytemuck::Pod>(
        &self,
        io: &Io<'_>,
        range: Range<usize>,
        combine: impl Fn(T, T) -> T,
    ) -> OpResult<()> {
        let Along { wide, axis, picked, inner, .. } = self.along;
        let (updates, out) = (io.input::<T>(2), io.output::<T>(0));
        let indices = Indices::of(io, wide);
        let in_place = io.shares_memory(0, 0);
        for part in range {
            let (outer, column) = (part / self.stripes, part % self.stripes * STRIPE);
            let width = STRIPE.min(inner - column);
            if !in_place {
                let data = io.input::<T>(0);
                for k in 0..axis {
                    let at = (outer * axis + k) * inner + column;
                    item(&out, at, width).copy_from_slice(&data[at..at + width]);
                }
            }
            for k in 0..picked {
                let from = (outer * picked + k) * inner + column;
                for i in 0..width {
                    let index = indices.resolve(from + i, axis).map_err(outside)?;
                    let to = item(&out, (outer * axis + index) * inner + column + i, 1);
                    to[0] = combine(to[0], updates[from + i]);
                }
            }
        }
        Ok(())
    }
}

/// How an update meets what is there; NaN stays.
fn combine(reduction: Reduction) -> fn(f32, f32) -> f32 {
    match reduction {
        Reduction::Sum => |a, b| a + b,
        Reduction::Prod => |a, b| a * b,
        Reduction::Min => |a, b| if b < a || b.is_nan() { b } else { a },
        Reduction::Max => |a, b| if b > a || b.is_nan() { b } else { a },
        _ => |_, b| b,
    }
}

impl Step for ScatterElementsStep {
    fn items(&self) -> usize {
        self.along.outer * self.stripes
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn in_place(&self) -> Option<usize> {
        Some(0)
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        match (self.reduction, self.size) {
            (Reduction::Sum, _) => self.scatter::<f32>(io, range, |a, b| a + b),
            (Reduction::None, 1) => self.scatter::<u8>(io, range, |_, b| b),
            (Reduction::None, 2) => self.scatter::<u16>(io, range, |_, b| b),
            (Reduction::None, 4) => self.scatter::<u32>(io, range, |_, b| b),
            (Reduction::None, _) => self.scatter::<u64>(io, range, |_, b| b),
            (other, _) => self.scatter::<f32>(io, range, combine(other)),
        }
    }
}

fn select_scatter_slices(view: &NodeView<'_>) -> Result<Choice, Reject> {
    if view.op.is::<ScatterUpdate>() {
        view.constant(3)?;
    }
    let reduction =
        view.op.downcast::<ScatterNdUpdate>().map_or(Reduction::None, |op| op.reduction);
    reduction_for(view, reduction)
}

fn bind_scatter_slices(cx: &BindContext<'_>) -> OpResult<Bound> {
    let data = cx.inputs[0].shape;
    let size = movement::size_of(cx.inputs[0].element_type);
    let (slices, block, count) = if cx.op.is::<ScatterUpdate>() {
        let axis =
            normalize_axis(movement::known(cx, 3)?.first().copied().unwrap_or(0), data.rank())?;
        let along = Along {
            wide: cx.inputs[1].element_type == ElementType::I64,
            outer: data[..axis].iter().product(),
            axis: data[axis],
            picked: cx.inputs[1].shape.elements(),
            inner: data[axis + 1..].iter().product(),
        };
        (Slices::Along(along), along.inner, along.outer * along.picked)
    } else {
        let tuples = Tuples::new(cx, 0)?;
        let block = data[tuples.axes.len()..].iter().product();
        let count = tuples.per_batch;
        (Slices::Tuples(tuples), block, count)
    };
    if cx.inputs[2].shape.elements() != block * count {
        return Err(OpError::Input {
            index: 2,
            got: cx.inputs[2].shape.to_string(),
            expected: format!("{} elements", block * count),
        });
    }
    let reduction = cx.op.downcast::<ScatterNdUpdate>().map_or(Reduction::None, |op| op.reduction);
    Bound::step(ScatterSlicesStep {
        slices,
        reduction,
        block,
        count,
        size,
        bytes: 2 * size * (data.elements() + block * count),
    })
}

#[derive(Debug)]
enum Slices {
    Along(Along),
    Tuples(Tuples),
}

/// Slices written one after the other by one thread, since they may meet.
#[derive(Debug)]
struct ScatterSlicesStep {
    slices: Slices,
    reduction: Reduction,
    /// Elements of a slice.
    block: usize,
    count: usize,
    size: usize,
    bytes: usize,
}

impl ScatterSlicesStep {
    fn start(&self, io: &Io<'_>, slice: usize) -> OpResult<usize> {
        match &self.slices {
            Slices::Tuples(t) => t.start(Indices::of(io, t.wide), slice),
            Slices::Along(a) => {
                let (outer, at) = (slice / a.picked, slice % a.picked);
                let index = Indices::of(io, a.wide).resolve(at, a.axis).map_err(outside)?;
                Ok((outer * a.axis + index) * a.inner)
            }
        }
    }
}

impl Step for ScatterSlicesStep {
    fn cost_ns(&self) -> f64 {
        cost::ns(0.0, self.bytes as f64) + 5.0 * self.count as f64
    }

    fn in_place(&self) -> Option<usize> {
        Some(0)
    }

    fn run(&self, io: &Io<'_>, _: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let out = io.output::<u8>(0);
        if !io.shares_memory(0, 0) {
            item(&out, 0, out.len()).copy_from_slice(io.input(0));
        }
        let bytes = self.block * self.size;
        for slice in 0..self.count {
            let start = self.start(io, slice)?;
            if self.reduction == Reduction::None {
                let updates = &io.input::<u8>(2)[slice * bytes..][..bytes];
                item(&out, start * self.size, bytes).copy_from_slice(updates);
                continue;
            }
            let combine = combine(self.reduction);
            let (updates, out) = (io.input::<f32>(2), io.output::<f32>(0));
            let updates = &updates[slice * self.block..][..self.block];
            for (to, update) in item(&out, start, self.block).iter_mut().zip(updates) {
                *to = combine(*to, *update);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{
        Model, Shape, Tensor,
        model::Value,
        op::{Op, activation::Relu},
    };

    use super::*;
    use crate::nodes::testing::{check, noise, parameter};

    /// Indices over an axis of `extent`, negative ones among them.
    fn indices(shape: &[usize], extent: usize, ty: ElementType) -> Tensor {
        let count = shape.iter().product::<usize>();
        let n = extent as i64;
        let values = (0..count as i64).map(|i| (i * 7 + i / 3) % (2 * n).max(1) - n).collect();
        Tensor::from_vec(shape, values).and_then(|t: Tensor| t.cast(ty)).expect("fits")
    }

    fn index_parameter(m: &mut Model, indices: &Tensor) -> Value {
        m.add_parameter("i", indices.element_type(), Shape::new(indices.shape())).expect("valid")
    }

    fn gather(op: impl Op, data: &[usize], indices: Tensor, kernel: &str) {
        let what = format!("{} {data:?} {}", op.kind(), indices.shape());
        let mut m = Model::new("gather");
        let x = parameter(&mut m, "x", data);
        let i = index_parameter(&mut m, &indices);
        let y = m.add(op, &[x, i], "gather").expect("valid");
        m.add_output("y", y);
        check(&what, &m, &[noise(data, 1), indices], kernel, 0.0);
    }

    #[test]
    fn tuples_and_elements_are_read() {
        for ty in [ElementType::I32, ElementType::I64] {
            gather(GatherNd::default(), &[3, 4, 5], indices(&[2, 1], 3, ty), "gather_nd");
            gather(GatherNd::default(), &[3, 3], indices(&[4, 7, 2], 3, ty), "gather_nd");
            let batched = GatherNd { batch_dims: 1 };
            gather(batched, &[2, 4, 3], indices(&[2, 6, 1], 4, ty), "gather_nd");
            for (axis, picked) in [(0, [7, 4, 5]), (1, [3, 2, 5]), (-1, [3, 4, 9])] {
                let extent = [3, 4, 5][if axis < 0 { 2 } else { axis as usize }];
                let indices = indices(&picked, extent, ty);
                gather(GatherElements { axis }, &[3, 4, 5], indices, "gather_elements");
            }
        }
    }

    fn scatter(op: impl Op, data: &[usize], at: &Tensor, updates: &[usize], axis: Option<i64>) {
        let what = format!("{op:?} {data:?} {} {updates:?}", at.shape());
        let kernel = if op.kind().name == "ScatterElementsUpdate" {
            "scatter_elements"
        } else {
            "scatter_slices"
        };
        let op: Box<dyn Op> = Box::new(op);
        for in_place in [false, true] {
            let mut m = Model::new("scatter");
            let mut x = parameter(&mut m, "x", data);
            if in_place {
                x = m.add(Relu {}, &[x], "relu").expect("valid");
            }
            let i = index_parameter(&mut m, at);
            let u = parameter(&mut m, "u", updates);
            let mut inputs = vec![x, i, u];
            inputs.extend(axis.map(|a| m.add_constant(Tensor::scalar(a), "axis")));
            let y = m.add_node(op.clone_box(), &inputs, "scatter").expect("valid");
            let y = m.add(Relu {}, &[y.into()], "end").expect("valid");
            m.add_output("y", y);
            let given = [noise(data, 1), at.clone(), noise(updates, 2)];
            check(&what, &m, &given, kernel, 1e-6);
        }
    }

    #[test]
    fn updates_are_written() {
        let (i32s, i64s) = (ElementType::I32, ElementType::I64);
        for reduction in
            [Reduction::None, Reduction::Sum, Reduction::Prod, Reduction::Min, Reduction::Max]
        {
            let op = || ScatterElementsUpdate { reduction, use_init_val: true };
            scatter(op(), &[5, 40], &indices(&[9, 40], 5, i64s), &[9, 40], Some(0));
            scatter(op(), &[2, 3, 4], &indices(&[2, 3, 6], 4, i32s), &[2, 3, 6], Some(-1));
            let op = || ScatterNdUpdate { reduction };
            scatter(op(), &[4, 3], &indices(&[6, 1], 4, i64s), &[6, 3], None);
            scatter(op(), &[3, 3, 2], &indices(&[2, 2, 2], 3, i32s), &[2, 2, 2], None);
        }
        scatter(ScatterUpdate {}, &[2, 5, 3], &indices(&[2, 2], 5, i64s), &[2, 2, 2, 3], Some(1));
        // Fewer indices than data beside the axis too.
        let op = ScatterElementsUpdate::default();
        scatter(op, &[5, 4], &indices(&[2, 3], 5, i64s), &[2, 3], Some(0));
    }
}
