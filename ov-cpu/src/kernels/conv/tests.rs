//! Convolutions against f64.
#![allow(unsafe_code, reason = "the kernels under test take raw pointers")]

use super::{Conv, ConvArgs, ConvParams, Source};
use crate::gemm::tests::noise;
use crate::gemm::{Epilogue, Residual, ResidualPlace};
use crate::simd::Isa;
use crate::simd::activation::Activation;

/// Output `[batch, pixels, outputs]` of `x` `[batch, pixels, channels]` in f64.
pub(crate) fn reference(
    p: &ConvParams,
    x: impl Fn(usize, usize, usize) -> f32,
    w: &[f32],
) -> Vec<f64> {
    let (cg, og) = (p.channels / p.groups, p.outputs / p.groups);
    let mut y = vec![0.0; p.pixels() * p.outputs];
    let [_, h, width] = p.output;
    for (at, y) in y.iter_mut().enumerate() {
        let (o, pixel) = (at % p.outputs, at / p.outputs);
        let q = [pixel / (h * width) % p.output[0], pixel / width % h, pixel % width];
        let image = pixel / p.output.iter().product::<usize>();
        for tap in 0..p.taps() {
            let k = [
                tap / (p.kernel[1] * p.kernel[2]),
                tap / p.kernel[2] % p.kernel[1],
                tap % p.kernel[2],
            ];
            let mut source = 0;
            let mut inside = true;
            for d in 0..3 {
                let i = (q[d] * p.stride[d] + k[d] * p.dilation[d]).wrapping_sub(p.pad[d]);
                inside &= i < p.input[d];
                source = source * p.input[d] + i.min(p.input[d]);
            }
            if inside {
                for c in 0..cg {
                    let xv = x(image, source, o / og * cg + c);
                    *y += f64::from(xv) * f64::from(w[(o * cg + c) * p.taps() + tap]);
                }
            }
        }
    }
    y
}

fn conv_1d(
    channels: usize,
    outputs: usize,
    width: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
) -> ConvParams {
    let mut p = ConvParams::new_2d([1, 1, width, channels], outputs, 1, 1, 0);
    (p.kernel[2], p.stride[2], p.pad[2]) = (kernel, stride, pad);
    p.output[2] = (width + 2 * pad - kernel) / stride + 1;
    p
}

fn cases() -> Vec<ConvParams> {
    let mut all = vec![
        ConvParams::new_2d([1, 5, 5, 3], 8, 3, 1, 1),
        ConvParams::new_2d([2, 7, 7, 16], 33, 3, 1, 1),
        ConvParams::new_2d([1, 14, 13, 5], 48, 3, 2, 1),
        ConvParams::new_2d([1, 9, 30, 4], 17, 5, 1, 2),
        ConvParams::new_2d([2, 6, 11, 19], 40, 1, 1, 0),
        ConvParams::new_2d([1, 12, 11, 8], 16, 1, 2, 0),
        ConvParams::new_2d([1, 3, 3, 2], 5, 3, 1, 2),
        ConvParams::new_2d([1, 1, 1, 7], 9, 1, 1, 0),
        ConvParams::new_2d([1, 2, 2, 7], 9, 5, 1, 4),
        ConvParams::new_2d([0, 4, 4, 3], 4, 3, 1, 1),
        ConvParams::new_2d([1, 20, 20, 3], 32, 7, 2, 3),
        ConvParams::new_2d([1, 16, 16, 3], 24, 8, 8, 0),
        ConvParams::new_2d([1, 30, 3, 70], 130, 3, 1, 1),
        conv_1d(1, 12, 300, 64, 16, 0),
        conv_1d(80, 20, 37, 3, 1, 1),
        conv_1d(1, 1, 301, 40, 2, 7),
        conv_1d(3, 2, 53, 9, 1, 4),
        ConvParams::new_2d([1, 9, 41, 8], 8, 5, 1, 2),
        ConvParams::new_2d([2, 5, 33, 5], 1, 3, 1, 1),
        ConvParams::new_2d([1, 8, 16, 9], 3, 5, 2, 2),
        ConvParams::new_2d([1, 3, 2, 4], 2, 3, 1, 1),
        conv_1d(4, 6, 50, 3, 2, 1),
    ];
    for (channels, outputs, groups) in
        [(8, 8, 2), (32, 64, 2), (24, 24, 24), (12, 24, 12), (16, 8, 4), (40, 40, 5), (6, 9, 3)]
    {
        let mut p = ConvParams::new_2d([1, 6, 9, channels], outputs, 3, 1, 1);
        p.groups = groups;
        all.push(p);
    }
    let mut dilated = ConvParams::new_2d([1, 11, 12, 6], 10, 3, 1, 2);
    (dilated.dilation, dilated.output) = ([1, 2, 2], [1, 11, 12]);
    all.push(dilated);
    let mut uneven = ConvParams::new_2d([1, 8, 9, 6], 10, 2, 2, 0);
    (uneven.pad, uneven.output) = ([0, 1, 0], [1, 5, 5]);
    all.push(uneven);
    let mut deep = ConvParams::new_2d([1, 5, 6, 4], 18, 3, 1, 1);
    (deep.input[0], deep.kernel[0], deep.pad[0], deep.stride[0], deep.output[0]) = (5, 3, 1, 2, 3);
    all.push(deep);
    all
}

