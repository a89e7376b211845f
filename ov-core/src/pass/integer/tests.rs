//! Graphs before and after, compared on the reference.

use super::*;
use crate::{
    op::{
        activation::Relu,
        arithmetic::Multiply,
        concat::{Concat, Split},
        pooling::MaxPool1,
        quantize::{DynamicQuantizeLinear, FakeQuantize},
    },
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
    sink(&mut after, &moves).expect("valid");
    products(&mut after).expect("valid");
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
    let expected = ["DequantizeLinear", "DequantizeLinear", "QuantizeLinear", "Split"];
    assert_eq!(left, expected);
}

/// The value in 256 levels of this step.
fn faked(b: &mut Build, x: Value, step: f64, zero: f64) -> Value {
    let (low, high) = (b.scalar(-zero * step), b.scalar((255.0 - zero) * step));
    b.add(FakeQuantize { levels: 256 }, &[x, low, high, low, high])
}

/// `(bytes - zero) scale` with a scale per output.
fn scaled(b: &mut Build, shape: &[usize], scales: &[usize], zero: Option<u8>) -> Value {
    let bytes = random(shape, 5).cast(ElementType::F64).expect("floats").to_f64_vec().expect("f64");
    let bytes: Vec<f64> = bytes.iter().map(|v| (v * 60.0).round() + 120.0).collect();
    let bytes = b.constant(Tensor::from_f64s::<u8>(shape, &bytes).expect("fits"));
    let f32s = Convert { destination_type: ElementType::F32 };
    let mut w = b.add(f32s.clone(), &[bytes]);
    if let Some(zero) = zero {
        let zero = b.constant(Tensor::scalar(zero));
        let zero = b.add(f32s, &[zero]);
        w = b.add(Subtract::default(), &[w, zero]);
    }
    let count = scales.iter().product();
    let values = (0..count).map(|i| 0.5f32.powi(9 + i as i32 % 3)).collect::<Vec<_>>();
    let scale = b.constant(Tensor::from_vec(scales, values).expect("fits"));
    b.add(Multiply::default(), &[w, scale])
}

#[test]
fn quantization_that_is_spelled_as_arithmetic_is_found() {
    let mut b = Build::new();
    let x = b.input(Shape::new(&[2, 4, 6]));
    let x = faked(&mut b, x, 0.015625, 128.0);
    let conv = Convolution {
        strides: vec![1],
        dilations: vec![1],
        pads_begin: vec![1],
        pads_end: vec![0],
        ..Convolution::default()
    };
    let w = scaled(&mut b, &[8, 4, 2], &[8, 1, 1], Some(117));
    let x = b.add(conv, &[x, w]);
    let x = b.add(Relu {}, &[x]);
    let x = faked(&mut b, x, 0.0625, 0.0);
    let w = scaled(&mut b, &[4, 2, 2, 1], &[4, 2, 1, 1], None);
    let grouped = GroupConvolution {
        strides: vec![1],
        dilations: vec![1],
        pads_begin: vec![0],
        pads_end: vec![0],
        ..GroupConvolution::default()
    };
    let x = b.add(grouped, &[x, w]);
    let x = faked(&mut b, x, 0.0625, 3.0);
    let w = scaled(&mut b, &[6, 5], &[1, 5], Some(120));
    let x = b.add(MatMul::default(), &[x, w]);
    let model = b.output(x);
    let mut after = model.clone();
    assert_eq!(spell_out(&mut after).expect("valid"), 6);
    assert!(products(&mut after).expect("valid"));
    after.verify().expect("consistent");
    assert_same_on(&model, &after, &[random([2, 4, 6], 3)]);
    let count = |name: &str| after.nodes().filter(|(_, n)| n.op().kind().name == name).count();
    assert_eq!((count("IntegerConvolution"), count("IntegerProduct")), (2, 1), "{after}");
    assert_eq!(count("FakeQuantize") + count("Multiply"), 0, "{after}");
}

#[test]
fn other_levels_and_uneven_steps_stay() {
    for (levels, limits, found) in [
        (256, [0.0, 2.55, 0.0, 2.55], true),
        (255, [0.0, 2.55, 0.0, 2.55], false),
        (256, [0.005, 2.555, 0.005, 2.555], false),
        (256, [0.1, 2.55, 0.1, 2.55], false),
        (256, [0.0, 2.55, -0.1, 2.45], false),
        (256, [0.0, 0.0, 0.0, 0.0], false),
    ] {
        let mut b = Build::new();
        let x = b.input(Shape::new(&[2, 4, 6]));
        let limits = limits.map(|v| b.scalar(v));
        let y = b.add(FakeQuantize { levels }, &[&[x][..], &limits].concat());
        let mut model = b.output(y);
        assert_eq!(spell_out(&mut model).expect("valid") == 1, found, "{levels} {limits:?}");
    }
}

#[test]
fn a_computed_scale_stays_a_factor() {
    let mut b = Build::new();
    let x = b.input(Shape::new(&[2, 4, 6]));
    let quantized = b.add(DynamicQuantizeLinear {}, &[x]);
    let output = |output| Value { node: quantized.node, output };
    let w = random([6, 5], 4).to_f64_vec().expect("f32").iter().map(|v| (v * 60.0) as i8).collect();
    let w = b.constant(Tensor::from_vec([6, 5], w).expect("fits"));
    let y = b.add(MatMulInteger {}, &[output(0), w, output(2)]);
    let y = b.add(Convert { destination_type: ElementType::F32 }, &[y]);
    let w_scale =
        b.constant(Tensor::from_vec([5], vec![0.1f32, 0.2, 0.3, 0.4, 0.5]).expect("fits"));
    let scale = b.add(Multiply::default(), &[output(1), w_scale]);
    let y = b.add(Multiply::default(), &[y, scale]);
    let model = b.output(y);
    let mut after = model.clone();
    products(&mut after).expect("valid");
    fuse(&mut after).expect("valid");
    let before = after.nodes().count();
    assert_eq!(factors(&mut after).expect("valid"), 1);
    after.verify().expect("consistent");
    assert_same_on(&model, &after, &[random([2, 4, 6], 3)]);
    let products = after.nodes().filter(|(_, n)| n.op().is::<Multiply>()).count();
    assert_eq!((products, after.nodes().count() <= before), (0, true), "{after}");
    assert_eq!(factors(&mut after).expect("valid"), 0);
}
