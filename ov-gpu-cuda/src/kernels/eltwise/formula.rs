//! What each element-wise operator computes of one element, as C++.

use ov_core::{
    ElementType,
    op::{
        Op, OpAttributes, OpKind,
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
        convert::{BitCast, Convert, ConvertLike, ConvertNarrow, Narrowing, ScaleRounding},
        logical::{
            BitwiseAnd, BitwiseLeftShift, BitwiseNot, BitwiseOr, BitwiseRightShift, BitwiseXor,
            LogicalAnd, LogicalNot, LogicalOr, LogicalXor,
        },
        normalization::{BatchNormInference, BatchNormInference1},
        quantize::{DequantizeLinear, FakeConvert, FakeConvertType, FakeQuantize, QuantizeLinear},
        select::Select,
    },
};

use super::{
    super::{
        Reject,
        element::{compute_type, opaque_type, storage_type, unsupported},
    },
    small::{codec, decoded, encoded, stored},
};

/// One element of the output out of one element of each input that is read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Formula {
    /// C++ statements before it: the values in between, where there are several operators.
    pub(super) statements: String,
    /// A C++ expression of `x0`, `x1`, … (the inputs in their compute types) and `c0`, … (the constants).
    pub(super) code: String,
    /// Constants: numbers that change from node to node and so stay out of the text.
    pub(super) constants: Vec<Constant>,
    /// Storage type of each input that is read.
    pub(super) inputs: Vec<&'static str>,
    /// Storage type of the output.
    pub(super) output: &'static str,
}

/// A number that is handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Constant {
    /// `float`.
    F32(f32),
    /// `double`.
    F64(f64),
    /// `long long`, also for the bits of `unsigned long long`.
    I64(i64),
}

impl Constant {
    /// Its C++ type.
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::F32(_) => "float",
            Self::F64(_) => "double",
            Self::I64(_) => "long long",
        }
    }

    /// A number in the type that values of `ty` are computed in.
    fn of(ty: ElementType, v: f64) -> Self {
        match ty {
            ElementType::F64 => Self::F64(v),
            ElementType::F32 => Self::F32(v as f32),
            ElementType::F16 | ElementType::Bf16 => {
                let rounded = ov_core::Tensor::scalar(v).cast(ty).ok();
                Self::F32(rounded.and_then(|t| t.element_as_f64(0)).unwrap_or(v) as f32)
            }
            ElementType::U64 => Self::I64((v as u64).cast_signed()),
            ElementType::I64 => Self::I64(v as i64),
            // Narrower types saturate at their own bounds.
            ElementType::U32 => Self::I64(i64::from(v as u32)),
            ElementType::U16 => Self::I64(i64::from(v as u16)),
            ElementType::U8 | ElementType::Boolean => Self::I64(i64::from(v as u8)),
            ElementType::I16 => Self::I64(i64::from(v as i16)),
            ElementType::I8 => Self::I64(i64::from(v as i8)),
            _ => Self::I64(i64::from(v as i32)),
        }
    }
}

/// Functions of floats that take every input.
const FLOAT: &[(OpKind, &str)] = &[
    (Sigmoid::KIND, "f_sigmoid"),
    (Tanh::KIND, "f_tanh"),
    (Exp::KIND, "f_exp"),
    (Log::KIND, "f_log"),
    (Sqrt::KIND, "f_sqrt"),
    (Floor::KIND, "f_floor"),
    (Ceiling::KIND, "f_ceil"),
    (Sin::KIND, "f_sin"),
    (Cos::KIND, "f_cos"),
    (Tan::KIND, "f_tan"),
    (Asin::KIND, "f_asin"),
    (Acos::KIND, "f_acos"),
    (Atan::KIND, "f_atan"),
    (Sinh::KIND, "f_sinh"),
    (Cosh::KIND, "f_cosh"),
    (Asinh::KIND, "f_asinh"),
    (Acosh::KIND, "f_acosh"),
    (Atanh::KIND, "f_atanh"),
    (Erf::KIND, "f_erf"),
    (HSwish::KIND, "f_hswish"),
    (HSigmoid::KIND, "f_hsigmoid"),
    (Mish::KIND, "f_mish"),
    (SoftPlus::KIND, "f_softplus"),
    (SoftSign::KIND, "f_softsign"),
    (HardSigmoid::KIND, "f_hard_sigmoid"),
    (Selu::KIND, "f_selu"),
    (Gelu2::KIND, "f_gelu_erf"),
    (IsNaN::KIND, "f_is_nan"),
    (IsFinite::KIND, "f_is_finite"),
];

