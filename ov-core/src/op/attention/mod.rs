//! Attention: scaled dot products, linear recurrences, rotary positions.

mod core;
mod linear;
mod rotary;

pub use linear::{LinearAttention, UpdateRule};
pub use rotary::RotaryEmbedding;

use self::core::{Bias, Problem, attend, broadcast_offsets};
use super::{InferContext, OpEntry, OpError, OpResult, OpRules, OutputType, broadcast_shapes, present};
use crate::{
    dispatch_float,
    tensor::{Dimension, ElementType, PartialShape, Shape, Tensor},
};

define_op! {
    /// `softmax(Q Kᵀ scale + mask) V`. <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/sequence/scaled-dot-product-attention.html>
    ///
    /// Inputs: `Q [..., L, E]`, `K [..., S, E]`, `V [..., S, Ev]`, optionally a mask that broadcasts to `[..., L, S]`
    /// (boolean: true takes part; or added to the scores) and a scale of one element (default 1/√E). Rows without any
    /// key to attend to are zeros.
    pub struct ScaledDotProductAttention("ScaledDotProductAttention", 13) {
        /// Whether query `i` sees keys up to `i` only; the mask is then not read.
        causal: bool = false,
    }
}

define_op! {
    /// Attention over heads with everything that ONNX's operator can express.
    /// <https://onnx.ai/onnx/operators/onnx__Attention.html>
    ///
    /// Inputs: `Q [batch, heads, L, E]`, `K [batch, kv heads, S, E]`, `V [batch, kv heads, S, Ev]` (query heads share
    /// key heads in groups), and optionally a mask that broadcasts to `[batch, heads, L, S]` (a shorter last axis masks
    /// the rest), the number of valid keys `[batch]`, and the number of keys before the first query (one, or
    /// `[batch]`; default: valid keys less L when those are given, else 0). Outputs: `Y [batch, heads, L, Ev]`, and
    /// with `scores_mode` ≥ 0 the scores `[batch, heads, L, S]`. In 16-bit types every step is rounded, as in the
    /// specification's function body.
    pub struct Attention("Attention", 0) {
        /// Factor of the scores; 0 is 1/√E.
        scale: f64 = 0.0,
        /// Scores become `softcap tanh(scores / softcap)`; 0 leaves them.
        softcap: f64 = 0.0,
        /// Whether a query sees no keys after its own position.
        is_causal: bool = false,
        /// Keys before its own position that a query sees, or -1 for all.
        left_window_size: i64 = -1,
        /// Keys after its own position that a query sees, or -1 for all.
        right_window_size: i64 = -1,
        /// The second output: scores (0), after the softcap (1), with the mask added (2), probabilities (3), none (-1).
        scores_mode: i64 = -1,
        /// Whether one more score of 0 takes part in every softmax, as a key that has no value.
        smooth_softmax: bool = false,
    }
}

fn expect_same_rank(cx: &InferContext<'_>, ranks: std::ops::RangeInclusive<usize>) -> OpResult<()> {
    cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
    (0..3).try_for_each(|i| cx.expect_rank(i, ranks.clone()))
}

fn axis_from_end(shape: &PartialShape, from_end: usize) -> Dimension {
    shape.rank().and_then(|r| r.checked_sub(from_end)).map_or(Dimension::DYNAMIC, |a| shape.dim(a))
}

fn to_tensor(like: &Tensor, shape: impl Into<Shape>, values: &[f64]) -> OpResult<Tensor> {
    let (ty, shape) = (like.element_type(), shape.into());
    dispatch_float!(ty, T => Ok(Tensor::from_f64s::<T>(shape, values)?), else {
        Err(OpError::Unsupported(format!("element type {ty}")))
    })
}

/// `count` zeros unless they are too many.
fn zeros(extents: &[usize]) -> OpResult<Vec<f64>> {
    let count = extents.iter().try_fold(1usize, |a, d| a.checked_mul(*d)).filter(|n| *n <= 1 << 33);
    let count = count.ok_or_else(|| OpError::Unsupported(format!("an output of shape {extents:?}")))?;
    Ok(vec![0.0; count])
}

