//! Matrix products.

mod integer;
mod inverse;

pub use integer::MatMulInteger;
pub use inverse::Inverse;

use super::{
    BroadcastPlan, InferContext, MAX_ELEMENTS, OpEntry, OpError, OpResult, OpRules, OutputType, broadcast_shapes,
    unsupported_type,
};
use crate::{
    dispatch_float, dispatch_numeric,
    tensor::{Dimension, Element, PartialShape, Shape, Tensor},
};

define_op! {
    /// Matrix product over the last two axes, the axes before them broadcast; operands of rank 1 are a row on the left
    /// and a column on the right, and that axis does not appear in the result.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/matrix/matmul-1.html>
    pub struct MatMul("MatMul", 1) {
        /// Whether the left operand is given as `[…, k, m]` (ignored for rank 1).
        transpose_a: bool = false,
        /// Whether the right operand is given as `[…, n, k]` (ignored for rank 1).
        transpose_b: bool = false,
    }
}

/// Shape of the product of `[…, m, k]` and `[…, k, n]` (with the transpositions and rank-1 rules of [`MatMul`]).
///
/// # Errors
/// When an operand is a scalar, the inner extents differ or the outer ones do not broadcast.
pub fn matmul_shape(
    a: &PartialShape,
    b: &PartialShape,
    transpose_a: bool,
    transpose_b: bool,
) -> OpResult<PartialShape> {
    for (index, shape) in [a, b].into_iter().enumerate() {
        if shape.rank() == Some(0) {
            return Err(OpError::Input {
                index,
                got: "a scalar".to_owned(),
                expected: "rank 1 or more".to_owned(),
            });
        }
    }
    let (Some(x), Some(y)) = (a.dims(), b.dims()) else { return Ok(PartialShape::dynamic()) };
    let (m, k) = match x {
        [k] => (None, *k),
        [.., p, q] if transpose_a => (Some(*q), *p),
        [.., p, q] => (Some(*p), *q),
        [] => (None, Dimension::fixed(1)),
    };
    let (l, n) = match y {
        [l] => (*l, None),
        [.., p, q] if transpose_b => (*q, Some(*p)),
        [.., p, q] => (*p, Some(*q)),
        [] => (Dimension::fixed(1), None),
    };
    if k.intersect(l).is_none() {
        return Err(OpError::Invalid(format!(
            "inner extents {k} and {l} of shapes {a} and {b} differ"
        )));
    }
    let outer = |d: &[Dimension]| PartialShape::new(&d[..d.len().saturating_sub(2)]);
    let batch = broadcast_shapes(&outer(x), &outer(y))?;
    Ok(batch.dims().unwrap_or_default().iter().copied().chain(m).chain(n).collect())
}

/// Extents of a product and how its operands lie.
#[derive(Clone, Debug)]
pub struct MatMulLayout {
    /// Shape of the result.
    pub shape: Shape,
    /// Rows of the result matrices.
    pub m: usize,
    /// Inner extent.
    pub k: usize,
    /// Columns of the result matrices.
    pub n: usize,
    /// Index of the left and the right matrix of each result matrix.
    pub batches: Vec<(usize, usize)>,
}

/// The layout of the product of contiguous operands of these shapes.
///
/// # Errors
/// As [`matmul_shape`], and when the result has more than [`MAX_ELEMENTS`] elements.
pub fn matmul_layout(a: &Shape, b: &Shape, transpose_a: bool, transpose_b: bool) -> OpResult<MatMulLayout> {
    let shape = matmul_shape(&a.into(), &b.into(), transpose_a, transpose_b)?
        .to_shape()
        .ok_or_else(|| OpError::Invalid("the product of static shapes is not static".to_owned()))?;
    if shape.elements() > MAX_ELEMENTS {
        return Err(OpError::Invalid(format!("the product {shape} has more than {MAX_ELEMENTS} elements")));
    }
    let (m, k) = match a[..] {
        [k] => (1, k),
        [.., k, m] if transpose_a => (m, k),
        [.., m, k] => (m, k),
        [] => (1, 1),
    };
    let n = match b[..] {
        [.., n, _] if transpose_b => n,
        [.., _, n] if b.rank() > 1 => n,
        _ => 1,
    };
    let outer = |s: &Shape| Shape::new(&s[..s.rank().saturating_sub(2)]);
    let plan = BroadcastPlan::new([&outer(a), &outer(b)])?;
    let mut batches = Vec::new();
    if !shape.contains(&0) {
        plan.for_each_run(|[i, j], [s, t], count| batches.extend((0..count).map(|c| (i + s * c, j + t * c))));
    }
    Ok(MatMulLayout { shape, m, k, n, batches })
}