/// Functions of numbers that take every input.
const NUMERIC: &[(OpKind, &str)] = &[
    (Relu::KIND, "f_relu"),
    (Abs::KIND, "f_abs"),
    (Negative::KIND, "f_negative"),
    (Sign::KIND, "f_sign"),
    (PRelu::KIND, "f_prelu"),
    (Add::KIND, "f_add"),
    (Subtract::KIND, "f_subtract"),
    (Multiply::KIND, "f_multiply"),
    (Power::KIND, "f_power"),
    (Maximum::KIND, "f_maximum"),
    (Minimum::KIND, "f_minimum"),
    (Mod::KIND, "f_mod"),
    (FloorMod::KIND, "f_floor_mod"),
    (SquaredDifference::KIND, "f_squared_difference"),
];

/// Infix operators between numbers or truth values that give truth values.
const COMPARISONS: &[(OpKind, &str)] = &[
    (Equal::KIND, "=="),
    (NotEqual::KIND, "!="),
    (Less::KIND, "<"),
    (LessEqual::KIND, "<="),
    (Greater::KIND, ">"),
    (GreaterEqual::KIND, ">="),
];

/// Functions of truth values.
const LOGICAL: &[(OpKind, &str)] = &[
    (LogicalAnd::KIND, "x0 != 0 && x1 != 0"),
    (LogicalOr::KIND, "x0 != 0 || x1 != 0"),
    (LogicalXor::KIND, "(x0 != 0) != (x1 != 0)"),
    (LogicalNot::KIND, "x0 == 0"),
];

/// Functions of the bits of integers.
const BITWISE: &[(OpKind, &str)] = &[
    (BitwiseAnd::KIND, "f_and"),
    (BitwiseOr::KIND, "f_or"),
    (BitwiseXor::KIND, "f_xor"),
    (BitwiseLeftShift::KIND, "f_shift_left"),
    (BitwiseRightShift::KIND, "f_shift_right"),
    (BitwiseNot::KIND, "f_not"),
];

