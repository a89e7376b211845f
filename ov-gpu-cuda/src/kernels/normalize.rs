//! Normalization by statistics of the data: layers, groups, axes, root mean squares, vector lengths.

use std::borrow::Cow;

use ov_core::{
    ElementType,
    op::{
        fused::group_norm::GroupNormLast,
        normalization::{
            GroupNormalization, LayerNormalization, Mvn, MvnEpsilon, NormalizeL2, NormalizeL2Mode,
            RmsNorm,
        },
    },
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::{compute_type, storage_type, unsupported},
    host::{axes_from_front, choice, from_front, integers, is_present},
    softmax::block_for,
    walk::{Walk, broadcast_strides, count, dense_strides},
};

/// The family.
pub(super) const NORMALIZE: Kernel = Kernel { name: "normalize", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/walk.cuh"),
    include_str!("cuda/formula.cuh"),
    include_str!("cuda/group.cuh"),
    include_str!("cuda/accumulate.cuh"),
    include_str!("cuda/normalize.cu"),
);

/// What the sum of squares becomes: `inverse` of `normalize.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Divisor {
    RootOfMean = 0,
    RootOfMeanOutside = 1,
    RootOfSum = 2,
    RootOfSumAtLeast = 3,
    None = 4,
}

/// A normalization of a dense array, split into axes that may be finer than the tensor's.
struct Plan {
    dims: Vec<usize>,
    /// Per dimension whether a group runs along it.
    grouped: Vec<bool>,
    /// Strides of scale and bias, where there are any.
    scale: Option<Vec<i64>>,
    bias: Option<Vec<i64>>,
    centred: bool,
    divisor: Divisor,
    epsilon: f64,
}

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let op = node.op;
    let host: &[usize] = if op.is::<Mvn>() || op.is::<NormalizeL2>() {
        &[1]
    } else if op.is::<LayerNormalization>()
        || op.is::<RmsNorm>()
        || op.is::<GroupNormalization>()
        || op.is::<GroupNormLast>()
    {
        &[]
    } else {
        return None;
    };
    let ty = node.inputs.first()?.element_type;
    if !ty.is_float() {
        return Some(Err(unsupported(ty)));
    }
    Some(choice(node, host))
}

/// Groups along the last axes of `shape`, from `axis` on, with parameters that broadcast to the layer or to everything.
fn layers(node: &Binding<'_>, axis: i64, epsilon: f64, centred: bool) -> Result<Plan, Reject> {
    let shape = node.inputs[0].shape;
    let axis = from_front(axis, shape.rank())?;
    let parameter = |index: usize| -> Result<Option<Vec<i64>>, Reject> {
        if !is_present(node, index) {
            return Ok(None);
        }
        broadcast_strides(node.inputs[index].shape, shape).map(Some)
    };
    Ok(Plan {
        dims: shape.to_vec(),
        grouped: (0..shape.rank()).map(|i| i >= axis).collect(),
        scale: parameter(1)?,
        bias: parameter(2)?,
        centred,
        divisor: Divisor::RootOfMean,
        epsilon,
    })
}

/// Groups along the axes that input 1 names.
fn axes(node: &Binding<'_>, centred: bool, divisor: Divisor, epsilon: f64) -> Result<Plan, Reject> {
    let shape = node.inputs[0].shape;
    let axes = axes_from_front(&integers(node, 1)?, shape.rank())?;
    Ok(Plan {
        dims: shape.to_vec(),
        grouped: (0..shape.rank()).map(|i| axes.contains(&i)).collect(),
        scale: None,
        bias: None,
        centred,
        divisor,
        epsilon,
    })
}

