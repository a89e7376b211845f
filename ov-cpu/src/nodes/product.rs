//! Matrix products of two values that are computed at run time.
#![allow(unsafe_code, reason = "calls kernels on disjoint parts of planned memory")]

use std::ops::Range;

use ov_core::op::{
    OpAttributes, OpError, OpResult,
    matmul::{MatMul, matmul_layout},
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, cost};
use crate::{
    gemm::{self, BView, Cost, Epilogue, Gemm, PackedLayout, Partition},
    kernels::transpose::tile,
    simd::Isa,
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] =
    &[KernelEntry { name: "matmul_f32", ops: &[MatMul::KIND], select, bind }];

/// Rows of a transposed left operand that are turned at a time.
const TURNED_ROWS: usize = 96;

fn op(op: &dyn ov_core::op::Op) -> &MatMul {
    op.downcast().expect("the table lists these kernels for this operator only")
}

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    view.expect_f32(&[])?;
    Ok(Choice::default())
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    let op = op(cx.op);
    let (a, b) = (cx.inputs[0].shape, cx.inputs[1].shape);
    let transpose_a = op.transpose_a && a.rank() > 1;
    let transpose_b = op.transpose_b && b.rank() > 1;
    let product = matmul_layout(a, b, transpose_a, transpose_b)?;
    let (mut m, k, n, mut batches) = (product.m, product.k, product.n, product.batches);
    if u32::try_from(k.max(n)).is_err() {
        return Err(OpError::Unsupported(format!("a product of {a} and {b}")));
    }
    // Left matrices that lie one after the other and meet the same right matrix are one taller matrix.
    let shares_right = batches.iter().enumerate().all(|(i, pair)| *pair == (i, 0));
    if !transpose_a && batches.len() > 1 && shares_right {
        m *= batches.len();
        batches.truncate(1);
    }
    let layout = PackedLayout::new(cx.isa, k, n);
    let Cost { flops, bytes } = Cost::of_gemm(m, layout);
    let count = batches.len() as f64;
    let cost = cost::ns(count * flops, 2.0 * count * bytes);
    let wanted = cx.threads * if cost > 100_000.0 { 4 } else { 1 };
    Bound::step(MatMulStep {
        isa: cx.isa,
        m,
        partition: Partition::new(m, layout, wanted.div_ceil(batches.len().max(1))),
        batches,
        transpose_a,
        transpose_b,
        layout,
        cost,
    })
}

#[derive(Debug)]
struct MatMulStep {
    isa: Isa,
    m: usize,
    layout: PackedLayout,
    /// How each matrix is cut into items.
    partition: Partition,
    /// Index of the left and the right matrix of each result matrix.
    batches: Vec<(usize, usize)>,
    transpose_a: bool,
    transpose_b: bool,
    cost: f64,
}

impl MatMulStep {
    fn panel_len(&self) -> usize {
        gemm::unpacked_scratch_len(self.layout).next_multiple_of(16)
    }
}

