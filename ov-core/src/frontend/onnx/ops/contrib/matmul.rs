//! Matrix products with something around them.

use super::{
    super::super::{Attr, ConvertError, NodeContext},
    ConvertResult, activate, add_inputs,
};
use crate::{
    model::Value,
    op::{OpError, OpResult},
    op_ensure,
    tensor::{ElementType, Tensor, read_packed, write_packed},
};

/// An operand of `FusedMatMul`: batch axes rotated, then the last two exchanged.
fn operand(
    cx: &mut NodeContext<'_, '_>,
    index: usize,
    transposes: bool,
    rotates: bool,
) -> Result<Value, ConvertError> {
    let value = cx.input(index)?;
    if !transposes && !rotates {
        return Ok(value);
    }
    let rank = cx.rank(value)?;
    if rank < 2 {
        return Ok(value);
    }
    let mut order: Vec<i64> = (0..rank as i64).collect();
    if rotates {
        order[..rank - 1].rotate_left(1);
    }
    if transposes {
        order.swap(rank - 2, rank - 1);
    }
    cx.transpose(value, &order)
}

pub(super) fn fused_matmul(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let flags = |cx: &NodeContext<'_, '_>, name| cx.bool(name, false);
    let (ta, tb) = (flags(cx, "transA")?, flags(cx, "transB")?);
    let (ra, rb) = (flags(cx, "transBatchA")?, flags(cx, "transBatchB")?);
    let (a, b) = (operand(cx, 0, ta, ra)?, operand(cx, 1, tb, rb)?);
    let y = cx.compose("MatMul", &[a, b], &[])?;
    let alpha = f64::from(cx.f32("alpha", 1.0)?);
    if alpha == 1.0 {
        return Ok(vec![y]);
    }
    let alpha = cx.scalar_like(alpha, y)?;
    Ok(vec![cx.compose("Mul", &[y, alpha], &[])?])
}

pub(super) fn fused_gemm(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut inputs = vec![cx.input(0)?, cx.input(1)?];
    inputs.extend(cx.optional_input(2));
    let attributes = cx.own_attributes(&["alpha", "beta", "transA", "transB"]);
    let y = cx.compose_with("Gemm", &inputs, attributes, 1)?[0];
    let name = cx.str("activation", "")?.to_owned();
    let (alpha, beta) =
        (cx.optional_f32("activation_alpha")?, cx.optional_f32("activation_beta")?);
    Ok(vec![activate(cx, &name, y, alpha, beta)?])
}

/// `float(A B) scale + bias` of an integer product.
fn scaled_product(
    cx: &mut NodeContext<'_, '_>,
    product: Value,
    scales: [Value; 2],
    bias: usize,
) -> ConvertResult {
    let scale = cx.compose("Mul", &scales, &[])?;
    let product = cx.compose("CastLike", &[product, scale], &[])?;
    let y = cx.compose("Mul", &[product, scale], &[])?;
    Ok(vec![add_inputs(cx, y, &[bias])?])
}

pub(super) fn dynamic_quantize_matmul(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let a = cx.input(0)?;
    let quantized = cx.compose_multi("DynamicQuantizeLinear", &[a], &[], 3)?;
    let mut inputs = vec![quantized[0], cx.input(1)?, quantized[2]];
    inputs.extend(cx.optional_input(3));
    let product = cx.compose("MatMulInteger", &inputs, &[])?;
    let scales = [quantized[1], cx.input(2)?];
    scaled_product(cx, product, scales, 4)
}

pub(super) fn matmul_integer_to_float(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut inputs = vec![cx.input(0)?, cx.input(1)?];
    if cx.optional_input(4).is_some() || cx.optional_input(5).is_some() {
        inputs.push(super::super::attention::or_absent(cx, cx.optional_input(4)));
    }
    inputs.extend(cx.optional_input(5));
    let product = cx.compose("MatMulInteger", &inputs, &[])?;
    let scales = [cx.input(2)?, cx.input(3)?];
    scaled_product(cx, product, scales, 6)
}

/// Rows of packed values, each row padded to whole bytes, as a packed tensor without padding.
pub(super) fn repack(
    source: &Tensor,
    bits: usize,
    rows: usize,
    row_len: usize,
    row_bytes: usize,
) -> OpResult<Tensor> {
    let source = source.to_contiguous();
    let ty = match bits {
        2 => ElementType::U2,
        4 => ElementType::U4,
        8 => ElementType::U8,
        _ => return Err(OpError::Unsupported(format!("weights of {bits} bits"))),
    };
    op_ensure!(
        source.element_type() == ElementType::U8
            && rows.checked_mul(row_bytes) == Some(source.len())
            && row_len * bits <= row_bytes * 8,
        "packed values are {}{}, expected {rows} rows of {row_bytes} bytes",
        source.element_type(),
        source.shape()
    );
    let mut packed = Tensor::zeros(ty, [rows, row_len])?;
    let bytes = source.bytes();
    if row_len * bits == row_bytes * 8 {
        packed.bytes_mut()?.copy_from_slice(bytes);
        return Ok(packed);
    }
    let out = packed.bytes_mut()?;
    for row in 0..rows {
        for i in 0..row_len {
            let value = read_packed(&bytes[row * row_bytes..][..row_bytes], bits, i);
            write_packed(out, bits, row * row_len + i, value);
        }
    }
    Ok(packed)
}

