//! Winograd convolutions against f64.
#![allow(unsafe_code, reason = "the kernels under test take raw pointers")]

use super::{Winograd, WinogradTile};
use crate::gemm::tests::noise;
use crate::gemm::{Epilogue, Residual, ResidualPlace};
use crate::kernels::conv::tests::reference;
use crate::kernels::conv::{ConvArgs, ConvParams, Source};
use crate::simd::Isa;
use crate::simd::activation::Activation;

const TILES: [WinogradTile; 2] = [WinogradTile::Two, WinogradTile::Four];

fn run(plan: &Winograd, args: &ConvArgs<'_>) {
    let mut scratch = vec![f32::NAN; plan.scratch_len()];
    let items = plan.work_items();
    for piece in [0..items / 3, items / 3..items] {
        // SAFETY: the callers' vectors cover the tensors.
        unsafe { plan.run(args, piece, &mut scratch) };
    }
}

#[test]
fn matches_f64_with_every_epilogue() {
    let shapes = [
        ([1, 4, 4, 3], 5, 1),
        ([1, 7, 7, 16], 32, 1),
        ([2, 5, 9, 17], 33, 1),
        ([1, 13, 6, 40], 48, 0),
        ([1, 3, 3, 1], 1, 0),
        ([1, 1, 1, 8], 8, 1),
        ([3, 17, 30, 20], 70, 1),
        ([0, 8, 8, 4], 4, 1),
    ];
    for isa in Isa::available() {
        for tile in TILES {
            for (shape, outputs, pad) in shapes {
                for place in [
                    None,
                    Some(ResidualPlace::BeforeActivation),
                    Some(ResidualPlace::AfterActivation),
                ] {
                    let mut p = ConvParams::new_2d(shape, outputs, 3, 1, pad);
                    p.source = Source::ChannelsLast { pixel_stride: p.channels + 2 };
                    p.output_stride = outputs + 3;
                    let pixels = shape[0] * shape[1] * shape[2];
                    let (x, w) =
                        (noise(pixels * (p.channels + 2), 1), noise(outputs * p.channels * 9, 2));
                    let (bias, y0) = (noise(outputs, 3), noise(p.pixels() * p.output_stride, 4));
                    let plane = shape[1] * shape[2];
                    let want =
                        reference(&p, |n, i, c| x[(n * plane + i) * (p.channels + 2) + c], &w);
                    let plan = Winograd::new(isa, tile, &p).expect("a supported shape");
                    let mut packed = vec![0.0; plan.weights().packed_len()];
                    plan.weights().pack(isa, &w, &mut packed);
                    let mut y = y0.clone();
                    let residual = place.map(|place| Residual {
                        data: y.as_ptr(),
                        stride: p.output_stride,
                        place,
                    });
                    let epilogue =
                        Epilogue { bias: Some(&bias), residual, activation: Activation::Relu };
                    run(
                        &plan,
                        &ConvArgs {
                            input: x.as_ptr(),
                            weights: &packed,
                            output: y.as_mut_ptr(),
                            epilogue,
                        },
                    );
                    for (at, got) in y.iter().enumerate() {
                        let (pixel, o) = (at / p.output_stride, at % p.output_stride);
                        let before = f64::from(y0[at]);
                        let want = if o >= outputs {
                            before
                        } else {
                            let v = want[pixel * outputs + o] + f64::from(bias[o]);
                            match place {
                                None => v.max(0.0),
                                Some(ResidualPlace::BeforeActivation) => (v + before).max(0.0),
                                Some(ResidualPlace::AfterActivation) => v.max(0.0) + before,
                            }
                        };
                        let tolerance = 2e-5 * (p.channels as f64 * 9.0 / 9.0).sqrt().max(1.0);
                        assert!(
                            (f64::from(*got) - want).abs() <= tolerance,
                            "{isa} {tile:?} {shape:?} {place:?} pixel {pixel} output {o}: {got}, want {want}"
                        );
                    }
                }
            }
        }
    }
}

