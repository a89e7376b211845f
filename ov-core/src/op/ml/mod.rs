//! Operators of classical machine learning (`ai.onnx.ml`): trees, support vectors, encoders, maps.
//! <https://github.com/onnx/onnx/blob/main/docs/Operators-ml.md>

mod encode;
mod map;
mod svm;
mod transform;
mod tree;

pub use encode::LabelEncoder;
pub use map::{CastMap, DictVectorizer, MapCast, MapForm, ZipMap};
pub use svm::{SvmClassifier, SvmKernel, SvmRegressor};
pub use transform::{PostTransform, ScoreTransform, transform_scores};
pub use tree::{
    Aggregate, BinaryScores, EnsembleScores, LEAF, MODE_EQUAL, MODE_LESS, MODE_LESS_EQUAL,
    MODE_MEMBER, NAN_LEFT, TreeEnsemble, feature_of, mode_of, next_node, node_words,
};

use super::OpEntry;

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<TreeEnsemble>(),
    OpEntry::of::<EnsembleScores>(),
    OpEntry::of::<ScoreTransform>(),
    OpEntry::of::<LabelEncoder>(),
    OpEntry::of::<SvmClassifier>(),
    OpEntry::of::<SvmRegressor>(),
    OpEntry::of::<CastMap>(),
    OpEntry::of::<DictVectorizer>(),
    OpEntry::of::<ZipMap>(),
];
