//! Quantized convolutions and products of whole models against the reference.

use ov_core::{
    ElementType, Model, Shape, Tensor,
    model::Value,
    op::{
        activation::Relu,
        arithmetic::{Add, Multiply, Subtract},
        convert::Convert,
        convolution::{Convolution, GroupConvolution},
        matmul::{MatMul, MatMulInteger},
        quantize::{DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear},
        reshape::Reshape,
    },
};

use crate::{
    kernels::testing::{bytes, values},
    nodes::testing::check,
};

fn u8s(shape: &[usize], seed: u32) -> Tensor {
    Tensor::from_vec(shape, bytes(shape.iter().product(), seed)).expect("fits")
}

fn i8s(shape: &[usize], seed: u32) -> Tensor {
    u8s(shape, seed).cast(ElementType::I8).expect("integers")
}

fn one(v: f32) -> Tensor {
    Tensor::scalar(v)
}

/// Powers of two, so that scaling rounds nothing and quantized results are equal.
fn powers(n: usize) -> Tensor {
    let v = (0..n).map(|i| 0.5f32.powi(4 + i as i32 % 3)).collect();
    Tensor::from_vec([n], v).expect("fits")
}

struct Build(Model);

impl Build {
    fn new() -> Self {
        Self(Model::new("quantized"))
    }
    fn input(&mut self, ty: ElementType, shape: &[usize]) -> Value {
        let name = format!("x{}", self.0.parameters().len());
        self.0.add_parameter(name, ty, Shape::new(shape)).expect("valid")
    }
    fn constant(&mut self, t: Tensor) -> Value {
        self.0.add_constant(t, "")
    }
    fn add(&mut self, op: impl ov_core::op::Op, inputs: &[Value]) -> Value {
        self.0.add(op, inputs, "n").expect("valid")
    }
    fn dequantize(&mut self, x: Value, scale: Tensor, zero: Tensor, axis: i64) -> Value {
        let (scale, zero) = (self.constant(scale), self.constant(zero));
        let op = DequantizeLinear { axis, ..DequantizeLinear::default() };
        self.add(op, &[x, scale, zero])
    }
    fn quantize(&mut self, x: Value, scale: f32, zero: Tensor) -> Value {
        let (scale, zero) = (self.constant(one(scale)), self.constant(zero));
        self.add(QuantizeLinear::default(), &[x, scale, zero])
    }
    fn check(mut self, what: &str, y: Value, inputs: &[Tensor], kernel: &str) {
        self.0.add_output("y", y);
        check(what, &self.0, inputs, kernel, 1e-5);
    }
}

/// A convolution between dequantization and quantization.
fn conv(
    x: &[usize],
    w: &[usize],
    groups: usize,
    (stride, pad, dilation): (i64, i64, i64),
    signed: bool,
    kernel: &str,
) {
    let mut b = Build::new();
    let axes = w.len() - 2;
    let n = w[0];
    let (ty, zero) = if signed {
        (ElementType::I8, Tensor::scalar(-7i8))
    } else {
        (ElementType::U8, Tensor::scalar(121u8))
    };
    let input = b.input(ty, x);
    let real = b.dequantize(input, one(0.25), zero.clone(), 1);
    let filters = b.constant(i8s(w, 5));
    let zeros = Tensor::from_vec([n], vec![0i8; n]).expect("fits");
    let mut filters = b.dequantize(filters, powers(n), zeros, 0);
    let list = |v: i64| vec![v; axes];
    let y = if groups == 1 {
        let op = Convolution {
            strides: list(stride),
            dilations: list(dilation),
            pads_begin: list(pad),
            pads_end: list(pad),
            ..Convolution::default()
        };
        b.add(op, &[real, filters])
    } else {
        let mut dims = vec![groups as i64, (n / groups) as i64];
        dims.extend(w[1..].iter().map(|d| *d as i64));
        let dims = b.constant(Tensor::from_i64s(&dims));
        filters = b.add(Reshape { special_zero: false, ..Reshape::default() }, &[filters, dims]);
        let op = GroupConvolution {
            strides: list(stride),
            dilations: list(dilation),
            pads_begin: list(pad),
            pads_end: list(pad),
            ..GroupConvolution::default()
        };
        b.add(op, &[real, filters])
    };
    let mut shape = vec![1; w.len()];
    shape[1] = n;
    let bias = (0..n).map(|i| i as f32 - 3.0).collect();
    let bias = b.constant(Tensor::from_vec(shape, bias).expect("fits"));
    let y = b.add(Add {}, &[y, bias]);
    let y = b.add(Relu {}, &[y]);
    let y = b.quantize(y, 64.0, zero);
    let data = if signed { i8s(x, 3) } else { u8s(x, 3) };
    let what = format!("{x:?} {w:?} groups {groups} {stride} {pad} {dilation} signed {signed}");
    b.check(&what, y, &[data], kernel);
}

