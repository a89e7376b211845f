//! Attention over heads, with masks that are added or that hide keys.

use ov_core::{
    ElementType, Shape,
    op::{
        Op,
        attention::{Attention, ScaledDotProductAttention},
    },
};

use super::{
    Arg, Binding, Bound, Choice, Gpu, Kernel, Launch, Reject, Selecting, Source, Step,
    element::storage_type,
    host::{is_given, is_present},
    product::{BATCH_AXES, int},
    walk::{Record, Walk, broadcast_strides},
};

/// The family.
pub(super) const ATTENTION: Kernel = Kernel { name: "attention", select, bind };

const TEXT: &str = include_str!("cuda/attention.cu");

const MASK: usize = 3;
/// Of [`ScaledDotProductAttention`].
const SCALE: usize = 4;
/// Of [`Attention`].
const LENGTHS: usize = 4;
const OFFSETS: usize = 5;

fn is_attention(op: &dyn Op) -> bool {
    op.is::<ScaledDotProductAttention>() || op.is::<Attention>()
}

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    is_attention(node.op).then(|| choose(node))
}

fn choose(node: &Selecting<'_>) -> Result<Choice, Reject> {
    let ty = node.inputs[0].element_type;
    let float = |t| matches!(t, ElementType::F32 | ElementType::F16 | ElementType::Bf16);
    if !float(ty) || node.inputs[1..3].iter().any(|i| i.element_type != ty) {
        return Err(format!("takes queries, keys and values of f32, f16 or bf16, not {ty}").into());
    }
    let mut choice = Choice::default();
    if let Some(op) = node.op.downcast::<Attention>() {
        if op.scores_mode >= 0 {
            return Err("gives no scores".into());
        }
        for index in [LENGTHS, OFFSETS] {
            let ty = node.inputs.get(index).map(|i| i.element_type);
            if is_given(node, index)
                && ![Some(ElementType::I32), Some(ElementType::I64)].contains(&ty)
            {
                return Err("takes lengths and offsets of i32 or i64".into());
            }
        }
    } else if is_given(node, SCALE) {
        if node.inputs[SCALE].constant.is_none() {
            return Err("takes a constant scale".into());
        }
        choice.host.push(SCALE);
    }
    if is_given(node, MASK) {
        let mask = node.inputs[MASK].element_type;
        if !float(mask) && mask != ElementType::Boolean {
            return Err(format!("takes a mask of floats or booleans, not {mask}").into());
        }
    }
    Ok(choice)
}

/// What a query sees and how scores become weights, whichever operator says so.
struct Rules {
    causal: bool,
    /// Keys before and after a query's own, -1 for all.
    window: [i32; 2],
    smooth: bool,
    scale: f64,
    softcap: f64,
}

impl Rules {
    fn of(node: &Binding<'_>, e: usize) -> Result<Self, Reject> {
        let usual = 1.0 / (e as f64).sqrt();
        if let Some(op) = node.op.downcast::<Attention>() {
            let side = |v: i64| if v < 0 { -1 } else { v.min(FARTHEST) as i32 };
            return Ok(Self {
                causal: op.is_causal,
                window: [side(op.left_window_size), side(op.right_window_size)],
                smooth: op.smooth_softmax,
                scale: if op.scale == 0.0 { usual } else { op.scale },
                softcap: op.softcap.max(0.0),
            });
        }
        let scale = match node.inputs.get(SCALE).and_then(|i| i.value).filter(|t| !t.is_absent()) {
            Some(scale) => scale.element_as_f64(0).ok_or("takes a scale of one element")?,
            None => usual,
        };
        let causal = node.op.downcast::<ScaledDotProductAttention>().is_some_and(|op| op.causal);
        Ok(Self { causal, window: [-1; 2], smooth: false, scale, softcap: 0.0 })
    }
}

/// Beyond this a window is as good as none.
const FARTHEST: i64 = 1 << 28;

/// The problems: their batch, and how far q, k, v and the mask go along each of its axes.
struct Batch {
    extents: [usize; BATCH_AXES],
    steps: [[i64; BATCH_AXES]; 4],
    /// Heads that share the keys of a problem, and how far the mask goes from one to the next.
    heads: usize,
    mask_head: i64,
}

fn outer(shape: &Shape) -> &[usize] {
    &shape[..shape.rank() - 2]
}

