//! Attention and its relatives.

use super::{
    super::{Attr, ConvertError, NodeContext},
    ConvertResult, OnnxOp,
};
use crate::{
    model::Value,
    op::{
        Choice, OpError,
        attention::{
            Attention, LinearAttention, RotaryEmbedding, ScaledDotProductAttention, UpdateRule,
        },
    },
    tensor::{ElementType, Tensor},
};

pub(super) fn or_absent(cx: &mut NodeContext<'_, '_>, value: Option<Value>) -> Value {
    value.unwrap_or_else(|| cx.constant(Tensor::absent()))
}

/// `[batch, length, heads width]` as `[batch, heads, length, width]`.
pub(super) fn split_heads(
    cx: &mut NodeContext<'_, '_>,
    value: Value,
    heads: i64,
) -> Result<Value, ConvertError> {
    if heads <= 0 {
        let expected = "a positive number for inputs of rank 3".to_owned();
        let name = "num_heads";
        return Err(OpError::Attribute { name, got: heads.to_string(), expected }.into());
    }
    let split = cx.reshape(value, &[0, 0, heads, -1])?;
    cx.transpose(split, &[0, 2, 1, 3])
}

/// `[batch, heads, length, width]` as `[batch, length, heads width]`.
pub(super) fn join_heads(cx: &mut NodeContext<'_, '_>, value: Value) -> Result<Value, ConvertError> {
    let joined = cx.transpose(value, &[0, 2, 1, 3])?;
    let shape = cx.shape(joined);
    match (shape.dim(2).value(), shape.dim(3).value()) {
        (Some(h), Some(e)) => cx.reshape(joined, &[0, 0, h.saturating_mul(e) as i64]),
        _ => cx.reshape(joined, &[0, 0, -1]),
    }
}

/// Extent `axis` of a value as a list of one integer.
pub(super) fn extent(
    cx: &mut NodeContext<'_, '_>,
    value: Value,
    axis: i64,
) -> Result<Value, ConvertError> {
    cx.compose("Shape", &[value], &[("start", Attr::Int(axis)), ("end", Attr::Int(axis + 1))])
}

/// `past` followed by `value` along the axis of length.
pub(super) fn append(
    cx: &mut NodeContext<'_, '_>,
    past: Option<Value>,
    value: Value,
) -> Result<Value, ConvertError> {
    match past {
        Some(past) => cx.compose("Concat", &[past, value], &[("axis", Attr::Int(2))]),
        None => Ok(value),
    }
}

fn attention(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (mut q, mut k, mut v) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let packed = cx.rank(q)? == 3;
    if packed {
        let (heads, kv_heads) = (cx.i64("q_num_heads", 0)?, cx.i64("kv_num_heads", 0)?);
        q = split_heads(cx, q, heads)?;
        k = split_heads(cx, k, kv_heads)?;
        v = split_heads(cx, v, kv_heads)?;
    }
    let (mask, past_key, past_value) =
        (cx.optional_input(3), cx.optional_input(4), cx.optional_input(5));
    let lengths = cx.optional_input(6);
    if past_key.is_some() != past_value.is_some() {
        return Err(OpError::Invalid("past_key and past_value go together".to_owned()).into());
    }
    k = append(cx, past_key, k)?;
    v = append(cx, past_value, v)?;
    let op = Attention {
        scale: f64::from(cx.f32("scale", 0.0)?),
        softcap: f64::from(cx.f32("softcap", 0.0)?),
        is_causal: cx.bool("is_causal", false)?,
        left_window_size: cx.i64("left_window_size", -1)?,
        right_window_size: cx.i64("right_window_size", -1)?,
        scores_mode: if cx.wants_output(3) { cx.i64("qk_matmul_output_mode", 0)? } else { -1 },
        smooth_softmax: false,
    };
    let needs_offset = op.is_causal || op.left_window_size >= 0 || op.right_window_size >= 0;
    let offset = match past_key {
        Some(past) if needs_offset => Some(extent(cx, past, 2)?),
        _ => None,
    };
    let mut outputs = attend(cx, op, [q, k, v], mask, lengths, offset)?;
    if packed {
        outputs[0] = join_heads(cx, outputs[0])?;
    }
    let scores = outputs.get(1).copied();
    Ok([vec![outputs[0], k, v], scores.into_iter().collect()].concat())
}

