//! `com.microsoft` operators that real models carry, as compositions.

mod attention;
mod derived;
mod experts;
mod general;
mod matmul;
mod quantized;
#[cfg(test)]
mod tests;

use super::{
    super::{Attr, ConvertError, NodeContext},
    ConvertResult, OnnxOp,
};
use crate::{model::Value, op::OpError};

const MICROSOFT: &str = "com.microsoft";

/// `x` through an activation that a fused operator names, with its parameters.
fn activate(
    cx: &mut NodeContext<'_, '_>,
    name: &str,
    x: Value,
    alpha: Option<f32>,
    beta: Option<f32>,
) -> Result<Value, ConvertError> {
    let given = |list: &[(&'static str, Option<f32>)]| -> Vec<(&'static str, Attr<'static>)> {
        list.iter().filter_map(|(n, v)| v.map(|v| (*n, Attr::Float(v)))).collect()
    };
    match name {
        "" => Ok(x),
        "Relu" | "Tanh" | "Sigmoid" | "Softplus" | "Softsign" | "HardSwish" | "Mish" => {
            cx.compose(name, &[x], &[])
        }
        "LeakyRelu" | "Elu" | "ThresholdedRelu" => cx.compose(name, &[x], &given(&[("alpha", alpha)])),
        "HardSigmoid" => cx.compose(name, &[x], &given(&[("alpha", alpha), ("beta", beta)])),
        "Clip" => {
            let low = cx.scalar_like(f64::from(alpha.unwrap_or(f32::MIN)), x)?;
            let high = cx.scalar_like(f64::from(beta.unwrap_or(f32::MAX)), x)?;
            cx.compose("Clip", &[x, low, high], &[])
        }
        other => Err(OpError::Unsupported(format!("the fused activation {other}")).into()),
    }
}

/// The sum of a value and those optional inputs that are given.
fn add_inputs(
    cx: &mut NodeContext<'_, '_>,
    mut x: Value,
    indices: &[usize],
) -> Result<Value, ConvertError> {
    for index in indices {
        if let Some(other) = cx.optional_input(*index) {
            x = cx.compose("Add", &[x, other], &[])?;
        }
    }
    Ok(x)
}

fn skip_layer_normalization(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let sum = add_inputs(cx, x, &[1, 4])?;
    let mut inputs = vec![sum, cx.input(2)?];
    inputs.extend(cx.optional_input(3));
    let epsilon = cx.f32("epsilon", 1e-12)?;
    let attributes = [("axis", Attr::Int(-1)), ("epsilon", Attr::Float(epsilon))];
    let wants_statistics = cx.wants_output(1) || cx.wants_output(2);
    let count = if wants_statistics { 3 } else { 1 };
    let given = cx.compose_multi("LayerNormalization", &inputs, &attributes, count)?;
    let statistic = |i: usize| given.get(i).copied().unwrap_or(given[0]);
    Ok(vec![given[0], statistic(1), statistic(2), sum])
}

/// RMS normalization over the last axes, and the reciprocal of the root when output `statistic` is wanted.
fn rms_normalization(
    cx: &mut NodeContext<'_, '_>,
    x: Value,
    scale: Value,
    axis: i64,
    epsilon: f32,
    statistic: usize,
) -> Result<[Value; 2], ConvertError> {
    let attributes = [("axis", Attr::Int(axis)), ("epsilon", Attr::Float(epsilon))];
    let y = cx.compose("RMSNormalization", &[x, scale], &attributes)?;
    if !cx.wants_output(statistic) {
        return Ok([y, y]);
    }
    let rank = cx.rank(x)? as i64;
    let axes: Vec<i64> = (if axis < 0 { axis.saturating_add(rank) } else { axis }..rank).collect();
    let axes = cx.i64s_constant(&axes);
    let square = cx.compose("Mul", &[x, x], &[])?;
    let mean = cx.compose("ReduceMean", &[square, axes], &[])?;
    let epsilon = cx.scalar_like(f64::from(epsilon), mean)?;
    let mean = cx.compose("Add", &[mean, epsilon], &[])?;
    let root = cx.compose("Sqrt", &[mean], &[])?;
    Ok([y, cx.compose("Reciprocal", &[root], &[])?])
}

fn simplified_layer_normalization(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let (axis, epsilon) = (cx.i64("axis", -1)?, cx.f32("epsilon", 1e-5)?);
    Ok(rms_normalization(cx, x, scale, axis, epsilon, 1)?.to_vec())
}

fn skip_simplified_layer_normalization(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let sum = add_inputs(cx, x, &[1, 3])?;
    let (scale, epsilon) = (cx.input(2)?, cx.f32("epsilon", 1e-12)?);
    if cx.wants_output(1) {
        return Err(OpError::Unsupported("the mean of RMS normalization".to_owned()).into());
    }
    let [y, root] = rms_normalization(cx, sum, scale, -1, epsilon, 2)?;
    Ok(vec![y, y, root, sum])
}

fn embed_layer_normalization(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (ids, words, places) = (cx.input(0)?, cx.input(2)?, cx.input(3)?);
    let first = [("axis", Attr::Int(0))];
    let words = cx.compose("Gather", &[words, ids], &first)?;
    let places = if let Some(positions) = cx.optional_input(8) {
        cx.compose("Gather", &[places, positions], &first)?
    } else {
        let length = super::attention::extent(cx, ids, 1)?;
        let (start, axis) = (cx.i64s_constant(&[0]), cx.i64s_constant(&[0]));
        cx.compose("Slice", &[places, start, length, axis], &[])?
    };
    let mut sum = cx.compose("Add", &[words, places], &[])?;
    if let (Some(segments), Some(table)) = (cx.optional_input(1), cx.optional_input(4)) {
        let segments = cx.compose("Gather", &[table, segments], &first)?;
        sum = cx.compose("Add", &[sum, segments], &[])?;
    }
    let epsilon = cx.f32("epsilon", 1e-12)?;
    let attributes = [("axis", Attr::Int(-1)), ("epsilon", Attr::Float(epsilon))];
    let inputs = [sum, cx.input(5)?, cx.input(6)?];
    let y = cx.compose("LayerNormalization", &inputs, &attributes)?;
    if !cx.wants_output(1) {
        return Ok(vec![y, y, sum]);
    }
    let axes = cx.i64s_constant(&[1]);
    let counted = match cx.optional_input(7) {
        Some(mask) => mask,
        None => cx.compose("Sub", &[ids, ids], &[])?,
    };
    let counted = cx.compose("Cast", &[counted], &[("to", Attr::Int(6))])?;
    let lengths = cx.compose("ReduceSum", &[counted, axes], &[("keepdims", Attr::Int(0))])?;
    Ok(vec![y, lengths, sum])
}

fn gelu_of_sum(cx: &mut NodeContext<'_, '_>, approximate: &str) -> ConvertResult {
    let x = cx.input(0)?;
    let x = add_inputs(cx, x, &[1])?;
    Ok(vec![cx.compose("Gelu", &[x], &[("approximate", Attr::Text(approximate))])?])
}

fn gelu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    gelu_of_sum(cx, "none")
}

