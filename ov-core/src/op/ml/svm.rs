//! Support vector machines, after libsvm (Chang and Lin, "LIBSVM: a library for support vector machines", 2011).

use super::transform::{PostTransform, logistic, scores_tensor, transform_scores};
use crate::{
    choice,
    op::{InferContext, OpError, OpResult, OpRules, OutputType},
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

choice! {
    /// The similarity of two vectors.
    pub enum SvmKernel {
        /// `a · b`.
        Linear = "LINEAR",
        /// `(gamma a · b + coef0) ^ degree`.
        Poly = "POLY",
        /// `exp(-gamma |a - b|²)`.
        Rbf = "RBF",
        /// `tanh(gamma a · b + coef0)`.
        Sigmoid = "SIGMOID",
    }
}

impl SvmKernel {
    fn of(self, params: &[f64], a: &[f64], b: &[f64]) -> f64 {
        let at = |i: usize| params.get(i).copied().unwrap_or(0.0);
        let (gamma, coef0, degree) = (at(0), at(1), at(2));
        let dot = || a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        match self {
            Self::Linear => dot(),
            Self::Poly => (gamma * dot() + coef0).powi(degree as i32),
            Self::Sigmoid => (gamma * dot() + coef0).tanh(),
            Self::Rbf => {
                let distance: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
                (-gamma * distance).exp()
            }
        }
    }
}

fn infer_rows(cx: &InferContext<'_>) -> OpResult<Dimension> {
    cx.expect_inputs(1..=1)?;
    cx.expect_rank(0, 1..=2)?;
    Ok(if cx.shape(0).rank() == Some(1) { Dimension::fixed(1) } else { cx.shape(0).dim(0) })
}

/// The rows of `[n, features]` or `[features]`.
fn rows(x: &Tensor) -> OpResult<(Vec<f64>, usize, usize)> {
    op_ensure!((1..=2).contains(&x.rank()), "input has shape {}, expected [n, features]", x.shape());
    let features = x.shape()[x.rank() - 1];
    let count = if x.rank() == 1 { 1 } else { x.shape()[0] };
    Ok((x.to_f64_vec()?, count, features))
}

define_op! {
    /// Support vector regression, or whether a row belongs to the one class (1 or -1): `[n, 1]` in `f32`.
    /// <https://onnx.ai/onnx/operators/onnx_aionnxml_SVMRegressor.html>
    pub struct SvmRegressor("SVMRegressor", 0) {
        /// One per support vector; without support vectors, the weights of the features.
        coefficients: Vec<f64> = Vec::new(),
        /// `gamma`, `coef0` and `degree`.
        kernel_params: Vec<f64> = Vec::new(),
        /// The kernel.
        kernel_type: SvmKernel = SvmKernel::Linear,
        /// Number of support vectors.
        n_supports: i64 = 0,
        /// Whether to give the class.
        one_class: bool = false,
        /// What becomes of the score last.
        post_transform: PostTransform = PostTransform::None,
        /// The constant term.
        rho: Vec<f64> = Vec::new(),
        /// `[n_supports, features]`.
        support_vectors: Vec<f64> = Vec::new(),
    }
}

impl OpRules for SvmRegressor {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        let rows = infer_rows(cx)?;
        let shape = PartialShape::new(&[rows, Dimension::fixed(1)]);
        Ok(vec![OutputType::new(ElementType::F32, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (x, count, features) = rows(&inputs[0])?;
        let supports = usize::try_from(self.n_supports).unwrap_or(0);
        let (vectors, kernel) = if supports > 0 {
            op_ensure!(self.coefficients.len() >= supports, "has fewer coefficients than support vectors");
            (&self.support_vectors, self.kernel_type)
        } else {
            (&self.coefficients, SvmKernel::Linear)
        };
        op_ensure!(
            Some(vectors.len()) == features.checked_mul(supports.max(1)),
            "rows have {features} features, expected {} / {}", vectors.len(), supports.max(1)
        );
        let rho = self.rho.first().copied().unwrap_or(0.0);
        let mut out = Vec::with_capacity(count);
        for row in 0..count {
            let x = &x[row * features..(row + 1) * features];
            let similar = |j: usize| {
                kernel.of(&self.kernel_params, x, &vectors[j * features..(j + 1) * features])
            };
            let mut score = rho + if supports == 0 {
                similar(0)
            } else {
                (0..supports).map(|j| self.coefficients[j] * similar(j)).sum()
            };
            if self.one_class {
                score = if score > 0.0 { 1.0 } else { -1.0 };
            }
            let mut score = [score];
            transform_scores(self.post_transform, &mut score);
            out.extend(score);
        }
        Ok(vec![scores_tensor(ElementType::F32, &[count, 1], &out)?])
    }
}

define_op! {
    /// Support vector classification: the scores of each row in `f32`, and the number of the winning class.
    ///
    /// With support vectors every pair of classes has a machine, and classes are voted for; with `prob_a` the scores
    /// are the probabilities of the classes, else those of the pairs. Without support vectors every class has weights.
    /// <https://onnx.ai/onnx/operators/onnx_aionnxml_SVMClassifier.html>
    pub struct SvmClassifier("SVMClassifier", 0) {
        /// Number of classes.
        classes: i64 = 1,
        /// `[classes - 1, support vectors]`, or `[classes, features]`.
        coefficients: Vec<f64> = Vec::new(),
        /// `gamma`, `coef0` and `degree`.
        kernel_params: Vec<f64> = Vec::new(),
        /// The kernel.
        kernel_type: SvmKernel = SvmKernel::Linear,
        /// What becomes of the scores last.
        post_transform: PostTransform = PostTransform::None,
        /// Slope of the logistic function of each pair.
        prob_a: Vec<f64> = Vec::new(),
        /// Offset of the logistic function of each pair.
        prob_b: Vec<f64> = Vec::new(),
        /// The constant term of each pair.
        rho: Vec<f64> = Vec::new(),
        /// `[support vectors, features]`.
        support_vectors: Vec<f64> = Vec::new(),
        /// How many of the support vectors are of each class.
        vectors_per_class: Vec<i64> = Vec::new(),
    }
}

/// Class probabilities from the probabilities of pairs, `[k, k]` (Wu, Lin and Weng, "Probability estimates for
/// multi-class classification by pairwise coupling", 2004, second approach).
fn couple(k: usize, pairs: &[f64]) -> Vec<f64> {
    let r = |i: usize, j: usize| pairs[i * k + j];
    let mut q = vec![0.0; k * k];
    for i in 0..k {
        for j in 0..k {
            q[i * k + j] = if i == j {
                (0..k).filter(|o| *o != i).map(|o| r(o, i) * r(o, i)).sum()
            } else {
                -r(j, i) * r(i, j)
            };
        }
    }
    let mut p = vec![1.0 / k as f64; k];
    for _ in 0..k.max(100) {
        let mut qp: Vec<f64> =
            (0..k).map(|i| (0..k).map(|j| q[i * k + j] * p[j]).sum()).collect();
        let mut pqp: f64 = p.iter().zip(&qp).map(|(a, b)| a * b).sum();
        if qp.iter().all(|v| (v - pqp).abs() < 0.005 / k as f64) {
            break;
        }
        for i in 0..k {
            let step = (pqp - qp[i]) / q[i * k + i];
            p[i] += step;
            pqp = (pqp + step * (step * q[i * k + i] + 2.0 * qp[i])) / (1.0 + step).powi(2);
            for j in 0..k {
                qp[j] = (qp[j] + step * q[i * k + j]) / (1.0 + step);
                p[j] /= 1.0 + step;
            }
        }
    }
    p
}

impl SvmClassifier {
    fn class_count(&self) -> usize {
        usize::try_from(self.classes).unwrap_or(0).max(1)
    }

    /// Number of support vectors of each class; none without support vectors.
    fn supports(&self) -> OpResult<Vec<usize>> {
        let per_class: Vec<usize> = self
            .vectors_per_class
            .iter()
            .map(|n| usize::try_from(*n).ok().filter(|n| *n <= self.support_vectors.len()))
            .collect::<Option<_>>()
            .ok_or_else(|| OpError::Invalid(format!("vectors_per_class is {:?}", self.vectors_per_class)))?;
        Ok(if per_class.iter().all(|n| *n == 0) { Vec::new() } else { per_class })
    }

    fn width(&self) -> OpResult<usize> {
        let k = self.class_count();
        let pairs = k * (k - 1) / 2;
        let scores = if self.supports()?.is_empty() || !self.prob_a.is_empty() { k } else { pairs };
        Ok(if scores == 1 && k == 2 { 2 } else { scores })
    }

    /// Scores of the pairs, and the votes.
    fn pairs(&self, x: &[f64], per_class: &[usize]) -> OpResult<(Vec<f64>, Vec<usize>)> {
        let (k, total) = (self.class_count(), per_class.iter().sum::<usize>());
        op_ensure!(
            per_class.len() == k
                && self.support_vectors.len() == total * x.len()
                && self.coefficients.len() >= (k - 1) * total
                && self.rho.len() >= k * (k - 1) / 2,
            "{k} classes, {total} support vectors, {} features, {} coefficients and {} constant terms contradict each \
             other",
            x.len(),
            self.coefficients.len(),
            self.rho.len()
        );
        let similar: Vec<f64> = (0..total)
            .map(|j| {
                self.kernel_type.of(&self.kernel_params, x, &self.support_vectors[j * x.len()..][..x.len()])
            })
            .collect();
        let starts: Vec<usize> = per_class
            .iter()
            .scan(0, |at, n| {
                *at += n;
                Some(*at - n)
            })
            .collect();
        let part = |row: usize, class: usize| -> f64 {
            let range = starts[class]..starts[class] + per_class[class];
            let weights = &self.coefficients[row * total..][range.clone()];
            weights.iter().zip(&similar[range]).map(|(a, b)| a * b).sum()
        };
        let (mut scores, mut votes) = (Vec::new(), vec![0; k]);
        for i in 0..k {
            for j in i + 1..k {
                let score = self.rho[scores.len()] + part(j - 1, i) + part(i, j);
                votes[if score > 0.0 { i } else { j }] += 1;
                scores.push(score);
            }
        }
        Ok((scores, votes))
    }

    fn probabilities(&self, scores: &[f64]) -> OpResult<Vec<f64>> {
        let k = self.class_count();
        op_ensure!(
            self.prob_a.len() >= scores.len() && self.prob_b.len() >= scores.len(),
            "prob_a and prob_b have {} and {} values for {} pairs",
            self.prob_a.len(),
            self.prob_b.len(),
            scores.len()
        );
        let mut pairs = vec![0.0; k * k];
        let mut index = 0;
        for i in 0..k {
            for j in i + 1..k {
                let p = 1.0 - logistic(scores[index] * self.prob_a[index] + self.prob_b[index]);
                let p = p.clamp(1e-7, 1.0 - 1e-7);
                (pairs[i * k + j], pairs[j * k + i]) = (p, 1.0 - p);
                index += 1;
            }
        }
        Ok(couple(k, &pairs))
    }

    /// Scores and winner of one row.
    fn classify(&self, x: &[f64], per_class: &[usize]) -> OpResult<(Vec<f64>, usize)> {
        let k = self.class_count();
        let first_greatest = |values: &mut dyn Iterator<Item = f64>| {
            let start = (0, f64::NEG_INFINITY);
            values.enumerate().fold(start, |best, v| if v.1 > best.1 { v } else { best })
        };
        let (mut scores, (mut winner, weight)) = if per_class.is_empty() {
            op_ensure!(
                Some(self.coefficients.len()) == k.checked_mul(x.len()),
                "{} coefficients for {k} classes and {} features", self.coefficients.len(), x.len()
            );
            let rho = self.rho.first().copied().unwrap_or(0.0);
            let scores: Vec<f64> = (0..k)
                .map(|c| {
                    let weights = &self.coefficients[c * x.len()..][..x.len()];
                    rho + SvmKernel::Linear.of(&[], x, weights)
                })
                .collect();
            let best = first_greatest(&mut scores.iter().copied());
            (scores, best)
        } else {
            let (scores, votes) = self.pairs(x, per_class)?;
            let best = first_greatest(&mut votes.iter().map(|v| *v as f64));
            (if self.prob_a.is_empty() { scores } else { self.probabilities(&scores)? }, best)
        };
        let probable = !self.prob_a.is_empty() && !per_class.is_empty();
        if self.rho.len() == 1 {
            let positive = self.coefficients.iter().all(|c| *c >= 0.0);
            if k != 2 {
                winner = usize::from(weight > 0.0);
            } else if !probable && positive && weight >= 0.5 {
                winner = 1;
            }
        }
        if let ([score], 2) = (&scores[..], k) {
            scores = vec![-score, *score];
        }
        transform_scores(self.post_transform, &mut scores);
        Ok((scores, winner))
    }
}

impl OpRules for SvmClassifier {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        let rows = infer_rows(cx)?;
        let scores = PartialShape::new(&[rows, Dimension::fixed(self.width()?)]);
        Ok(vec![
            OutputType::new(ElementType::F32, scores),
            OutputType::new(ElementType::I64, PartialShape::new(&[rows])),
        ])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (x, count, features) = rows(&inputs[0])?;
        let per_class = self.supports()?;
        let (mut scores, mut winners) = (Vec::new(), Vec::with_capacity(count));
        for row in 0..count {
            let (row, winner) = self.classify(&x[row * features..(row + 1) * features], &per_class)?;
            scores.extend(row);
            winners.push(winner as i64);
        }
        let scores = scores_tensor(ElementType::F32, &[count, self.width()?], &scores)?;
        Ok(vec![scores, Tensor::from_i64s(&winners)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_couple_to_probabilities_that_sum_to_one() {
        let pairs = [0.0, 0.9, 0.8, 0.1, 0.0, 0.6, 0.2, 0.4, 0.0];
        let p = couple(3, &pairs);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{p:?}");
        // The minimum of the quadratic form under that condition, from its linear equations; the iteration stops at an
        // error of 0.005 / k.
        for (got, exact) in p.iter().zip([0.742_258, 0.109_242, 0.148_500]) {
            assert!((got - exact).abs() < 0.005, "{p:?}");
        }
    }

    #[test]
    fn kernels_and_regression_follow_their_formulas() {
        let x = Tensor::from_vec([1, 2], vec![1f32, 2.]).expect("fits");
        let rbf = SvmRegressor {
            coefficients: vec![2.0, -1.0],
            kernel_params: vec![0.5, 0.0, 3.0],
            kernel_type: SvmKernel::Rbf,
            n_supports: 2,
            rho: vec![0.25],
            support_vectors: vec![1.0, 2.0, 0.0, 0.0],
            ..SvmRegressor::default()
        };
        let got = rbf.evaluate(std::slice::from_ref(&x)).expect("valid")[0].to_f64_vec().expect("f32");
        assert!((got[0] - (0.25 + 2.0 - (-2.5f64).exp())).abs() < 1e-6, "{got:?}");
        let poly = SvmRegressor { kernel_type: SvmKernel::Poly, one_class: true, ..rbf };
        // 2 (0.5 · 5)³ - 0 + 0.25 > 0.
        assert_eq!(poly.evaluate(&[x]).expect("valid")[0].to_f64_vec().expect("f32"), [1.0]);
        let three = Tensor::from_vec([1, 3], vec![0f32; 3]).expect("fits");
        assert!(poly.evaluate(&[three]).is_err());
    }
}
