//! Matrix product of 8-bit integers with zero points.

use super::{matmul_layout, matmul_shape, product};
use crate::{
    op::{InferContext, OpError, OpResult, OpRules, OutputType, present},
    tensor::{ElementType, Tensor},
};

define_op! {
    /// `(a - a_zero_point) (b - b_zero_point)` in `i32`; inputs `a` `[…, m, k]` and `b` `[…, k, n]` (`i8` or `u8`), and
    /// optionally their zero points: one element, or one per row of `a` (`[m]` or `[…, m, 1]`) and per column of `b`
    /// (`[n]` or `[…, 1, n]`). <https://onnx.ai/onnx/operators/onnx__MatMulInteger.html>
    pub struct MatMulInteger("MatMulInteger", 0) {}
}

/// Subtracts zero points from matrices of `rows` × `columns`.
fn centred(
    t: &Tensor,
    zero_point: Option<&Tensor>,
    (rows, columns): (usize, usize),
    per_row: bool,
    index: usize,
) -> OpResult<Vec<i32>> {
    let narrow = |v: Vec<i64>| v.into_iter().map(|v| v as i32).collect::<Vec<i32>>();
    let mut values = narrow(t.to_i64_vec()?);
    let Some(zero_point) = zero_point else { return Ok(values) };
    let zeros = narrow(zero_point.to_i64_vec()?);
    let lines = if per_row { rows } else { columns };
    let matrices = values.len() / (rows * columns).max(1);
    if zeros.len() == 1 {
        values.iter_mut().for_each(|v| *v -= zeros[0]);
    } else if zeros.len() == lines || zeros.len() == lines * matrices {
        for (i, v) in values.iter_mut().enumerate() {
            let (matrix, row, column) = (i / (rows * columns), i / columns % rows, i % columns);
            let line = if per_row { row } else { column };
            *v -= zeros[(matrix * lines + line) % zeros.len()];
        }
    } else {
        return Err(OpError::Input {
            index,
            got: format!("shape {}", zero_point.shape()),
            expected: format!("1 or {lines} elements"),
        });
    }
    Ok(values)
}

impl OpRules for MatMulInteger {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=4)?;
        for index in 0..2 {
            cx.expect_type(index, "i8 or u8", |t| matches!(t, ElementType::I8 | ElementType::U8))?;
        }
        let shape = matmul_shape(&cx.shape(0), &cx.shape(1), false, false)?;
        Ok(vec![OutputType::new(ElementType::I32, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (a, b) = (inputs[0].to_contiguous(), inputs[1].to_contiguous());
        let layout = matmul_layout(a.shape(), b.shape(), false, false)?;
        let x = centred(&a, present(inputs, 2), (layout.m, layout.k), true, 2)?;
        let y = centred(&b, present(inputs, 3), (layout.k, layout.n), false, 3)?;
        let mut out = Vec::with_capacity(layout.shape.elements());
        product(
            &layout,
            (&x, false),
            (&y, false),
            0,
            |s: i32, x: i32, y: i32| s.wrapping_add(x.wrapping_mul(y)),
            |row| out.extend_from_slice(row),
        );
        Ok(vec![Tensor::from_vec(layout.shape, out)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_points_apply_to_all_to_rows_or_to_columns() {
        let a = Tensor::from_vec([2, 2], vec![1u8, 2, 3, 4]).expect("fits");
        let b = Tensor::from_vec([2, 1], vec![5i8, -6]).expect("fits");
        let zeros = |v: &[u8]| Tensor::from_vec([v.len()], v.to_vec()).expect("fits");
        for (az, expected) in [(zeros(&[1]), [-6, -8]), (zeros(&[1, 3]), [-6, -6])] {
            let bz = Tensor::scalar(0i8);
            let got = MatMulInteger {}.evaluate(&[a.clone(), b.clone(), az, bz]).expect("valid");
            assert_eq!(got[0].as_slice::<i32>().expect("i32"), expected);
        }
        let got = MatMulInteger {}.evaluate(&[a.clone(), b.clone()]).expect("valid");
        assert_eq!(got[0].as_slice::<i32>().expect("i32"), [-7, -9]);
        assert!(MatMulInteger {}.evaluate(&[a, b, zeros(&[1, 2, 3])]).is_err());
    }
}
