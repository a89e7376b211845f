//! Source positions and weights of a resized axis.

/// How an output position maps to the input axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coordinates {
    /// `(o + 0.5) / scale - 0.5`
    HalfPixel,
    /// Half-pixel, corrected so that a rounded output size stays centred (ONNX 19).
    HalfPixelSymmetric,
    /// Half-pixel, but 0 for an output of one element.
    PytorchHalfPixel,
    /// First and last elements map on each other.
    AlignCorners,
    /// `o / scale`
    Asymmetric,
    /// `(o + 0.5) / scale`, for nearest only.
    TfHalfPixelForNn,
}

/// How nearest picks between two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NearestRounding {
    /// Nearest, the lower one at a half.
    RoundPreferFloor,
    /// Nearest, the upper one at a half.
    RoundPreferCeil,
    /// The lower one.
    Floor,
    /// The upper one.
    Ceil,
    /// `OpenVINO`'s `simple`: the upper one when shrinking, else the lower one.
    Simple,
}

/// What is computed between elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Interpolation {
    /// One element.
    Nearest(NearestRounding),
    /// Two elements by distance.
    Linear,
    /// Four elements with Keys' kernel.
    Cubic {
        /// Its coefficient, usually -0.75 or -0.5.
        a: f64,
    },
}

/// How an axis is resized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AxisOptions {
    /// Output elements per input element.
    pub scale: f64,
    /// Mapping of positions.
    pub coordinates: Coordinates,
    /// What is computed between elements.
    pub interpolation: Interpolation,
    /// Whether taps outside the axis weigh nothing, instead of reading the edge.
    pub exclude_outside: bool,
    /// Whether linear and cubic kernels widen when shrinking.
    pub antialias: bool,
}

/// A size or scale that no table can be made for.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "expected a positive finite scale, an input of 1 to 2^31 elements and a table that fits in memory, found scale {scale}, sizes {input} and {output}"
)]
pub struct TableError {
    /// Elements of the input axis.
    pub input: usize,
    /// Elements of the output axis.
    pub output: usize,
    /// Output per input.
    pub scale: f64,
}

/// Taps of every output position along one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisTable {
    input: usize,
    len: usize,
    taps: usize,
    index: Vec<u32>,
    weight: Vec<f32>,
}

impl AxisTable {
    /// Tables for an axis of `input` elements resized to `output`.
    /// Formulas: <https://onnx.ai/onnx/operators/onnx__Resize.html>.
    ///
    /// # Errors
    /// If the input is empty while the output is not, or the scale is not positive and finite.
    pub fn new(input: usize, output: usize, options: &AxisOptions) -> Result<Self, TableError> {
        let AxisOptions { scale, coordinates, interpolation, exclude_outside, antialias } =
            *options;
        let bad = TableError { input, output, scale };
        let fits = input > 0 && input <= 1 << 31 && scale.is_finite() && scale > 0.0;
        if output > 0 && !fits {
            return Err(bad);
        }
        let stretch = if antialias && scale < 1.0 { scale } else { 1.0 };
        let half_width = match interpolation {
            Interpolation::Nearest(_) => 0.0,
            Interpolation::Linear => 1.0 / stretch,
            Interpolation::Cubic { .. } => 2.0 / stretch,
        };
        let taps = match interpolation {
            Interpolation::Nearest(_) => 1,
            _ if output == 0 => 1,
            _ => 2 * half_width.ceil().min(input as f64 + 2.0) as usize,
        };
        let total = taps.checked_mul(output).filter(|t| *t <= 1 << 31).ok_or(bad)?;
        let mut table = Self {
            input,
            len: output,
            taps,
            index: Vec::with_capacity(total),
            weight: Vec::with_capacity(total),
        };
        for o in 0..output {
            let x = position(o, input, output, scale, coordinates);
            match interpolation {
                Interpolation::Nearest(rounding) => {
                    let i = nearest(x, rounding, scale).clamp(0.0, (input - 1) as f64);
                    table.index.push(i as u32);
                    table.weight.push(1.0);
                }
                Interpolation::Linear => {
                    let x = if stretch == 1.0 { x.clamp(0.0, (input - 1) as f64) } else { x };
                    table.push(x, exclude_outside, |d| (1.0 - (d * stretch).abs()).max(0.0));
                }
                Interpolation::Cubic { a } => {
                    table.push(x, exclude_outside, |d| keys(d * stretch, a));
                }
            }
        }
        Ok(table)
    }

