//! Einsum, as a matrix product where it is one, and Det.

use super::{
    super::{Attr, ConvertError, NodeContext},
    ConvertResult, OnnxOp,
};
use crate::{
    model::Value,
    op::{
        einsum::{Det, Einsum, Equation, Label},
        matmul::MatMul,
    },
    tensor::Dimension,
};

/// An operand with the labels of its axes.
#[derive(Clone, Debug)]
struct Operand {
    value: Value,
    labels: Vec<Label>,
}

type Lowered<T> = Result<Option<T>, ConvertError>;

fn extent(cx: &NodeContext<'_, '_>, operand: &Operand, label: Label) -> Dimension {
    let axis = operand.labels.iter().position(|l| *l == label);
    axis.map_or(Dimension::fixed(1), |a| cx.shape(operand.value).dim(a))
}

/// Sums over the axes that `keep` does not have.
fn sum_out(
    cx: &mut NodeContext<'_, '_>,
    operand: Operand,
    keep: impl Fn(Label) -> bool,
) -> Result<Operand, ConvertError> {
    let (kept, axes): (Vec<usize>, Vec<usize>) =
        (0..operand.labels.len()).partition(|a| keep(operand.labels[*a]));
    if axes.is_empty() {
        return Ok(operand);
    }
    let axes = cx.i64s_constant(&axes.iter().map(|a| *a as i64).collect::<Vec<_>>());
    let attributes = [("keepdims", Attr::Int(0))];
    let value = cx.compose("ReduceSum", &[operand.value, axes], &attributes)?;
    Ok(Operand { value, labels: kept.into_iter().map(|a| operand.labels[a]).collect() })
}

/// The axes in the order of `labels`, which are all of them.
fn arranged(
    cx: &mut NodeContext<'_, '_>,
    operand: &Operand,
    labels: &[Label],
) -> Result<Value, ConvertError> {
    let order: Vec<i64> = labels
        .iter()
        .filter_map(|l| operand.labels.iter().position(|o| o == l))
        .map(|a| a as i64)
        .collect();
    if order.iter().enumerate().all(|(i, a)| i as i64 == *a) {
        return Ok(operand.value);
    }
    cx.transpose(operand.value, &order)
}

/// Groups of neighbouring axes become one axis each: batch axes stay, a group of none becomes an axis of 1. Nothing when
/// the extents are not known well enough.
fn grouped(
    cx: &mut NodeContext<'_, '_>,
    value: Value,
    batch: usize,
    groups: [usize; 2],
) -> Lowered<Value> {
    if groups == [1, 1] {
        return Ok(Some(value));
    }
    let shape = cx.shape(value);
    let mut target = vec![0i64; batch];
    let mut unknown = 0;
    let mut axis = batch;
    for count in groups {
        let known = (axis..axis + count).try_fold(1usize, |p, a| shape.dim(a).value().and_then(|d| p.checked_mul(d)));
        axis += count;
        unknown += usize::from(known.is_none());
        target.push(known.map_or(-1, |k| k as i64));
    }
    // An extent of 0 would read as "copy", and -1 must be the only one.
    if unknown > 1 || target[batch..].contains(&0) {
        return Ok(None);
    }
    Ok(Some(cx.reshape(value, &target)?))
}

