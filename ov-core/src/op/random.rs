//! Random numbers: with a seed always the same, without one others every time.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    InferContext, OpEntry, OpError, OpKind, OpResult, OpRules, OutputType,
    movement::checked_len,
    reshape::{target_shape, usizes},
    unsupported_type,
};
use crate::{
    choice, dispatch_float,
    tensor::{Dimension, Element, ElementType, PartialShape, Tensor},
};

/// A sequence of random numbers: splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// 2014).
#[derive(Clone, Debug)]
pub struct Stream(u64);

/// A number that no other call in this process gives, and another in the next process.
fn fresh() -> u64 {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let process = *PROCESS.get_or_init(|| RandomState::new().hash_one("ov"));
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    process ^ mixed(call.wrapping_mul(STEP))
}

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

fn mixed(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Stream {
    /// The sequence of a seed, or one of its own for this call.
    #[must_use]
    pub fn new(seed: Option<i64>) -> Self {
        Self(seed.map_or_else(fresh, |s| mixed(s as u64)))
    }

    /// The next number, uniform in 0..1.
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(STEP);
        (mixed(self.0) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The next number of the standard normal distribution (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Whether an operator may give another result for the same inputs, so that it is never evaluated ahead of time or
/// joined with another one.
#[must_use]
pub fn is_random(kind: OpKind) -> bool {
    matches!(kind.name, "RandomNoise" | "MultinomialSample" | "Dropout")
        || kind.name.starts_with("RandomUniform")
}

choice! {
    /// How random numbers are distributed.
    pub enum Distribution {
        /// Evenly from `a` up to `b`.
        Uniform = "uniform",
        /// Normally with mean `a` and standard deviation `b`.
        Normal = "normal",
    }
}

define_op! {
    /// Random numbers in the shape that the input gives.
    /// <https://onnx.ai/onnx/operators/onnx__RandomNormal.html>
    pub struct RandomNoise("RandomNoise", 0) {
        /// The distribution.
        distribution: Distribution = Distribution::Uniform,
        /// The least, or the mean.
        a: f64 = 0.0,
        /// The limit, or the standard deviation.
        b: f64 = 1.0,
        /// Element type of the output.
        output_type: ElementType = ElementType::F32,
        /// Whether `seed` counts; else every evaluation gives other numbers.
        seeded: bool = false,
        /// Start of the sequence.
        seed: i64 = 0,
    }
}

impl OpRules for RandomNoise {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        op_ensure!(self.output_type.is_float(), "random numbers of type {}", self.output_type);
        Ok(vec![OutputType::new(self.output_type, target_shape(cx, 0)?)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = usizes(&inputs[0], "extent")?;
        let len = checked_len(&shape)?;
        let mut stream = Stream::new(self.seeded.then_some(self.seed));
        let mut draw = || match self.distribution {
            Distribution::Uniform => self.a + (self.b - self.a) * stream.unit(),
            Distribution::Normal => self.a + self.b * stream.normal(),
        };
        let ty = self.output_type;
        let out = dispatch_float!(ty, T => {
            Tensor::from_vec(shape.as_slice(), (0..len).map(|_| T::from_f64(draw())).collect::<Vec<T>>())?
        }, else return Err(unsupported_type(ty)));
        Ok(vec![out])
    }
}

define_op! {
    /// Classes drawn from the unnormalised log probabilities `[batch, classes]`: `[batch, sample_size]`.
    /// <https://onnx.ai/onnx/operators/onnx__Multinomial.html>
    pub struct MultinomialSample("MultinomialSample", 0) {
        /// Draws for each row.
        sample_size: i64 = 1,
        /// Element type of the output.
        output_type: ElementType = ElementType::I32,
        /// Whether `seed` counts; else every evaluation gives other classes.
        seeded: bool = false,
        /// Start of the sequence.
        seed: i64 = 0,
    }
}

impl OpRules for MultinomialSample {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_rank(0, 2..=2)?;
        let count = usize::try_from(self.sample_size)
            .map_err(|_| OpError::Invalid(format!("sample_size is {}", self.sample_size)))?;
        let shape = PartialShape::new(&[cx.shape(0).dim(0), Dimension::fixed(count)]);
        Ok(vec![OutputType::new(self.output_type, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let x = &inputs[0];
        op_ensure!(x.rank() == 2, "log probabilities have shape {}", x.shape());
        let (batch, classes) = (x.shape()[0], x.shape()[1]);
        let count = usize::try_from(self.sample_size).unwrap_or(0);
        checked_len(&[batch, count])?;
        op_ensure!(classes > 0 || batch * count == 0, "there is no class to draw");
        let x = x.to_f64_vec()?;
        let mut stream = Stream::new(self.seeded.then_some(self.seed));
        let mut out = Vec::with_capacity(batch * count);
        for row in x.chunks(classes.max(1)).take(batch) {
            let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sums: Vec<f64> = row
                .iter()
                .scan(0.0, |sum, v| {
                    *sum += (v - max).exp();
                    Some(*sum)
                })
                .collect();
            let total = sums.last().copied().unwrap_or(0.0);
            for _ in 0..count {
                let mark = stream.unit() * total;
                out.push(sums.partition_point(|s| *s <= mark).min(classes - 1) as i64);
            }
        }
        Ok(vec![Tensor::from_vec([batch, count], out)?.cast(self.output_type)?])
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[OpEntry::of::<RandomNoise>(), OpEntry::of::<MultinomialSample>()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_repeat_and_their_absence_does_not() {
        let shape = Tensor::from_i64s(&[3, 5, 100]);
        for (distribution, a, b, mean, deviation) in
            [(Distribution::Uniform, 2.0, 4.0, 3.0, 1.0 / 3f64.sqrt()), (Distribution::Normal, -1.0, 2.0, -1.0, 2.0)]
        {
            let op = RandomNoise { distribution, a, b, seeded: true, seed: 3, ..RandomNoise::default() };
            let draw = |op: &RandomNoise| op.evaluate(std::slice::from_ref(&shape)).expect("valid").remove(0);
            let values = draw(&op).to_f64_vec().expect("f32");
            assert_eq!(draw(&op), draw(&op));
            assert_ne!(draw(&op), draw(&RandomNoise { seed: 4, ..op.clone() }));
            let free = RandomNoise { seeded: false, ..op };
            assert_ne!(draw(&free), draw(&free));
            let n = values.len() as f64;
            let m = values.iter().sum::<f64>() / n;
            let s = (values.iter().map(|v| (v - m).powi(2)).sum::<f64>() / n).sqrt();
            assert!((m - mean).abs() < 0.2 && (s - deviation).abs() < 0.15, "{m} {s}");
        }
        let empty = RandomNoise::default().evaluate(&[Tensor::from_i64s(&[0, 2])]).expect("valid");
        assert_eq!(empty[0].len(), 0);
    }

    #[test]
    fn classes_are_drawn_as_often_as_they_are_likely() {
        let x = Tensor::from_vec([2, 3], vec![0f32, f32::NEG_INFINITY, 3f32.ln(), 0., 0., f32::NEG_INFINITY]).expect("fits");
        let op = MultinomialSample { sample_size: 4000, seeded: true, ..MultinomialSample::default() };
        let got = op.evaluate(&[x]).expect("valid").remove(0).to_i64_vec().expect("i32");
        let share = |row: usize, class: i64| {
            got[row * 4000..][..4000].iter().filter(|c| **c == class).count() as f64 / 4000.0
        };
        assert!((share(0, 2) - 0.75).abs() < 0.03 && share(0, 1) == 0.0);
        assert!((share(1, 0) - 0.5).abs() < 0.03 && share(1, 2) == 0.0);
    }
}