    /// Adds the taps around `x`; with `exclude` those outside weigh nothing. Weights are
    /// scaled to sum to 1.
    fn push(&mut self, x: f64, exclude: bool, kernel: impl Fn(f64) -> f64) {
        let first = x.floor() as i64 - (self.taps as i64 / 2 - 1);
        let last = self.input as i64 - 1;
        let weigh = |k: i64| {
            let at = first + k;
            if exclude && !(0..=last).contains(&at) { 0.0 } else { kernel(x - at as f64) }
        };
        let sum: f64 = (0..self.taps as i64).map(weigh).sum();
        let scale = if sum == 0.0 { 1.0 } else { 1.0 / sum };
        for k in 0..self.taps as i64 {
            self.index.push((first + k).clamp(0, last) as u32);
            self.weight.push((weigh(k) * scale) as f32);
        }
    }

    /// Elements of the output axis.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the output axis has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements of the input axis.
    #[must_use]
    pub fn input(&self) -> usize {
        self.input
    }

    /// Source positions and weights of output position `at`.
    #[inline(always)]
    #[must_use]
    pub fn taps(&self, at: usize) -> (&[u32], &[f32]) {
        let range = at * self.taps..(at + 1) * self.taps;
        (&self.index[range.clone()], &self.weight[range])
    }
}

fn position(o: usize, input: usize, output: usize, scale: f64, coordinates: Coordinates) -> f64 {
    let (o, last) = (o as f64, output.saturating_sub(1) as f64);
    match coordinates {
        Coordinates::HalfPixel => (o + 0.5) / scale - 0.5,
        Coordinates::HalfPixelSymmetric => {
            let exact = input as f64 * scale;
            let adjust = output as f64 / exact;
            let center = input as f64 / 2.0;
            center * (1.0 - adjust) + (o + 0.5) / scale - 0.5
        }
        Coordinates::PytorchHalfPixel if output <= 1 => 0.0,
        Coordinates::PytorchHalfPixel => (o + 0.5) / scale - 0.5,
        Coordinates::AlignCorners if output <= 1 => 0.0,
        Coordinates::AlignCorners => o * (input - 1) as f64 / last,
        Coordinates::Asymmetric => o / scale,
        Coordinates::TfHalfPixelForNn => (o + 0.5) / scale,
    }
}

fn nearest(x: f64, rounding: NearestRounding, scale: f64) -> f64 {
    match rounding {
        NearestRounding::RoundPreferFloor => (x - 0.5).ceil(),
        NearestRounding::RoundPreferCeil => (x + 0.5).floor(),
        NearestRounding::Floor => x.floor(),
        NearestRounding::Ceil => x.ceil(),
        NearestRounding::Simple if scale < 1.0 => x.ceil(),
        NearestRounding::Simple => x.floor(),
    }
}

