//! Attention over heads, with masks that are added or that hide keys.

use std::ops::Range;

use ov_core::{
    ElementType, Shape, Tensor,
    op::{
        Op, OpAttributes, OpResult,
        attention::{Attention, ScaledDotProductAttention},
    },
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, cost, reference};
use crate::{
    kernels::attention::{self, Mask, Strides, attention_f32},
    simd::Isa,
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[KernelEntry {
    name: "attention_f32",
    ops: &[ScaledDotProductAttention::KIND, Attention::KIND],
    select,
    bind,
}];

const MASK: usize = 3;
const SCALE: usize = 4;

/// Elements of a mask that every thread may write out for itself.
const WRITTEN_MASK: usize = 1 << 20;

fn is_absent(tensor: Option<&Tensor>) -> bool {
    tensor.is_some_and(Tensor::is_absent)
}

fn is_causal(op: &dyn Op) -> bool {
    op.downcast::<ScaledDotProductAttention>().is_some_and(|o| o.causal)
        || op.downcast::<Attention>().is_some_and(|o| o.is_causal)
}

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    view.expect_f32(&[MASK, SCALE, 5])?;
    let given = |i: usize| view.inputs.get(i).filter(|d| !is_absent(d.constant));
    if let Some(op) = view.op.downcast::<Attention>() {
        if op.scores_mode >= 0 {
            return Err("gives no scores".into());
        }
        let plain = op.softcap == 0.0
            && op.left_window_size < 0
            && op.right_window_size < 0
            && !op.smooth_softmax;
        if !plain || given(4).is_some() || given(5).is_some() {
            return Err("takes no window, softcap, smooth softmax, lengths or offsets".into());
        }
    } else if given(SCALE).is_some_and(|d| d.element_type != ElementType::F32) {
        return Err("takes a scale of f32".into());
    }
    if let Some(mask) = given(MASK)
        && ![ElementType::F32, ElementType::Boolean].contains(&mask.element_type)
    {
        return Err(format!("takes no mask of {}", mask.element_type).into());
    }
    if (0..3).any(|i| view.inputs[i].shape.rank().is_some_and(|r| r > 4)) {
        return Err("takes at most two axes of batches".into());
    }
    Ok(Choice::default())
}

/// The extents with ones in front.
fn four(shape: &Shape) -> Option<[usize; 4]> {
    let mut dims = [1; 4];
    dims.get_mut(4usize.checked_sub(shape.rank())?..)?.copy_from_slice(shape);
    Some(dims)
}

/// Strides of a contiguous operand; 0 along axes that repeat.
fn strides(dims: [usize; 4]) -> Strides {
    let [batch, heads, rows, width] = dims;
    let along = |extent: usize, stride: usize| if extent == 1 { 0 } else { stride };
    Strides {
        batch: along(batch, heads * rows * width),
        head: along(heads, rows * width),
        row: along(rows, width),
    }
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    match plan(cx) {
        Some(step) => Bound::step(step),
        // The reference also says what is wrong with shapes that do not fit.
        None => (reference::KERNELS[0].bind)(cx),
    }
}

fn plan(cx: &BindContext<'_>) -> Option<AttentionStep> {
    let [q, k, v] = [0, 1, 2].map(|i| four(cx.inputs[i].shape));
    let (q, k, v, y) = (q?, k?, v?, four(cx.outputs[0].shape)?);
    let (batch, heads, depth) = (y[0], y[1], q[3]);
    let general = cx.op.downcast::<Attention>();
    let kv_heads = if general.is_some() { k[1] } else { heads };
    let repeats = |dims: [usize; 4], heads: usize| {
        [(dims[0], batch), (dims[1], heads)].iter().all(|(d, all)| *d == 1 || d == all)
    };
    let fits = repeats(q, heads) && repeats(k, kv_heads) && repeats(v, kv_heads);
    let fits = fits && k[3] == depth && k[2] == v[2] && q[2] == y[2] && v[3] == y[3];
    if !fits || depth == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return None;
    }
    let given = |i: usize| cx.inputs.get(i).filter(|d| !is_absent(d.value));
    let causal = is_causal(cx.op);
    let mask = match given(MASK).filter(|_| general.is_some() || !causal) {
        Some(m) => Some(MaskForm::new(
            four(m.shape)?,
            [batch, heads, q[2], k[2]],
            m.element_type == ElementType::Boolean,
            general.is_some(),
        )?),
        None => None,
    };
    let scale = general.map_or(0.0, |o| o.scale);
    let scale_input = general.is_none() && given(SCALE).is_some();
    if scale_input && cx.inputs[SCALE].shape.elements() == 0 {
        return None;
    }
    let attention = attention::Attention {
        batch,
        heads,
        kv_heads,
        queries: q[2],
        keys: k[2],
        depth,
        value_depth: v[3],
        scale: if scale == 0.0 { 1.0 / (depth as f32).sqrt() } else { scale as f32 },
        causal: causal.then_some(0),
        q: Strides { row: depth, ..strides(q) },
        k: Strides { row: depth, ..strides(k) },
        v: Strides { row: v[3], ..strides(v) },
        out: Strides { row: v[3], ..strides(y) },
    };
    let scores = (batch * heads * q[2] * k[2]) as f64;
    let elements: usize = [q, k, v, y].iter().map(|d| d.iter().product::<usize>()).sum();
    let work = scores * (2.0 * (depth + v[3]) as f64 + 20.0);
    Some(AttentionStep {
        isa: cx.isa,
        attention,
        mask,
        scale_input,
        cost: cost::ns(work, 4.0 * elements as f64),
    })
}

