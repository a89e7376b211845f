//! Linear models and support vector machines.

use super::{
    super::super::{Attr, ConvertError, NodeContext},
    ConvertResult,
    encode::{cast, choice, compute_type, f32s, texts},
};
use crate::{
    model::Value,
    op::{
        OpError,
        matmul::MatMul,
        ml::{PostTransform, ScoreTransform, SvmClassifier, SvmKernel, SvmRegressor},
    },
    tensor::{ElementType, Tensor},
};

/// Class labels: of one of two attributes.
pub(super) fn labels(
    cx: &NodeContext<'_, '_>,
    ints: &'static str,
) -> Result<Tensor, ConvertError> {
    let strings = cx.optional_strs("classlabels_strings")?.unwrap_or_default();
    if strings.is_empty() {
        return Ok(Tensor::from_i64s(&cx.i64s(ints, &[])?));
    }
    Ok(texts(strings))
}

/// The label of each winner; without labels, its number.
pub(super) fn label_of(
    cx: &mut NodeContext<'_, '_>,
    labels: Tensor,
    winner: Value,
) -> Result<Value, ConvertError> {
    if labels.is_empty() {
        return Ok(winner);
    }
    let labels = cx.constant(labels);
    cx.compose("Gather", &[labels, winner], &[("axis", Attr::Int(0))])
}

/// `x · coefficientsᵀ + intercepts` for rows `x`, with `targets` rows of coefficients.
fn linear(cx: &mut NodeContext<'_, '_>, targets: Option<i64>) -> Result<Value, ConvertError> {
    let x = cx.input(0)?;
    let ty = compute_type(cx, x);
    let mut x = cast(cx, x, ty)?;
    if cx.rank(x)? == 1 {
        x = cx.reshape(x, &[1, -1])?;
    }
    let coefficients = cx.optional_f32s("coefficients")?.unwrap_or_default();
    let features = cx.shape(x).dim(1).value();
    let rows = match (targets.map(usize::try_from), features) {
        (Some(Ok(rows)), _) => rows,
        (None, Some(features)) => coefficients.len().checked_div(features).unwrap_or(0),
        _ => return Err(OpError::Unsupported("a number of features that is not known".to_owned()).into()),
    };
    let columns = coefficients.len().checked_div(rows).unwrap_or(0);
    if rows * columns != coefficients.len() || coefficients.is_empty() {
        let got = format!("a list of {}", coefficients.len());
        let expected = format!("{rows} values for each feature");
        return Err(OpError::Attribute { name: "coefficients", got, expected }.into());
    }
    let weights = cx.constant(f32s(&coefficients).reshape([rows, columns])?.cast(ty)?);
    let product = cx.add(MatMul { transpose_a: false, transpose_b: true }, &[x, weights])?;
    match cx.optional_f32s("intercepts")?.filter(|i| !i.is_empty()) {
        Some(intercepts) => {
            let intercepts = cx.constant(f32s(&intercepts).cast(ty)?);
            cx.compose("Add", &[product, intercepts], &[])
        }
        None => Ok(product),
    }
}

fn transformed(cx: &mut NodeContext<'_, '_>, scores: Value) -> Result<Value, ConvertError> {
    let post_transform = choice::<PostTransform>(cx, "post_transform")?;
    let scores = if post_transform == PostTransform::None {
        scores
    } else {
        cx.add(ScoreTransform { post_transform }, &[scores])?
    };
    cast(cx, scores, ElementType::F32)
}

pub(super) fn linear_regressor(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let targets = cx.i64("targets", 1)?;
    let scores = linear(cx, Some(targets))?;
    Ok(vec![transformed(cx, scores)?])
}

pub(super) fn linear_classifier(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let labels = labels(cx, "classlabels_ints")?;
    let mut raw = linear(cx, None)?;
    let one_score = cx.shape(raw).dim(1).value() == Some(1);
    if one_score && labels.len() == 2 {
        let other = cx.compose("Neg", &[raw], &[])?;
        raw = cx.compose("Concat", &[other, raw], &[("axis", Attr::Int(1))])?;
    }
    let scores = transformed(cx, raw)?;
    if one_score && labels.len() != 2 {
        // One class: its label where the score reaches the threshold, else 0 or no text.
        let plain = choice::<PostTransform>(cx, "post_transform")? == PostTransform::None;
        let threshold = cx.scalar_like(if plain { 0.0 } else { 0.5 }, scores)?;
        let reached = cx.compose("GreaterOrEqual", &[scores, threshold], &[])?;
        let reached = cx.reshape(reached, &[-1])?;
        let reached = cast(cx, reached, ElementType::I64)?;
        let table = match (labels.as_strings(), labels.is_empty()) {
            (Ok(names), _) => texts(vec![String::new(), names[0].clone()]),
            (_, true) => Tensor::from_i64s(&[0, 1]),
            _ => Tensor::from_i64s(&[0, labels.to_i64_vec()?[0]]),
        };
        return Ok(vec![label_of(cx, table, reached)?, scores]);
    }
    let attributes = [("axis", Attr::Int(1)), ("keepdims", Attr::Int(0))];
    let winner = cx.compose("ArgMax", &[scores], &attributes)?;
    Ok(vec![label_of(cx, labels, winner)?, scores])
}

fn numbers(cx: &NodeContext<'_, '_>, name: &'static str) -> Result<Vec<f64>, ConvertError> {
    Ok(cx.optional_f32s(name)?.unwrap_or_default().into_iter().map(f64::from).collect())
}

pub(super) fn svm_regressor(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let op = SvmRegressor {
        coefficients: numbers(cx, "coefficients")?,
        kernel_params: numbers(cx, "kernel_params")?,
        kernel_type: choice::<SvmKernel>(cx, "kernel_type")?,
        n_supports: cx.i64("n_supports", 0)?,
        one_class: cx.bool("one_class", false)?,
        post_transform: choice::<PostTransform>(cx, "post_transform")?,
        rho: numbers(cx, "rho")?,
        support_vectors: numbers(cx, "support_vectors")?,
    };
    let x = cx.input(0)?;
    Ok(vec![cx.add(op, &[x])?])
}

pub(super) fn svm_classifier(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let labels = labels(cx, "classlabels_ints")?;
    let op = SvmClassifier {
        classes: labels.len().max(1) as i64,
        coefficients: numbers(cx, "coefficients")?,
        kernel_params: numbers(cx, "kernel_params")?,
        kernel_type: choice::<SvmKernel>(cx, "kernel_type")?,
        post_transform: choice::<PostTransform>(cx, "post_transform")?,
        prob_a: numbers(cx, "prob_a")?,
        prob_b: numbers(cx, "prob_b")?,
        rho: numbers(cx, "rho")?,
        support_vectors: numbers(cx, "support_vectors")?,
        vectors_per_class: cx.i64s("vectors_per_class", &[])?,
    };
    let x = cx.input(0)?;
    let given = cx.add_multi(op, &[x])?;
    let label = if labels.len() < 2 { given[1] } else { label_of(cx, labels, given[1])? };
    Ok(vec![label, given[0]])
}
