//! Sequences and optionals: ONNX's values made of tensors.
//!
//! A sequence is a tensor of element type `Sequence` and shape `[number of items]`; an optional is its value or
//! [`Tensor::absent`]. <https://onnx.ai/onnx/operators/>

use super::{
    InferContext, InputInfo, OpEntry, OpError, OpResult, OpRules, OutputType, control_flow,
    normalize_axis, present,
};
use crate::{
    model::Model,
    reference::BodyRunner,
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

fn sequence_type(len: Dimension) -> OutputType {
    OutputType::new(ElementType::Sequence, PartialShape::new(&[len]))
}

fn expect_sequence(cx: &InferContext<'_>) -> OpResult<()> {
    cx.expect_type(0, "a sequence", |t| t == ElementType::Sequence)
}

/// Position input `index` names in a list of `len`, counted from both ends; `default` when it is left out.
fn position(inputs: &[Tensor], index: usize, len: usize, default: usize) -> OpResult<usize> {
    let Some(tensor) = present(inputs, index) else { return Ok(default) };
    let value = tensor.element_as_i64(0).filter(|_| tensor.len() == 1);
    let value = value
        .ok_or_else(|| OpError::Invalid(format!("a position of shape {}", tensor.shape())))?;
    let signed = i64::try_from(len).unwrap_or(i64::MAX);
    let from_front = if value < 0 { value.saturating_add(signed) } else { value };
    usize::try_from(from_front)
        .ok()
        .filter(|p| *p <= len)
        .ok_or_else(|| OpError::Invalid(format!("position {value} in a sequence of {len}")))
}

fn first(inputs: &[Tensor]) -> OpResult<&Tensor> {
    inputs
        .first()
        .ok_or_else(|| OpError::InputCount { got: 0, expected: "at least 1".to_owned() })
}

define_op! {
    /// The inputs as a sequence.
    pub struct SequenceConstruct("SequenceConstruct", 0) {}
}

impl OpRules for SequenceConstruct {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        Ok(vec![sequence_type(Dimension::fixed(cx.len()))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Ok(vec![Tensor::from_sequence(inputs.to_vec())])
    }
}

define_op! {
    /// The item of a sequence (input 0) at a position (input 1, counted from both ends).
    pub struct SequenceAt("SequenceAt", 0) {
        /// Element type of the item, `Dynamic` when it is not known.
        element_type: ElementType = ElementType::Dynamic,
    }
}

impl OpRules for SequenceAt {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        expect_sequence(cx)?;
        Ok(vec![OutputType::new(self.element_type, PartialShape::dynamic())])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let items = first(inputs)?.as_sequence()?;
        let at = position(inputs, 1, items.len(), 0)?;
        let item = items.get(at).ok_or_else(|| {
            OpError::Invalid(format!("position {at} in a sequence of {}", items.len()))
        })?;
        Ok(vec![item.clone()])
    }
}

define_op! {
    /// A sequence (input 0) with an item (input 1) put in before a position (input 2, default: at the end).
    pub struct SequenceInsert("SequenceInsert", 0) {}
}

impl OpRules for SequenceInsert {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=3)?;
        expect_sequence(cx)?;
        Ok(vec![sequence_type(cx.shape(0).dim(0).add(Dimension::fixed(1)))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        op_ensure!(inputs.len() >= 2, "has {} inputs, expected 2 or 3", inputs.len());
        let mut items = inputs[0].as_sequence()?.to_vec();
        let at = position(inputs, 2, items.len(), items.len())?;
        items.insert(at, inputs[1].clone());
        Ok(vec![Tensor::from_sequence(items)])
    }
}

define_op! {
    /// A sequence (input 0) without the item at a position (input 1, default: the last).
    pub struct SequenceErase("SequenceErase", 0) {}
}

impl OpRules for SequenceErase {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=2)?;
        expect_sequence(cx)?;
        Ok(vec![sequence_type(cx.shape(0).dim(0).map(|n| n.saturating_sub(1)))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let mut items = first(inputs)?.as_sequence()?.to_vec();
        let at = position(inputs, 1, items.len(), items.len().saturating_sub(1))?;
        op_ensure!(at < items.len(), "position {at} in a sequence of {}", items.len());
        items.remove(at);
        Ok(vec![Tensor::from_sequence(items)])
    }
}

define_op! {
    /// Number of items of a sequence, a scalar.
    pub struct SequenceLength("SequenceLength", 0) {}
}

impl OpRules for SequenceLength {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        expect_sequence(cx)?;
        let dims = Some(vec![cx.shape(0).dim(0)]);
        Ok(vec![OutputType::new(ElementType::I64, []).with_dims(dims)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let len = first(inputs)?.as_sequence()?.len();
        Ok(vec![Tensor::scalar(i64::try_from(len).unwrap_or(i64::MAX))])
    }
}

define_op! {
    /// A tensor (input 0) cut along an axis into a sequence: into pieces of an extent (input 1, a scalar), of listed
    /// extents (input 1, rank 1), or of 1 each.
    pub struct SplitToSequence("SplitToSequence", 0) {
        /// The axis.
        axis: i64 = 0,
        /// Whether pieces of extent 1 keep the axis when input 1 is left out.
        keepdims: bool = true,
    }
}

impl OpRules for SplitToSequence {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=2)?;
        let shape = cx.shape(0);
        let Some(rank) = shape.rank() else { return Ok(vec![sequence_type(Dimension::DYNAMIC)]) };
        let extent = shape.dim(normalize_axis(self.axis, rank)?);
        let len = if !cx.is_present(1) {
            extent
        } else if cx.shape(1).rank() == Some(1) {
            cx.shape(1).dim(0)
        } else {
            match (extent.value(), cx.i64s(1)?.and_then(|v| v.first().copied())) {
                (Some(n), Some(part)) if part > 0 => {
                    Dimension::fixed(n.div_ceil(usize::try_from(part).unwrap_or(usize::MAX)))
                }
                _ => Dimension::DYNAMIC,
            }
        };
        Ok(vec![sequence_type(len)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let tensor = first(inputs)?;
        let axis = normalize_axis(self.axis, tensor.rank())?;
        let extent = tensor.shape()[axis];
        let parts: Vec<usize> = match present(inputs, 1) {
            None => vec![1; extent],
            Some(split) => {
                let given = split
                    .to_i64_vec()?
                    .into_iter()
                    .map(|v| usize::try_from(v).map_err(|_| {
                        OpError::Invalid(format!("a piece of extent {v}"))
                    }))
                    .collect::<OpResult<Vec<_>>>()?;
                match (split.rank(), &given[..]) {
                    (0, [part]) => {
                        op_ensure!(*part > 0, "pieces of extent 0");
                        (0..extent).step_by(*part).map(|at| (*part).min(extent - at)).collect()
                    }
                    _ => given,
                }
            }
        };
        let total = parts.iter().try_fold(0usize, |a, p| a.checked_add(*p));
        op_ensure!(total == Some(extent), "pieces {parts:?} of an axis of {extent}");
        let mut at = 0;
        let mut items = Vec::with_capacity(parts.len());
        for part in parts {
            let mut piece = control_flow::slice_axis(tensor, axis, at, part)?;
            if !self.keepdims && present(inputs, 1).is_none() {
                let mut dims = piece.shape().to_vec();
                dims.remove(axis);
                piece = piece.reshape(dims)?;
            }
            at += part;
            items.push(piece);
        }
        Ok(vec![Tensor::from_sequence(items)])
    }
}

define_op! {
    /// The items of a sequence one after the other along an axis, or stacked along a new one.
    pub struct ConcatFromSequence("ConcatFromSequence", 0) {
        /// The axis.
        axis: i64 = 0,
        /// Whether the axis is new.
        new_axis: bool = false,
        /// Element type of the items, `Dynamic` when it is not known.
        element_type: ElementType = ElementType::Dynamic,
    }
}

impl OpRules for ConcatFromSequence {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        expect_sequence(cx)?;
        Ok(vec![OutputType::new(self.element_type, PartialShape::dynamic())])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let mut items = first(inputs)?.as_sequence()?.to_vec();
        let rank = items.first().map(Tensor::rank);
        let rank = rank.ok_or_else(|| OpError::Invalid("the sequence is empty".to_owned()))?;
        let axis = normalize_axis(self.axis, rank + usize::from(self.new_axis))?;
        if self.new_axis {
            for item in &mut items {
                let mut dims = item.shape().to_vec();
                op_ensure!(axis <= dims.len(), "an item has shape {}", item.shape());
                dims.insert(axis, 1);
                *item = item.reshape(dims)?;
            }
        }
        Ok(vec![control_flow::concat_axis(&items, axis)?])
    }
}

define_op! {
    /// A body run for each item of a sequence (input 0); its parameters read the inputs in order, the items in turn of
    /// those that are sequences (the first `items` inputs only) and the others whole. Each output is the sequence of
    /// what the runs give.
    pub struct SequenceMap("SequenceMap", 0) {
        /// What is run.
        body: Model = Model::default(),
        /// Number of leading inputs whose sequences are walked; later inputs are values of the surrounding graph.
        items: i64 = 1,
    }
}

impl SequenceMap {
    fn walks(&self, index: usize, ty: ElementType) -> bool {
        ty == ElementType::Sequence && usize::try_from(self.items).is_ok_and(|n| index < n)
    }
}

impl OpRules for SequenceMap {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=usize::MAX)?;
        expect_sequence(cx)?;
        let any = PartialShape::dynamic();
        let infos: Vec<InputInfo<'_>> = cx
            .inputs
            .iter()
            .enumerate()
            .map(|(i, info)| {
                if self.walks(i, info.element_type) {
                    let element_type = ElementType::Dynamic;
                    InputInfo { element_type, shape: &any, value: None, dims: None }
                } else {
                    *info
                }
            })
            .collect();
        let outputs = control_flow::infer_body(&self.body, &infos)?;
        Ok(vec![sequence_type(cx.shape(0).dim(0)); outputs.len()])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let runner = BodyRunner::new(&self.body)?;
        self.evaluate_with(inputs, &mut |arguments| runner.run(arguments))
    }
}

