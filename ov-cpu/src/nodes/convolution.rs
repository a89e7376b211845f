//! Convolutions by implicit products and by Winograd's transforms.
#![allow(unsafe_code, reason = "calls kernels on disjoint parts of planned memory")]

use std::ops::Range;

use ov_core::{
    ElementType, PartialShape, Shape, Tensor,
    op::{InferContext, InputInfo, Op, OpAttributes, OpError, OpResult, window::Window},
};

use super::{
    BindContext, Bound, Choice, Io, KernelEntry, NodeView, Pack, Reject, Step, Weights, cost,
};
use crate::{
    gemm::{Epilogue, Residual, ResidualPlace},
    kernels::conv::{
        Algorithm, Conv, ConvArgs, ConvParams, ConvWeights, Source, WeightsIn, choose, cycles,
        winograd::{Winograd, WinogradTile, WinogradWeights},
    },
    ops::{common::Convolving, convolution::FusedConvolution, layout::to_last},
    simd::{Isa, activation::Activation},
};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] = &[
    KernelEntry {
        name: "conv_f32_winograd",
        ops: &[FusedConvolution::KIND],
        select: select_winograd,
        bind: bind_winograd,
    },
    KernelEntry {
        name: "conv_f32_direct",
        ops: &[FusedConvolution::KIND],
        select: select_direct,
        bind: bind_direct,
    },
];

pub(super) fn op(op: &dyn Op) -> &FusedConvolution {
    op.downcast().expect("the table lists these kernels for this operator only")
}

/// Extents with ones in front, as kernels count three spatial axes.
pub(super) fn three<T: Copy>(values: impl IntoIterator<Item = T>, fill: T) -> [T; 3] {
    let mut all = [fill; 3];
    let values: Vec<T> = values.into_iter().collect();
    let skip = 3usize.saturating_sub(values.len());
    for (slot, v) in all[skip..].iter_mut().zip(values) {
        *slot = v;
    }
    all
}

pub(super) fn pad_of(w: &Window) -> usize {
    usize::try_from(w.begin).unwrap_or(0)
}

/// What both kernels need: everything `f32`, at most three spatial axes, no cropping.
pub(super) fn check(view: &NodeView<'_>) -> Result<(), Reject> {
    view.expect_f32(&[2, 3])?;
    let conv = op(view.op);
    view.constant(1)?;
    if !(3..=5).contains(&view.rank(0)?) {
        return Err("takes one to three spatial axes".into());
    }
    if conv.pads_begin.iter().chain(&conv.pads_end).any(|p| *p < 0) {
        return Err("takes no negative padding".into());
    }
    if view.inputs.get(2).is_some_and(|b| b.constant.is_none()) {
        return Err("takes a constant bias".into());
    }
    Ok(())
}

/// The elements of an `f32` tensor where they are: weights in a file may lie at any address.
pub(super) fn stored(weights: &Tensor) -> &[[u8; 4]] {
    bytemuck::cast_slice(weights.unaligned_bytes())
}

/// Which inputs follow the weights, and the activation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extras {
    pub(super) bias: bool,
    pub(super) residual: bool,
    pub(super) place: ResidualPlace,
    pub(super) activation: Activation,
}

impl Extras {
    pub(super) fn new(cx: &BindContext<'_>) -> OpResult<Self> {
        let conv = op(cx.op);
        Self::of(cx, conv.activation()?, conv.residual_after)
    }

    pub(super) fn of(
        cx: &BindContext<'_>,
        activation: Activation,
        residual_after: bool,
    ) -> OpResult<Self> {
        let given =
            |i: usize| cx.inputs.get(i).is_some_and(|b| !b.value.is_some_and(Tensor::is_absent));
        let columns = cx.outputs[0].shape.last().copied().unwrap_or(0);
        if given(2) && cx.inputs[2].shape.elements() != columns {
            return Err(OpError::Input {
                index: 2,
                got: cx.inputs[2].shape.to_string(),
                expected: format!("{columns} values"),
            });
        }
        if given(3) && cx.inputs[3].shape != cx.outputs[0].shape {
            return Err(OpError::Input {
                index: 3,
                got: cx.inputs[3].shape.to_string(),
                expected: cx.outputs[0].shape.to_string(),
            });
        }
        Ok(Self {
            bias: given(2),
            residual: given(3),
            place: if residual_after {
                ResidualPlace::AfterActivation
            } else {
                ResidualPlace::BeforeActivation
            },
            activation,
        })
    }

