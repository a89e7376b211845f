//! Writing by index. An index outside of the data writes nothing.

use std::borrow::Cow;

use ov_core::{
    ElementType,
    op::{
        Op,
        scatter::{
            Reduction, ScatterElementsUpdate, ScatterElementsUpdate3, ScatterNdUpdate,
            ScatterNdUpdate3, ScatterUpdate,
        },
    },
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step, Update,
    copy::Copy,
    element::{compute_type, element_bytes, opaque_type, storage_type, unsupported},
    gather::{fits, units},
    host::{axis, choice, ensure},
    walk::{MAX_RANK, Record, Walk, count, dense_strides},
};

/// The family.
pub(super) const SCATTER: Kernel = Kernel { name: "scatter", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/formula.cuh"),
    include_str!("cuda/index.cuh"),
    include_str!("cuda/scatter.cu"),
);

const BLOCK: u32 = 128;

/// Updates of a lane up to which one thread does them in turn, however few lanes there are.
const SERIAL: usize = 16;

/// Threads that keep the GPU busy.
const MANY: usize = 4096;

/// How updates meet what is there, and whether that takes part.
fn reduction(op: &dyn Op) -> Option<(Reduction, bool)> {
    if let Some(op) = op.downcast::<ScatterElementsUpdate>() {
        return Some((op.reduction, op.use_init_val || op.reduction == Reduction::None));
    }
    if let Some(op) = op.downcast::<ScatterNdUpdate>() {
        return Some((op.reduction, true));
    }
    let replaces = op.is::<ScatterUpdate>()
        || op.is::<ScatterElementsUpdate3>()
        || op.is::<ScatterNdUpdate3>();
    replaces.then_some((Reduction::None, true))
}

fn is_nd(op: &dyn Op) -> bool {
    op.is::<ScatterNdUpdate>() || op.is::<ScatterNdUpdate3>()
}

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    reduction(node.op)?;
    let indices = node.inputs.get(1)?.element_type;
    if !indices.is_integer() {
        return Some(Err(unsupported(indices)));
    }
    Some(choice(node, if is_nd(node.op) { &[] } else { &[3] }))
}

/// Where updates go: the struct `Scatter`.
struct Plan {
    lanes: usize,
    updates: usize,
    block: usize,
    record: Record,
    /// Whether all lanes read the same indices.
    shared_indices: bool,
    /// Blocks of the data.
    slots: usize,
}

impl Plan {
    /// `record` of lanes along an axis of `extent` places that are `stride` slots apart.
    fn along(
        (updates, update_stride): (usize, i64),
        (extent, stride): (usize, i64),
        lanes: &Walk,
        block: usize,
        slots: usize,
    ) -> Result<Self, Reject> {
        let mut record = Record::default();
        record.u32(count(lanes.len())?).u32(count(updates)?).divisor(count(block)?);
        record.u32(count(extent)?).i32(stride as i32);
        let mut record = record.bytes();
        record.extend(lanes.record()?.bytes());
        let mut record = Record::from(record);
        record.i32(update_stride as i32).u32(0);
        (0..2 * MAX_RANK).for_each(|_| {
            record.u32(0);
        });
        let lanes = lanes.len();
        Ok(Self { lanes, updates, block, record, shared_indices: false, slots })
    }

    /// Slices along an axis: a lane for every place before it.
    fn slices(node: &Binding<'_>, unit: usize) -> Result<Self, Reject> {
        let data = node.inputs[0].shape;
        let axis = axis(node, 3, 0, data.rank())?;
        let wanted = [&data[..axis], node.inputs[1].shape, &data[axis + 1..]].concat();
        ensure(node.inputs[2].shape[..] == wanted[..], "takes one slice per index")?;
        let picks = node.inputs[1].shape.elements();
        let (outer, extent): (usize, usize) = (data[..axis].iter().product(), data[axis]);
        let block: usize = data[axis + 1..].iter().product();
        let lanes = Walk::merged(&[outer], &[vec![picks as i64], vec![extent as i64]]);
        let slots = outer * extent;
        let plan = Self::along((picks, 1), (extent, 1), &lanes, block / unit, slots)?;
        Ok(Self { shared_indices: true, ..plan })
    }

