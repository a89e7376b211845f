//! Reductions over any axes.

use std::borrow::Cow;

use ov_core::{
    ElementType,
    op::{
        OpAttributes, OpKind,
        reduction::{
            ReduceL1, ReduceL2, ReduceLogSumExp, ReduceLogicalAnd, ReduceLogicalOr, ReduceMax,
            ReduceMean, ReduceMin, ReduceProd, ReduceSum,
        },
    },
};

use super::{
    Arg, Binding, Bound, Choice, Gpu, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{compute_type, storage_type, unsupported},
    host::{axes_from_front, choice, integers},
    walk::{Walk, count, dense_strides},
};

/// The family.
pub(super) const REDUCE: Kernel = Kernel { name: "reduce", select, bind };

/// How elements are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of numbers, in their own type.
    Numbers,
    /// Of numbers, integers in `long long`.
    Mean,
    /// Of numbers, integers in `double`.
    Real,
    /// Of booleans.
    Truth,
}

/// Operators, the accumulators of `accumulate.cuh`, and what they take.
const OPS: &[(OpKind, &str, Kind)] = &[
    (ReduceSum::KIND, "Sum", Kind::Numbers),
    (ReduceMean::KIND, "Mean", Kind::Mean),
    (ReduceProd::KIND, "Prod", Kind::Numbers),
    (ReduceMax::KIND, "Max", Kind::Numbers),
    (ReduceMin::KIND, "Min", Kind::Numbers),
    (ReduceL1::KIND, "L1", Kind::Numbers),
    (ReduceL2::KIND, "L2", Kind::Real),
    (ReduceLogSumExp::KIND, "LogSumExp", Kind::Real),
    (ReduceLogicalAnd::KIND, "All", Kind::Truth),
    (ReduceLogicalOr::KIND, "Any", Kind::Truth),
];

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/formula.cuh"),
    include_str!("cuda/group.cuh"),
    include_str!("cuda/accumulate.cuh"),
    include_str!("cuda/reduce.cu"),
);

/// Most elements that a warp reduces alone.
const WARP_ELEMENTS: usize = 1024;

/// Threads of a block that reduces one place, and elements for which a block of its own pays.
const BLOCK: u32 = 256;
const SHARE: usize = 4096;

fn entry(kind: OpKind) -> Option<(&'static str, Kind)> {
    OPS.iter().find(|(k, ..)| *k == kind).map(|(_, accumulator, takes)| (*accumulator, *takes))
}

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let (_, takes) = entry(node.op.kind())?;
    let ty = node.inputs.first()?.element_type;
    let suits = match takes {
        Kind::Truth => ty == ElementType::Boolean,
        _ => ty != ElementType::Boolean,
    };
    if !suits {
        return Some(Err(format!("does not take {ty}").into()));
    }
    Some(choice(node, &[1]))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let (accumulator, takes) = entry(node.op.kind())
        .ok_or_else(|| Reject::from(format!("{} reduces nothing", node.op.kind())))?;
    let shape = node.inputs[0].shape;
    let axes = axes_from_front(&integers(node, 1)?, shape.rank())?;
    let plan = Plan::new(shape, &axes);
    if plan.kept.len() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    let source = source(accumulator, takes, node.inputs[0].element_type)?;
    let bytes = accumulator_bytes(accumulator, takes, node.inputs[0].element_type);
    Ok(Bound::Step(plan.step(node.gpu, &source, bytes)?))
}

/// The mean of input 0, of floats of this type and shape, over `axes`.
///
/// # Errors
/// When the shape is too large.
pub(super) fn mean(
    gpu: Gpu,
    ty: ElementType,
    shape: &[usize],
    axes: &[usize],
) -> Result<Step, Reject> {
    let source = source("Mean", Kind::Mean, ty)?;
    Plan::new(shape, axes).step(gpu, &source, accumulator_bytes("Mean", Kind::Mean, ty))
}

/// The type that elements are computed in.
fn value_type(takes: Kind, ty: ElementType) -> Option<&'static str> {
    match takes {
        Kind::Mean if ty.is_integer() => Some("long long"),
        Kind::Real if ty.is_integer() => Some("double"),
        _ => compute_type(ty),
    }
}