fn fast_gelu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    gelu_of_sum(cx, "tanh")
}

fn quick_gelu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let alpha = cx.scalar_like(f64::from(cx.f32("alpha", 1.702)?), x)?;
    let scaled = cx.compose("Mul", &[x, alpha], &[])?;
    let gate = cx.compose("Sigmoid", &[scaled], &[])?;
    Ok(vec![cx.compose("Mul", &[x, gate], &[])?])
}

const WINDOW: &[&str] =
    &["auto_pad", "kernel_shape", "strides", "dilations", "pads", "group", "ceil_mode"];

fn fused_conv(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut inputs = vec![cx.input(0)?, cx.input(1)?];
    inputs.extend(cx.optional_input(2));
    let attributes = cx.own_attributes(WINDOW);
    let y = cx.compose_with("Conv", &inputs, attributes, 1)?[0];
    let y = add_inputs(cx, y, &[3])?;
    let parameters = cx.optional_f32s("activation_params")?.unwrap_or_default();
    let name = cx.str("activation", "")?.to_owned();
    let (alpha, beta) = (parameters.first().copied(), parameters.get(1).copied());
    Ok(vec![activate(cx, &name, y, alpha, beta)?])
}

fn nhwc_max_pool(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let rank = cx.rank(x)? as i64;
    let attributes = cx.own_attributes(WINDOW);
    let x = channels_first(cx, x, rank)?;
    let y = cx.compose_with("MaxPool", &[x], attributes, 1)?[0];
    Ok(vec![channels_last(cx, y, rank)?])
}