fn plan(node: &Binding<'_>) -> Result<Plan, Reject> {
    if let Some(op) = node.op.downcast::<LayerNormalization>() {
        return layers(node, op.axis, op.epsilon, true);
    }
    if let Some(op) = node.op.downcast::<RmsNorm>() {
        return layers(node, op.axis, op.epsilon, false);
    }
    if let Some(op) = node.op.downcast::<Mvn>() {
        let divisor = match (op.normalize_variance, op.eps_mode) {
            (false, _) => Divisor::None,
            (true, MvnEpsilon::InsideSqrt) => Divisor::RootOfMean,
            (true, MvnEpsilon::OutsideSqrt) => Divisor::RootOfMeanOutside,
        };
        return axes(node, true, divisor, op.eps);
    }
    if let Some(op) = node.op.downcast::<NormalizeL2>() {
        let divisor = match op.eps_mode {
            NormalizeL2Mode::Add => Divisor::RootOfSum,
            NormalizeL2Mode::Max => Divisor::RootOfSumAtLeast,
        };
        return axes(node, false, divisor, op.eps);
    }
    if let Some(op) = node.op.downcast::<GroupNormLast>() {
        let (channels, shape) = (node.inputs[0].shape.last(), node.inputs[0].shape);
        let (groups, members) = groups(op.num_groups, channels, shape)?;
        let pixels = shape[1..shape.rank() - 1].iter().product();
        return Ok(Plan {
            dims: vec![shape[0], pixels, groups, members],
            grouped: vec![false, true, false, true],
            ..group_plan(op.epsilon, vec![0, 0, members as i64, 1])
        });
    }
    let op: &GroupNormalization = node.op.downcast().ok_or("is another operator")?;
    let shape = node.inputs[0].shape;
    let (groups, members) = groups(op.num_groups, shape.get(1), shape)?;
    Ok(Plan {
        dims: vec![shape[0], groups, members, shape[2..].iter().product()],
        grouped: vec![false, false, true, true],
        ..group_plan(op.epsilon, vec![0, members as i64, 1, 0])
    })
}

/// Groups of `shape`, and the channels of each.
fn groups(
    groups: i64,
    channels: Option<&usize>,
    shape: &[usize],
) -> Result<(usize, usize), Reject> {
    let count = usize::try_from(groups).ok().filter(|g| *g > 0 && shape.len() >= 2);
    count
        .zip(channels)
        .filter(|(groups, channels)| channels.is_multiple_of(*groups))
        .map(|(groups, channels)| (groups, channels / groups))
        .ok_or_else(|| Reject::from(format!("{groups} groups of {shape:?}")))
}

/// A normalization of groups with scale and bias per channel, which have these strides.
fn group_plan(epsilon: f64, per_channel: Vec<i64>) -> Plan {
    Plan {
        dims: Vec::new(),
        grouped: Vec::new(),
        scale: Some(per_channel.clone()),
        bias: Some(per_channel),
        centred: true,
        divisor: Divisor::RootOfMean,
        epsilon,
    }
}

impl Plan {
    /// The walk over the dimensions along which groups run, or over the others.
    fn walk(&self, grouped: bool) -> Walk {
        let dense = dense_strides(&self.dims);
        let chosen: Vec<usize> =
            (0..self.dims.len()).filter(|i| self.grouped[*i] == grouped).collect();
        let pick = |v: &Vec<i64>| chosen.iter().map(|i| v[*i]).collect::<Vec<i64>>();
        let none = vec![0; self.dims.len()];
        let strides =
            [&dense, self.scale.as_ref().unwrap_or(&none), self.bias.as_ref().unwrap_or(&none)];
        let dims: Vec<usize> = chosen.iter().map(|i| self.dims[*i]).collect();
        Walk::merged(&dims, &strides.map(pick))
    }
}

/// Threads of a block, and vectors per thread, of the kernel for dense rows.
struct Rows {
    threads: u32,
    chunks: usize,
}

impl Rows {
    /// Most threads of a block, and vectors that one keeps in registers.
    const THREADS: usize = 256;
    const CHUNKS: usize = 8;

