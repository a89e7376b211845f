//! Depthwise convolutions of bytes.
#![allow(unsafe_code, reason = "calls kernels on disjoint parts of planned memory")]

use std::ops::Range;

use ov_core::{
    ElementType, Tensor,
    op::{OpAttributes, OpError, OpResult},
};

use super::{
    BindContext, Bound, Choice, Io, KernelEntry, NodeView, Pack, Reject, Step, Weights,
    byte_weights::Centred,
    cost,
    integer::{Tail, check_conv, columns_of, conv_of, pack_all, params},
};
use crate::{
    kernels::int8::{
        ByteDepthwise,
        quads::{self, ByteQuads},
    },
    ops::integer::{IntegerConvolution, Port},
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[
    KernelEntry {
        name: "conv_int8_depthwise_quads",
        ops: &[IntegerConvolution::KIND],
        select: select_quads,
        bind: bind_quads,
    },
    KernelEntry {
        name: "conv_int8_depthwise",
        ops: &[IntegerConvolution::KIND],
        select: select_depthwise,
        bind: bind_depthwise,
    },
];

fn select_quads(view: &NodeView<'_>) -> Result<Choice, Reject> {
    check_conv(view)?;
    let conv = conv_of(view.op);
    let weights = Centred::new(view)?;
    let w = weights.bytes.shape().clone();
    let (channels, taps) = (w[0], w[2..].iter().product::<usize>());
    if conv.planar || conv.groups != channels as i64 || w[1] != 1 {
        return Err("takes one filter per channel".into());
    }
    let unsigned = view.inputs[Port::X].element_type == ElementType::U8;
    if !unsigned || !quads::fits(view.isa, taps) {
        return Err("takes u8 and at most 64 taps on x86 with AVX2".into());
    }
    if weights.shifted(channels)? {
        return Err("takes weights that fit s8 less their zero points".into());
    }
    let len = quads::packed_len(channels, taps);
    let pack = pack_all(len, channels, false, move |data, sums, _| {
        let read = weights.reader();
        // Checked above to fit.
        let weight = |c: usize, t: usize| read(c * taps + t, c) as i8;
        quads::pack((channels, taps), weight, data, sums);
    });
    Ok(Choice { params: Vec::new(), packed: vec![pack], consumed: vec![Port::W] })
}

fn bind_quads(cx: &BindContext<'_>) -> OpResult<Bound> {
    let conv = conv_of(cx.op);
    let tail = Tail::new(cx, conv.activation()?, conv.residual_after)?;
    let p = params(cx)?;
    let kernel = ByteQuads::new(cx.isa, &p)
        .ok_or_else(|| OpError::Unsupported("filters with that many taps".to_owned()))?;
    let data = quads::packed_len(p.channels, p.taps());
    let work = p.cost();
    Bound::step(QuadsStep {
        kernel,
        packed: columns_of(cx, data, p.channels)?,
        data,
        tail,
        cost: cost::ns(work.flops * 2.0, work.bytes / 4.0),
    })
}

#[derive(Debug)]
struct QuadsStep {
    kernel: ByteQuads,
    packed: Tensor,
    data: usize,
    tail: Tail,
    cost: f64,
}

impl Step for QuadsStep {
    fn items(&self) -> usize {
        self.kernel.work_items()
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn scratch_len(&self) -> usize {
        self.kernel.scratch_len()
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        let bytes = self.packed.bytes();
        let mut finish = self.tail.finish(io, self.tail.zero(io));
        let columns: &[i32] = bytemuck::cast_slice(&bytes[self.data.next_multiple_of(64)..]);
        finish.column_sums = columns.as_ptr();
        let weights = bytemuck::cast_slice(&bytes[..self.data]);
        let input = io.input::<u8>(Port::X).as_ptr();
        // SAFETY: as in `DirectStep`.
        unsafe { self.kernel.run(input, weights, &finish, range, scratch) };
        Ok(())
    }
}

fn select_depthwise(view: &NodeView<'_>) -> Result<Choice, Reject> {
    check_conv(view)?;
    let conv = conv_of(view.op);
    let weights = Centred::new(view)?;
    let w = weights.bytes.shape().clone();
    let taps = w[2..].iter().product::<usize>();
    if conv.planar || conv.groups != w[0] as i64 || w[1] != 1 {
        return Err("takes one filter per channel".into());
    }
    if !ByteDepthwise::fits(taps) {
        return Err("takes filters whose sums are exact in f32".into());
    }
    weights.shifted(w[0])?;
    let channels = w[0];
    let pack = Pack::f32s(taps * channels, move |out| {
        let read = weights.reader();
        for (i, v) in out.iter_mut().enumerate() {
            let (t, c) = (i / channels, i % channels);
            *v = read(c * taps + t, c) as f32;
        }
    });
    Ok(Choice { params: Vec::new(), packed: vec![pack], consumed: vec![Port::W] })
}

fn bind_depthwise(cx: &BindContext<'_>) -> OpResult<Bound> {
    let conv = conv_of(cx.op);
    let tail = Tail::new(cx, conv.activation()?, conv.residual_after)?;
    let p = params(cx)?;
    let depthwise = ByteDepthwise::new(cx.isa, &p, tail.signed)
        .ok_or_else(|| OpError::Unsupported("filters with that many taps".to_owned()))?;
    let work = p.cost();
    Bound::step(DepthwiseStep {
        depthwise,
        weights: cx.packed_f32(0)?,
        tail,
        cost: cost::ns(work.flops * 4.0, work.bytes / 4.0),
    })
}

#[derive(Debug)]
struct DepthwiseStep {
    depthwise: ByteDepthwise,
    weights: Weights,
    tail: Tail,
    cost: f64,
}

impl Step for DepthwiseStep {
    fn items(&self) -> usize {
        self.depthwise.work_items()
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let mut finish = self.tail.finish(io, self.tail.zero(io));
        finish.floats = true;
        let input = io.input::<u8>(Port::X).as_ptr();
        // SAFETY: as in `DirectStep`.
        unsafe { self.depthwise.run(input, self.weights.get(), &finish, range) };
        Ok(())
    }
}
