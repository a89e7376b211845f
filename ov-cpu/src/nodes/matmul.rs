//! Matrix products with constant weights.
#![allow(unsafe_code, reason = "calls kernels on disjoint parts of planned memory")]

use std::ops::Range;

use ov_core::op::{OpAttributes, OpError, OpResult};

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
pub(super) const KERNELS: &[KernelEntry] = &[
    KernelEntry {
        name: "fully_connected_bf16",
        ops: &[FullyConnected::KIND],
        select: select_bf16,
        bind: bind_bf16,
    },
    KernelEntry {
        name: "fully_connected_f32",
        ops: &[FullyConnected::KIND],
        select: select_f32,
        bind: bind_f32,
    },
];

/// Weights smaller than this in either direction gain nothing from bf16.
const LEAST_BF16_EXTENT: usize = 32;
/// Bytes of rows that are converted at a time, so that they stay in L2.
const PAIR_BYTES: usize = 384 * 1024;

fn op(op: &dyn ov_core::op::Op) -> &FullyConnected {
    op.downcast().expect("the table lists these kernels for this operator only")
}

/// `k` and `n` of the weights.
fn extents(op: &FullyConnected, w: &[usize]) -> (usize, usize) {
    if op.transpose_b { (w[1], w[0]) } else { (w[0], w[1]) }
}

fn layout_of(isa: Isa, k: usize, n: usize, bf16: bool) -> PackedLayout {
    if bf16 { gemm::pairs_layout(isa, k, n) } else { PackedLayout::new(isa, k, n) }
}

fn select_f32(view: &NodeView<'_>) -> Result<Choice, Reject> {
    select(view, false)
}

fn select_bf16(view: &NodeView<'_>) -> Result<Choice, Reject> {
    if !view.bf16 || !view.isa.has_bf16() {
        return Err("bf16 is not allowed or not there".into());
    }
    select(view, true)
}

fn select(view: &NodeView<'_>, bf16: bool) -> Result<Choice, Reject> {
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
    if bf16 && k.min(n) < LEAST_BF16_EXTENT {
        return Err("takes larger matrices".into());
    }
    let layout = layout_of(view.isa, k, n, bf16);
    let (isa, transposed) = (view.isa, op.transpose_b);
    let pack = Pack::f32s(layout.len(), move |out| {
        let data = super::convolution::stored(&w);
        let b = if transposed { BView::transposed(data, k) } else { BView::row_major(data, n) };
        if bf16 {
            gemm::pack_pairs(layout, k, b, out);
        } else {
            gemm::pack(isa, layout, b, out);
        }
    });
    Ok(Choice { params: Vec::new(), packed: vec![pack], consumed: vec![1] })
}

fn bind_f32(cx: &BindContext<'_>) -> OpResult<Bound> {
    bind(cx, false)
}

fn bind_bf16(cx: &BindContext<'_>) -> OpResult<Bound> {
    bind(cx, true)
}

fn bind(cx: &BindContext<'_>, bf16: bool) -> OpResult<Bound> {
    let op = op(cx.op);
    let (k, n) = extents(op, cx.inputs[1].shape);
    let m = cx.outputs[0].shape.elements().checked_div(n).unwrap_or(0);
    if bf16 && !cx.isa.has_bf16() {
        return Err(OpError::Unsupported("products of bf16 on this processor".to_owned()));
    }
    let layout = layout_of(cx.isa, k, n, bf16);
    let Cost { flops, bytes } = Cost::of_gemm(m, layout);
    let cost = cost::ns(flops, bytes);
    // Several parts per thread, so that a thread that lost its core leaves little behind; fewer where each part
    // converts its rows.
    let per_thread = match (cost > 100_000.0, bf16) {
        (false, _) => 1,
        (true, true) => 2,
        (true, false) => 4,
    };
    Bound::step(ProductStep {
        isa: cx.isa,
        m,
        k,
        bf16,
        layout,
        partition: Partition::new(m, layout, cx.threads * per_thread),
        weights: cx.packed_f32(0)?,
        extras: Extras::of(cx, op.activation()?, op.residual_after)?,
        cost,
    })
}

#[derive(Debug)]
struct ProductStep {
    isa: Isa,
    m: usize,
    k: usize,
    /// Whether the weights are pairs of bf16, and rows are converted to such.
    bf16: bool,
    layout: PackedLayout,
    partition: Partition,
    weights: Weights,
    extras: Extras,
    cost: f64,
}

