//! Pooling, channels last.

use std::ops::Range;

use ov_core::{
    ElementType,
    op::{OpAttributes, OpResult},
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, cost};
use crate::{
    kernels::{
        int8::{max_pool_i8, max_pool_u8},
        pooling::{PoolKind, Window, pool_f32},
    },
    ops::pooling::{PoolLast, PoolMode},
    simd::Isa,
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[
    KernelEntry { name: "pool_f32", ops: &[PoolLast::KIND], select, bind },
    KernelEntry { name: "max_pool_int8", ops: &[PoolLast::KIND], select: select_bytes, bind },
];

fn op(op: &dyn ov_core::op::Op) -> &PoolLast {
    op.downcast().expect("the table lists these kernels for this operator only")
}

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    view.expect_f32(&[])?;
    check(view)
}

fn select_bytes(view: &NodeView<'_>) -> Result<Choice, Reject> {
    let ty = view.inputs[0].element_type;
    if !matches!(ty, ElementType::U8 | ElementType::I8) || op(view.op).mode != PoolMode::Max {
        return Err("takes the largest of u8 or i8".into());
    }
    check(view)
}

fn check(view: &NodeView<'_>) -> Result<Choice, Reject> {
    if !(3..=5).contains(&view.rank(0)?) {
        return Err("takes one to three spatial axes".into());
    }
    let pool = op(view.op);
    if pool.pads_begin.iter().chain(&pool.pads_end).any(|p| *p < 0) {
        return Err("takes no negative padding".into());
    }
    Ok(Choice::default())
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    let pool = op(cx.op);
    let (x, y) = (cx.inputs[0].shape, cx.outputs[0].shape);
    let (channels, spatial) = (x[x.rank() - 1], &x[1..x.rank() - 1]);
    let windows = pool.windows(spatial)?;
    let skip = 3 - spatial.len();
    let mut window = Window {
        input: [1; 3],
        output: [1; 3],
        kernel: [1; 3],
        stride: [1; 3],
        dilation: [1; 3],
        pads_begin: [0; 3],
        pads_end: [0; 3],
    };
    for (i, w) in windows.iter().enumerate() {
        let at = skip + i;
        window.input[at] = spatial[i];
        window.output[at] = y[1 + i];
        window.kernel[at] = w.kernel;
        window.stride[at] = w.stride;
        window.dilation[at] = w.dilation;
        window.pads_begin[at] = usize::try_from(w.begin).unwrap_or(0);
        window.pads_end[at] = usize::try_from(w.end).unwrap_or(0);
    }
    let taps: usize = window.kernel.iter().product();
    Bound::step(PoolStep {
        isa: cx.isa,
        element_type: cx.inputs[0].element_type,
        kind: match pool.mode {
            PoolMode::Max => PoolKind::Max,
            PoolMode::Average => PoolKind::Average,
            PoolMode::AverageWithPad => PoolKind::AverageWithPad,
        },
        window,
        channels,
        items: window.items(x[0]),
        cost: cost::ns(
            4.0 * (taps * y.elements()) as f64,
            4.0 * (x.elements() + y.elements()) as f64,
        ),
    })
}

#[derive(Debug)]
struct PoolStep {
    isa: Isa,
    element_type: ElementType,
    kind: PoolKind,
    window: Window,
    channels: usize,
    items: usize,
    cost: f64,
}

impl Step for PoolStep {
    fn items(&self) -> usize {
        self.items
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let (window, channels) = (&self.window, self.channels);
        match self.element_type {
            ElementType::U8 => {
                max_pool_u8(self.isa, window, channels, io.input(0), &io.output(0), range);
                return Ok(());
            }
            ElementType::I8 => {
                max_pool_i8(self.isa, window, channels, io.input(0), &io.output(0), range);
                return Ok(());
            }
            _ => {}
        }
        pool_f32(
            self.isa,
            self.kind,
            &self.window,
            self.channels,
            io.input(0),
            &io.output(0),
            range,
        );
        Ok(())
    }
}