/// `[m, k]` or `[k, m]` matrices times `[k, n]` or `[n, k]` matrices, accumulated in `A`.
pub(super) fn product<A: Copy>(
    layout: &MatMulLayout,
    (a, transpose_a): (&[A], bool),
    (b, transpose_b): (&[A], bool),
    zero: A,
    multiply_add: impl Fn(A, A, A) -> A,
    mut write: impl FnMut(&[A]),
) {
    let MatMulLayout { m, k, n, .. } = *layout;
    let (mut row, mut left) = (vec![zero; n], vec![zero; k]);
    for (i, j) in &layout.batches {
        let (a, b) = (&a[i * m * k..][..m * k], &b[j * k * n..][..k * n]);
        for r in 0..m {
            if transpose_a {
                left.iter_mut().zip(a.iter().skip(r).step_by(m)).for_each(|(l, v)| *l = *v);
            } else {
                left.copy_from_slice(&a[r * k..][..k]);
            }
            if transpose_b {
                for (c, out) in row.iter_mut().enumerate() {
                    *out = left.iter().zip(&b[c * k..][..k]).fold(zero, |s, (x, y)| multiply_add(s, *x, *y));
                }
            } else {
                row.fill(zero);
                for (x, line) in left.iter().zip(b.chunks_exact(n.max(1))) {
                    row.iter_mut().zip(line).for_each(|(s, y)| *s = multiply_add(*s, *x, *y));
                }
            }
            write(&row);
        }
    }
}

