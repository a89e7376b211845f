//! Operators along axes: reductions, softmax, normalisation.

use std::ops::Range;

use ov_core::{
    Shape,
    op::{
        Op, OpAttributes, OpError, OpKind, OpResult,
        normalization::{LayerNormalization, RmsNorm},
        normalize_axes, normalize_axis,
        reduction::{ReduceL1, ReduceL2, ReduceMax, ReduceMean, ReduceMin, ReduceProd, ReduceSum},
        softmax::{LogSoftmax, SoftMax, SoftMax1},
    },
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, axis_of, cost};
use crate::{
    kernels::{
        norm::{Affine, RowNorm, RowStatistics, row_norm_f32},
        reduce::{ReduceOp, ReduceShape, reduce_f32},
        softmax::{SoftmaxKind, softmax_f32},
    },
    simd::Isa,
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[
    KernelEntry { name: "reduce_f32", ops: REDUCTIONS, select: select_reduce, bind: bind_reduce },
    KernelEntry {
        name: "softmax_f32",
        ops: &[SoftMax::KIND, SoftMax1::KIND, LogSoftmax::KIND],
        select: select_softmax,
        bind: bind_softmax,
    },
    KernelEntry {
        name: "row_norm_f32",
        ops: &[LayerNormalization::KIND, RmsNorm::KIND],
        select: select_norm,
        bind: bind_norm,
    },
];

const REDUCTIONS: &[OpKind] = &[
    ReduceSum::KIND,
    ReduceMean::KIND,
    ReduceMax::KIND,
    ReduceMin::KIND,
    ReduceProd::KIND,
    ReduceL1::KIND,
    ReduceL2::KIND,
];

fn reduce_op(op: &dyn Op) -> Option<ReduceOp> {
    [
        (ReduceSum::KIND, ReduceOp::Sum),
        (ReduceMean::KIND, ReduceOp::Mean),
        (ReduceMax::KIND, ReduceOp::Max),
        (ReduceMin::KIND, ReduceOp::Min),
        (ReduceProd::KIND, ReduceOp::Prod),
        (ReduceL1::KIND, ReduceOp::L1),
        (ReduceL2::KIND, ReduceOp::L2),
    ]
    .into_iter()
    .find(|(kind, _)| *kind == op.kind())
    .map(|(_, op)| op)
}

/// A shape around neighbouring axes.
fn around(shape: &Shape, axes: Range<usize>) -> ReduceShape {
    let product = |r: &[usize]| r.iter().product();
    ReduceShape {
        outer: product(&shape[..axes.start]),
        axis: product(&shape[axes.clone()]),
        inner: product(&shape[axes.end..]),
    }
}

fn select_reduce(view: &NodeView<'_>) -> Result<Choice, Reject> {
    view.expect_f32(&[1])?;
    let rank = view.rank(0)?;
    let axes = view.constant(1)?.to_i64_vec().map_err(|e| e.to_string())?;
    let axes = normalize_axes(&axes, rank).map_err(|e| e.to_string())?;
    if axes.windows(2).any(|w| w[1] != w[0] + 1) {
        return Err("takes neighbouring axes".into());
    }
    Ok(Choice::default())
}

fn bind_reduce(cx: &BindContext<'_>) -> OpResult<Bound> {
    let shape = cx.inputs[0].shape;
    let axes =
        cx.inputs[1].value.ok_or_else(|| OpError::Invalid("the axes are not known".to_owned()))?;
    let axes = normalize_axes(&axes.to_i64_vec()?, shape.rank())?;
    let (Some(first), Some(last)) = (axes.first(), axes.last()) else { return Ok(Bound::Alias(0)) };
    let op = reduce_op(cx.op).ok_or_else(|| OpError::Unsupported(cx.op.kind().to_string()))?;
    Bound::step(ReduceStep { isa: cx.isa, op, shape: around(shape, *first..last + 1) })
}

#[derive(Debug)]
struct ReduceStep {
    isa: Isa,
    op: ReduceOp,
    shape: ReduceShape,
}

impl Step for ReduceStep {
    fn items(&self) -> usize {
        self.shape.items()
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.shape.outer * self.shape.axis * self.shape.inner, 2.0)
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        reduce_f32(self.isa, self.op, &self.shape, io.input(0), &io.output(0), range);
        Ok(())
    }
}

