//! Products with constant weights.

use ov_core::{
    ElementType, Tensor,
    op::fused::{activation::Activation, matmul::FullyConnected},
};

use super::super::linear::LINEAR;
use crate::testing::{KernelTest, check, noise};

const FLOATS: [ElementType; 3] = [ElementType::F32, ElementType::F16, ElementType::Bf16];

/// Relative to values: a result is rounded once to its type; sums are f32.
pub(super) fn tolerance(ty: ElementType) -> f64 {
    match ty {
        ElementType::F32 => 2e-5,
        ElementType::F16 => 2e-3,
        _ => 1.2e-2,
    }
}

#[track_caller]
fn case(ty: ElementType, x: &[usize], n: usize, op: &FullyConnected, bias: bool, residual: bool) {
    let k = *x.last().expect("rank of at least 1");
    let w = if op.transpose_b { [n, k] } else { [k, n] };
    let absent = Tensor::absent;
    let y: Vec<usize> = x[..x.len() - 1].iter().copied().chain([n]).collect();
    let inputs = [
        noise(ty, x, 1),
        noise(ty, &w, 2),
        if bias { noise(ty, &[n], 3) } else { absent() },
        if residual { noise(ty, &y, 4) } else { absent() },
    ];
    let test = KernelTest::new(&LINEAR, op, &inputs, tolerance(ty));
    // Sums of many products are close to zero now and then.
    let atol = tolerance(ty) * (k as f64).sqrt().max(1.0);
    check(&KernelTest { atol, ..test }.constants(&[1, 2]));
}

#[test]
fn tiles_and_their_tails() {
    for ty in FLOATS {
        for (x, n) in [
            (&[9_usize, 40][..], 24),
            (&[17, 33], 65),
            (&[2, 20, 64], 72),
            (&[70, 130], 66),
            (&[16, 8], 7),
            (&[33, 1], 1),
        ] {
            for transpose_b in [false, true] {
                let op = FullyConnected { transpose_b, ..FullyConnected::default() };
                case(ty, x, n, &op, transpose_b, !transpose_b);
            }
        }
    }
}

#[test]
fn few_columns_share_k_among_blocks() {
    for ty in FLOATS {
        let mut op = FullyConnected { transpose_b: true, ..FullyConnected::default() };
        op.set_activation(Activation::Relu);
        case(ty, &[12, 1032], 40, &op, true, true);
        case(ty, &[20, 777], 3, &op, true, false);
    }
}

#[test]
fn few_rows() {
    for ty in FLOATS {
        for (m, k, n) in
            [(1, 64, 10), (1, 1030, 3), (3, 100, 9), (5, 8, 33), (8, 520, 17), (1, 1, 1)]
        {
            let op = FullyConnected { transpose_b: true, ..FullyConnected::default() };
            case(ty, &[m, k], n, &op, true, m % 2 == 1);
        }
    }
}

#[test]
fn nothing_to_do() {
    let op = FullyConnected::default();
    for ty in FLOATS {
        case(ty, &[0, 16], 8, &op, true, false);
        case(ty, &[12, 0], 8, &op, true, true);
        case(ty, &[3, 0], 8, &op, true, false);
    }
}

#[test]
fn activations() {
    for id in 0..=16 {
        let activation = Activation::from_parts(id, [0.3, 0.7]).expect("known");
        for residual_after in [false, true] {
            let mut op = FullyConnected { residual_after, ..FullyConnected::default() };
            op.set_activation(activation);
            case(ElementType::F32, &[2, 5, 12], 9, &op, true, true);
        }
    }
}