/// The product of two operands over the labels that `keep` does not have.
fn contract(
    cx: &mut NodeContext<'_, '_>,
    a: Operand,
    b: Operand,
    keep: impl Fn(Label) -> bool,
) -> Lowered<Operand> {
    let (other_a, other_b) = (a.labels.clone(), b.labels.clone());
    let a = sum_out(cx, a, |l| keep(l) || other_b.contains(&l))?;
    let b = sum_out(cx, b, |l| keep(l) || other_a.contains(&l))?;
    let shared: Vec<Label> = a.labels.iter().copied().filter(|l| b.labels.contains(l)).collect();
    for label in &shared {
        let (x, y) = (extent(cx, &a, *label), extent(cx, &b, *label));
        let broadcasts = x.value() != y.value() && !x.same(y) && (!x.is_static() || !y.is_static() || !keep(*label));
        if broadcasts && (x.admits(1) || y.admits(1)) && (x.is_static() || y.is_static()) {
            return Ok(None);
        }
    }
    let (batch, inner): (Vec<Label>, Vec<Label>) = shared.iter().copied().partition(|l| keep(*l));
    let free = |o: &Operand| -> Vec<Label> {
        o.labels.iter().copied().filter(|l| !shared.contains(l)).collect()
    };
    let (left, right) = (free(&a), free(&b));
    let x = arranged(cx, &a, &[batch.clone(), left.clone(), inner.clone()].concat())?;
    let y = arranged(cx, &b, &[batch.clone(), right.clone(), inner.clone()].concat())?;
    let labels = [batch.clone(), left.clone(), right.clone()].concat();
    let line = |cx: &mut NodeContext<'_, '_>, value: Value, from: usize, count: usize| {
        if count == 0 {
            return Ok(value);
        }
        let axes: Vec<i64> = (from..from + count).map(|a| a as i64).collect();
        let axes = cx.i64s_constant(&axes);
        cx.compose("Unsqueeze", &[value, axes], &[])
    };
    if inner.is_empty() {
        let x = line(cx, x, batch.len() + left.len(), right.len())?;
        let y = line(cx, y, batch.len(), left.len())?;
        return Ok(Some(Operand { value: cx.compose("Mul", &[x, y], &[])?, labels }));
    }
    let extents: Vec<Dimension> = left.iter().map(|l| extent(cx, &a, *l))
        .chain(right.iter().map(|l| extent(cx, &b, *l))).collect();
    let (n, m, k) = (batch.len(), left.len(), inner.len());
    let (Some(x), Some(y)) = (grouped(cx, x, n, [m, k])?, grouped(cx, y, n, [right.len(), k])?) else {
        return Ok(None);
    };
    let product = cx.add(MatMul { transpose_a: false, transpose_b: true }, &[x, y])?;
    if m == 1 && right.len() == 1 {
        return Ok(Some(Operand { value: product, labels }));
    }
    // The axes of the groups come back; at most one of them may be unknown.
    let mut target = vec![0i64; n];
    target.extend(extents.iter().map(|d| d.value().map_or(-1, |v| v as i64)));
    if target[n..].iter().filter(|v| **v == -1).count() > 1 || target[n..].contains(&0) {
        return Ok(None);
    }
    Ok(Some(Operand { value: cx.reshape(product, &target)?, labels }))
}

/// The equation as sums, transpositions and matrix products; nothing when it is more than that.
fn lower(cx: &mut NodeContext<'_, '_>, equation: &Equation, inputs: &[Value]) -> Lowered<Value> {
    let repeats = |labels: &Vec<Label>| (1..labels.len()).any(|i| labels[..i].contains(&labels[i]));
    if inputs.is_empty() || inputs.len() > 16 || equation.operands.iter().any(repeats) {
        return Ok(None);
    }
    let operand = |i: usize| Operand { value: inputs[i], labels: equation.operands[i].clone() };
    let mut so_far = operand(0);
    for i in 1..inputs.len() {
        let keep = |l: Label| {
            equation.result.contains(&l) || equation.operands[i + 1..].iter().any(|o| o.contains(&l))
        };
        let Some(next) = contract(cx, so_far, operand(i), keep)? else { return Ok(None) };
        so_far = next;
    }
    let so_far = sum_out(cx, so_far, |l| equation.result.contains(&l))?;
    Ok(Some(arranged(cx, &so_far, &equation.result)?))
}

fn einsum(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = cx.all_inputs();
    let text = cx.str("equation", "")?.to_owned();
    let ranks: Option<Vec<usize>> = inputs.iter().map(|v| cx.shape(*v).rank()).collect();
    if let Some(ranks) = ranks {
        let equation = Equation::parse(&text, &ranks)?;
        if let Some(value) = lower(cx, &equation, &inputs)? {
            return Ok(vec![value]);
        }
    }
    Ok(vec![cx.add(Einsum { equation: text }, &inputs)?])
}

fn det(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    Ok(vec![cx.add(Det {}, &[x])?])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[("", "Einsum", 12, einsum), ("", "Det", 11, det)];
