//! Tree ensembles: flattened tables that are made once, partial scores per group of trees, and what is made of them.

use super::transform::{PostTransform, scores_tensor, transform_scores};
use crate::{
    choice,
    op::{InferContext, OpResult, OpRules, OutputType, unsupported_type},
    tensor::{Dimension, Element, ElementType, PartialShape, Tensor},
};

choice! {
    /// How the leaves that a row reaches are put together.
    pub enum Aggregate {
        /// Their sum.
        Sum = "SUM",
        /// Their sum over the number of trees.
        Average = "AVERAGE",
        /// The least.
        Min = "MIN",
        /// The greatest.
        Max = "MAX",
    }
}

/// Set in a reference to a leaf; the other bits are its number.
pub const LEAF: u32 = 1 << 31;
/// `x <= split` goes left.
pub const MODE_LESS_EQUAL: u32 = 0;
/// `x < split` goes left.
pub const MODE_LESS: u32 = 1;
/// `x == split` goes left.
pub const MODE_EQUAL: u32 = 2;
/// Membership of a set goes left.
pub const MODE_MEMBER: u32 = 3;
/// NaN goes left, whatever the mode says.
pub const NAN_LEFT: u32 = 1 << 26;

/// The feature that a node looks at, from its second last word but two (see [`TreeEnsemble`]).
#[must_use]
pub fn feature_of(flags: u32) -> usize {
    (flags & 0x00FF_FFFF) as usize
}

/// The mode of a node.
#[must_use]
pub fn mode_of(flags: u32) -> u32 {
    flags >> 24 & 3
}

/// Where a child of node `at` is: a leaf, or a node behind it.
#[inline]
#[must_use]
pub fn next_node(at: u32, child: u32) -> u32 {
    if child & LEAF == 0 { at.wrapping_add(1).wrapping_add(child) & !LEAF } else { child }
}

/// Words of a node whose splits are of this type.
#[must_use]
pub fn node_words(ty: ElementType) -> usize {
    if ty == ElementType::F64 { 5 } else { 4 }
}

define_op! {
    /// Sums (or least or greatest) of the leaves that each row reaches, per group of `group` neighbouring trees, so that
    /// groups can be computed side by side: `[rows, groups, targets]` in `f64`, NaN for a least or greatest of nothing.
    ///
    /// Inputs, splits and weights are of the type of the rows, `f32` or `f64`:
    /// 0. rows `[n, features]`;
    /// 1. nodes, `u32` `[nodes, 4]` (5 for `f64`): the split (one word, or two, low word first), then the feature in
    ///    bits 0 to 23 with mode and flags above, then the left and the right child. A child is a leaf ([`LEAF`]) or the
    ///    distance to a node further behind, less 1: the nodes lie in preorder, so a walk always ends. The split of a
    ///    membership node is the start of its set;
    /// 2. the root of each tree: a node or a leaf, `u32`;
    /// 3. where the entries of each leaf begin, and the end, `u32`; empty when every leaf has one;
    /// 4. the target of each entry, `u32`;
    /// 5. the weight of each entry;
    /// 6. members of the sets, each set ended by NaN.
    ///
    /// <https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html>
    pub struct TreeEnsemble("TreeEnsemble", 0) {
        /// Number of targets or classes.
        targets: i64 = 1,
        /// Trees of a group.
        group: i64 = 64,
        /// Features that the nodes look at: one more than the greatest.
        features: i64 = 0,
        /// How leaves are put together.
        aggregate: Aggregate = Aggregate::Sum,
    }
}

impl TreeEnsemble {
    fn targets(&self) -> usize {
        usize::try_from(self.targets).unwrap_or(0)
    }

    /// Trees of a group.
    #[must_use]
    pub fn trees_of_group(&self) -> usize {
        usize::try_from(self.group).unwrap_or(0).max(1)
    }

    fn check_features(&self, features: usize) -> OpResult<()> {
        op_ensure!(
            i64::try_from(features).is_ok_and(|f| f >= self.features),
            "rows have {features} features, the trees look at {}",
            self.features
        );
        Ok(())
    }

