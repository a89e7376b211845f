//! Element-wise kernels against the reference.

use ov_core::{
    ElementType, Model, Tensor,
    op::{
        Op,
        activation::{
            Abs, Acos, Acosh, Asin, Asinh, Atan, Atanh, Ceiling, Clamp, Cos, Cosh, Elu, Erf, Exp,
            Floor, Gelu, Gelu2, GeluMode, HSigmoid, HSwish, HardSigmoid, Log, Mish, Negative,
            PRelu, Relu, Round, RoundMode, Selu, Sigmoid, Sign, Sin, Sinh, SoftPlus, SoftSign,
            Sqrt, Swish, Tan, Tanh,
        },
        arithmetic::{
            Add, Divide, FloorMod, Maximum, Minimum, Mod, Multiply, Power, SquaredDifference,
            Subtract,
        },
        comparison::{
            Equal, Greater, GreaterEqual, IsFinite, IsInf, IsNaN, Less, LessEqual, NotEqual,
        },
        convert::{BitCast, Convert, ConvertLike, ConvertNarrow, ScaleRounding},
        fused::element_wise::ElementWise,
        logical::{
            BitwiseAnd, BitwiseLeftShift, BitwiseNot, BitwiseOr, BitwiseRightShift, BitwiseXor,
            LogicalAnd, LogicalNot, LogicalOr, LogicalXor,
        },
        normalization::{BatchNormInference, BatchNormInference1},
        quantize::{DequantizeLinear, FakeConvert, FakeConvertType, FakeQuantize, QuantizeLinear},
        select::Select,
    },
};

use super::ELTWISE;
use crate::kernels::Bound;
use crate::testing::{KernelTest, bind, check, noise};

const NUMBERS: [ElementType; 12] = [
    ElementType::F32,
    ElementType::F16,
    ElementType::Bf16,
    ElementType::F64,
    ElementType::I8,
    ElementType::I16,
    ElementType::I32,
    ElementType::I64,
    ElementType::U8,
    ElementType::U16,
    ElementType::U32,
    ElementType::U64,
];

/// What results may differ by in a type, of functions whose error is some units in the last place.
fn tolerance(ty: ElementType) -> f64 {
    match ty {
        ElementType::F32 => 4e-6,
        ElementType::F64 => 1e-13,
        ElementType::F16 => 2e-3,
        ElementType::Bf16 => 1.6e-2,
        _ => 0.0,
    }
}

/// Values of any size, and what is special: zeros, infinities, NaN, halves, integers.
fn specials(ty: ElementType) -> Tensor {
    let mut values = vec![
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        -1.5,
        2.5,
        -2.5,
        3.0,
        -3.0,
        6.0,
        -7.0,
        1e-3,
        88.0,
        -88.0,
        300.0,
        -300.0,
        1e4,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        127.0,
        128.0,
        255.0,
        256.0,
    ];
    values.extend((0..100).map(|i| f64::from(i) * 0.37 - 17.0));
    let len = values.len();
    Tensor::from_f64s::<f64>([len], &values).expect("fits").cast(ty).expect("native")
}

fn whole(ty: ElementType, shape: &[usize], seed: u32) -> Tensor {
    let wide = noise(ElementType::F64, shape, seed);
    let values: Vec<f64> =
        wide.to_f64_vec().expect("floats").iter().map(|v| (v * 60.0).round()).collect();
    Tensor::from_f64s::<f64>(shape, &values).expect("fits").cast(ty).expect("native")
}

/// An operator on these inputs, within the tolerance of their type.
#[track_caller]
fn try_with(op: &dyn Op, inputs: &[Tensor]) {
    check(&KernelTest::new(&ELTWISE, op, inputs, tolerance(inputs[0].element_type())));
}

