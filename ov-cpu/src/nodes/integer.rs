//! Convolutions and matrix products of bytes with constant weights.
#![allow(unsafe_code, reason = "calls kernels on disjoint parts of planned memory")]

use std::{ops::Range, ptr};

use ov_core::{
    ElementType, Tensor,
    op::{OpAttributes, OpError, OpResult},
};

use super::{
    BindContext, Bound, Choice, Io, KernelEntry, NodeView, Pack, Reject, Step,
    byte_weights::Centred, convolution, cost,
};
use crate::{
    gemm::{
        ResidualPlace,
        int8::{ByteFinish, Target},
    },
    kernels::{
        conv::{ConvParams, Source},
        int8::{ByteArgs, ByteConv, BytePacking},
    },
    ops::integer::{IntegerConvolution, IntegerProduct, Port},
    simd::{Isa, activation::Activation},
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[
    KernelEntry {
        name: "conv_int8_direct",
        ops: &[IntegerConvolution::KIND],
        select: select_conv,
        bind: bind_conv,
    },
    KernelEntry {
        name: "fully_connected_int8",
        ops: &[IntegerProduct::KIND],
        select: select_product,
        bind: bind_product,
    },
];

pub(super) fn conv_of(op: &dyn ov_core::op::Op) -> &IntegerConvolution {
    op.downcast().expect("the table lists these kernels for this operator only")
}

fn product_of(op: &dyn ov_core::op::Op) -> &IntegerProduct {
    op.downcast().expect("the table lists these kernels for this operator only")
}

/// What every kernel needs: constant weights and bias.
fn check(view: &NodeView<'_>) -> Result<(), Reject> {
    view.constant(Port::W)?;
    for port in [Port::W_ZERO, Port::BIAS] {
        if view.inputs.get(port).is_some_and(|i| i.constant.is_none()) {
            return Err("takes constant zero points of weights and a constant bias".into());
        }
    }
    Ok(())
}

pub(super) fn check_conv(view: &NodeView<'_>) -> Result<(), Reject> {
    check(view)?;
    let conv = conv_of(view.op);
    let w = view.constant(Port::W)?.shape();
    if !conv.last {
        return Err("gives channels-last results".into());
    }
    if !(3..=5).contains(&view.rank(Port::X)?) || !(3..=5).contains(&w.rank()) {
        return Err("takes one to three spatial axes".into());
    }
    if conv.pads_begin.iter().chain(&conv.pads_end).any(|p| *p < 0) {
        return Err("takes no negative padding".into());
    }
    let groups = usize::try_from(conv.groups).unwrap_or(0);
    if groups == 0 || !w[0].is_multiple_of(groups) {
        return Err("the groups do not divide the outputs".into());
    }
    Ok(())
}

/// Packed bytes, then sums of columns, then shifts, if any.
pub(super) fn pack_all(
    len: usize,
    outputs: usize,
    shifted: bool,
    fill: impl FnOnce(&mut [i8], &mut [i32], &mut [i32]) + Send + 'static,
) -> Pack {
    let padded = len.next_multiple_of(64);
    let shifts = if shifted { outputs } else { 0 };
    Pack {
        len: padded + 4 * (outputs + shifts),
        fill: Box::new(move |bytes| {
            let (data, columns) = bytes.split_at_mut(padded);
            let columns: &mut [i32] = bytemuck::cast_slice_mut(columns);
            let (sums, shifts) = columns.split_at_mut(outputs);
            fill(bytemuck::cast_slice_mut(&mut data[..len]), sums, shifts);
        }),
    }
}

fn packing_of(isa: Isa, conv: &IntegerConvolution, w: &[usize]) -> BytePacking {
    let groups = conv.groups.max(1) as usize;
    let taps = w[2..].iter().product();
    BytePacking::new(isa, w[1] * groups, w[0], groups, taps, conv.planar)
}

fn select_conv(view: &NodeView<'_>) -> Result<Choice, Reject> {
    check_conv(view)?;
    let weights = Centred::new(view)?;
    let w = weights.bytes.shape().clone();
    let packing = packing_of(view.isa, conv_of(view.op), &w);
    let (channels, taps) = (w[1], w[2..].iter().product::<usize>());
    let shifted = weights.shifted(w[0])?;
    let pack = pack_all(packing.len(), w[0], shifted, move |data, sums, shifts| {
        let read = weights.reader();
        let weight = |o: usize, c: usize, t: usize| read((o * channels + c) * taps + t, o);
        packing.pack(weight, data, sums, shifts);
    });
    Ok(Choice { params: vec![i64::from(shifted)], packed: vec![pack], consumed: vec![Port::W] })
}

/// Packed weights of `data` bytes with `columns` numbers of i32 behind them.
pub(super) fn columns_of(cx: &BindContext<'_>, data: usize, columns: usize) -> OpResult<Tensor> {
    let packed = cx.packed.first().cloned();
    let packed =
        packed.ok_or_else(|| OpError::Invalid("the program holds no weights".to_owned()))?;
    let expected = data.next_multiple_of(64) + 4 * columns;
    if packed.bytes().len() != expected || packed.bytes().as_ptr().addr() % 4 != 0 {
        return Err(OpError::Invalid(format!(
            "packed weights of {} bytes, expected {expected}",
            packed.bytes().len()
        )));
    }
    Ok(packed)
}

/// `k` and `n` of the weights.
fn extents(op: &IntegerProduct, w: &[usize]) -> (usize, usize) {
    if op.transpose_b { (w[1], w[0]) } else { (w[0], w[1]) }
}

fn select_product(view: &NodeView<'_>) -> Result<Choice, Reject> {
    check(view)?;
    let weights = Centred::new(view)?;
    if weights.bytes.rank() != 2 || view.rank(Port::X)? == 0 {
        return Err("takes a matrix of weights".into());
    }
    let op = product_of(view.op);
    let (k, n) = extents(op, weights.bytes.shape());
    let transposed = op.transpose_b;
    let packing = BytePacking::new(view.isa, k, n, 1, 1, false);
    let shifted = if transposed { weights.shifted(n)? } else { weights.shifted_rows(n, 1)? };
    let pack = pack_all(packing.len(), n, shifted, move |data, sums, shifts| {
        if transposed {
            let read = weights.reader();
            packing.pack(|o, c, _| read(o * k + c, o), data, sums, shifts);
        } else {
            let row = |_, c, columns: Range<usize>, line: &mut [i32]| {
                weights.row(c * n + columns.start, columns, line);
            };
            packing.pack_rows(row, data, sums, shifts);
        }
    });
    Ok(Choice { params: vec![i64::from(shifted)], packed: vec![pack], consumed: vec![Port::W] })
}

/// What follows the sums, as far as it is known before addresses are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    isa: Isa,
    outputs: usize,
    pub(super) signed: bool,
    x_zero: bool,
    scale_step: usize,
    bias: bool,
    residual: bool,
    place: ResidualPlace,
    activation: Activation,
    output_type: ElementType,
}

