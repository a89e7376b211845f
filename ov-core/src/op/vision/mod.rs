//! Boxes, regions and sampling grids.

mod crop;
mod grid;
mod image;
mod jpeg;
mod regions;
mod suppression;
#[cfg(test)]
mod tests;

pub use crop::{CropAndResize, CropMode};
pub use grid::{AffineGrid, GridMode, GridPadding, GridSample};
pub use image::{ImageDecoder, PixelFormat};
pub use regions::{AlignMode, PoolMode, RoiAlign, RoiPooling, RoiPoolingMethod};
pub use suppression::{BoxEncoding, NonMaxSuppression};

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<AffineGrid>(),
    OpEntry::of::<GridSample>(),
    OpEntry::of::<RoiAlign>(),
    OpEntry::of::<RoiPooling>(),
    OpEntry::of::<NonMaxSuppression>(),
    OpEntry::of::<ImageDecoder>(),
    OpEntry::of::<CropAndResize>(),
];