impl Batch {
    /// `block`: elements of the queries of a head.
    fn of(dims: &[usize], strides: &[Vec<i64>; 4], block: usize) -> Result<Self, Reject> {
        let mut walk = Walk::merged(dims, strides);
        let last = |walk: &Walk, of: usize| walk.strides[of].last().copied().unwrap_or(0);
        let shares = last(&walk, 0) == block as i64 && last(&walk, 1) == 0 && last(&walk, 2) == 0;
        let (mut heads, mut mask_head) = (1, 0);
        if shares && walk.dims.last().is_some_and(|d| *d > 1) {
            heads = walk.dims.pop().unwrap_or(1);
            mask_head = last(&walk, 3);
            for strides in &mut walk.strides {
                strides.pop();
            }
        }
        let Some(first) = BATCH_AXES.checked_sub(walk.dims.len()) else {
            return Err("takes batches of at most four axes".into());
        };
        let mut batch =
            Self { extents: [1; BATCH_AXES], steps: [[0; BATCH_AXES]; 4], heads, mask_head };
        batch.extents[first..].copy_from_slice(&walk.dims);
        for (steps, strides) in batch.steps.iter_mut().zip(&walk.strides) {
            steps[first..].copy_from_slice(strides);
        }
        Ok(batch)
    }

    fn problems(&self) -> usize {
        self.extents.iter().product()
    }
}

/// How the rows and keys of a problem are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    warps: usize,
    keys: usize,
    stages: usize,
    /// Elements of a key and of a value (or a part of it), with zeros up to what the fragments need.
    e: usize,
    ev: usize,
}

impl Tile {
    /// Rows of a warp.
    const fn rows(size: usize) -> usize {
        if size == 2 { 16 } else { 8 }
    }

    /// Bytes of queries and buffers.
    fn shared(self, size: usize) -> usize {
        let (k, v) = (self.e + 16 / size, self.ev + 16 / size);
        let rows = self.warps * Self::rows(size);
        let elements = rows * k + self.stages * self.keys * (k + v);
        let weights = if size == 2 { 0 } else { rows * (self.keys + 4) * 4 };
        elements * size + weights
    }

    /// The largest tile that the shared memory has room for, with so few rows that every multiprocessor has work.
    fn choose(
        size: usize,
        [e, ev]: [usize; 2],
        rows: usize,
        problems: usize,
        gpu: Gpu,
    ) -> Result<Self, Reject> {
        let (e_unit, ev_unit) = if size == 2 { (16, 16) } else { (4, 32) };
        let padded = |v: usize, unit: usize| v.next_multiple_of(unit).max(unit);
        let (e, ev) = (padded(e, e_unit), padded(ev, ev_unit).min(most_values(size)));
        let wide = e.max(ev) > if size == 2 { 128 } else { 64 };
        let blocks = |warps: usize| rows.div_ceil(warps * Self::rows(size)) * problems;
        let mut warps = 4;
        let few = |warps: usize| blocks(warps) < gpu.multiprocessors as usize;
        while warps > 1 && (few(warps) || rows <= warps / 2 * Self::rows(size)) {
            warps /= 2;
        }
        let all = [(64, 2), (32, 2), (32, 1), (16, 2), (16, 1)];
        // Scores and sums share the registers.
        let most_keys = if wide { 32 } else { 64 };
        while warps > 0 {
            let tiles = all.iter().filter(|(keys, _)| *keys <= most_keys);
            let mut tiles =
                tiles.map(|(keys, stages)| Self { warps, keys: *keys, stages: *stages, e, ev });
            if let Some(tile) = tiles.find(|t| t.shared(size) <= gpu.shared_per_block as usize) {
                return Ok(tile);
            }
            warps /= 2;
        }
        Err(format!("takes heads that fit the shared memory, not {e} elements").into())
    }
}

