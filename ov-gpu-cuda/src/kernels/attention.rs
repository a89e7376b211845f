//! Attention over heads, with masks that are added or that hide keys.

use ov_core::{
    ElementType, Shape,
    op::{
        Op,
        attention::{Attention, ScaledDotProductAttention},
    },
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step,
    element::storage_type,
    host::{is_given, is_present},
    product::{BATCH_AXES, int},
    walk::{Record, Walk, broadcast_strides},
};

/// The family.
pub(super) const ATTENTION: Kernel = Kernel { name: "attention", select, bind };

const TEXT: &str = include_str!("cuda/attention.cu");

const MASK: usize = 3;
const SCALE: usize = 4;
/// Queries of a block, keys of a step, threads of a block: as in the text.
const QUERIES: usize = 16;
const KEYS: usize = 32;
const THREADS: u32 = 128;
/// Elements of a value at most: 32 lanes with 8 sums each.
const MOST_VALUES: usize = 256;

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
        let plain = op.softcap == 0.0
            && op.left_window_size < 0
            && op.right_window_size < 0
            && !op.smooth_softmax
            && op.scores_mode < 0;
        if !plain || is_given(node, 4) || is_given(node, 5) {
            let reason =
                "takes no window, softcap, smooth softmax, lengths or offsets, and gives no scores";
            return Err(reason.into());
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
    for (index, of) in [(0, "queries"), (2, "values")] {
        let shape = node.inputs[index].shape;
        let last = shape.rank().and_then(|r| shape.dim(r - 1).value());
        match last.map(usize::try_from) {
            Some(Ok(extent)) if extent <= MOST_VALUES => {}
            _ => {
                return Err(format!(
                    "takes {of} of a known extent up to {MOST_VALUES}, not {shape}"
                )
                .into());
            }
        }
    }
    Ok(choice)
}

/// A batch of problems: its axes, and how far q, k, v and the mask go along each.
struct Batch {
    extents: [usize; BATCH_AXES],
    steps: [[i64; BATCH_AXES]; 4],
}

fn outer(shape: &Shape) -> &[usize] {
    &shape[..shape.rank() - 2]
}

