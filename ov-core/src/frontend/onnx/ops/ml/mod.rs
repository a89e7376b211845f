//! `ai.onnx.ml`: classical machine learning.

mod encode;
mod linear;
mod trees;

use super::{ConvertResult, OnnxOp};

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("ai.onnx.ml", "ArrayFeatureExtractor", 1, encode::array_feature_extractor),
    ("ai.onnx.ml", "Binarizer", 1, encode::binarizer),
    ("ai.onnx.ml", "CastMap", 1, encode::cast_map),
    ("ai.onnx.ml", "CategoryMapper", 1, encode::category_mapper),
    ("ai.onnx.ml", "DictVectorizer", 1, encode::dict_vectorizer),
    ("ai.onnx.ml", "FeatureVectorizer", 1, encode::feature_vectorizer),
    ("ai.onnx.ml", "Imputer", 1, encode::imputer),
    ("ai.onnx.ml", "LabelEncoder", 1, encode::category_mapper),
    ("ai.onnx.ml", "LabelEncoder", 2, encode::label_encoder),
    ("ai.onnx.ml", "LinearClassifier", 1, linear::linear_classifier),
    ("ai.onnx.ml", "LinearRegressor", 1, linear::linear_regressor),
    ("ai.onnx.ml", "Normalizer", 1, encode::normalizer),
    ("ai.onnx.ml", "OneHotEncoder", 1, encode::one_hot_encoder),
    ("ai.onnx.ml", "Scaler", 1, encode::scaler),
    ("ai.onnx.ml", "SVMClassifier", 1, linear::svm_classifier),
    ("ai.onnx.ml", "SVMRegressor", 1, linear::svm_regressor),
    ("ai.onnx.ml", "TreeEnsemble", 5, trees::tree_ensemble),
    ("ai.onnx.ml", "TreeEnsembleClassifier", 1, trees::classifier),
    ("ai.onnx.ml", "TreeEnsembleRegressor", 1, trees::regressor),
    ("ai.onnx.ml", "ZipMap", 1, encode::zip_map),
];