/// Adds the plain operator where it expresses what is asked for, else the general one.
pub(super) fn attend(
    cx: &mut NodeContext<'_, '_>,
    op: Attention,
    [q, k, v]: [Value; 3],
    mask: Option<Value>,
    lengths: Option<Value>,
    offset: Option<Value>,
) -> ConvertResult {
    let (query, key) = (cx.shape(q), cx.shape(k));
    let same_heads = query.dim(1).same(key.dim(1));
    let mask_is_whole = mask.is_none_or(|m| {
        let shape = cx.shape(m);
        let last = shape.rank().filter(|r| *r > 0).map(|r| shape.dim(r - 1));
        last.is_some_and(|d| d.same(key.dim(2))) && !op.is_causal
    });
    // The plain operator does not say where 16-bit values are rounded.
    let plain = cx.element_type(q).bits() >= 32
        && op.softcap == 0.0
        && op.left_window_size < 0
        && op.right_window_size < 0
        && op.scores_mode < 0
        && !op.smooth_softmax
        && lengths.is_none()
        && offset.is_none();
    if plain && same_heads && mask_is_whole {
        let mut inputs = vec![q, k, v];
        if mask.is_some() || op.scale != 0.0 {
            inputs.push(or_absent(cx, mask));
        }
        if op.scale != 0.0 {
            inputs.push(cx.scalar_like(op.scale, q)?);
        }
        return cx.add_multi(ScaledDotProductAttention { causal: op.is_causal }, &inputs);
    }
    let mut inputs = vec![q, k, v];
    for value in [mask, lengths, offset] {
        let value = or_absent(cx, value);
        inputs.push(value);
    }
    cx.add_multi(op, &inputs)
}

fn rotary_embedding(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let op = RotaryEmbedding {
        num_heads: cx.i64("num_heads", 0)?,
        rotary_embedding_dim: cx.i64("rotary_embedding_dim", 0)?,
        interleaved: cx.bool("interleaved", false)?,
        scale: 1.0,
    };
    let inputs = cx.all_inputs();
    cx.add_multi(op, &inputs)
}

fn linear_attention(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut update_rule = UpdateRule::GatedDelta;
    let text = cx.str("update_rule", "gated_delta")?;
    if !update_rule.set_text(text) {
        return Err(OpError::Attribute {
            name: "update_rule",
            got: text.to_owned(),
            expected: update_rule.options().join(", "),
        }
        .into());
    }
    let op = LinearAttention {
        q_num_heads: cx.i64("q_num_heads", 0)?,
        kv_num_heads: cx.i64("kv_num_heads", 0)?,
        scale: f64::from(cx.f32("scale", 0.0)?),
        update_rule,
    };
    let inputs = cx.all_inputs();
    cx.add_multi(op, &inputs)
}

/// The last `k - 1` positions of the state and the input are convolved with what follows, channel by channel.
fn causal_conv_with_state(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, weight) = (cx.input(0)?, cx.input(1)?);
    let shape = cx.shape(weight);
    let (Some(channels), Some(k)) = (shape.dim(0).value(), shape.dim(2).value()) else {
        return Err(OpError::Unsupported(format!("a weight of shape {shape}")).into());
    };
    let kept = k.saturating_sub(1) as i64;
    let padded = match cx.optional_input(3) {
        Some(past) => append(cx, Some(past), x)?,
        None => {
            let pads = cx.i64s_constant(&[0, 0, kept, 0, 0, 0]);
            cx.compose("Pad", &[x, pads], &[])?
        }
    };
    let mut inputs = vec![padded, weight];
    inputs.extend(cx.optional_input(2));
    let mut y = cx.compose("Conv", &inputs, &[("group", Attr::Int(channels as i64))])?;
    match cx.str("activation", "none")? {
        "none" => {}
        "silu" | "swish" => {
            let gate = cx.compose("Sigmoid", &[y], &[])?;
            y = cx.compose("Mul", &[y, gate], &[])?;
        }
        other => {
            return Err(OpError::Attribute {
                name: "activation",
                got: other.to_owned(),
                expected: "none, silu or swish".to_owned(),
            }
            .into());
        }
    }
    let (start, axes) = (if kept == 0 { i64::MAX } else { -kept }, cx.i64s_constant(&[2]));
    let (starts, ends) = (cx.i64s_constant(&[start]), cx.i64s_constant(&[i64::MAX]));
    let state = cx.compose("Slice", &[padded, starts, ends, axes], &[])?;
    Ok(vec![y, state])
}

