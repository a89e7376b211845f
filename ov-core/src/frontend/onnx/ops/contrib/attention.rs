//! Attention in the forms of `com.microsoft`.

use super::{
    super::{
        super::{Attr, ConvertError, NodeContext},
        attention::{append, attend, extent, join_heads, split_heads},
    },
    ConvertResult,
};
use crate::{
    model::Value,
    op::{
        OpError,
        attention::{Attention, RotaryEmbedding},
    },
    tensor::Tensor,
};

fn unsupported<T>(what: &str) -> Result<T, ConvertError> {
    Err(OpError::Unsupported(what.to_owned()).into())
}

/// What a mask of keys becomes: something to add to the scores, or numbers of valid keys.
#[derive(Default)]
struct KeyMask {
    bias: Option<Value>,
    lengths: Option<Value>,
}

/// The keys (of which there are `total`) from the starts to the ends that a mask `[2 batch]` lists, ends first; the others
/// add `filter`.
fn range_mask(
    cx: &mut NodeContext<'_, '_>,
    mask: Value,
    total: Value,
    like: Value,
    filter: f32,
) -> Result<Value, ConvertError> {
    let attributes = [("axis", Attr::Int(0)), ("num_outputs", Attr::Int(2))];
    let mask = cx.compose("Cast", &[mask], &[("to", Attr::Int(7))])?;
    let places = cx.compose_multi("Split", &[mask], &attributes, 2)?;
    let mut columns = Vec::new();
    for place in places {
        columns.push(cx.reshape(place, &[-1, 1, 1, 1])?);
    }
    let (zero, one) = (cx.constant(Tensor::scalar(0i64)), cx.constant(Tensor::scalar(1i64)));
    let total = cx.reshape(total, &[])?;
    let keys = cx.compose("Range", &[zero, total, one], &[])?;
    let before = cx.compose("Less", &[keys, columns[0]], &[])?;
    let after = cx.compose("GreaterOrEqual", &[keys, columns[1]], &[])?;
    let seen = cx.compose("And", &[before, after], &[])?;
    let (shown, hidden) = (cx.scalar_like(0.0, like)?, cx.scalar_like(f64::from(filter), like)?);
    cx.compose("Where", &[seen, shown, hidden], &[])
}

/// A mask `[batch]` of lengths, `[batch, keys]` or `[batch, queries, keys]` of ones and zeros; zeros add `filter`.
fn key_mask(
    cx: &mut NodeContext<'_, '_>,
    mask: Option<Value>,
    batch_like: Value,
    filter: f32,
) -> Result<KeyMask, ConvertError> {
    let Some(mask) = mask else { return Ok(KeyMask::default()) };
    let rank = cx.rank(mask)?;
    if rank == 1 {
        let (batch, len) = (cx.shape(batch_like).dim(0), cx.shape(mask).dim(0));
        if batch.value().zip(len.value()).is_some_and(|(b, l)| b != l) {
            return unsupported("a mask of start and end positions");
        }
        return Ok(KeyMask { lengths: Some(mask), ..KeyMask::default() });
    }
    let axes = match rank {
        2 => cx.i64s_constant(&[1, 2]),
        3 => cx.i64s_constant(&[1]),
        _ => return unsupported("a mask of rank 4"),
    };
    let mask = cx.compose("CastLike", &[mask, batch_like], &[])?;
    let one = cx.scalar_like(1.0, mask)?;
    let hidden = cx.compose("Sub", &[one, mask], &[])?;
    let filter = cx.scalar_like(f64::from(filter), mask)?;
    let bias = cx.compose("Mul", &[hidden, filter], &[])?;
    let bias = cx.compose("Unsqueeze", &[bias, axes], &[])?;
    Ok(KeyMask { bias: Some(bias), ..KeyMask::default() })
}

fn sum_of(
    cx: &mut NodeContext<'_, '_>,
    a: Option<Value>,
    b: Option<Value>,
) -> Result<Option<Value>, ConvertError> {
    match (a, b) {
        (Some(a), Some(b)) => Ok(Some(cx.compose("Add", &[a, b], &[])?)),
        (a, b) => Ok(a.or(b)),
    }
}

/// Cuts the last axis into parts of the given extents.
fn split_last(
    cx: &mut NodeContext<'_, '_>,
    value: Value,
    extents: &[i64],
) -> ConvertResult {
    let axis = cx.rank(value)? as i64 - 1;
    let sizes = cx.i64s_constant(extents);
    cx.compose_multi("Split", &[value, sizes], &[("axis", Attr::Int(axis))], extents.len())
}