#[test]
fn functions_of_floats_have_the_values_of_the_reference() {
    let ops: [&dyn Op; 33] = [
        &Sigmoid {},
        &Tanh {},
        &Exp {},
        &Log {},
        &Sqrt {},
        &Floor {},
        &Ceiling {},
        &Sin {},
        &Cos {},
        &Tan {},
        &Asin {},
        &Acos {},
        &Atan {},
        &Sinh {},
        &Cosh {},
        &Asinh {},
        &Acosh {},
        &Atanh {},
        &Erf {},
        &HSwish {},
        &HSigmoid {},
        &Mish {},
        &SoftPlus {},
        &SoftSign {},
        &Gelu2 {},
        &Gelu::default(),
        &Swish {},
        &Gelu { approximation_mode: GeluMode::Tanh },
        &Elu { alpha: 0.7 },
        &IsNaN {},
        &IsFinite {},
        &IsInf { detect_negative: false, detect_positive: true },
        &IsInf::default(),
    ];
    for op in ops {
        try_with(op, &[specials(ElementType::F32)]);
    }
    for ty in [ElementType::F16, ElementType::Bf16, ElementType::F64] {
        for op in [&Sigmoid {} as &dyn Op, &Gelu2 {}, &IsNaN {}] {
            try_with(op, &[specials(ty)]);
        }
    }
}

#[test]
fn functions_of_numbers_are_exact_in_every_type() {
    for ty in NUMBERS {
        try_with(&Clamp { min: -1.5, max: 6.5 }, &[specials(ty)]);
        try_with(&Sign {}, &[specials(ty)]);
    }
    for ty in [ElementType::F32, ElementType::I8, ElementType::U32, ElementType::I64] {
        for op in [&Relu {} as &dyn Op, &Abs {}, &Negative {}] {
            try_with(op, &[specials(ty)]);
        }
    }
    for ty in [ElementType::F32, ElementType::F16] {
        try_with(&Round { mode: RoundMode::HalfToEven }, &[specials(ty)]);
        try_with(&Round { mode: RoundMode::HalfAwayFromZero }, &[specials(ty)]);
    }
}

#[test]
fn arithmetic_is_that_of_the_reference_in_every_type() {
    let ops: [&dyn Op; 11] = [
        &Add {},
        &Subtract {},
        &Multiply {},
        &Power {},
        &Maximum {},
        &Minimum {},
        &SquaredDifference {},
        &Divide { m_pythondiv: true },
        &Divide { m_pythondiv: false },
        &Mod {},
        &FloorMod {},
    ];
    for ty in
        [ElementType::F32, ElementType::I8, ElementType::U16, ElementType::I32, ElementType::I64]
    {
        for op in ops {
            let (a, mut b) = (whole(ty, &[257], 1), whole(ty, &[257], 2));
            if ty.is_integer() {
                // The reference refuses to divide by zero; 1 | b is odd.
                let one = Tensor::from_f64s::<f64>([257], &[1.0; 257]).expect("fits");
                let one = one.cast(ty).expect("native");
                b = BitwiseOr {}.evaluate_one(&[b, one]);
            }
            try_with(op, &[a, b]);
        }
    }
    for ty in NUMBERS {
        try_with(&SquaredDifference {}, &[whole(ty, &[65], 3), whole(ty, &[65], 4)]);
    }
    for op in ops {
        let b: Vec<f64> = specials(ElementType::F32).to_f64_vec().expect("f32");
        let b: Vec<f64> = b.iter().rev().copied().collect();
        let b = Tensor::from_f64s::<f32>([b.len()], &b).expect("fits");
        try_with(op, &[specials(ElementType::F32), b]);
    }
}

/// The only output of an operator.
trait EvaluateOne {
    fn evaluate_one(&self, inputs: &[Tensor]) -> Tensor;
}

impl<T: Op> EvaluateOne for T {
    fn evaluate_one(&self, inputs: &[Tensor]) -> Tensor {
        self.evaluate(inputs).expect("valid").remove(0)
    }
}

#[test]
fn operands_broadcast_in_every_direction() {
    for (a, b) in [
        (vec![2, 3, 8], vec![8]),
        (vec![2, 3, 8], vec![3, 1]),
        (vec![2, 1, 3], vec![4, 1]),
        (vec![], vec![5, 2]),
        (vec![33], vec![]),
        (vec![2, 3, 1, 5], vec![2, 1, 4, 1]),
        (vec![0, 3], vec![1]),
        (vec![], vec![]),
        (vec![4, 16], vec![4, 16]),
        (vec![3, 4, 1, 2, 1, 2], vec![3, 1, 5, 1, 2, 1]),
    ] {
        for ty in [ElementType::F32, ElementType::F16] {
            try_with(&Subtract {}, &[noise(ty, &a, 1), noise(ty, &b, 2)]);
        }
    }
}

