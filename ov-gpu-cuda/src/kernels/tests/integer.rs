//! Products and sums of bytes. Scales are powers of two and biases few bits long, so that nothing is rounded before results
//! are quantized: they are to be the reference's to the bit.

use ov_core::{
    ElementType::{self, F32, I8, U8},
    Tensor,
    op::{
        Op,
        fused::{
            activation::Activation,
            integer::{IntegerConvolution, IntegerProduct, Port},
            quantize::IntegerAdd,
        },
    },
};

use super::super::{
    Gpu, Reject,
    integer::{INTEGER, INTEGER_ADD},
};
use crate::testing::{H100, KernelTest, bind, check, noise};

/// Bytes of the whole range of their type.
pub(super) fn bytes(ty: ElementType, shape: &[usize], seed: u32) -> Tensor {
    let low = if ty == U8 { 128.0 } else { 0.0 };
    let values = noise(F32, shape, seed).to_f64_vec().expect("floats");
    let values: Vec<f64> = values.iter().map(|v| (v * 64.0).floor() + low).collect();
    Tensor::from_f64s::<f64>(shape, &values).expect("fits").cast(ty).expect("numbers")
}

/// Numbers of few bits.
fn quarters(shape: &[usize], seed: u32) -> Tensor {
    let values = noise(F32, shape, seed).to_f64_vec().expect("floats");
    let values: Vec<f64> = values.iter().map(|v| (v * 256.0).round() / 4.0).collect();
    Tensor::from_f64s::<f32>(shape, &values).expect("fits")
}

fn number(ty: ElementType, v: i64) -> Tensor {
    Tensor::from_i64s(&[v]).cast(ty).expect("numbers")
}

/// What a product has beside its operands.
#[derive(Clone, Copy)]
struct Case {
    x: ElementType,
    w: ElementType,
    x_zero: Option<i64>,
    /// One, or one per output around it.
    w_zero: Option<(i64, bool)>,
    scales: bool,
    /// Whether scales have a factor.
    factor: bool,
    bias: bool,
    residual: bool,
    output: ElementType,
}

const PLAIN: Case = Case {
    x: U8,
    w: I8,
    x_zero: Some(120),
    w_zero: None,
    scales: true,
    factor: false,
    bias: true,
    residual: false,
    output: U8,
};

/// The kinds of products that models have, and some that they have not.
const CASES: [Case; 6] = [
    PLAIN,
    Case { x: I8, x_zero: Some(-7), scales: false, output: I8, residual: true, ..PLAIN },
    Case { x_zero: None, factor: true, bias: false, output: F32, residual: true, ..PLAIN },
    // Fits a signed byte less its zero points.
    Case { w: U8, w_zero: Some((128, false)), output: F32, ..PLAIN },
    // Does not.
    Case { w: U8, w_zero: Some((30, true)), scales: false, factor: true, ..PLAIN },
    Case { x: I8, x_zero: Some(100), w_zero: Some((-90, false)), bias: false, output: I8, ..PLAIN },
];

impl Case {
    /// The node's inputs for operands of these shapes.
    fn inputs(&self, x: &[usize], w: &[usize], n: usize, y: &[usize]) -> Vec<Tensor> {
        let absent = Tensor::absent;
        let w_zero = self.w_zero.map_or_else(absent, |(zero, per_output)| {
            let count = if per_output { n } else { 1 };
            let zeros: Vec<i64> = (0..count as i64).map(|i| zero + i % 5).collect();
            Tensor::from_i64s(&zeros).cast(self.w).expect("numbers")
        });
        let scales: Vec<f32> = match self.scales {
            true => (0..n).map(|i| 0.5f32.powi(6 + i as i32 % 3)).collect(),
            false => vec![0.0078125],
        };
        let mut inputs = vec![
            bytes(self.x, x, 1),
            bytes(self.w, w, 2),
            self.x_zero.map_or_else(absent, |z| number(self.x, z)),
            w_zero,
            Tensor::from_vec([scales.len()], scales).expect("fits"),
            if self.bias { quarters(&[n], 3) } else { absent() },
            if self.residual { quarters(y, 4) } else { absent() },
        ];
        if self.output != F32 {
            inputs.push(Tensor::scalar(4f32));
            inputs.push(number(self.output, if self.output == U8 { 121 } else { -3 }));
        }
        if self.factor {
            inputs.resize_with(Port::FACTOR, absent);
            inputs.push(Tensor::scalar(0.5f32));
        }
        inputs
    }
}

const CONSTANTS: [usize; 3] = [Port::W, Port::W_ZERO, Port::BIAS];

