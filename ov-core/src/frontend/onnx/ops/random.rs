//! Random generators. Without a seed every inference draws other numbers.

use super::{
    super::{ConvertError, NodeContext},
    ConvertResult, OnnxOp,
};
use crate::{
    model::Value,
    op::random::{Distribution, MultinomialSample, RandomNoise},
    tensor::ElementType,
};

/// Whether there is a seed, and its bits.
fn seed(cx: &NodeContext<'_, '_>) -> Result<(bool, i64), ConvertError> {
    let seed = cx.optional_f32("seed")?;
    Ok((seed.is_some(), i64::from(seed.unwrap_or(0.0).to_bits())))
}

fn noise(
    cx: &mut NodeContext<'_, '_>,
    shape: Value,
    output_type: ElementType,
) -> Result<Value, ConvertError> {
    let normal = cx.op_type().starts_with("RandomNormal");
    let (a, b, distribution) = if normal {
        (cx.f32("mean", 0.0)?, cx.f32("scale", 1.0)?, Distribution::Normal)
    } else {
        (cx.f32("low", 0.0)?, cx.f32("high", 1.0)?, Distribution::Uniform)
    };
    let (seeded, seed) = seed(cx)?;
    let (a, b) = (f64::from(a), f64::from(b));
    cx.add(RandomNoise { distribution, a, b, output_type, seeded, seed }, &[shape])
}

fn random(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let shape = cx.i64s("shape", &[])?;
    let shape = cx.i64s_constant(&shape);
    let ty = cx.optional_element_type("dtype")?.unwrap_or(ElementType::F32);
    Ok(vec![noise(cx, shape, ty)?])
}

fn random_like(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let ty = cx.optional_element_type("dtype")?;
    let ty = ty.filter(|t| *t != ElementType::Dynamic).unwrap_or_else(|| cx.element_type(x));
    let shape = cx.compose("Shape", &[x], &[])?;
    Ok(vec![noise(cx, shape, ty)?])
}

fn multinomial(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let output_type = cx.optional_element_type("dtype")?.unwrap_or(ElementType::I32);
    let (seeded, seed) = seed(cx)?;
    let op =
        MultinomialSample { sample_size: cx.i64("sample_size", 1)?, output_type, seeded, seed };
    Ok(vec![cx.add(op, &[x])?])
}

/// 1 with the probability that the input gives.
fn bernoulli(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let ty = cx.optional_element_type("dtype")?.unwrap_or_else(|| cx.element_type(x));
    let shape = cx.compose("Shape", &[x], &[])?;
    let like = cx.element_type(x);
    let drawn = noise(cx, shape, like)?;
    let below = cx.compose("Less", &[drawn, x], &[])?;
    Ok(vec![cx.add(crate::op::convert::Convert { destination_type: ty }, &[below])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "RandomNormal", 1, random),
    ("", "RandomUniform", 1, random),
    ("", "RandomNormalLike", 1, random_like),
    ("", "RandomUniformLike", 1, random_like),
    ("", "Multinomial", 7, multinomial),
    ("", "Bernoulli", 15, bernoulli),
];
