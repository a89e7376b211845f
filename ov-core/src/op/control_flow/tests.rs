//! Tests of If, Loop and `TensorIterator`.

use super::*;
use crate::{
    op::activation::{Elu, Relu},
    reference::evaluate,
    tensor::PartialShape,
};

fn floats(shape: impl Into<crate::Shape>, data: &[f32]) -> Tensor {
    Tensor::from_vec(shape, data.to_vec()).expect("fits")
}

/// A body that gives its one parameter through an operator.
fn unary(op: impl crate::op::Op) -> Model {
    let mut m = Model::new("unary");
    let x = m.add_parameter("x", ElementType::F32, PartialShape::dynamic()).expect("valid");
    let y = m.add(op, &[x], "y").expect("valid");
    m.add_output("y", y);
    m
}

#[test]
fn if_runs_one_branch() {
    let mut m = Model::new("m");
    let c = m.add_parameter("c", ElementType::Boolean, []).expect("valid");
    let x = m.add_parameter("x", ElementType::F32, [3]).expect("valid");
    let op = If {
        then_body: unary(Relu {}),
        else_body: unary(Elu::default()),
        then_inputs: vec![1],
        else_inputs: vec![1],
        then_outputs: vec![0],
        else_outputs: vec![0],
    };
    let y = m.add(op, &[c, x], "if").expect("valid");
    m.add_output("y", y);
    assert_eq!(m.output_shape(0).to_string(), "[3]");
    let x = floats([3], &[-1., 0., 2.]);
    for (condition, expected) in [(true, [0., 0., 2.]), (false, [(-1f32).exp_m1(), 0., 2.])] {
        let c = Tensor::from_bools([], &[condition]).expect("fits");
        let got = evaluate(&m, &[c, x.clone()]).expect("runs");
        assert_eq!(got[0].as_slice::<f32>().expect("f32"), expected);
    }
}

#[test]
fn if_refuses_maps_that_leave_the_inputs() {
    let op = If {
        then_body: unary(Relu {}),
        else_body: unary(Relu {}),
        then_inputs: vec![7],
        else_inputs: vec![-1],
        then_outputs: vec![0],
        else_outputs: vec![0],
    };
    let c = Tensor::from_bools([], &[true]).expect("fits");
    assert!(op.evaluate(&[c.clone(), floats([1], &[1.])]).is_err());
    let other = Tensor::from_bools([2], &[true, false]).expect("fits");
    assert!(op.evaluate(&[other, floats([1], &[1.])]).is_err());
}

/// `for piece in x: y.push(elu(piece))`, with the last piece and all pieces given.
fn iterator(axis: i64, rule: [i64; 4], out_axis: i64) -> TensorIterator {
    let mut sliced = vec![0, 0, axis];
    sliced.extend(rule);
    TensorIterator {
        body: unary(Relu {}),
        sliced_inputs: sliced,
        body_outputs: vec![1, 0],
        concat_outputs: vec![0, 0, out_axis, rule[0], rule[1], 1, rule[3]],
        ..TensorIterator::default()
    }
}