    /// The residual, whose memory the result may take over: [`Extras::epilogue`] reads each element of it right before
    /// the one in its place is written.
    pub(super) fn in_place(&self) -> Option<usize> {
        self.residual.then_some(3)
    }

    /// The epilogue of a product with rows of `stride` elements.
    pub(super) fn epilogue<'a>(&self, io: &Io<'a>, stride: usize) -> Epilogue<'a> {
        Epilogue {
            bias: self.bias.then(|| io.input::<f32>(2)),
            residual: self.residual.then(|| Residual {
                data: io.input_address(3),
                stride,
                place: self.place,
            }),
            activation: self.activation,
        }
    }
}

fn packing(isa: Isa, conv: &FusedConvolution, filters: &[usize]) -> OpResult<ConvWeights> {
    let groups = conv.groups.max(1) as usize;
    let kernel = &filters[2..];
    let windows = conv.windows(kernel, &vec![1; kernel.len()])?;
    let shapeless = ConvParams::new_2d([1, 1, 1, filters[1] * groups], filters[0], 1, 1, 0);
    let params = ConvParams {
        groups,
        kernel: three(kernel.iter().copied(), 1),
        stride: three(windows.iter().map(|w| w.stride), 1),
        dilation: three(windows.iter().map(|w| w.dilation), 1),
        ..shapeless
    };
    Ok(params.weights(isa))
}

fn select_direct(view: &NodeView<'_>) -> Result<Choice, Reject> {
    check(view)?;
    let w = view.constant(1)?;
    let conv = op(view.op);
    if conv.groups < 1 || !w.shape()[0].is_multiple_of(conv.groups as usize) {
        return Err("the groups do not divide the outputs".into());
    }
    let packing = packing(view.isa, conv, w.shape()).map_err(|e| e.to_string())?;
    let weights = w.to_contiguous();
    let isa = view.isa;
    let pack = Pack::f32s(packing.packed_len(), move |out| {
        packing.pack(isa, stored(&weights), out);
    });
    Ok(Choice { params: Vec::new(), packed: vec![pack], consumed: vec![1] })
}

/// The convolution as plain integers.
pub(super) fn params(
    conv: &impl Convolving,
    x: &Shape,
    w: &Shape,
    y: &Shape,
) -> OpResult<ConvParams> {
    let x_last: Shape =
        if conv.planar() { to_last(x.rank()).iter().map(|a| x[*a]).collect() } else { x.clone() };
    let spatial = &x_last[1..x.rank() - 1];
    let windows = conv.windows(&w[2..], spatial)?;
    let channels = x_last[x.rank() - 1];
    Ok(ConvParams {
        batch: x[0],
        channels,
        outputs: w[0],
        groups: conv.groups().max(1) as usize,
        input: three(spatial.iter().copied(), 1),
        kernel: three(w[2..].iter().copied(), 1),
        stride: three(windows.iter().map(|w| w.stride), 1),
        dilation: three(windows.iter().map(|w| w.dilation), 1),
        pad: three(windows.iter().map(pad_of), 0),
        output: three(y[1..y.rank() - 1].iter().copied(), 1),
        source: if conv.planar() {
            Source::Planar
        } else {
            Source::ChannelsLast { pixel_stride: channels }
        },
        output_stride: w[0],
    })
}

/// Extent that stands for one that is not known when the model is compiled.
const ASSUMED_EXTENT: usize = 64;