/// Runs a plan in uneven pieces and checks every output, and that nothing else was written.
fn check(isa: Isa, p: &ConvParams, activation: Activation, residual: bool) {
    let in_pixels: usize = p.batch * p.input.iter().product::<usize>();
    let plane: usize = p.input.iter().product();
    let pixel_stride = match p.source {
        Source::ChannelsLast { pixel_stride } => pixel_stride,
        Source::Planar => p.channels,
    };
    let x = noise(in_pixels * pixel_stride, 1);
    let w = noise(p.outputs * p.channels / p.groups * p.taps(), 2);
    let bias = noise(p.outputs, 3);
    let y0 = noise(p.pixels() * p.output_stride, 4);
    let at = |n: usize, pixel: usize, c: usize| match p.source {
        Source::ChannelsLast { .. } => x[(n * plane + pixel) * pixel_stride + c],
        Source::Planar => x[(n * p.channels + c) * plane + pixel],
    };
    let want = reference(p, at, &w);
    let plan = Conv::new(isa, p);
    let mut packed = vec![f32::NAN; plan.weights().packed_len()];
    plan.weights().pack(isa, &w, &mut packed);
    let mut y = y0.clone();
    let place = ResidualPlace::BeforeActivation;
    let residual =
        residual.then_some(Residual { data: y.as_ptr(), stride: p.output_stride, place });
    let epilogue = Epilogue { bias: Some(&bias), residual, activation };
    let args = ConvArgs { input: x.as_ptr(), weights: &packed, output: y.as_mut_ptr(), epilogue };
    let mut scratch = vec![0u64; plan.scratch_len().div_ceil(2)];
    let scratch: &mut [f32] = bytemuck::cast_slice_mut(&mut scratch);
    let items = plan.work_items();
    for piece in [0..items / 3, items / 3..items / 2, items / 2..items] {
        // SAFETY: the vectors cover the tensors.
        unsafe { plan.run(&args, piece, scratch) };
    }
    let scale = ((p.taps() * p.channels / p.groups) as f64).sqrt();
    for (pixel, row) in y.chunks_exact(p.output_stride.max(1)).enumerate() {
        for (o, got) in row.iter().enumerate() {
            let before = y0[pixel * p.output_stride + o];
            if o >= p.outputs {
                assert_eq!(*got, before, "{isa} {p:?} wrote beside its output");
                continue;
            }
            let mut v = want[pixel * p.outputs + o] + f64::from(bias[o]);
            if residual.is_some() {
                v += f64::from(before);
            }
            let v = match activation {
                Activation::Relu => v.max(0.0),
                Activation::Silu => v / (1.0 + (-v).exp()),
                _ => v,
            };
            let error = (f64::from(*got) - v).abs();
            assert!(
                error <= 2e-6 * (1.0 + scale),
                "{isa} {p:?} pixel {pixel} output {o}: {got}, want {v}"
            );
        }
    }
}

#[test]
fn matches_f64_on_every_level() {
    for isa in Isa::available() {
        for p in cases() {
            check(isa, &p, Activation::None, false);
        }
    }
}

#[test]
fn reads_and_writes_slices_of_wider_tensors() {
    for isa in Isa::available() {
        for mut p in cases() {
            p.source = Source::ChannelsLast { pixel_stride: p.channels + 3 };
            p.output_stride = p.outputs + 5;
            check(isa, &p, Activation::Relu, true);
        }
    }
}

#[test]
fn reads_planar_inputs() {
    for isa in Isa::available() {
        for mut p in cases() {
            p.source = Source::Planar;
            check(isa, &p, Activation::Silu, true);
        }
    }
}