/// `[n, ..., c]` as `[n, c, ...]`.
fn channels_first(cx: &mut NodeContext<'_, '_>, x: Value, rank: i64) -> Result<Value, ConvertError> {
    let order: Vec<i64> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    cx.transpose(x, &order)
}

/// `[n, c, ...]` as `[n, ..., c]`.
fn channels_last(cx: &mut NodeContext<'_, '_>, x: Value, rank: i64) -> Result<Value, ConvertError> {
    let order: Vec<i64> = [0].into_iter().chain(2..rank).chain([1]).collect();
    cx.transpose(x, &order)
}

fn trilu(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (inputs, attributes) = (cx.all_inputs(), cx.own_attributes(&["upper"]));
    cx.compose_with("Trilu", &inputs, attributes, 1)
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    (MICROSOFT, "SkipLayerNormalization", 1, skip_layer_normalization),
    ("", "SimplifiedLayerNormalization", 1, simplified_layer_normalization),
    (MICROSOFT, "SimplifiedLayerNormalization", 1, simplified_layer_normalization),
    (MICROSOFT, "SkipSimplifiedLayerNormalization", 1, skip_simplified_layer_normalization),
    (MICROSOFT, "EmbedLayerNormalization", 1, embed_layer_normalization),
    (MICROSOFT, "Gelu", 1, gelu),
    (MICROSOFT, "BiasGelu", 1, gelu),
    (MICROSOFT, "FastGelu", 1, fast_gelu),
    (MICROSOFT, "QuickGelu", 1, quick_gelu),
    (MICROSOFT, "FusedConv", 1, fused_conv),
    (MICROSOFT, "NhwcMaxPool", 1, nhwc_max_pool),
    (MICROSOFT, "Trilu", 1, trilu),
    (MICROSOFT, "FusedMatMul", 1, matmul::fused_matmul),
    (MICROSOFT, "FusedGemm", 1, matmul::fused_gemm),
    (MICROSOFT, "MatMulNBits", 1, matmul::matmul_n_bits),
    (MICROSOFT, "DynamicQuantizeMatMul", 1, matmul::dynamic_quantize_matmul),
    (MICROSOFT, "MatMulIntegerToFloat", 1, matmul::matmul_integer_to_float),
    (MICROSOFT, "QLinearAdd", 1, quantized::add),
    (MICROSOFT, "QLinearMul", 1, quantized::multiply),
    (MICROSOFT, "QLinearSigmoid", 1, quantized::sigmoid),
    (MICROSOFT, "QLinearLeakyRelu", 1, quantized::leaky_relu),
    (MICROSOFT, "QLinearGlobalAveragePool", 1, quantized::global_average_pool),
    (MICROSOFT, "QLinearAveragePool", 1, quantized::average_pool),
    (MICROSOFT, "QLinearConcat", 1, quantized::concat),
    (MICROSOFT, "QLinearSoftmax", 1, quantized::softmax),
    (MICROSOFT, "QGemm", 1, quantized::gemm),
    (MICROSOFT, "Attention", 1, attention::attention),
    (MICROSOFT, "QAttention", 1, attention::quantized_attention),
    (MICROSOFT, "MultiHeadAttention", 1, attention::multi_head_attention),
    (MICROSOFT, "GroupQueryAttention", 1, attention::group_query_attention),
    (MICROSOFT, "RotaryEmbedding", 1, attention::rotary_embedding),
    (MICROSOFT, "QuantizeLinear", 1, general::quantize_linear),
    (MICROSOFT, "DequantizeLinear", 1, general::dequantize_linear),
    (MICROSOFT, "QLinearConv", 1, general::qlinear_conv),
    (MICROSOFT, "QLinearWhere", 1, general::qlinear_where),
    (MICROSOFT, "NhwcConv", 1, general::nhwc_conv),
    (MICROSOFT, "GroupNorm", 1, general::group_norm),
    (MICROSOFT, "SkipGroupNorm", 1, general::skip_group_norm),
    (MICROSOFT, "BiasSplitGelu", 1, general::bias_split_gelu),
    (MICROSOFT, "BiasAdd", 1, general::bias_add),
    (MICROSOFT, "Unique", 1, general::unique),
    (MICROSOFT, "Range", 1, general::range),
    (MICROSOFT, "Pad", 1, general::pad),
    (MICROSOFT, "GatherND", 1, general::gather_nd),
    (MICROSOFT, "ExpandDims", 1, general::expand_dims),
    (MICROSOFT, "ReduceSumInteger", 1, general::reduce_sum_integer),
    (MICROSOFT, "CDist", 1, general::cdist),
    (MICROSOFT, "DecoderMaskedMultiHeadAttention", 1, attention::decoder_masked_multi_head_attention),
    (MICROSOFT, "Tokenizer", 1, derived::tokenizer),
    (MICROSOFT, "MoE", 1, experts::mixture),
    (MICROSOFT, "QMoE", 1, experts::quantized_mixture),
    (MICROSOFT, "GatherBlockQuantized", 1, experts::gather_block_quantized),
    (MICROSOFT, "GemmFastGelu", 1, experts::gemm_fast_gelu),
    (MICROSOFT, "Inverse", 1, derived::inverse),
    (MICROSOFT, "MurmurHash3", 1, derived::murmur_hash),
    (MICROSOFT, "CropAndResize", 1, derived::crop_and_resize),
    (MICROSOFT, "NGramRepeatBlock", 1, derived::ngram_repeat_block),
    (MICROSOFT, "BifurcationDetector", 1, derived::bifurcation_detector),
    (MICROSOFT, "TransposeMatMul", 1, matmul::fused_matmul),
    (MICROSOFT, "FusedMatMulActivation", 1, derived::fused_matmul_activation),
    (MICROSOFT, "MulInteger", 1, derived::mul_integer),
    (MICROSOFT, "MatMulInteger16", 1, derived::matmul_integer_16),
    (MICROSOFT, "QLinearReduceMean", 1, derived::quantized_mean),
    (MICROSOFT, "BiasSoftmax", 1, derived::bias_softmax),
    (MICROSOFT, "BiasDropout", 1, derived::bias_dropout),
    (MICROSOFT, "GemmaRotaryEmbedding", 1, derived::gemma_rotary),
    (MICROSOFT, "ComplexMul", 1, derived::complex_mul),
    (MICROSOFT, "ComplexMulConj", 1, derived::complex_mul_conj),
    (MICROSOFT, "IsAllFinite", 1, derived::is_all_finite),
    (MICROSOFT, "TorchEmbedding", 1, derived::torch_embedding),
    (MICROSOFT, "SampleOp", 1, derived::sample_op),
    (MICROSOFT, "UnfoldTensor", 1, derived::unfold),
    (MICROSOFT, "Rfft", 1, derived::rfft),
    (MICROSOFT, "Irfft", 1, derived::irfft),
    (MICROSOFT, "ConvTransposeWithDynamicPads", 1, derived::conv_transpose_dynamic_pads),
    (MICROSOFT, "NhwcFusedConv", 1, derived::nhwc_fused_conv),
];
