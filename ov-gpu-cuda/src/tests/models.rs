//! The networks that the device is made for, shrunk so that the fibers of the fake driver run them in a moment.

mod decoder;

use std::path::Path;

use ov_core::{
    Dimension, PartialShape,
    op::{
        Op,
        activation::{Clamp, Relu, Sigmoid, Swish},
        arithmetic::{Add, Multiply},
        concat::{Concat, Split},
        convolution::{Convolution, GroupConvolution},
        gather::Gather,
        matmul::MatMul,
        normalization::Mvn,
        pooling::MaxPool1,
        reduction::ReduceMean,
        reshape::Reshape,
        resize::{CoordinateMode, Interpolate, InterpolateMode, NearestMode, ShapeCalculation},
        softmax::SoftMax,
        transpose::Transpose,
    },
    property::PropertyValue,
};

use super::*;

/// A model under construction, whose weights are noise scaled so that values keep their size.
pub(super) struct Net {
    pub(super) model: Model,
    seed: u64,
}

impl Net {
    pub(super) fn new(name: &str) -> Self {
        Self { model: Model::new(name), seed: 0 }
    }

    pub(super) fn op(&mut self, op: impl Op, inputs: &[Value]) -> Value {
        let name = format!("n{}", self.model.nodes().count());
        self.model.add(op, inputs, name).expect("valid")
    }

    /// Noise whose magnitude suits sums of `fan` terms.
    pub(super) fn weights(&mut self, shape: &[usize], fan: usize) -> Value {
        self.seed += 1;
        let scale = (3.0 / fan as f32).sqrt();
        let numbers = noise(shape, self.seed).to_f64_vec().expect("numbers");
        let scaled: Vec<f32> = numbers.iter().map(|v| *v as f32 * scale).collect();
        let tensor = Tensor::from_vec(shape, scaled).expect("fits");
        self.model.add_constant(tensor, "w")
    }

    pub(super) fn i64s(&mut self, values: &[i64]) -> Value {
        self.model.add_constant(Tensor::from_i64s(values), "i")
    }

    /// A convolution with a bias, `groups` of which each has its own channels.
    fn conv(
        &mut self,
        x: Value,
        [cin, cout]: [usize; 2],
        k: usize,
        stride: i64,
        groups: usize,
    ) -> Value {
        let (strides, pad) = (vec![stride; 2], vec![(k / 2) as i64; 2]);
        let (dilations, pads_begin, pads_end) = (vec![1; 2], pad.clone(), pad);
        let y = if groups == 1 {
            let w = self.weights(&[cout, cin, k, k], cin * k * k);
            let op = Convolution { strides, dilations, pads_begin, pads_end, ..Default::default() };
            self.op(op, &[x, w])
        } else {
            let (ci, co) = (cin / groups, cout / groups);
            let w = self.weights(&[groups, co, ci, k, k], ci * k * k);
            let op =
                GroupConvolution { strides, dilations, pads_begin, pads_end, ..Default::default() };
            self.op(op, &[x, w])
        };
        let b = self.weights(&[1, cout, 1, 1], 10);
        self.op(Add::default(), &[y, b])
    }

    pub(super) fn linear(&mut self, x: Value, [cin, cout]: [usize; 2]) -> Value {
        let w = self.weights(&[cin, cout], cin);
        let y = self.op(MatMul::default(), &[x, w]);
        let b = self.weights(&[cout], 10);
        self.op(Add::default(), &[y, b])
    }

    fn max_pool(&mut self, x: Value, k: i64, stride: i64) -> Value {
        let op = MaxPool1 {
            kernel: vec![k; 2],
            strides: vec![stride; 2],
            pads_begin: vec![k / 2; 2],
            pads_end: vec![k / 2; 2],
            ..Default::default()
        };
        self.op(op, &[x])
    }

    /// The mean over height and width, as `[n, c]`.
    fn global_pool(&mut self, x: Value, channels: i64) -> Value {
        let axes = self.i64s(&[2, 3]);
        let y = self.op(ReduceMean { keep_dims: true }, &[x, axes]);
        self.reshape(y, &[0, channels])
    }