impl Tail {
    pub(super) fn new(
        cx: &BindContext<'_>,
        activation: Activation,
        residual_after: bool,
    ) -> OpResult<Self> {
        let given =
            |i: usize| cx.inputs.get(i).is_some_and(|b| !b.value.is_some_and(Tensor::is_absent));
        let y = cx.outputs[0];
        let outputs = y.shape.last().copied().unwrap_or(0);
        let scales = cx.inputs[Port::SCALE].shape.elements();
        let wrong = |index: usize, expected: String| OpError::Input {
            index,
            got: cx.inputs[index].shape.to_string(),
            expected,
        };
        if scales != 1 && scales != outputs {
            return Err(wrong(Port::SCALE, format!("1 or {outputs} values")));
        }
        for port in [Port::X_ZERO, Port::OUTPUT_SCALE, Port::OUTPUT_ZERO] {
            if given(port) && cx.inputs[port].shape.elements() != 1 {
                return Err(wrong(port, "1 value".to_owned()));
            }
        }
        if given(Port::BIAS) && cx.inputs[Port::BIAS].shape.elements() != outputs {
            return Err(wrong(Port::BIAS, format!("{outputs} values")));
        }
        if given(Port::RESIDUAL) && cx.inputs[Port::RESIDUAL].shape != y.shape {
            return Err(wrong(Port::RESIDUAL, y.shape.to_string()));
        }
        Ok(Self {
            isa: cx.isa,
            outputs,
            signed: cx.inputs[Port::X].element_type == ElementType::I8,
            x_zero: given(Port::X_ZERO),
            scale_step: usize::from(scales != 1),
            bias: given(Port::BIAS),
            residual: given(Port::RESIDUAL),
            place: if residual_after {
                ResidualPlace::AfterActivation
            } else {
                ResidualPlace::BeforeActivation
            },
            activation,
            output_type: y.element_type,
        })
    }

    /// The zero point of x as it lies in memory.
    pub(super) fn zero(&self, io: &Io<'_>) -> i32 {
        match (self.x_zero, self.signed) {
            (false, _) => 0,
            (true, false) => i32::from(io.input::<u8>(Port::X_ZERO)[0]),
            (true, true) => i32::from(io.input::<i8>(Port::X_ZERO)[0]),
        }
    }

