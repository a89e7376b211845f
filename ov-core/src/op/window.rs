//! Sliding windows: padding, strides, dilations and output extents of convolution and pooling.

use super::{OpError, OpResult};
use crate::{
    choice,
    tensor::{Dimension, PartialShape},
};

choice! {
    /// How padding is found.
    pub enum AutoPad {
        /// As the attributes say.
        Explicit = "explicit",
        /// So that the output is `ceil(input / stride)`, an odd pixel at the end.
        SameUpper = "same_upper",
        /// So that the output is `ceil(input / stride)`, an odd pixel at the beginning.
        SameLower = "same_lower",
        /// No padding.
        Valid = "valid",
    }
}

choice! {
    /// How a fraction of a window at the end counts.
    pub enum Rounding {
        /// It is dropped.
        Floor = "floor",
        /// It makes an output.
        Ceil = "ceil",
        /// It makes an output if it starts inside the input or the padding at its beginning.
        CeilTorch = "ceil_torch",
    }
}

/// The window along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Extent of the kernel.
    pub kernel: usize,
    /// Distance of neighbouring windows.
    pub stride: usize,
    /// Distance of neighbouring kernel elements.
    pub dilation: usize,
    /// Padding before the input; negative crops.
    pub begin: i64,
    /// Padding after the input; negative crops.
    pub end: i64,
}

impl Window {
    /// The windows of `axes` axes from attributes; empty attributes mean ones and zeros.
    ///
    /// # Errors
    /// When a list has another length, a stride or dilation is not positive, or a value is absurd.
    pub fn from_attributes(
        kernel: &[usize],
        strides: &[i64],
        dilations: &[i64],
        begin: &[i64],
        end: &[i64],
    ) -> OpResult<Vec<Self>> {
        let at = |name: &'static str, list: &[i64], i: usize, default: i64, min: i64| {
            let value = match list {
                [] => default,
                _ if list.len() != kernel.len() => {
                    return Err(OpError::Attribute {
                        name,
                        got: format!("{list:?}"),
                        expected: format!("{} values", kernel.len()),
                    });
                }
                _ => list[i],
            };
            if (min..=i64::from(i32::MAX)).contains(&value) {
                return Ok(value);
            }
            Err(OpError::Attribute {
                name,
                got: format!("{list:?}"),
                expected: format!("values from {min} to {}", i32::MAX),
            })
        };
        let pad_min = -i64::from(i32::MAX);
        (0..kernel.len())
            .map(|i| {
                Ok(Self {
                    kernel: kernel[i],
                    stride: at("strides", strides, i, 1, 1)? as usize,
                    dilation: at("dilations", dilations, i, 1, 1)? as usize,
                    begin: at("pads_begin", begin, i, 0, pad_min)?,
                    end: at("pads_end", end, i, 0, pad_min)?,
                })
            })
            .collect()
    }

    /// Input elements from the first to the last of one window.
    #[must_use]
    pub fn span(&self) -> usize {
        self.kernel.saturating_sub(1).saturating_mul(self.dilation).saturating_add(1)
    }

    /// The same window with the padding that `auto` gives for an input of `extent`.
    #[must_use]
    pub fn padded(self, auto: AutoPad, extent: usize) -> Self {
        match auto {
            AutoPad::Explicit => self,
            AutoPad::Valid => Self { begin: 0, end: 0, ..self },
            AutoPad::SameUpper | AutoPad::SameLower => {
                let outputs = extent.div_ceil(self.stride);
                let needed = outputs
                    .saturating_sub(1)
                    .saturating_mul(self.stride)
                    .saturating_add(self.span())
                    .saturating_sub(extent);
                let needed = i64::try_from(needed).unwrap_or(i64::MAX);
                let small = needed / 2;
                let (begin, end) = if auto == AutoPad::SameUpper {
                    (small, needed - small)
                } else {
                    (needed - small, small)
                };
                Self { begin, end, ..self }
            }
        }
    }

    /// Number of windows over an input of `extent` (padding already resolved).
    ///
    /// # Errors
    /// When the window does not fit the padded input.
    pub fn outputs(&self, extent: usize, rounding: Rounding) -> OpResult<usize> {
        let padded = extent as i128 + i128::from(self.begin) + i128::from(self.end);
        let room = padded - self.span() as i128;
        if room < 0 {
            return Err(OpError::Invalid(format!(
                "a window of {} elements does not fit an input of {extent} padded by {} and {}",
                self.span(),
                self.begin,
                self.end
            )));
        }
        let stride = self.stride as i128;
        let mut count = match rounding {
            Rounding::Floor => room / stride + 1,
            Rounding::Ceil | Rounding::CeilTorch => (room + stride - 1) / stride + 1,
        };
        if rounding == Rounding::CeilTorch
            && (count - 1) * stride >= extent as i128 + i128::from(self.begin)
        {
            count -= 1;
        }
        usize::try_from(count).map_err(|_| OpError::Invalid("too many windows".to_owned()))
    }

    /// [`Window::outputs`] for an extent that may not be known.
    ///
    /// # Errors
    /// When the extent is known and the window does not fit it.
    pub fn output_dim(
        &self,
        extent: Dimension,
        auto: AutoPad,
        rounding: Rounding,
    ) -> OpResult<Dimension> {
        if let Some(extent) = extent.value() {
            let window = self.padded(auto, extent);
            return if extent == 0 && window.begin + window.end < self.span() as i64 {
                Ok(Dimension::fixed(0))
            } else {
                Ok(Dimension::fixed(window.outputs(extent, rounding)?))
            };
        }
        Ok(extent.map(|e| self.padded(auto, e).outputs(e, rounding).unwrap_or(0)))
    }

    /// Range of kernel elements of the window at `output` that lie inside an input of `extent`, and the input
    /// position of kernel element 0 (which may be outside).
    #[must_use]
    pub fn inside(&self, output: usize, extent: usize) -> (std::ops::Range<usize>, i64) {
        let start = output as i64 * self.stride as i64 - self.begin;
        let dilation = self.dilation as i64;
        let first = if start < 0 { (-start + dilation - 1) / dilation } else { 0 };
        let last = (extent as i64 - start + dilation - 1) / dilation;
        let first = (first as usize).min(self.kernel);
        let last = (last.max(0) as usize).min(self.kernel).max(first);
        (first..last, start)
    }
}

