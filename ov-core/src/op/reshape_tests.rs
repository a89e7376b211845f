//! Tests of the reshape family.

use super::*;
use crate::op::{self, InputInfo, parse_partial_shape};

fn infer(op: &dyn op::Op, inputs: &[(&str, Option<Tensor>)]) -> OpResult<String> {
    let shapes: Vec<PartialShape> =
        inputs.iter().map(|(s, _)| parse_partial_shape("shape", s).expect("valid")).collect();
    let infos: Vec<InputInfo<'_>> = inputs
        .iter()
        .zip(&shapes)
        .map(|((_, value), shape)| InputInfo {
            element_type: value.as_ref().map_or(ElementType::F32, Tensor::element_type),
            shape,
            value: value.as_ref(),
            dims: None,
        })
        .collect();
    Ok(op.infer(&InferContext { inputs: &infos })?[0].shape.to_string())
}

fn ints(values: &[i64]) -> (&'static str, Option<Tensor>) {
    ("?", Some(Tensor::from_i64s(values)))
}

#[test]
fn reshape_finds_the_open_extent() {
    let op = Reshape { special_zero: true, ..Reshape::default() };
    for (data, target, expected) in [
        ("2,3,4", &[0i64, -1][..], "[2,12]"),
        ("?,3,4", &[0, -1], "[?,12]"),
        ("?,3,4", &[-1, 12], "[?,12]"),
        ("?,?,768", &[0, 0, 12, -1], "[?,?,12,64]"),
        ("?,8,2", &[0, -1, 4], "[?,4,4]"),
        ("...", &[0, -1], "[?,?]"),
        ("0,3", &[0, 3], "[0,3]"),
        ("1", &[], "[]"),
    ] {
        assert_eq!(infer(&op, &[(data, None), ints(target)]).expect(data), expected, "{data} {target:?}");
    }
    for (data, target) in [("2,3", &[4i64][..]), ("2,3", &[-1, -1]), ("2", &[2, 0]), ("2", &[-2])] {
        assert!(infer(&op, &[(data, None), ints(target)]).is_err(), "{data} {target:?}");
    }
    let t = Tensor::zeros(ElementType::F32, [0, 3]).expect("small");
    let zero = Reshape { special_zero: false, ..Reshape::default() };
    let out = zero.evaluate(&[t, Tensor::from_i64s(&[3, 0])]).expect("allowed");
    assert_eq!(out[0].shape().to_vec(), [3, 0]);
}

#[test]
fn axes_of_extent_1_come_and_go() {
    for (op, data, axes, expected) in [
        (&Squeeze {} as &dyn op::Op, "1,?,1", &[0i64, -1][..], "[?]"),
        (&Squeeze {}, "1,2,1", &[], "[2]"),
        (&Squeeze15 { allow_axis_skip: true }, "1,2,1", &[0, 1], "[2,1]"),
        (&Unsqueeze {}, "2,3", &[0, -1], "[1,2,3,1]"),
        (&Unsqueeze {}, "", &[0], "[1]"),
    ] {
        assert_eq!(infer(op, &[(data, None), ints(axes)]).expect(data), expected);
    }
    assert!(infer(&Squeeze {}, &[("2,1", None), ints(&[0])]).is_err());
    assert!(infer(&Unsqueeze {}, &[("2", None), ints(&[0, 0])]).is_err());
    assert!(infer(&Unsqueeze {}, &[("2", None), ints(&[5])]).is_err());
}

#[test]
fn broadcast_repeats() {
    let t = Tensor::from_vec([3, 1], vec![1f32, 2., 3.]).expect("fits");
    let both = Broadcast { mode: BroadcastMode::Bidirectional };
    let out = both.evaluate(&[t.clone(), Tensor::from_i64s(&[2, 1, 2])]).expect("broadcasts");
    assert_eq!(out[0].shape().to_vec(), [2, 3, 2]);
    assert_eq!(out[0].as_slice::<f32>().expect("f32")[..6], [1., 1., 2., 2., 3., 3.]);
    let explicit = Broadcast { mode: BroadcastMode::Explicit };
    let v = t.reshape([3]).expect("same elements");
    let out = explicit
        .evaluate(&[v, Tensor::from_i64s(&[3, 2]), Tensor::from_i64s(&[0])])
        .expect("maps");
    assert_eq!(out[0].as_slice::<f32>().expect("f32"), [1., 1., 2., 2., 3., 3.]);
    assert!(both.evaluate(&[t.clone(), Tensor::from_i64s(&[2, 2])]).is_err());
    assert!(both.evaluate(&[t, Tensor::from_i64s(&[1 << 40, 3, 1])]).is_err());
}

#[test]
fn tile_repeats_the_whole() {
    let t = Tensor::from_vec([1, 2], vec![1i64, 2]).expect("fits");
    let out = Tile {}.evaluate(&[t.clone(), Tensor::from_i64s(&[2, 2])]).expect("tiles");
    assert_eq!(out[0].as_slice::<i64>().expect("i64"), [1, 2, 1, 2, 1, 2, 1, 2]);
    assert_eq!(infer(&Tile {}, &[("?,2", None), ints(&[3, 2, 2])]).expect("valid"), "[3,?,4]");
    assert!(Tile {}.evaluate(&[t.clone(), Tensor::from_i64s(&[1 << 40, 1])]).is_err());
    assert!(Tile {}.evaluate(&[t, Tensor::from_i64s(&[-1])]).is_err());
}

#[test]
fn shapes_are_known_before_values() {
    let shape = parse_partial_shape("shape", "?,3").expect("valid");
    let info = InputInfo { element_type: ElementType::F32, shape: &shape, value: None, dims: None };
    let out = ShapeOf::default().infer(&InferContext { inputs: &[info] }).expect("valid");
    assert_eq!(out[0].dims, Some(vec![Dimension::DYNAMIC, Dimension::fixed(3)]));
}
