//! Normalization: batch, mean and variance, groups, layers, root mean square, local response, length.

mod dropout;
mod layer;
mod local;
mod statistics;

pub use dropout::Dropout;
pub use layer::{LayerNormalization, RmsNorm};
pub use local::{Lrn, NormalizeL2, NormalizeL2Mode};
pub use statistics::{
    BatchNormInference, BatchNormInference1, GroupNormalization, Mvn, MvnEpsilon,
};

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<BatchNormInference>(),
    OpEntry::of::<BatchNormInference1>(),
    OpEntry::of::<Mvn>(),
    OpEntry::of::<GroupNormalization>(),
    OpEntry::of::<LayerNormalization>(),
    OpEntry::of::<RmsNorm>(),
    OpEntry::of::<Lrn>(),
    OpEntry::of::<Dropout>(),
    OpEntry::of::<NormalizeL2>(),
];
