//! Element-wise evaluation over operands that broadcast as in numpy, and the inference that goes with it.

use smallvec::SmallVec;

use super::{InferContext, OpError, OpResult, OutputType, broadcast_shapes};
use crate::tensor::{Dimension, Element, ElementType, PartialShape, Shape, Tensor, TensorBuffer};

/// Most elements that an operator may make out of smaller inputs.
pub const MAX_ELEMENTS: usize = 1 << 33;

/// The error for an element type that an operator does not take.
#[must_use]
pub fn unsupported_type(ty: ElementType) -> OpError {
    OpError::Unsupported(format!("element type {ty}"))
}

/// How operands of `N` shapes run through a broadcast result: adjacent dimensions that all operands walk alike are one.
#[derive(Clone, Debug)]
pub struct BroadcastPlan<const N: usize> {
    /// Shape of the result.
    pub shape: Shape,
    dims: SmallVec<[usize; 6]>,
    strides: SmallVec<[[usize; N]; 6]>,
}

impl<const N: usize> BroadcastPlan<N> {
    /// The plan of contiguous operands of these shapes.
    ///
    /// # Errors
    /// [`OpError::Invalid`] when the shapes do not broadcast or the result has more than [`MAX_ELEMENTS`] elements.
    pub fn new(shapes: [&Shape; N]) -> OpResult<Self> {
        let rank = shapes.iter().map(|s| s.rank()).max().unwrap_or(0);
        let mut shape: SmallVec<[usize; 6]> = SmallVec::from_elem(1, rank);
        for s in shapes {
            for (out, d) in shape[rank - s.rank()..].iter_mut().zip(s.iter()) {
                if *out == 1 {
                    *out = *d;
                } else if *d != 1 && *d != *out {
                    return Err(OpError::Invalid(format!("shapes {shapes:?} do not broadcast")));
                }
            }
        }
        let shape = Shape::new(&shape);
        if shape.elements() > MAX_ELEMENTS {
            return Err(OpError::Invalid(format!(
                "the broadcast shape {shape} has more than {MAX_ELEMENTS} elements"
            )));
        }
        let mut plan = Self { shape, dims: SmallVec::new(), strides: SmallVec::new() };
        let all: [SmallVec<[usize; 6]>; N] = shapes.map(Shape::strides);
        for axis in 0..rank {
            let extent = plan.shape[axis];
            if extent == 1 {
                continue;
            }
            let mut stride = [0; N];
            for (n, s) in shapes.iter().enumerate() {
                if let Some(i) = (axis + s.rank()).checked_sub(rank)
                    && s[i] != 1
                {
                    stride[n] = all[n][i];
                }
            }
            if let (Some(dim), Some(last)) = (plan.dims.last_mut(), plan.strides.last_mut())
                && (0..N).all(|n| last[n] == stride[n] * extent)
            {
                *dim *= extent;
                *last = stride;
            } else {
                plan.dims.push(extent);
                plan.strides.push(stride);
            }
        }
        Ok(plan)
    }

    /// Calls `f(offsets, steps, len)` for every run of the innermost dimension in row-major order; a step is 0 or 1.
    pub fn for_each_run(&self, mut f: impl FnMut([usize; N], [usize; N], usize)) {
        if self.shape.contains(&0) {
            return;
        }
        let Some((run, outer)) = self.dims.split_last() else { return f([0; N], [0; N], 1) };
        let steps = self.strides[outer.len()];
        let mut index: SmallVec<[usize; 6]> = SmallVec::from_elem(0, outer.len());
        let mut offsets = [0; N];
        loop {
            f(offsets, steps, *run);
            let mut axis = outer.len();
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                index[axis] += 1;
                let wrapped = index[axis] == outer[axis];
                for (offset, stride) in offsets.iter_mut().zip(self.strides[axis]) {
                    *offset = if wrapped {
                        *offset - stride * (outer[axis] - 1)
                    } else {
                        *offset + stride
                    };
                }
                if !wrapped {
                    break;
                }
                index[axis] = 0;
            }
        }
    }

    /// `f` over two contiguous operands.
    pub fn map2<A: Copy, B: Copy, O>(&self, a: &[A], b: &[B], f: impl Fn(A, B) -> O) -> Vec<O>
    where
        Self: TwoOperands,
    {
        let mut out = Vec::with_capacity(self.shape.elements());
        self.for_each_run(|offsets, steps, n| {
            let (i, j) = (offsets[0], offsets[1]);
            match (steps[0], steps[1]) {
                (0, 0) => out.extend((0..n).map(|_| f(a[i], b[j]))),
                (0, _) => out.extend(b[j..j + n].iter().map(|b| f(a[i], *b))),
                (_, 0) => out.extend(a[i..i + n].iter().map(|a| f(*a, b[j]))),
                _ => out.extend(a[i..i + n].iter().zip(&b[j..j + n]).map(|(a, b)| f(*a, *b))),
            }
        });
        out
    }
}

