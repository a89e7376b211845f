//! The tensor: element type, shape, strides and shared memory.

use std::{fmt, sync::Arc};

use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, IxDyn, ShapeBuilder};
use smallvec::SmallVec;

use super::{AlignedBuffer, Element, ElementType, Shape, TensorBuffer, storage::LateCopy};

/// What is wrong with a tensor or an access to one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The element type is not the one asked for.
    #[error("tensor has element type {got}, expected {expected}")]
    ElementType {
        /// The type asked for.
        expected: ElementType,
        /// The tensor's.
        got: ElementType,
    },
    /// The memory does not hold what the shape needs.
    #[error("tensor of type {element_type} and shape {shape} needs {expected} bytes, got {got}")]
    ByteLength {
        /// The tensor's type.
        element_type: ElementType,
        /// The tensor's shape.
        shape: Shape,
        /// Bytes that the shape needs.
        expected: usize,
        /// Bytes at hand.
        got: usize,
    },
    /// The shape describes more memory than can exist.
    #[error("shape {shape} of {element_type} is larger than the address space")]
    TooLarge {
        /// The type.
        element_type: ElementType,
        /// The shape.
        shape: Shape,
    },
    /// A slice was asked for, but the elements do not lie side by side.
    #[error(
        "tensor with shape {0} is strided, expected contiguous memory: copy it with to_contiguous"
    )]
    NotContiguous(Shape),
    /// The memory may not be written.
    #[error(
        "tensor memory is read-only or shared with another tensor: clone it with to_owned_tensor first"
    )]
    ReadOnly,
    /// The new shape has another number of elements.
    #[error("cannot view shape {from} as {to}: the number of elements differs")]
    Reshape {
        /// The tensor's shape.
        from: Shape,
        /// The shape asked for.
        to: Shape,
    },
}

#[derive(Clone)]
pub(super) enum Data {
    Bytes(Arc<dyn TensorBuffer>),
    Strings(Arc<Vec<String>>),
    /// The elements of a sequence, or the keys and the values of a map.
    Tensors(Arc<Vec<Tensor>>),
}

/// An n-dimensional array of one element type.
///
/// Cloning shares the memory. Memory is owned, lent by the caller ([`Tensor::from_buffer`]) or a slice of a mapped
/// file; writing through [`Tensor::view_mut`] or [`Tensor::as_mut_slice`] needs memory that is writable and held by this
/// tensor alone. Elements are row-major unless strides say otherwise; types of less than a byte are packed and always
/// contiguous.
#[derive(Clone)]
pub struct Tensor {
    pub(super) element_type: ElementType,
    pub(super) shape: Shape,
    pub(super) strides: Option<SmallVec<[usize; 6]>>,
    pub(super) offset: usize,
    pub(super) data: Data,
}

