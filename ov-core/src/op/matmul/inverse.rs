//! Inverses of matrices.

use crate::{
    dispatch_float,
    op::{
        InferContext, OpError, OpResult, OpRules, OutputType, convert::to_f64, unsupported_type,
    },
    tensor::{ElementType, Tensor},
};

define_op! {
    /// The inverse of every matrix of the last two axes, or its adjugate; input `[…, n, n]`.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/matrix/inverse-14.html>
    pub struct Inverse("Inverse", 14) {
        /// Whether the adjugate (the inverse times the determinant) is given.
        adjoint: bool = false,
    }
}

impl OpRules for Inverse {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
        let shape = cx.shape(0);
        if let Some(dims) = shape.dims() {
            let square = matches!(dims, [.., a, b] if a.intersect(*b).is_some());
            if !square {
                return Err(OpError::Input {
                    index: 0,
                    got: format!("shape {shape}"),
                    expected: "square matrices on the last two axes".to_owned(),
                });
            }
        }
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (shape, ty) = (inputs[0].shape().clone(), inputs[0].element_type());
        let [.., rows, columns] = shape[..] else {
            return Err(OpError::Invalid(format!("shape {shape} has no matrices")));
        };
        op_ensure!(rows == columns, "matrices of {shape} are not square");
        let mut values = to_f64(&inputs[0])?;
        if rows > 0 {
            for (i, matrix) in values.chunks_exact_mut(rows * rows).enumerate() {
                let determinant = invert(matrix, rows)
                    .ok_or_else(|| OpError::Invalid(format!("matrix {i} of {shape} is singular")))?;
                if self.adjoint {
                    matrix.iter_mut().for_each(|v| *v *= determinant);
                }
            }
        }
        let tensor = dispatch_float!(ty, T => Tensor::from_f64s::<T>(shape, &values)?,
            else return Err(unsupported_type(ty)));
        Ok(vec![tensor])
    }
}

/// Inverts `matrix: [n, n]` in place by Gauss-Jordan elimination with partial pivoting (Golub and Van Loan, Matrix
/// Computations, 3.4) and gives its determinant; `None` when it is singular.
fn invert(matrix: &mut [f64], n: usize) -> Option<f64> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut determinant = 1.0;
    for step in 0..n {
        let pivot = (step..n)
            .max_by(|a, b| matrix[a * n + step].abs().total_cmp(&matrix[b * n + step].abs()))?;
        let value = matrix[pivot * n + step];
        if value == 0.0 || value.is_nan() {
            return None;
        }
        if pivot != step {
            order.swap(pivot, step);
            determinant = -determinant;
            for column in 0..n {
                matrix.swap(pivot * n + column, step * n + column);
            }
        }
        determinant *= value;
        matrix[step * n + step] = 1.0;
        matrix[step * n..][..n].iter_mut().for_each(|v| *v /= value);
        for row in (0..n).filter(|r| *r != step) {
            let factor = std::mem::take(&mut matrix[row * n + step]);
            for column in 0..n {
                matrix[row * n + column] -= factor * matrix[step * n + column];
            }
        }
    }
    // Rows were exchanged, so columns of the inverse are.
    for row in matrix.chunks_exact_mut(n) {
        let turned = row.to_vec();
        for (value, column) in turned.into_iter().zip(&order) {
            row[*column] = value;
        }
    }
    Some(determinant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_times_their_inverses_are_the_identity() {
        for (matrix, inverse, adjugate) in [
            (vec![2.0f32], vec![0.5f32], vec![1.0f32]),
            (vec![4.0, 7.0, 2.0, 6.0], vec![0.6, -0.7, -0.2, 0.4], vec![6.0, -7.0, -2.0, 4.0]),
            (
                vec![0.0, 1.0, 0.0, 0.0, 0.0, 2.0, 4.0, 0.0, 0.0],
                vec![0.0, 0.0, 0.25, 1.0, 0.0, 0.0, 0.0, 0.5, 0.0],
                vec![0.0, 0.0, 2.0, 8.0, 0.0, 0.0, 0.0, 4.0, 0.0],
            ),
        ] {
            let n = matrix.len().isqrt();
            for (adjoint, expected) in [(false, inverse), (true, adjugate)] {
                let x = Tensor::from_vec([1, n, n], matrix.clone()).expect("fits");
                let y = Inverse { adjoint }.evaluate(&[x]).expect("regular");
                let y = y[0].as_slice::<f32>().expect("f32").to_vec();
                let close = y.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6);
                assert!(close, "{y:?} {expected:?}");
            }
        }
        let singular = Tensor::from_vec([2, 2], vec![1.0f32, 2.0, 2.0, 4.0]).expect("fits");
        assert!(Inverse::default().evaluate(&[singular]).is_err());
        let empty = Tensor::from_vec([3, 0, 0], Vec::<f32>::new()).expect("fits");
        assert_eq!(Inverse::default().evaluate(&[empty]).expect("no matrix")[0].len(), 0);
    }
}
