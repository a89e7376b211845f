//! Sequences and optionals.

use super::{super::NodeContext, ConvertResult, OnnxOp};
use crate::{
    model::{Model, Value},
    op::sequence::{
        ConcatFromSequence, OptionalGetElement, OptionalHasElement, SequenceAt, SequenceConstruct,
        SequenceErase, SequenceInsert, SequenceLength, SequenceMap, SplitToSequence,
    },
    tensor::{ElementType, PartialShape, Tensor},
};

/// Element type of the items of a sequence, as far as the operators that made it tell.
fn item_type(model: &Model, mut sequence: Value) -> ElementType {
    for _ in 0..64 {
        let Some(node) = model.get(sequence.node) else { break };
        let op = node.op();
        if let Some(value) = node.constant() {
            return value
                .as_sequence()
                .ok()
                .and_then(|s| s.first())
                .map_or(ElementType::Dynamic, Tensor::element_type);
        }
        let from = if op.is::<SequenceConstruct>() || op.is::<SplitToSequence>() {
            0
        } else if op.is::<SequenceInsert>() {
            1
        } else if op.is::<SequenceErase>() {
            sequence = node.inputs()[0];
            continue;
        } else {
            break;
        };
        return node.inputs().get(from).map_or(ElementType::Dynamic, |v| model.element_type(*v));
    }
    ElementType::Dynamic
}

fn construct(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = cx.all_inputs();
    cx.add_multi(SequenceConstruct {}, &inputs)
}

fn empty(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    Ok(vec![cx.constant(Tensor::from_sequence(Vec::new()))])
}

fn at(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?];
    let element_type = item_type(cx.model(), inputs[0]);
    cx.add_multi(SequenceAt { element_type }, &inputs)
}

fn insert(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = cx.all_inputs();
    cx.add_multi(SequenceInsert {}, &inputs)
}

fn erase(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = cx.all_inputs();
    cx.add_multi(SequenceErase {}, &inputs)
}

fn length(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = cx.all_inputs();
    cx.add_multi(SequenceLength {}, &inputs)
}

fn split_to_sequence(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let op = SplitToSequence { axis: cx.i64("axis", 0)?, keepdims: cx.bool("keepdims", true)? };
    let inputs = cx.all_inputs();
    cx.add_multi(op, &inputs)
}

fn concat_from_sequence(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let sequence = cx.input(0)?;
    let op = ConcatFromSequence {
        axis: cx.i64("axis", 0)?,
        new_axis: cx.bool("new_axis", false)?,
        element_type: item_type(cx.model(), sequence),
    };
    cx.add_multi(op, &[sequence])
}

fn sequence_map(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let graph = cx.graph("body")?;
    let mut inputs = cx.all_inputs();
    let types: Vec<_> = inputs
        .iter()
        .map(|v| match cx.element_type(*v) {
            ElementType::Sequence => (item_type(cx.model(), *v), PartialShape::dynamic()),
            ty => (ty, cx.shape(*v)),
        })
        .collect();
    let items = inputs.len() as i64;
    let (body, captures) = cx.convert_body(&graph, &types)?;
    inputs.extend(captures);
    cx.add_multi(SequenceMap { body, items }, &inputs)
}

/// An optional is its value, or the absent marker.
fn optional(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    Ok(vec![match cx.optional_input(0) {
        Some(value) => value,
        None => cx.constant(Tensor::absent()),
    }])
}

/// Whether a value is certainly there: its type is known.
fn is_certain(cx: &NodeContext<'_, '_>, value: Value) -> bool {
    cx.element_type(value) != ElementType::Dynamic
}

fn optional_has_element(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    match cx.optional_input(0) {
        None => Ok(vec![cx.constant(Tensor::from_bools([], &[false])?)]),
        Some(value) if is_certain(cx, value) => {
            Ok(vec![cx.constant(Tensor::from_bools([], &[true])?)])
        }
        Some(value) => cx.add_multi(OptionalHasElement {}, &[value]),
    }
}

fn optional_get_element(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let value = cx.input(0)?;
    if is_certain(cx, value) {
        return Ok(vec![value]);
    }
    cx.add_multi(OptionalGetElement {}, &[value])
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "SequenceConstruct", 11, construct),
    ("", "SequenceEmpty", 11, empty),
    ("", "SequenceAt", 11, at),
    ("", "SequenceInsert", 11, insert),
    ("", "SequenceErase", 11, erase),
    ("", "SequenceLength", 11, length),
    ("", "SplitToSequence", 11, split_to_sequence),
    ("", "ConcatFromSequence", 11, concat_from_sequence),
    ("", "SequenceMap", 17, sequence_map),
    ("", "Optional", 15, optional),
    ("", "OptionalHasElement", 15, optional_has_element),
    ("", "OptionalGetElement", 15, optional_get_element),
];
