//! Matrix products.

use super::{super::NodeContext, ConvertResult, OnnxOp};
use crate::op::{
    arithmetic::{Add, Multiply},
    matmul::{MatMul, MatMulInteger},
};

fn matmul(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    Ok(vec![cx.add(MatMul::default(), &[a, b])?])
}

fn gemm(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let (alpha, beta) = (cx.f32("alpha", 1.0)?, cx.f32("beta", 1.0)?);
    let op = MatMul { transpose_a: cx.bool("transA", false)?, transpose_b: cx.bool("transB", false)? };
    let mut y = cx.add(op, &[a, b])?;
    if alpha != 1.0 {
        let alpha = cx.scalar_like(f64::from(alpha), y)?;
        y = cx.add(Multiply {}, &[y, alpha])?;
    }
    if let Some(mut c) = cx.optional_input(2)
        && beta != 0.0
    {
        if beta != 1.0 {
            let beta = cx.scalar_like(f64::from(beta), y)?;
            c = cx.add(Multiply {}, &[c, beta])?;
        }
        y = cx.add(Add {}, &[y, c])?;
    }
    Ok(vec![y])
}

fn matmul_integer(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    cx.input(1)?;
    let inputs = cx.all_inputs();
    Ok(vec![cx.add(MatMulInteger {}, &inputs)?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] =
    &[("", "MatMul", 1, matmul), ("", "Gemm", 7, gemm), ("", "MatMulInteger", 10, matmul_integer)];
