//! Products of two computed operands.

use ov_core::{
    ElementType, Tensor,
    op::matmul::{MatMul, MatMulInteger},
};

use super::{super::matmul::MATMUL, integer::bytes, linear::tolerance, whole};
use crate::testing::{KernelTest, check, noise};

fn cases() -> [(Vec<usize>, Vec<usize>); 8] {
    [
        (vec![3, 5], vec![5, 4]),
        (vec![2, 17, 40], vec![2, 40, 24]),
        (vec![2, 3, 16, 8], vec![3, 8, 16]),
        (vec![4, 1, 9, 33], vec![1, 2, 33, 65]),
        (vec![2, 5, 16], vec![16, 8]),
        (vec![7], vec![2, 7, 3]),
        (vec![2, 3, 7], vec![7]),
        (vec![2, 0, 7], vec![7, 3]),
    ]
}

fn turned(mut shape: Vec<usize>) -> Vec<usize> {
    let rank = shape.len();
    if rank > 1 {
        shape.swap(rank - 1, rank - 2);
    }
    shape
}

#[test]
fn operands_either_way_and_broadcast() {
    for ty in [ElementType::F32, ElementType::F16, ElementType::Bf16] {
        for (a, b) in cases() {
            for (transpose_a, transpose_b) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let op = MatMul { transpose_a, transpose_b };
                let a = if transpose_a { turned(a.clone()) } else { a.clone() };
                let b = if transpose_b { turned(b.clone()) } else { b.clone() };
                let inputs = [noise(ty, &a, 1), noise(ty, &b, 2)];
                let test = KernelTest::new(&MATMUL, &op, &inputs, tolerance(ty));
                check(&KernelTest { atol: 8.0 * tolerance(ty), ..test });
            }
        }
    }
}

#[test]
fn other_numbers() {
    for ty in [ElementType::F64, ElementType::I32, ElementType::I64, ElementType::U8] {
        for (a, b) in cases() {
            let inputs = match ty {
                ElementType::F64 => [noise(ty, &a, 1), noise(ty, &b, 2)],
                _ => [whole(ty, &a, 1), whole(ty, &b, 2)],
            };
            check(&KernelTest::new(&MATMUL, &MatMul::default(), &inputs, 1e-12));
        }
    }
}

#[test]
fn bytes_less_their_zero_points() {
    use ElementType::{I8, U8};
    let zeros = |ty, count: usize, first: i64| {
        let values: Vec<i64> = (0..count as i64).map(|i| first + i % 7).collect();
        Tensor::from_i64s(&values).cast(ty).expect("numbers")
    };
    for (a_ty, b_ty) in [(U8, I8), (I8, U8), (U8, U8), (I8, I8)] {
        for (a, b) in cases() {
            let lines = |shape: &[usize], back: usize| {
                shape.len().checked_sub(back).map_or(1, |axis| shape[axis])
            };
            let (rows, columns) = (lines(&a, 2), if b.len() > 1 { lines(&b, 1) } else { 1 });
            let matrices = |shape: &[usize]| shape.iter().rev().skip(2).product::<usize>();
            for (of_a, of_b) in [
                (None, None),
                (Some(1), Some(1)),
                (Some(rows), Some(columns)),
                (Some(rows * matrices(&a)), None),
                (None, Some(columns * matrices(&b))),
            ] {
                let zero = |ty, count: Option<usize>, first| {
                    count.map_or_else(Tensor::absent, |count| zeros(ty, count, first))
                };
                let inputs = [
                    bytes(a_ty, &a, 1),
                    bytes(b_ty, &b, 2),
                    zero(a_ty, of_a, 100),
                    zero(b_ty, of_b, 21),
                ];
                check(&KernelTest::new(&MATMUL, &MatMulInteger {}, &inputs, 0.0));
            }
        }
        let inputs = [bytes(a_ty, &[70, 68], 1), bytes(b_ty, &[68, 132], 2)];
        check(&KernelTest::new(&MATMUL, &MatMulInteger {}, &inputs, 0.0));
    }
}