/// How a mask is read.
#[derive(Clone, Copy, Debug)]
struct MaskForm {
    boolean: bool,
    /// Rows of the mask and their extent.
    rows: usize,
    width: usize,
    /// Whether a row that is shorter than the keys hides the rest, or is one value that repeats.
    pads: bool,
    keys: usize,
    /// Strides of the rows once they are as long as the keys.
    strides: Strides,
}

impl MaskForm {
    /// `None` when the mask does not broadcast or is too large to be written out.
    fn new(dims: [usize; 4], all: [usize; 4], boolean: bool, pads: bool) -> Option<Self> {
        let keys = all[3];
        let pads = pads && dims[3] < keys;
        let fits = (0..4).all(|i| dims[i] == all[i] || dims[i] == 1 || (i == 3 && pads));
        let form = Self {
            boolean,
            rows: dims[..3].iter().product(),
            width: dims[3],
            pads,
            keys,
            strides: strides([dims[0], dims[1], dims[2], keys]),
        };
        (fits && (form.is_direct() || form.rows.saturating_mul(keys) <= WRITTEN_MASK))
            .then_some(form)
    }

    fn is_direct(&self) -> bool {
        !self.boolean && self.width == self.keys
    }

    fn written_len(&self) -> usize {
        if self.is_direct() { 0 } else { self.rows * self.keys }
    }

    /// Writes the addends, each row as long as the keys.
    fn write(&self, io: &Io<'_>, out: &mut [f32]) {
        let (width, keys) = (self.width, self.keys);
        for (row, line) in out.chunks_exact_mut(keys.max(1)).enumerate().take(self.rows) {
            let range = row * width..(row + 1) * width;
            let (head, rest) = line.split_at_mut(width.min(keys));
            if self.boolean {
                for (y, x) in head.iter_mut().zip(&io.input::<u8>(MASK)[range]) {
                    *y = if *x == 0 { f32::NEG_INFINITY } else { 0.0 };
                }
            } else {
                head.copy_from_slice(&io.input::<f32>(MASK)[range][..head.len()]);
            }
            let fill = head.first().filter(|_| !self.pads).copied();
            rest.fill(fill.unwrap_or(f32::NEG_INFINITY));
        }
    }
}

#[derive(Debug)]
struct AttentionStep {
    isa: Isa,
    attention: attention::Attention,
    mask: Option<MaskForm>,
    /// Whether the scale is an input.
    scale_input: bool,
    cost: f64,
}

