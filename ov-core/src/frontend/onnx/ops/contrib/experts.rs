//! Mixtures of experts: every expert computes every token, and the weights of those not chosen are 0.

use super::{
    super::super::{Attr, ConvertError, NodeContext},
    ConvertResult, add_inputs, matmul,
};
use crate::{
    model::Value,
    op::OpError,
    tensor::{Tensor, write_packed},
};

fn unsupported<T>(what: &str) -> Result<T, ConvertError> {
    Err(OpError::Unsupported(what.to_owned()).into())
}

/// One layer of all experts: weights `[experts, n, k]`, and a bias `[experts, n]`.
#[derive(Clone, Copy)]
struct Layer {
    weights: Value,
    bias: Option<Value>,
}

/// `x W_eᵀ + b_e`: `x` is `[1 or experts, tokens, k]`, the result `[experts, tokens, n]`.
fn apply(cx: &mut NodeContext<'_, '_>, x: Value, layer: Layer) -> Result<Value, ConvertError> {
    let weights = cx.transpose(layer.weights, &[0, 2, 1])?;
    let y = cx.compose("MatMul", &[x, weights], &[])?;
    let Some(bias) = layer.bias else { return Ok(y) };
    let axis = cx.i64s_constant(&[1]);
    let bias = cx.compose("Unsqueeze", &[bias, axis], &[])?;
    cx.compose("Add", &[y, bias], &[])
}

/// What the weights of the chosen experts are.
#[derive(Clone, Copy)]
enum Mixing {
    /// Their probabilities among all experts, which sum up to 1 if an attribute says so.
    All,
    /// Their probabilities among the chosen ones: ONNX Runtime's `QMoE` does not read the attribute.
    Chosen,
    /// What an input says, which sums up to 1 if an attribute says so.
    Given(Value),
}

/// Weights `[experts, tokens, 1]`: of each token the `k` experts of the greatest probabilities.
fn routing(
    cx: &mut NodeContext<'_, '_>,
    scores: Value,
    mixing: Mixing,
) -> Result<Value, ConvertError> {
    if cx.bool("use_sparse_mixer", false)? {
        return unsupported("use_sparse_mixer");
    }
    let last = [("axis", Attr::Int(-1))];
    let probabilities = cx.compose("Softmax", &[scores], &last)?;
    let k = cx.i64("k", 1)?;
    let k = cx.i64s_constant(&[k]);
    let best = cx.compose_multi("TopK", &[probabilities, k], &last, 2)?;
    let mut kept = match mixing {
        Mixing::Given(mixing) => cx.compose("GatherElements", &[mixing, best[1]], &last)?,
        Mixing::All | Mixing::Chosen => best[0],
    };
    if cx.bool("normalize_routing_weights", false)? || matches!(mixing, Mixing::Chosen) {
        let axis = cx.i64s_constant(&[-1]);
        let sum = cx.compose("ReduceSum", &[kept, axis], &[("keepdims", Attr::Int(1))])?;
        kept = cx.compose("Div", &[kept, sum], &[])?;
    }
    let zeros = cx.compose("Sub", &[scores, scores], &[])?;
    let spread = cx.compose("ScatterElements", &[zeros, best[1], kept], &last)?;
    let turned = cx.transpose(spread, &[1, 0])?;
    let axis = cx.i64s_constant(&[2]);
    cx.compose("Unsqueeze", &[turned, axis], &[])
}

/// `G sigmoid(α G) (L + β)` with `G = min(g, limit)` and `L` within ± limit.
fn swiglu(cx: &mut NodeContext<'_, '_>, [g, l]: [Value; 2]) -> Result<Value, ConvertError> {
    let (mut g, mut l) = (g, l);
    if cx.bool("swiglu_limit_after_activation", false)? {
        return unsupported("swiglu_limit_after_activation");
    }
    if let Some(limit) = cx.optional_f32("swiglu_limit")? {
        let (most, least) =
            (cx.scalar_like(f64::from(limit), g)?, cx.scalar_like(f64::from(-limit), g)?);
        g = cx.compose("Min", &[g, most], &[])?;
        l = cx.compose("Clip", &[l, least, most], &[])?;
    }
    let alpha = cx.scalar_like(f64::from(cx.f32("activation_alpha", 1.0)?), g)?;
    let beta = cx.scalar_like(f64::from(cx.f32("activation_beta", 0.0)?), l)?;
    let scaled = cx.compose("Mul", &[g, alpha], &[])?;
    let gate = cx.compose("Sigmoid", &[scaled], &[])?;
    let gated = cx.compose("Mul", &[g, gate], &[])?;
    let shifted = cx.compose("Add", &[l, beta], &[])?;
    cx.compose("Mul", &[gated, shifted], &[])
}