impl Tensor {
    /// A tensor of zeros (of empty texts for `String`).
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] when the shape exceeds the address space.
    pub fn zeros(element_type: ElementType, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        let too_large = || TensorError::TooLarge { element_type, shape: shape.clone() };
        let len = shape.checked_len().ok_or_else(too_large)?;
        let data = if matches!(element_type, ElementType::Sequence | ElementType::Map) {
            if len > 0 {
                return Err(too_large());
            }
            return Ok(Self::from_sequence(Vec::new()));
        } else if element_type == ElementType::String {
            Data::Strings(Arc::new(vec![String::new(); len]))
        } else {
            let bytes = element_type.byte_len(len).ok_or_else(too_large)?;
            Data::Bytes(Arc::new(AlignedBuffer::zeroed(bytes).ok_or_else(too_large)?))
        };
        Ok(Self { element_type, shape, strides: None, offset: 0, data })
    }

    /// A tensor that takes over `data`, row-major.
    ///
    /// # Errors
    /// [`TensorError::ByteLength`] when `data` has another length than `shape`.
    pub fn from_vec<T: Element>(shape: impl Into<Shape>, data: Vec<T>) -> Result<Self, TensorError>
    where
        Vec<T>: TensorBuffer,
    {
        Self::from_buffer(T::TYPE, shape, Arc::new(data), 0)
    }

    /// A tensor of truth values.
    ///
    /// # Errors
    /// [`TensorError::ByteLength`] when `data` has another length than `shape`.
    pub fn from_bools(shape: impl Into<Shape>, data: &[bool]) -> Result<Self, TensorError> {
        let bytes: Vec<u8> = data.iter().map(|b| u8::from(*b)).collect();
        Self::from_buffer(ElementType::Boolean, shape, Arc::new(bytes), 0)
    }

    /// A tensor of texts.
    ///
    /// # Errors
    /// [`TensorError::ByteLength`] when `data` has another length than `shape`.
    pub fn from_strings(shape: impl Into<Shape>, data: Vec<String>) -> Result<Self, TensorError> {
        let (shape, element_type) = (shape.into(), ElementType::String);
        if shape.checked_len() != Some(data.len()) {
            return Err(TensorError::ByteLength {
                element_type,
                expected: shape.elements(),
                got: data.len(),
                shape,
            });
        }
        Ok(Self {
            element_type,
            shape,
            strides: None,
            offset: 0,
            data: Data::Strings(Arc::new(data)),
        })
    }

    /// A scalar (rank 0).
    #[must_use]
    pub fn scalar<T: Element>(value: T) -> Self
    where
        Vec<T>: TensorBuffer,
    {
        Self {
            element_type: T::TYPE,
            shape: Shape::scalar(),
            strides: None,
            offset: 0,
            data: Data::Bytes(Arc::new(vec![value])),
        }
    }

    /// A rank-1 tensor of `i64`, the usual form of axes, shapes and indices.
    #[must_use]
    pub fn from_i64s(values: &[i64]) -> Self {
        Self {
            element_type: ElementType::I64,
            shape: Shape::new(&[values.len()]),
            strides: None,
            offset: 0,
            data: Data::Bytes(Arc::new(values.to_vec())),
        }
    }

    /// A tensor over memory that `buffer` owns, starting `offset` bytes into it, without copying when the address is
    /// aligned for the element type (else the bytes are copied when somebody first reads elements).
    ///
    /// # Errors
    /// [`TensorError::ByteLength`] when the memory is too short, [`TensorError::ElementType`] for `String`.
    pub fn from_buffer(
        element_type: ElementType,
        shape: impl Into<Shape>,
        buffer: Arc<dyn TensorBuffer>,
        offset: usize,
    ) -> Result<Self, TensorError> {
        let shape = shape.into();
        if element_type.bits() == 0 {
            return Err(TensorError::ElementType { expected: ElementType::U8, got: element_type });
        }
        let too_large = || TensorError::TooLarge { element_type, shape: shape.clone() };
        let needed =
            shape.checked_len().and_then(|l| element_type.byte_len(l)).ok_or_else(too_large)?;
        let got = buffer.bytes().len().saturating_sub(offset);
        if needed > got || (offset == 0 && needed != got) {
            return Err(TensorError::ByteLength { element_type, shape, expected: needed, got });
        }
        Self::from_memory(element_type, shape, buffer, offset..offset + needed)
    }

    /// A tensor over `range` of the memory that `buffer` owns, without copying when the address is aligned for the
    /// element type.
    ///
    /// # Errors
    /// [`TensorError::ByteLength`] when the range has another length than the shape or lies outside the memory.
    pub fn from_buffer_range(
        element_type: ElementType,
        shape: impl Into<Shape>,
        buffer: Arc<dyn TensorBuffer>,
        range: std::ops::Range<usize>,
    ) -> Result<Self, TensorError> {
        let shape = shape.into();
        let needed = shape.checked_len().and_then(|l| element_type.byte_len(l));
        if needed != Some(range.len()) || range.end > buffer.bytes().len() {
            let expected = needed.unwrap_or(usize::MAX);
            return Err(TensorError::ByteLength {
                element_type,
                shape,
                expected,
                got: range.len(),
            });
        }
        Self::from_memory(element_type, shape, buffer, range)
    }

    fn from_memory(
        element_type: ElementType,
        shape: Shape,
        buffer: Arc<dyn TensorBuffer>,
        range: std::ops::Range<usize>,
    ) -> Result<Self, TensorError> {
        let address = buffer.unaligned_bytes()[range.clone()].as_ptr().addr();
        let aligned = address.is_multiple_of((element_type.bits() / 8).clamp(1, 8));
        let (offset, data) = if aligned {
            (range.start, buffer)
        } else {
            (0, Arc::new(LateCopy::new(buffer, range)) as _)
        };
        Ok(Self { element_type, shape, strides: None, offset, data: Data::Bytes(data) })
    }

    /// A tensor with a copy of `bytes` (row-major, native byte order).
    ///
    /// # Errors
    /// [`TensorError::ByteLength`] when the length does not fit the shape.
    pub fn from_bytes(
        element_type: ElementType,
        shape: impl Into<Shape>,
        bytes: &[u8],
    ) -> Result<Self, TensorError> {
        let shape = shape.into();
        let expected = shape.checked_len().and_then(|l| element_type.byte_len(l));
        if expected != Some(bytes.len()) || element_type == ElementType::String {
            return Err(TensorError::ByteLength {
                element_type,
                expected: expected.unwrap_or(usize::MAX),
                got: bytes.len(),
                shape,
            });
        }
        let mut tensor = Self::zeros(element_type, shape)?;
        tensor.bytes_mut()?.copy_from_slice(bytes);
        Ok(tensor)
    }

    /// A tensor that takes over an array; arrays that are not in standard order are copied into it.
    #[must_use]
    pub fn from_array<T: Element>(array: ArrayD<T>) -> Self
    where
        Vec<T>: TensorBuffer,
    {
        let shape = Shape::new(array.shape());
        let data = if array.is_standard_layout() {
            let (data, offset) = array.into_raw_vec_and_offset();
            match offset {
                Some(o) if o > 0 || data.len() != shape.elements() => {
                    data[o..o + shape.elements()].to_vec()
                }
                _ => data,
            }
        } else {
            array.iter().copied().collect()
        };
        Self {
            element_type: T::TYPE,
            shape,
            strides: None,
            offset: 0,
            data: Data::Bytes(Arc::new(data)),
        }
    }

    /// The element type.
    #[must_use]
    pub fn element_type(&self) -> ElementType {
        self.element_type
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Number of dimensions.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.shape.rank()
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.elements()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the elements when contiguous; 0 for texts.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.element_type.byte_len(self.len()).unwrap_or(usize::MAX)
    }

    /// Whether elements lie side by side in row-major order.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.strides.is_none()
    }

    /// Strides in elements, outermost first.
    #[must_use]
    pub fn strides(&self) -> SmallVec<[usize; 6]> {
        self.strides.clone().unwrap_or_else(|| self.shape.strides())
    }

    /// The bytes of a contiguous tensor; empty for texts and for strided tensors (see [`Tensor::to_contiguous`]).
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match (&self.data, self.is_contiguous()) {
            (Data::Bytes(b), true) => &b.bytes()[self.offset..self.offset + self.byte_len()],
            _ => &[],
        }
    }

    /// The bytes of a contiguous tensor at whatever address they lie, for those who copy, pack or compare them: unlike
    /// [`Tensor::bytes`] this never makes an aligned copy of a slice of a file. Empty as there.
    #[must_use]
    pub fn unaligned_bytes(&self) -> &[u8] {
        match (&self.data, self.is_contiguous()) {
            (Data::Bytes(b), true) => {
                &b.unaligned_bytes()[self.offset..self.offset + self.byte_len()]
            }
            _ => &[],
        }
    }

    /// The bytes of a contiguous tensor, to write.
    ///
    /// # Errors
    /// [`TensorError::ReadOnly`] when the memory is shared or read-only, [`TensorError::NotContiguous`].
    pub fn bytes_mut(&mut self) -> Result<&mut [u8], TensorError> {
        if !self.is_contiguous() {
            return Err(TensorError::NotContiguous(self.shape.clone()));
        }
        let range = self.offset..self.offset + self.byte_len();
        let Data::Bytes(b) = &mut self.data else {
            return Err(TensorError::ElementType {
                expected: ElementType::U8,
                got: self.element_type,
            });
        };
        let b = Arc::get_mut(b).and_then(|b| b.bytes_mut()).ok_or(TensorError::ReadOnly)?;
        Ok(&mut b[range])
    }

    /// Whether [`Tensor::bytes_mut`] would succeed.
    #[must_use]
    pub fn is_writable(&mut self) -> bool {
        self.bytes_mut().is_ok()
    }

    fn expect_type<T: Element>(&self) -> Result<(), TensorError> {
        let boolean_as_u8 = self.element_type == ElementType::Boolean && T::TYPE == ElementType::U8;
        if self.element_type == T::TYPE || boolean_as_u8 {
            Ok(())
        } else {
            Err(TensorError::ElementType { expected: T::TYPE, got: self.element_type })
        }
    }

    /// The elements of a contiguous tensor. `Boolean` is read as `u8`.
    ///
    /// # Errors
    /// Another element type, or strided memory.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], TensorError> {
        self.expect_type::<T>()?;
        if !self.is_contiguous() {
            return Err(TensorError::NotContiguous(self.shape.clone()));
        }
        bytemuck::try_cast_slice(self.bytes())
            .map_err(|_| TensorError::NotContiguous(self.shape.clone()))
    }

    /// The elements of a contiguous tensor, to write. `Boolean` is read as `u8`.
    ///
    /// # Errors
    /// Another element type, strided memory, or memory that is shared or read-only.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], TensorError> {
        self.expect_type::<T>()?;
        let shape = self.shape.clone();
        bytemuck::try_cast_slice_mut(self.bytes_mut()?)
            .map_err(|_| TensorError::NotContiguous(shape))
    }

    /// The texts.
    ///
    /// # Errors
    /// Another element type.
    pub fn as_strings(&self) -> Result<&[String], TensorError> {
        match &self.data {
            Data::Strings(s) => Ok(s),
            _ => Err(TensorError::ElementType {
                expected: ElementType::String,
                got: self.element_type,
            }),
        }
    }

    /// A view without copying; strided tensors too. `Boolean` is read as `u8`.
    ///
    /// # Errors
    /// Another element type.
    pub fn view<T: Element>(&self) -> Result<ArrayViewD<'_, T>, TensorError> {
        self.expect_type::<T>()?;
        let Data::Bytes(b) = &self.data else {
            return Err(TensorError::ElementType { expected: T::TYPE, got: self.element_type });
        };
        if self.is_contiguous() {
            return ArrayViewD::from_shape(IxDyn(&self.shape), self.as_slice()?)
                .map_err(|_| TensorError::NotContiguous(self.shape.clone()));
        }
        let bytes = &b.bytes()[self.offset..];
        let whole = &bytes[..bytes.len() - bytes.len() % size_of::<T>()];
        let elements: &[T] = bytemuck::try_cast_slice(whole)
            .map_err(|_| TensorError::NotContiguous(self.shape.clone()))?;
        let shape = IxDyn(&self.shape).strides(IxDyn(&self.strides()));
        ArrayViewD::from_shape(shape, elements)
            .map_err(|_| TensorError::NotContiguous(self.shape.clone()))
    }

    /// A view to write through without copying.
    ///
    /// # Errors
    /// Another element type, or memory that is shared or read-only.
    pub fn view_mut<T: Element>(&mut self) -> Result<ArrayViewMutD<'_, T>, TensorError> {
        let shape = self.shape.clone();
        let elements = self.as_mut_slice::<T>()?;
        ArrayViewMutD::from_shape(IxDyn(&shape), elements)
            .map_err(|_| TensorError::NotContiguous(shape))
    }

    /// The same memory with another shape of as many elements; strided tensors are copied first.
    ///
    /// # Errors
    /// [`TensorError::Reshape`] when the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        if shape.checked_len() != Some(self.len()) {
            return Err(TensorError::Reshape { from: self.shape.clone(), to: shape });
        }
        let mut tensor = self.to_contiguous();
        tensor.shape = shape;
        Ok(tensor)
    }

    /// The same memory read with the given strides (in elements).
    ///
    /// # Errors
    /// [`TensorError::ByteLength`] when an element would lie outside the memory, [`TensorError::ElementType`] for texts
    /// and sub-byte types.
    pub fn with_strides(
        &self,
        shape: impl Into<Shape>,
        strides: &[usize],
    ) -> Result<Self, TensorError> {
        let (shape, element_type) = (shape.into(), self.element_type);
        if element_type.bits() < 8 || shape.rank() != strides.len() {
            return Err(TensorError::ElementType { expected: ElementType::U8, got: element_type });
        }
        let Data::Bytes(b) = &self.data else {
            return Err(TensorError::ElementType { expected: ElementType::U8, got: element_type });
        };
        let last = if shape.contains(&0) {
            Some(0)
        } else {
            shape
                .iter()
                .zip(strides)
                .try_fold(1usize, |a, (d, s)| a.checked_add((d - 1).checked_mul(*s)?))
        };
        let got = b.unaligned_bytes().len() - self.offset;
        match last.and_then(|l| element_type.byte_len(l)) {
            Some(expected) if expected <= got => {
                let strides =
                    (strides != shape.strides().as_slice()).then(|| SmallVec::from_slice(strides));
                Ok(Self {
                    element_type,
                    shape,
                    strides,
                    offset: self.offset,
                    data: self.data.clone(),
                })
            }
            expected => Err(TensorError::ByteLength {
                element_type,
                shape,
                expected: expected.unwrap_or(usize::MAX),
                got,
            }),
        }
    }

    /// A copy in memory of its own, contiguous and writable.
    #[must_use]
    pub fn to_owned_tensor(&self) -> Self {
        let t = self.to_contiguous();
        match &t.data {
            Data::Strings(s) => Self { data: Data::Strings(Arc::new(s.to_vec())), ..t },
            Data::Tensors(items) => {
                let items = items.iter().map(Self::to_owned_tensor).collect();
                Self { data: Data::Tensors(Arc::new(items)), ..t }
            }
            Data::Bytes(_) => {
                Self::from_bytes(t.element_type, t.shape.clone(), t.unaligned_bytes())
                    .expect("the bytes of a contiguous tensor fit its shape")
            }
        }
    }

    /// Address of the first element, to recognise tensors that share memory.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        match &self.data {
            Data::Bytes(b) => b.unaligned_bytes()[self.offset..].as_ptr(),
            Data::Strings(s) => s.as_ptr().cast(),
            Data::Tensors(t) => t.as_ptr().cast(),
        }
    }

    /// The same memory under another element type of the same width (`Boolean` and `u8`, for example).
    ///
    /// # Errors
    /// [`TensorError::ElementType`] when the widths differ.
    pub fn reinterpret(&self, element_type: ElementType) -> Result<Self, TensorError> {
        if element_type.bits() == self.element_type.bits() && element_type.bits() > 0 {
            Ok(Self { element_type, ..self.clone() })
        } else {
            Err(TensorError::ElementType { expected: element_type, got: self.element_type })
        }
    }
}