/// Extent of the last axis.
fn last_extent(cx: &NodeContext<'_, '_>, value: Value) -> Result<i64, ConvertError> {
    let shape = cx.shape(value);
    let last = shape.rank().and_then(|r| r.checked_sub(1)).and_then(|a| shape.dim(a).value());
    last.and_then(|n| i64::try_from(n).ok())
        .ok_or_else(|| OpError::Unsupported(format!("an input of shape {shape}")).into())
}

/// Attention over `q`, `k`, `v` of `[batch, length, hidden]` each, with a past of keys and values.
struct Heads {
    count: i64,
    causal: bool,
    scale: f32,
}

#[expect(clippy::needless_pass_by_value, reason = "the mask is used up here")]
fn over_heads(
    cx: &mut NodeContext<'_, '_>,
    heads: &Heads,
    [q, k, v]: [Value; 3],
    past: Option<[Value; 2]>,
    mask: KeyMask,
) -> ConvertResult {
    let lengths = match (mask.lengths, heads.causal) {
        (Some(lengths), _) => Some(lengths),
        _ => None,
    };
    let (key, value) =
        (append(cx, past.map(|p| p[0]), k)?, append(cx, past.map(|p| p[1]), v)?);
    let offset = match (past, heads.causal, lengths) {
        (Some(past), true, _) => Some(extent(cx, past[0], 2)?),
        // Lengths alone would move the queries to their end.
        (None, true, Some(_)) => Some(cx.i64s_constant(&[0])),
        _ => None,
    };
    let op = Attention {
        scale: f64::from(heads.scale),
        is_causal: heads.causal,
        ..Attention::default()
    };
    let y = attend(cx, op, [q, key, value], mask.bias, lengths, offset)?;
    Ok(vec![join_heads(cx, y[0])?, key, value])
}

fn self_attention(
    cx: &mut NodeContext<'_, '_>,
    x: Value,
    weights: Value,
    bias: Option<Value>,
    [mask, past, attention_bias]: [Option<Value>; 3],
) -> ConvertResult {
    let count = cx.i64("num_heads", 0)?;
    if cx.bool("do_rotary", false)? || cx.bool("past_present_share_buffer", false)? {
        return unsupported("do_rotary or past_present_share_buffer");
    }
    let mut product = cx.compose("MatMul", &[x, weights], &[])?;
    if let Some(bias) = bias {
        product = cx.compose("Add", &[product, bias], &[])?;
    }
    let sizes = match cx.optional_i64s("qkv_hidden_sizes")? {
        Some(sizes) if sizes.len() == 3 => sizes,
        _ => vec![last_extent(cx, weights)? / 3; 3],
    };
    let mut parts = Vec::new();
    for part in split_last(cx, product, &sizes)? {
        parts.push(split_heads(cx, part, count)?);
    }
    let filter = cx.f32("mask_filter_value", -10000.0)?;
    let is_range = mask.is_some_and(|m| {
        let (batch, len) = (cx.shape(x).dim(0).value(), cx.shape(m));
        len.rank() == Some(1) && batch.zip(len.dim(0).value()).is_some_and(|(b, n)| n == 2 * b && b > 0)
    });
    let mut mask = match mask {
        Some(mask) if is_range => {
            let mut total = extent(cx, x, 1)?;
            if let Some(past) = past {
                let before = extent(cx, past, 3)?;
                total = cx.compose("Add", &[total, before], &[])?;
            }
            KeyMask { bias: Some(range_mask(cx, mask, total, x, filter)?), lengths: None }
        }
        mask => key_mask(cx, mask, x, filter)?,
    };
    mask.bias = sum_of(cx, mask.bias, attention_bias)?;
    let past = match past {
        None => None,
        Some(past) => {
            let (first, second) = (cx.i64s_constant(&[0]), cx.i64s_constant(&[1]));
            let axis = cx.i64s_constant(&[0]);
            let mut take = |index: Value| -> Result<Value, ConvertError> {
                let part = cx.compose("Gather", &[past, index], &[("axis", Attr::Int(0))])?;
                cx.compose("Squeeze", &[part, axis], &[])
            };
            Some([take(first)?, take(second)?])
        }
    };
    let heads =
        Heads { count, causal: cx.bool("unidirectional", false)?, scale: cx.f32("scale", 0.0)? };
    debug_assert!(heads.count > 0, "split_heads refuses other numbers");
    let given = over_heads(cx, &heads, [parts[0], parts[1], parts[2]], past, mask)?;
    if !cx.wants_output(1) {
        return Ok(vec![given[0]]);
    }
    let axis = cx.i64s_constant(&[0]);
    let key = cx.compose("Unsqueeze", &[given[1], axis], &[])?;
    let value = cx.compose("Unsqueeze", &[given[2], axis], &[])?;
    let present = cx.compose("Concat", &[key, value], &[("axis", Attr::Int(0))])?;
    Ok(vec![given[0], present])
}