/// Bound from cpu-kernels.md 3.4: F(4, 3) with these points stays below 8e-6 of the output's RMS
/// for unit-normal inputs; 2e-5 leaves room for other inputs.
#[test]
fn largest_error_is_small_against_the_output() {
    for isa in Isa::available() {
        for tile in TILES {
            let p = ConvParams::new_2d([1, 18, 22, 128], 40, 3, 1, 1);
            let x: Vec<f32> = noise(18 * 22 * 128, 5).iter().map(|v| v.max(0.0)).collect();
            let w = noise(40 * 128 * 9, 6);
            let want = reference(&p, |_, i, c| x[i * 128 + c], &w);
            let plan = Winograd::new(isa, tile, &p).expect("a supported shape");
            let mut packed = vec![0.0; plan.weights().packed_len()];
            plan.weights().pack(isa, &w, &mut packed);
            let mut y = vec![0.0; want.len()];
            let epilogue = Epilogue::default();
            run(
                &plan,
                &ConvArgs { input: x.as_ptr(), weights: &packed, output: y.as_mut_ptr(), epilogue },
            );
            let rms = (want.iter().map(|v| v * v).sum::<f64>() / want.len() as f64).sqrt();
            let worst =
                want.iter().zip(&y).map(|(w, y)| (f64::from(*y) - w).abs()).fold(0.0, f64::max);
            assert!(worst <= 2e-5 * rms, "{isa} {tile:?}: error {worst} of rms {rms}");
        }
    }
}

/// Kernels along one dimension, dilations, and padding beyond what keeps the size.
#[test]
fn matches_f64_with_other_kernels_and_dilations() {
    let cases = [
        ([1, 1, 50, 16], [1, 3], [1, 1], [0, 1]),
        ([2, 1, 37, 20], [1, 3], [1, 4], [0, 0]),
        ([1, 1, 30, 17], [1, 3], [1, 16], [0, 16]),
        ([1, 23, 5, 18], [3, 1], [3, 1], [2, 0]),
        ([1, 13, 11, 16], [3, 3], [2, 2], [2, 2]),
        ([2, 9, 10, 19], [3, 3], [1, 3], [0, 3]),
        ([1, 6, 5, 16], [3, 3], [8, 8], [8, 8]),
    ];
    for isa in Isa::available() {
        for tile in TILES {
            for (shape, [kh, kw], [dh, dw], [ph, pw]) in cases {
                let mut p = ConvParams::new_2d(shape, 21, 1, 1, 0);
                (p.kernel, p.dilation, p.pad) = ([1, kh, kw], [1, dh, dw], [0, ph, pw]);
                let out = |n: usize, k: usize, d: usize, pad: usize| n + 2 * pad - d * (k - 1);
                p.output = [1, out(shape[1], kh, dh, ph), out(shape[2], kw, dw, pw)];
                let plane = shape[1] * shape[2];
                let (x, w) = (
                    noise(shape[0] * plane * shape[3], 1),
                    noise(p.outputs * p.channels * kh * kw, 2),
                );
                let want = reference(&p, |n, i, c| x[(n * plane + i) * shape[3] + c], &w);
                let plan = Winograd::new(isa, tile, &p).expect("a supported shape");
                let mut packed = vec![f32::NAN; plan.weights().packed_len()];
                plan.weights().pack(isa, &w, &mut packed);
                let mut y = vec![f32::NAN; want.len()];
                let epilogue = Epilogue::default();
                let args = ConvArgs {
                    input: x.as_ptr(),
                    weights: &packed,
                    output: y.as_mut_ptr(),
                    epilogue,
                };
                run(&plan, &args);
                for (at, (got, want)) in y.iter().zip(&want).enumerate() {
                    let error = (f64::from(*got) - want).abs();
                    assert!(error <= 1e-4, "{isa} {tile:?} {p:?} element {at}: {got}, want {want}");
                }
            }
        }
    }
}

#[test]
fn refuses_other_convolutions() {
    let good = ConvParams::new_2d([1, 8, 8, 16], 16, 3, 1, 1);
    assert!(Winograd::supports(&good));
    let bad = [
        ConvParams { stride: [1, 2, 2], ..good },
        ConvParams { groups: 2, ..good },
        ConvParams { kernel: [1, 1, 1], ..good },
        ConvParams { kernel: [1, 3, 5], ..good },
        ConvParams { source: Source::Planar, ..good },
        ConvParams { input: [2, 8, 8], output: [2, 8, 8], ..good },
    ];
    for p in bad {
        assert!(Winograd::new(Isa::PORTABLE, WinogradTile::Four, &p).is_none(), "{p:?}");
    }
}
