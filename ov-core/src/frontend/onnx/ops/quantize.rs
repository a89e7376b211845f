//! Quantization.

use super::{super::NodeContext, ConvertResult, OnnxOp};
use crate::{
    op::{
        arithmetic::Multiply,
        convert::Convert,
        matmul::MatMulInteger,
        quantize::{DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear},
    },
    tensor::ElementType,
};

fn quantize_linear(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let given = |t: Option<ElementType>| t.filter(|t| *t != ElementType::Dynamic);
    let mut inputs = vec![cx.input(0)?, cx.input(1)?];
    inputs.extend(cx.optional_input(2));
    let op = QuantizeLinear {
        axis: cx.i64("axis", 1)?,
        block_size: cx.i64("block_size", 0)?,
        output_type: given(cx.optional_element_type("output_dtype")?).unwrap_or(ElementType::U8),
        precision: cx.optional_element_type("precision")?.unwrap_or(ElementType::Dynamic),
        saturate: cx.bool("saturate", true)?,
    };
    Ok(vec![cx.add(op, &inputs)?])
}

fn dequantize_linear(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut inputs = vec![cx.input(0)?, cx.input(1)?];
    inputs.extend(cx.optional_input(2));
    let op = DequantizeLinear {
        axis: cx.i64("axis", 1)?,
        block_size: cx.i64("block_size", 0)?,
        output_type: cx.optional_element_type("output_dtype")?.unwrap_or(ElementType::Dynamic),
    };
    Ok(vec![cx.add(op, &inputs)?])
}

fn dynamic_quantize_linear(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    cx.add_multi(DynamicQuantizeLinear {}, &[x])
}

/// The integer product scaled by both scales, quantized.
fn qlinear_matmul(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let [a, a_scale, a_zero, b, b_scale, b_zero] =
        [cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.input(3)?, cx.input(4)?, cx.input(5)?];
    let (y_scale, y_zero) = (cx.input(6)?, cx.input(7)?);
    let product = cx.add(MatMulInteger {}, &[a, b, a_zero, b_zero])?;
    let product = cx.add(Convert { destination_type: ElementType::F32 }, &[product])?;
    let wide = Convert { destination_type: ElementType::F32 };
    let (a_scale, b_scale) = (cx.add(wide.clone(), &[a_scale])?, cx.add(wide.clone(), &[b_scale])?);
    let scale = cx.add(Multiply {}, &[a_scale, b_scale])?;
    let scaled = cx.add(Multiply {}, &[product, scale])?;
    let y_scale = cx.add(wide, &[y_scale])?;
    Ok(vec![cx.add(QuantizeLinear::default(), &[scaled, y_scale, y_zero])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "QuantizeLinear", 10, quantize_linear),
    ("", "DequantizeLinear", 10, dequantize_linear),
    ("", "DynamicQuantizeLinear", 11, dynamic_quantize_linear),
    ("", "QLinearMatMul", 10, qlinear_matmul),
];
