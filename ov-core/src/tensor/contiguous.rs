//! Strided elements, copied so that they lie side by side.

use super::tensor::{Data, Tensor};

impl Tensor {
    /// This tensor if its elements lie side by side, else a copy in which they do.
    #[must_use]
    pub fn to_contiguous(&self) -> Self {
        if self.is_contiguous() {
            return self.clone();
        }
        let Data::Bytes(buffer) = &self.data else { return self.clone() };
        let source = &buffer.bytes()[self.offset..];
        let (shape, strides) = (self.shape(), self.strides());
        let mut bytes = vec![0; self.byte_len()];
        match self.element_type().bits() / 8 {
            1 => gather::<1>(source, &mut bytes, shape, &strides),
            2 => gather::<2>(source, &mut bytes, shape, &strides),
            4 => gather::<4>(source, &mut bytes, shape, &strides),
            8 => gather::<8>(source, &mut bytes, shape, &strides),
            _ => gather::<16>(source, &mut bytes, shape, &strides),
        }
        Self::from_bytes(self.element_type(), shape.clone(), &bytes)
            .expect("the bytes were gathered for exactly this shape")
    }
}

/// Rows and columns of a square that is copied at a time: one cache line of four-byte elements each way.
const SQUARE: usize = 16;

/// Copies elements of `SIZE` bytes with `strides`, counted in elements, to row-major order.
fn gather<const SIZE: usize>(source: &[u8], out: &mut [u8], shape: &[usize], strides: &[usize]) {
    let at = |index: usize| -> [u8; SIZE] {
        source[index * SIZE..(index + 1) * SIZE].try_into().expect("a slice of this length")
    };
    let (out, _) = out.as_chunks_mut::<SIZE>();
    let rank = shape.len();
    // Matrices of the last two axes, ones in front where there are fewer.
    let axis = |back: usize| rank.checked_sub(back).map_or((1, 0), |a| (shape[a], strides[a]));
    let ((rows, row_stride), (cols, col_stride)) = (axis(2), axis(1));
    let outer = &shape[..rank.saturating_sub(2)];
    let mut index = vec![0; outer.len()];
    for matrix in out.chunks_exact_mut((rows * cols).max(1)) {
        let base: usize = index.iter().zip(strides).map(|(i, s)| i * s).sum();
        if col_stride == 1 {
            for (r, row) in matrix.chunks_exact_mut(cols.max(1)).enumerate() {
                let start = (base + r * row_stride) * SIZE;
                row.as_flattened_mut().copy_from_slice(&source[start..][..cols * SIZE]);
            }
        } else {
            for r0 in (0..rows).step_by(SQUARE) {
                for c0 in (0..cols).step_by(SQUARE) {
                    for r in r0..(r0 + SQUARE).min(rows) {
                        for c in c0..(c0 + SQUARE).min(cols) {
                            matrix[r * cols + c] = at(base + r * row_stride + c * col_stride);
                        }
                    }
                }
            }
        }
        for (i, extent) in index.iter_mut().zip(outer).rev() {
            *i += 1;
            if *i < *extent {
                break;
            }
            *i = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, IxDyn};

    use super::*;

    #[test]
    fn strided_elements_come_in_order() {
        for (dims, axes) in [
            (vec![5], vec![0]),
            (vec![17, 35], vec![1, 0]),
            (vec![2, 3, 4], vec![2, 0, 1]),
            (vec![2, 3, 40], vec![1, 0, 2]),
            (vec![3, 2, 19, 18], vec![3, 1, 0, 2]),
            (vec![3, 0, 2], vec![2, 1, 0]),
        ] {
            let len: usize = dims.iter().product();
            let array = ArrayD::from_shape_vec(IxDyn(&dims), (0..len as u32).collect());
            let array = array.expect("as many as the shape says");
            let turned = array.view().permuted_axes(IxDyn(&axes));
            let expected: Vec<u32> = turned.iter().copied().collect();
            let tensor = Tensor::from_vec(dims.as_slice(), array.iter().copied().collect());
            let tensor: Tensor = tensor.expect("fits");
            for ty in ["u8", "u16", "u32", "u64"] {
                let ty = ty.parse().expect("a type");
                let tensor = tensor.cast(ty).expect("native");
                let strides = tensor.strides();
                let shape: Vec<usize> = axes.iter().map(|a| dims[*a]).collect();
                let strides: Vec<usize> = axes.iter().map(|a| strides[*a]).collect();
                let turned = tensor.with_strides(shape.as_slice(), &strides).expect("in bounds");
                let expected = Tensor::from_vec(shape.as_slice(), expected.clone());
                let expected = expected.expect("fits").cast(ty).expect("native");
                assert_eq!(turned.to_contiguous(), expected, "{dims:?}");
            }
        }
    }
}