#[track_caller]
fn run(op: &dyn Op, inputs: &[Tensor], gpu: Gpu) {
    let test = KernelTest::new(&INTEGER, op, inputs, 0.0);
    check(&KernelTest { gpu, ..test }.constants(&CONSTANTS));
}

#[track_caller]
fn product(case: &Case, x: &[usize], n: usize, transpose_b: bool) {
    let k = *x.last().expect("rank of at least 1");
    let w = if transpose_b { [n, k] } else { [k, n] };
    let y: Vec<usize> = x[..x.len() - 1].iter().copied().chain([n]).collect();
    let mut op =
        IntegerProduct { transpose_b, output_type: case.output, ..IntegerProduct::default() };
    op.set_activation(Activation::Relu);
    op.residual_after = transpose_b;
    run(&op, &case.inputs(x, &w, n, &y), H100);
}

#[test]
fn tiles_and_their_tails() {
    for case in &CASES {
        for (x, n) in [(&[9_usize, 40][..], 24), (&[17, 33], 65), (&[2, 20, 64], 72), (&[33, 1], 1)]
        {
            product(case, x, n, x.len() == 3);
        }
    }
    product(&PLAIN, &[70, 136], 66, true);
    product(&PLAIN, &[16, 8], 7, false);
}

#[test]
fn large_tiles() {
    // One multiprocessor, so that the largest tile is taken.
    let gpu = Gpu { multiprocessors: 1, ..H100 };
    for case in [CASES[1], CASES[4]] {
        let op = IntegerProduct { output_type: case.output, ..IntegerProduct::default() };
        run(&op, &case.inputs(&[133, 80], &[80, 140], 140, &[133, 140]), gpu);
    }
}

#[test]
fn few_columns_share_k_among_blocks() {
    for case in [CASES[0], CASES[2], CASES[4]] {
        product(&case, &[12, 1032], 40, true);
        product(&case, &[20, 1777], 3, true);
    }
}

#[test]
fn few_rows() {
    for case in &CASES {
        for (m, k, n) in [(1, 64, 10), (1, 1030, 3), (3, 100, 9), (8, 520, 17), (1, 1, 1)] {
            product(case, &[m, k], n, m != 3);
        }
    }
}

#[test]
fn nothing_to_do() {
    product(&PLAIN, &[0, 16], 8, true);
    product(&PLAIN, &[12, 0], 8, true);
    product(&CASES[2], &[3, 0], 8, true);
}

#[test]
fn activations_round_in_f32() {
    let case = Case { output: F32, residual: true, ..PLAIN };
    let inputs = case.inputs(&[2, 5, 12], &[12, 9], 9, &[2, 5, 9]);
    for id in 0..=16 {
        let mut op = IntegerProduct::default();
        op.set_activation(Activation::from_parts(id, [0.3, 0.7]).expect("known"));
        let test = KernelTest::new(&INTEGER, &op, &inputs, 2e-5);
        check(&test.constants(&CONSTANTS));
    }
}

fn convolution(case: &Case) -> IntegerConvolution {
    IntegerConvolution { last: true, output_type: case.output, ..IntegerConvolution::default() }
}

#[test]
fn windows_of_one_to_three_axes() {
    for case in &CASES {
        let op = IntegerConvolution {
            strides: vec![2],
            pads_begin: vec![2],
            pads_end: vec![1],
            ..convolution(case)
        };
        run(&op, &case.inputs(&[2, 11, 5], &[9, 5, 4], 9, &[2, 6, 9]), H100);
        let mut op = IntegerConvolution {
            strides: vec![1, 2],
            dilations: vec![2, 1],
            pads_begin: vec![1, 0],
            pads_end: vec![2, 3],
            ..convolution(case)
        };
        op.set_activation(Activation::Clamp(0.0, 400.0));
        for channels in [8, 4, 16] {
            let (x, w) = ([1, 9, 8, channels], [24, channels, 3, 3]);
            run(&op, &case.inputs(&x, &w, 24, &[1, 8, 5, 24]), H100);
        }
    }
    let op = IntegerConvolution {
        pads_begin: vec![1, 0, 0],
        pads_end: vec![1, 0, 0],
        ..convolution(&PLAIN)
    };
    run(&op, &PLAIN.inputs(&[1, 3, 4, 5, 4], &[6, 4, 2, 2, 3], 6, &[1, 4, 3, 3, 6]), H100);
}