    /// Elements along an axis: a lane for every line of indices.
    fn elements(node: &Binding<'_>) -> Result<Self, Reject> {
        let (data, indices) = (node.inputs[0].shape, node.inputs[1].shape);
        let axis = axis(node, 3, 0, data.rank())?;
        let same = node.inputs[2].shape == indices;
        ensure(same && fits(indices, data, axis), "takes one update per index within the data")?;
        let (to, from) = (dense_strides(data), dense_strides(indices));
        let rest = |v: &[i64]| [&v[..axis], &v[axis + 1..]].concat();
        let lanes = [&indices[..axis], &indices[axis + 1..]].concat();
        let lanes = Walk::merged(&lanes, &[rest(&from), rest(&to)]);
        Self::along((indices[axis], from[axis]), (data[axis], to[axis]), &lanes, 1, data.elements())
    }

    /// Slices by tuple: one lane.
    fn tuples(node: &Binding<'_>, unit: usize) -> Result<Self, Reject> {
        let (data, indices) = (node.inputs[0].shape, node.inputs[1].shape);
        let depth = indices.last().copied().unwrap_or(0);
        if depth > data.rank().min(MAX_RANK) || indices.rank() == 0 {
            return Err(format!("tuples of {depth} of {data}").into());
        }
        let slices = [&indices[..indices.rank() - 1], &data[depth..]].concat();
        let len: usize = slices.iter().product();
        ensure(node.inputs[2].shape.elements() == len, "takes one slice per tuple")?;
        let updates: usize = indices[..indices.rank() - 1].iter().product();
        let block = data[depth..].iter().product::<usize>() / unit;
        let lanes = Walk::merged(&[], &[vec![], vec![]]);
        let mut record = Record::default();
        record.u32(1).u32(count(updates)?).divisor(count(block)?).u32(0).u32(0);
        let mut record = record.bytes();
        record.extend(lanes.record()?.bytes());
        let mut record = Record::from(record);
        record.u32(0).u32(count(depth)?);
        for d in 0..MAX_RANK {
            record.u32(count(data[..depth].get(d).copied().unwrap_or(1))?);
        }
        let strides = dense_strides(&data[..depth]);
        for d in 0..MAX_RANK {
            record.u32(strides.get(d).map_or(0, |s| *s as u32));
        }
        let slots = data[..depth].iter().product();
        Ok(Self { lanes: 1, updates, block, record, shared_indices: false, slots })
    }
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let (reduction, initial) = reduction(node.op)
        .ok_or_else(|| Reject::from(format!("{} writes nothing", node.op.kind())))?;
    let data = node.inputs[0].shape;
    let ty = node.inputs[0].element_type;
    let size = element_bytes(ty)?;
    count(data.elements())?;
    let whole = Copy {
        size,
        dims: vec![data.elements()],
        from: vec![1],
        to: vec![1],
        from_offset: 0,
        to_offset: 0,
    };
    let mut step = Step::default();
    step.launches.extend(whole.launch(Arg::Input(0), Arg::Output(0))?);
    step.update = Some(Update { input: 0, copies: step.launches.len() });
    if node.inputs[2].shape.elements() == 0 || data.elements() == 0 {
        return Ok(Bound::Step(step));
    }
    // Blocks that replace are moved in units of up to 16 bytes.
    let elements = node.op.is::<ScatterElementsUpdate>() || node.op.is::<ScatterElementsUpdate3>();
    let wide = |block: usize| {
        if reduction == Reduction::None { units(size, block).0 / size } else { 1 }
    };
    let (plan, unit) = if elements {
        (Plan::elements(node)?, 1)
    } else if is_nd(node.op) {
        let depth = node.inputs[1].shape.last().copied().unwrap_or(0).min(data.rank());
        let unit = wide(data[depth..].iter().product());
        (Plan::tuples(node, unit)?, unit)
    } else {
        let axis = axis(node, 3, 0, data.rank())?;
        let unit = wide(data[axis + 1..].iter().product());
        (Plan::slices(node, unit)?, unit)
    };
    let counted = reduction == Reduction::Mean || !initial;
    let source = source(node, reduction, size * unit, counted, plan.shared_indices)?;
    plan.launches(&mut step, &source, reduction, initial, counted, data.elements())?;
    Ok(Bound::Step(step))
}

