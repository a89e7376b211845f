//! Windows over the samples of a frame, and the Mel filter bank.

use std::f64::consts::PI;

use super::{known_length, length};
use crate::{
    choice,
    op::{InferContext, OpResult, OpRules, OutputType, movement::checked_len},
    tensor::{ElementType, PartialShape, Tensor},
};

choice! {
    /// The formula of a window.
    pub enum WindowFunction {
        /// `sin²(πn / N)`.
        Hann = "hann",
        /// `25/46 - 21/46 cos(2πn / N)`.
        Hamming = "hamming",
        /// `0.42 - 0.5 cos(2πn / N) + 0.08 cos(4πn / N)`.
        Blackman = "blackman",
    }
}

define_op! {
    /// A window of as many samples as input 0 says, ONNX's `HannWindow`, `HammingWindow` and `BlackmanWindow`.
    /// <https://onnx.ai/onnx/operators/onnx__HannWindow.html>
    pub struct SignalWindow("SignalWindow", 0) {
        /// The formula.
        function: WindowFunction = WindowFunction::Hann,
        /// Whether the formula's `N` is the number of samples; else one less.
        periodic: bool = true,
        /// Element type of the output.
        output_type: ElementType = ElementType::F32,
    }
}

impl OpRules for SignalWindow {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        Ok(vec![OutputType::new(self.output_type, PartialShape::new(&[known_length(cx, 0)]))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let len = length(&inputs[0], "the length of a window")?;
        checked_len(&[len])?;
        let period = if self.periodic { len } else { len.saturating_sub(1) } as f64;
        let at = |n: usize| {
            if period == 0.0 {
                return 1.0;
            }
            let angle = 2.0 * PI * n as f64 / period;
            match self.function {
                WindowFunction::Hann => (angle / 2.0).sin().powi(2),
                WindowFunction::Hamming => 25.0 / 46.0 - 21.0 / 46.0 * angle.cos(),
                WindowFunction::Blackman => 0.42 - 0.5 * angle.cos() + 0.08 * (2.0 * angle).cos(),
            }
        };
        let values: Vec<f64> = (0..len).map(at).collect();
        Ok(vec![Tensor::from_vec([len], values)?.cast(self.output_type)?])
    }
}

define_op! {
    /// Weights `[bins of the spectrum, bands]` of overlapping triangles that are evenly spaced on the Mel scale; inputs
    /// number of bands, length of the transform, samples per second, lowest and highest frequency.
    /// <https://onnx.ai/onnx/operators/onnx__MelWeightMatrix.html>
    pub struct MelWeightMatrix("MelWeightMatrix", 0) {
        /// Element type of the output.
        output_type: ElementType = ElementType::F32,
    }
}

/// Hertz to Mel and back: `2595 log10(1 + f / 700)`.
fn mel(hertz: f64) -> f64 {
    2595.0 * (hertz / 700.0).ln_1p() / std::f64::consts::LN_10
}

fn hertz(mel: f64) -> f64 {
    700.0 * (mel / 2595.0 * std::f64::consts::LN_10).exp_m1()
}

impl OpRules for MelWeightMatrix {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(5..=5)?;
        let dims = [known_length(cx, 1).map(|n| n / 2 + 1), known_length(cx, 0)];
        Ok(vec![OutputType::new(self.output_type, PartialShape::new(&dims))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let bands = length(&inputs[0], "the number of Mel bins")?;
        let transform = length(&inputs[1], "the length of the transform")?;
        let rate = length(&inputs[2], "the sample rate")?;
        op_ensure!(rate > 0, "the sample rate is 0");
        let edge = |i: usize| -> OpResult<f64> {
            op_ensure!(inputs[i].len() == 1, "input {i} is {:?}, expected a scalar", inputs[i]);
            let f = inputs[i].to_f64_vec()?[0];
            op_ensure!(f.is_finite() && f > -700.0, "the edge of a band is {f} Hz");
            Ok(f)
        };
        let (low, high) = (mel(edge(3)?), mel(edge(4)?));
        let bins = transform / 2 + 1;
        let mut weights = vec![0f64; checked_len(&[bins, bands])?];
        let step = (high - low) / (bands as f64 + 2.0);
        let corner = |i: usize| {
            let f = hertz(low + step * i as f64);
            ((transform as f64 + 1.0) * f / rate as f64).floor() as i64
        };
        let mut set = |bin: i64, band: usize, weight: f64| {
            if let Some(bin) = usize::try_from(bin).ok().filter(|b| *b < bins) {
                weights[bin * bands + band] = weight;
            }
        };
        for band in 0..bands {
            let (left, centre, right) = (corner(band), corner(band + 1), corner(band + 2));
            let inside = |from: i64, to: i64| from.max(0)..to.min(bins as i64);
            if left == centre {
                set(centre, band, 1.0);
            } else {
                for bin in inside(left, centre.saturating_add(1)) {
                    set(bin, band, (bin - left) as f64 / (centre - left) as f64);
                }
            }
            for bin in inside(centre, right) {
                set(bin, band, (right - bin) as f64 / (right - centre) as f64);
            }
        }
        let weights = Tensor::from_vec([bins, bands], weights)?;
        Ok(vec![weights.cast(self.output_type)?])
    }
}