/// The order of the rows of B that puts the blocks of `groups` (the block of each row) one after another.
fn grouped(groups: &[i64], k: usize, block: usize) -> OpResult<Vec<usize>> {
    op_ensure!(groups.len() == k, "g_idx has {} entries, expected {k}", groups.len());
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by_key(|i| groups[*i]);
    let fits = order.iter().enumerate().all(|(at, i)| usize::try_from(groups[*i]) == Ok(at / block));
    if !fits {
        return Err(OpError::Unsupported(format!("a g_idx whose blocks have other than {block} rows")));
    }
    Ok(order)
}

/// Packed rows with the first `order.len()` values of each in another order.
fn reordered(source: &Tensor, bits: usize, order: &[usize]) -> OpResult<Tensor> {
    let (rows, len) = (source.shape()[0], source.shape()[1]);
    let (mut target, bytes) = (source.to_owned_tensor(), source.bytes());
    let out = target.bytes_mut()?;
    for row in 0..rows {
        for (i, from) in order.iter().enumerate() {
            write_packed(out, bits, row * len + i, read_packed(bytes, bits, row * len + from));
        }
    }
    Ok(target)
}

/// Weights of a few bits in blocks along K: `B [N, blocks, bytes]`, scales `[N blocks]`, zero points packed alike.
pub(super) fn matmul_n_bits(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let size = |cx: &NodeContext<'_, '_>, name: &'static str, default: i64| {
        let value = cx.i64(name, default)?;
        usize::try_from(value).ok().filter(|v| *v > 0).ok_or_else(|| {
            let expected = "a positive number".to_owned();
            ConvertError::from(OpError::Attribute { name, got: value.to_string(), expected })
        })
    };
    let (n, k) = (size(cx, "N", 0)?, size(cx, "K", 0)?);
    let (bits, block) = (size(cx, "bits", 4)?, size(cx, "block_size", 0)?);
    let constant = |cx: &NodeContext<'_, '_>, index: usize| {
        let value = cx.input(index)?;
        cx.constant_value(value).ok_or_else(|| {
            ConvertError::from(OpError::Unsupported("weights computed at run time".to_owned()))
        })
    };
    let blocks = k.div_ceil(block);
    let padded = blocks.checked_mul(block).filter(|p| p.checked_mul(bits).is_some());
    let padded = padded.ok_or_else(|| OpError::Invalid(format!("K {k} and block size {block}")))?;
    let mut weights = repack(&constant(cx, 1)?, bits, n, padded, padded * bits / 8)?;
    let mut a = cx.input(0)?;
    if cx.optional_input(4).is_some() {
        let order = grouped(&constant(cx, 4)?.to_i64_vec()?, k, block)?;
        weights = reordered(&weights, bits, &order)?;
        let order: Vec<i64> = order.iter().map(|i| *i as i64).collect();
        let order = cx.i64s_constant(&order);
        a = cx.compose("Gather", &[a, order], &[("axis", Attr::Int(-1))])?;
    }
    let scales = constant(cx, 2)?.reshape([n, blocks])?;
    let ty = weights.element_type();
    let mut offset = None;
    let zeros = match cx.optional_input(3) {
        None => {
            let mut zeros = Tensor::zeros(ty, [n, blocks])?;
            let out = zeros.bytes_mut()?;
            for i in 0..n * blocks {
                write_packed(out, bits, i, 1 << (bits - 1));
            }
            zeros
        }
        Some(_) => {
            let zeros = constant(cx, 3)?;
            if zeros.element_type() != ElementType::U8 {
                offset = Some(zeros.reshape([n, blocks])?);
            }
            let packed = Tensor::zeros(ty, [n, blocks])?;
            if offset.is_some() { packed } else { repack(&zeros, bits, n, blocks, (blocks * bits).div_ceil(8))? }
        }
    };
    let scales = cx.constant(scales);
    let inputs = [cx.constant(weights), scales, cx.constant(zeros)];
    let attributes = [("axis", Attr::Int(1)), ("block_size", Attr::Int(block as i64))];
    let mut b = cx.compose("DequantizeLinear", &inputs, &attributes)?;
    if padded != k {
        let (start, end) = (cx.i64s_constant(&[0]), cx.i64s_constant(&[k as i64]));
        let axis = cx.i64s_constant(&[1]);
        b = cx.compose("Slice", &[b, start, end, axis], &[])?;
    }
    let b = cx.transpose(b, &[1, 0])?;
    let mut y = cx.compose("MatMul", &[a, b], &[])?;
    if let Some(offset) = offset {
        // Real zero points: what every block of `a` sums up to, times the scaled zero point of the block.
        let offset = cx.constant(offset);
        let offset = cx.compose("Mul", &[offset, scales], &[])?;
        let offset = cx.transpose(offset, &[1, 0])?;
        let rank = cx.rank(a)?;
        if padded != k {
            let mut pads = vec![0; 2 * rank];
            pads[2 * rank - 1] = (padded - k) as i64;
            let pads = cx.i64s_constant(&pads);
            a = cx.compose("Pad", &[a, pads], &[])?;
        }
        let mut shape = vec![0; rank - 1];
        shape.extend([blocks as i64, block as i64]);
        let parts = cx.reshape(a, &shape)?;
        let axis = cx.i64s_constant(&[-1]);
        let sums = cx.compose("ReduceSum", &[parts, axis], &[("keepdims", Attr::Int(0))])?;
        let correction = cx.compose("MatMul", &[sums, offset], &[])?;
        y = cx.compose("Sub", &[y, correction], &[])?;
    }
    Ok(vec![add_inputs(cx, y, &[5])?])
}
