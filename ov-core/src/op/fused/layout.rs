//! Channels-last and planar forms of one tensor.

use crate::{PartialShape, Tensor, tensor::TensorError};

/// The permutation from planar `[n, c, …]` to channels-last `[n, …, c]`.
pub fn to_last(rank: usize) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..rank).collect();
    if rank > 2 {
        axes[1..].rotate_left(1);
    }
    axes
}

/// The permutation from channels-last `[n, …, c]` to planar `[n, c, …]`.
pub fn to_planar(rank: usize) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..rank).collect();
    if rank > 2 {
        axes[1..].rotate_right(1);
    }
    axes
}

/// A shape with its axes in another order; unchanged when the rank is not known.
pub fn permute_shape(shape: &PartialShape, axes: &[usize]) -> PartialShape {
    match shape.dims() {
        Some(dims) if dims.len() == axes.len() => axes.iter().map(|a| dims[*a]).collect(),
        _ => shape.clone(),
    }
}

/// A tensor with its axes in another order, sharing memory.
///
/// # Errors
/// When `axes` is no permutation of the tensor's axes.
pub fn permute(tensor: &Tensor, axes: &[usize]) -> Result<Tensor, TensorError> {
    let tensor = tensor.to_contiguous();
    let strides = tensor.shape().strides();
    let shape: crate::Shape = axes.iter().map(|a| tensor.shape()[*a]).collect();
    let strides: Vec<usize> = axes.iter().map(|a| strides[*a]).collect();
    tensor.with_strides(shape, &strides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_permutations_undo_each_other() {
        for rank in 0..6 {
            let (a, b) = (to_last(rank), to_planar(rank));
            assert!(a.iter().map(|i| b[*i]).eq(0..rank));
        }
        assert_eq!(to_last(4), [0, 2, 3, 1]);
    }
}
