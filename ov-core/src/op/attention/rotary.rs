//! Rotary positions: pairs of channels turned by an angle of the token's position.

use super::{
    super::{InferContext, OpError, OpResult, OpRules, OutputType, present},
    to_tensor,
};
use crate::tensor::{ElementType, Tensor};

define_op! {
    /// Turns pairs of channels. <https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>
    ///
    /// Inputs: `X [batch, heads, L, E]` or `[batch, L, heads E]`; cosines and sines `[positions, D/2]` with positions
    /// `[batch, L]` (or one: that of the first token), or `[batch, L, D/2]` without. Output like `X`.
    pub struct RotaryEmbedding("RotaryEmbedding", 0) {
        /// Number of heads of an `X` of rank 3.
        num_heads: i64 = 0,
        /// Leading channels of each head that are turned, 0 for all.
        rotary_embedding_dim: i64 = 0,
        /// Whether a pair is two neighbours rather than one channel of each half.
        interleaved: bool = false,
        /// Factor of the turned channels.
        scale: f64 = 1.0,
    }
}

/// Where the channels of token `t` of head `h` in sample `b` start.
struct Layout {
    batch: usize,
    heads: usize,
    tokens: usize,
    width: usize,
    heads_first: bool,
}

impl Layout {
    fn at(&self, b: usize, h: usize, t: usize) -> usize {
        let row = if self.heads_first {
            (b * self.heads + h) * self.tokens + t
        } else {
            (b * self.tokens + t) * self.heads + h
        };
        row * self.width
    }
}

impl RotaryEmbedding {
    fn layout(&self, x: &Tensor, turned: usize) -> OpResult<Layout> {
        let s = x.shape();
        match s.rank() {
            4 => Ok(Layout { batch: s[0], heads: s[1], tokens: s[2], width: s[3], heads_first: true }),
            3 => {
                let heads = match usize::try_from(self.num_heads) {
                    Ok(n) if n > 0 => n,
                    _ if self.rotary_embedding_dim == 0 && turned > 0 => s[2] / turned,
                    _ => 0,
                };
                op_ensure!(
                    heads > 0 && s[2].is_multiple_of(heads),
                    "X has shape {s}, num_heads is {}",
                    self.num_heads
                );
                let width = s[2] / heads;
                Ok(Layout { batch: s[0], heads, tokens: s[1], width, heads_first: false })
            }
            _ => Err(OpError::Invalid(format!("X has shape {s}, expected rank 3 or 4"))),
        }
    }
}

impl OpRules for RotaryEmbedding {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=4)?;
        cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
        cx.expect_rank(0, 3..=4)?;
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        op_ensure!(inputs.len() >= 3, "has {} inputs, expected at least 3", inputs.len());
        let (x, cos, sin) = (&inputs[0], &inputs[1], &inputs[2]);
        let half = cos.shape().last().copied().unwrap_or(0);
        let layout = self.layout(x, 2 * half)?;
        let turned = match usize::try_from(self.rotary_embedding_dim) {
            Ok(n) if n > 0 => n,
            _ => layout.width,
        };
        op_ensure!(
            turned == 2 * half && turned <= layout.width && cos.shape() == sin.shape(),
            "cosines {} and sines {} do not turn {turned} of {} channels",
            cos.shape(),
            sin.shape(),
            layout.width
        );
        let rows = cos.len().checked_div(half).unwrap_or(0);
        let (batch, tokens) = (layout.batch, layout.tokens);
        let positions: Vec<i64> = match present(inputs, 3) {
            None => {
                op_ensure!(
                    rows == batch * tokens || half == 0,
                    "cosines have shape {}, expected one row per token",
                    cos.shape()
                );
                (0..(batch * tokens) as i64).collect()
            }
            Some(p) if p.len() == 1 && batch * tokens != 1 => {
                let first = p.to_i64_vec()?[0];
                (0..batch * tokens).map(|i| first.saturating_add((i % tokens) as i64)).collect()
            }
            Some(p) => p.to_i64_vec()?,
        };
        op_ensure!(
            positions.len() == batch * tokens,
            "{} positions for {batch} sequences of {tokens} tokens",
            positions.len()
        );
        let mut values = x.to_f64_vec()?;
        let (cos, sin) = (cos.to_f64_vec()?, sin.to_f64_vec()?);
        for b in 0..batch {
            for t in 0..tokens {
                let p = positions[b * tokens + t];
                let row = usize::try_from(p).ok().filter(|r| *r < rows || half == 0);
                let row = row.ok_or_else(|| OpError::Invalid(format!("position {p} of {rows}")))?;
                for h in 0..layout.heads {
                    let channels = &mut values[layout.at(b, h, t)..][..turned];
                    for i in 0..half {
                        let (c, s) = (cos[row * half + i], sin[row * half + i]);
                        let pair = if self.interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
                        let (real, imaginary) = (channels[pair.0], channels[pair.1]);
                        channels[pair.0] = self.scale * (c * real - s * imaginary);
                        channels[pair.1] = self.scale * (s * real + c * imaginary);
                    }
                }
            }
        }
        Ok(vec![to_tensor(x, x.shape().clone(), &values)?])
    }
}