#[test]
fn comparisons_and_logic_give_truth_values() {
    let ops: [&dyn Op; 6] =
        [&Equal {}, &NotEqual {}, &Less {}, &LessEqual {}, &Greater {}, &GreaterEqual {}];
    for op in ops {
        try_with(op, &[specials(ElementType::F32), whole(ElementType::F32, &[1], 1)]);
        try_with(op, &[whole(ElementType::I32, &[40], 1), whole(ElementType::I32, &[40], 2)]);
    }
    for ty in [ElementType::F16, ElementType::U64, ElementType::I8] {
        try_with(&Less {}, &[whole(ty, &[40], 1), whole(ty, &[40], 2)]);
    }
    let truth = |seed| {
        let bits: Vec<bool> = whole(ElementType::I32, &[35], seed)
            .to_i64_vec()
            .expect("i32")
            .iter()
            .map(|v| v & 1 != 0)
            .collect();
        Tensor::from_bools([5, 7], &bits).expect("fits")
    };
    for op in [&LogicalAnd {} as &dyn Op, &LogicalOr {}, &LogicalXor {}, &Equal {}, &BitwiseAnd {}]
    {
        try_with(op, &[truth(1), truth(2)]);
    }
    try_with(&LogicalNot {}, &[truth(1)]);
    try_with(&BitwiseNot {}, &[truth(1)]);
    for ty in [ElementType::F16, ElementType::I64, ElementType::U8, ElementType::F32] {
        try_with(&Select {}, &[truth(3), whole(ty, &[5, 7], 1), whole(ty, &[5, 1], 2)]);
    }
}

#[test]
fn bits_shift_and_combine_as_in_the_reference() {
    for ty in
        [ElementType::I8, ElementType::U8, ElementType::I16, ElementType::I32, ElementType::U64]
    {
        let shifts: Vec<f64> = (0..70).map(|i| f64::from(i) - 2.0).collect();
        let shifts =
            Tensor::from_f64s::<f64>([70], &shifts).expect("fits").cast(ty).expect("native");
        for op in [&BitwiseLeftShift {} as &dyn Op, &BitwiseRightShift {}] {
            try_with(op, &[whole(ty, &[70], 1), shifts.clone()]);
        }
    }
    let (a, b) = (whole(ElementType::I16, &[33], 1), whole(ElementType::I16, &[33], 2));
    for op in [&BitwiseAnd {} as &dyn Op, &BitwiseOr {}, &BitwiseXor {}] {
        try_with(op, &[a.clone(), b.clone()]);
    }
    try_with(&BitwiseNot {}, &[a]);
}

#[test]
fn conversions_round_wrap_and_saturate_as_the_reference_does() {
    let types =
        [ElementType::F32, ElementType::F16, ElementType::I8, ElementType::I64, ElementType::U64];
    for from in types {
        for to in types.into_iter().chain([ElementType::Boolean]).filter(|t| *t != from) {
            try_with(&Convert { destination_type: to }, &[specials(from)]);
        }
    }
    for (from, to) in [
        (ElementType::F64, ElementType::Bf16),
        (ElementType::F64, ElementType::F32),
        (ElementType::Bf16, ElementType::U8),
        (ElementType::U32, ElementType::F32),
        (ElementType::I16, ElementType::U32),
    ] {
        try_with(&Convert { destination_type: to }, &[specials(from)]);
    }
    let truth = Tensor::from_bools([3], &[true, false, true]).expect("fits");
    try_with(&Convert { destination_type: ElementType::Bf16 }, std::slice::from_ref(&truth));
    try_with(&ConvertLike {}, &[specials(ElementType::F32), Tensor::scalar(1i32)]);
    try_with(&BitCast { destination_type: ElementType::Boolean }, &[specials(ElementType::U8)]);
    let same = BitCast { destination_type: ElementType::U32 };
    try_with(&same, &[specials(ElementType::F32)]);
}