/// Plans of exactly two operands.
pub trait TwoOperands {}
impl TwoOperands for BroadcastPlan<2> {}

/// `f` over the elements of two tensors that broadcast.
///
/// # Errors
/// When an element type is not the one named, or the shapes do not broadcast.
pub fn zip_map<A: Element, B: Element, O: Element>(
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(A, B) -> O,
) -> OpResult<Tensor>
where
    Vec<O>: TensorBuffer,
{
    let plan = BroadcastPlan::new([a.shape(), b.shape()])?;
    let (a, b) = (a.to_contiguous(), b.to_contiguous());
    let data = plan.map2(a.as_slice::<A>()?, b.as_slice::<B>()?, f);
    Ok(Tensor::from_vec(plan.shape, data)?)
}

/// Truth values of `f` over the elements of two tensors that broadcast.
///
/// # Errors
/// When an element type is not the one named, or the shapes do not broadcast.
pub fn zip_test<A: Element>(a: &Tensor, b: &Tensor, f: impl Fn(A, A) -> bool) -> OpResult<Tensor> {
    let bytes = zip_map::<A, A, u8>(a, b, |a, b| u8::from(f(a, b)))?;
    Ok(bytes.reinterpret(ElementType::Boolean)?)
}

/// Infers one output of the common type and broadcast shape of two inputs; `dims` combines partly known values.
///
/// # Errors
/// When there are not two inputs, they differ in type, or they do not broadcast.
pub fn infer_binary(
    cx: &InferContext<'_>,
    dims: impl Fn(Dimension, Dimension) -> Option<Dimension>,
) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(2..=2)?;
    let ty = cx.common_type(0..2)?;
    let shape = broadcast_shapes(&cx.shape(0), &cx.shape(1))?;
    let known = zip_dims(cx.dims(0), cx.dims(1), &shape, dims);
    Ok(vec![OutputType::new(ty, shape).with_dims(known)])
}

/// Partly known values of two operands of rank 0 or 1 combined under broadcasting to `shape`.
#[must_use]
pub fn zip_dims<A: Copy, B: Copy, O>(
    a: Option<Vec<A>>,
    b: Option<Vec<B>>,
    shape: &PartialShape,
    f: impl Fn(A, B) -> Option<O>,
) -> Option<Vec<O>> {
    let (a, b) = (a?, b?);
    let len = shape.to_shape().filter(|s| s.rank() <= 1)?.elements();
    let at = |n: usize, i: usize| if n == 1 { 0 } else { i };
    (0..len).map(|i| f(*a.get(at(a.len(), i))?, *b.get(at(b.len(), i))?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_broadcast_in_every_direction() {
        for (a, b) in [
            (vec![2, 3], vec![3]),
            (vec![2, 1, 3], vec![4, 1]),
            (vec![], vec![2, 2]),
            (vec![5], vec![]),
            (vec![2, 3, 1, 5], vec![2, 1, 4, 1]),
            (vec![0, 3], vec![1]),
            (vec![], vec![]),
            (vec![1, 1, 7], vec![1, 1, 7]),
        ] {
            let numbers = |s: &[usize]| {
                let n = Shape::new(s).elements();
                Tensor::from_vec(s, (0..n as i64).collect::<Vec<_>>()).expect("fits")
            };
            let (x, y) = (numbers(&a), numbers(&b));
            let got = zip_map::<i64, i64, i64>(&x, &y, |a, b| a * 100 + b).expect("broadcast");
            let expected = {
                let (x, y) = (x.view::<i64>().expect("i64"), y.view::<i64>().expect("i64"));
                let shape = ndarray::IxDyn(got.shape());
                let x = x.broadcast(shape.clone()).expect("broadcast").to_owned();
                let y = y.broadcast(shape).expect("broadcast").to_owned();
                Tensor::from_array(x * 100 + y)
            };
            assert_eq!(got, expected, "{a:?} {b:?}");
        }
        let t = |n: usize| Tensor::zeros(ElementType::F32, [n]).expect("small");
        assert!(zip_map::<f32, f32, f32>(&t(2), &t(3), |a, _| a).is_err());
    }
}