    fn rows<T: Element>(&self, inputs: &[Tensor]) -> OpResult<Vec<f64>> {
        let all: Vec<Tensor> = inputs.iter().map(Tensor::to_contiguous).collect();
        let (x, weights, members) =
            (all[0].as_slice::<T>()?, all[5].as_slice::<T>()?, all[6].as_slice::<T>()?);
        let tables = Tables {
            nodes: all[1].as_slice()?,
            words: node_words(T::TYPE),
            offsets: all[3].as_slice()?,
            members,
        };
        let (roots, targets) = (all[2].as_slice::<u32>()?, all[4].as_slice::<u32>()?);
        let features = inputs[0].shape()[1];
        let (count, groups) = (self.targets(), roots.chunks(self.trees_of_group()));
        let mut out = Vec::new();
        for row in 0..inputs[0].shape()[0] {
            let x = &x[row * features..(row + 1) * features];
            for group in groups.clone() {
                let start = out.len();
                let empty = if self.aggregate.is_sum() { 0.0 } else { f64::NAN };
                out.resize(start + count, empty);
                for root in group {
                    for entry in tables.entries(tables.leaf(x, *root)?) {
                        let (Some(target), Some(weight)) = (targets.get(entry), weights.get(entry))
                        else {
                            return Err(damaged());
                        };
                        let sum = out[start..].get_mut(*target as usize).ok_or_else(damaged)?;
                        *sum = self.aggregate.join(*sum, weight.to_f64());
                    }
                }
            }
        }
        Ok(out)
    }
}

fn damaged() -> crate::op::OpError {
    crate::op::OpError::Invalid("the tables of the trees contradict each other".to_owned())
}

impl Aggregate {
    /// Whether leaves are added up.
    #[must_use]
    pub fn is_sum(self) -> bool {
        matches!(self, Self::Sum | Self::Average)
    }

    /// `so_far` (NaN for nothing) together with `value`.
    #[inline]
    #[must_use]
    pub fn join(self, so_far: f64, value: f64) -> f64 {
        match self {
            Self::Sum | Self::Average => so_far + value,
            Self::Min => so_far.min(value),
            Self::Max => so_far.max(value),
        }
    }
}

struct Tables<'a, T> {
    nodes: &'a [u32],
    words: usize,
    offsets: &'a [u32],
    members: &'a [T],
}

impl<T: Element> Tables<'_, T> {
    /// The leaf that `x` reaches from `root`.
    fn leaf(&self, x: &[T], root: u32) -> OpResult<usize> {
        let mut at = root;
        while at & LEAF == 0 {
            let node = at as usize * self.words;
            let node = self.nodes.get(node..node + self.words).ok_or_else(damaged)?;
            let [head @ .., flags, left, right] = node else { return Err(damaged()) };
            let split = match head {
                [low, high] => f64::from_bits(u64::from(*low) | u64::from(*high) << 32),
                _ => f64::from(f32::from_bits(head[0])),
            };
            let x = x.get(feature_of(*flags)).ok_or_else(damaged)?.to_f64();
            let goes_left = match mode_of(*flags) {
                _ if x.is_nan() => flags & NAN_LEFT != 0,
                MODE_LESS_EQUAL => x <= split,
                MODE_LESS => x < split,
                MODE_EQUAL => x == split,
                _ => {
                    let set = self.members.get(head[0] as usize..).ok_or_else(damaged)?;
                    set.iter().map(|m| m.to_f64()).take_while(|m| !m.is_nan()).any(|m| m == x)
                }
            };
            at = next_node(at, if goes_left { *left } else { *right });
        }
        Ok((at & !LEAF) as usize)
    }

    /// The entries of a leaf.
    fn entries(&self, leaf: usize) -> std::ops::Range<usize> {
        match self.offsets.get(leaf..leaf + 2) {
            Some(range) => range[0] as usize..range[1] as usize,
            None => leaf..leaf + 1,
        }
    }
}