#[test]
fn parameters_are_inputs_or_constants() {
    let x = specials(ElementType::F32);
    let one = |v: f32| Tensor::from_vec([1], vec![v]).expect("fits");
    try_with(&HardSigmoid {}, &[x.clone(), one(0.2), one(0.6)]);
    try_with(&Selu {}, &[x.clone(), one(1.6), one(1.05)]);
    try_with(&Swish {}, &[x, one(1.7)]);
    let images = noise(ElementType::F32, &[2, 3, 4, 5], 1);
    for slope in [vec![3], vec![1], vec![5], vec![3, 1, 1], vec![2, 3, 4, 5]] {
        try_with(&PRelu {}, &[images.clone(), noise(ElementType::F32, &slope, 2)]);
    }
    let positive = |seed| Abs {}.evaluate_one(&[noise(ElementType::F32, &[3], seed)]);
    let p = |seed| noise(ElementType::F32, &[3], seed);
    let new = BatchNormInference { epsilon: 1e-3 };
    try_with(&new, &[images.clone(), p(1), p(2), p(3), positive(4)]);
    let old = BatchNormInference1 { epsilon: 1e-3 };
    try_with(&old, &[p(1), p(2), images, p(3), positive(4)]);
}

#[test]
fn scales_run_along_axes_and_blocks() {
    let x = noise(ElementType::F32, &[2, 6, 4], 1);
    let scale = |shape: &[usize]| {
        let s = Abs {}.evaluate_one(&[noise(ElementType::F32, shape, 2)]);
        Add {}.evaluate_one(&[s, Tensor::scalar(0.01f32)])
    };
    for (shape, axis, block_size) in [
        (vec![], 1, 0),
        (vec![6], 1, 0),
        (vec![4], -1, 0),
        (vec![2, 3, 4], 1, 2),
        (vec![2, 6, 1], 2, 4),
    ] {
        let quantize = QuantizeLinear { axis, block_size, ..QuantizeLinear::default() };
        let zero = whole(ElementType::I8, &shape, 3);
        let inputs = [x.clone(), scale(&shape), zero.clone()];
        try_with(&quantize, &inputs);
        try_with(&quantize, &inputs[..2]);
        let y = quantize.evaluate_one(&inputs);
        let dequantize = DequantizeLinear { axis, block_size, ..DequantizeLinear::default() };
        let test = [y, scale(&shape), zero];
        check(&KernelTest::new(&ELTWISE, &dequantize, &test, 1e-6));
    }
    let s = |v: f32| Tensor::scalar(v);
    for levels in [2, 16, 256] {
        let inputs = [x.clone(), s(-1.0), s(1.5), s(-1.0), s(1.5)];
        check(&KernelTest::new(&ELTWISE, &FakeQuantize { levels }, &inputs, 1e-6));
    }
}

#[test]
fn what_has_no_place_on_the_device_is_refused_with_a_reason() {
    let packed = Tensor::zeros(ElementType::I4, [4]).expect("small");
    let convert = Convert { destination_type: ElementType::F32 };
    let inputs = [packed];
    let refused = bind(&KernelTest::new(&ELTWISE, &convert, &inputs, 0.0)).expect_err("refused");
    assert!(refused.expect("its own").0.contains("i4"));
}

/// Every code of an 8-bit type, or numbers of every size in a native one.
fn small(ty: ElementType) -> Tensor {
    if ty.bits() == 8 {
        let codes: Vec<u8> = (0..=255).collect();
        return Tensor::from_bytes(ty, [256], &codes).expect("fits");
    }
    let mut values: Vec<f64> = specials(ElementType::F64).to_f64_vec().expect("f64");
    values.extend(
        (-40..40)
            .flat_map(|e| [1.0, 1.0625, 1.1875, 1.25, 1.5, -1.9].map(|m: f64| m * 2f64.powi(e))),
    );
    let len = values.len();
    Tensor::from_f64s::<f64>([len], &values).expect("fits").cast(ty).expect("native")
}