    pub(super) fn reshape(&mut self, x: Value, shape: &[i64]) -> Value {
        let shape = self.i64s(shape);
        self.op(Reshape { special_zero: true, ..Default::default() }, &[x, shape])
    }

    pub(super) fn transpose(&mut self, x: Value, order: &[i64]) -> Value {
        let order = self.i64s(order);
        self.op(Transpose {}, &[x, order])
    }

    fn split(&mut self, x: Value, axis: i64, parts: u32) -> Vec<Value> {
        let axis = self.model.add_constant(Tensor::scalar(axis), "axis");
        let first = self.op(Split { num_splits: i64::from(parts) }, &[x, axis]);
        (0..parts).map(|output| Value { node: first.node, output }).collect()
    }

    pub(super) fn layer_norm(&mut self, x: Value, width: usize) -> Value {
        let axes = self.i64s(&[-1]);
        let y = self.op(Mvn { eps: 1e-5, ..Default::default() }, &[x, axes]);
        let (scale, shift) = (self.weights(&[width], 3), self.weights(&[width], 10));
        let y = self.op(Multiply::default(), &[y, scale]);
        self.op(Add::default(), &[y, shift])
    }

    /// Attention over queries, keys and values `[n, heads, length, width]`, with what is added to the scores.
    fn attention(&mut self, [q, k, v]: [Value; 3], width: usize, mask: Option<Value>) -> Value {
        let scores = MatMul { transpose_b: true, ..Default::default() };
        let scores = self.op(scores, &[q, k]);
        let scale = self.model.add_constant(Tensor::scalar(1.0 / (width as f32).sqrt()), "s");
        let mut scores = self.op(Multiply::default(), &[scores, scale]);
        if let Some(mask) = mask {
            scores = self.op(Add::default(), &[scores, mask]);
        }
        let weights = self.op(SoftMax { axis: -1 }, &[scores]);
        self.op(MatMul::default(), &[weights, v])
    }

    pub(super) fn finish(mut self, outputs: &[Value]) -> Model {
        for (i, value) in outputs.iter().enumerate() {
            self.model.add_output(format!("y{i}"), *value);
        }
        self.model
    }
}

fn resnet() -> Model {
    let mut n = Net::new("resnet50");
    let x = parameter(&mut n.model, "x", &[1, 3, 32, 32]);
    let x = n.conv(x, [3, 8], 7, 2, 1);
    let x = n.op(Relu {}, &[x]);
    let mut x = n.max_pool(x, 3, 2);
    let mut cin = 8;
    for (width, stride) in [(4, 1), (8, 2)] {
        for block in 0..2 {
            let (stride, cout) = (if block == 0 { stride } else { 1 }, width * 4);
            let y = n.conv(x, [cin, width], 1, 1, 1);
            let y = n.op(Relu {}, &[y]);
            let y = n.conv(y, [width, width], 3, stride, 1);
            let y = n.op(Relu {}, &[y]);
            let y = n.conv(y, [width, cout], 1, 1, 1);
            let short = if block == 0 { n.conv(x, [cin, cout], 1, stride, 1) } else { x };
            let sum = n.op(Add::default(), &[y, short]);
            x = n.op(Relu {}, &[sum]);
            cin = cout;
        }
    }
    let x = n.global_pool(x, 32);
    let y = n.linear(x, [32, 10]);
    n.finish(&[y])
}

fn mobilenet() -> Model {
    let mut n = Net::new("mobilenet_v2");
    let relu6 = || Clamp { min: 0.0, max: 6.0 };
    let x = parameter(&mut n.model, "x", &[1, 3, 24, 24]);
    let x = n.conv(x, [3, 8], 3, 2, 1);
    let mut x = n.op(relu6(), &[x]);
    for (cin, cout, stride) in [(8, 8, 1), (8, 12, 2), (12, 12, 1)] {
        let wide = cin * 3;
        let y = n.conv(x, [cin, wide], 1, 1, 1);
        let y = n.op(relu6(), &[y]);
        let y = n.conv(y, [wide, wide], 3, stride, wide);
        let y = n.op(relu6(), &[y]);
        let y = n.conv(y, [wide, cout], 1, 1, 1);
        x = if cin == cout { n.op(Add::default(), &[y, x]) } else { y };
    }
    let x = n.global_pool(x, 12);
    let y = n.linear(x, [12, 10]);
    n.finish(&[y])
}

