//! Transposed convolutions.
#![allow(unsafe_code, reason = "calls kernels on disjoint parts of planned memory")]

use std::ops::Range;

use ov_core::{
    Tensor,
    op::{Op, OpAttributes, OpResult},
};

use super::{
    BindContext, Bound, Choice, Io, KernelEntry, NodeView, Pack, Reject, Step, Weights,
    convolution::{Extras, pad_of, three},
    cost,
};
use crate::{
    gemm::Epilogue,
    kernels::conv::{ConvArgs, ConvParams, ConvTransposed, Source},
    ops::transposed::FusedConvolutionTransposed,
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[KernelEntry {
    name: "conv_transposed_f32",
    ops: &[FusedConvolutionTransposed::KIND],
    select,
    bind,
}];

/// Each position relative to the stride is a convolution of its own.
const MOST_PHASES: i64 = 1024;

fn op(op: &dyn Op) -> &FusedConvolutionTransposed {
    op.downcast().expect("the table lists these kernels for this operator only")
}

/// The transposed convolution of `batch` images of these spatial extents as plain integers.
fn params(
    op: &FusedConvolutionTransposed,
    w: &[usize],
    batch: usize,
    input: &[usize],
) -> OpResult<ConvParams> {
    let axes = op.windows(&w[2..], input)?;
    let groups = op.groups.max(1) as usize;
    let (channels, outputs) = (w[0], w[1] * groups);
    Ok(ConvParams {
        batch,
        channels,
        outputs,
        groups,
        input: three(input.iter().copied(), 1),
        kernel: three(w[2..].iter().copied(), 1),
        stride: three(axes.iter().map(|(w, _)| w.stride), 1),
        dilation: three(axes.iter().map(|(w, _)| w.dilation), 1),
        pad: three(axes.iter().map(|(w, _)| pad_of(w)), 0),
        output: three(axes.iter().map(|(_, extent)| *extent), 1),
        source: Source::ChannelsLast { pixel_stride: channels },
        output_stride: outputs,
    })
}

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    view.expect_f32(&[2, 3])?;
    let conv = op(view.op);
    let w = view.constant(1)?.to_contiguous();
    if !(3..=5).contains(&view.rank(0)?) {
        return Err("takes one to three spatial axes".into());
    }
    if conv.groups < 1 || !w.shape()[0].is_multiple_of(conv.groups as usize) {
        return Err("the groups do not divide the channels".into());
    }
    if conv.pads_begin.iter().any(|p| *p < 0) {
        return Err("takes no negative padding".into());
    }
    let phases = conv.strides.iter().try_fold(1i64, |n, s| n.checked_mul(*s));
    if !phases.is_some_and(|n| (1..=MOST_PHASES).contains(&n)) {
        return Err(format!("takes strides of at most {MOST_PHASES} in all").into());
    }
    let bias = match view.inputs.get(2) {
        None => None,
        Some(b) => Some(b.constant.ok_or("takes a constant bias")?.to_contiguous()),
    };
    // The packing does not depend on extents; any that are valid do.
    let spatial = w.rank() - 2;
    let most = conv.pads_begin.iter().chain(&conv.pads_end).copied().max().unwrap_or(0);
    let extent = usize::try_from(most).unwrap_or(0).saturating_mul(2).saturating_add(1);
    let params = params(conv, w.shape(), 1, &vec![extent; spatial]).map_err(|e| e.to_string())?;
    let plan = ConvTransposed::new(view.isa, &params);
    let wide = plan.wide();
    let pack = Pack::f32s(plan.packed_len(), move |out| {
        plan.pack(w.as_slice().expect("checked to be f32"), out);
    });
    let mut choice = Choice { params: Vec::new(), packed: vec![pack], consumed: vec![1] };
    if let Some(bias) = bias.filter(|b| !Tensor::is_absent(b)) {
        if bias.len() != params.outputs {
            return Err(format!("takes a bias of {} values", params.outputs).into());
        }
        choice.packed.push(Pack::f32s(bias.len() * wide, move |out| {
            let bias: &[f32] = bias.as_slice().expect("checked to be f32");
            for row in out.chunks_exact_mut(bias.len().max(1)) {
                row.copy_from_slice(bias);
            }
        }));
    }
    Ok(choice)
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    let conv = op(cx.op);
    let (x, w) = (cx.inputs[0].shape, cx.inputs[1].shape);
    let params = params(conv, w, x[0], &x[1..x.rank() - 1])?;
    let extras = Extras::of(cx, conv.activation()?, conv.residual_after)?;
    let input: f64 = x.elements() as f64;
    let (output, weights) = (cx.outputs[0].shape.elements() as f64, w.elements() as f64);
    let pixels = input / params.channels.max(1) as f64;
    Bound::step(TransposedStep {
        plan: ConvTransposed::new(cx.isa, &params),
        outputs: params.outputs,
        weights: cx.packed_f32(0)?,
        bias: if extras.bias { Some(cx.packed_f32(1)?) } else { None },
        extras,
        cost: cost::ns(2.0 * pixels * weights, 4.0 * (input + output + weights)),
    })
}