impl Step for MatMulStep {
    fn items(&self) -> usize {
        self.batches.len() * self.partition.parts()
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn scratch_len(&self) -> usize {
        let turned = if self.transpose_a { self.m.min(TURNED_ROWS) * self.layout.k() } else { 0 };
        4 * (self.panel_len() + turned)
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        let (m, k, n) = (self.m, self.layout.k(), self.layout.n());
        let (a, b, out) = (io.input::<f32>(0), io.input::<f32>(1), io.output::<f32>(0));
        let scratch: &mut [f32] = bytemuck::cast_slice_mut(scratch);
        let (panel, turned) = scratch.split_at_mut(self.panel_len());
        for item in range {
            let batch = item / self.partition.parts();
            let (rows, panels) = self.partition.part(item % self.partition.parts());
            let (i, j) = self.batches[batch];
            let (a, b) = (&a[i * m * k..][..m * k], &b[j * k * n..][..k * n]);
            let view =
                if self.transpose_b { BView::transposed(b, k) } else { BView::row_major(b, n) };
            let product = Gemm {
                m,
                a: a.as_ptr(),
                a_stride: k,
                layout: self.layout,
                b: &[],
                c: out.at(batch * m * n, m * n),
                c_stride: n,
                bf16_pairs: false,
                epilogue: Epilogue::default(),
            };
            if !self.transpose_a {
                // SAFETY: both matrices and the result were sliced in full; items write disjoint parts.
                unsafe { gemm::run_unpacked(self.isa, &product, view, panel, rows, panels) };
                continue;
            }
            for first in rows.clone().step_by(TURNED_ROWS) {
                let count = TURNED_ROWS.min(rows.end - first);
                turn(self.isa, &a[first..], m, k, count, turned);
                let block = Gemm {
                    m: count,
                    a: turned.as_ptr(),
                    c: product.c.wrapping_add(first * n),
                    ..product
                };
                // SAFETY: as above; the turned rows lie in scratch.
                unsafe {
                    gemm::run_unpacked(self.isa, &block, view, panel, 0..count, panels.clone());
                }
            }
        }
        Ok(())
    }
}

/// The first `count` columns of the `k` rows of `a`, `stride` apart, as rows of `out`.
fn turn(isa: Isa, a: &[f32], stride: usize, k: usize, count: usize, out: &mut [f32]) {
    if k == 0 {
        return;
    }
    assert!(a.len() >= (k - 1) * stride + count && out.len() >= count * k, "too short to turn");
    for first in (0..count).step_by(16) {
        let (x, y) = (a[first..].as_ptr().cast(), out[first * k..].as_mut_ptr().cast());
        let rows = 16.min(count - first);
        // SAFETY: the lengths were checked above.
        unsafe { tile::rows(isa, 4, x, (stride * 4) as isize, y, (k * 4) as isize, rows, k) };
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{Model, op::matmul::MatMul};

    use crate::nodes::testing::{check, noise, parameter};

    fn compare(a: &[usize], b: &[usize], transpose_a: bool, transpose_b: bool) {
        let swapped = |shape: &[usize], swap: bool| {
            let mut s = shape.to_vec();
            let r = s.len();
            if swap && r > 1 {
                s.swap(r - 1, r - 2);
            }
            s
        };
        let (a, b) = (swapped(a, transpose_a), swapped(b, transpose_b));
        let mut m = Model::new("product");
        let x = parameter(&mut m, "a", &a);
        let y = parameter(&mut m, "b", &b);
        let z = m.add(MatMul { transpose_a, transpose_b }, &[x, y], "product").expect("valid");
        m.add_output("y", z);
        let what = format!("{a:?} x {b:?}, {transpose_a} {transpose_b}");
        check(&what, &m, &[noise(&a, 1), noise(&b, 2)], "matmul_f32", 3e-5);
    }

    #[test]
    fn products_give_what_the_reference_gives() {
        let cases: &[(&[usize], &[usize])] = &[
            (&[1, 1], &[1, 1]),
            (&[1, 64], &[64, 129]),
            (&[5, 7], &[7, 3]),
            (&[17, 33], &[33, 50]),
            (&[130, 20], &[20, 48]),
            (&[2, 3, 14, 9], &[2, 3, 9, 31]),
            (&[3, 4, 5], &[5, 37]),
            (&[2, 1, 13, 8], &[3, 8, 5]),
            (&[4, 1], &[3, 1, 1]),
            (&[7], &[7]),
            (&[7], &[2, 7, 3]),
            (&[2, 4, 7], &[7]),
            (&[2, 0], &[0, 3]),
            (&[0, 2], &[2, 3]),
            (&[0, 3, 2], &[0, 2, 3]),
            (&[3, 2], &[2, 0]),
        ];
        for (a, b) in cases {
            for (transpose_a, transpose_b) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                compare(a, b, transpose_a, transpose_b);
            }
        }
    }

    #[test]
    fn large_products_are_shared_by_threads() {
        compare(&[4, 65, 40], &[4, 40, 70], false, true);
        compare(&[210, 130], &[130, 150], true, false);
        compare(&[1, 300], &[300, 700], false, false);
    }
}