/// The sizes of a node, with likely ones where the model leaves them open, and whether all are known.
fn likely_params(view: &NodeView<'_>) -> Result<(ConvParams, bool), Reject> {
    let w = view.constant(1)?;
    let dims = view.inputs[0].shape.dims().ok_or("the rank of the input is not known")?;
    let known = view.inputs[0].shape.to_shape().is_some();
    let assumed = |(axis, d): (usize, &ov_core::Dimension)| {
        d.value().map_or(if axis == 0 { 1 } else { ASSUMED_EXTENT }, |v| v)
    };
    let x: Shape = dims.iter().enumerate().map(assumed).collect();
    let x_shape = PartialShape::from(&x);
    let infos = [&x_shape, view.inputs[1].shape].map(|shape| InputInfo {
        element_type: ElementType::F32,
        shape,
        value: None,
        dims: None,
    });
    let types = op(view.op).infer(&InferContext { inputs: &infos }).map_err(|e| e.to_string())?;
    let y = types[0].shape.to_shape().ok_or("the extents of the output are not known")?;
    Ok((params(op(view.op), &x, w.shape(), &y).map_err(|e| e.to_string())?, known))
}

/// Takes convolutions for which the cost model prefers a transform. Where extents are not known, the weights are kept
/// for the direct algorithm as well, and binding chooses.
fn select_winograd(view: &NodeView<'_>) -> Result<Choice, Reject> {
    check(view)?;
    let (params, known) = likely_params(view)?;
    let cache = i64::from(view.weights_fit_cache);
    let Algorithm::Winograd(tile) = choose(view.isa, &params, weights_in(cache)) else {
        return Err("direct convolution is estimated to be faster".into());
    };
    let kernel = [params.kernel[1], params.kernel[2]];
    let winograd = WinogradWeights::new(view.isa, tile, kernel, params.channels, params.outputs);
    let weights = view.constant(1)?.to_contiguous();
    let isa = view.isa;
    let mut packed = vec![Pack::f32s(winograd.packed_len(), move |out| {
        winograd.pack(isa, stored(&weights), out);
    })];
    if !known {
        packed.extend(select_direct(view)?.packed);
    }
    Ok(Choice { params: vec![tile.outputs() as i64, cache], packed, consumed: vec![1] })
}

fn weights_in(cache: i64) -> WeightsIn {
    if cache == 0 { WeightsIn::Memory } else { WeightsIn::Cache }
}

fn bind_winograd(cx: &BindContext<'_>) -> OpResult<Bound> {
    let params = params(op(cx.op), cx.inputs[0].shape, cx.inputs[1].shape, cx.outputs[0].shape)?;
    let (tile, weights) = match *cx.params {
        [2, cache] => (WinogradTile::Two, weights_in(cache)),
        [4, cache] => (WinogradTile::Four, weights_in(cache)),
        ref other => {
            return Err(OpError::Invalid(format!("no Winograd tile is described by {other:?}")));
        }
    };
    let estimate = |algorithm| cycles(cx.isa, &params, algorithm, weights);
    let winograd = Winograd::new(cx.isa, tile, &params);
    if cx.packed.len() > 1
        && (winograd.is_none() || estimate(Algorithm::Direct) < estimate(Algorithm::Winograd(tile)))
    {
        return direct(cx, &params, cx.packed_f32(1)?);
    }
    let winograd = winograd.ok_or_else(|| {
        OpError::Unsupported("this convolution by Winograd's algorithm".to_owned())
    })?;
    let work = params.cost();
    let kernel = [params.kernel[1], params.kernel[2]];
    let count = |of: [usize; 2]| of.iter().product::<usize>() as f64;
    let saved = count(kernel) * count(tile.outputs_of(kernel)) / count(tile.inputs_of(kernel));
    Bound::step(WinogradStep {
        winograd,
        outputs: params.outputs,
        weights: cx.packed_f32(0)?,
        extras: Extras::new(cx)?,
        cost: cost::ns(1.3 * work.flops / saved, work.bytes),
    })
}

#[derive(Debug)]
struct WinogradStep {
    winograd: Winograd,
    outputs: usize,
    weights: Weights,
    extras: Extras,
    cost: f64,
}