/// Extents after the first two axes, when the rank is known.
#[must_use]
pub fn spatial(shape: &PartialShape) -> Option<&[Dimension]> {
    shape.dims().and_then(|d| d.get(2..))
}

/// Steps `index` through the row-major positions of `shape`; false after the last.
pub fn advance(index: &mut [usize], shape: &[usize]) -> bool {
    for (i, extent) in index.iter_mut().zip(shape).rev() {
        *i += 1;
        if *i < *extent {
            return true;
        }
        *i = 0;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_extents() {
        let w =
            |kernel, stride, dilation, begin, end| Window { kernel, stride, dilation, begin, end };
        for (window, extent, rounding, expected) in [
            (w(3, 1, 1, 1, 1), 5, Rounding::Floor, 5),
            (w(3, 2, 1, 0, 0), 6, Rounding::Floor, 2),
            (w(3, 2, 1, 0, 0), 6, Rounding::Ceil, 3),
            (w(2, 2, 1, 1, 1), 3, Rounding::Ceil, 3),
            (w(2, 2, 1, 1, 1), 3, Rounding::CeilTorch, 2),
            (w(3, 1, 2, 0, 0), 5, Rounding::Floor, 1),
        ] {
            assert_eq!(window.outputs(extent, rounding), Ok(expected), "{window:?}");
        }
        assert!(w(3, 1, 1, 0, 0).outputs(2, Rounding::Floor).is_err());
        assert!(w(3, 1, 1, -2, 0).outputs(4, Rounding::Floor).is_err());
    }

    #[test]
    fn automatic_padding_puts_the_odd_pixel_where_it_says() {
        let w = Window { kernel: 2, stride: 1, dilation: 1, begin: 7, end: 7 };
        let upper = w.padded(AutoPad::SameUpper, 4);
        assert_eq!((upper.begin, upper.end), (0, 1));
        let lower = w.padded(AutoPad::SameLower, 4);
        assert_eq!((lower.begin, lower.end), (1, 0));
        assert_eq!(upper.outputs(4, Rounding::Floor), Ok(4));
    }

    #[test]
    fn windows_are_clipped_to_the_input() {
        let w = Window { kernel: 3, stride: 1, dilation: 2, begin: 2, end: 2 };
        assert_eq!(w.inside(0, 4), (1..3, -2));
        assert_eq!(w.inside(3, 4), (0..2, 1));
        assert_eq!(w.inside(0, 0), (1..1, -2));
    }

    #[test]
    fn hostile_attributes_are_refused() {
        for (strides, dilations) in
            [(vec![0], vec![]), (vec![1, 1], vec![]), (vec![], vec![i64::MAX])]
        {
            assert!(Window::from_attributes(&[3], &strides, &dilations, &[], &[]).is_err());
        }
    }
}