fn entry(table: &[(OpKind, &'static str)], op: &dyn Op) -> Option<&'static str> {
    table.iter().find(|(kind, _)| *kind == op.kind()).map(|(_, text)| *text)
}

/// What an operator computes of inputs of these types into an output of type `output`. `None`: it is not element-wise.
pub(super) fn formula(
    op: &dyn Op,
    inputs: &[ElementType],
    output: ElementType,
) -> Option<Result<Formula, Reject>> {
    let (code, constants) = match code(op, inputs, output)? {
        Ok(found) => found,
        Err(reason) => return Some(Err(reason)),
    };
    let read = if op.is::<ConvertLike>() { &inputs[..1] } else { inputs };
    let (read, output) = if op.is::<Select>() || op.is::<BitCast>() {
        // Values are only moved, so that types of one width share a kernel.
        let opaque = |ty: ElementType| opaque_type(ty.bits() / 8).filter(|_| ty.bits() >= 8);
        (read.iter().map(|t| opaque(*t)).collect::<Option<Vec<_>>>(), opaque(output))
    } else {
        // What computes with 8-bit floats has said so; the others have refused them.
        (read.iter().map(|t| stored(*t)).collect(), stored(output))
    };
    let (Some(read), Some(output)) = (read, output) else {
        let other = inputs.iter().copied().find(|t| storage_type(*t).is_none());
        return Some(Err(unsupported(other.unwrap_or(ElementType::Dynamic))));
    };
    Some(Ok(Formula { statements: String::new(), code, constants, inputs: read, output }))
}

type Code = (String, Vec<Constant>);

/// `f(x0, x1, …)`.
fn call(f: &str, count: usize) -> Code {
    let args: Vec<String> = (0..count).map(|i| format!("x{i}")).collect();
    (format!("{f}({})", args.join(", ")), Vec::new())
}

fn expect(
    inputs: &[ElementType],
    what: &str,
    suits: impl Fn(ElementType) -> bool,
) -> Result<(), Reject> {
    match inputs.iter().find(|t| !suits(**t) || storage_type(**t).is_none()) {
        Some(ty) => Err(format!("takes {what}, not {ty}").into()),
        None => Ok(()),
    }
}

fn is_number(ty: ElementType) -> bool {
    (ty.is_float() || ty.is_integer()) && storage_type(ty).is_some()
}

fn code(op: &dyn Op, inputs: &[ElementType], output: ElementType) -> Option<Result<Code, Reject>> {
    let first = inputs.first().copied()?;
    let floats = |code: Code| expect(inputs, "floats", ElementType::is_float).map(|()| code);
    let numbers = |code: Code| expect(inputs, "numbers", is_number).map(|()| code);
    if let Some(f) = entry(FLOAT, op) {
        return Some(floats(call(f, inputs.len())));
    }
    if let Some(f) = entry(NUMERIC, op) {
        return Some(numbers(call(f, inputs.len())));
    }
    if let Some(infix) = entry(COMPARISONS, op) {
        let numbers =
            expect(inputs, "numbers and booleans", |t| is_number(t) || t == ElementType::Boolean);
        return Some(numbers.map(|()| (format!("x0 {infix} x1"), Vec::new())));
    }
    if let Some(text) = entry(LOGICAL, op) {
        let booleans = expect(inputs, "booleans", |t| t == ElementType::Boolean);
        return Some(booleans.map(|()| (text.to_owned(), Vec::new())));
    }
    if let Some(f) = entry(BITWISE, op) {
        if op.is::<BitwiseNot>() && first == ElementType::Boolean {
            return Some(Ok(("x0 == 0".to_owned(), Vec::new())));
        }
        let bits = expect(inputs, "integers and booleans", |t| {
            t.is_integer() || t == ElementType::Boolean
        });
        return Some(bits.map(|()| call(f, 2.min(inputs.len()))));
    }
    Some(if let Some(divide) = op.downcast::<Divide>() {
        numbers(call(if divide.m_pythondiv { "f_floor_divide" } else { "f_divide" }, 2))
    } else if let Some(clamp) = op.downcast::<Clamp>() {
        let (min, max) = if first.is_integer() {
            (clamp.min.ceil(), clamp.max.floor())
        } else {
            (clamp.min, clamp.max)
        };
        let ty = compute_type(first)?;
        let code = format!("f_clamp(x0, ({ty})c0, ({ty})c1)");
        numbers((code, vec![Constant::of(first, min), Constant::of(first, max)]))
    } else if let Some(elu) = op.downcast::<Elu>() {
        let wide = first == ElementType::F64;
        let alpha = if wide { Constant::F64(elu.alpha) } else { Constant::F32(elu.alpha as f32) };
        floats(("x0 < 0 ? c0 * f_expm1(x0) : x0".to_owned(), vec![alpha]))
    } else if op.is::<Swish>() {
        floats(match inputs.len() {
            1 => ("x0 * f_sigmoid(x0)".to_owned(), Vec::new()),
            _ => ("x0 * f_sigmoid(x1 * x0)".to_owned(), Vec::new()),
        })
    } else if let Some(gelu) = op.downcast::<Gelu>() {
        floats(call(
            match gelu.approximation_mode {
                GeluMode::Erf => "f_gelu_erf",
                GeluMode::Tanh => "f_gelu_tanh",
            },
            1,
        ))
    } else if let Some(round) = op.downcast::<Round>() {
        let f = match round.mode {
            RoundMode::HalfToEven => "f_round_even",
            RoundMode::HalfAwayFromZero => "f_round_away",
        };
        numbers(if first.is_integer() { ("x0".to_owned(), Vec::new()) } else { call(f, 1) })
    } else if let Some(inf) = op.downcast::<IsInf>() {
        let (low, high) = (u8::from(inf.detect_negative), u8::from(inf.detect_positive));
        floats((format!("f_is_inf(x0, {low}, {high})"), Vec::new()))
    } else if op.is::<Select>() {
        Ok(("x0 != 0 ? x1 : x2".to_owned(), Vec::new()))
    } else if op.is::<Convert>() || op.is::<ConvertLike>() {
        convert(first, output, Narrowing { saturate: false, scale_rounding: ScaleRounding::Up })
    } else if let Some(op) = op.downcast::<ConvertNarrow>() {
        convert(first, output, Narrowing { saturate: op.saturate, scale_rounding: op.round_mode })
    } else if let Some(fake) = op.downcast::<FakeConvert>() {
        let to = match fake.destination_type {
            FakeConvertType::F8E4M3 => ElementType::F8E4M3,
            FakeConvertType::F8E5M2 => ElementType::F8E5M2,
        };
        let (codec, shift) = (codec(to)?, if inputs.len() > 2 { "(double)x2" } else { "0.0" });
        let code = format!(
            "({codec}::decode({codec}::encode((double)x0 * x1 - {shift}, true)) + {shift}) / x1"
        );
        floats((code, Vec::new()))
    } else if op.is::<BitCast>() {
        let truth = if output == ElementType::Boolean { " != 0" } else { "" };
        Ok((format!("x0{truth}"), Vec::new()))
    } else if let Some(quantize) = op.downcast::<QuantizeLinear>() {
        quantization(quantize, inputs, output)
    } else if op.is::<DequantizeLinear>() {
        dequantization(inputs, output)
    } else if let Some(fake) = op.downcast::<FakeQuantize>() {
        let steps = (fake.levels - 1) as f64;
        floats((
            "f_fake_quantize(x0, x1, x2, x3, x4, c0)".to_owned(),
            vec![if first == ElementType::F64 {
                Constant::F64(steps)
            } else {
                Constant::F32(steps as f32)
            }],
        ))
    } else if let Some(op) = op.downcast::<BatchNormInference>() {
        floats(batch_norm("x0, x1, x2, x3, x4", first, op.epsilon))
    } else if let Some(op) = op.downcast::<BatchNormInference1>() {
        floats(batch_norm("x2, x0, x1, x3, x4", first, op.epsilon))
    } else {
        return None;
    })
}

/// Normalization of data by given statistics; the arguments are data, gamma, beta, mean and variance.
fn batch_norm(arguments: &str, ty: ElementType, epsilon: f64) -> Code {
    let wide = ty == ElementType::F64;
    let epsilon = if wide { Constant::F64(epsilon) } else { Constant::F32(epsilon as f32) };
    (format!("f_batch_norm({arguments}, c0)"), vec![epsilon])
}

/// `x0` in another type.
fn convert(from: ElementType, to: ElementType, narrowing: Narrowing) -> Result<Code, Reject> {
    let native = |t: ElementType| is_number(t) || t == ElementType::Boolean;
    let others: Vec<ElementType> = [from, to].into_iter().filter(|t| codec(*t).is_none()).collect();
    expect(&others, "numbers and booleans", native)?;
    let x = decoded(from, "x0");
    let Narrowing { saturate, scale_rounding } = narrowing;
    let code = if let Some(code) = encoded(to, &format!("(double){x}"), saturate, scale_rounding) {
        if from == to { "x0".to_owned() } else { code }
    } else if to == ElementType::Boolean {
        format!("{x} != 0")
    } else if matches!(to, ElementType::F16 | ElementType::Bf16) && from == ElementType::F64 {
        // The only conversion that would round twice on its way through `float`.
        format!("ov_f64_to_f32_odd({x})")
    } else {
        format!("ov_convert<{}>({x})", compute_type(to).unwrap_or_default())
    };
    Ok((code, Vec::new()))
}

/// Least and greatest value of an integer type of at most 32 bits.
fn range(ty: ElementType) -> Option<(f64, f64)> {
    let bits = i32::try_from(ty.bits()).ok().filter(|b| *b <= 32 && ty.is_integer())?;
    Some(if ty.is_unsigned_integer() {
        (0.0, 2f64.powi(bits) - 1.0)
    } else {
        (-2f64.powi(bits - 1), 2f64.powi(bits - 1) - 1.0)
    })
}

fn quantization(
    op: &QuantizeLinear,
    inputs: &[ElementType],
    output: ElementType,
) -> Result<Code, Reject> {
    expect(&inputs[..2], "numbers", is_number)?;
    let precision = if op.precision == ElementType::Dynamic { inputs[1] } else { op.precision };
    let precision = match precision {
        ElementType::F32 => "float",
        ElementType::F16 => "ov_f16",
        ElementType::Bf16 => "ov_bf16",
        other => return Err(format!("divides in f32, f16 and bf16, not {other}").into()),
    };
    let zero = if inputs.len() > 2 { decoded(inputs[2], "x2") } else { "0".to_owned() };
    let quotient = format!("(double)f_quotient<{precision}>(x0, x1) + (double){zero}");
    if let Some(code) = encoded(output, &quotient, op.saturate, ScaleRounding::Up) {
        return Ok((code, Vec::new()));
    }
    let (min, max) = range(output).ok_or_else(|| {
        Reject::from(format!("quantizes to integers of 8 to 32 bits, not {output}"))
    })?;
    if output.bits() <= 16 {
        let code = format!("f_quantize_short<{precision}>(x0, x1, {zero}, c0, c1)");
        return Ok((code, vec![Constant::F32(min as f32), Constant::F32(max as f32)]));
    }
    let code = format!("f_quantize<{precision}>(x0, x1, {zero}, c0, c1)");
    Ok((code, vec![Constant::F64(min), Constant::F64(max)]))
}

fn dequantization(inputs: &[ElementType], output: ElementType) -> Result<Code, Reject> {
    expect(&inputs[1..2], "numbers", is_number)?;
    expect(&[output], "floats", ElementType::is_float)?;
    // Differences of 16-bit integers are exact in f32.
    let wide = inputs.iter().any(|t| t.bits() > 32 || (t.is_integer() && t.bits() > 16));
    let ty = if wide || output == ElementType::F64 { "double" } else { "float" };
    let number = |index: usize| format!("({ty}){}", decoded(inputs[index], &format!("x{index}")));
    let zero = if inputs.len() > 2 { number(2) } else { "0".to_owned() };
    // Rounded on its own, whatever is added to it in the same kernel.
    Ok((format!("ov_mul_rn({} - {zero}, ({ty})x1)", number(0)), Vec::new()))
}
