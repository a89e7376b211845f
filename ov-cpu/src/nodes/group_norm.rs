//! Normalization of groups of channels, planar and channels last, and of whole planes.

use std::ops::Range;

use ov_core::op::{
    OpAttributes, OpError, OpResult,
    fused::group_norm::GroupNormLast,
    normalization::{GroupNormalization, Mvn, MvnEpsilon},
    normalize_axes,
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, cost};
use crate::{
    kernels::norm::{
        Affine, GroupNorm, RowNorm, RowStatistics, Share, group_norm_f32, group_norm_shared_f32,
        row_norm_f32,
    },
    simd::Isa,
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[
    KernelEntry {
        name: "group_norm_f32",
        ops: &[GroupNormLast::KIND],
        select: |view| view.expect_f32(&[]).map(|()| Choice::default()),
        bind: bind_last,
    },
    KernelEntry {
        name: "group_norm_f32_planar",
        ops: &[GroupNormalization::KIND],
        select: |view| view.expect_f32(&[]).map(|()| Choice::default()),
        bind: bind_planar,
    },
    KernelEntry { name: "mvn_f32", ops: &[Mvn::KIND], select: select_mvn, bind: bind_mvn },
];

/// Operations per element.
const WORK: f64 = 12.0;

fn bind_last(cx: &BindContext<'_>) -> OpResult<Bound> {
    let op: &GroupNormLast =
        cx.op.downcast().ok_or_else(|| OpError::Unsupported(cx.op.kind().to_string()))?;
    let groups = usize::try_from(op.num_groups).unwrap_or(0);
    Bound::step(LastStep::new(cx, groups, op.epsilon as f32, true)?)
}

/// Channels last.
#[derive(Debug)]
struct LastStep {
    isa: Isa,
    images: usize,
    pixels: usize,
    channels: usize,
    groups: usize,
    eps: f32,
    affine: bool,
    threads: usize,
}

impl LastStep {
    fn new(cx: &BindContext<'_>, groups: usize, eps: f32, affine: bool) -> OpResult<Self> {
        let shape = cx.inputs[0].shape;
        let (Some(&images), Some(&channels)) = (shape.first(), shape.last()) else {
            return Err(OpError::Invalid("expected a batch and a channel axis".to_owned()));
        };
        let pixels = shape[1..shape.rank() - 1].iter().product();
        let (isa, threads) = (cx.isa, cx.threads);
        Ok(Self { isa, images, pixels, channels, groups, eps, affine, threads })
    }

    fn norm<'a>(&self, parameters: Option<[&'a [f32]; 2]>) -> GroupNorm<'a> {
        GroupNorm {
            pixels: self.pixels,
            channels: self.channels,
            groups: self.groups,
            eps: self.eps,
            scale: parameters.map(|[scale, _]| scale),
            bias: parameters.map(|[_, bias]| bias),
        }
    }
}

impl Step for LastStep {
    fn items(&self) -> usize {
        if self.waits() { self.threads } else { self.norm(None).items(self.images) }
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.images * self.pixels * self.channels, WORK)
    }

    /// Few groups do not keep all threads busy, so each takes a part of the pixels.
    fn waits(&self) -> bool {
        self.threads > 1
            && self.norm(None).items(self.images) < 2 * self.threads
            && self.pixels >= 2 * self.threads
    }

    fn scratch_len(&self) -> usize {
        self.norm(None).scratch_len().max(2 * self.channels) * 4
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        let norm = self.norm(self.affine.then(|| [io.input(1), io.input(2)]));
        let (x, out) = (io.input(0), io.output(0));
        let scratch = bytemuck::cast_slice_mut(scratch);
        if self.waits() {
            let alone = range.len() == self.threads;
            let (part, parts) = if alone { (0, 1) } else { (range.start, self.threads) };
            let share = Share { part, parts, wait: &|| io.wait() };
            group_norm_shared_f32(self.isa, &norm, x, scratch, &out, &share);
        } else {
            group_norm_f32(self.isa, &norm, x, scratch, &out, range);
        }
        Ok(())
    }
}

fn bind_planar(cx: &BindContext<'_>) -> OpResult<Bound> {
    let op: &GroupNormalization =
        cx.op.downcast().ok_or_else(|| OpError::Unsupported(cx.op.kind().to_string()))?;
    let shape = cx.inputs[0].shape;
    let groups = usize::try_from(op.num_groups).ok().filter(|g| *g > 0);
    let (Some(groups), true) = (groups, shape.rank() >= 2) else {
        return Err(OpError::Invalid(format!("{} groups of {shape}", op.num_groups)));
    };
    let rows = shape[0] * groups;
    Bound::step(RowsStep {
        isa: cx.isa,
        rows,
        n: shape.elements().checked_div(rows).unwrap_or(0),
        eps: op.epsilon as f32,
        statistics: RowStatistics::MeanVariance,
        per_row: Some(shape[1] / groups),
    })
}

/// Rows of neighbouring elements.
#[derive(Debug)]
struct RowsStep {
    isa: Isa,
    rows: usize,
    n: usize,
    eps: f32,
    statistics: RowStatistics,
    /// Channels of a row, where inputs 1 and 2 hold a factor and an addend for each.
    per_row: Option<usize>,
}

impl Step for RowsStep {
    fn items(&self) -> usize {
        self.rows
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.rows * self.n, WORK)
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let affine = self.per_row.map_or(Affine::None, |per_row| Affine::Segments {
            scale: io.input(1),
            bias: Some(io.input(2)),
            per_row,
        });
        let (n, eps, statistics) = (self.n, self.eps, self.statistics);
        let norm = RowNorm { n, eps, statistics, affine, residual: None };
        row_norm_f32(self.isa, &norm, io.input(0), None, &io.output(0), range);
        Ok(())
    }
}

