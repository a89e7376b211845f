//! Normalisations: of rows (layer, RMS, mean-variance, instance), and of channel groups.

pub mod group;
pub mod row;

pub use group::{GroupNorm, Share, group_norm_f32, group_norm_shared_f32};
pub use row::{Affine, RowNorm, RowStatistics, row_norm_f32};