impl Step for WinogradStep {
    fn items(&self) -> usize {
        self.winograd.work_items()
    }

    fn cost_ns(&self) -> f64 {
        self.cost
    }

    fn scratch_len(&self) -> usize {
        self.winograd.scratch_len() * 4
    }

    fn in_place(&self) -> Option<usize> {
        self.extras.in_place()
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        let out = io.output::<f32>(0);
        let args = ConvArgs {
            input: io.input::<f32>(0).as_ptr(),
            weights: self.weights.get(),
            output: out.at(0, out.len()),
            epilogue: self.extras.epilogue(io, self.outputs),
        };
        // SAFETY: bind checked input, output and residual against the geometry, and threads are given disjoint items.
        unsafe { self.winograd.run(&args, range, bytemuck::cast_slice_mut(scratch)) };
        Ok(())
    }
}

fn bind_direct(cx: &BindContext<'_>) -> OpResult<Bound> {
    let params = params(op(cx.op), cx.inputs[0].shape, cx.inputs[1].shape, cx.outputs[0].shape)?;
    direct(cx, &params, cx.packed_f32(0)?)
}

fn direct(cx: &BindContext<'_>, params: &ConvParams, weights: Weights) -> OpResult<Bound> {
    let work = params.cost();
    Bound::step(DirectStep {
        conv: Conv::new(cx.isa, params),
        outputs: params.outputs,
        weights,
        extras: Extras::new(cx)?,
        cost: cost::ns(work.flops, work.bytes),
    })
}

#[derive(Debug)]
struct DirectStep {
    conv: Conv,
    outputs: usize,
    weights: Weights,
    extras: Extras,
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
        self.conv.scratch_len() * 4
    }

    fn in_place(&self) -> Option<usize> {
        self.extras.in_place()
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, scratch: &mut [u8]) -> OpResult<()> {
        let out = io.output::<f32>(0);
        let args = ConvArgs {
            input: io.input::<f32>(0).as_ptr(),
            weights: self.weights.get(),
            output: out.at(0, out.len()),
            epilogue: self.extras.epilogue(io, self.outputs),
        };
        // SAFETY: bind checked input, output and residual against the geometry, and threads are given disjoint items.
        unsafe { self.conv.run(&args, range, bytemuck::cast_slice_mut(scratch)) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{
        Model,
        op::{
            activation::{Abs, Relu},
            arithmetic::Add,
            convolution::Convolution,
        },
    };

    use crate::nodes::testing::{check, noise, parameter};

    /// `relu(x * w + |r|)`, whose residual nobody reads later.
    #[test]
    fn results_take_over_the_memory_of_their_residual() {
        for (kernel, pixels, kernel_name) in
            [(1, 30, "conv_f32_direct"), (5, 9, "conv_f32_direct"), (3, 40, "conv_f32_winograd")]
        {
            let mut model = Model::new("residual");
            let x = parameter(&mut model, "x", &[1, 24, pixels, pixels]);
            let r = parameter(&mut model, "r", &[1, 40, pixels, pixels]);
            let w = model.add_constant(noise(&[40, 24, kernel, kernel], 3), "w");
            let pad = (kernel / 2) as i64;
            let conv = Convolution {
                pads_begin: [pad; 2].into(),
                pads_end: [pad; 2].into(),
                ..Convolution::default()
            };
            let y = model.add(conv, &[x, w], "conv").expect("valid");
            let r = model.add(Abs {}, &[r], "abs").expect("valid");
            let y = model.add(Add::default(), &[y, r], "sum").expect("valid");
            let y = model.add(Relu {}, &[y], "relu").expect("valid");
            // Not in the caller's memory.
            let y = model.add(Abs {}, &[y], "after").expect("valid");
            model.add_output("y", y);
            let inputs = [noise(&[1, 24, pixels, pixels], 1), noise(&[1, 40, pixels, pixels], 2)];
            check(&format!("{kernel} {pixels}"), &model, &inputs, kernel_name, 2e-4);
        }
    }
}