impl OpRules for TreeEnsemble {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(7..=7)?;
        cx.expect_rank(0, 2..=2)?;
        cx.expect_type(0, "f32 or f64", |t| matches!(t, ElementType::F32 | ElementType::F64))?;
        cx.common_type([0, 5, 6])?;
        for index in 1..5 {
            cx.expect_type(index, "u32", |t| t == ElementType::U32)?;
        }
        let words = node_words(cx.element_type(0));
        op_ensure!(
            cx.shape(1).dim(1).admits(words),
            "nodes have shape {}, expected {words} words each",
            cx.shape(1)
        );
        if let Some(features) = cx.shape(0).dim(1).value() {
            self.check_features(features)?;
        }
        let groups = cx.shape(2).dim(0).map(|trees| trees.div_ceil(self.trees_of_group()));
        let dims = [cx.shape(0).dim(0), groups, Dimension::fixed(self.targets())];
        Ok(vec![OutputType::new(ElementType::F64, PartialShape::new(&dims))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        op_ensure!(inputs.len() == 7, "has {} inputs, expected 7", inputs.len());
        op_ensure!(inputs[0].rank() == 2, "rows have shape {}", inputs[0].shape());
        self.check_features(inputs[0].shape()[1])?;
        let values = match inputs[0].element_type() {
            ElementType::F32 => self.rows::<f32>(inputs)?,
            ElementType::F64 => self.rows::<f64>(inputs)?,
            other => return Err(unsupported_type(other)),
        };
        let groups = inputs[2].len().div_ceil(self.trees_of_group());
        Ok(vec![Tensor::from_vec([inputs[0].shape()[0], groups, self.targets()], values)?])
    }
}

choice! {
    /// What becomes of the one score of a classifier of two classes whose trees all vote for the same class.
    pub enum BinaryScores {
        /// Every class has a score of its own.
        No = "no",
        /// It is a probability: the classes get `1 - s` and `s`, and the second wins above a half.
        Probability = "probability",
        /// It is a margin: the classes get `-s` and `s`, and the second wins above 0.
        Margin = "margin",
    }
}

define_op! {
    /// Scores from the partial scores `[rows, groups, targets]` of [`TreeEnsemble`]: `[rows, targets]`, and with
    /// `classify` the number of the winning class of each row.
    /// <https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleClassifier.html>
    pub struct EnsembleScores("EnsembleScores", 0) {
        /// How leaves were put together.
        aggregate: Aggregate = Aggregate::Sum,
        /// Number of trees, for an average.
        trees: i64 = 1,
        /// Added to the targets; none is 0.
        base_values: Vec<f64> = Vec::new(),
        /// What becomes of the scores last.
        post_transform: PostTransform = PostTransform::None,
        /// Whether there is only one score, for two classes.
        binary: BinaryScores = BinaryScores::No,
        /// Whether the winning class is given too.
        classify: bool = false,
        /// Element type of the scores.
        output_type: ElementType = ElementType::F32,
    }
}

impl EnsembleScores {
    fn width(&self, targets: usize) -> usize {
        if self.binary == BinaryScores::No { targets } else { 2 }
    }

    /// Scores before the transform, and the winner.
    fn row(&self, totals: &[f64]) -> (Vec<f64>, usize) {
        let [score, ..] = totals else { return (Vec::new(), 0) };
        let score = *score;
        match self.binary {
            BinaryScores::Probability => (vec![1.0 - score, score], usize::from(score > 0.5)),
            BinaryScores::Margin => (vec![-score, score], usize::from(score > 0.0)),
            BinaryScores::No => {
                let mut best = 0;
                for (i, v) in totals.iter().enumerate() {
                    if *v > totals[best] {
                        best = i;
                    }
                }
                (totals.to_vec(), best)
            }
        }
    }
}

impl OpRules for EnsembleScores {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        cx.expect_rank(0, 3..=3)?;
        cx.expect_type(0, "f64", |t| t == ElementType::F64)?;
        let shape = cx.shape(0);
        let width = shape.dim(2).map(|t| self.width(t));
        let scores = PartialShape::new(&[shape.dim(0), width]);
        let mut types = vec![OutputType::new(self.output_type, scores)];
        if self.classify {
            types.push(OutputType::new(ElementType::I64, PartialShape::new(&[shape.dim(0)])));
        }
        Ok(types)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let partial = inputs[0].to_contiguous();
        op_ensure!(partial.rank() == 3, "partial scores have shape {}", partial.shape());
        let (rows, groups, targets) = (partial.shape()[0], partial.shape()[1], partial.shape()[2]);
        let partial = partial.as_slice::<f64>()?;
        let (mut scores, mut winners) = (Vec::new(), Vec::with_capacity(rows));
        let mut totals = vec![0.0; targets];
        for row in 0..rows {
            totals.fill(if self.aggregate.is_sum() { 0.0 } else { f64::NAN });
            for group in partial[row * groups * targets..][..groups * targets].chunks(targets.max(1)) {
                for (total, value) in totals.iter_mut().zip(group) {
                    *total = self.aggregate.join(*total, *value);
                }
            }
            for (i, total) in totals.iter_mut().enumerate() {
                if self.aggregate == Aggregate::Average {
                    *total /= self.trees.max(1) as f64;
                }
                *total = if total.is_nan() && !self.aggregate.is_sum() { 0.0 } else { *total };
                *total += self.base_values.get(i).copied().unwrap_or(0.0);
            }
            let (mut row, winner) = self.row(&totals);
            if self.binary != BinaryScores::Probability || self.post_transform == PostTransform::Probit {
                transform_scores(self.post_transform, &mut row);
            }
            winners.push(winner as i64);
            scores.extend(row);
        }
        let mut outputs = vec![scores_tensor(self.output_type, &[rows, self.width(targets)], &scores)?];
        if self.classify {
            outputs.push(Tensor::from_i64s(&winners));
        }
        Ok(outputs)
    }
}