#[derive(Debug)]
struct TransposedStep {
    plan: ConvTransposed,
    outputs: usize,
    weights: Weights,
    /// The bias, as often as a row of the plan's products has it.
    bias: Option<Weights>,
    extras: Extras,
    cost: f64,
}

impl Step for TransposedStep {
    fn items(&self) -> usize {
        self.plan.work_items()
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn scratch_len(&self) -> usize {
        self.plan.scratch_len() * 4
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        if range.is_empty() {
            return Ok(());
        }
        let out = io.output::<f32>(0);
        let args = ConvArgs {
            input: io.input::<f32>(0).as_ptr(),
            weights: self.weights.get(),
            output: out.at(0, out.len()),
            epilogue: Epilogue {
                bias: self.bias.as_ref().map(Weights::get),
                ..self.extras.epilogue(io, self.outputs * self.plan.wide())
            },
        };
        // SAFETY: the plan was made from the shapes of input and output, and bind checked the residual's; threads are
        // given disjoint items.
        unsafe { self.plan.run(&args, range, bytemuck::cast_slice_mut(scratch)) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{
        Model,
        op::{
            activation::Relu,
            arithmetic::Add,
            convolution::{ConvolutionBackpropData, GroupConvolutionBackpropData},
        },
    };

    use super::*;
    use crate::nodes::testing::{check, noise, parameter};

    /// Attributes: strides, dilations, pads at both ends, output padding.
    type Attributes = ([i64; 3], [i64; 3], [i64; 3], [i64; 3]);

    fn run(x: &[usize], w: &[usize], (s, d, p, o): Attributes, grouped: bool, extras: bool) {
        let n = x.len() - 2;
        let cut = |v: [i64; 3]| v[3 - n..].to_vec();
        let what = format!("{x:?} {w:?} {s:?} {d:?} {p:?} {o:?}");
        let mut m = Model::new("transposed");
        let input = parameter(&mut m, "x", x);
        let weights = m.add_constant(noise(w, 1), "w");
        let op: Box<dyn Op> = if grouped {
            Box::new(GroupConvolutionBackpropData {
                strides: cut(s),
                dilations: cut(d),
                pads_begin: cut(p),
                pads_end: cut(p),
                output_padding: cut(o),
                ..Default::default()
            })
        } else {
            Box::new(ConvolutionBackpropData {
                strides: cut(s),
                dilations: cut(d),
                pads_begin: cut(p),
                pads_end: cut(p),
                output_padding: cut(o),
                ..Default::default()
            })
        };
        let mut y = m.add_node(op, &[input, weights], "y").expect("valid").into();
        let mut inputs = vec![noise(x, 2)];
        if extras {
            let shape = m.shape(y).to_shape().expect("static");
            let mut per_channel = vec![1; shape.rank()];
            per_channel[1] = shape[1];
            let bias = m.add_constant(noise(&per_channel, 3), "b");
            y = m.add(Add::default(), &[y, bias], "bias").expect("valid");
            let other = parameter(&mut m, "residual", &shape);
            y = m.add(Add::default(), &[y, other], "sum").expect("valid");
            y = m.add(Relu {}, &[y], "relu").expect("valid");
            inputs.push(noise(&shape, 4));
        }
        m.add_output("y", y);
        check(&what, &m, &inputs, "conv_transposed_f32", 3e-5);
    }

    #[test]
    fn transposed_convolutions_give_what_the_reference_gives() {
        const ONE: [i64; 3] = [1; 3];
        const ZERO: [i64; 3] = [0; 3];
        for extras in [false, true] {
            run(&[1, 8, 5, 6], &[8, 16, 2, 2], ([2; 3], ONE, ZERO, ZERO), false, extras);
            run(&[2, 24, 3, 7], &[24, 1, 2, 2], ([2; 3], ONE, ZERO, ZERO), false, extras);
            run(&[1, 9, 11], &[9, 5, 5], ([5; 3], ONE, ZERO, ZERO), false, extras);
            run(&[1, 7, 13], &[7, 10, 16], ([8; 3], ONE, [4; 3], ZERO), false, extras);
            run(&[1, 3, 4, 5], &[3, 6, 3, 3], ([2; 3], ONE, ONE, ONE), false, extras);
            run(&[1, 4, 5, 6], &[4, 9, 3, 3], ([1, 2, 3], [1, 2, 1], ZERO, ZERO), false, extras);
            run(&[1, 5, 2, 3, 4], &[5, 7, 2, 3, 2], ([2, 1, 2], ONE, ZERO, ZERO), false, extras);
            run(&[1, 4, 5, 3], &[2, 2, 3, 2, 2], ([2; 3], ONE, ZERO, ZERO), true, extras);
            run(&[2, 6, 7], &[6, 1, 1, 3], ([2; 3], ONE, ONE, ZERO), true, extras);
            run(&[1, 3, 1, 1], &[3, 4, 2, 2], ([3; 3], ONE, ZERO, ZERO), false, extras);
        }
    }
}
