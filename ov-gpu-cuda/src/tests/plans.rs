//! Plans of several shapes on one slot.

use ov_core::{Dimension, PartialShape, op::matmul::MatMul};

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

#[test]
fn what_one_plan_leaves_does_not_reach_the_next() {
    let Some(machine) = machine() else { return };
    let model = shared_sums();
    let compiled = machine.core.compile_model(model.clone(), "CUDA.0", &exact()).expect("compiles");
    let mut request = compiled.create_infer_request().expect("memory");
    // The largest first: its memory serves the others.
    for (round, rows) in [64, 9, 17, 64, 9].into_iter().enumerate() {
        let x = noise(&[rows, 2048], 3 + round as u64);
        let expected = reference::evaluate(&model, std::slice::from_ref(&x)).expect("runs");
        let got = request.run(&[x]).expect("runs");
        for (got, expected) in got.iter().zip(&expected) {
            ov_core::testing::compare(got, expected, 1e-4, 1e-3)
                .unwrap_or_else(|e| panic!("round {round}, {rows} rows: {e}"));
        }
    }
}
