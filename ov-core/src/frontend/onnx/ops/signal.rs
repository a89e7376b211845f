//! Fourier transforms, windows and the Mel filter bank.

use super::{
    super::{NodeContext, context::ConvertError},
    ConvertResult, OnnxOp,
};
use crate::{
    model::Value,
    op::signal::{
        FourierTransform, MelWeightMatrix, ShortTimeFourierTransform, SignalWindow, WindowFunction,
    },
    tensor::{ElementType, Tensor},
};

/// The transform along an axis that is an attribute.
fn dft_17(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, length, axis) = (cx.input(0)?, cx.optional_input(1), cx.i64("axis", 1)?);
    let length = length.unwrap_or_else(|| cx.constant(Tensor::absent()));
    let axis = cx.constant(Tensor::scalar(axis));
    transform(cx, &[x, length, axis])
}

/// The transform along an axis that is an input.
fn dft_20(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    cx.input(0)?;
    let inputs = cx.all_inputs();
    transform(cx, &inputs)
}

fn transform(cx: &mut NodeContext<'_, '_>, inputs: &[Value]) -> ConvertResult {
    let op = FourierTransform { inverse: cx.bool("inverse", false)?, onesided: cx.bool("onesided", false)? };
    Ok(vec![cx.add(op, inputs)?])
}

fn stft(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    cx.input(1)?;
    let (onesided, inputs) = (cx.bool("onesided", true)?, cx.all_inputs());
    Ok(vec![cx.add(ShortTimeFourierTransform { onesided }, &inputs)?])
}

fn output_type(cx: &NodeContext<'_, '_>) -> Result<ElementType, ConvertError> {
    Ok(cx.optional_element_type("output_datatype")?.unwrap_or(ElementType::F32))
}

fn window(cx: &mut NodeContext<'_, '_>, function: WindowFunction) -> ConvertResult {
    let size = cx.input(0)?;
    let (periodic, output_type) = (cx.bool("periodic", true)?, output_type(cx)?);
    Ok(vec![cx.add(SignalWindow { function, periodic, output_type }, &[size])?])
}

fn hann_window(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    window(cx, WindowFunction::Hann)
}

fn hamming_window(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    window(cx, WindowFunction::Hamming)
}

fn blackman_window(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    window(cx, WindowFunction::Blackman)
}

fn mel_weight_matrix(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = (0..5).map(|i| cx.input(i)).collect::<Result<Vec<_>, _>>()?;
    let output_type = output_type(cx)?;
    Ok(vec![cx.add(MelWeightMatrix { output_type }, &inputs)?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "DFT", 17, dft_17),
    ("", "DFT", 20, dft_20),
    ("", "STFT", 17, stft),
    ("", "HannWindow", 17, hann_window),
    ("", "HammingWindow", 17, hamming_window),
    ("", "BlackmanWindow", 17, blackman_window),
    ("", "MelWeightMatrix", 17, mel_weight_matrix),
];