impl ProductStep {
    /// Rows that are converted at a time.
    fn pair_rows(&self) -> usize {
        (PAIR_BYTES / 4 / self.layout.k().max(1)).max(96).min(self.m)
    }
}

impl Step for ProductStep {
    fn items(&self) -> usize {
        self.partition.parts()
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn scratch_len(&self) -> usize {
        if self.bf16 { 4 * self.pair_rows() * self.layout.k() } else { 0 }
    }

    fn in_place(&self) -> Option<usize> {
        self.extras.in_place()
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        let (k, n) = (self.k, self.layout.n());
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
            bf16_pairs: self.bf16,
            epilogue: self.extras.epilogue(io, n),
        };
        let pairs: &mut [f32] = if self.bf16 { bytemuck::cast_slice_mut(scratch) } else { &mut [] };
        // Rows whose pairs are in scratch.
        let mut held = 0..0;
        for part in range {
            let (rows, panels) = self.partition.part(part);
            if !self.bf16 {
                // SAFETY: the lengths were checked above and the residual's when the step was bound; parts are disjoint.
                unsafe { gemm::run(self.isa, &product, rows, panels) };
                continue;
            }
            let width = self.layout.k();
            for first in rows.clone().step_by(self.pair_rows().max(1)) {
                let block = first..rows.end.min(first + self.pair_rows());
                if block != held {
                    let from = x[first * k..].as_ptr();
                    // SAFETY: the rows of x are below m.
                    unsafe { gemm::pair_rows(self.isa, from, k, block.len(), k, pairs) };
                    held = block.clone();
                }
                // The product counts rows from the start of the result, the pairs from the block's.
                let a = pairs.as_ptr().wrapping_sub(first * width);
                let product = Gemm { a, a_stride: width, ..product };
                // SAFETY: as above; the block's rows lie in scratch.
                unsafe { gemm::run(self.isa, &product, block, panels.clone()) };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{Model, Tensor, op::matmul::MatMul};

    use crate::nodes::testing::{check, check_bf16, noise, parameter};

    /// `gelu(x w + bias) + x'` of these extents; values of few digits, so that rounding to bf16 changes nothing.
    fn compare(m: usize, k: usize, n: usize, transpose_b: bool) {
        use ov_core::op::{
            activation::{Abs, Relu},
            arithmetic::Add,
        };
        let coarse = |t: Tensor| {
            let values = t.as_slice::<f32>().expect("f32");
            let values = values.iter().map(|v| (v * 16.0).round() / 16.0).collect::<Vec<f32>>();
            Tensor::from_vec(t.shape().clone(), values).expect("fits")
        };
        let mut model = Model::new("product");
        let x = parameter(&mut model, "x", &[1, m, k]);
        let r = parameter(&mut model, "r", &[1, m, n]);
        let shape = if transpose_b { [n, k] } else { [k, n] };
        let w = model.add_constant(coarse(noise(&shape, 3)), "w");
        let bias = model.add_constant(noise(&[n], 4), "bias");
        let product = MatMul { transpose_a: false, transpose_b };
        let y = model.add(product, &[x, w], "product").expect("valid");
        let y = model.add(Add::default(), &[y, bias], "bias").expect("valid");
        let y = model.add(Relu::default(), &[y], "relu").expect("valid");
        // The product writes over this one's memory.
        let r = model.add(Abs::default(), &[r], "abs").expect("valid");
        let y = model.add(Add::default(), &[y, r], "residual").expect("valid");
        model.add_output("y", y);
        let inputs = [coarse(noise(&[1, m, k], 1)), noise(&[1, m, n], 2)];
        let what = format!("{m} {k} {n} {transpose_b}");
        check(&what, &model, &inputs, "fully_connected_f32", 3e-5);
        check_bf16(&what, &model, &inputs, "fully_connected_bf16", 3e-5);
    }

    #[test]
    fn products_give_what_the_reference_gives() {
        for (m, k, n) in [(1, 32, 32), (3, 33, 50), (13, 70, 96), (130, 65, 129), (1, 400, 320)] {
            for transpose_b in [false, true] {
                compare(m, k, n, transpose_b);
            }
        }
    }

    #[test]
    fn rows_beyond_one_block_are_converted_in_turn() {
        compare(230, 1200, 64, false);
    }
}
