//! Training: losses, and `ai.onnx.preview.training`.

mod gradient;
mod loss;
mod optimizer;

use super::{ConvertResult, OnnxOp};

const TRAINING: &str = "ai.onnx.preview.training";

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "NegativeLogLikelihoodLoss", 12, loss::negative_log_likelihood),
    ("", "SoftmaxCrossEntropyLoss", 12, loss::softmax_cross_entropy),
    (TRAINING, "Adagrad", 1, optimizer::adagrad),
    (TRAINING, "Adam", 1, optimizer::adam),
    (TRAINING, "Momentum", 1, optimizer::momentum),
    (TRAINING, "Gradient", 1, gradient::gradient),
];
