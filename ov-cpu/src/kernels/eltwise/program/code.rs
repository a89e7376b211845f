//! Programs as 32-bit words, for blobs.

use super::{Instruction, Program, ProgramError, Value};
use crate::kernels::eltwise::binary::{BinaryOp, CompareOp};
use crate::kernels::eltwise::unary::UnaryOp;
use crate::simd::activation::Activation;

/// Words that are no program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The words end early or go on after the program.
    #[error("expected {expected} words of an element-wise program, found {found}")]
    Length {
        /// Words that the counts ask for.
        expected: usize,
        /// Words there are.
        found: usize,
    },
    /// An operation that this version does not know.
    #[error("unknown operation {0:#x} in an element-wise program")]
    Operation(u32),
    /// A value number that does not fit.
    #[error("expected a value number below 65536, found {0}")]
    Value(u32),
    /// The program breaks its own rules.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

const UNARY: u32 = 0x100;
const ACTIVATION: u32 = 0x200;
const BINARY: u32 = 0x300;
const COMPARE: u32 = 0x400;
const MUL_ADD: u32 = 0x500;
const SELECT: u32 = 0x600;

/// Words of an instruction: operation, two parameters, three operands.
const WORDS: usize = 6;

/// Header words: inputs, constants, instructions, outputs.
const HEADER: usize = 4;

/// The unary operations without parameters; their numbers are positions here.
const PLAIN: [UnaryOp; 24] = [
    UnaryOp::Abs,
    UnaryOp::Neg,
    UnaryOp::Exp,
    UnaryOp::Log,
    UnaryOp::Sqrt,
    UnaryOp::Rsqrt,
    UnaryOp::Reciprocal,
    UnaryOp::Floor,
    UnaryOp::Ceil,
    UnaryOp::Round,
    UnaryOp::RoundAway,
    UnaryOp::Sign,
    UnaryOp::Sin,
    UnaryOp::Cos,
    UnaryOp::Tan,
    UnaryOp::Asin,
    UnaryOp::Acos,
    UnaryOp::Atan,
    UnaryOp::Sinh,
    UnaryOp::Cosh,
    UnaryOp::Asinh,
    UnaryOp::Acosh,
    UnaryOp::Atanh,
    UnaryOp::Erf,
];

const BINARIES: [BinaryOp; 11] = [
    BinaryOp::Add,
    BinaryOp::Sub,
    BinaryOp::Mul,
    BinaryOp::Div,
    BinaryOp::Max,
    BinaryOp::Min,
    BinaryOp::Pow,
    BinaryOp::SquaredDifference,
    BinaryOp::PRelu,
    BinaryOp::FloorMod,
    BinaryOp::Mod,
];

const COMPARES: [CompareOp; 6] = [
    CompareOp::Equal,
    CompareOp::NotEqual,
    CompareOp::Less,
    CompareOp::LessEqual,
    CompareOp::Greater,
    CompareOp::GreaterEqual,
];

fn number<T: PartialEq>(table: &[T], op: &T) -> u32 {
    table.iter().position(|t| t == op).map_or(u32::MAX, |p| p as u32)
}

impl UnaryOp {
    /// A stable number and the parameters (unused ones 0), for blobs.
    #[must_use]
    pub fn to_parts(self) -> (u32, [f32; 2]) {
        match self {
            Self::Activation(a) => {
                let (id, p) = a.to_parts();
                (ACTIVATION + id, p)
            }
            Self::Pow(p) => (UNARY + 0x80, [p, 0.0]),
            Self::Affine(a, b) => (UNARY + 0x81, [a, b]),
            Self::Softsign => (UNARY + 0x82, [0.0; 2]),
            Self::Shrink { lambd, bias } => (UNARY + 0x83, [lambd, bias]),
            Self::ThresholdedRelu(alpha) => (UNARY + 0x84, [alpha, 0.0]),
            Self::Selu { alpha, scale } => (UNARY + 0x85, [alpha, scale]),
            Self::Celu(alpha) => (UNARY + 0x86, [alpha, 0.0]),
            plain => (UNARY + number(&PLAIN, &plain), [0.0; 2]),
        }
    }

