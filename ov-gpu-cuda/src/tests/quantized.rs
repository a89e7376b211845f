//! Quantized networks. Scales are powers of two, so that nothing is rounded but where the model quantizes: results are to
//! be the reference's to the bit.

use ov_core::op::{
    Op,
    activation::{Clamp, Relu},
    arithmetic::{Add, Multiply, Subtract},
    concat::Concat,
    convert::Convert,
    convolution::{Convolution, GroupConvolution},
    matmul::{MatMul, MatMulInteger},
    pooling::MaxPool1,
    quantize::{DequantizeLinear, DynamicQuantizeLinear, FakeQuantize, QuantizeLinear},
    reduction::ReduceMean,
    reshape::Reshape,
    resize::{CoordinateMode, Interpolate, InterpolateMode, NearestMode, ShapeCalculation},
};

use super::*;

/// A model under construction, whose values are quantized after each operator.
struct Net {
    model: Model,
    seed: u64,
}

/// Step of most tensors.
const STEP: f32 = 0.0625;

impl Net {
    fn new(name: &str) -> Self {
        Self { model: Model::new(name), seed: 0 }
    }

    fn op(&mut self, op: impl Op, inputs: &[Value]) -> Value {
        let name = format!("n{}", self.model.nodes().count());
        self.model.add(op, inputs, name).expect("valid")
    }

    fn constant(&mut self, tensor: Tensor) -> Value {
        self.model.add_constant(tensor, "c")
    }

    /// Noise, rounded to multiples of `step` up to `most` of them.
    fn steps(&mut self, shape: &[usize], most: f64) -> Vec<f64> {
        self.seed += 1;
        let numbers = noise(shape, self.seed).to_f64_vec().expect("numbers");
        numbers.iter().map(|v| (v * most).round()).collect()
    }

    /// The value as bytes and back; gives what a following operator reads.
    fn quantized(&mut self, x: Value, step: f32, zero: u8) -> Value {
        let (step, zero) =
            (self.constant(Tensor::scalar(step)), self.constant(Tensor::scalar(zero)));
        let bytes = self.op(QuantizeLinear::default(), &[x, step, zero]);
        self.op(DequantizeLinear::default(), &[bytes, step, zero])
    }

    /// Signed weights with a scale per output.
    fn weights(&mut self, shape: &[usize], axis: i64) -> Value {
        let bytes = self.steps(shape, 127.0);
        let bytes = Tensor::from_f64s::<i8>(shape, &bytes).expect("fits");
        let outputs = shape[axis as usize];
        let scales = (0..outputs).map(|i| 0.5f32.powi(8 + i as i32 % 3)).collect();
        let scales = Tensor::from_vec([outputs], scales).expect("fits");
        let (bytes, scales) = (self.constant(bytes), self.constant(scales));
        self.op(DequantizeLinear { axis, ..DequantizeLinear::default() }, &[bytes, scales])
    }

    fn bias(&mut self, shape: &[usize]) -> Value {
        let values: Vec<f64> = self.steps(shape, 64.0).iter().map(|v| v / 64.0).collect();
        self.constant(Tensor::from_f64s::<f32>(shape, &values).expect("fits"))
    }

    fn conv(&mut self, x: Value, [cin, cout]: [usize; 2], k: usize, stride: i64) -> Value {
        let w = self.weights(&[cout, cin, k, k], 0);
        let pads = vec![(k / 2) as i64; 2];
        let op = Convolution {
            strides: vec![stride; 2],
            dilations: vec![1; 2],
            pads_begin: pads.clone(),
            pads_end: pads,
            ..Convolution::default()
        };
        let y = self.op(op, &[x, w]);
        let b = self.bias(&[1, cout, 1, 1]);
        self.op(Add::default(), &[y, b])
    }

    fn depthwise(&mut self, x: Value, channels: usize, k: usize) -> Value {
        let w = self.weights(&[channels, 1, k, k], 0);
        let shape = self.i64s(&[channels as i64, 1, 1, k as i64, k as i64]);
        let w = self.op(Reshape::default(), &[w, shape]);
        let pads = vec![(k / 2) as i64; 2];
        let op = GroupConvolution {
            strides: vec![1; 2],
            dilations: vec![1; 2],
            pads_begin: pads.clone(),
            pads_end: pads,
            ..GroupConvolution::default()
        };
        self.op(op, &[x, w])
    }

