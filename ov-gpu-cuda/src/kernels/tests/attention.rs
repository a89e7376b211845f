//! Attention.

use ov_core::{
    ElementType, Tensor,
    op::{
        Op,
        attention::{Attention, ScaledDotProductAttention},
    },
};

use super::{
    super::{Gpu, attention::ATTENTION},
    linear::tolerance,
};
use crate::testing::{KernelTest, check, noise};

#[track_caller]
fn run(op: &dyn Op, ty: ElementType, shapes: [&[usize]; 3], more: &[Tensor]) {
    let mut inputs: Vec<Tensor> =
        shapes.iter().zip(1..).map(|(shape, seed)| noise(ty, shape, seed)).collect();
    inputs.extend_from_slice(more);
    let test = KernelTest::new(&ATTENTION, op, &inputs, 2.0 * tolerance(ty));
    check(&test.constants(&[4]));
}

/// About a third of the keys hidden, in the second row all of them.
fn hiding(shape: &[usize]) -> Tensor {
    let keys = *shape.last().expect("a mask has axes");
    let seen: Vec<bool> = (0..shape.iter().product())
        .map(|i: usize| i / keys != 1 && !(i * 7 + i / 5).is_multiple_of(3))
        .collect();
    Tensor::from_bools(shape, &seen).expect("as many as the shape has")
}

#[test]
fn heads_with_and_without_masks() {
    let op = ScaledDotProductAttention::default();
    for ty in [ElementType::F32, ElementType::F16, ElementType::Bf16] {
        run(&op, ty, [&[2, 3, 5, 16], &[2, 3, 7, 16], &[2, 3, 7, 16]], &[]);
        run(&op, ty, [&[1, 2, 33, 40], &[1, 2, 70, 40], &[1, 2, 70, 72]], &[hiding(&[33, 70])]);
        run(
            &op,
            ty,
            [&[2, 2, 3, 8], &[2, 2, 40, 8], &[2, 2, 40, 8]],
            &[noise(ty, &[2, 1, 1, 40], 5)],
        );
        run(&op, ty, [&[2, 17, 8], &[1, 19, 8], &[1, 19, 8]], &[noise(ty, &[2, 17, 19], 5)]);
        let scale = Tensor::scalar(0.25_f32).cast(ty).expect("a float");
        run(&op, ty, [&[4, 8], &[6, 8], &[6, 4]], &[Tensor::absent(), scale]);
    }
}

#[test]
fn causal_and_grouped() {
    for ty in [ElementType::F32, ElementType::Bf16] {
        let op = ScaledDotProductAttention { causal: true };
        run(&op, ty, [&[2, 37, 8], &[2, 37, 8], &[2, 37, 8]], &[]);
        let op = Attention { is_causal: true, scale: 0.3, ..Attention::default() };
        run(&op, ty, [&[2, 4, 18, 8], &[2, 2, 18, 8], &[2, 2, 18, 12]], &[]);
        let op = Attention::default();
        run(&op, ty, [&[1, 6, 1, 64], &[1, 2, 45, 64], &[1, 2, 45, 64]], &[hiding(&[1, 45])]);
        run(&op, ty, [&[2, 2, 3, 8], &[2, 2, 9, 8], &[2, 2, 9, 8]], &[hiding(&[2, 1, 3, 6])]);
    }
}

#[test]
fn many_keys_are_shared_by_blocks() {
    let op = ScaledDotProductAttention::default();
    for ty in [ElementType::F32, ElementType::Bf16] {
        run(&op, ty, [&[2, 1, 64], &[2, 300, 64], &[2, 300, 64]], &[]);
        run(&op, ty, [&[1, 3, 2, 24], &[1, 3, 601, 24], &[1, 3, 601, 40]], &[hiding(&[2, 601])]);
        let op = Attention { is_causal: true, ..Attention::default() };
        let offset = Tensor::from_i64s(&[410]);
        run(
            &op,
            ty,
            [&[1, 8, 3, 16], &[1, 2, 413, 16], &[1, 2, 413, 16]],
            &[Tensor::absent(), Tensor::absent(), offset],
        );
    }
    // Blocks whose share of the keys is hidden.
    let op = Attention { is_causal: true, ..Attention::default() };
    run(&op, ElementType::F16, [&[1, 2, 3, 8], &[1, 2, 500, 8], &[1, 2, 500, 8]], &[]);
}