/// Elements of a value in one block at most: so many sums fit the registers.
const fn most_values(size: usize) -> usize {
    if size == 2 { 128 } else { 256 }
}
/// Steps along the keys that a block has at least when several share a row: fewer do not pay for adding the shares.
const LEAST_STEPS: usize = 2;
/// Blocks that share a row's keys at most.
const MOST_SHARES: usize = 32;

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let (q, k, v, y) =
        (node.inputs[0].shape, node.inputs[1].shape, node.inputs[2].shape, node.outputs[0].shape);
    let rank = y.rank();
    let [queries, e] = q[rank - 2..] else { return Err("takes matrices".into()) };
    let (keys, ev) = (k[rank - 2], v[rank - 1]);
    if y.iter().product::<usize>() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    let rules = Rules::of(node, e)?;
    let grouped = node.op.is::<Attention>();
    // The mask of the one operator is not read when it is causal.
    let masked = is_present(node, MASK) && (grouped || !rules.causal);
    // Heads in groups that share keys are one more axis.
    let mut dims = outer(y).to_vec();
    let share = if grouped { dims[1].checked_div(k[1]).unwrap_or(1) } else { 1 };
    let split = |mut strides: Vec<i64>, shared: bool| {
        if grouped {
            let head = strides[1];
            strides[1] = if shared { head } else { head * share as i64 };
            strides.push(if shared { 0 } else { head });
        }
        strides
    };
    let steps = |shape: &Shape, size: usize, dims: &[usize]| -> Result<Vec<i64>, Reject> {
        Ok(broadcast_strides(outer(shape), dims)?.into_iter().map(|s| s * size as i64).collect())
    };
    let key_dims = if grouped { vec![dims[0], k[1]] } else { dims.clone() };
    let mut mask_strides = vec![0; rank];
    let mut masked_keys = keys;
    if masked {
        let mask = node.inputs[MASK].shape;
        let mut whole = dims.clone();
        whole.extend([queries, keys]);
        // A mask of fewer keys hides the rest.
        if grouped && let Some(last) = mask.last().filter(|last| **last < keys) {
            masked_keys = *last;
            whole[rank - 1] = *last;
        }
        mask_strides = broadcast_strides(mask, &whole)?;
    }
    let (mask_row, mask_column) = (mask_strides[rank - 2], mask_strides[rank - 1]);
    let strides = [
        split(steps(q, queries * e, &dims)?, false),
        split(steps(k, keys * e, &key_dims)?, true),
        split(steps(v, keys * ev, &key_dims)?, true),
        split(mask_strides[..rank - 2].to_vec(), false),
    ];
    let samples = if grouped { dims[0] } else { 1 };
    if grouped {
        dims = vec![dims[0], k[1], share];
    }
    let batch = Batch::of(&dims, &strides, queries * e)?;
    let ty = node.inputs[0].element_type;
    let size = ty.bits() / 8;
    let rows = queries * batch.heads;
    let parts = ev.div_ceil(most_values(size));
    let tile = Tile::choose(size, [e, ev], rows, batch.problems() * parts, node.gpu)?;
    let tiles = rows.div_ceil(tile.warps * Tile::rows(size));
    let blocks = tiles * parts * batch.problems();
    let idle = 2 * node.gpu.multiprocessors as usize / blocks.max(1);
    let shares = idle.min(keys.div_ceil(tile.keys) / LEAST_STEPS).clamp(1, MOST_SHARES);
    let count = |index: usize| is_present(node, index).then(|| node.inputs[index].shape.elements());
    let given = |index: usize| if grouped { count(index) } else { None };
    let (lengths, offsets) = (given(LENGTHS), given(OFFSETS));
    if [lengths, offsets].iter().flatten().any(|n| *n != 1 && *n != samples) {
        return Err("takes one length and one offset, or one for each sample".into());
    }
    let each = |n: Option<usize>| i32::from(n.is_some_and(|n| n > 1));

    let mut r = Record::default();
    for extent in [rows, queries, keys, e, ev, masked_keys, usize::from(rules.causal)] {
        r.i32(int(extent)?);
    }
    r.i32(rules.window[0]).i32(rules.window[1]).i32(i32::from(rules.smooth));
    r.f32(rules.scale as f32).f32(rules.softcap as f32);
    for extent in [tiles, parts, shares, (batch.problems() / samples.max(1)).max(1)] {
        r.i32(int(extent)?);
    }
    r.i32(each(lengths)).i32(each(offsets));
    for extent in batch.extents {
        r.i32(int(extent)?);
    }
    for step in batch.steps.iter().flatten().chain([&batch.mask_head, &mask_row, &mask_column]) {
        r.i64(*step);
    }
    let optional = |given: bool, index: usize| if given { Arg::Input(index) } else { Arg::I64(0) };
    let type_of = |given: bool, index: usize| given.then(|| node.inputs[index].element_type);
    let variant = Variant {
        ty,
        mask: type_of(masked, MASK),
        lengths: type_of(lengths.is_some(), LENGTHS),
        offsets: type_of(offsets.is_some(), OFFSETS),
        softcap: rules.softcap > 0.0,
        aligned: [e, ev].map(|n| (n * size).is_multiple_of(16)),
        tile,
    };
    let counters = if shares > 1 { blocks * 4 } else { 0 };
    let begin = counters.next_multiple_of(256);
    let part = tile.warps * 32 * (2 * tile.ev / if size == 2 { 4 } else { 8 } + 4) * 4;
    let scratch = if shares > 1 { begin + blocks * shares * part } else { 0 };
    let shared = |at: usize| if shares > 1 { Arg::Scratch(at) } else { Arg::I64(0) };
    let launch = Launch {
        source: variant.source(),
        function: "attention".into(),
        grid: [int(blocks)?.unsigned_abs(), shares as u32, 1],
        block: [32 * tile.warps as u32, 1, 1],
        shared: tile.shared(size) as u32,
        args: vec![
            Arg::Input(0),
            Arg::Input(1),
            Arg::Input(2),
            optional(masked, MASK),
            optional(lengths.is_some(), LENGTHS),
            optional(offsets.is_some(), OFFSETS),
            Arg::Output(0),
            shared(begin),
            shared(0),
            Arg::Bytes(r.bytes()),
        ],
    };
    Ok(Bound::Step(Step { launches: vec![launch], scratch, zeroed: counters, ..Step::default() }))
}

