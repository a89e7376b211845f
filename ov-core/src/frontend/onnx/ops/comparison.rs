//! Comparison, NaN and infinity.

use super::{super::NodeContext, ConvertResult, OnnxOp};
use crate::op::comparison::{Equal, Greater, GreaterEqual, IsInf, IsNaN, Less, LessEqual};

macro_rules! binary {
    ($($f:ident = $op:ident;)*) => {$(
        fn $f(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
            let (a, b) = (cx.input(0)?, cx.input(1)?);
            Ok(vec![cx.add($op {}, &[a, b])?])
        }
    )*};
}

binary! {
    equal = Equal;
    greater = Greater;
    greater_or_equal = GreaterEqual;
    less = Less;
    less_or_equal = LessEqual;
}

fn is_nan(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![cx.add(IsNaN {}, &[x])?])
}

fn is_inf(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let op = IsInf {
        detect_negative: cx.bool("detect_negative", true)?,
        detect_positive: cx.bool("detect_positive", true)?,
    };
    Ok(vec![cx.add(op, &[x])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "Equal", 7, equal),
    ("", "Greater", 7, greater),
    ("", "GreaterOrEqual", 12, greater_or_equal),
    ("", "Less", 7, less),
    ("", "LessOrEqual", 12, less_or_equal),
    ("", "IsNaN", 9, is_nan),
    ("", "IsInf", 10, is_inf),
];