/// Two scales of a network like `YOLOv8`: gated convolutions with splits, pyramid pooling, upsampling, a head with distributions.
fn yolo() -> Model {
    let mut n = Net::new("yolov8n");
    let conv = |n: &mut Net, x: Value, c: [usize; 2], k: usize, stride: i64| {
        let y = n.conv(x, c, k, stride, 1);
        n.op(Swish {}, &[y])
    };
    let c2f = |n: &mut Net, x: Value, [cin, cout]: [usize; 2]| {
        let y = conv(n, x, [cin, cout], 1, 1);
        let halves = n.split(y, 1, 2);
        let y = conv(n, halves[1], [cout / 2, cout / 2], 3, 1);
        let y = conv(n, y, [cout / 2, cout / 2], 3, 1);
        let y = n.op(Add::default(), &[y, halves[1]]);
        let y = n.op(Concat { axis: 1 }, &[halves[0], halves[1], y]);
        conv(n, y, [cout / 2 * 3, cout], 1, 1)
    };
    let x = parameter(&mut n.model, "x", &[1, 3, 32, 32]);
    let x = conv(&mut n, x, [3, 8], 3, 2);
    let x = conv(&mut n, x, [8, 8], 3, 2);
    let fine = c2f(&mut n, x, [8, 8]);
    let x = conv(&mut n, fine, [8, 16], 3, 2);
    let x = conv(&mut n, x, [16, 8], 1, 1);
    let a = n.max_pool(x, 5, 1);
    let b = n.max_pool(a, 5, 1);
    let c = n.max_pool(b, 5, 1);
    let x = n.op(Concat { axis: 1 }, &[x, a, b, c]);
    let coarse = conv(&mut n, x, [32, 16], 1, 1);
    let axes = n.i64s(&[2, 3]);
    let twice = n.model.add_constant(Tensor::from_vec([2], vec![2.0f32, 2.0]).expect("fits"), "2");
    let resize = Interpolate {
        mode: InterpolateMode::Nearest,
        shape_calculation_mode: ShapeCalculation::Scales,
        coordinate_transformation_mode: CoordinateMode::Asymmetric,
        nearest_mode: NearestMode::Floor,
        ..Default::default()
    };
    let up = n.op(resize, &[coarse, twice, axes]);
    let x = n.op(Concat { axis: 1 }, &[up, fine]);
    let x = c2f(&mut n, x, [24, 16]);
    let (bins, classes) = (4, 5);
    let boxes = n.conv(x, [16, 4 * bins], 1, 1, 1);
    let boxes = n.reshape(boxes, &[0, 4, bins as i64, 64]);
    let boxes = n.transpose(boxes, &[0, 2, 1, 3]);
    let boxes = n.op(SoftMax { axis: 1 }, &[boxes]);
    let expectation = n.weights(&[1, bins, 1, 1], bins);
    let boxes = n.op(Multiply::default(), &[boxes, expectation]);
    let axes = n.i64s(&[1]);
    let boxes = n.op(ReduceMean { keep_dims: false }, &[boxes, axes]);
    let scores = n.conv(x, [16, classes], 1, 1, 1);
    let scores = n.reshape(scores, &[0, classes as i64, -1]);
    let scores = n.op(Sigmoid {}, &[scores]);
    let y = n.op(Concat { axis: 1 }, &[boxes, scores]);
    n.finish(&[y])
}

#[test]
fn resnet50_gives_what_the_reference_gives() {
    let Some(machine) = machine() else { return };
    let kernels = check(&machine, &resnet(), &[noise(&[1, 3, 32, 32], 99)], &exact(), 1e-4);
    assert!(kernels.iter().all(|k| k != "host"), "{kernels:?}");
}