#[test]
fn windows_lengths_offsets_and_caps() {
    let absent = Tensor::absent;
    for ty in [ElementType::F32, ElementType::F16, ElementType::Bf16] {
        let shapes: [&[usize]; 3] = [&[3, 4, 21, 16], &[3, 2, 90, 16], &[3, 2, 90, 24]];
        let lengths = || Tensor::from_i64s(&[0, 57, 90]);
        for (left, right, is_causal) in [
            (5, 3, false),
            (0, -1, true),
            (-1, 7, false),
            (40, 0, true),
            (i64::MAX, i64::MAX, false),
        ] {
            let op = Attention {
                left_window_size: left,
                right_window_size: right,
                is_causal,
                ..Attention::default()
            };
            run(&op, ty, shapes, &[]);
            run(&op, ty, shapes, &[absent(), lengths()]);
            let offsets = Tensor::from_i64s(&[3, -2, 60]).cast(ElementType::I32).expect("fits");
            run(&op, ty, shapes, &[hiding(&[21, 70]), lengths(), offsets]);
        }
        let op = Attention { softcap: 1.5, smooth_softmax: true, ..Attention::default() };
        run(&op, ty, shapes, &[hiding(&[3, 1, 21, 90]), lengths()]);
        run(&op, ty, shapes, &[noise(ty, &[4, 1, 90], 7), Tensor::from_i64s(&[64])]);
        let op = Attention { smooth_softmax: true, ..Attention::default() };
        run(&op, ty, [&[1, 2, 1, 16], &[1, 2, 333, 16], &[1, 2, 333, 16]], &[hiding(&[1, 333])]);
    }
}

#[test]
fn heads_of_every_extent() {
    let op = ScaledDotProductAttention::default();
    for ty in [ElementType::F32, ElementType::Bf16] {
        for (e, ev) in [(1, 3), (9, 7), (80, 96), (128, 128), (256, 200), (264, 520), (33, 1)] {
            run(&op, ty, [&[1, 18, e], &[1, 37, e], &[1, 37, ev]], &[]);
        }
    }
    // Less shared memory: smaller tiles.
    for (ty, e) in [(ElementType::F32, 192), (ElementType::F16, 512)] {
        let inputs = [noise(ty, &[3, e], 1), noise(ty, &[70, e], 2), noise(ty, &[70, 16], 3)];
        let test = KernelTest::new(&ATTENTION, &op, &inputs, 2.0 * tolerance(ty));
        let gpu = Gpu { shared_per_block: 48 << 10, ..test.gpu };
        check(&KernelTest { gpu, ..test });
    }
}

#[test]
fn few_multiprocessors_get_large_tiles() {
    let op = ScaledDotProductAttention::default();
    for ty in [ElementType::F32, ElementType::F16] {
        let inputs = [
            noise(ty, &[2, 70, 32], 1),
            noise(ty, &[2, 130, 32], 2),
            noise(ty, &[2, 130, 32], 3),
            hiding(&[70, 130]),
        ];
        let test = KernelTest::new(&ATTENTION, &op, &inputs, 2.0 * tolerance(ty));
        check(&KernelTest { gpu: Gpu { multiprocessors: 1, ..test.gpu }, ..test });
    }
}

#[test]
fn nothing_to_attend_to() {
    let op = ScaledDotProductAttention::default();
    run(&op, ElementType::F32, [&[2, 3, 8], &[2, 0, 8], &[2, 0, 8]], &[]);
    run(&op, ElementType::F32, [&[2, 0, 8], &[2, 4, 8], &[2, 4, 8]], &[]);
}