pub(super) fn attention(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    let rest = [cx.optional_input(3), cx.optional_input(4), cx.optional_input(5)];
    self_attention(cx, x, weights, cx.optional_input(2), rest)
}

pub(super) fn quantized_attention(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut x = vec![cx.input(0)?, cx.input(3)?];
    x.extend(cx.optional_input(6));
    let x = cx.compose("DequantizeLinear", &x, &[])?;
    let mut weights = vec![cx.input(1)?, cx.input(4)?];
    weights.extend(cx.optional_input(7));
    let weights = cx.compose("DequantizeLinear", &weights, &[("axis", Attr::Int(1))])?;
    let rest = [cx.optional_input(5), cx.optional_input(8), None];
    self_attention(cx, x, weights, cx.optional_input(2), rest)
}

/// Where the inputs of an attention over query, key and value (0 to 2) stand.
struct Places {
    bias: usize,
    mask: usize,
    attention_bias: usize,
    past: [usize; 2],
    /// What is refused when it is given.
    refused: std::ops::Range<usize>,
}

pub(super) fn multi_head_attention(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let places = Places { bias: 3, mask: 4, attention_bias: 5, past: [6, 7], refused: 8..10 };
    multi_head(cx, &places)
}

/// One query per sequence, with a past that grows, or that is the first part of a buffer which the result has too.
pub(super) fn decoder_masked_multi_head_attention(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let shares = cx.bool("past_present_share_buffer", false)?;
    let refused = if shares { 8..10 } else { 7..10 };
    let places = Places { bias: 10, mask: 3, attention_bias: 4, past: [5, 6], refused };
    let buffers = [5, 6].map(|i| cx.optional_input(i));
    let (true, [Some(keys), Some(values)]) = (shares, buffers) else {
        return multi_head(cx, &places);
    };
    let count = cx.input(7)?;
    let count = cx.compose("Cast", &[count], &[("to", Attr::Int(7))])?;
    let count = cx.reshape(count, &[1])?;
    let one = cx.i64s_constant(&[1]);
    let after = cx.compose("Add", &[count, one], &[])?;
    let (start, end, axis) =
        (cx.i64s_constant(&[0]), cx.i64s_constant(&[i64::MAX]), cx.i64s_constant(&[2]));
    let mut rests = Vec::new();
    for (place, buffer) in [(5, keys), (6, values)] {
        cx.inputs[place] = Some(cx.compose("Slice", &[buffer, start, count, axis], &[])?);
        rests.push(cx.compose("Slice", &[buffer, after, end, axis], &[])?);
    }
    let mut given = multi_head(cx, &places)?;
    for (present, rest) in given[1..].iter_mut().zip(rests) {
        *present = cx.compose("Concat", &[*present, rest], &[("axis", Attr::Int(2))])?;
    }
    Ok(given)
}

fn multi_head(cx: &mut NodeContext<'_, '_>, places: &Places) -> ConvertResult {
    let count = cx.i64("num_heads", 0)?;
    let query = cx.input(0)?;
    if places.refused.clone().any(|i| cx.optional_input(i).is_some()) || cx.wants_output(3) {
        return unsupported("past_sequence_length, beam_width, cache_indirection or qk");
    }
    let mut parts: Vec<Value> = match (cx.optional_input(1), cx.optional_input(2)) {
        (Some(key), Some(value)) => vec![query, key, value],
        (None, None) if cx.rank(query)? == 5 => {
            let packed = cx.transpose(query, &[3, 0, 2, 1, 4])?;
            take_parts(cx, packed, 3)?
        }
        (Some(key), None) if cx.rank(key)? == 5 => {
            let packed = cx.transpose(key, &[3, 0, 2, 1, 4])?;
            let mut parts = vec![query];
            parts.extend(take_parts(cx, packed, 2)?);
            parts
        }
        _ => return unsupported("a query without keys"),
    };
    let biases = match cx.optional_input(places.bias) {
        None => vec![],
        Some(bias) => {
            let mut hidden = Vec::new();
            for part in &parts {
                let shape = cx.shape(*part);
                let per_head = last_extent(cx, *part)?;
                hidden.push(if shape.rank() == Some(4) { per_head * count } else { per_head });
            }
            split_last(cx, bias, &hidden)?
        }
    };
    for (i, part) in parts.iter_mut().enumerate() {
        if cx.rank(*part)? == 3 {
            if let Some(bias) = biases.get(i) {
                *part = cx.compose("Add", &[*part, *bias], &[])?;
            }
            *part = split_heads(cx, *part, count)?;
        } else if let Some(bias) = biases.get(i) {
            let bias = cx.reshape(*bias, &[count, 1, -1])?;
            *part = cx.compose("Add", &[*part, bias], &[])?;
        }
    }
    let filter = cx.f32("mask_filter_value", -10000.0)?;
    let mut mask = key_mask(cx, cx.optional_input(places.mask), query, filter)?;
    mask.bias = sum_of(cx, mask.bias, cx.optional_input(places.attention_bias))?;
    let [key, value] = places.past.map(|i| cx.optional_input(i));
    let past = key.zip(value).map(|(k, v)| [k, v]);
    let heads =
        Heads { count, causal: cx.bool("unidirectional", false)?, scale: cx.f32("scale", 0.0)? };
    over_heads(cx, &heads, [parts[0], parts[1], parts[2]], past, mask)
}