impl OpRules for MatMul {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        let ty = cx.common_type(0..2)?;
        cx.expect_type(0, "a numeric type", |t| t.is_float() || t.is_integer())?;
        let shape = matmul_shape(&cx.shape(0), &cx.shape(1), self.transpose_a, self.transpose_b)?;
        Ok(vec![OutputType::new(ty, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (a, b) = (inputs[0].to_contiguous(), inputs[1].to_contiguous());
        let transpose_a = self.transpose_a && a.rank() > 1;
        let transpose_b = self.transpose_b && b.rank() > 1;
        let layout = matmul_layout(a.shape(), b.shape(), transpose_a, transpose_b)?;
        let ty = a.element_type();
        if ty.is_float() {
            return dispatch_float!(ty, T => {
                let wide = |t: &Tensor| -> OpResult<Vec<f64>> {
                    Ok(t.as_slice::<T>()?.iter().map(|v| v.to_f64()).collect())
                };
                let (x, y) = (wide(&a)?, wide(&b)?);
                let mut out: Vec<T> = Vec::with_capacity(layout.shape.elements());
                product(&layout, (&x, transpose_a), (&y, transpose_b), 0.0, |s, x, y| s + x * y,
                    |row| out.extend(row.iter().map(|v| T::from_f64(*v))));
                Ok(vec![Tensor::from_vec(layout.shape, out)?])
            }, else Err(unsupported_type(ty)));
        }
        dispatch_numeric!(ty, T => {
            let wide = |t: &Tensor| -> OpResult<Vec<i64>> {
                Ok(t.as_slice::<T>()?.iter().map(|v| v.to_i64()).collect())
            };
            let (x, y) = (wide(&a)?, wide(&b)?);
            let mut out: Vec<T> = Vec::with_capacity(layout.shape.elements());
            product(&layout, (&x, transpose_a), (&y, transpose_b), 0,
                |s: i64, x: i64, y: i64| s.wrapping_add(x.wrapping_mul(y)),
                |row| out.extend(row.iter().map(|v| T::from_i64(*v))));
            Ok(vec![Tensor::from_vec(layout.shape, out)?])
        }, else Err(unsupported_type(ty)))
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[OpEntry::of::<MatMul>(), OpEntry::of::<MatMulInteger>(), OpEntry::of::<Inverse>()];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ElementType;

    fn numbers(shape: &[usize]) -> Tensor {
        let n = shape.iter().product::<usize>();
        Tensor::from_vec(shape, (0..n).map(|i| ((i * 7) % 5) as f32 - 2.).collect()).expect("fits")
    }

    fn swap(t: &Tensor) -> Tensor {
        let (mut shape, mut strides) = (t.shape().to_vec(), t.shape().strides().to_vec());
        let r = shape.len();
        shape.swap(r - 1, r - 2);
        strides.swap(r - 1, r - 2);
        t.with_strides(shape, &strides).expect("in bounds")
    }

    #[test]
    fn products_agree_with_the_definition_in_every_form() {
        for (a, b, expected) in [
            (vec![2, 3], vec![3, 4], vec![2, 4]),
            (vec![1, 1], vec![1, 1], vec![1, 1]),
            (vec![5, 2, 3], vec![3, 4], vec![5, 2, 4]),
            (vec![2, 1, 2, 3], vec![3, 3, 5], vec![2, 3, 2, 5]),
            (vec![2, 0], vec![0, 3], vec![2, 3]),
            (vec![0, 2], vec![2, 3], vec![0, 3]),
        ] {
            let (x, y) = (numbers(&a), numbers(&b));
            let got = MatMul::default().evaluate(&[x.clone(), y.clone()]).expect("valid").remove(0);
            assert_eq!(got.shape()[..], expected[..]);
            for (flags, inputs) in [
                ((true, false), [swap(&x).to_contiguous(), y.clone()]),
                ((false, true), [x.clone(), swap(&y).to_contiguous()]),
                ((false, false), [swap(&swap(&x).to_contiguous()), y.clone()]),
            ] {
                let op = MatMul { transpose_a: flags.0, transpose_b: flags.1 };
                assert_eq!(op.evaluate(&inputs).expect("valid")[0], got, "{a:?} {b:?} {flags:?}");
            }
            if a.len() == 2 && b.len() == 2 {
                let view = |t: &Tensor| {
                    t.view::<f32>().expect("f32").into_dimensionality::<ndarray::Ix2>().expect("rank 2").to_owned()
                };
                assert_eq!(got, Tensor::from_array(view(&x).dot(&view(&y)).into_dyn()));
            }
        }
    }

    #[test]
    fn vectors_are_rows_and_columns() {
        for (a, b, expected) in
            [(vec![3], vec![3], vec![]), (vec![3], vec![2, 3, 4], vec![2, 4]), (vec![2, 4, 3], vec![3], vec![2, 4])]
        {
            let got = MatMul::default().evaluate(&[numbers(&a), numbers(&b)]).expect("valid").remove(0);
            assert_eq!(got.shape()[..], expected[..]);
        }
        assert!(MatMul::default().evaluate(&[numbers(&[2, 3]), numbers(&[2, 3])]).is_err());
        let scalar = Tensor::scalar(1f32);
        assert!(MatMul::default().evaluate(&[scalar, numbers(&[1])]).is_err());
    }

    #[test]
    fn integers_keep_their_type() {
        let t = |v: &[f64], s: [usize; 2]| Tensor::from_f64s::<u64>(s, v).expect("fits");
        let got = MatMul::default().evaluate(&[t(&[1., 2.], [1, 2]), t(&[3., 4.], [2, 1])]).expect("valid");
        assert_eq!((got[0].element_type(), got[0].as_slice::<u64>().expect("u64")), (ElementType::U64, &[11][..]));
    }
}