/// What a module is made for.
struct Variant {
    ty: ElementType,
    mask: Option<ElementType>,
    lengths: Option<ElementType>,
    offsets: Option<ElementType>,
    softcap: bool,
    /// Whether keys, and values, are copied 16 bytes at a time.
    aligned: [bool; 2],
    tile: Tile,
}

impl Variant {
    fn source(&self) -> Source {
        let name = |ty: Option<ElementType>, none: &str| {
            ty.and_then(storage_type).unwrap_or(none).to_owned()
        };
        let whole = 128 / self.ty.bits();
        let vector = |aligned: bool| if aligned { whole } else { 1 };
        let number = |v: usize| v.to_string();
        Source {
            body: TEXT.into(),
            defines: vec![
                ("OV_T", name(Some(self.ty), "float")),
                ("OV_M", name(self.mask, "unsigned char")),
                ("OV_MASK", number(usize::from(self.mask.is_some()))),
                ("OV_LENGTH", name(self.lengths, "int")),
                ("OV_OFFSET", name(self.offsets, "int")),
                ("OV_SOFTCAP", number(usize::from(self.softcap))),
                ("OV_E", number(self.tile.e)),
                ("OV_EV", number(self.tile.ev)),
                ("OV_KEYS", number(self.tile.keys)),
                ("OV_STAGES", number(self.tile.stages)),
                ("OV_WARPS", number(self.tile.warps)),
                ("OV_THREADS", number(32 * self.tile.warps)),
                ("OV_K_VECTOR", number(vector(self.aligned[0]))),
                ("OV_V_VECTOR", number(vector(self.aligned[1]))),
            ],
        }
    }
}

/// Heads of usual extents, with and without masks, for many rows and few.
#[cfg(test)]
pub(crate) fn ladder() -> Vec<Source> {
    use ElementType::{Bf16, Boolean, F16, F32, I32, I64};
    let gpu = |shared: u32| Gpu {
        capability: (9, 0),
        multiprocessors: 132,
        shared_per_block: shared << 10,
    };
    let variant = |ty: ElementType, mask, e: usize, rows: usize, shared| {
        let tile = Tile::choose(ty.bits() / 8, [e, e], rows, 132, gpu(shared)).ok()?;
        let aligned = [(e * ty.bits()).is_multiple_of(128); 2];
        Some(Variant { ty, mask, lengths: None, offsets: None, softcap: false, aligned, tile })
    };
    let mut all: Vec<Variant> = [
        variant(F32, Some(F32), 256, 512, 227),
        variant(F32, None, 64, 512, 227),
        variant(F32, Some(F32), 128, 1, 99),
        variant(F16, Some(F16), 64, 512, 227),
        variant(F16, None, 64, 1, 227),
        variant(Bf16, Some(Boolean), 128, 512, 227),
        variant(Bf16, Some(F32), 256, 512, 99),
        variant(Bf16, None, 512, 512, 99),
        variant(Bf16, None, 40, 64, 99),
        variant(Bf16, None, 9, 512, 99),
    ]
    .into_iter()
    .flatten()
    .collect();
    all.extend(variant(Bf16, Some(Bf16), 128, 1, 99).map(|v| Variant {
        lengths: Some(I64),
        offsets: Some(I32),
        softcap: true,
        ..v
    }));
    all.iter().map(Variant::source).collect()
}