/// Bytes of an accumulator, at most: one value, or two.
fn accumulator_bytes(accumulator: &str, takes: Kind, ty: ElementType) -> usize {
    let one = if takes == Kind::Numbers { ty.bits().div_ceil(8).max(4) } else { 8 };
    if accumulator == "LogSumExp" { 2 * one } else { one }
}

fn source(accumulator: &str, takes: Kind, ty: ElementType) -> Result<Source, Reject> {
    let storage = storage_type(ty).ok_or_else(|| unsupported(ty))?;
    let value = value_type(takes, ty).ok_or_else(|| unsupported(ty))?;
    Ok(Source {
        body: Cow::Borrowed(TEXT),
        defines: vec![
            ("OV_X", storage.to_owned()),
            ("OV_Y", storage.to_owned()),
            ("OV_V", value.to_owned()),
            ("OV_A", accumulator.to_owned()),
        ],
    })
}

/// A dense array as kept places and the elements that each of them reduces.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Offsets of the kept places.
    pub(super) kept: Walk,
    /// Offsets of the elements within a place.
    pub(super) reduced: Walk,
}

impl Plan {
    /// An array of `shape`, reduced over `axes`.
    pub(super) fn new(shape: &[usize], axes: &[usize]) -> Self {
        let strides = dense_strides(shape);
        let pick = |reduced: bool| {
            let chosen = (0..shape.len()).filter(|a| axes.contains(a) == reduced);
            let (dims, strides): (Vec<usize>, Vec<i64>) =
                chosen.map(|a| (shape[a], strides[a])).unzip();
            Walk::merged(&dims, &[strides])
        };
        Self { kept: pick(false), reduced: pick(true) }
    }

    /// Whether neighbouring places are neighbours in memory, and neighbouring elements of a place are not.
    fn is_columns(&self) -> bool {
        let step = |w: &Walk| w.strides[0].last().copied().unwrap_or(0);
        step(&self.kept) == 1 && step(&self.reduced) != 1
    }

    fn step(&self, gpu: Gpu, source: &Source, accumulator: usize) -> Result<Step, Reject> {
        let (places, elements) = (self.kept.len(), self.reduced.len());
        let mut extents = self.kept.record()?.bytes();
        extents.extend(self.reduced.record()?.bytes());
        let launch = |function: &'static str, grid, block, args| Launch {
            source: source.clone(),
            function: function.into(),
            grid,
            block,
            shared: 0,
            args,
        };
        let data = |extents| vec![Arg::Input(0), Arg::Output(0), Arg::Bytes(extents)];
        let enough = 2 * gpu.multiprocessors as usize;
        if self.is_columns() && places >= 32 * enough.min(16) {
            let grid = [count(places)?.div_ceil(32), 1, 1];
            let columns = launch("reduce_columns", grid, [32, 8, 1], data(extents));
            return Ok(Step { launches: vec![columns], ..Step::default() });
        }
        if elements <= WARP_ELEMENTS {
            let grid = [count(places)?.div_ceil(BLOCK / 32), 1, 1];
            let warp = launch("reduce_warp", grid, [BLOCK, 1, 1], data(extents));
            return Ok(Step { launches: vec![warp], ..Step::default() });
        }
        // As many blocks per place as fill the GPU, of at least SHARE elements each.
        let shares = (enough / places).min(elements / SHARE).max(1);
        let share = elements.div_ceil(shares);
        let shares = elements.div_ceil(share);
        let args = vec![
            Arg::Input(0),
            Arg::Output(0),
            Arg::Scratch(0),
            Arg::Bytes(extents),
            Arg::I32(count(share)? as i32),
        ];
        let grid = [count(places)?, count(shares)?, 1];
        let mut launches = vec![launch("reduce_block", grid, [BLOCK, 1, 1], args)];
        if shares > 1 {
            let args = vec![
                Arg::Scratch(0),
                Arg::Output(0),
                Arg::I32(count(places)? as i32),
                Arg::I32(count(shares)? as i32),
                Arg::I32(count(elements)? as i32),
            ];
            let grid = [count(places)?.div_ceil(BLOCK / 32), 1, 1];
            launches.push(launch("reduce_shares", grid, [BLOCK, 1, 1], args));
        }
        // A scratch address is wanted even where nothing is kept there.
        let scratch = if shares > 1 { places * shares * accumulator } else { accumulator };
        Ok(Step { launches, scratch, ..Step::default() })
    }
}