#[test]
fn groups_planar_images_and_shares() {
    let pads = || vec![1, 1];
    for case in &CASES {
        let op = IntegerConvolution {
            groups: 2,
            pads_begin: pads(),
            pads_end: pads(),
            ..convolution(case)
        };
        run(&op, &case.inputs(&[1, 5, 5, 16], &[12, 8, 3, 3], 12, &[1, 5, 5, 12]), H100);
        run(&op, &case.inputs(&[1, 5, 5, 6], &[4, 3, 3, 3], 4, &[1, 5, 5, 4]), H100);
        let op = IntegerConvolution { groups: 1, ..op };
        run(&op, &case.inputs(&[1, 4, 4, 128], &[16, 128, 3, 3], 16, &[1, 4, 4, 16]), H100);
        let op = IntegerConvolution {
            planar: true,
            strides: vec![2, 2],
            pads_begin: vec![3, 3],
            pads_end: vec![3, 3],
            ..convolution(case)
        };
        run(&op, &case.inputs(&[1, 3, 13, 11], &[16, 3, 7, 7], 16, &[1, 7, 6, 16]), H100);
    }
}

#[test]
fn single_taps_are_plain_products() {
    for case in &CASES {
        let op = convolution(case);
        run(&op, &case.inputs(&[1, 4, 4, 24], &[10, 24, 1, 1], 10, &[1, 4, 4, 10]), H100);
        run(&op, &case.inputs(&[1, 1, 1, 24], &[10, 24, 1, 1], 10, &[1, 1, 1, 10]), H100);
        let op = IntegerConvolution { strides: vec![2, 2], ..op };
        run(&op, &case.inputs(&[1, 5, 5, 16], &[10, 16, 1, 1], 10, &[1, 3, 3, 10]), H100);
    }
}

#[test]
fn one_channel_per_output() {
    for case in &CASES {
        let op = IntegerConvolution {
            groups: 16,
            strides: vec![2, 1],
            pads_begin: vec![1, 1],
            pads_end: vec![1, 1],
            ..convolution(case)
        };
        run(&op, &case.inputs(&[2, 7, 6, 16], &[16, 1, 3, 3], 16, &[2, 4, 6, 16]), H100);
        let op = IntegerConvolution { groups: 3, ..op };
        run(&op, &case.inputs(&[1, 7, 6, 3], &[6, 1, 3, 3], 6, &[1, 4, 6, 6]), H100);
        let op = IntegerConvolution { groups: 5, dilations: vec![2], ..convolution(case) };
        run(&op, &case.inputs(&[1, 12, 5], &[5, 1, 3], 5, &[1, 8, 5]), H100);
    }
    // Enough work for one multiprocessor that threads take 16 channels.
    let gpu = Gpu { multiprocessors: 1, ..H100 };
    for case in [PLAIN, CASES[2]] {
        let op = IntegerConvolution {
            groups: 32,
            pads_begin: vec![2, 2],
            pads_end: vec![2, 2],
            ..convolution(&case)
        };
        run(&op, &case.inputs(&[1, 17, 16, 32], &[32, 1, 5, 5], 32, &[1, 17, 16, 32]), gpu);
    }
}

#[test]
fn other_nodes_are_left_to_the_host() {
    let planar = IntegerConvolution { last: false, ..convolution(&PLAIN) };
    let inputs = PLAIN.inputs(&[1, 3, 5, 5], &[4, 3, 3, 3], 4, &[1, 4, 3, 3]);
    let refused = |op: &dyn Op, constants: &[usize]| {
        let test = KernelTest::new(&INTEGER, op, &inputs, 0.0);
        let reason: Option<Reject> = bind(&test.constants(constants)).expect_err("refused");
        reason.expect("of its own").0.into_owned()
    };
    assert_eq!(refused(&planar, &CONSTANTS), "gives channels-last results");
    let last = IntegerConvolution { planar: true, ..convolution(&PLAIN) };
    assert_eq!(refused(&last, &[]), "takes constant filters");
    assert_eq!(refused(&last, &[Port::W]), "takes constant bias");
}

#[test]
fn sums_of_bytes() {
    for (types, len) in
        [([U8, U8, U8], 1), ([I8, I8, I8], 15), ([U8, I8, U8], 16), ([I8, U8, I8], 2083)]
    {
        let [a, b, y] = types;
        let mut op = IntegerAdd::default();
        op.set_activation(Activation::Relu);
        let inputs = [
            bytes(a, &[1, len], 1),
            Tensor::scalar(0.37f32),
            number(a, 12),
            bytes(b, &[1, len], 2),
            Tensor::scalar(0.113f32),
            number(b, 77),
            Tensor::scalar(0.291f32),
            number(y, 9),
        ];
        check(&KernelTest::new(&INTEGER_ADD, &op, &inputs, 0.0));
    }
}
