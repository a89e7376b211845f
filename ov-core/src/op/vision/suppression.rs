//! Suppression of boxes that overlap better ones.

use std::{cmp::Ordering, collections::BinaryHeap};

use crate::{
    choice,
    op::{InferContext, OpError, OpResult, OpRules, OutputType, movement::checked_len, present},
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

choice! {
    /// What the four numbers of a box are.
    pub enum BoxEncoding {
        /// Two opposite corners: `y1, x1, y2, x2`.
        Corner = "corner",
        /// `x` and `y` of the centre, width, height.
        Center = "center",
    }
}

define_op! {
    /// The best boxes (input 0, `[n, boxes, 4]`) by score (input 1, `[n, classes, boxes]`) that do not overlap better ones of
    /// their class. Further inputs: most boxes per class (default 0), intersection over union above which a box is
    /// suppressed (default 0), score below or at which a box does not count (default 0), and the softness with which
    /// overlapping boxes lose score instead (default 0: they are dropped). Outputs: image, class and box of each choice,
    /// image, class and score of each, and their number.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/sort/non-max-suppression-9.html>
    pub struct NonMaxSuppression("NonMaxSuppression", 9) {
        /// What the four numbers of a box are.
        box_encoding: BoxEncoding = BoxEncoding::Corner,
        /// Whether choices are sorted by score through all images and classes.
        sort_result_descending: bool = true,
        /// Element type of the index outputs.
        output_type: ElementType = ElementType::I64,
    }
}

/// A box by its corners.
#[derive(Clone, Copy, Debug)]
struct Area {
    low: [f32; 2],
    high: [f32; 2],
}

impl Area {
    fn new(encoding: BoxEncoding, v: &[f32]) -> Self {
        let (a, b) = match encoding {
            BoxEncoding::Corner => ([v[0], v[1]], [v[2], v[3]]),
            BoxEncoding::Center => {
                let half = [v[2] / 2.0, v[3] / 2.0];
                ([v[0] - half[0], v[1] - half[1]], [v[0] + half[0], v[1] + half[1]])
            }
        };
        if encoding == BoxEncoding::Center {
            return Self { low: a, high: b };
        }
        Self { low: [a[0].min(b[0]), a[1].min(b[1])], high: [a[0].max(b[0]), a[1].max(b[1])] }
    }

    fn size(&self) -> f32 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// Intersection over union, in `f32` as everywhere: whether a box passes may hang on the last bit.
    fn overlap(&self, other: &Self) -> f32 {
        let side = |i: usize| self.high[i].min(other.high[i]) - self.low[i].max(other.low[i]);
        let (h, w) = (side(0), side(1));
        let (a, b) = (self.size(), other.size());
        if h <= 0.0 || w <= 0.0 || a <= 0.0 || b <= 0.0 {
            return 0.0;
        }
        let shared = h * w;
        shared / (a + b - shared)
    }
}

/// A box that may be chosen; better ones are greater, earlier ones among equals.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    score: f32,
    index: usize,
    /// Chosen boxes before this one were considered already.
    seen: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.index.cmp(&self.index))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

#[derive(Clone, Copy, Debug)]
struct Limits {
    most: usize,
    overlap: f32,
    score: f32,
    sigma: f32,
}

fn choose(areas: &[Area], scores: &[f32], limits: Limits) -> Vec<Candidate> {
    let counts = |s: f32| s > limits.score;
    let candidates: Vec<Candidate> = scores
        .iter()
        .enumerate()
        .filter(|(_, s)| counts(**s))
        .map(|(index, score)| Candidate { score: *score, index, seen: 0 })
        .collect();
    let mut queue = BinaryHeap::from(candidates);
    let mut chosen: Vec<Candidate> = Vec::new();
    while chosen.len() < limits.most {
        let Some(mut next) = queue.pop() else { break };
        let before = next.score;
        let mut dropped = false;
        for other in chosen[next.seen..].iter().rev() {
            let overlap = areas[next.index].overlap(&areas[other.index]);
            if limits.sigma > 0.0 {
                next.score *= (-0.5 * overlap * overlap / limits.sigma).exp();
            }
            dropped = (limits.sigma <= 0.0 && overlap > limits.overlap) || !counts(next.score);
            if dropped {
                break;
            }
        }
        next.seen = chosen.len();
        if dropped {
            continue;
        }
        if next.score == before {
            chosen.push(next);
        } else {
            queue.push(next);
        }
    }
    chosen
}

