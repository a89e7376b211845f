//! Whole programs on every instruction set against the reference, for the tests of the kernels' adapters.

use std::{sync::Arc, time::Duration};

use ov_core::{
    ElementType, Model, Shape, Tensor,
    model::Value,
    plugin::CancelToken,
    reference,
    tensor::{AlignedBuffer, TensorBuffer},
};

use crate::{
    compile::compile,
    kernels::testing::values,
    lower::Options,
    plan::{Executable, Runner, Target},
    priority::Control,
    program::{WeightBytes, decode},
    simd::Isa,
    team::Team,
};

/// A tensor of values in -2..2.
pub(crate) fn noise(shape: &[usize], seed: u32) -> Tensor {
    Tensor::from_vec(shape, values(shape.iter().product(), seed)).expect("fits")
}

/// An `f32` input of `model`.
pub(crate) fn parameter(model: &mut Model, name: &str, shape: &[usize]) -> Value {
    model.add_parameter(name, ElementType::F32, Shape::new(shape)).expect("valid")
}

/// Runs `model` on every instruction set with one and two threads and compares with the reference. Some node must run
/// by a kernel whose name starts with `kernel`.
#[track_caller]
pub(crate) fn check(what: &str, model: &Model, inputs: &[Tensor], kernel: &str, tolerance: f64) {
    check_with(what, model, inputs, kernel, tolerance, false);
}

/// [`check`], in bf16 on the instruction sets that have it.
#[track_caller]
pub(crate) fn check_bf16(
    what: &str,
    model: &Model,
    inputs: &[Tensor],
    kernel: &str,
    tolerance: f64,
) {
    check_with(what, model, inputs, kernel, tolerance, true);
}

#[track_caller]
fn check_with(
    what: &str,
    model: &Model,
    inputs: &[Tensor],
    kernel: &str,
    tolerance: f64,
    bf16: bool,
) {
    let expected = reference::evaluate(model, inputs).expect("the reference runs");
    for isa in Isa::available().filter(|isa| !bf16 || isa.has_bf16()) {
        for threads in [1, 2] {
            let compiled = compile(model, &Options { isa, bf16, round: false }).expect("compiles");
            let len = compiled.weights.len();
            let mut section = AlignedBuffer::zeroed(len).expect("fits");
            compiled.weights.write(section.bytes_mut().expect("owned"));
            let program = decode(&compiled.plan, len).expect("what was written can be read");
            let names: Vec<&str> = program.nodes.iter().map(|n| n.kernel.name).collect();
            assert!(names.iter().any(|n| n.starts_with(kernel)), "{what}: kernels are {names:?}");
            let target = Target { isa, threads };
            let exe = Executable::new(program, WeightBytes(Arc::new(section)), target);
            let team = Team::new(threads, Duration::from_micros(50), &[]).expect("threads");
            let mut runner = Runner::new(Arc::new(exe), Arc::new(team), false);
            let mut outputs = vec![Tensor::absent(); expected.len()];
            for round in 0..2 {
                runner
                    .run(inputs, &mut outputs, &[], &Control::new(&CancelToken::new()))
                    .unwrap_or_else(|e| panic!("{what} {isa}: {e}"));
                for (i, (got, expected)) in outputs.iter().zip(&expected).enumerate() {
                    if let Err(e) = ov_core::testing::compare(got, expected, tolerance, tolerance) {
                        panic!("{what} {isa}, {threads} threads, round {round}, output {i}: {e}");
                    }
                }
            }
        }
    }
}
