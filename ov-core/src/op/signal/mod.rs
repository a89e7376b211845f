//! Signals: Fourier transforms, windows and the Mel filter bank. Everything is computed in `f64`.

mod fourier;
mod frames;
mod spectrum;
#[cfg(test)]
mod tests;
mod window;

pub use fourier::FourierTransform;
pub use frames::ShortTimeFourierTransform;
pub use spectrum::{Dft, Idft, Irdft, Rdft};
pub use window::{MelWeightMatrix, SignalWindow, WindowFunction};

use super::{OpEntry, OpError, OpResult, unsupported_type};
use crate::{
    dispatch_float,
    tensor::{Dimension, Element as _, ElementType, Shape, Tensor},
};

/// The one non-negative integer of a tensor.
fn length(tensor: &Tensor, what: &str) -> OpResult<usize> {
    let value = tensor.element_as_i64(0).filter(|_| tensor.len() == 1);
    value.and_then(|v| usize::try_from(v).ok()).ok_or_else(|| {
        OpError::Invalid(format!("{what} is {tensor:?}, expected one number that is not negative"))
    })
}

/// The one dimension that input `index` names, as far as known.
fn known_length(cx: &super::InferContext<'_>, index: usize) -> Dimension {
    cx.dims(index).and_then(|d| <[Dimension; 1]>::try_from(d).ok()).map_or(Dimension::DYNAMIC, |[d]| d)
}

/// A tensor of a floating-point type from values in `f64`.
fn from_f64s(ty: ElementType, shape: impl Into<Shape>, values: &[f64]) -> OpResult<Tensor> {
    dispatch_float!(ty, T => {
        Ok(Tensor::from_vec(shape, values.iter().map(|v| T::from_f64(*v)).collect::<Vec<T>>())?)
    }, else Err(unsupported_type(ty)))
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<FourierTransform>(),
    OpEntry::of::<ShortTimeFourierTransform>(),
    OpEntry::of::<Dft>(),
    OpEntry::of::<Idft>(),
    OpEntry::of::<Rdft>(),
    OpEntry::of::<Irdft>(),
    OpEntry::of::<SignalWindow>(),
    OpEntry::of::<MelWeightMatrix>(),
];
