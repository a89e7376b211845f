//! Graphs before and after, compared on the reference.

use super::*;
use crate::{
    op::{activation::Relu, concat::Split, pooling::MaxPool1},
    pass::testing::{Build, assert_same_on, random},
};

/// The value through bytes of this step and zero point, and back.
fn quantized(b: &mut Build, x: Value, step: f64, zero: u8) -> Value {
    let (step, zero) = (b.scalar(step), b.constant(Tensor::scalar(zero)));
    let bytes = b.add(QuantizeLinear::default(), &[x, step, zero]);
    b.add(DequantizeLinear::default(), &[bytes, step, zero])
}

fn begin() -> (Build, Value) {
    let mut b = Build::new();
    let x = b.input(Shape::new(&[2, 4, 6]));
    let x = quantized(&mut b, x, 0.25, 9);
    (b, x)
}

/// The operators left after the pass, which changes no result; the device moves what the tests move.
fn left(model: &Model) -> Vec<String> {
    let moves = |op: &dyn Op| op.is::<MaxPool1>() || op.is::<Concat>() || op.is::<Split>();
    let mut after = model.clone();
    products(&mut after, &moves).expect("valid");
    after.verify().expect("consistent");
    assert_same_on(model, &after, &[random([2, 4, 6], 3)]);
    let order = after.topological_order().expect("no cycle").into_iter().map(|id| after.node(id));
    order.filter(|n| !n.inputs().is_empty()).map(|n| n.op().kind().name.to_owned()).collect()
}

#[test]
fn what_moves_elements_stays_in_bytes_between_equal_steps() {
    let (mut b, x) = begin();
    let pool = MaxPool1 {
        kernel: vec![2],
        strides: vec![2],
        pads_begin: vec![0],
        pads_end: vec![0],
        ..MaxPool1::default()
    };
    let y = b.add(pool, &[x]);
    let y = quantized(&mut b, y, 0.25, 9);
    assert_eq!(left(&b.output(y)), ["QuantizeLinear", "MaxPool", "DequantizeLinear"]);
}

#[test]
fn only_what_the_device_moves_stays_in_bytes() {
    let (mut b, x) = begin();
    let y = b.add(Relu {}, &[x]);
    let y = quantized(&mut b, y, 0.25, 9);
    let pair = ["QuantizeLinear", "DequantizeLinear"];
    assert_eq!(left(&b.output(y)), [&pair[..], &["ReLU"], &pair].concat());
}

#[test]
fn every_input_of_a_concatenation_has_the_steps_of_its_result() {
    for (step, zero, bytes) in [(0.25, 9, true), (0.25, 8, false), (0.5, 9, false)] {
        let (mut b, x) = begin();
        let y = b.add(Relu {}, &[x]);
        let y = quantized(&mut b, y, step, zero);
        let both = b.add(Concat { axis: 1 }, &[x, y]);
        let both = quantized(&mut b, both, 0.25, 9);
        let left = left(&b.output(both));
        assert_eq!(
            left.iter().position(|n| n == "Concat"),
            Some(if bytes { 4 } else { 5 }),
            "{left:?}"
        );
        assert_eq!(left.len(), if bytes { 6 } else { 8 }, "{left:?}");
    }
}

#[test]
fn parts_of_a_split_stay_in_bytes() {
    let (mut b, x) = begin();
    let axis = b.constant(Tensor::scalar(1i64));
    let first = b.add(Split { num_splits: 2 }, &[x, axis]);
    let mut part = |output| quantized(&mut b, Value { node: first.node, output }, 0.25, 9);
    let (low, high) = (part(0), part(1));
    b.give(low);
    let mut left = left(&b.output(high));
    left.sort();
    // The same split twice, which the simplification that follows puts together.
    let expected = ["DequantizeLinear", "DequantizeLinear", "QuantizeLinear", "Split", "Split"];
    assert_eq!(left, expected);
}