/// The two projections that lie in one layer `[…, 2 n]`, one after the other or in turns.
fn parted(cx: &mut NodeContext<'_, '_>, both: Value) -> Result<[Value; 2], ConvertError> {
    match cx.i64("swiglu_fusion", 0)? {
        1 => {
            let (axis, step) = (cx.i64s_constant(&[-1]), cx.i64s_constant(&[2]));
            let end = cx.i64s_constant(&[i64::MAX]);
            let mut part = |start: i64| {
                let start = cx.i64s_constant(&[start]);
                cx.compose("Slice", &[both, start, end, axis, step], &[])
            };
            Ok([part(0)?, part(1)?])
        }
        2 => {
            let attributes = [("axis", Attr::Int(-1)), ("num_outputs", Attr::Int(2))];
            let parts = cx.compose_multi("Split", &[both], &attributes, 2)?;
            Ok([parts[0], parts[1]])
        }
        other => Err(OpError::Attribute {
            name: "swiglu_fusion",
            got: other.to_string(),
            expected: "1 or 2 where there is no third layer".to_owned(),
        }
        .into()),
    }
}

fn experts(
    cx: &mut NodeContext<'_, '_>,
    [first, second]: [Layer; 2],
    third: Option<Layer>,
    mixing: Mixing,
) -> ConvertResult {
    let (x, scores) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.rank(x)?;
    let axis = cx.i64s_constant(&[0]);
    let rows = if rank == 2 {
        x
    } else {
        let width = cx.shape(first.weights).dim(2).value().unwrap_or(0);
        cx.reshape(x, &[-1, width as i64])?
    };
    let rows = cx.compose("Unsqueeze", &[rows, axis], &[])?;
    let weights = routing(cx, scores, mixing)?;
    let hidden = apply(cx, rows, first)?;
    let kind = cx.str("activation_type", "relu")?.to_owned();
    let hidden = match (kind.as_str(), third) {
        ("swiglu", Some(third)) => {
            let linear = apply(cx, rows, third)?;
            swiglu(cx, [hidden, linear])?
        }
        ("swiglu", None) => {
            let parts = parted(cx, hidden)?;
            swiglu(cx, parts)?
        }
        ("geglu", None) => {
            let [g, l] = parted(cx, hidden)?;
            let gate = cx.compose("Gelu", &[g], &[("approximate", Attr::Text("tanh"))])?;
            cx.compose("Mul", &[gate, l], &[])?
        }
        (_, third) => {
            let active = match kind.as_str() {
                "identity" => hidden,
                "relu" => cx.compose("Relu", &[hidden], &[])?,
                "relu2" => {
                    let y = cx.compose("Relu", &[hidden], &[])?;
                    cx.compose("Mul", &[y, y], &[])?
                }
                "gelu" => cx.compose("Gelu", &[hidden], &[("approximate", Attr::Text("tanh"))])?,
                "silu" => {
                    let gate = cx.compose("Sigmoid", &[hidden], &[])?;
                    cx.compose("Mul", &[hidden, gate], &[])?
                }
                other => return unsupported(&format!("the activation {other} of experts")),
            };
            match third {
                None => active,
                Some(third) => {
                    let linear = apply(cx, rows, third)?;
                    cx.compose("Mul", &[active, linear], &[])?
                }
            }
        }
    };
    let y = apply(cx, hidden, second)?;
    let y = cx.compose("Mul", &[y, weights], &[])?;
    let y = cx.compose("ReduceSum", &[y, axis], &[("keepdims", Attr::Int(0))])?;
    if rank == 2 {
        return Ok(vec![y]);
    }
    let shape = cx.compose("Shape", &[x], &[])?;
    Ok(vec![cx.compose("Reshape", &[y, shape], &[])?])
}