    pub(super) fn finish(&self, io: &Io<'_>, row_zero: i32) -> ByteFinish {
        let scale = || 1.0 / io.input::<f32>(Port::OUTPUT_SCALE)[0];
        let target = match self.output_type {
            ElementType::U8 => {
                let out = io.output::<u8>(0);
                let zero = f32::from(io.input::<u8>(Port::OUTPUT_ZERO)[0]);
                Target::U8 { c: out.at(0, out.len()), scale: scale(), zero }
            }
            ElementType::I8 => {
                let out = io.output::<i8>(0);
                let zero = f32::from(io.input::<i8>(Port::OUTPUT_ZERO)[0]);
                Target::I8 { c: out.at(0, out.len()), scale: scale(), zero }
            }
            _ => {
                let out = io.output::<f32>(0);
                Target::F32(out.at(0, out.len()))
            }
        };
        let floats =
            |given: bool, port| if given { io.input::<f32>(port).as_ptr() } else { ptr::null() };
        ByteFinish {
            isa: self.isa,
            row_zero,
            column_sums: ptr::null(),
            shifts: ptr::null(),
            floats: false,
            scale: io.input::<f32>(Port::SCALE).as_ptr(),
            scale_step: self.scale_step,
            bias: floats(self.bias, Port::BIAS),
            residual: floats(self.residual, Port::RESIDUAL),
            place: self.place,
            activation: self.activation,
            stride: self.outputs,
            target,
        }
    }
}

/// The convolution as plain integers.
pub(super) fn params(cx: &BindContext<'_>) -> OpResult<ConvParams> {
    let (x, w, y) = (cx.inputs[Port::X].shape, cx.inputs[Port::W].shape, cx.outputs[0].shape);
    convolution::params(conv_of(cx.op), x, w, y)
}

/// Operations of f32 that take as long as one of bytes.
const SPEED: f64 = 0.4;

fn bind_direct(cx: &BindContext<'_>, p: &ConvParams, tail: Tail) -> OpResult<Bound> {
    let (shifted, packing) = (
        cx.params.first() == Some(&1),
        BytePacking::new(
            cx.isa,
            p.channels,
            p.outputs,
            p.groups,
            p.taps(),
            p.source == Source::Planar,
        ),
    );
    let data = packing.len();
    let packed = columns_of(cx, data, p.outputs * (1 + usize::from(shifted)))?;
    let columns = data.next_multiple_of(64);
    let work = p.cost();
    Bound::step(DirectStep {
        conv: ByteConv::new(cx.isa, p, tail.signed, cx.threads),
        packed,
        data,
        columns,
        shifted,
        tail,
        cost: cost::ns(work.flops * SPEED, work.bytes / 4.0),
    })
}

fn bind_conv(cx: &BindContext<'_>) -> OpResult<Bound> {
    let conv = conv_of(cx.op);
    let tail = Tail::new(cx, conv.activation()?, conv.residual_after)?;
    bind_direct(cx, &params(cx)?, tail)
}

fn bind_product(cx: &BindContext<'_>) -> OpResult<Bound> {
    let op = product_of(cx.op);
    let tail = Tail::new(cx, op.activation()?, op.residual_after)?;
    let (k, n) = extents(op, cx.inputs[Port::W].shape);
    let m = cx.outputs[0].shape.elements().checked_div(n).unwrap_or(0);
    let p = ConvParams {
        batch: 1,
        channels: k,
        outputs: n,
        groups: 1,
        input: [1, 1, m],
        kernel: [1; 3],
        stride: [1; 3],
        dilation: [1; 3],
        pad: [0; 3],
        output: [1, 1, m],
        source: Source::ChannelsLast { pixel_stride: k },
        output_stride: n,
    };
    bind_direct(cx, &p, tail)
}

#[derive(Debug)]
struct DirectStep {
    conv: ByteConv,
    packed: Tensor,
    /// Bytes of packed weights, and where sums and shifts of columns begin.
    data: usize,
    columns: usize,
    shifted: bool,
    tail: Tail,
    cost: f64,
}

impl Step for DirectStep {
    fn items(&self) -> usize {
        self.conv.work_items()
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn scratch_len(&self) -> usize {
        self.conv.scratch_len()
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        let bytes = self.packed.bytes();
        let columns: &[i32] = bytemuck::cast_slice(&bytes[self.columns..]);
        let zero = self.tail.zero(io) + if self.tail.signed { 128 } else { 0 };
        let mut finish = self.tail.finish(io, zero);
        finish.column_sums = columns.as_ptr();
        if self.shifted {
            finish.shifts = columns[self.tail.outputs..].as_ptr();
        }
        let args = ByteArgs {
            input: io.input::<u8>(Port::X).as_ptr(),
            weights: bytemuck::cast_slice(&bytes[..self.data]),
            finish,
        };
        // SAFETY: bind checked every input against the geometry, and threads are given disjoint items.
        unsafe { self.conv.run(&args, range, scratch) };
        Ok(())
    }
}

#[cfg(test)]
#[path = "integer_tests.rs"]
mod tests;