    /// Groups of whole vectors of `lanes` neighbours in each operand that is there; `None` for others.
    fn new(kept: &Walk, reduced: &Walk, used: [bool; 3], lanes: usize) -> Option<Self> {
        let whole = |v: &i64| v.unsigned_abs().is_multiple_of(lanes as u64);
        let dense = (0..3)
            .filter(|i| used[*i])
            .all(|i| reduced.strides[i] == [1] && kept.strides[i].iter().all(whole));
        let len = reduced.len();
        if !dense || len == 0 || !len.is_multiple_of(lanes) {
            return None;
        }
        let vectors = len / lanes;
        let threads = vectors.next_multiple_of(32).min(Self::THREADS);
        let chunks = vectors.div_ceil(threads).next_power_of_two();
        (chunks <= Self::CHUNKS).then_some(Self { threads: threads as u32, chunks })
    }
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let plan = plan(node)?;
    let (kept, reduced) = (plan.walk(false), plan.walk(true));
    // Statistics of empty groups are NaN: a group is there even when it has no elements.
    let statistics = node.outputs.len() > 2;
    if kept.len() == 0 || (reduced.len() == 0 && !statistics) {
        return Ok(Bound::Step(Step::default()));
    }
    let storage = |ty: ElementType| storage_type(ty).ok_or_else(|| unsupported(ty));
    let x = node.inputs[0].element_type;
    let compute = compute_type(x).ok_or_else(|| unsupported(x))?;
    let input = |index: usize| node.inputs.get(index).map_or(x, |i| i.element_type);
    let output = |index: usize| node.outputs.get(index).map_or(x, |o| o.element_type);
    let flag = |set: bool| u8::from(set).to_string();
    let (scaled, biased) = (plan.scale.is_some(), plan.bias.is_some());
    let lanes = (16 / x.bits().div_ceil(8)).max(1);
    let rows = Rows::new(&kept, &reduced, [true, scaled, biased], lanes);
    let defines = vec![
        ("OV_LANES", lanes.to_string()),
        ("OV_CHUNKS", rows.as_ref().map_or(1, |r| r.chunks).to_string()),
        ("OV_X", storage(x)?.to_owned()),
        ("OV_S", storage(if scaled { input(1) } else { x })?.to_owned()),
        ("OV_B", storage(if biased { input(2) } else { x })?.to_owned()),
        ("OV_Y", storage(output(0))?.to_owned()),
        ("OV_M", storage(if statistics { output(1) } else { x })?.to_owned()),
        ("OV_V", compute.to_owned()),
        ("OV_SCALED", flag(scaled)),
        ("OV_BIASED", flag(biased)),
        ("OV_CENTRED", flag(plan.centred)),
        ("OV_STATISTICS", flag(statistics)),
    ];
    let mut extents = kept.record()?.bytes();
    extents.extend(reduced.record()?.bytes());
    let (function, threads) = match (rows, block_for(reduced.len())) {
        (Some(rows), _) => ("group_rows", rows.threads),
        (None, (threads, true)) => ("group_small", threads),
        (None, (threads, false)) => ("group_large", threads),
    };
    let epsilon = if compute == "double" {
        Arg::Bytes(plan.epsilon.to_le_bytes().to_vec())
    } else {
        Arg::F32(plan.epsilon as f32)
    };
    // Pointers that the kernel does not follow may be any.
    let launch = Launch {
        source: Source { body: Cow::Borrowed(TEXT), defines },
        function: function.into(),
        grid: [count(kept.len())?, 1, 1],
        block: [threads, 1, 1],
        shared: 0,
        args: vec![
            Arg::Input(0),
            Arg::Input(if scaled { 1 } else { 0 }),
            Arg::Input(if biased { 2 } else { 0 }),
            Arg::Output(0),
            Arg::Output(if statistics { 1 } else { 0 }),
            Arg::Output(if statistics { 2 } else { 0 }),
            Arg::Bytes(extents),
            Arg::I32(plan.divisor as i32),
            epsilon,
        ],
    };
    Ok(Bound::Step(Step { launches: vec![launch], ..Step::default() }))
}
