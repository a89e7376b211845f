//! The short-time Fourier transform: one transform per frame of a signal.

use super::{
    fourier::{Spectrum, Way},
    known_length, length,
};
use crate::{
    op::{InferContext, OpResult, OpRules, OutputType, movement::checked_len, present},
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

define_op! {
    /// Spectra `[batch, frames, bins, 2]` of the frames of a signal (input 0, `[batch, length, 1 or 2]`) that start every
    /// so many samples (input 1), each multiplied with a window (input 2, rank 1, default: ones) and of a length
    /// (input 3, default: the window's, else the signal's). <https://onnx.ai/onnx/operators/onnx__STFT.html>
    pub struct ShortTimeFourierTransform("ShortTimeFourierTransform", 0) {
        /// Whether only the first half of each spectrum is given.
        onesided: bool = true,
    }
}

impl ShortTimeFourierTransform {
    fn bins(&self, frame: usize) -> usize {
        if self.onesided { frame / 2 + 1 } else { frame }
    }
}

fn frames(signal: usize, frame: usize, step: usize) -> usize {
    signal.checked_sub(frame).map_or(0, |rest| rest / step.max(1) + 1)
}

impl OpRules for ShortTimeFourierTransform {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=4)?;
        cx.expect_rank(0, 3..=3)?;
        cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
        let signal = cx.shape(0).dim(1);
        let frame = if cx.is_present(3) {
            known_length(cx, 3)
        } else if cx.is_present(2) {
            cx.shape(2).dim(0)
        } else {
            signal
        };
        let count = match (signal.value(), frame.value(), known_length(cx, 1).value()) {
            (Some(signal), Some(frame), Some(step)) => Dimension::fixed(frames(signal, frame, step)),
            (None, Some(frame), Some(step)) => signal.map(|s| frames(s, frame, step)),
            _ => Dimension::DYNAMIC,
        };
        let dims = [cx.shape(0).dim(0), count, frame.map(|f| self.bins(f)), Dimension::fixed(2)];
        Ok(vec![OutputType::new(cx.element_type(0), PartialShape::new(&dims))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        op_ensure!(inputs[0].rank() == 3, "signal {} is not of rank 3", inputs[0].shape());
        let signal = Spectrum::from_parts(&inputs[0])?;
        let step = length(&inputs[1], "the frame step")?;
        op_ensure!(step > 0, "the frame step is 0");
        let window = present(inputs, 2).map(Tensor::to_f64_vec).transpose()?;
        let (batch, len) = (signal.shape[0], signal.shape[1]);
        let frame = match (present(inputs, 3), &window) {
            (Some(frame), _) => length(frame, "the frame length")?,
            (None, Some(window)) => window.len(),
            (None, None) => len,
        };
        if let Some(window) = &window {
            op_ensure!(window.len() == frame, "a window of {} for frames of {frame}", window.len());
        }
        let count = frames(len, frame, step);
        let total = checked_len(&[batch, count, frame])?;
        let mut values = Vec::with_capacity(total);
        for b in 0..batch {
            for f in 0..count {
                let start = b * len + f * step;
                let samples = &signal.values[start..start + frame];
                match &window {
                    Some(window) => values.extend(samples.iter().zip(window).map(|(s, w)| s * w)),
                    None => values.extend_from_slice(samples),
                }
            }
        }
        let framed = Spectrum { shape: vec![batch, count, frame], values };
        let out = framed.transform(2, frame, self.bins(frame), Way::Forward)?;
        Ok(vec![out.to_parts(inputs[0].element_type())?])
    }
}