#[test]
fn convolutions_of_quantized_tensors_are_exact() {
    for signed in [false, true] {
        for (x, w, groups, window) in [
            (&[1, 8, 9, 7][..], &[16, 8, 3, 3][..], 1, (1, 1, 1)),
            (&[2, 12, 8, 8], &[33, 12, 1, 1], 1, (2, 0, 1)),
            (&[1, 3, 17, 13], &[20, 3, 3, 3], 1, (2, 1, 1)),
            (&[1, 16, 9, 9], &[7, 16, 3, 3], 1, (1, 2, 2)),
            (&[1, 8, 10, 6], &[12, 4, 3, 3], 2, (1, 1, 1)),
            (&[1, 9, 5, 5], &[6, 3, 2, 2], 3, (1, 0, 1)),
            (&[1, 11, 30], &[5, 11, 3], 1, (2, 1, 1)),
            (&[1, 4, 3, 4, 5], &[18, 4, 2, 2, 2], 1, (1, 1, 1)),
            (&[0, 4, 5, 5], &[8, 4, 3, 3], 1, (1, 1, 1)),
        ] {
            conv(x, w, groups, window, signed, "conv_int8_direct");
        }
        for (x, w, window) in [
            (&[1, 5, 6, 7][..], &[5, 1, 3, 3][..], (1, 1, 1)),
            (&[2, 70, 9, 15], &[70, 1, 3, 3], (2, 1, 1)),
            (&[1, 16, 20, 3], &[16, 1, 5, 5], (1, 4, 2)),
        ] {
            conv(x, w, w[0], window, signed, "conv_int8_depthwise");
        }
    }
}

#[test]
fn products_of_quantized_tensors_are_exact() {
    for (x, n, transpose_b) in [
        (&[1, 1][..], 1, false),
        (&[5, 7], 3, true),
        (&[2, 3, 64], 48, false),
        (&[1, 384], 130, true),
        (&[37, 20], 33, false),
        (&[0, 8], 4, false),
    ] {
        let mut b = Build::new();
        let k = *x.last().expect("not a scalar");
        let input = b.input(ElementType::U8, x);
        let real = b.dequantize(input, one(0.5), Tensor::scalar(100u8), 1);
        let w = b.constant(i8s(&if transpose_b { [n, k] } else { [k, n] }, 7));
        let zeros = Tensor::from_vec([n], vec![0i8; n]).expect("fits");
        let w = b.dequantize(w, powers(n), zeros, i64::from(!transpose_b));
        let y = b.add(MatMul { transpose_a: false, transpose_b }, &[real, w]);
        let y = b.quantize(y, 16.0, Tensor::scalar(3i8));
        b.check(&format!("{x:?} {n} {transpose_b}"), y, &[u8s(x, 1)], "fully_connected_int8");
    }
}

#[test]
fn weights_with_zero_points_that_do_not_fit_s8_are_shifted() {
    for (k, n) in [(9, 5), (64, 33)] {
        let mut b = Build::new();
        let x = b.input(ElementType::F32, &[6, k]);
        let parts = b.0.add_node(Box::new(DynamicQuantizeLinear {}), &[x], "q").expect("valid");
        let [q, scale, zero] = [0, 1, 2].map(|output| Value { node: parts, output });
        let w = b.constant(u8s(&[k, n], 11));
        let zeros: Vec<u8> = (0..n).map(|i| (i * 31 % 256) as u8).collect();
        let zeros = b.constant(Tensor::from_vec([n], zeros).expect("fits"));
        let sums = b.add(MatMulInteger {}, &[q, w, zero, zeros]);
        let real = b.add(Convert { destination_type: ElementType::F32 }, &[sums]);
        let scales = b.constant(powers(n));
        let scale = b.add(Multiply {}, &[scales, scale]);
        let y = b.add(Multiply {}, &[real, scale]);
        let data = Tensor::from_vec([6, k], values(6 * k, 3)).expect("fits");
        b.check(&format!("{k} {n}"), y, &[data], "fully_connected_int8");
    }
}

#[test]
fn integer_convolutions_take_dynamic_zero_points_and_a_residual() {
    let (x, w) = ([1, 8, 12, 12], [16, 8, 3, 3]);
    let mut b = Build::new();
    let real = b.input(ElementType::F32, &x);
    let residual = b.input(ElementType::F32, &[1, 16, 12, 12]);
    let parts = b.0.add_node(Box::new(DynamicQuantizeLinear {}), &[real], "q").expect("valid");
    let [q, scale, zero] = [0, 1, 2].map(|output| Value { node: parts, output });
    let wide = || Convert { destination_type: ElementType::I32 };
    let (q, zero) = (b.add(wide(), &[q]), b.add(wide(), &[zero]));
    let q = b.add(Subtract {}, &[q, zero]);
    let filters: Vec<i32> =
        bytes(w.iter().product(), 5).iter().map(|v| i32::from(*v) - 77).collect();
    let filters = b.constant(Tensor::from_vec(w, filters).expect("fits"));
    let one = || vec![1, 1];
    let op = Convolution {
        strides: one(),
        dilations: one(),
        pads_begin: one(),
        pads_end: one(),
        ..Convolution::default()
    };
    let sums = b.add(op, &[q, filters]);
    let y = b.add(Convert { destination_type: ElementType::F32 }, &[sums]);
    let y = b.add(Multiply {}, &[y, scale]);
    let y = b.add(Relu {}, &[y]);
    let y = b.add(Add {}, &[y, residual]);
    let data = |shape: &[usize], seed| {
        Tensor::from_vec(shape, values(shape.iter().product(), seed)).expect("fits")
    };
    let inputs = [data(&x, 1), data(&[1, 16, 12, 12], 2)];
    b.check("dynamic", y, &inputs, "conv_int8_direct");
}