    /// The value in 256 levels, as OpenVINO's models have it.
    fn faked(&mut self, x: Value, step: f32, zero: f32) -> Value {
        let limits = [-zero * step, (255.0 - zero) * step];
        let [low, high] = limits.map(|v| self.constant(Tensor::scalar(v)));
        self.op(FakeQuantize { levels: 256 }, &[x, low, high, low, high])
    }

    /// Bytes that are converted, centred and scaled by arithmetic.
    fn compressed(&mut self, shape: &[usize], zero: f32) -> Value {
        let bytes: Vec<f64> = self.steps(shape, 127.0).iter().map(|v| v + 128.0).collect();
        let bytes = self.constant(Tensor::from_f64s::<u8>(shape, &bytes).expect("fits"));
        let w = self.op(Convert { destination_type: ElementType::F32 }, &[bytes]);
        let zero = self.constant(Tensor::scalar(zero));
        let w = self.op(Subtract::default(), &[w, zero]);
        let mut scales = vec![1; shape.len()];
        scales[0] = shape[0];
        let values = (0..shape[0]).map(|i| 0.5f32.powi(9 + i as i32 % 2)).collect();
        let scale = Tensor::from_vec(scales.as_slice(), values).expect("fits");
        let scale = self.constant(scale);
        self.op(Multiply::default(), &[w, scale])
    }

    fn i64s(&mut self, values: &[i64]) -> Value {
        self.constant(Tensor::from_i64s(values))
    }
}

/// An inverted bottleneck with its residual, a pool, a resized branch that is concatenated, and a classifier.
fn network() -> Model {
    let mut n = Net::new("quantized");
    let x = parameter(&mut n.model, "x", &[1, 3, 16, 16]);
    let x = n.quantized(x, 0.015625, 128);
    let x = n.conv(x, [3, 8], 3, 2);
    let x = n.op(Relu {}, &[x]);
    let x = n.quantized(x, STEP, 0);
    let y = n.conv(x, [8, 24], 1, 1);
    let y = n.op(Clamp { min: 0.0, max: 6.0 }, &[y]);
    let y = n.quantized(y, STEP, 3);
    let y = n.depthwise(y, 24, 3);
    let y = n.op(Relu {}, &[y]);
    let y = n.quantized(y, STEP, 5);
    let y = n.conv(y, [24, 8], 1, 1);
    let y = n.quantized(y, STEP, 117);
    let sum = n.op(Add::default(), &[x, y]);
    let x = n.quantized(sum, STEP, 100);
    let pool = MaxPool1 {
        kernel: vec![2; 2],
        strides: vec![2; 2],
        pads_begin: vec![0; 2],
        pads_end: vec![0; 2],
        ..MaxPool1::default()
    };
    let pooled = n.op(pool, &[x]);
    let pooled = n.quantized(pooled, STEP, 100);
    let axes = n.i64s(&[2, 3]);
    let twice = n.constant(Tensor::from_vec([2], vec![2.0f32, 2.0]).expect("fits"));
    let resize = Interpolate {
        mode: InterpolateMode::Nearest,
        shape_calculation_mode: ShapeCalculation::Scales,
        coordinate_transformation_mode: CoordinateMode::Asymmetric,
        nearest_mode: NearestMode::Floor,
        ..Interpolate::default()
    };
    let large = n.op(resize, &[pooled, twice, axes]);
    let large = n.quantized(large, STEP, 100);
    let both = n.op(Concat { axis: 1 }, &[large, x]);
    let both = n.quantized(both, STEP, 100);
    let y = n.conv(both, [16, 12], 3, 2);
    let y = n.op(Relu {}, &[y]);
    let y = n.quantized(y, STEP, 0);
    let axes = n.i64s(&[2, 3]);
    let y = n.op(ReduceMean { keep_dims: true }, &[y, axes]);
    let shape = n.i64s(&[1, 12]);
    let y = n.op(Reshape::default(), &[y, shape]);
    let y = n.quantized(y, STEP, 0);
    let w = n.weights(&[12, 10], 1);
    let y = n.op(MatMul::default(), &[y, w]);
    let b = n.bias(&[10]);
    let y = n.op(Add::default(), &[y, b]);
    let y = n.quantized(y, STEP, 77);
    n.model.add_output("y", y);
    n.model
}