pub(super) fn mixture(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let first = Layer { weights: cx.input(2)?, bias: cx.optional_input(3) };
    let second = Layer { weights: cx.input(4)?, bias: cx.optional_input(5) };
    let bias = cx.optional_input(7);
    let third = cx.optional_input(6).map(|weights| Layer { weights, bias });
    experts(cx, [first, second], third, Mixing::All)
}

/// Weights `[experts, n, k bits / 8]` in inputs `weights`, `scales` and `zeros` as real numbers.
fn dequantized(
    cx: &mut NodeContext<'_, '_>,
    [weights, scales, zeros]: [usize; 3],
    name: &'static str,
) -> Result<Value, ConvertError> {
    let constant = |cx: &NodeContext<'_, '_>, index: usize| {
        let value = cx.input(index)?;
        cx.constant_value(value).ok_or_else(|| {
            ConvertError::from(OpError::Unsupported("weights computed at run time".to_owned()))
        })
    };
    let shared = cx.i64("expert_weight_bits", 4)?;
    let bits = match cx.i64(name, shared)? {
        bits @ (2 | 4 | 8) => bits as usize,
        other => return unsupported(&format!("weights of {other} bits")),
    };
    let packed = constant(cx, weights)?;
    let [count, n, row_bytes] = packed.shape()[..] else {
        return Err(OpError::Input {
            index: weights,
            got: format!("shape {}", packed.shape()),
            expected: "[experts, rows, bytes]".to_owned(),
        }
        .into());
    };
    let (rows, k) = (count.saturating_mul(n), row_bytes.saturating_mul(8) / bits);
    let block = match usize::try_from(cx.i64("block_size", 0)?) {
        Ok(block) if block > 0 => block,
        _ => k.max(1),
    };
    let blocks = k.div_ceil(block);
    let values = matmul::repack(&packed, bits, rows, k, row_bytes)?.reshape([count, n, k])?;
    let scales = constant(cx, scales)?.reshape([count, n, blocks])?;
    let ty = values.element_type();
    let zeros = if cx.optional_input(zeros).is_some() {
        let given = constant(cx, zeros)?;
        // One zero point per row lies packed along the rows, several along the blocks.
        let (lines, len) = if blocks == 1 && given.rank() == 2 { (count, n) } else { (rows, blocks) };
        matmul::repack(&given, bits, lines, len, (len * bits).div_ceil(8))?
    } else {
        let mut zeros = Tensor::zeros(ty, [rows, blocks])?;
        let out = zeros.bytes_mut()?;
        (0..rows * blocks).for_each(|i| write_packed(out, bits, i, 1 << (bits - 1)));
        zeros
    };
    let zeros = zeros.reshape([count, n, blocks])?;
    let inputs = [cx.constant(values), cx.constant(scales), cx.constant(zeros)];
    let attributes = [("axis", Attr::Int(2)), ("block_size", Attr::Int(block as i64))];
    cx.compose("DequantizeLinear", &inputs, &attributes)
}

pub(super) fn quantized_mixture(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let kind = cx.str("quant_type", "int")?;
    if kind != "int" {
        return unsupported(&format!("the quantization {kind} of experts"));
    }
    if cx.i64("weights_prepacked", -1)? == 1 {
        return unsupported("weights packed for one kind of device");
    }
    let first = dequantized(cx, [2, 3, 11], "fc1_expert_weight_bits")?;
    let second = dequantized(cx, [5, 6, 12], "fc2_expert_weight_bits")?;
    let third = match cx.optional_input(8) {
        Some(_) => {
            let weights = dequantized(cx, [8, 9, 13], "fc3_expert_weight_bits")?;
            Some(Layer { weights, bias: cx.optional_input(10) })
        }
        None => None,
    };
    let layers = [
        Layer { weights: first, bias: cx.optional_input(4) },
        Layer { weights: second, bias: cx.optional_input(7) },
    ];
    let mixing = cx.optional_input(14).map_or(Mixing::Chosen, Mixing::Given);
    experts(cx, layers, third, mixing)
}

