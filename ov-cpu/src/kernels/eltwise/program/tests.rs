//! Programs against the same operations one element at a time.

use super::*;
use crate::kernels::testing::{assert_close, values};
use crate::simd::activation::Activation;

use super::Instruction as I;
use BinaryOp as B;

fn act(a: Activation, x: Value) -> Instruction {
    I::Unary(UnaryOp::Activation(a), x)
}

/// `(silu(x * scale[c] + shift[c]) * gate + 3, max(-gate, x))` with a constant 3.
fn sample() -> Program {
    Program::new(
        4,
        vec![3.0],
        vec![
            I::Binary(B::Mul, 0, 1),
            I::Binary(B::Add, 5, 2),
            act(Activation::Sigmoid, 6),
            I::Binary(B::Mul, 6, 7),
            I::Binary(B::Mul, 8, 3),
            I::Unary(UnaryOp::Neg, 3),
            I::Binary(B::Max, 10, 0),
            I::Binary(B::Add, 4, 9),
        ],
        vec![12, 11],
    )
    .expect("valid")
}

fn reference(x: f64, scale: f64, shift: f64, gate: f64) -> (f64, f64) {
    let t = x * scale + shift;
    (t / (1.0 + (-t).exp()) * gate + 3.0, (-gate).max(x))
}

#[test]
fn broadcasts_and_matches_reference() {
    let table: [[&[usize]; 4]; 10] = [
        [&[2, 3, 17], &[17], &[17], &[2, 1, 17]],
        [&[4, 700], &[700], &[], &[4, 1]],
        [&[1000], &[1000], &[1], &[]],
        [&[5, 600], &[5, 1], &[600], &[5, 600]],
        [&[7, 1, 3], &[3], &[7, 1, 1], &[5, 3]],
        [&[2, 9, 9, 64], &[64], &[64], &[2, 1, 1, 64]],
        [&[33, 512], &[512], &[512], &[33, 1]],
        [&[1], &[1], &[], &[1, 1]],
        [&[0, 8], &[8], &[8], &[1]],
        [&[3, 1], &[1, 5], &[3, 5], &[]],
    ];
    for isa in Isa::available() {
        let program = sample();
        for shapes in table {
            let plan = ProgramPlan::new(&program, &shapes).expect("fits");
            let walk = BroadcastPlan::new(shapes).expect("fits");
            let x: Vec<Vec<f32>> =
                (0..4).map(|i| values(walk.input_len()[i], i as u32 + 1)).collect();
            let inputs: Vec<Input<'_>> = x.iter().map(|x| Input::Slice(x)).collect();
            let mut y = [vec![9.0; plan.len()], vec![9.0; plan.len()]];
            let [a, b] = &mut y;
            let (a, b) = (Out::new(a), Out::new(b));
            let mut scratch = vec![f32::NAN; plan.scratch_len()];
            let middle = plan.items() / 2;
            plan.run(isa, &inputs, &[&a, &b], &mut scratch, 0..middle);
            scratch.fill(f32::NAN);
            plan.run(isa, &inputs, &[&a, &b], &mut scratch, middle..plan.items());
            let mut e = [vec![], vec![]];
            walk.for_each_run(0..walk.len(), |run| {
                for k in 0..run.len {
                    let s = walk.inner_strides();
                    let v = |i: usize| f64::from(x[i][run.input[i] + k * s[i]]);
                    let (p, q) = reference(v(0), v(1), v(2), v(3));
                    e[0].push(p);
                    e[1].push(q);
                }
            });
            for i in 0..2 {
                assert_close(&y[i], &e[i], 1e-5, &format!("{isa} {shapes:?} output {i}"));
            }
        }
    }
}

#[test]
fn input_may_be_in_an_output() {
    let program = Program::new(
        1,
        vec![],
        vec![I::Unary(UnaryOp::Exp, 0), I::Binary(B::Sub, 1, 0), I::Binary(B::Mul, 2, 0)],
        vec![1, 3],
    )
    .expect("valid");
    for isa in Isa::available() {
        for n in [1, 1300] {
            let x = values(n, 1);
            let plan = ProgramPlan::new(&program, &[&[n]]).expect("fits");
            let mut scratch = vec![0.0; plan.scratch_len()];
            for place in 0..2 {
                let mut y = [x.clone(), x.clone()];
                let [a, b] = &mut y;
                let out = [&Out::new(a), &Out::new(b)];
                plan.run(isa, &[Input::Output(place)], &out, &mut scratch, 0..plan.items());
                for i in 0..n {
                    assert!((y[0][i] - x[i].exp()).abs() < 1e-5, "{isa} {place} {i}");
                    assert!(
                        (y[1][i] - (x[i].exp() - x[i]) * x[i]).abs() < 1e-5,
                        "{isa} {place} {i}"
                    );
                }
            }
        }
    }
}

#[test]
fn many_constants_keep_their_places() {
    let n = MAX_INSTRUCTIONS as Value;
    let constants = (0..n).map(f32::from).collect();
    let p = Program::new(1, constants, vec![I::Binary(B::Add, 0, n)], vec![n + 1]).expect("valid");
    let plan = ProgramPlan::new(&p, &[&[3]]).expect("fits");
    let (mut y, mut scratch) = (vec![0.0; 3], vec![0.0; plan.scratch_len()]);
    plan.run(
        Isa::PORTABLE,
        &[Input::Slice(&[1.0, 2.0, 3.0])],
        &[&Out::new(&mut y)],
        &mut scratch,
        0..1,
    );
    assert_eq!(y, [256.0, 257.0, 258.0]);
}

#[test]
fn rejects_values_that_are_not_there() {
    assert_eq!(
        Program::new(1, vec![], vec![I::Unary(UnaryOp::Neg, 1)], vec![1]),
        Err(ProgramError::Order { at: 0, value: 1 })
    );
    assert_eq!(
        Program::new(1, vec![], vec![I::Unary(UnaryOp::Neg, 0)], vec![0]),
        Err(ProgramError::Outputs(vec![0]))
    );
}