#[test]
fn pieces_are_cut_and_put_together_along_an_axis() {
    let x = floats([2, 4], &[1., 2., 3., 4., 5., 6., 7., 8.]);
    for (axis, rule, out_axis, shape, expected, last) in [
        (0, [0, -1, 1, 0], 0, vec![2, 4], vec![1., 2., 3., 4., 5., 6., 7., 8.], vec![5., 6., 7., 8.]),
        (1, [0, -1, 1, 0], 0, vec![4, 2], vec![1., 5., 2., 6., 3., 7., 4., 8.], vec![4., 8.]),
        (-1, [-1, 0, -1, 0], 1, vec![2, 4], vec![4., 3., 2., 1., 8., 7., 6., 5.], vec![1., 5.]),
        (1, [0, -1, 2, 2], 0, vec![4, 2], vec![1., 2., 5., 6., 3., 4., 7., 8.], vec![3., 4., 7., 8.]),
        (1, [-1, 0, -2, 2], 1, vec![2, 4], vec![3., 4., 1., 2., 7., 8., 5., 6.], vec![1., 2., 5., 6.]),
    ] {
        let op = iterator(axis, rule, out_axis);
        let got = op.evaluate(std::slice::from_ref(&x)).expect("runs");
        assert_eq!(got[0].shape()[..], shape[..], "{rule:?}");
        assert_eq!(got[0].as_slice::<f32>().expect("f32"), expected, "{rule:?}");
        assert_eq!(got[1].as_slice::<f32>().expect("f32"), last, "{rule:?}");
        let input = PartialShape::from(x.shape());
        let info = super::super::InputInfo {
            element_type: ElementType::F32,
            shape: &input,
            value: None,
            dims: None,
        };
        let types = op.infer(&InferContext { inputs: &[info] }).expect("valid");
        assert_eq!(types[0].shape, got[0].shape().into(), "{rule:?}");
        assert_eq!(types[1].shape, got[1].shape().into(), "{rule:?}");
    }
    assert!(iterator(2, [0, -1, 1, 0], 0).evaluate(std::slice::from_ref(&x)).is_err());
    assert!(iterator(0, [0, -1, 0, 0], 0).evaluate(&[x]).is_err());
}

fn counting_loop() -> Loop {
    let mut body = Model::new("body");
    let i = body.add_parameter("i", ElementType::I64, []).expect("valid");
    let c = body.add_parameter("c", ElementType::Boolean, []).expect("valid");
    let x = body.add_parameter("x", ElementType::F32, [2]).expect("valid");
    let y = body.add(Relu {}, &[x], "y").expect("valid");
    body.add_output("c", c);
    body.add_output("y", y);
    body.add_output("i", i);
    Loop {
        body,
        merged_inputs: vec![1, 1, 0, 2, 2, 1],
        body_outputs: vec![0, 1],
        concat_outputs: vec![1, 2, 0, 0, -1, 1, 0],
        current_iteration: 0,
        condition_output: 0,
        ..Loop::default()
    }
}

#[test]
fn loops_stop_at_the_trip_count_and_stack_what_they_give() {
    let x = floats([2], &[-1., 3.]);
    for (trips, go, carried, numbers) in [
        (3i64, true, [0., 3.], vec![0i64, 1, 2]),
        (0, true, [-1., 3.], vec![]),
        (5, false, [-1., 3.], vec![]),
    ] {
        let go = Tensor::from_bools([1], &[go]).expect("fits");
        let got =
            counting_loop().evaluate(&[Tensor::scalar(trips), go, x.clone()]).expect("runs");
        assert_eq!(got[0].as_slice::<f32>().expect("f32"), carried);
        assert_eq!(got[1].as_slice::<i64>().expect("i64"), numbers);
        assert_eq!(got[1].shape()[..], [numbers.len()]);
    }
}

#[test]
fn loops_of_a_known_trip_count_have_known_shapes() {
    for (trips, shape) in [(Some(4i64), "[4]"), (None, "[?]")] {
        let mut m = Model::new("m");
        let trip = match trips {
            Some(n) => m.add_constant(Tensor::scalar(n), "trips"),
            None => m.add_parameter("trips", ElementType::I64, []).expect("valid"),
        };
        let go = m.add_constant(Tensor::from_bools([], &[true]).expect("fits"), "go");
        let x = m.add_parameter("x", ElementType::F32, [2]).expect("valid");
        let node = m.add_node(Box::new(counting_loop()), &[trip, go, x], "loop").expect("valid");
        assert_eq!(m.node(node).shape(0).to_string(), "[2]");
        assert_eq!(m.node(node).shape(1).to_string(), shape);
    }
}

#[test]
fn incomplete_port_maps_are_refused() {
    let op = Loop { merged_inputs: vec![1, 1], ..counting_loop() };
    assert!(op.ports().is_err());
    let op = Loop { body_outputs: vec![0, 9], ..counting_loop() };
    let go = Tensor::from_bools([], &[true]).expect("fits");
    assert!(op.evaluate(&[Tensor::scalar(1i64), go, floats([2], &[1., 2.])]).is_err());
}