impl SequenceMap {
    /// Evaluates the operator with a body that somebody else runs; of the body itself only the number of outputs is
    /// looked at.
    ///
    /// # Errors
    /// When the body fails or the sequences differ in length.
    pub fn evaluate_with(
        &self,
        inputs: &[Tensor],
        run_body: control_flow::RunBody<'_>,
    ) -> OpResult<Vec<Tensor>> {
        let len = first(inputs)?.as_sequence()?.len();
        let mut outputs = vec![Vec::with_capacity(len); self.body.outputs().len()];
        for at in 0..len {
            let arguments = inputs
                .iter()
                .enumerate()
                .map(|(i, input)| {
                    if !self.walks(i, input.element_type()) {
                        return Ok(input.clone());
                    }
                    let items = input.as_sequence()?;
                    items.get(at).cloned().ok_or_else(|| {
                        OpError::Invalid(format!("sequences of {len} and {} items", items.len()))
                    })
                })
                .collect::<OpResult<Vec<_>>>()?;
            for (list, value) in outputs.iter_mut().zip(run_body(&arguments)?) {
                list.push(value);
            }
        }
        Ok(outputs.into_iter().map(Tensor::from_sequence).collect())
    }
}

define_op! {
    /// Whether an optional has a value, a scalar.
    pub struct OptionalHasElement("OptionalHasElement", 0) {}
}

