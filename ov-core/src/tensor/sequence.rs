//! Sequences and maps: values of ONNX models that are made of tensors.
//!
//! An optional is its value, or [`Tensor::absent`](crate::Tensor::absent) when it has none.

use std::sync::Arc;

use super::{ElementType, Shape, Tensor, TensorError, tensor::Data};

impl Tensor {
    fn of_tensors(element_type: ElementType, len: usize, tensors: Vec<Self>) -> Self {
        Self {
            element_type,
            shape: Shape::new(&[len]),
            strides: None,
            offset: 0,
            data: Data::Tensors(Arc::new(tensors)),
        }
    }

    /// A sequence: element type `Sequence`, shape `[items.len()]`. An item is a tensor, a sequence or a map.
    #[must_use]
    pub fn from_sequence(items: Vec<Self>) -> Self {
        Self::of_tensors(ElementType::Sequence, items.len(), items)
    }

    /// The items of a sequence.
    ///
    /// # Errors
    /// [`TensorError::ElementType`] when this is no sequence.
    pub fn as_sequence(&self) -> Result<&[Self], TensorError> {
        match &self.data {
            Data::Tensors(items) if self.element_type == ElementType::Sequence => Ok(items),
            _ => Err(TensorError::ElementType {
                expected: ElementType::Sequence,
                got: self.element_type,
            }),
        }
    }

    /// A map from `keys` to `values`, both of rank 1: element type `Map`, shape `[keys.len()]`.
    ///
    /// # Errors
    /// [`TensorError::ByteLength`] when there is another number of values than of keys.
    pub fn from_map(keys: Self, values: Self) -> Result<Self, TensorError> {
        let len = keys.len();
        if keys.rank() != 1 || values.shape() != keys.shape() {
            return Err(TensorError::ByteLength {
                element_type: ElementType::Map,
                shape: keys.shape.clone(),
                expected: len,
                got: values.len(),
            });
        }
        Ok(Self::of_tensors(ElementType::Map, len, vec![keys, values]))
    }

    /// Keys and values of a map.
    ///
    /// # Errors
    /// [`TensorError::ElementType`] when this is no map.
    pub fn as_map(&self) -> Result<(&Self, &Self), TensorError> {
        match &self.data {
            Data::Tensors(parts) if self.element_type == ElementType::Map && parts.len() == 2 => {
                Ok((&parts[0], &parts[1]))
            }
            _ => {
                Err(TensorError::ElementType { expected: ElementType::Map, got: self.element_type })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_hold_tensors_of_any_shape() {
        let items = vec![Tensor::scalar(1f32), Tensor::from_i64s(&[2, 3])];
        let sequence = Tensor::from_sequence(items.clone());
        assert_eq!(sequence.element_type(), ElementType::Sequence);
        assert_eq!(sequence.shape()[..], [2]);
        assert_eq!(sequence.as_sequence().expect("a sequence"), items);
        assert_eq!(sequence, Tensor::from_sequence(items));
        assert_ne!(sequence, Tensor::from_sequence(vec![]));
        assert_eq!(sequence.to_contiguous().to_owned_tensor(), sequence);
        assert!(sequence.as_map().is_err() && sequence.as_slice::<f32>().is_err());
        assert!(sequence.bytes().is_empty());
        assert!(Tensor::scalar(1f32).as_sequence().is_err());
        assert_eq!(format!("{sequence:?}"), "sequence[2] [f32[] [1.0], i64[2] [2.0, 3.0]]");
    }

    #[test]
    fn maps_pair_keys_with_values() {
        let keys = Tensor::from_i64s(&[5, 6]);
        let values = Tensor::from_vec([2], vec![0.5f32, 0.25]).expect("fits");
        let map = Tensor::from_map(keys.clone(), values.clone()).expect("pairs");
        assert_eq!(map.as_map().expect("a map"), (&keys, &values));
        assert!(Tensor::from_map(keys, Tensor::scalar(1f32)).is_err());
    }
}
