//! Whole programs against the reference interpreter.

use std::{sync::Arc, time::Duration};

use ov_core::{
    ElementType, Model, PartialShape, Tensor,
    op::activation::{Elu, Relu},
    plugin::CancelToken,
    reference,
    tensor::{AlignedBuffer, TensorBuffer},
};

use super::{Executable, Runner, Target};
use crate::{
    compile::compile,
    lower::Options,
    priority::Control,
    program::{WeightBytes, decode},
    simd::Isa,
    team::Team,
};

/// Compiles, writes the blob's sections, and binds what was written.
pub(crate) fn executable(model: &Model, threads: usize) -> Arc<Executable> {
    let isa = Isa::detect();
    let compiled = compile(model, &Options { isa, bf16: false, round: false }).expect("compiles");
    let mut section = AlignedBuffer::zeroed(compiled.weights.len()).expect("fits");
    let len = compiled.weights.len();
    compiled.weights.write(section.bytes_mut().expect("owned"));
    let program = decode(&compiled.plan, len).expect("what was written can be read");
    Arc::new(Executable::new(program, WeightBytes(Arc::new(section)), Target { isa, threads }))
}

fn runner(model: &Model, threads: usize) -> Runner {
    let team = Arc::new(Team::new(threads, Duration::from_micros(50), &[]).expect("threads"));
    Runner::new(executable(model, threads), team, false)
}

fn chain(shape: impl Into<PartialShape>, length: usize) -> Model {
    let mut m = Model::new("chain");
    let mut v = m.add_parameter("x", ElementType::F32, shape).expect("valid");
    m.add_output("input", v);
    for i in 0..length {
        v = if i % 2 == 0 {
            m.add(Elu { alpha: 0.5 }, &[v], "elu")
        } else {
            m.add(Relu {}, &[v], "relu")
        }
        .expect("valid");
    }
    m.add_output("y", v);
    m.add_output("again", v);
    m
}

fn canceled() -> CancelToken {
    let token = CancelToken::new();
    token.cancel();
    token
}

fn ramp(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::from_vec(shape, (0..n).map(|i| (i as f32).sin()).collect::<Vec<f32>>()).expect("fits")
}

#[test]
fn programs_give_what_the_reference_gives() {
    for threads in [1, 2] {
        for (model, shapes) in [
            (chain([3, 5], 5), vec![[3, 5]]),
            (chain([3, 0], 4), vec![[3, 0]]),
            (chain(PartialShape::dynamic_rank(2), 3), vec![[2, 3], [4, 1], [2, 3], [0, 7]]),
        ] {
            let mut runner = runner(&model, threads);
            let mut outputs = vec![Tensor::absent(); 3];
            for shape in shapes {
                let x = ramp(&shape);
                runner
                    .run(
                        std::slice::from_ref(&x),
                        &mut outputs,
                        &[],
                        &Control::new(&CancelToken::new()),
                    )
                    .expect("runs");
                let expected = reference::evaluate(&model, &[x]).expect("runs");
                for (got, expected) in outputs.iter().zip(&expected) {
                    ov_core::testing::compare(got, expected, 1e-6, 1e-6).expect("equal");
                }
            }
        }
    }
}

#[test]
fn outputs_are_written_where_they_are() {
    let mut runner = runner(&chain([64], 3), 1);
    let mut outputs = vec![Tensor::absent(); 3];
    let x = ramp(&[64]);
    runner
        .run(std::slice::from_ref(&x), &mut outputs, &[], &Control::new(&CancelToken::new()))
        .expect("runs");
    let addresses: Vec<_> = outputs.iter().map(Tensor::as_ptr).collect();
    runner.run(&[x], &mut outputs, &[], &Control::new(&CancelToken::new())).expect("runs");
    assert_eq!(addresses, outputs.iter().map(Tensor::as_ptr).collect::<Vec<_>>());
}

#[test]
fn a_cancelled_run_says_so_and_the_runner_stays_usable() {
    let mut runner = runner(&chain([8], 3), 2);
    let mut outputs = vec![Tensor::absent(); 3];
    let x = ramp(&[8]);
    let canceled =
        runner.run(std::slice::from_ref(&x), &mut outputs, &[], &Control::new(&canceled()));
    assert!(canceled.expect_err("canceled").to_string().contains("cancel"));
    runner.run(&[x], &mut outputs, &[], &Control::new(&CancelToken::new())).expect("runs");
}

#[test]
fn damaged_programs_are_refused() {
    let compiled =
        compile(&chain([3, 5], 5), &Options { isa: Isa::detect(), bf16: false, round: false })
            .expect("compiles");
    let len = compiled.weights.len();
    assert!(decode(&compiled.plan, len).is_ok());
    for cut in 0..compiled.plan.len() {
        assert!(decode(&compiled.plan[..cut], len).is_err(), "cut at {cut}");
    }
    for at in 0..compiled.plan.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut bytes = compiled.plan.clone();
            bytes[at] ^= flip;
            drop(decode(&bytes, len));
        }
    }
}

#[test]
fn branches_run_as_programs_of_their_own() {
    use ov_core::op::control_flow::If;
    let branch = |relu: bool| {
        let mut b = Model::new(if relu { "then" } else { "else" });
        let x = b.add_parameter("x", ElementType::F32, [6]).expect("valid");
        let y = if relu { b.add(Relu {}, &[x], "r") } else { b.add(Elu::default(), &[x], "e") };
        b.add_output("y", y.expect("valid"));
        b
    };
    let mut m = Model::new("branches");
    let c = m.add_parameter("c", ElementType::Boolean, []).expect("valid");
    let x = m.add_parameter("x", ElementType::F32, [6]).expect("valid");
    let before = m.add(Elu { alpha: 0.5 }, &[x], "before").expect("valid");
    let choice = If {
        then_body: branch(true),
        else_body: branch(false),
        then_inputs: vec![1],
        else_inputs: vec![1],
        then_outputs: vec![0],
        else_outputs: vec![0],
    };
    let y = m.add(choice, &[c, before], "if").expect("valid");
    let after = m.add(Relu {}, &[y], "after").expect("valid");
    for value in [y, before, after] {
        m.add_output("out", value);
    }
    let mut runner = runner(&m, 2);
    let mut outputs = vec![Tensor::absent(); 3];
    for condition in [true, false, true] {
        let inputs = [Tensor::from_bools([], &[condition]).expect("fits"), ramp(&[6])];
        runner.run(&inputs, &mut outputs, &[], &Control::new(&CancelToken::new())).expect("runs");
        let expected = reference::evaluate(&m, &inputs).expect("runs");
        for (got, expected) in outputs.iter().zip(&expected) {
            ov_core::testing::compare(got, expected, 1e-6, 1e-6).expect("equal");
        }
    }
}
