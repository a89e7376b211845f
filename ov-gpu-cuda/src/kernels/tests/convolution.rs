//! Convolutions with constant filters.

use ov_core::{
    ElementType, Tensor,
    op::{
        Op,
        fused::{
            activation::Activation, convolution::FusedConvolution,
            transposed::FusedConvolutionTransposed,
        },
    },
};

use super::{super::convolution::CONVOLUTION, linear::tolerance};
use crate::testing::{KernelTest, check, noise};

const FLOATS: [ElementType; 3] = [ElementType::F32, ElementType::F16, ElementType::Bf16];

#[track_caller]
fn run(
    op: &dyn Op,
    ty: ElementType,
    x: &[usize],
    w: &[usize],
    outputs: usize,
    y: Option<&[usize]>,
) {
    let inputs = [
        noise(ty, x, 1),
        noise(ty, w, 2),
        noise(ty, &[outputs], 3),
        y.map_or_else(Tensor::absent, |y| noise(ty, y, 4)),
    ];
    let k: usize = w[1..].iter().product();
    let atol = tolerance(ty) * (k as f64).sqrt().max(1.0);
    let test = KernelTest::new(&CONVOLUTION, op, &inputs, tolerance(ty));
    check(&KernelTest { atol, ..test }.constants(&[1, 2]));
}

#[test]
fn windows_of_one_to_three_axes() {
    for ty in FLOATS {
        let op = FusedConvolution {
            strides: vec![2],
            pads_begin: vec![2],
            pads_end: vec![1],
            ..FusedConvolution::default()
        };
        run(&op, ty, &[2, 11, 5], &[9, 5, 4], 9, None);
        let mut op = FusedConvolution {
            strides: vec![1, 2],
            dilations: vec![2, 1],
            pads_begin: vec![1, 0],
            pads_end: vec![2, 3],
            ..FusedConvolution::default()
        };
        op.set_activation(Activation::HardSwish);
        run(&op, ty, &[1, 9, 8, 8], &[24, 8, 3, 3], 24, Some(&[1, 8, 5, 24]));
        op.residual_after = true;
        run(&op, ty, &[2, 9, 8, 3], &[5, 3, 3, 3], 5, Some(&[2, 8, 5, 5]));
        let op = FusedConvolution {
            pads_begin: vec![1, 0, 0],
            pads_end: vec![1, 0, 0],
            ..FusedConvolution::default()
        };
        run(&op, ty, &[1, 3, 4, 5, 4], &[6, 4, 2, 2, 3], 6, None);
    }
}

#[test]
fn groups_and_planar_images() {
    for ty in FLOATS {
        let op = FusedConvolution {
            groups: 2,
            pads_begin: vec![1, 1],
            pads_end: vec![1, 1],
            ..FusedConvolution::default()
        };
        run(&op, ty, &[1, 5, 5, 16], &[12, 8, 3, 3], 12, None);
        run(&op, ty, &[1, 5, 5, 6], &[4, 3, 3, 3], 4, None);
        let op = FusedConvolution {
            planar: true,
            strides: vec![2, 2],
            pads_begin: vec![3, 3],
            pads_end: vec![3, 3],
            ..FusedConvolution::default()
        };
        run(&op, ty, &[1, 3, 13, 11], &[16, 3, 7, 7], 16, None);
    }
}

#[test]
fn small_images_share_k_among_blocks() {
    let op = FusedConvolution {
        pads_begin: vec![1, 1],
        pads_end: vec![1, 1],
        ..FusedConvolution::default()
    };
    run(&op, ElementType::F32, &[1, 4, 4, 64], &[16, 64, 3, 3], 16, None);
    run(&op, ElementType::Bf16, &[1, 4, 4, 128], &[16, 128, 3, 3], 16, None);
}

#[test]
fn single_taps_are_plain_products() {
    for ty in FLOATS {
        let op = FusedConvolution::default();
        run(&op, ty, &[1, 4, 4, 24], &[10, 24, 1, 1], 10, Some(&[1, 4, 4, 10]));
        run(&op, ty, &[1, 1, 1, 24], &[10, 24, 1, 1], 10, None);
        let op = FusedConvolution { strides: vec![2, 2], ..FusedConvolution::default() };
        run(&op, ty, &[1, 5, 5, 16], &[10, 16, 1, 1], 10, None);
    }
}

#[test]
fn one_channel_per_output() {
    for ty in FLOATS {
        let mut op = FusedConvolution {
            groups: 16,
            strides: vec![2, 1],
            pads_begin: vec![1, 1],
            pads_end: vec![1, 1],
            ..FusedConvolution::default()
        };
        op.set_activation(Activation::Clamp(0.0, 6.0));
        run(&op, ty, &[2, 7, 6, 16], &[16, 1, 3, 3], 16, Some(&[2, 4, 6, 16]));
        op.groups = 3;
        run(&op, ty, &[1, 7, 6, 3], &[6, 1, 3, 3], 6, None);
        let op = FusedConvolution { groups: 5, dilations: vec![2], ..FusedConvolution::default() };
        run(&op, ty, &[1, 12, 5], &[5, 1, 3], 5, None);
    }
}

#[test]
fn transposed() {
    for ty in FLOATS {
        let op = FusedConvolutionTransposed {
            strides: vec![2, 2],
            pads_begin: vec![1, 0],
            pads_end: vec![0, 1],
            output_padding: vec![1, 0],
            ..FusedConvolutionTransposed::default()
        };
        run(&op, ty, &[1, 4, 3, 8], &[8, 6, 3, 2], 6, None);
        let op = FusedConvolutionTransposed {
            strides: vec![3],
            dilations: vec![2],
            groups: 2,
            ..FusedConvolutionTransposed::default()
        };
        run(&op, ty, &[2, 5, 6], &[6, 2, 3], 4, None);
    }
}

#[test]
fn nothing_to_do() {
    let op = FusedConvolution::default();
    run(&op, ElementType::F32, &[0, 4, 4, 8], &[3, 8, 3, 3], 3, None);
}