#[test]
fn mobilenet_v2_gives_what_the_reference_gives() {
    let Some(machine) = machine() else { return };
    let kernels = check(&machine, &mobilenet(), &[noise(&[1, 3, 24, 24], 98)], &exact(), 1e-4);
    assert!(kernels.iter().all(|k| k != "host"), "{kernels:?}");
}

#[test]
fn yolov8n_gives_what_the_reference_gives() {
    let Some(machine) = machine() else { return };
    let kernels = check(&machine, &yolo(), &[noise(&[1, 3, 32, 32], 97)], &exact(), 1e-4);
    assert!(kernels.iter().all(|k| k != "host"), "{kernels:?}");
}

#[test]
fn narrow_storage_stays_within_a_hundredth() {
    let Some(machine) = machine() else { return };
    for precision in [ElementType::Bf16, ElementType::F16] {
        let properties = PropertyMap::new().with(hint::INFERENCE_PRECISION, precision);
        for (model, input) in
            [(resnet(), noise(&[1, 3, 32, 32], 99)), (vertical::mlp(), noise(&[3, 20], 9))]
        {
            let expected = reference::evaluate(&model, std::slice::from_ref(&input)).expect("runs");
            let compiled =
                machine.core.compile_model(model, "CUDA", &properties).expect("compiles");
            let mut request = compiled.create_infer_request().expect("memory");
            let got = request.run(&[input]).expect("runs");
            let numbers = |t: &Tensor| t.to_f64_vec().expect("numbers");
            let (got, expected) = (numbers(&got[0]), numbers(&expected[0]));
            let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
            let off = norm(&mut got.iter().zip(&expected).map(|(a, b)| a - b));
            let size = norm(&mut expected.iter().copied());
            assert!(off <= 1e-2 * size, "{}: {off} of {size}", precision.to_text());
            assert!(off > 0.0, "something is stored in {}", precision.to_text());
        }
    }
}

#[test]
fn variables_live_from_one_inference_to_the_next() {
    let Some(machine) = machine() else { return };
    let mut n = Net::new("sum");
    let x = parameter(&mut n.model, "x", &[1, 2]);
    let shape = PartialShape::from(&Shape::new(&[1, 2]));
    let v = n.model.add_variable("v", ElementType::F32, shape, None).expect("valid");
    let y = n.op(Add::default(), &[x, v]);
    let mut model = n.finish(&[y]);
    model.add_variable_output(0, y).expect("fits");
    let compiled = machine.core.compile_model(model, "CUDA", &exact()).expect("compiles");
    let mut request = compiled.create_infer_request().expect("memory");
    let x = Tensor::from_vec([1, 2], vec![1.0f32, 2.0]).expect("fits");
    for round in 1..4 {
        let y = request.run(std::slice::from_ref(&x)).expect("runs");
        let expected = [round as f32, 2.0 * round as f32];
        assert_eq!(y[0].as_slice::<f32>().expect("f32"), expected);
    }
    request.reset_states().expect("stateful");
    let y = request.run(&[x]).expect("runs");
    assert_eq!(y[0].as_slice::<f32>().expect("f32"), [1.0, 2.0]);
}

#[test]
fn silero_vad_gives_what_the_reference_gives() {
    let Some(machine) = machine() else { return };
    // Where the tests run need not be where they were built.
    let folder = std::env::var("CARGO_MANIFEST_DIR");
    let folder = folder.unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let file = Path::new(&folder).join("../ov-bench/models/silero-vad-v6.onnx");
    let model = machine.core.read_model(&file).expect("sound");
    let inputs: Vec<Tensor> = model
        .inputs()
        .iter()
        .map(|id| {
            let node = model.node(*id);
            match node.element_type(0) {
                ElementType::I64 => Tensor::scalar(16_000i64),
                _ if node.name() == "state" => noise(&[2, 1, 128], 2),
                _ => noise(&[1, 576], 1),
            }
        })
        .collect();
    check(&machine, &model, &inputs, &exact(), 1e-4);
}
