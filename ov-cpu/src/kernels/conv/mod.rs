//! Convolution of channels-last f32 tensors with fused epilogue.
//!
//! [`Conv`] is an implicit matrix product: rows are output pixels, k runs over taps and input
//! channels, and a tile reads its rows straight from the input through pointers, with rows of
//! zeros standing for padding. Strides, dilations, groups, one to three spatial dimensions and
//! channel-strided views need no copy. A planar input is gathered into rows per tile instead.
//! Weights are packed by [`ConvWeights`], which does not depend on spatial sizes.
//!
//! Spatial sizes are `[depth, height, width]`, 1 where a dimension is not there.

mod choose;
mod gather;
mod plan;
mod rows;
mod transposed;
mod weights;
pub mod winograd;

pub use choose::{Algorithm, WeightsIn, choose, cycles};
pub use plan::{Conv, ConvArgs};
pub use transposed::ConvTransposed;
pub use weights::ConvWeights;

use crate::gemm::Cost;
use crate::simd::Isa;

/// How an input lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `[batch, depth, height, width, channels]`: pixels are dense, `pixel_stride` elements apart
    /// (at least the channels; more for a slice of a wider tensor).
    ChannelsLast {
        /// Elements from one pixel to the next.
        pixel_stride: usize,
    },
    /// `[batch, channels, depth, height, width]`, dense.
    Planar,
}

/// A convolution as plain integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvParams {
    /// Images.
    pub batch: usize,
    /// Input channels of all groups.
    pub channels: usize,
    /// Output channels of all groups.
    pub outputs: usize,
    /// Groups; divides both channel counts.
    pub groups: usize,
    /// Input size.
    pub input: [usize; 3],
    /// Kernel size.
    pub kernel: [usize; 3],
    /// Input pixels from one output pixel to the next.
    pub stride: [usize; 3],
    /// Input pixels from one tap to the next.
    pub dilation: [usize; 3],
    /// Padding before the first input pixel; padding behind follows from `output`.
    pub pad: [usize; 3],
    /// Output size.
    pub output: [usize; 3],
    /// How the input lies in memory.
    pub source: Source,
    /// Elements from one output pixel to the next, at least `outputs`.
    pub output_stride: usize,
}

impl ConvParams {
    /// A dense channels-last 2-D convolution with the same padding before and behind.
    ///
    /// # Panics
    /// If a stride is 0 or the kernel exceeds the padded input.
    #[must_use]
    pub fn new_2d(
        [batch, height, width, channels]: [usize; 4],
        outputs: usize,
        kernel: usize,
        stride: usize,
        pad: usize,
    ) -> Self {
        let out = |size: usize| (size + 2 * pad - kernel) / stride + 1;
        Self {
            batch,
            channels,
            outputs,
            groups: 1,
            input: [1, height, width],
            kernel: [1, kernel, kernel],
            stride: [1, stride, stride],
            dilation: [1; 3],
            pad: [0, pad, pad],
            output: [1, out(height), out(width)],
            source: Source::ChannelsLast { pixel_stride: channels },
            output_stride: outputs,
        }
    }

    /// Taps of the kernel.
    #[must_use]
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// The packing of the weights on `isa`.
    ///
    /// # Panics
    /// If groups do not divide the channels.
    #[must_use]
    pub fn weights(&self, isa: Isa) -> ConvWeights {
        if self.groups == 1 && self.dilation[2] == 1 && self.output_stride == self.outputs {
            let stride = self.stride[2];
            return ConvWeights::of_pixels(isa, self.channels, self.outputs, self.kernel, stride);
        }
        ConvWeights::new(isa, self.channels, self.outputs, self.groups, self.taps())
    }

    /// Output pixels of all images.
    #[must_use]
    pub fn pixels(&self) -> usize {
        self.batch * self.output.iter().product::<usize>()
    }

    /// Estimated work of the direct algorithm.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let weights = (self.taps() * self.channels / self.groups.max(1) * self.outputs) as f64;
        let input = (self.batch * self.input.iter().product::<usize>() * self.channels) as f64;
        let pixels = self.pixels() as f64;
        Cost {
            flops: 2.0 * pixels * weights,
            bytes: 4.0 * (weights + input + pixels * self.outputs as f64),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
