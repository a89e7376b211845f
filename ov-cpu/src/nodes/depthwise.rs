//! Convolutions of single channels and of narrow groups of channels.

use std::ops::Range;

use ov_core::{
    Tensor,
    op::{OpAttributes, OpResult, window::Window},
};

use super::{
    BindContext, Bound, Choice, Io, KernelEntry, NodeView, Pack, Reject, Step, Weights,
    convolution::{Extras, check, op, pad_of},
    cost,
};
use crate::{
    kernels::depthwise::{Depthwise, Epilogue, depthwise_f32},
    ops::{common::Convolving, convolution::FusedConvolution},
    simd::Isa,
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[
    KernelEntry {
        name: "conv_f32_depthwise",
        ops: &[FusedConvolution::KIND],
        select: select_depthwise,
        bind: bind_depthwise,
    },
    KernelEntry {
        name: "conv_f32_grouped",
        ops: &[FusedConvolution::KIND],
        select: select_grouped,
        bind: bind_depthwise,
    },
];

fn select_depthwise(view: &NodeView<'_>) -> Result<Choice, Reject> {
    check(view)?;
    let (conv, w) = (op(view.op), view.constant(1)?);
    if conv.groups != w.shape()[0] as i64 || w.shape()[1] != 1 {
        return Err("takes one filter per channel".into());
    }
    select_narrow(view, conv, w)
}

/// Groups that divide a vector.
fn select_grouped(view: &NodeView<'_>) -> Result<Choice, Reject> {
    check(view)?;
    let (conv, w) = (op(view.op), view.constant(1)?);
    let (channels, width) = (w.shape()[0], w.shape()[1]);
    if !(2..=8).contains(&width) || !view.isa.f32_lanes().is_multiple_of(width) {
        return Err("takes groups of a few channels, which divide a vector".into());
    }
    if conv.groups.checked_mul(width as i64) != Some(channels as i64) {
        return Err("takes as many outputs as inputs in a group".into());
    }
    select_narrow(view, conv, w)
}

fn select_narrow(
    view: &NodeView<'_>,
    conv: &FusedConvolution,
    w: &Tensor,
) -> Result<Choice, Reject> {
    if conv.planar {
        return Err("takes channels last".into());
    }
    if view.rank(0)? > 4 {
        return Err("takes one or two spatial axes".into());
    }
    if conv.residual_after {
        return Err("adds a residual before the activation only".into());
    }
    Ok(Choice { params: Vec::new(), packed: vec![pack_depthwise(w)], consumed: vec![1] })
}

/// Packs the `f32` filters `[channels, channels of a group, …]`.
pub(super) fn pack_depthwise(filters: &Tensor) -> Pack {
    let (channels, kernel) = (filters.shape()[0], two(&filters.shape()[2..], 1));
    let geometry = Depthwise { channels, group: filters.shape()[1], kernel, ..SHAPELESS };
    let weights = filters.to_contiguous();
    Pack::f32s(geometry.packed_len(), move |out| {
        geometry.pack(weights.as_slice().expect("checked to be f32"), out);
    })
}

/// A geometry of which only channels and kernel matter, for packing.
const SHAPELESS: Depthwise = Depthwise {
    channels: 0,
    group: 1,
    input: [0; 2],
    output: [0; 2],
    kernel: [1; 2],
    stride: [1; 2],
    dilation: [1; 2],
    pads: [0; 2],
};

fn two<T: Copy>(values: &[T], fill: T) -> [T; 2] {
    match values {
        [a] => [fill, *a],
        [a, b, ..] => [*a, *b],
        [] => [fill; 2],
    }
}

/// The geometry of a depthwise convolution with `filters` from the extents `input` to `output`.
pub(super) fn geometry_of(
    conv: &FusedConvolution,
    input: &[usize],
    filters: &[usize],
    output: &[usize],
) -> OpResult<Depthwise> {
    let windows = conv.windows(&filters[2..], input)?;
    let pick =
        |f: fn(&Window) -> usize, fill| two(&windows.iter().map(f).collect::<Vec<_>>(), fill);
    Ok(Depthwise {
        channels: filters[0],
        group: filters[1],
        input: two(input, 1),
        output: two(output, 1),
        kernel: two(&filters[2..], 1),
        stride: pick(|w| w.stride, 1),
        dilation: pick(|w| w.dilation, 1),
        pads: pick(pad_of, 0),
    })
}

fn bind_depthwise(cx: &BindContext<'_>) -> OpResult<Bound> {
    let (x, w, y) = (cx.inputs[0].shape, cx.inputs[1].shape, cx.outputs[0].shape);
    let geometry = geometry_of(op(cx.op), &x[1..x.rank() - 1], w, &y[1..y.rank() - 1])?;
    let taps = (geometry.group * geometry.kernel.iter().product::<usize>()) as f64;
    Bound::step(DepthwiseStep {
        isa: cx.isa,
        geometry,
        batch: x[0],
        weights: cx.packed_f32(0)?,
        extras: Extras::new(cx)?,
        cost: cost::ns(
            8.0 * taps * y.elements() as f64,
            4.0 * (x.elements() + y.elements()) as f64,
        ),
    })
}

#[derive(Debug)]
struct DepthwiseStep {
    isa: Isa,
    geometry: Depthwise,
    batch: usize,
    weights: Weights,
    extras: Extras,
    cost: f64,
}

impl Step for DepthwiseStep {
    fn items(&self) -> usize {
        self.geometry.items(self.batch)
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let epilogue = Epilogue {
            bias: self.extras.bias.then(|| io.input::<f32>(2)),
            residual: self.extras.residual.then(|| io.input::<f32>(3)),
            activation: self.extras.activation,
        };
        depthwise_f32(
            self.isa,
            &self.geometry,
            io.input(0),
            self.weights.get(),
            &epilogue,
            &io.output(0),
            range,
        );
        Ok(())
    }
}