impl Plan {
    fn launches(
        self,
        step: &mut Step,
        source: &Source,
        reduction: Reduction,
        initial: bool,
        counted: bool,
        elements: usize,
    ) -> Result<(), Reject> {
        let threads = self.lanes * self.block;
        let launch =
            |function: &'static str, threads: usize, args: Vec<Arg>| -> Result<Launch, Reject> {
                Ok(Launch {
                    source: source.clone(),
                    function: function.into(),
                    grid: [count(threads)?.div_ceil(BLOCK), 1, 1],
                    block: [BLOCK, 1, 1],
                    shared: 0,
                    args,
                })
            };
        let record = Arg::Bytes(self.record.bytes());
        let fill = |len: usize, value: i32| -> Result<Launch, Reject> {
            let args = vec![Arg::Scratch(0), Arg::I32(count(len)? as i32), Arg::I32(value)];
            launch("scatter_fill", len, args)
        };
        if reduction == Reduction::None && self.updates > SERIAL && threads < MANY {
            step.scratch = self.slots * 4;
            step.launches.push(fill(self.slots, 0)?);
            let args = vec![Arg::Input(1), Arg::Scratch(0), record.clone()];
            step.launches.push(launch("scatter_mark", self.lanes * self.updates, args)?);
            let args = vec![Arg::Input(1), Arg::Input(2), Arg::Output(0), Arg::Scratch(0), record];
            step.launches.push(launch("scatter_last", threads * self.updates, args)?);
            return Ok(());
        }
        step.scratch = if counted { elements * 4 } else { 4 };
        if counted {
            step.launches.push(fill(elements, i32::from(initial))?);
        }
        let args = vec![Arg::Input(1), Arg::Input(2), Arg::Output(0), Arg::Scratch(0), record];
        step.launches.push(launch("scatter_lanes", threads, args)?);
        if reduction == Reduction::Mean {
            let args = vec![Arg::Output(0), Arg::Scratch(0), Arg::I32(count(elements)? as i32)];
            step.launches.push(launch("scatter_divide", elements, args)?);
        }
        Ok(())
    }
}

fn source(
    node: &Binding<'_>,
    reduction: Reduction,
    unit: usize,
    counted: bool,
    shared_indices: bool,
) -> Result<Source, Reject> {
    let ty = node.inputs[0].element_type;
    let indices = node.inputs[1].element_type;
    let truth = ty == ElementType::Boolean;
    let combine = match reduction {
        Reduction::None => "b",
        Reduction::Sum if truth => "f_maximum(a, b)",
        Reduction::Prod if truth => "f_minimum(a, b)",
        Reduction::Sum | Reduction::Mean => "f_add(a, b)",
        Reduction::Sub => "f_subtract(a, b)",
        Reduction::Prod => "f_multiply(a, b)",
        // An update that is NaN wins, too.
        Reduction::Min => "b < a || b != b ? b : a",
        Reduction::Max => "b > a || b != b ? b : a",
    };
    let (storage, compute) = if reduction == Reduction::None {
        let unit =
            opaque_type(unit).ok_or_else(|| Reject::from(format!("units of {unit} bytes")))?;
        (unit, unit)
    } else {
        let storage = storage_type(ty).ok_or_else(|| unsupported(ty))?;
        (storage, compute_type(ty).unwrap_or(storage))
    };
    Ok(Source {
        body: Cow::Borrowed(TEXT),
        defines: vec![
            ("OV_ELEMENT", storage.to_owned()),
            ("OV_INDEX", storage_type(indices).ok_or_else(|| unsupported(indices))?.to_owned()),
            ("OV_COMPUTE", compute.to_owned()),
            ("OV_COMBINE", combine.to_owned()),
            ("OV_COUNTED", u8::from(counted).to_string()),
            ("OV_SHARED_INDICES", u8::from(shared_indices).to_string()),
        ],
    })
}