fn select_softmax(view: &NodeView<'_>) -> Result<Choice, Reject> {
    view.expect_f32(&[])?;
    Ok(Choice::default())
}

fn bind_softmax(cx: &BindContext<'_>) -> OpResult<Bound> {
    let shape = cx.inputs[0].shape;
    let axis = normalize_axis(axis_of(cx.op)?, shape.rank())?;
    let kind =
        if cx.op.is::<LogSoftmax>() { SoftmaxKind::LogSoftmax } else { SoftmaxKind::Softmax };
    Bound::step(SoftmaxStep { isa: cx.isa, kind, shape: around(shape, axis..axis + 1) })
}

#[derive(Debug)]
struct SoftmaxStep {
    isa: Isa,
    kind: SoftmaxKind,
    shape: ReduceShape,
}

impl Step for SoftmaxStep {
    fn items(&self) -> usize {
        self.shape.items()
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.shape.outer * self.shape.axis * self.shape.inner, 60.0)
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        softmax_f32(self.isa, self.kind, &self.shape, io.input(0), &io.output(0), range);
        Ok(())
    }
}

fn select_norm(view: &NodeView<'_>) -> Result<Choice, Reject> {
    view.expect_f32(&[])?;
    let rank = view.rank(0)?;
    let axis = axis_of(view.op).and_then(|a| normalize_axis(a, rank)).map_err(|e| e.to_string())?;
    if view.outputs.len() > 1 {
        return Err("gives no statistics".into());
    }
    let normalized = view.inputs[0].shape.dims().map(|d| &d[axis..]).unwrap_or_default();
    let n = normalized.iter().try_fold(1usize, |n, d| n.checked_mul(d.value()?));
    let n = n.ok_or("takes normalized axes of known extent")?;
    for (i, input) in view.inputs.iter().enumerate().skip(1) {
        let constant = input.constant;
        if constant.is_some_and(ov_core::Tensor::is_absent) {
            continue;
        }
        if constant.is_none_or(|t| t.len() != n || t.rank() > rank - axis) {
            return Err(format!("takes a constant of {n} values as input {i}").into());
        }
    }
    Ok(Choice::default())
}

fn bind_norm(cx: &BindContext<'_>) -> OpResult<Bound> {
    let shape = cx.inputs[0].shape;
    let axis = normalize_axis(axis_of(cx.op)?, shape.rank())?;
    let (rows, n) = (shape[..axis].iter().product(), shape[axis..].iter().product());
    let (statistics, eps) =
        match (cx.op.downcast::<LayerNormalization>(), cx.op.downcast::<RmsNorm>()) {
            (Some(op), _) => (RowStatistics::MeanVariance, op.epsilon),
            (_, Some(op)) => (RowStatistics::Rms, op.epsilon),
            _ => return Err(OpError::Unsupported(cx.op.kind().to_string())),
        };
    let given = |i: usize| {
        cx.inputs.get(i).is_some_and(|b| !b.value.is_some_and(ov_core::Tensor::is_absent))
    };
    Bound::step(NormStep {
        isa: cx.isa,
        rows,
        n,
        eps: eps as f32,
        statistics,
        scale: given(1),
        bias: given(2),
    })
}

#[derive(Debug)]
struct NormStep {
    isa: Isa,
    rows: usize,
    n: usize,
    eps: f32,
    statistics: RowStatistics,
    scale: bool,
    bias: bool,
}

impl Step for NormStep {
    fn items(&self) -> usize {
        self.rows
    }

    fn cost_ns(&self) -> f64 {
        cost::element_wise(self.rows * self.n, 12.0)
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let bias = self.bias.then(|| io.input::<f32>(2));
        let affine =
            if self.scale { Affine::Columns { scale: io.input(1), bias } } else { Affine::None };
        let norm = RowNorm {
            n: self.n,
            eps: self.eps,
            statistics: self.statistics,
            affine,
            residual: None,
        };
        row_norm_f32(self.isa, &norm, io.input(0), None, &io.output(0), range);
        Ok(())
    }
}