/// Rows of a table in blocks that share a scale, read by index before they become real numbers.
pub(super) fn gather_block_quantized(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (data, indices, scales) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let rank = cx.rank(data)?;
    let axis = |cx: &NodeContext<'_, '_>, name, default| -> Result<usize, ConvertError> {
        Ok(crate::op::normalize_axis(cx.i64(name, default)?, rank)?)
    };
    let (gathered, along) = (axis(cx, "gather_axis", 0)?, axis(cx, "quantize_axis", 1)?);
    if gathered == along {
        return unsupported("blocks along the axis that is gathered");
    }
    let ty = cx.element_type(data);
    let bytes = ty == crate::ElementType::U8;
    let bits = if bytes { cx.i64("bits", 4)? } else { i64::try_from(ty.bits()).unwrap_or(8) };
    if !ty.is_integer() || !matches!(bits, 2 | 4 | 8) {
        return unsupported(&format!("a table of {ty} in {bits} bits"));
    }
    let unpacked = |cx: &mut NodeContext<'_, '_>,
                    index: usize,
                    last: usize|
     -> Result<Value, ConvertError> {
        let value = cx.input(index)?;
        if !bytes || bits == 8 {
            return Ok(value);
        }
        let tensor = cx.constant_value(value).ok_or_else(|| {
            ConvertError::from(OpError::Unsupported("a table computed at run time".to_owned()))
        })?;
        let mut shape = tensor.shape().to_vec();
        let row_bytes = shape.pop().unwrap_or(1);
        let rows = shape.iter().product();
        let values = matmul::repack(&tensor, bits as usize, rows, last, row_bytes)?;
        shape.push(last);
        Ok(cx.constant(values.reshape(shape)?))
    };
    let extent = |cx: &NodeContext<'_, '_>, value: Value| cx.shape(value).dim(rank - 1).value();
    let Some((last, blocks)) = extent(cx, data).zip(extent(cx, scales)) else {
        return unsupported("a table of unknown extents");
    };
    let last = if bytes { last.saturating_mul(8) / bits as usize } else { last };
    let table = unpacked(cx, 0, last)?;
    // Indices out of range give zeros here, unlike those of Gather.
    let take = |cx: &mut NodeContext<'_, '_>, value: Value| -> Result<Value, ConvertError> {
        let axis = cx.constant(Tensor::scalar(gathered as i64));
        cx.add(crate::op::gather::Gather::default(), &[value, indices, axis])
    };
    let (values, scales) = (take(cx, table)?, take(cx, scales)?);
    let zeros = match cx.optional_input(3) {
        Some(_) => {
            let zeros = unpacked(cx, 3, blocks)?;
            Some(take(cx, zeros)?)
        }
        None if bytes => {
            let mut zero = Tensor::zeros(cx.element_type(values), [1])?;
            write_packed(zero.bytes_mut()?, bits as usize, 0, 1 << (bits - 1));
            let zero = cx.constant(zero);
            let shape = cx.compose("Shape", &[scales], &[])?;
            Some(cx.compose("Expand", &[zero, shape], &[])?)
        }
        None => None,
    };
    let mut inputs = vec![values, scales];
    inputs.extend(zeros);
    let shift = cx.rank(indices)? as i64 - 1;
    let along = along as i64 + if along > gathered { shift } else { 0 };
    let attributes =
        [("axis", Attr::Int(along)), ("block_size", Attr::Int(cx.i64("block_size", 128)?))];
    Ok(vec![cx.compose("DequantizeLinear", &inputs, &attributes)?])
}

/// The product of two matrices, through GELU.
pub(super) fn gemm_fast_gelu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?];
    let y = cx.compose("MatMul", &inputs, &[])?;
    let y = add_inputs(cx, y, &[2])?;
    Ok(vec![cx.compose("Gelu", &[y], &[("approximate", Attr::Text("tanh"))])?])
}