impl Step for AttentionStep {
    fn items(&self) -> usize {
        self.attention.items()
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn scratch_len(&self) -> usize {
        4 * (self.attention.scratch_len() + self.mask.map_or(0, |m| m.written_len()))
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        if range.is_empty() {
            return Ok(());
        }
        let mut attention = self.attention;
        if self.scale_input {
            attention.scale = io.input::<f32>(SCALE)[0];
        }
        let scratch: &mut [f32] = bytemuck::cast_slice_mut(scratch);
        let (scratch, written) = scratch.split_at_mut(attention.scratch_len());
        let mask = self.mask.map(|form| {
            let data = if form.is_direct() {
                io.input::<f32>(MASK)
            } else {
                let written = &mut written[..form.written_len()];
                form.write(io, written);
                &*written
            };
            Mask { data, strides: form.strides }
        });
        let (q, k, v) = (io.input(0), io.input(1), io.input(2));
        let out = io.output(0);
        attention_f32(self.isa, &attention, q, k, v, mask.as_ref(), scratch, &out, range);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{
        ElementType, Model, Shape, Tensor,
        op::{
            Op,
            attention::{Attention, ScaledDotProductAttention},
        },
    };

    use crate::nodes::testing::{check, noise, parameter};

    fn bools(shape: &[usize]) -> Tensor {
        let n = shape.iter().product::<usize>();
        let bits: Vec<bool> = (0..n).map(|i| i % 3 != 1).collect();
        Tensor::from_bools(shape, &bits).expect("fits")
    }

    /// Compares for queries, keys and values of these shapes.
    fn compare(op: Box<dyn Op>, shapes: [&[usize]; 3], mask: Option<Tensor>, scale: Option<f32>) {
        let what = format!("{op:?} {shapes:?} {:?}", mask.as_ref().map(Tensor::shape));
        let mut m = Model::new("attention");
        let mut inputs = Vec::new();
        let mut values = Vec::new();
        for (i, shape) in shapes.into_iter().enumerate() {
            values.push(parameter(&mut m, "x", shape));
            inputs.push(noise(shape, i as u32 + 1));
        }
        if let Some(mask) = mask {
            let shape = mask.shape().clone();
            values.push(m.add_parameter("mask", mask.element_type(), shape).expect("valid"));
            inputs.push(mask);
        } else if scale.is_some() {
            values.push(m.add_constant(Tensor::absent(), ""));
        }
        if let Some(scale) = scale {
            values
                .push(m.add_parameter("scale", ElementType::F32, Shape::new(&[])).expect("valid"));
            inputs.push(Tensor::scalar(scale));
        }
        let y = m.add_node(op, &values, "attention").expect("valid");
        m.add_output("y", y.into());
        check(&what, &m, &inputs, "attention_f32", 3e-5);
    }

    #[test]
    fn scaled_dot_products_give_what_the_reference_gives() {
        let sdpa = |causal| Box::new(ScaledDotProductAttention { causal });
        let shapes: &[[&[usize]; 3]] = &[
            [&[2, 3, 5, 8], &[2, 3, 7, 8], &[2, 3, 7, 4]],
            [&[3, 1, 16], &[3, 37, 16], &[3, 37, 16]],
            [&[45, 19], &[33, 19], &[33, 21]],
            [&[2, 4, 70, 32], &[1, 1, 90, 32], &[2, 1, 90, 32]],
            [&[2, 0, 8], &[2, 5, 8], &[2, 5, 8]],
            [&[2, 3, 8], &[2, 0, 8], &[2, 0, 8]],
            [&[1, 3, 8], &[1, 2, 8], &[1, 2, 0]],
        ];
        for s in shapes {
            compare(sdpa(false), *s, None, None);
            compare(sdpa(true), *s, None, Some(0.3));
            let (l, k) = (s[0][s[0].len() - 2], s[1][s[1].len() - 2]);
            for mask in [[l, k], [1, k], [l, 1]] {
                compare(sdpa(false), *s, Some(noise(&mask, 9)), None);
                compare(sdpa(false), *s, Some(bools(&mask)), Some(0.3));
            }
        }
        let s: [&[usize]; 3] = [&[2, 3, 5, 8], &[2, 3, 7, 8], &[2, 3, 7, 4]];
        for mask in [[2, 1, 1, 7], [1, 3, 5, 7], [2, 3, 5, 7]] {
            compare(sdpa(false), s, Some(noise(&mask, 9)), None);
        }
    }

    #[test]
    fn queries_that_see_nothing_give_zeros() {
        let hidden = Tensor::from_bools([3, 4], &[false; 12]).expect("fits");
        let s: [&[usize]; 3] = [&[3, 8], &[4, 8], &[4, 5]];
        compare(Box::new(ScaledDotProductAttention::default()), s, Some(hidden), None);
    }

    #[test]
    fn heads_share_keys_in_groups() {
        let s: [&[usize]; 3] = [&[2, 6, 9, 8], &[2, 2, 11, 8], &[2, 2, 11, 12]];
        for is_causal in [false, true] {
            let op = || Box::new(Attention { is_causal, scale: 0.2, ..Attention::default() });
            compare(op(), s, None, None);
            compare(op(), s, Some(noise(&[2, 6, 9, 11], 7)), None);
            compare(op(), s, Some(noise(&[9, 6], 7)), None);
            compare(op(), s, Some(bools(&[2, 1, 1, 11])), None);
        }
    }
}
