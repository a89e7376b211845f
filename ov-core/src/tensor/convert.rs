//! Element access and conversion between element types.

use super::{Element, ElementType, Shape, Tensor, TensorBuffer, TensorError, read_packed};
use crate::dispatch_numeric;

impl Tensor {
    /// Element `index` in row-major order as `f64`; `None` out of range and for texts, complex and 8-bit float types.
    #[must_use]
    pub fn element_as_f64(&self, index: usize) -> Option<f64> {
        if index >= self.len() {
            return None;
        }
        let t = self.to_contiguous();
        let ty = t.element_type();
        if ty.is_sub_byte() {
            return t.element_as_i64(index).map(|v| v as f64);
        }
        dispatch_numeric!(ty, T => t.as_slice::<T>().ok()?.get(index).map(|v| v.to_f64()), else {
            (ty == ElementType::Boolean).then(|| f64::from(t.bytes()[index]))
        })
    }

    /// Element `index` in row-major order as `i64`; `None` out of range and for types without an integer value.
    #[must_use]
    pub fn element_as_i64(&self, index: usize) -> Option<i64> {
        if index >= self.len() {
            return None;
        }
        let t = self.to_contiguous();
        let ty = t.element_type();
        let bits = ty.bits();
        match ty {
            ElementType::U1 | ElementType::U2 | ElementType::U4 => {
                Some(i64::from(read_packed(t.bytes(), bits, index)))
            }
            ElementType::I2 | ElementType::I4 => {
                let raw = i64::from(read_packed(t.bytes(), bits, index));
                let sign = 1i64 << (bits - 1);
                Some((raw ^ sign) - sign)
            }
            ElementType::Boolean => Some(i64::from(t.bytes()[index] != 0)),
            _ => {
                dispatch_numeric!(ty, T => t.as_slice::<T>().ok()?.get(index).map(|v| v.to_i64()), else None)
            }
        }
    }

    /// Every element as `i64`, row-major, for axes, shapes and indices.
    ///
    /// # Errors
    /// [`TensorError::ElementType`] when the type has no integer value.
    pub fn to_i64_vec(&self) -> Result<Vec<i64>, TensorError> {
        let t = self.to_contiguous();
        let ty = t.element_type();
        if let Ok(s) = t.as_slice::<i64>() {
            return Ok(s.to_vec());
        }
        dispatch_numeric!(ty, T => Ok(t.as_slice::<T>()?.iter().map(|v| v.to_i64()).collect()), else {
            (0..t.len())
                .map(|i| t.element_as_i64(i))
                .collect::<Option<_>>()
                .ok_or(TensorError::ElementType { expected: ElementType::I64, got: ty })
        })
    }

    /// Every element as `f64`, row-major.
    ///
    /// # Errors
    /// [`TensorError::ElementType`] for texts and complex types.
    pub fn to_f64_vec(&self) -> Result<Vec<f64>, TensorError> {
        let t = self.to_contiguous();
        let ty = t.element_type();
        dispatch_numeric!(ty, T => Ok(t.as_slice::<T>()?.iter().map(|v| v.to_f64()).collect()), else {
            (0..t.len())
                .map(|i| t.element_as_f64(i))
                .collect::<Option<_>>()
                .ok_or(TensorError::ElementType { expected: ElementType::F64, got: ty })
        })
    }

    /// A tensor of the native numeric type `T` from values given as `f64`.
    ///
    /// # Errors
    /// [`TensorError::ByteLength`] when the number of values does not fit the shape.
    pub fn from_f64s<T: Element>(
        shape: impl Into<Shape>,
        values: &[f64],
    ) -> Result<Self, TensorError>
    where
        Vec<T>: TensorBuffer,
    {
        Self::from_vec(shape, values.iter().map(|v| T::from_f64(*v)).collect::<Vec<T>>())
    }

    /// This tensor converted between native numeric types and `Boolean`; the same memory when the type is the same.
    ///
    /// Integers go through `i64` and wrap; floats truncate towards zero into integers; any non-zero value is true.
    /// Types of 8 bits and fewer that are not native integers are converted by the `Convert` operator.
    ///
    /// # Errors
    /// [`TensorError::ElementType`] for types that are not native.
    pub fn cast(&self, to: ElementType) -> Result<Self, TensorError> {
        let from = self.element_type();
        if from == to {
            return Ok(self.clone());
        }
        let t = self.to_contiguous();
        let refuse = || TensorError::ElementType { expected: to, got: from };
        if to == ElementType::Boolean {
            let bits: Vec<bool> = dispatch_numeric!(from, T => {
                t.as_slice::<T>()?.iter().map(|v| v.to_f64() != 0.0).collect()
            }, else return Err(refuse()));
            return Self::from_bools(self.shape().clone(), &bits);
        }
        let t = if from == ElementType::Boolean { t.reinterpret(ElementType::U8)? } else { t };
        let integers = t.element_type().is_integer() && to.is_integer();
        dispatch_numeric!(t.element_type(), A => {
            let source = t.as_slice::<A>()?;
            dispatch_numeric!(to, B => {
                let data: Vec<B> = if integers || (to.is_integer() && to.bits() < 64) {
                    source.iter().map(|v| B::from_i64(v.to_i64())).collect()
                } else if to == ElementType::U64 {
                    let wrap = |v: f64| if v < 0.0 { B::from_i64(v as i64) } else { B::from_f64(v) };
                    source.iter().map(|v| wrap(v.to_f64())).collect()
                } else {
                    source.iter().map(|v| B::from_f64(v.to_f64())).collect()
                };
                Self::from_vec(self.shape().clone(), data)
            }, else Err(refuse()))
        }, else Err(refuse()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_keep_64_bit_integers_exact() {
        let t = Tensor::from_vec([2], vec![i64::MAX, -3]).expect("fits");
        assert_eq!(
            t.cast(ElementType::U64).expect("native").as_slice::<u64>().expect("u64")[0],
            i64::MAX as u64
        );
        let floats = Tensor::from_vec([3], vec![-1.5f32, 3.7, 1e19]).expect("fits");
        assert_eq!(
            floats.cast(ElementType::U64).expect("native").as_slice::<u64>().expect("u64"),
            [u64::MAX, 3, 9_999_999_980_506_447_872]
        );
        assert_eq!(
            t.cast(ElementType::I8).expect("native").as_slice::<i8>().expect("i8"),
            [-1, -3]
        );
    }

    #[test]
    fn packed_elements_sign_extend() {
        let t = Tensor::from_bytes(ElementType::I4, [3], &[0x8F, 0x07]).expect("fits");
        assert_eq!(t.to_i64_vec().expect("integers"), [-1, -8, 7]);
    }

    #[test]
    fn booleans_convert_both_ways() {
        let t = Tensor::from_vec([3], vec![0f32, -0.5, 2.]).expect("fits");
        let b = t.cast(ElementType::Boolean).expect("native");
        assert_eq!(b.bytes(), [0, 1, 1]);
        assert_eq!(
            b.cast(ElementType::F32).expect("native").as_slice::<f32>().expect("f32"),
            [0., 1., 1.]
        );
    }
}