impl Batch {
    fn of(dims: &[usize], strides: &[Vec<i64>; 4]) -> Result<Self, Reject> {
        let walk = Walk::merged(dims, strides);
        let Some(first) = BATCH_AXES.checked_sub(walk.dims.len()) else {
            return Err("takes batches of at most four axes".into());
        };
        let mut batch = Self { extents: [1; BATCH_AXES], steps: [[0; BATCH_AXES]; 4] };
        batch.extents[first..].copy_from_slice(&walk.dims);
        for (steps, strides) in batch.steps.iter_mut().zip(&walk.strides) {
            steps[first..].copy_from_slice(strides);
        }
        Ok(batch)
    }
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let (q, k, v, y) =
        (node.inputs[0].shape, node.inputs[1].shape, node.inputs[2].shape, node.outputs[0].shape);
    let rank = y.rank();
    let [queries, e] = q[rank - 2..] else { return Err("takes matrices".into()) };
    let (keys, ev) = (k[rank - 2], v[rank - 1]);
    if y.iter().product::<usize>() == 0 {
        return Ok(Bound::Step(Step::default()));
    }
    let grouped = node.op.downcast::<Attention>();
    let causal = grouped.map_or_else(
        || node.op.downcast::<ScaledDotProductAttention>().is_some_and(|op| op.causal),
        |op| op.is_causal,
    );
    // The mask of the one operator is not read when it is causal.
    let masked = is_present(node, MASK) && (grouped.is_some() || !causal);
    // Heads in groups that share keys are one more axis.
    let mut dims = outer(y).to_vec();
    let share = match grouped {
        Some(_) => dims[1].checked_div(k[1]).unwrap_or(1),
        None => 1,
    };
    let split = |mut strides: Vec<i64>, shared: bool| {
        if grouped.is_some() {
            let head = strides[1];
            strides[1] = if shared { head } else { head * share as i64 };
            strides.push(if shared { 0 } else { head });
        }
        strides
    };
    let steps = |shape: &Shape, size: usize, dims: &[usize]| -> Result<Vec<i64>, Reject> {
        Ok(broadcast_strides(outer(shape), dims)?.into_iter().map(|s| s * size as i64).collect())
    };
    let key_dims = match grouped {
        Some(_) => vec![dims[0], k[1]],
        None => dims.clone(),
    };
    let mut mask_strides = vec![0; rank];
    let mut masked_keys = keys;
    if masked {
        let mask = node.inputs[MASK].shape;
        let mut whole = dims.clone();
        whole.extend([queries, keys]);
        // A mask of fewer keys hides the rest.
        if let (Some(_), Some(last)) = (grouped, mask.last())
            && *last > 1
            && *last < keys
        {
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
    if grouped.is_some() {
        dims = vec![dims[0], k[1], share];
    }
    let batch = Batch::of(&dims, &strides)?;
    let scale = match (grouped.map(|op| op.scale), node.inputs.get(SCALE).and_then(|i| i.value)) {
        (Some(scale), _) if scale != 0.0 => scale,
        (None, Some(scale)) if !scale.is_absent() => {
            scale.element_as_f64(0).ok_or("takes a scale of one element")?
        }
        _ => 1.0 / (e as f64).sqrt(),
    };
    let ty = node.inputs[0].element_type;
    let tiles = queries.div_ceil(QUERIES);
    let mut r = Record::default();
    for extent in [queries, keys, e, ev, masked_keys, usize::from(causal)] {
        r.i32(int(extent)?);
    }
    r.f32(scale as f32).i32(int(tiles)?);
    for extent in batch.extents {
        r.i32(int(extent)?);
    }
    for step in batch.steps.iter().flatten().chain([&mask_row, &mask_column]) {
        r.i64(*step);
    }
    let size = ty.bits() / 8;
    let shared = (QUERIES * (e + KEYS)) * 4 + KEYS * (e + 4 / size + ev) * size;
    let mask_type = masked.then(|| node.inputs[MASK].element_type);
    let blocks = batch.extents.iter().product::<usize>() * tiles;
    let launch = Launch {
        source: source(ty, mask_type, ev),
        function: "attention".into(),
        grid: [int(blocks)?.unsigned_abs(), 1, 1],
        block: [THREADS, 1, 1],
        shared: shared as u32,
        args: vec![
            Arg::Input(0),
            Arg::Input(1),
            Arg::Input(2),
            if masked { Arg::Input(MASK) } else { Arg::I64(0) },
            Arg::Output(0),
            Arg::Bytes(r.bytes()),
        ],
    };
    Ok(Bound::Step(Step { launches: vec![launch], ..Step::default() }))
}

fn source(ty: ElementType, mask: Option<ElementType>, ev: usize) -> Source {
    let name = |ty| storage_type(ty).unwrap_or("float").to_owned();
    Source {
        body: TEXT.into(),
        defines: vec![
            ("OV_T", name(ty)),
            ("OV_M", mask.map_or_else(|| "unsigned char".to_owned(), name)),
            ("OV_MASK", usize::from(mask.is_some()).to_string()),
            ("OV_CHUNKS", ev.div_ceil(32).to_string()),
        ],
    }
}

/// Heads of usual extents, with and without masks.
#[cfg(test)]
pub(crate) fn ladder() -> Vec<Source> {
    vec![
        source(ElementType::F32, Some(ElementType::F32), 256),
        source(ElementType::F32, None, 64),
        source(ElementType::F16, Some(ElementType::F16), 64),
        source(ElementType::Bf16, Some(ElementType::Boolean), 128),
        source(ElementType::Bf16, Some(ElementType::F32), 256),
    ]
}