/// What the axes of an [`Mvn`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axes {
    /// The last ones, from this one on.
    From(usize),
    /// All but the first and the last: planes, channels last.
    Middle,
}

fn axes(axes: &[usize], rank: usize) -> Option<Axes> {
    let first = *axes.first()?;
    if axes.iter().copied().eq(first..rank) {
        return Some(Axes::From(first));
    }
    axes.iter().copied().eq(1..rank - 1).then_some(Axes::Middle)
}

fn select_mvn(view: &NodeView<'_>) -> Result<Choice, Reject> {
    view.expect_f32(&[1])?;
    let rank = view.rank(0)?;
    let list = view.constant(1)?.to_i64_vec().map_err(|e| e.to_string())?;
    let list = normalize_axes(&list, rank).map_err(|e| e.to_string())?;
    let op: &Mvn = view.op.downcast().ok_or("takes MVN")?;
    let plain = op.normalize_variance && op.eps_mode == MvnEpsilon::InsideSqrt;
    match axes(&list, rank) {
        Some(Axes::From(_)) => Ok(Choice::default()),
        Some(Axes::Middle) if plain => Ok(Choice::default()),
        _ => Err("takes the last axes, or those of planes, channels last".into()),
    }
}

fn bind_mvn(cx: &BindContext<'_>) -> OpResult<Bound> {
    let op: &Mvn =
        cx.op.downcast().ok_or_else(|| OpError::Unsupported(cx.op.kind().to_string()))?;
    let shape = cx.inputs[0].shape;
    let list =
        cx.inputs[1].value.ok_or_else(|| OpError::Invalid("the axes are not known".to_owned()))?;
    let list = normalize_axes(&list.to_i64_vec()?, shape.rank())?;
    match axes(&list, shape.rank()) {
        Some(Axes::From(first)) => Bound::step(RowsStep {
            isa: cx.isa,
            rows: shape[..first].iter().product(),
            n: shape[first..].iter().product(),
            eps: op.eps as f32,
            statistics: match (op.normalize_variance, op.eps_mode) {
                (false, _) => RowStatistics::Mean,
                (true, MvnEpsilon::InsideSqrt) => RowStatistics::MeanVariance,
                (true, MvnEpsilon::OutsideSqrt) => RowStatistics::MeanVarianceOutside,
            },
            per_row: None,
        }),
        Some(Axes::Middle) => {
            let channels = shape[shape.rank() - 1];
            Bound::step(LastStep::new(cx, channels, op.eps as f32, false)?)
        }
        None => Err(OpError::Unsupported(format!("MVN along {list:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{Model, Tensor};

    use super::*;
    use crate::nodes::testing::{check, noise, parameter};

    #[test]
    fn groups_match_the_reference() {
        let shapes: &[&[usize]] =
            &[&[1, 6, 5, 7], &[2, 12, 9], &[1, 24, 1], &[3, 4], &[1, 130, 3, 11], &[0, 6, 5]];
        for shape in shapes {
            let channels = shape[1];
            for groups in [1, 2, channels] {
                let op = GroupNormalization { num_groups: groups as i64, epsilon: 1e-3 };
                let last = GroupNormLast { num_groups: groups as i64, epsilon: 1e-3 };
                let mut turned = shape.to_vec();
                turned.remove(1);
                turned.push(channels);
                let what = format!("{shape:?} in {groups} groups");
                let mut m = Model::new("planar");
                let x = parameter(&mut m, "x", shape);
                let (scale, bias) = (noise(&[channels], 1), noise(&[channels], 2));
                let scale = m.add_constant(scale, "scale");
                let bias = m.add_constant(bias, "bias");
                let y = m.add(op, &[x, scale, bias], "y").expect("valid");
                m.add_output("y", y);
                check(&what, &m, &[noise(shape, 3)], "group_norm_f32_planar", 2e-5);
                let mut m = Model::new("last");
                let x = parameter(&mut m, "x", &turned);
                let scale = parameter(&mut m, "scale", &[channels]);
                let bias = parameter(&mut m, "bias", &[channels]);
                let y = m.add(last, &[x, scale, bias], "y").expect("valid");
                m.add_output("y", y);
                let given = [noise(&turned, 3), noise(&[channels], 1), noise(&[channels], 2)];
                check(&what, &m, &given, "group_norm_f32", 2e-5);
            }
        }
    }

    #[test]
    fn planes_and_rows_match_the_reference() {
        let ops = [
            Mvn::default(),
            Mvn { eps_mode: MvnEpsilon::OutsideSqrt, eps: 1e-3, ..Mvn::default() },
            Mvn { normalize_variance: false, ..Mvn::default() },
        ];
        for (i, op) in ops.into_iter().enumerate() {
            for axes in [&[3i64][..], &[1, 2, 3], &[-2, -1], &[1, 2]] {
                if axes == [1, 2] && i > 0 {
                    continue;
                }
                let mut m = Model::new("mvn");
                let x = parameter(&mut m, "x", &[2, 5, 7, 19]);
                let list = m.add_constant(Tensor::from_i64s(axes), "axes");
                let y = m.add(op.clone(), &[x, list], "y").expect("valid");
                m.add_output("y", y);
                check(
                    &format!("{op:?} {axes:?}"),
                    &m,
                    &[noise(&[2, 5, 7, 19], 1)],
                    "mvn_f32",
                    2e-5,
                );
            }
        }
    }
}
