//! Small models through everything: lowering, blob, plan, graphs, copies.

use ov_core::{
    Model,
    op::{
        activation::{Relu, Sigmoid},
        arithmetic::{Add, Multiply},
        matmul::MatMul,
        softmax::SoftMax,
    },
};

use super::*;

/// `softmax(sigmoid(relu(x² w0 + b0) w1 + b1))`
pub(super) fn mlp() -> Model {
    let mut m = Model::new("mlp");
    let x = parameter(&mut m, "x", &[3, 20]);
    let w0 = m.add_constant(noise(&[20, 36], 1), "w0");
    let b0 = m.add_constant(noise(&[36], 2), "b0");
    let w1 = m.add_constant(noise(&[36, 10], 3), "w1");
    let b1 = m.add_constant(noise(&[10], 4), "b1");
    let x = m.add(Multiply::default(), &[x, x], "square").expect("valid");
    let y = m.add(MatMul::default(), &[x, w0], "p0").expect("valid");
    let y = m.add(Add::default(), &[y, b0], "s0").expect("valid");
    let y = m.add(Relu {}, &[y], "r0").expect("valid");
    let y = m.add(MatMul::default(), &[y, w1], "p1").expect("valid");
    let y = m.add(Add::default(), &[y, b1], "s1").expect("valid");
    let y = m.add(Sigmoid {}, &[y], "g").expect("valid");
    let y = m.add(SoftMax { axis: 1 }, &[y], "y").expect("valid");
    m.add_output("y", y);
    m
}

#[test]
fn a_small_perceptron_gives_what_the_reference_gives() {
    let Some(machine) = machine() else { return };
    let kernels = check(&machine, &mlp(), &[noise(&[3, 20], 9)], &exact(), 1e-5);
    assert!(kernels.iter().all(|k| k != "host"), "{kernels:?}");
}

#[test]
fn element_wise_operators_run_without_the_host() {
    let Some(machine) = machine() else { return };
    let mut m = Model::new("m");
    let x = parameter(&mut m, "x", &[2, 5]);
    let b = m.add_constant(noise(&[5], 2), "b");
    let y = m.add(Add::default(), &[x, b], "a").expect("valid");
    let z = m.add(Sigmoid {}, &[y], "s").expect("valid");
    let z = m.add(Multiply::default(), &[z, y], "p").expect("valid");
    m.add_output("z", z);
    m.add_output("y", y);
    let kernels = check(&machine, &m, &[noise(&[2, 5], 1)], &exact(), 1e-6);
    assert!(kernels.iter().all(|k| k != "host"), "{kernels:?}");
}
