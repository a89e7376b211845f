//! Logic on truth values and on bits.

use super::{super::NodeContext, ConvertResult, OnnxOp};
use crate::op::{
    OpError,
    logical::{
        BitwiseAnd, BitwiseLeftShift, BitwiseNot, BitwiseOr, BitwiseRightShift, BitwiseXor, LogicalAnd, LogicalNot,
        LogicalOr, LogicalXor,
    },
};

macro_rules! binary {
    ($($f:ident = $op:ident;)*) => {$(
        fn $f(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
            let (a, b) = (cx.input(0)?, cx.input(1)?);
            Ok(vec![cx.add($op {}, &[a, b])?])
        }
    )*};
}

binary! {
    and = LogicalAnd;
    or = LogicalOr;
    xor = LogicalXor;
    bitwise_and = BitwiseAnd;
    bitwise_or = BitwiseOr;
    bitwise_xor = BitwiseXor;
}

fn not(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![cx.add(LogicalNot {}, &[x])?])
}

fn bitwise_not(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![cx.add(BitwiseNot {}, &[x])?])
}

fn bit_shift(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    match cx.str("direction", "")? {
        "LEFT" => Ok(vec![cx.add(BitwiseLeftShift {}, &[a, b])?]),
        "RIGHT" => Ok(vec![cx.add(BitwiseRightShift {}, &[a, b])?]),
        other => Err(OpError::Attribute {
            name: "direction",
            got: other.to_owned(),
            expected: "LEFT or RIGHT".to_owned(),
        }
        .into()),
    }
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "And", 7, and),
    ("", "Or", 7, or),
    ("", "Xor", 7, xor),
    ("", "Not", 1, not),
    ("", "BitwiseAnd", 18, bitwise_and),
    ("", "BitwiseOr", 18, bitwise_or),
    ("", "BitwiseXor", 18, bitwise_xor),
    ("", "BitwiseNot", 18, bitwise_not),
    ("", "BitShift", 11, bit_shift),
];
