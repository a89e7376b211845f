//! Tensors: element types, shapes, memory and views.

mod contiguous;
mod convert;
mod element_type;
mod packed;
mod partial_shape;
mod sequence;
mod shape;
mod storage;
#[expect(clippy::module_inception, reason = "the file that defines Tensor")]
mod tensor;

pub use element_type::{Element, ElementType, UnknownElementType};
pub use packed::{read_packed, write_packed};
pub use partial_shape::{Dimension, PartialShape};
pub use shape::Shape;
pub use storage::{AlignedBuffer, BUFFER_ALIGNMENT, TensorBuffer};
pub use tensor::{Tensor, TensorError};
