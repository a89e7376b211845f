//! Arithmetic of two and more operands.

use super::{super::{ConvertError, NodeContext}, ConvertResult, OnnxOp};
use crate::{
    model::Value,
    op::{
        Op, OpError,
        arithmetic::{Add, Divide, FloorMod, Maximum, Minimum, Mod, Multiply, Power, Subtract},
        convert::Convert,
    },
    tensor::ElementType,
};

macro_rules! binary {
    ($($f:ident = $op:expr;)*) => {$(
        fn $f(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
            let (a, b) = (cx.input(0)?, cx.input(1)?);
            Ok(vec![cx.add($op, &[a, b])?])
        }
    )*};
}

binary! {
    add = Add {};
    sub = Subtract {};
    mul = Multiply {};
    div = Divide { m_pythondiv: false };
}

/// The exponent may have another type than the base, which gives the result its type.
fn pow(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (base, exponent) = (cx.input(0)?, cx.input(1)?);
    let (to, from) = (cx.element_type(base), cx.element_type(exponent));
    if to == from {
        return Ok(vec![cx.add(Power {}, &[base, exponent])?]);
    }
    if to.is_integer() && from.is_float() {
        let wide = Convert { destination_type: ElementType::F64 };
        let (base, exponent) = (cx.add(wide.clone(), &[base])?, cx.add(wide, &[exponent])?);
        let power = cx.add(Power {}, &[base, exponent])?;
        return Ok(vec![cx.add(Convert { destination_type: to }, &[power])?]);
    }
    let exponent = cx.add(Convert { destination_type: to }, &[exponent])?;
    Ok(vec![cx.add(Power {}, &[base, exponent])?])
}

fn modulo(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    Ok(vec![if cx.bool("fmod", false)? { cx.add(Mod {}, &[a, b])? } else { cx.add(FloorMod {}, &[a, b])? }])
}

#[expect(clippy::needless_pass_by_value, reason = "callers make the operator in place")]
fn fold(cx: &mut NodeContext<'_, '_>, op: impl Op + Clone) -> Result<Value, ConvertError> {
    let mut total = cx.input(0)?;
    for index in 1..cx.input_count() {
        let next = cx.input(index)?;
        total = cx.add(op.clone(), &[total, next])?;
    }
    Ok(total)
}

fn sum(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    Ok(vec![fold(cx, Add {})?])
}

fn max(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    Ok(vec![fold(cx, Maximum {})?])
}

fn min(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    Ok(vec![fold(cx, Minimum {})?])
}

fn mean(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let total = fold(cx, Add {})?;
    if cx.input_count() == 1 {
        return Ok(vec![total]);
    }
    let count = u32::try_from(cx.input_count())
        .map_err(|_| OpError::Unsupported("that many inputs".to_owned()))?;
    let count = cx.scalar_like(f64::from(count), total)?;
    Ok(vec![cx.add(Divide::default(), &[total, count])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "Add", 7, add),
    ("", "Sub", 7, sub),
    ("", "Mul", 7, mul),
    ("", "Div", 7, div),
    ("", "Pow", 7, pow),
    ("", "Mod", 10, modulo),
    ("", "Sum", 6, sum),
    ("", "Max", 6, max),
    ("", "Min", 6, min),
    ("", "Mean", 6, mean),
];