fn scalar(inputs: &[Tensor], index: usize, default: f64) -> OpResult<f64> {
    let Some(tensor) = present(inputs, index).filter(|t| !t.is_empty()) else { return Ok(default) };
    tensor
        .element_as_f64(0)
        .filter(|_| tensor.len() == 1)
        .ok_or_else(|| OpError::Invalid(format!("input {index} is {tensor:?}, expected a scalar")))
}

impl OpRules for NonMaxSuppression {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=6)?;
        cx.expect_rank(0, 3..=3)?;
        cx.expect_rank(1, 3..=3)?;
        let (boxes, scores) = (cx.shape(0), cx.shape(1));
        let limit = match cx.value(2).filter(|v| v.len() == 1).map(Tensor::to_i64_vec).transpose()? {
            Some(most) => Dimension::fixed(usize::try_from(most[0]).unwrap_or(0)),
            None if cx.is_present(2) => Dimension::DYNAMIC,
            None => Dimension::fixed(0),
        };
        let per_class = match (boxes.dim(1).max(), limit.max()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let most = per_class.and_then(|p| p.checked_mul(scores.dim(0).max()?)?.checked_mul(scores.dim(1).max()?));
        let found = [Dimension::bounded(0, most), Dimension::fixed(3)];
        Ok(vec![
            OutputType::new(self.output_type, PartialShape::new(&found)),
            OutputType::new(ElementType::F32, PartialShape::new(&found)),
            OutputType::new(self.output_type, [1]),
        ])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (b, s) = (inputs[0].shape(), inputs[1].shape());
        op_ensure!(
            b.rank() == 3 && s.rank() == 3 && b[2] == 4 && b[0] == s[0] && b[1] == s[2],
            "boxes {b} and scores {s}, expected [n, boxes, 4] and [n, classes, boxes]"
        );
        let limits = Limits {
            most: scalar(inputs, 2, 0.0)?.max(0.0) as usize,
            overlap: scalar(inputs, 3, 0.0)? as f32,
            score: scalar(inputs, 4, 0.0)? as f32,
            sigma: scalar(inputs, 5, 0.0)? as f32,
        };
        let floats = |t: &Tensor| -> OpResult<Vec<f32>> { Ok(t.cast(ElementType::F32)?.to_contiguous().as_slice::<f32>()?.to_vec()) };
        let (boxes, scores) = (floats(&inputs[0])?, floats(&inputs[1])?);
        let (classes, count) = (s[1], s[2]);
        let mut found: Vec<(usize, usize, Candidate)> = Vec::new();
        for image in 0..b[0] {
            let own = &boxes[image * count * 4..][..count * 4];
            let areas: Vec<Area> = own.chunks_exact(4).map(|v| Area::new(self.box_encoding, v)).collect();
            for class in 0..classes {
                let own = &scores[(image * classes + class) * count..][..count];
                found.extend(choose(&areas, own, limits).into_iter().map(|c| (image, class, c)));
            }
        }
        if self.sort_result_descending {
            found.sort_by(|a, b| b.2.score.total_cmp(&a.2.score));
        }
        checked_len(&[found.len(), 3])?;
        let indices: Vec<i64> =
            found.iter().flat_map(|(i, c, b)| [*i as i64, *c as i64, b.index as i64]).collect();
        let scores: Vec<f32> = found.iter().flat_map(|(i, c, b)| [*i as f32, *c as f32, b.score]).collect();
        Ok(vec![
            Tensor::from_vec([found.len(), 3], indices)?.cast(self.output_type)?,
            Tensor::from_vec([found.len(), 3], scores)?,
            Tensor::from_i64s(&[found.len() as i64]).cast(self.output_type)?,
        ])
    }
}