/// Repeats each of `heads` heads (axis 1) `times` times.
pub(super) fn repeat_heads(
    cx: &mut NodeContext<'_, '_>,
    value: Value,
    heads: i64,
    times: i64,
) -> Result<Value, ConvertError> {
    if times == 1 {
        return Ok(value);
    }
    let (axis, counts) = (cx.i64s_constant(&[2]), cx.i64s_constant(&[1, 1, times, 1, 1]));
    let apart = cx.compose("Unsqueeze", &[value, axis], &[])?;
    let repeated = cx.compose("Expand", &[apart, counts], &[])?;
    let width = cx.shape(value).dim(3).value();
    let shape = match width {
        Some(width) => [0, heads.saturating_mul(times), -1, width as i64],
        None => return Err(OpError::Unsupported("heads of unknown width".to_owned()).into()),
    };
    cx.reshape(repeated, &shape)
}

fn flex_attention(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (q, mut k, mut v) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (query, key) = (cx.shape(q), cx.shape(k));
    let (Some(heads), Some(kv_heads), Some(e)) =
        (query.dim(1).value(), key.dim(1).value(), query.dim(3).value())
    else {
        return Err(OpError::Unsupported(format!("queries {query} and keys {key}")).into());
    };
    if kv_heads == 0 || heads % kv_heads != 0 {
        return Err(OpError::Invalid(format!("{heads} heads do not share {kv_heads}")).into());
    }
    let (kv_heads, times) = (kv_heads as i64, (heads / kv_heads) as i64);
    k = repeat_heads(cx, k, kv_heads, times)?;
    v = repeat_heads(cx, v, kv_heads, times)?;
    let ty = cx.element_type(q);
    let precision = match cx.optional_i64("softmax_precision")? {
        Some(code) => code,
        None if ty == ElementType::F64 => 11,
        None => 1,
    };
    let to_precision = [("to", Attr::Int(precision))];
    let keys = cx.transpose(k, &[0, 1, 3, 2])?;
    let product = cx.compose("MatMul", &[q, keys], &[])?;
    let product = cx.compose("Cast", &[product], &to_precision)?;
    let scale = cx.optional_f32("scale")?.map_or_else(|| 1.0 / (e as f64).sqrt(), f64::from);
    let scale = cx.scalar_like(scale, product)?;
    let mut scores = cx.compose("Mul", &[product, scale], &[])?;
    if cx.has_attribute("score_mod") {
        scores = cx.call_graph("score_mod", scores)?;
    }
    let mut weights = cx.compose("Softmax", &[scores], &[("axis", Attr::Int(-1))])?;
    if cx.has_attribute("prob_mod") {
        weights = cx.call_graph("prob_mod", weights)?;
    }
    let weights = cx.compose("CastLike", &[weights, v], &[])?;
    Ok(vec![cx.compose("MatMul", &[weights, v], &[])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "Attention", 23, attention),
    ("", "RotaryEmbedding", 23, rotary_embedding),
    ("", "LinearAttention", 27, linear_attention),
    ("", "CausalConvWithState", 27, causal_conv_with_state),
    ("ai.onnx.preview", "FlexAttention", 1, flex_attention),
];
