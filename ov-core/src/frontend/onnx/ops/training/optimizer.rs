//! Optimizers, as compositions of the specification's pseudo code.

use super::{
    super::super::{ConvertError, NodeContext},
    ConvertResult,
};
use crate::{
    model::Value,
    op::{OpError, convert::Convert},
};

type Computed = Result<Value, ConvertError>;

fn op(cx: &mut NodeContext<'_, '_>, name: &str, a: Value, b: Value) -> Computed {
    cx.compose(name, &[a, b], &[])
}

/// `factor · a`.
fn scaled(cx: &mut NodeContext<'_, '_>, factor: f32, a: Value) -> Computed {
    let factor = cx.scalar_like(f64::from(factor), a)?;
    op(cx, "Mul", factor, a)
}

/// `a + sign · b` with a number `b`.
fn shifted(cx: &mut NodeContext<'_, '_>, a: Value, by: f32) -> Computed {
    let by = cx.scalar_like(f64::from(by), a)?;
    op(cx, "Add", a, by)
}

/// The inputs after learning rate and count, by role: `roles` lists of as many tensors as are optimized.
fn by_role(cx: &NodeContext<'_, '_>, roles: usize) -> Result<Vec<Vec<Value>>, ConvertError> {
    let given = cx.input_count().saturating_sub(2);
    if given == 0 || !given.is_multiple_of(roles) {
        let expected = format!("2, and {roles} for each optimized tensor");
        return Err(OpError::InputCount { got: cx.input_count(), expected }.into());
    }
    let count = given / roles;
    (0..roles)
        .map(|role| (0..count).map(|i| cx.input(2 + role * count + i)).collect())
        .collect()
}

/// The gradient with that of `norm_coefficient / 2 · |x|²`.
fn regularized(cx: &mut NodeContext<'_, '_>, x: Value, g: Value) -> Computed {
    let norm = cx.f32("norm_coefficient", 0.0)?;
    let pull = scaled(cx, norm, x)?;
    op(cx, "Add", pull, g)
}

/// Learning rate and count in the type of `like`.
fn rate_and_count(
    cx: &mut NodeContext<'_, '_>,
    like: Value,
) -> Result<(Value, Value), ConvertError> {
    let (rate, count) = (cx.input(0)?, cx.input(1)?);
    let destination_type = cx.element_type(like);
    let rate = cx.add(Convert { destination_type }, &[rate])?;
    Ok((rate, cx.add(Convert { destination_type }, &[count])?))
}

pub(super) fn adagrad(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let roles = by_role(cx, 3)?;
    let (decay, epsilon) = (cx.f32("decay_factor", 0.0)?, cx.f32("epsilon", 1e-6)?);
    let (mut xs, mut hs) = (Vec::new(), Vec::new());
    for ((x, g), h) in roles[0].iter().zip(&roles[1]).zip(&roles[2]) {
        let (rate, count) = rate_and_count(cx, *x)?;
        let slowed = scaled(cx, decay, count)?;
        let slowed = shifted(cx, slowed, 1.0)?;
        let rate = op(cx, "Div", rate, slowed)?;
        let g = regularized(cx, *x, *g)?;
        let square = op(cx, "Mul", g, g)?;
        let h = op(cx, "Add", *h, square)?;
        let root = cx.compose("Sqrt", &[h], &[])?;
        let root = shifted(cx, root, epsilon)?;
        let step = op(cx, "Mul", rate, g)?;
        let step = op(cx, "Div", step, root)?;
        xs.push(op(cx, "Sub", *x, step)?);
        hs.push(h);
    }
    Ok([xs, hs].concat())
}

/// `factor · old + (1 - factor) · new`.
fn averaged(cx: &mut NodeContext<'_, '_>, factor: f32, old: Value, new: Value) -> Computed {
    let old = scaled(cx, factor, old)?;
    let new = scaled(cx, 1.0 - factor, new)?;
    op(cx, "Add", old, new)
}

/// `1 - base ^ count`.
fn correction(cx: &mut NodeContext<'_, '_>, base: f32, count: Value) -> Computed {
    let base = cx.scalar_like(f64::from(base), count)?;
    let power = op(cx, "Pow", base, count)?;
    let one = cx.scalar_like(1.0, count)?;
    op(cx, "Sub", one, power)
}

pub(super) fn adam(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let roles = by_role(cx, 4)?;
    let (alpha, beta) = (cx.f32("alpha", 0.9)?, cx.f32("beta", 0.999)?);
    let (epsilon, post) = (cx.f32("epsilon", 1e-6)?, cx.f32("norm_coefficient_post", 0.0)?);
    let (mut xs, mut vs, mut hs) = (Vec::new(), Vec::new(), Vec::new());
    for (i, x) in roles[0].iter().enumerate() {
        let (rate, count) = rate_and_count(cx, *x)?;
        let g = regularized(cx, *x, roles[1][i])?;
        let v = averaged(cx, alpha, roles[2][i], g)?;
        let square = op(cx, "Mul", g, g)?;
        let h = averaged(cx, beta, roles[3][i], square)?;
        let root = cx.compose("Sqrt", &[h], &[])?;
        let root = shifted(cx, root, epsilon)?;
        // At count 0 the rate stays as it is.
        let slow = correction(cx, beta, count)?;
        let slow = cx.compose("Sqrt", &[slow], &[])?;
        let fast = correction(cx, alpha, count)?;
        let adjusted = op(cx, "Mul", rate, slow)?;
        let adjusted = op(cx, "Div", adjusted, fast)?;
        let zero = cx.scalar_like(0.0, count)?;
        let begun = op(cx, "Greater", count, zero)?;
        let rate = cx.compose("Where", &[begun, adjusted, rate], &[])?;
        let step = op(cx, "Mul", rate, v)?;
        let step = op(cx, "Div", step, root)?;
        let x = op(cx, "Sub", *x, step)?;
        xs.push(scaled(cx, 1.0 - post, x)?);
        vs.push(v);
        hs.push(h);
    }
    Ok([xs, vs, hs].concat())
}

pub(super) fn momentum(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let roles = by_role(cx, 3)?;
    let (alpha, beta) = (cx.f32("alpha", 0.0)?, cx.f32("beta", 0.0)?);
    let nesterov = match cx.str("mode", "")? {
        "nesterov" => true,
        "standard" => false,
        other => {
            let (got, expected) = (other.to_owned(), "nesterov or standard".to_owned());
            return Err(OpError::Attribute { name: "mode", got, expected }.into());
        }
    };
    let (mut xs, mut vs) = (Vec::new(), Vec::new());
    for ((x, g), v) in roles[0].iter().zip(&roles[1]).zip(&roles[2]) {
        let (rate, count) = rate_and_count(cx, *x)?;
        let g = regularized(cx, *x, *g)?;
        let zero = cx.scalar_like(0.0, count)?;
        let begun = op(cx, "Greater", count, zero)?;
        let (later, first) = (cx.scalar_like(f64::from(beta), g)?, cx.scalar_like(1.0, g)?);
        let weight = cx.compose("Where", &[begun, later, first], &[])?;
        let old = scaled(cx, alpha, *v)?;
        let new = op(cx, "Mul", weight, g)?;
        let v = op(cx, "Add", old, new)?;
        let direction = if nesterov {
            let ahead = scaled(cx, alpha, v)?;
            op(cx, "Add", g, ahead)?
        } else {
            v
        };
        let step = op(cx, "Mul", rate, direction)?;
        xs.push(op(cx, "Sub", *x, step)?);
        vs.push(v);
    }
    Ok([xs, vs].concat())
}