impl OpRules for ScaledDotProductAttention {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=5)?;
        expect_same_rank(cx, 2..=8)?;
        let (q, k, v) = (cx.shape(0), cx.shape(1), cx.shape(2));
        let Some(rank) = q.rank() else {
            return Ok(vec![OutputType::new(cx.element_type(0), PartialShape::dynamic())]);
        };
        let batch = |s: &PartialShape| match s.dims() {
            Some(d) if d.len() >= 2 => PartialShape::new(&d[..d.len() - 2]),
            _ => PartialShape::dynamic_rank(rank - 2),
        };
        let shape = broadcast_shapes(&broadcast_shapes(&batch(&q), &batch(&k))?, &batch(&v))?;
        let mut dims = shape.dims().unwrap_or_default().to_vec();
        dims.extend([q.dim(rank - 2), axis_from_end(&v, 1)]);
        Ok(vec![OutputType::new(cx.element_type(0), PartialShape::new(&dims))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        op_ensure!(inputs.len() >= 3, "has {} inputs, expected at least 3", inputs.len());
        let (q, k, v) = (&inputs[0], &inputs[1], &inputs[2]);
        for t in [q, k, v] {
            op_ensure!(t.rank() >= 2, "an input has shape {}, expected rank 2 or more", t.shape());
        }
        let last_two = |t: &Tensor| (t.shape()[t.rank() - 2], t.shape()[t.rank() - 1]);
        let ((l, e), (s, ke), (vs, ev)) = (last_two(q), last_two(k), last_two(v));
        op_ensure!(
            e == ke && s == vs,
            "shapes {}, {} and {} do not go together",
            q.shape(),
            k.shape(),
            v.shape()
        );
        let mask = present(inputs, 3).filter(|_| !self.causal);
        let scale = match present(inputs, 4).map(|t| t.element_as_f64(0)) {
            Some(scale) => {
                scale.ok_or_else(|| OpError::Invalid("the scale has no element".to_owned()))?
            }
            None => 1.0 / (e as f64).sqrt(),
        };
        let batch = |t: &Tensor| Shape::new(&t.shape()[..t.rank() - 2]);
        let (whole, offsets) = broadcast_offsets(&[batch(q), batch(k), batch(v)])?;
        let mut dims = whole.to_vec();
        dims.extend([l, s]);
        let bias = mask.map(|m| Bias::new(m, &dims, false)).transpose()?;
        let (qs, ks, vs) = (q.to_f64_vec()?, k.to_f64_vec()?, v.to_f64_vec()?);
        let problem = Problem { l, s, e, ev, scale, softcap: 0.0, smooth: false, element_type: ElementType::F64 };
        let mut y = zeros(&[whole.elements(), l, ev])?;
        for (b, at) in offsets.iter().enumerate() {
            let (q, k, v) = (&qs[at[0] * l * e..], &ks[at[1] * s * e..], &vs[at[2] * s * ev..]);
            let bias = |i: usize, j: usize| {
                if self.causal {
                    return if j <= i { 0.0 } else { f64::NEG_INFINITY };
                }
                bias.as_ref().map_or(0.0, |m| m.at(b, i, j))
            };
            attend(&problem, q, k, v, &bias, &mut y[b * l * ev..][..l * ev], None);
        }
        dims.truncate(whole.rank());
        dims.extend([l, ev]);
        Ok(vec![to_tensor(q, dims, &y)?])
    }
}

impl Attention {
    /// Whether query position `p` may see key `j`.
    fn sees(&self, p: i64, j: i64) -> bool {
        (!self.is_causal || j <= p)
            && (self.left_window_size < 0 || j >= p.saturating_sub(self.left_window_size))
            && (self.right_window_size < 0 || j <= p.saturating_add(self.right_window_size))
    }
}

/// One integer per sample, from one for all or one each.
fn per_sample(tensor: &Tensor, batch: usize, what: &str) -> OpResult<Vec<i64>> {
    let values = tensor.to_i64_vec()?;
    match values.len() {
        1 => Ok(vec![values[0]; batch]),
        n if n == batch => Ok(values),
        n => Err(OpError::Invalid(format!("{n} {what} for a batch of {batch}"))),
    }
}

