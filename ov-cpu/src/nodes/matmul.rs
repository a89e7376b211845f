//! Matrix products with constant weights.
#![allow(unsafe_code, reason = "calls kernels on disjoint parts of planned memory")]

use std::ops::Range;

use ov_core::op::{OpAttributes, OpResult};

use super::{
    BindContext, Bound, Choice, Io, KernelEntry, NodeView, Pack, Reject, Step, Weights,
    convolution::Extras, cost,
};
use crate::{
    gemm::{self, BView, Cost, Gemm, PackedLayout, Partition},
    ops::matmul::FullyConnected,
    simd::Isa,
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] =
    &[KernelEntry { name: "fully_connected_f32", ops: &[FullyConnected::KIND], select, bind }];

fn op(op: &dyn ov_core::op::Op) -> &FullyConnected {
    op.downcast().expect("the table lists these kernels for this operator only")
}

/// `k` and `n` of the weights.
fn extents(op: &FullyConnected, w: &[usize]) -> (usize, usize) {
    if op.transpose_b { (w[1], w[0]) } else { (w[0], w[1]) }
}

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    view.expect_f32(&[2, 3])?;
    let op = op(view.op);
    let w = view.constant(1)?.to_contiguous();
    if w.rank() != 2 || view.rank(0)? == 0 {
        return Err("takes a matrix of weights".into());
    }
    if view.inputs.get(2).is_some_and(|b| b.constant.is_none()) {
        return Err("takes a constant bias".into());
    }
    let (k, n) = extents(op, w.shape());
    let layout = PackedLayout::new(view.isa, k, n);
    let transposed = op.transpose_b;
    let pack = Pack::f32s(layout.len(), move |out| {
        let data = w.as_slice().expect("checked to be f32");
        let b = if transposed { BView::transposed(data, k) } else { BView::row_major(data, n) };
        gemm::pack(layout, b, out);
    });
    Ok(Choice { params: Vec::new(), packed: vec![pack], consumed: vec![1] })
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    let op = op(cx.op);
    let (k, n) = extents(op, cx.inputs[1].shape);
    let m = cx.outputs[0].shape.elements().checked_div(n).unwrap_or(0);
    let layout = PackedLayout::new(cx.isa, k, n);
    let Cost { flops, bytes } = Cost::of_gemm(m, layout);
    let cost = cost::ns(flops, bytes);
    // Several parts per thread, so that a thread that lost its core leaves little behind.
    let parts = cx.threads * if cost > 100_000.0 { 4 } else { 1 };
    Bound::step(ProductStep {
        isa: cx.isa,
        m,
        layout,
        partition: Partition::new(m, layout, parts),
        weights: cx.packed_f32(0)?,
        extras: Extras::of(cx, op.activation()?, op.residual_after)?,
        cost,
    })
}

#[derive(Debug)]
struct ProductStep {
    isa: Isa,
    m: usize,
    layout: PackedLayout,
    partition: Partition,
    weights: Weights,
    extras: Extras,
    cost: f64,
}

impl Step for ProductStep {
    fn items(&self) -> usize {
        self.partition.parts()
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let (k, n) = (self.layout.k(), self.layout.n());
        let (x, out) = (io.input::<f32>(0), io.output::<f32>(0));
        assert!(x.len() >= self.m * k, "the input is shorter than its shape");
        let product = Gemm {
            m: self.m,
            a: x.as_ptr(),
            a_stride: k,
            layout: self.layout,
            b: self.weights.get(),
            c: out.at(0, self.m * n),
            c_stride: n,
            epilogue: self.extras.epilogue(io, n),
        };
        for part in range {
            let (rows, panels) = self.partition.part(part);
            // SAFETY: the lengths were checked above and the residual's when the step was bound; parts are disjoint.
            unsafe { gemm::run(self.isa, &product, rows, panels) };
        }
        Ok(())
    }
}