impl OpRules for OptionalHasElement {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        Ok(vec![OutputType::new(ElementType::Boolean, [])])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Ok(vec![Tensor::from_bools([], &[!first(inputs)?.is_absent()])?])
    }
}

define_op! {
    /// The value of an optional.
    pub struct OptionalGetElement("OptionalGetElement", 0) {}
}

impl OpRules for OptionalGetElement {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let value = first(inputs)?;
        op_ensure!(!value.is_absent(), "the optional has no value");
        Ok(vec![value.clone()])
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<SequenceConstruct>(),
    OpEntry::of::<SequenceAt>(),
    OpEntry::of::<SequenceInsert>(),
    OpEntry::of::<SequenceErase>(),
    OpEntry::of::<SequenceLength>(),
    OpEntry::of::<SplitToSequence>(),
    OpEntry::of::<ConcatFromSequence>(),
    OpEntry::of::<SequenceMap>(),
    OpEntry::of::<OptionalHasElement>(),
    OpEntry::of::<OptionalGetElement>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(values: &[i64]) -> Tensor {
        Tensor::from_sequence(values.iter().map(|v| Tensor::scalar(*v)).collect())
    }

    fn at(v: i64) -> Tensor {
        Tensor::scalar(v)
    }

    #[test]
    fn items_are_put_in_taken_out_and_found_from_both_ends() {
        let s = numbers(&[1, 2, 3]);
        let insert = |p: Option<i64>| {
            let mut inputs = vec![s.clone(), at(9)];
            inputs.extend(p.map(at));
            SequenceInsert {}.evaluate(&inputs)
        };
        for (p, expected) in [(None, [1, 2, 3, 9]), (Some(0), [9, 1, 2, 3]), (Some(-1), [1, 2, 9, 3])] {
            assert_eq!(insert(p).expect("in range")[0], numbers(&expected));
        }
        assert!(insert(Some(4)).is_err() && insert(Some(-4)).is_err());
        let erase = |p: Option<i64>| {
            let mut inputs = vec![s.clone()];
            inputs.extend(p.map(at));
            SequenceErase {}.evaluate(&inputs)
        };
        for (p, expected) in [(None, [1, 2]), (Some(0), [2, 3]), (Some(-2), [1, 3])] {
            assert_eq!(erase(p).expect("in range")[0], numbers(&expected));
        }
        assert!(erase(Some(3)).is_err() && SequenceErase {}.evaluate(&[numbers(&[])]).is_err());
        let item = |p: i64| SequenceAt::default().evaluate(&[s.clone(), at(p)]);
        assert_eq!(item(-1).expect("in range")[0], at(3));
        assert!(item(3).is_err());
        assert_eq!(SequenceLength {}.evaluate(&[s]).expect("a sequence")[0], at(3));
    }