#[test]
fn convolutions_and_a_classifier_run_in_bytes() {
    let Some(machine) = machine() else { return };
    let bf16 = PropertyMap::new().with(hint::INFERENCE_PRECISION, ElementType::Bf16);
    for properties in [exact(), bf16] {
        let input = noise(&[1, 3, 16, 16], 7);
        let kernels = check(&machine, &network(), &[input], &properties, 0.0);
        let count = |name: &str| kernels.iter().filter(|k| *k == name).count();
        assert_eq!(count("host"), 0, "{kernels:?}");
        assert_eq!((count("integer"), count("integer_add")), (6, 1), "{kernels:?}");
        assert_eq!((count("linear"), count("convolution")), (0, 0), "{kernels:?}");
        // The input, what the pool of planes reads and gives, and the result.
        assert_eq!(count("eltwise"), 4, "{kernels:?}");
    }
}

#[test]
fn what_fakes_quantization_runs_in_bytes() {
    let Some(machine) = machine() else { return };
    let mut n = Net::new("faked");
    let x = parameter(&mut n.model, "x", &[1, 4, 9, 7]);
    let x = n.faked(x, 0.015625, 128.0);
    let w = n.compressed(&[16, 4, 3, 3], 128.0);
    let op = Convolution {
        strides: vec![1; 2],
        dilations: vec![1; 2],
        pads_begin: vec![1; 2],
        pads_end: vec![1; 2],
        ..Convolution::default()
    };
    let x = n.op(op, &[x, w]);
    let b = n.bias(&[1, 16, 1, 1]);
    let x = n.op(Add::default(), &[x, b]);
    let x = n.op(Relu {}, &[x]);
    let x = n.faked(x, 0.03125, 0.0);
    let shape = n.i64s(&[16, -1]);
    let x = n.op(Reshape::default(), &[x, shape]);
    let w = n.compressed(&[10, 63], 117.0);
    let y = n.op(MatMul { transpose_b: true, ..MatMul::default() }, &[x, w]);
    n.model.add_output("y", y);
    let input = noise(&[1, 4, 9, 7], 21);
    let kernels = check(&machine, &n.model, std::slice::from_ref(&input), &exact(), 0.0);
    let count = |kernels: &[String], name: &str| kernels.iter().filter(|k| *k == name).count();
    assert_eq!(count(&kernels, "host"), 0, "{kernels:?}");
    assert_eq!((count(&kernels, "integer"), count(&kernels, "eltwise")), (2, 1), "{kernels:?}");
    // What must be as specified is computed as it stands.
    let accurate = PropertyMap::new().with(hint::EXECUTION_MODE, hint::ExecutionMode::Accuracy);
    let kernels = check(&machine, &n.model, &[input], &accurate, 1e-5);
    assert_eq!(count(&kernels, "integer"), 0, "{kernels:?}");
}

/// `relu(x w + b)` with x quantized by its range.
fn dynamic(rows: usize) -> Model {
    let mut n = Net::new("dynamic");
    let x = parameter(&mut n.model, "x", &[rows, 40]);
    let quantized = n.op(DynamicQuantizeLinear {}, &[x]);
    let output = |output| Value { node: quantized.node, output };
    let bytes: Vec<f64> = n.steps(&[40, 24], 127.0).iter().map(|v| v + 128.0).collect();
    let w = n.constant(Tensor::from_f64s::<u8>([40, 24], &bytes).expect("fits"));
    let zero = n.constant(Tensor::scalar(131u8));
    let y = n.op(MatMulInteger {}, &[output(0), w, output(2), zero]);
    let y = n.op(Convert { destination_type: ElementType::F32 }, &[y]);
    let w_scale = n.constant(Tensor::scalar(0.0078125f32));
    let scale = n.op(Multiply::default(), &[output(1), w_scale]);
    let y = n.op(Multiply::default(), &[y, scale]);
    let b = n.bias(&[24]);
    let y = n.op(Add::default(), &[y, b]);
    let y = n.op(Relu {}, &[y]);
    n.model.add_output("y", y);
    n.model
}

#[test]
fn products_of_what_is_quantized_by_its_range_run_in_bytes() {
    let Some(machine) = machine() else { return };
    for rows in [1, 11] {
        let kernels = check(&machine, &dynamic(rows), &[noise(&[rows, 40], 3)], &exact(), 1e-6);
        let count = |name: &str| kernels.iter().filter(|k| *k == name).count();
        assert_eq!(count("host"), 0, "{kernels:?}");
        assert_eq!((count("integer"), count("dynamic_quantize")), (1, 1), "{kernels:?}");
        assert_eq!(kernels.len(), 2, "{kernels:?}");
    }
}