impl PartialEq for Tensor {
    /// Same type, shape and bytes (NaN equals itself, 0 differs from −0).
    fn eq(&self, other: &Self) -> bool {
        if self.element_type != other.element_type || self.shape != other.shape {
            return false;
        }
        match (&self.data, &other.data) {
            (Data::Strings(a), Data::Strings(b)) => a == b,
            (Data::Tensors(a), Data::Tensors(b)) => a == b,
            _ => self.to_contiguous().unaligned_bytes() == other.to_contiguous().unaligned_bytes(),
        }
    }
}

impl fmt::Debug for Tensor {
    /// Type, shape and the first elements.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        write!(f, "{}{}", self.element_type, self.shape)?;
        if let Data::Tensors(items) = &self.data {
            return write!(f, " {:?}", &items[..items.len().min(SHOWN)]);
        }
        if let Ok(s) = self.as_strings() {
            return write!(
                f,
                " {:?}{}",
                &s[..s.len().min(SHOWN)],
                if s.len() > SHOWN { "…" } else { "" }
            );
        }
        let values: Vec<f64> =
            (0..self.len().min(SHOWN)).filter_map(|i| self.element_as_f64(i)).collect();
        write!(f, " {values:?}{}", if self.len() > SHOWN { "…" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_share_memory_and_strides_transpose() {
        let t = Tensor::from_vec([2, 3], vec![1f32, 2., 3., 4., 5., 6.]).expect("fits");
        let v = t.view::<f32>().expect("f32");
        assert_eq!(v.as_ptr().cast(), t.as_ptr());
        let transposed = t.with_strides([3, 2], &[1, 3]).expect("in bounds");
        assert_eq!(transposed.view::<f32>().expect("f32")[[2, 1]], 6.);
        assert_eq!(
            transposed.to_contiguous().as_slice::<f32>().expect("copied"),
            [1., 4., 2., 5., 3., 6.]
        );
        assert!(t.with_strides([3, 3], &[1, 3]).is_err());
    }

    #[test]
    fn wrong_lengths_and_types_are_refused() {
        assert!(matches!(
            Tensor::from_vec([2, 2], vec![1f32]),
            Err(TensorError::ByteLength { .. })
        ));
        assert!(matches!(
            Tensor::zeros(ElementType::F32, [usize::MAX, 2]),
            Err(TensorError::TooLarge { .. })
        ));
        let t = Tensor::scalar(1i64);
        assert!(matches!(t.as_slice::<f32>(), Err(TensorError::ElementType { .. })));
    }

    #[test]
    fn writing_needs_sole_ownership() {
        let mut a = Tensor::zeros(ElementType::F32, [4]).expect("small");
        let b = a.clone();
        assert_eq!(a.as_mut_slice::<f32>().err(), Some(TensorError::ReadOnly));
        drop(b);
        a.as_mut_slice::<f32>().expect("alone")[0] = 3.;
        assert_eq!(a.as_slice::<f32>().expect("f32")[0], 3.);
    }

    #[test]
    fn misaligned_slices_of_a_file_are_copied_and_aligned_ones_are_not() {
        let bytes = bytes::Bytes::from(
            AlignedBuffer::zeroed(64).map(|b| b.bytes().to_vec()).expect("small"),
        );
        let base = bytes.as_ptr().addr() % 4;
        let aligned = bytes.slice((4 - base) % 4..);
        let t =
            Tensor::from_buffer(ElementType::F32, [2], Arc::new(aligned.clone()), 4).expect("fits");
        assert_eq!(t.as_ptr(), aligned[4..].as_ptr());
        let t =
            Tensor::from_buffer(ElementType::F32, [2], Arc::new(aligned.clone()), 1).expect("fits");
        assert_eq!(t.unaligned_bytes().as_ptr(), aligned[1..].as_ptr());
        let elements = t.as_slice::<f32>().expect("copied to an aligned place");
        assert_eq!(elements, [0., 0.]);
        assert_ne!(elements.as_ptr().cast(), aligned[1..].as_ptr());
        assert_eq!(elements.as_ptr(), t.clone().as_slice::<f32>().expect("copied once").as_ptr());
    }

    #[test]
    fn zero_size_tensors_have_views() {
        let t = Tensor::zeros(ElementType::F32, [2, 0, 3]).expect("empty");
        assert_eq!(t.view::<f32>().expect("empty").len(), 0);
        assert_eq!(t.as_slice::<f32>().expect("empty").len(), 0);
    }
}
