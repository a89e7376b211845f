//! Attention.

use ov_core::{
    ElementType, Tensor,
    op::{
        Op,
        attention::{Attention, ScaledDotProductAttention},
    },
};

use super::{super::attention::ATTENTION, linear::tolerance};
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
fn nothing_to_attend_to() {
    let op = ScaledDotProductAttention::default();
    run(&op, ElementType::F32, [&[2, 3, 8], &[2, 0, 8], &[2, 0, 8]], &[]);
    run(&op, ElementType::F32, [&[2, 0, 8], &[2, 4, 8], &[2, 4, 8]], &[]);
}