#[test]
fn floats_of_eight_bits_convert_both_ways() {
    let types = [
        ElementType::F8E4M3,
        ElementType::F8E4M3Fnuz,
        ElementType::F8E5M2,
        ElementType::F8E5M2Fnuz,
        ElementType::F8E8M0,
    ];
    for ty in types {
        for native in [ElementType::F32, ElementType::F16] {
            try_with(&Convert { destination_type: native }, &[small(ty)]);
            try_with(&Convert { destination_type: ty }, &[small(native)]);
        }
        for (saturate, round_mode) in [(true, ScaleRounding::Nearest), (false, ScaleRounding::Down)]
        {
            let narrow = ConvertNarrow { destination_type: ty, saturate, round_mode };
            try_with(&narrow, &[small(ElementType::F32)]);
        }
        if ty != ElementType::F8E8M0 {
            let quantize = QuantizeLinear { output_type: ty, ..QuantizeLinear::default() };
            try_with(&quantize, &[small(ElementType::F32), Tensor::scalar(0.37f32)]);
            try_with(&DequantizeLinear::default(), &[small(ty), Tensor::scalar(0.37f32)]);
        }
    }
    for destination_type in [FakeConvertType::F8E4M3, FakeConvertType::F8E5M2] {
        let inputs = [small(ElementType::F32), Tensor::scalar(1.5f32), Tensor::scalar(0.25f32)];
        try_with(&FakeConvert { destination_type }, &inputs);
        try_with(&FakeConvert { destination_type }, &inputs[..2]);
    }
}

/// `select(x < b, gelu(x), clamp(x · s) as f16 as f32)`, one value read three times.
fn several(ty: ElementType) -> ElementWise {
    let mut body = Model::new("body");
    let x = body.add_parameter("x", ty, [2, 3, 8]).expect("valid");
    let b = body.add_parameter("b", ty, [8]).expect("valid");
    let s = body.add_parameter("s", ty, [3, 1]).expect("valid");
    let less = body.add(Less {}, &[x, b], "less").expect("valid");
    let gelu = body.add(Gelu2 {}, &[x], "gelu").expect("valid");
    let scaled = body.add(Multiply {}, &[x, s], "scaled").expect("valid");
    let clamped = body.add(Clamp { min: -0.7, max: 0.9 }, &[scaled], "clamped").expect("valid");
    let half = Convert { destination_type: ElementType::F16 };
    let half = body.add(half, &[clamped], "half").expect("valid");
    let back = body.add(Convert { destination_type: ty }, &[half], "back").expect("valid");
    let bent = body.add(Elu { alpha: 0.3 }, &[back], "bent").expect("valid");
    let y = body.add(Select {}, &[less, gelu, bent], "y").expect("valid");
    body.add_output("y", y);
    ElementWise { body }
}

#[test]
fn what_is_between_bytes_is_one_kernel() {
    let mut body = Model::new("body");
    let mut part = |name: &str, ty, shape: &[usize]| {
        body.add_parameter(name, ty, ov_core::Shape::new(shape)).expect("valid")
    };
    let (x, scale, zero) = (
        part("x", ElementType::U8, &[3, 37]),
        part("scale", ElementType::F32, &[]),
        part("zero", ElementType::U8, &[]),
    );
    let (step, shift) =
        (part("step", ElementType::F32, &[1]), part("shift", ElementType::I8, &[1]));
    let y = body.add(DequantizeLinear::default(), &[x, scale, zero], "real").expect("valid");
    let y = body.add(HSwish {}, &[y], "bent").expect("valid");
    let y = body.add(QuantizeLinear::default(), &[y, step, shift], "y").expect("valid");
    body.add_output("y", y);
    let inputs = [
        whole(ElementType::I16, &[3, 37], 1).cast(ElementType::U8).expect("wraps"),
        Tensor::scalar(0.0625f32),
        Tensor::scalar(131u8),
        Tensor::from_vec([1], vec![0.03125f32]).expect("fits"),
        Tensor::from_vec([1], vec![-100i8]).expect("fits"),
    ];
    check(&KernelTest::new(&ELTWISE, &ElementWise { body }, &inputs, 0.0));
}

#[test]
fn several_operators_are_one_kernel() {
    for ty in [ElementType::F32, ElementType::F64] {
        let inputs = [noise(ty, &[2, 3, 8], 1), noise(ty, &[8], 2), noise(ty, &[3, 1], 3)];
        let op = several(ty);
        check(&KernelTest::new(&ELTWISE, &op, &inputs, 1e-6));
        let (_, bound) = bind(&KernelTest::new(&ELTWISE, &op, &inputs, 0.0)).expect("taken");
        assert!(matches!(bound, Bound::Step(step) if step.launches.len() == 1));
    }
}
