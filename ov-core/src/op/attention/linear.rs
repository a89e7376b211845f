//! Linear attention: a matrix of state per head, updated token by token.

use super::{
    super::{InferContext, OpError, OpResult, OpRules, OutputType, present},
    to_tensor, zeros,
};
use crate::{
    choice,
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

choice! {
    /// How a token changes the state `S` with its key `k`, value `v`, decay `g` and rate `β`.
    pub enum UpdateRule {
        /// `S = eᵍ S + β k ⊗ (v - eᵍ Sᵀ k)`.
        GatedDelta = "gated_delta",
        /// `S = S + k ⊗ v`.
        Linear = "linear",
        /// `S = eᵍ S + k ⊗ v`.
        Gated = "gated",
        /// `S = S + β k ⊗ (v - Sᵀ k)`.
        Delta = "delta",
    }
}

impl UpdateRule {
    fn decays(self) -> bool {
        matches!(self, Self::Gated | Self::GatedDelta)
    }

    fn corrects(self) -> bool {
        matches!(self, Self::Delta | Self::GatedDelta)
    }
}

define_op! {
    /// `o = scale Sᵀ q` after each token's update. <https://onnx.ai/onnx/operators/onnx__LinearAttention.html>
    ///
    /// Inputs: `q [batch, T, heads dk]`, `k [batch, T, kv heads dk]`, `v [batch, T, kv heads dv]`, and where the rule
    /// needs them the state `[batch, kv heads, dk, dv]` (absent: zeros), decay `[batch, T, kv heads (dk)]` and rate
    /// `[batch, T, kv heads or 1]`. Outputs: `[batch, T, heads dv]` and the state after the last token.
    pub struct LinearAttention("LinearAttention", 0) {
        /// Number of query heads.
        q_num_heads: i64 = 1,
        /// Number of key and value heads.
        kv_num_heads: i64 = 1,
        /// Factor of the output; 0 is 1/√dk.
        scale: f64 = 0.0,
        /// How a token changes the state.
        update_rule: UpdateRule = UpdateRule::GatedDelta,
    }
}

impl LinearAttention {
    fn heads(&self) -> OpResult<(usize, usize)> {
        let heads = usize::try_from(self.q_num_heads).unwrap_or(0);
        let kv = usize::try_from(self.kv_num_heads).unwrap_or(0);
        op_ensure!(
            kv > 0 && heads > 0 && heads.is_multiple_of(kv),
            "{} query heads do not share {} key heads",
            self.q_num_heads,
            self.kv_num_heads
        );
        Ok((heads, kv))
    }
}

fn per_head(dim: Dimension, heads: usize) -> Dimension {
    dim.value().map_or(Dimension::DYNAMIC, |d| Dimension::fixed(d / heads))
}

impl OpRules for LinearAttention {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=6)?;
        cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
        (0..3).try_for_each(|i| cx.expect_rank(i, 3..=3))?;
        let (heads, kv) = self.heads()?;
        let (q, v) = (cx.shape(0), cx.shape(2));
        let (dk, dv) = (per_head(q.dim(2), heads), per_head(v.dim(2), kv));
        let out = dv.value().map_or(Dimension::DYNAMIC, |d| Dimension::fixed(d.saturating_mul(heads)));
        let ty = cx.element_type(0);
        let state_type = if cx.is_present(3) { cx.element_type(3) } else { ty };
        let state = PartialShape::new(&[q.dim(0), Dimension::fixed(kv), dk, dv]);
        Ok(vec![
            OutputType::new(ty, PartialShape::new(&[q.dim(0), q.dim(1), out])),
            OutputType::new(state_type, state),
        ])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        op_ensure!(inputs.len() >= 3, "has {} inputs, expected at least 3", inputs.len());
        let (heads, kv) = self.heads()?;
        let (q, k, v) = (&inputs[0], &inputs[1], &inputs[2]);
        for t in [q, k, v] {
            op_ensure!(t.rank() == 3, "an input has shape {}, expected rank 3", t.shape());
        }
        let (batch, tokens) = (q.shape()[0], q.shape()[1]);
        let (dk, dv) = (q.shape()[2] / heads, v.shape()[2] / kv);
        let expect = |t: &Tensor, shape: &[usize]| -> OpResult<Vec<f64>> {
            op_ensure!(t.shape()[..] == *shape, "an input has shape {}, expected {shape:?}", t.shape());
            Ok(t.to_f64_vec()?)
        };
        let qs = expect(q, &[batch, tokens, heads * dk])?;
        let ks = expect(k, &[batch, tokens, kv * dk])?;
        let vs = expect(v, &[batch, tokens, kv * dv])?;
        let need = |index: usize, what: &str, extents: [usize; 2]| -> OpResult<(Vec<f64>, usize)> {
            let t = present(inputs, index)
                .ok_or_else(|| OpError::Invalid(format!("rule {} needs {what}", self.update_rule)))?;
            let last = t.shape().last().copied().unwrap_or(0);
            let last = if extents.contains(&last) { last } else { extents[0] };
            Ok((expect(t, &[batch, tokens, last])?, last))
        };
        let rule = self.update_rule;
        let decay = rule.decays().then(|| need(4, "a decay", [kv, kv * dk])).transpose()?;
        let beta = rule.corrects().then(|| need(5, "a rate", [kv, 1])).transpose()?;
        let mut state = match present(inputs, 3) {
            Some(t) => expect(t, &[batch, kv, dk, dv])?,
            None => zeros(&[batch, kv, dk, dv])?,
        };
        let scale = if self.scale == 0.0 { 1.0 / (dk as f64).sqrt() } else { self.scale };
        let mut out = zeros(&[batch, tokens, heads, dv])?;
        let mut recalled = vec![0.0; dv];
        for b in 0..batch {
            for t in 0..tokens {
                let token = b * tokens + t;
                for h in 0..kv {
                    let state = &mut state[(b * kv + h) * dk * dv..][..dk * dv];
                    let key = &ks[(token * kv + h) * dk..][..dk];
                    let value = &vs[(token * kv + h) * dv..][..dv];
                    if let Some((decay, last)) = &decay {
                        for i in 0..dk {
                            let at = if *last == kv { h } else { h * dk + i };
                            let factor = decay[token * last + at].exp();
                            state[i * dv..][..dv].iter_mut().for_each(|s| *s *= factor);
                        }
                    }
                    recalled.fill(0.0);
                    let mut rate = 1.0;
                    if let Some((beta, last)) = &beta {
                        rate = beta[token * last + if *last == 1 { 0 } else { h }];
                        for (i, key) in key.iter().enumerate() {
                            for (r, s) in recalled.iter_mut().zip(&state[i * dv..][..dv]) {
                                *r += key * s;
                            }
                        }
                    }
                    for (i, key) in key.iter().enumerate() {
                        for (j, s) in state[i * dv..][..dv].iter_mut().enumerate() {
                            *s += rate * key * (value[j] - recalled[j]);
                        }
                    }
                    let group = heads / kv;
                    for head in h * group..(h + 1) * group {
                        let query = &qs[(token * heads + head) * dk..][..dk];
                        let out = &mut out[(token * heads + head) * dv..][..dv];
                        for (i, query) in query.iter().enumerate() {
                            for (o, s) in out.iter_mut().zip(&state[i * dv..][..dv]) {
                                *o += scale * query * s;
                            }
                        }
                    }
                }
            }
        }
        let like = present(inputs, 3).unwrap_or(q);
        Ok(vec![
            to_tensor(q, [batch, tokens, heads * dv], &out)?,
            to_tensor(like, [batch, kv, dk, dv], &state)?,
        ])
    }
}
