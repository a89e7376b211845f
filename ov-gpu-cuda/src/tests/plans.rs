//! Plans of several shapes on one slot.

use ov_core::{
    Dimension, PartialShape,
    op::{
        matmul::MatMul,
        quantize::{DequantizeLinear, QuantizeLinear},
    },
};

use super::*;

/// Two products whose rows are so few that several blocks share the sums of each.
fn shared_sums() -> Model {
    let mut m = Model::new("shared");
    let rows = PartialShape::new(&[Dimension::DYNAMIC, Dimension::fixed(2048)]);
    let x = m.add_parameter("x", ElementType::F32, rows).expect("valid");
    for (name, seed) in [("y", 1), ("z", 2)] {
        let w = m.add_constant(noise(&[2048, 32], seed), "w");
        let product = m.add(MatMul::default(), &[x, w], name).expect("valid");
        m.add_output(name, product);
    }
    m
}

/// The same with bytes: a product whose few columns make blocks share its sums.
fn shared_sums_of_bytes() -> Model {
    let mut m = Model::new("shared bytes");
    let rows = PartialShape::new(&[Dimension::DYNAMIC, Dimension::fixed(2048)]);
    let x = m.add_parameter("x", ElementType::F32, rows).expect("valid");
    let step = m.add_constant(Tensor::scalar(0.0078125f32), "step");
    let zero = m.add_constant(Tensor::scalar(120u8), "zero");
    let bytes = m.add(QuantizeLinear::default(), &[x, step, zero], "bytes").expect("valid");
    let x = m.add(DequantizeLinear::default(), &[bytes, step, zero], "x").expect("valid");
    for (name, seed) in [("y", 1), ("z", 2)] {
        let w = noise(&[2048, 32], seed).to_f64_vec().expect("numbers");
        let w: Vec<f64> = w.iter().map(|v| (v * 127.0).round()).collect();
        let w = m.add_constant(Tensor::from_f64s::<i8>([2048, 32], &w).expect("fits"), "w");
        let w = m.add(DequantizeLinear::default(), &[w, step], "weights").expect("valid");
        let product = m.add(MatMul::default(), &[x, w], name).expect("valid");
        m.add_output(name, product);
    }
    m
}

#[test]
fn what_one_plan_leaves_does_not_reach_the_next() {
    let Some(machine) = machine() else { return };
    for (model, kernel) in [(shared_sums(), "linear"), (shared_sums_of_bytes(), "integer")] {
        let compiled =
            machine.core.compile_model(model.clone(), "CUDA.0", &exact()).expect("compiles");
        let kernels: Vec<String> = compiled.runtime_nodes().into_iter().map(|n| n.kernel).collect();
        assert_eq!(kernels.iter().filter(|k| *k == kernel).count(), 2, "{kernels:?}");
        let mut request = compiled.create_infer_request().expect("memory");
        // The largest first: its memory serves the others.
        for (round, rows) in [64, 9, 17, 64, 9].into_iter().enumerate() {
            let x = noise(&[rows, 2048], 3 + round as u64);
            let expected = reference::evaluate(&model, std::slice::from_ref(&x)).expect("runs");
            let got = request.run(&[x]).expect("runs");
            for (got, expected) in got.iter().zip(&expected) {
                ov_core::testing::compare(got, expected, 1e-4, 1e-3)
                    .unwrap_or_else(|e| panic!("{kernel}, round {round}, {rows} rows: {e}"));
            }
        }
    }
}