impl OpRules for Attention {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=6)?;
        expect_same_rank(cx, 4..=4)?;
        let (q, k, v) = (cx.shape(0), cx.shape(1), cx.shape(2));
        let batch = q.dim(0).intersect(k.dim(0)).and_then(|b| b.intersect(v.dim(0)));
        let batch = batch.ok_or_else(|| {
            OpError::Invalid(format!("batches of {q}, {k} and {v} differ"))
        })?;
        if let (Some(h), Some(kh)) = (q.dim(1).value(), k.dim(1).value()) {
            op_ensure!(kh > 0 && h.is_multiple_of(kh), "{h} query heads do not share {kh} key heads");
        }
        let ty = cx.element_type(0);
        let y = PartialShape::new(&[batch, q.dim(1), q.dim(2), v.dim(3)]);
        let mut types = vec![OutputType::new(ty, y)];
        if self.scores_mode >= 0 {
            let scores = PartialShape::new(&[batch, q.dim(1), q.dim(2), k.dim(2)]);
            types.push(OutputType::new(ty, scores));
        }
        Ok(types)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        op_ensure!(inputs.len() >= 3, "has {} inputs, expected at least 3", inputs.len());
        let (q, k, v) = (&inputs[0], &inputs[1], &inputs[2]);
        for t in [q, k, v] {
            op_ensure!(t.rank() == 4, "an input has shape {}, expected rank 4", t.shape());
        }
        let dim = |t: &Tensor, axis: usize| t.shape()[axis];
        let (batch, heads, l, e) = (dim(q, 0), dim(q, 1), dim(q, 2), dim(q, 3));
        let (kv_heads, s, ev) = (dim(k, 1), dim(k, 2), dim(v, 3));
        op_ensure!(
            k.shape()[..] == [batch, kv_heads, s, e]
                && v.shape()[..] == [batch, kv_heads, s, ev]
                && kv_heads > 0
                && heads.is_multiple_of(kv_heads),
            "shapes {}, {} and {} do not go together",
            q.shape(),
            k.shape(),
            v.shape()
        );
        let bias =
            present(inputs, 3).map(|m| Bias::new(m, &[batch, heads, l, s], true)).transpose()?;
        let valid = present(inputs, 4).map(|t| per_sample(t, batch, "lengths")).transpose()?;
        let before = match (present(inputs, 5), &valid) {
            (Some(t), _) => per_sample(t, batch, "offsets")?,
            (None, Some(valid)) => valid.iter().map(|n| n.saturating_sub(l as i64)).collect(),
            (None, None) => vec![0; batch],
        };
        let scale = if self.scale == 0.0 { 1.0 / (e as f64).sqrt() } else { self.scale };
        let problem =
            Problem {
                l,
                s,
                e,
                ev,
                scale,
                softcap: self.softcap,
                smooth: self.smooth_softmax,
                element_type: q.element_type(),
            };
        let (qs, ks, vs) = (q.to_f64_vec()?, k.to_f64_vec()?, v.to_f64_vec()?);
        let mut y = zeros(&[batch, heads, l, ev])?;
        let wants_scores = self.scores_mode >= 0;
        let mut scores = zeros(&[if wants_scores { batch } else { 0 }, heads, l, s])?;
        for b in 0..batch {
            for h in 0..heads {
                let (at, kv) = (b * heads + h, b * kv_heads + h / (heads / kv_heads));
                let bias = |i: usize, j: usize| {
                    let hidden = valid.as_ref().is_some_and(|n| j as i64 >= n[b])
                        || !self.sees((i as i64).saturating_add(before[b]), j as i64);
                    let mask = bias.as_ref().map_or(0.0, |m| m.at(at, i, j));
                    if hidden { mask + f64::NEG_INFINITY } else { mask }
                };
                let out = wants_scores
                    .then(|| (self.scores_mode, &mut scores[at * l * s..][..l * s]));
                attend(
                    &problem,
                    &qs[at * l * e..],
                    &ks[kv * s * e..],
                    &vs[kv * s * ev..],
                    &bias,
                    &mut y[at * l * ev..][..l * ev],
                    out,
                );
            }
        }
        let mut outputs = vec![to_tensor(q, [batch, heads, l, ev], &y)?];
        if wants_scores {
            outputs.push(to_tensor(q, [batch, heads, l, s], &scores)?);
        }
        Ok(outputs)
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<ScaledDotProductAttention>(),
    OpEntry::of::<Attention>(),
    OpEntry::of::<LinearAttention>(),
    OpEntry::of::<RotaryEmbedding>(),
];

#[cfg(test)]
mod tests;
