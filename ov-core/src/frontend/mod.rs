//! Front ends: files become models.

#[cfg(feature = "onnx")]
pub mod onnx;