/// The parts of the first axis, without it.
fn take_parts(cx: &mut NodeContext<'_, '_>, packed: Value, count: usize) -> ConvertResult {
    let attributes = [("axis", Attr::Int(0)), ("num_outputs", Attr::Int(count as i64))];
    let axis = cx.i64s_constant(&[0]);
    let parts = cx.compose_multi("Split", &[packed], &attributes, count)?;
    parts.into_iter().map(|p| cx.compose("Squeeze", &[p, axis], &[])).collect()
}

/// Grouped heads with a past that grows by the new keys. Every sequence of a batch must have as many valid past keys as
/// the past holds; `seqlens_k` then only hides padding at the end.
pub(super) fn group_query_attention(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (count, kv_count) = (cx.i64("num_heads", 0)?, cx.i64("kv_num_heads", 0)?);
    if (11..17).any(|i| cx.optional_input(i).is_some()) || cx.wants_output(3) {
        return unsupported("head_sink, quantized caches, per-head normalization or output_qk");
    }
    if count <= 0 || kv_count <= 0 {
        return unsupported("a number of heads that is not given");
    }
    let query = cx.input(0)?;
    let parts = match (cx.optional_input(1), cx.optional_input(2)) {
        (Some(key), Some(value)) => vec![query, key, value],
        _ => {
            let width = last_extent(cx, query)? / (count + 2 * kv_count);
            split_last(cx, query, &[width * count, width * kv_count, width * kv_count])?
        }
    };
    let mut q = split_heads(cx, parts[0], count)?;
    let mut k = split_heads(cx, parts[1], kv_count)?;
    let v = split_heads(cx, parts[2], kv_count)?;
    let past = cx.optional_input(3).zip(cx.optional_input(4));
    let offset = match past {
        Some((past, _)) => extent(cx, past, 2)?,
        None => cx.i64s_constant(&[0]),
    };
    if cx.bool("do_rotary", false)? {
        let interleaved = cx.bool("rotary_interleaved", false)?;
        let (cos, sin) = (cx.input(7)?, cx.input(8)?);
        let turned = last_extent(cx, cos)? * 2;
        let positions = cx.optional_input(9).unwrap_or(offset);
        let op = RotaryEmbedding {
            rotary_embedding_dim: turned,
            interleaved,
            ..RotaryEmbedding::default()
        };
        q = cx.add(op.clone(), &[q, cos, sin, positions])?;
        k = cx.add(op, &[k, cos, sin, positions])?;
    }
    let key = append(cx, past.map(|p| p.0), k)?;
    let value = append(cx, past.map(|p| p.1), v)?;
    let seqlens = cx.input(5)?;
    let one = cx.scalar_like(1.0, seqlens)?;
    let lengths = cx.compose("Add", &[seqlens, one], &[])?;
    let causal = cx.bool("causal", true)?;
    let window = cx.i64("local_window_size", -1)?;
    let op = Attention {
        scale: f64::from(cx.f32("scale", 0.0)?),
        softcap: f64::from(cx.f32("softcap", 0.0)?),
        is_causal: causal,
        left_window_size: if window > 0 { window - 1 } else { -1 },
        smooth_softmax: cx.i64("smooth_softmax", 0)? > 0,
        ..Attention::default()
    };
    let bias = cx.optional_input(10);
    let y = attend(cx, op, [q, key, value], bias, Some(lengths), Some(offset))?;
    Ok(vec![join_heads(cx, y[0])?, key, value])
}

pub(super) fn rotary_embedding(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    if cx.bool("is_packed_batching", false)? {
        return unsupported("is_packed_batching");
    }
    let inputs = [cx.input(0)?, cx.input(2)?, cx.input(3)?, cx.input(1)?];
    let op = RotaryEmbedding {
        num_heads: cx.i64("num_heads", 0)?,
        rotary_embedding_dim: cx.i64("rotary_embedding_dim", 0)?,
        interleaved: cx.bool("interleaved", false)?,
        // The schema has a scale, but no kernel of ONNX Runtime reads it.
        scale: 1.0,
    };
    cx.add_multi(op, &inputs)
}