    /// The inverse of [`to_parts`](Self::to_parts); `None` for an unknown number.
    #[must_use]
    pub fn from_parts(id: u32, p: [f32; 2]) -> Option<Self> {
        if id & !0xff == ACTIVATION {
            return Activation::from_parts(id & 0xff, p).map(Self::Activation);
        }
        match id.checked_sub(UNARY)? {
            0x80 => Some(Self::Pow(p[0])),
            0x81 => Some(Self::Affine(p[0], p[1])),
            0x82 => Some(Self::Softsign),
            0x83 => Some(Self::Shrink { lambd: p[0], bias: p[1] }),
            0x84 => Some(Self::ThresholdedRelu(p[0])),
            0x85 => Some(Self::Selu { alpha: p[0], scale: p[1] }),
            0x86 => Some(Self::Celu(p[0])),
            k => PLAIN.get(k as usize).copied(),
        }
    }
}

/// The program as words: four counts, constants, six words per instruction, outputs.
#[must_use]
pub fn encode(program: &Program) -> Vec<u32> {
    let mut w = vec![
        program.inputs() as u32,
        program.constants().len() as u32,
        program.instructions().len() as u32,
        program.outputs().len() as u32,
    ];
    w.extend(program.constants().iter().map(|c| c.to_bits()));
    for i in program.instructions() {
        let (op, p) = match i {
            Instruction::Unary(op, _) => op.to_parts(),
            Instruction::Binary(op, ..) => (BINARY + number(&BINARIES, op), [0.0; 2]),
            Instruction::Compare(op, ..) => (COMPARE + number(&COMPARES, op), [0.0; 2]),
            Instruction::MulAdd(..) => (MUL_ADD, [0.0; 2]),
            Instruction::Select(..) => (SELECT, [0.0; 2]),
        };
        let mut operands = [0; 3];
        for (to, v) in operands.iter_mut().zip(i.operands()) {
            *to = u32::from(v);
        }
        w.extend([op, p[0].to_bits(), p[1].to_bits()]);
        w.extend(operands);
    }
    w.extend(program.outputs().iter().map(|v| u32::from(*v)));
    w
}

/// The inverse of [`encode`].
///
/// # Errors
/// If the words are not a program.
pub fn decode(words: &[u32]) -> Result<Program, DecodeError> {
    let length = |expected: usize| DecodeError::Length { expected, found: words.len() };
    let (&[inputs, constants, instructions, outputs], rest) =
        words.split_first_chunk::<HEADER>().ok_or_else(|| length(HEADER))?;
    let total = |n: u32, each: usize| (n as usize).saturating_mul(each);
    let expected = total(constants, 1)
        .saturating_add(total(instructions, WORDS))
        .saturating_add(total(outputs, 1));
    if expected != rest.len() {
        return Err(length(expected.saturating_add(HEADER)));
    }
    let (constants, rest) = rest.split_at(constants as usize);
    let (instructions, outputs) = rest.split_at(total(instructions, WORDS));
    let value = |v: u32| Value::try_from(v).map_err(|_| DecodeError::Value(v));
    let instructions = instructions.chunks_exact(WORDS).map(|w| {
        let (op, p) = (w[0], [f32::from_bits(w[1]), f32::from_bits(w[2])]);
        let (a, b, c) = (value(w[3])?, value(w[4])?, value(w[5])?);
        let known = match op & !0xff {
            UNARY | ACTIVATION => UnaryOp::from_parts(op, p).map(|u| Instruction::Unary(u, a)),
            BINARY => BINARIES.get((op - BINARY) as usize).map(|o| Instruction::Binary(*o, a, b)),
            COMPARE => {
                COMPARES.get((op - COMPARE) as usize).map(|o| Instruction::Compare(*o, a, b))
            }
            MUL_ADD if op == MUL_ADD => Some(Instruction::MulAdd(a, b, c)),
            SELECT if op == SELECT => Some(Instruction::Select(a, b, c)),
            _ => None,
        };
        known.ok_or(DecodeError::Operation(op))
    });
    let instructions = instructions.collect::<Result<Vec<_>, _>>()?;
    let outputs = outputs.iter().map(|v| value(*v)).collect::<Result<Vec<_>, _>>()?;
    let constants = constants.iter().map(|c| f32::from_bits(*c)).collect();
    Ok(Program::new(inputs as usize, constants, instructions, outputs)?)
}
