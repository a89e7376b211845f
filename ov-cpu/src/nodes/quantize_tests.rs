//! Quantization, pools and sums of bytes of whole models against the reference.

use ov_core::{
    ElementType, Model, Shape, Tensor,
    model::Value,
    op::{
        activation::Relu,
        arithmetic::Add,
        pooling::MaxPool,
        quantize::{DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear},
    },
};

use crate::{
    kernels::testing::{bytes, values},
    nodes::testing::{check, noise, parameter},
};

#[test]
fn tensors_are_quantized_and_dequantized_along_any_axis() {
    for (shape, axis) in [
        (&[5][..], None),
        (&[2, 3, 4], None),
        (&[3, 40, 50], None),
        (&[2, 3, 4], Some(1)),
        (&[7, 33], Some(1)),
        (&[33, 7], Some(0)),
        (&[2, 70, 80], Some(1)),
        (&[0, 4], Some(1)),
        (&[4, 0], Some(0)),
    ] {
        for signed in [false, true] {
            let count = axis.map_or(1, |a: i64| shape[a as usize]);
            let scale: Vec<f32> = (0..count).map(|i| 0.01 + 0.003 * i as f32).collect();
            let scale = Tensor::from_vec([count], scale).expect("fits");
            let zero = Tensor::from_vec([count], bytes(count, 2)).expect("fits");
            let ty = if signed { ElementType::I8 } else { ElementType::U8 };
            let zero = zero.cast(ty).expect("integers");
            let what = format!("{shape:?} {axis:?} {signed}");
            let axis = axis.unwrap_or(0);

            let mut m = Model::new("quantize");
            let x = parameter(&mut m, "x", shape);
            let (s, z) = (m.add_constant(scale.clone(), "s"), m.add_constant(zero.clone(), "z"));
            let op = QuantizeLinear { axis, ..QuantizeLinear::default() };
            let y = m.add(op, &[x, s, z], "q").expect("valid");
            m.add_output("y", y);
            check(&what, &m, &[noise(shape, 3)], "quantize_f32", 0.0);

            let mut m = Model::new("dequantize");
            let x = m.add_parameter("x", ty, Shape::new(shape)).expect("valid");
            let (s, z) = (m.add_constant(scale, "s"), m.add_constant(zero, "z"));
            let op = DequantizeLinear { axis, ..DequantizeLinear::default() };
            let y = m.add(op, &[x, s, z], "d").expect("valid");
            m.add_output("y", y);
            let data = Tensor::from_vec(shape, bytes(shape.iter().product(), 4)).expect("fits");
            let data = data.cast(ty).expect("integers");
            check(&what, &m, &[data], "dequantize_f32", 1e-6);
        }
    }
}

#[test]
fn ranges_are_found_by_one_thread_and_by_several() {
    for (len, kernel) in [
        (0, "dynamic_quantize_f32"),
        (1, "dynamic_quantize_f32"),
        (1000, "dynamic_quantize_f32"),
        (20_001, "quantize_by_ranges_f32"),
        (100_000, "quantize_by_ranges_f32"),
    ] {
        for offset in [0.0, 5.0, -5.0] {
            let mut m = Model::new("dynamic");
            let x = parameter(&mut m, "x", &[len]);
            let id = m.add_node(Box::new(DynamicQuantizeLinear {}), &[x], "q").expect("valid");
            for output in 0..3 {
                m.add_output(format!("y{output}"), Value { node: id, output });
            }
            let data = values(len, 3).iter().map(|v| v + offset).collect();
            let data = Tensor::from_vec([len], data).expect("fits");
            check(&format!("{len} {offset}"), &m, &[data], kernel, 0.0);
        }
    }
    let mut m = Model::new("zeros");
    let x = parameter(&mut m, "x", &[40]);
    let id = m.add_node(Box::new(DynamicQuantizeLinear {}), &[x], "q").expect("valid");
    for output in 0..3 {
        m.add_output(format!("y{output}"), Value { node: id, output });
    }
    let zeros = Tensor::from_vec([40], vec![0f32; 40]).expect("fits");
    check("zeros", &m, &[zeros], "dynamic_quantize_f32", 0.0);
}

#[test]
fn pools_between_equal_steps_stay_in_bytes() {
    for (shape, ty) in [
        (&[1, 3, 9, 8][..], ElementType::U8),
        (&[2, 70, 7, 5], ElementType::I8),
        (&[1, 17, 11], ElementType::U8),
    ] {
        let axes = shape.len() - 2;
        let mut m = Model::new("pool");
        let x = m.add_parameter("x", ty, Shape::new(shape)).expect("valid");
        let scale = m.add_constant(Tensor::scalar(0.5f32), "s");
        let zero = Tensor::scalar(9u8).cast(ty).expect("integer");
        let zero = m.add_constant(zero, "z");
        let d = m.add(DequantizeLinear::default(), &[x, scale, zero], "d").expect("valid");
        let op = MaxPool {
            strides: vec![2; axes],
            kernel: vec![3; axes],
            dilations: vec![1; axes],
            pads_begin: vec![1; axes],
            pads_end: vec![1; axes],
            ..MaxPool::default()
        };
        let p = m.add(op, &[d], "p").expect("valid");
        let y = m.add(QuantizeLinear::default(), &[p, scale, zero], "q").expect("valid");
        m.add_output("y", y);
        let data = Tensor::from_vec(shape, bytes(shape.iter().product(), 4)).expect("fits");
        let data = data.cast(ty).expect("integers");
        check(&format!("{shape:?} {ty}"), &m, &[data], "max_pool_int8", 0.0);
    }
}

#[test]
fn sums_of_bytes_are_quantized_after_an_activation() {
    for (shape, signed) in [(&[1, 5, 3, 3][..], false), (&[4, 2000], true), (&[0, 3], false)] {
        for relu in [false, true] {
            let ty = if signed { ElementType::I8 } else { ElementType::U8 };
            let mut m = Model::new("sum");
            let mut part = |scale: f32, zero: u8| {
                let name = format!("x{zero}");
                let x = m.add_parameter(name, ty, Shape::new(shape)).expect("valid");
                let scale = m.add_constant(Tensor::scalar(scale), "s");
                let zero = Tensor::scalar(zero).cast(ty).expect("integer");
                let zero = m.add_constant(zero, "z");
                m.add(DequantizeLinear::default(), &[x, scale, zero], "d").expect("valid")
            };
            let (a, b) = (part(0.25, 5), part(0.5, 7));
            let mut y = m.add(Add {}, &[a, b], "sum").expect("valid");
            if relu {
                y = m.add(Relu {}, &[y], "relu").expect("valid");
            }
            let scale = m.add_constant(Tensor::scalar(1f32), "s");
            let zero = m.add_constant(Tensor::scalar(3u8), "z");
            let y = m.add(QuantizeLinear::default(), &[y, scale, zero], "q").expect("valid");
            m.add_output("y", y);
            let data = |seed| {
                let data = bytes(shape.iter().product(), seed);
                Tensor::from_vec(shape, data).expect("fits").cast(ty).expect("integers")
            };
            check(&format!("{shape:?} {relu}"), &m, &[data(1), data(2)], "add_int8", 0.0);
        }
    }
}