/// Keys' cubic convolution kernel (IEEE ASSP-29, 1981).
fn keys(d: f64, a: f64) -> f64 {
    let d = d.abs();
    if d <= 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(
        scale: f64,
        coordinates: Coordinates,
        interpolation: Interpolation,
        antialias: bool,
    ) -> AxisOptions {
        AxisOptions { scale, coordinates, interpolation, exclude_outside: false, antialias }
    }

    fn apply(t: &AxisTable, x: &[f64]) -> Vec<f64> {
        (0..t.len())
            .map(|o| {
                let (i, w) = t.taps(o);
                i.iter().zip(w).map(|(i, w)| x[*i as usize] * f64::from(*w)).sum()
            })
            .collect()
    }

    #[test]
    fn known_rows() {
        use Coordinates as C;
        use Interpolation as I;
        use NearestRounding as N;
        let cubic = I::Cubic { a: -0.75 };
        struct Case(&'static [f64], usize, f64, Coordinates, Interpolation, bool, &'static [f64]);
        // The cubic and antialiased rows are those of the ONNX Resize examples, whose 4x4 image is
        // 1 + column + 4 * row, less the part of their row position.
        let table = [
            Case(
                &[1.0, 2.0],
                4,
                2.0,
                C::Asymmetric,
                I::Nearest(N::Floor),
                false,
                &[1., 1., 2., 2.],
            ),
            Case(
                &[1.0, 2.0],
                4,
                2.0,
                C::HalfPixel,
                I::Nearest(N::RoundPreferFloor),
                false,
                &[1., 1., 2., 2.],
            ),
            Case(&[1.0, 2.0], 4, 2.0, C::HalfPixel, I::Linear, false, &[1.0, 1.25, 1.75, 2.0]),
            Case(
                &[1.0, 2.0],
                4,
                2.0,
                C::AlignCorners,
                I::Linear,
                false,
                &[1.0, 4. / 3., 5. / 3., 2.0],
            ),
            Case(
                &[1., 2., 3., 4.],
                8,
                2.0,
                C::HalfPixel,
                cubic,
                false,
                &[
                    0.894_531_25,
                    1.191_406_25,
                    1.667_968_75,
                    2.296_875,
                    2.703_125,
                    3.332_031_25,
                    3.808_593_75,
                    4.105_468_75,
                ],
            ),
            Case(&[1., 2., 3., 4.], 2, 0.6, C::HalfPixel, I::Linear, true, &[1.375, 3.0]),
            Case(&[1., 2., 3., 4.], 1, 0.25, C::PytorchHalfPixel, I::Linear, false, &[1.0]),
            Case(&[5.0], 3, 3.0, C::HalfPixel, cubic, false, &[5.0, 5.0, 5.0]),
            Case(&[1., 2., 3., 4.], 2, 0.5, C::Asymmetric, I::Nearest(N::Simple), false, &[1., 3.]),
        ];
        for (k, Case(x, out, scale, c, i, antialias, e)) in table.iter().enumerate() {
            let t =
                AxisTable::new(x.len(), *out, &options(*scale, *c, *i, *antialias)).expect("valid");
            let y = apply(&t, x);
            let same = y.len() == e.len() && y.iter().zip(*e).all(|(y, e)| (y - e).abs() < 1e-6);
            assert!(same, "case {k}: {y:?} instead of {e:?}");
        }
    }

    #[test]
    fn weights_sum_to_one() {
        for kind in [Interpolation::Linear, Interpolation::Cubic { a: -0.5 }] {
            for (i, o) in [(7, 3), (3, 7), (1, 5), (100, 9), (8, 8)] {
                for (antialias, exclude_outside) in
                    [(false, false), (true, false), (true, true), (false, true)]
                {
                    let scale = o as f64 / i as f64;
                    let o1 = options(scale, Coordinates::HalfPixel, kind, antialias);
                    let t = AxisTable::new(i, o, &AxisOptions { exclude_outside, ..o1 })
                        .expect("valid");
                    for at in 0..o {
                        let sum: f32 = t.taps(at).1.iter().sum();
                        assert!((sum - 1.0).abs() < 1e-5, "{kind:?} {i} {o} {antialias}");
                    }
                }
            }
        }
    }

    #[test]
    fn rejects_bad_sizes() {
        let linear = Interpolation::Linear;
        for (i, o, scale) in
            [(0, 3, 1.0), (3, 3, 0.0), (3, 3, f64::NAN), (3, 3, -1.0), (2, usize::MAX, 2.0)]
        {
            assert!(
                AxisTable::new(i, o, &options(scale, Coordinates::HalfPixel, linear, true))
                    .is_err()
            );
        }
        assert!(
            AxisTable::new(0, 0, &options(f64::NAN, Coordinates::HalfPixel, linear, true)).is_ok()
        );
    }
}