    #[test]
    fn splitting_and_joining_are_inverse() {
        let t = Tensor::from_vec([5, 2], (0..10).collect::<Vec<i32>>()).expect("fits");
        for (split, lens) in [
            (None, vec![1; 5]),
            (Some(Tensor::scalar(2i64)), vec![2, 2, 1]),
            (Some(Tensor::from_i64s(&[0, 4, 1])), vec![0, 4, 1]),
        ] {
            let mut inputs = vec![t.clone()];
            inputs.extend(split);
            let s = SplitToSequence::default().evaluate(&inputs).expect("whole")[0].clone();
            let got: Vec<usize> =
                s.as_sequence().expect("a sequence").iter().map(|i| i.shape()[0]).collect();
            assert_eq!(got, lens);
            assert_eq!(ConcatFromSequence::default().evaluate(&[s]).expect("same shapes")[0], t);
        }
        assert!(SplitToSequence::default().evaluate(&[t.clone(), Tensor::from_i64s(&[3])]).is_err());
        let op = SplitToSequence { axis: 1, keepdims: false };
        let s = op.evaluate(&[t]).expect("whole")[0].clone();
        let op = ConcatFromSequence { axis: -1, new_axis: true, ..Default::default() };
        let joined = op.evaluate(&[s]).expect("same shapes");
        assert_eq!(joined[0].shape()[..], [5, 2]);
        assert!(ConcatFromSequence::default().evaluate(&[numbers(&[])]).is_err());
    }

    #[test]
    fn maps_run_the_body_for_each_item() {
        let mut body = Model::new("body");
        let x = body.add_parameter("x", ElementType::F32, PartialShape::dynamic()).expect("valid");
        let y = body.add(crate::op::activation::Relu {}, &[x], "y").expect("valid");
        body.add_output("y", y);
        let op = SequenceMap { body, items: 1 };
        let floats = |v: &[f32]| Tensor::from_vec([v.len()], v.to_vec()).expect("fits");
        let s = Tensor::from_sequence(vec![floats(&[-1., 2.]), floats(&[]), floats(&[-3.])]);
        let expected = Tensor::from_sequence(vec![floats(&[0., 2.]), floats(&[]), floats(&[0.])]);
        assert_eq!(op.evaluate(&[s]).expect("runs")[0], expected);
    }

    #[test]
    fn optionals_are_their_value_or_absent() {
        for (value, has) in [(Tensor::absent(), false), (at(1), true), (numbers(&[]), true)] {
            let got = OptionalHasElement {}.evaluate(std::slice::from_ref(&value)).expect("any value");
            assert_eq!(got[0], Tensor::from_bools([], &[has]).expect("fits"));
            assert_eq!(OptionalGetElement {}.evaluate(&[value]).is_ok(), has);
        }
    }
}
