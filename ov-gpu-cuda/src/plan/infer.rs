//! What is known of values while a plan is made: concrete types, and values that follow from shapes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ov_core::{
    ElementType, PartialShape, Shape, Tensor,
    io::memory_limit,
    op::{InferContext, InputInfo, Op, OpError, OpResult, OutputType, fused, random::is_random},
};

use crate::program::NodeDesc;

/// Values of up to this many elements are computed while a plan is made, when they follow from shapes.
const EVALUATED: usize = 4096;

/// What is known of a value.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) element_type: ElementType,
    pub(super) shape: Shape,
    /// The value, when it is constant or follows from shapes.
    pub(super) value: Option<Tensor>,
}

impl State {
    pub(super) fn held(value: Tensor) -> Self {
        Self {
            element_type: value.element_type(),
            shape: value.shape().clone(),
            value: Some(value),
        }
    }

    /// Bytes of a value.
    pub(super) fn len(&self) -> usize {
        self.element_type.byte_len(self.shape.elements()).unwrap_or(0)
    }
}

/// What a node gives.
pub(super) enum Inferred {
    /// The shapes of the results are only known once the node has run.
    Dynamic,
    /// The results follow from shapes.
    Values(Vec<Tensor>),
    /// Static types.
    Types(Vec<(ElementType, Shape)>),
}

/// Infers the results of a node from its inputs.
///
/// # Errors
/// When the operator refuses the inputs, or a result is larger than memory.
pub(super) fn infer(node: &NodeDesc, has_bodies: bool, inputs: &[&State]) -> OpResult<Inferred> {
    if has_bodies {
        return Ok(Inferred::Dynamic);
    }
    // Values without bytes are held by tensors: their nodes run between stages.
    if inputs.iter().any(|s| s.element_type.bits() == 0 && s.value.is_none()) {
        return Ok(Inferred::Dynamic);
    }
    let shapes: Vec<PartialShape> = inputs.iter().map(|s| PartialShape::from(&s.shape)).collect();
    let infos: Vec<InputInfo<'_>> = inputs
        .iter()
        .zip(&shapes)
        .map(|(s, shape)| InputInfo {
            element_type: s.element_type,
            shape,
            value: s.value.as_ref(),
            dims: None,
        })
        .collect();
    let types = node.op.infer(&InferContext { inputs: &infos })?;
    if types.len() < node.outputs.len() {
        let (got, expected) = (types.len(), node.outputs.len());
        return Err(OpError::Invalid(format!("has {got} outputs, expected {expected}")));
    }
    let resolved = types.iter().map(|t| Some((t.element_type, t.shape.to_shape()?)));
    let Some(resolved) = resolved.collect::<Option<Vec<_>>>() else {
        return Ok(Inferred::Dynamic);
    };
    if let Some(values) = types.iter().map(known_value).collect::<Option<Vec<_>>>() {
        return Ok(Inferred::Values(values));
    }
    let small = resolved.iter().all(|(_, s)| s.elements() <= EVALUATED)
        && inputs.iter().all(|s| s.shape.elements() <= EVALUATED);
    let pure = !is_random(node.op.kind()) && !inputs.is_empty();
    if pure && small && inputs.iter().all(|s| s.value.is_some()) {
        let arguments: Vec<Tensor> = inputs.iter().filter_map(|s| s.value.clone()).collect();
        return Ok(Inferred::Values(evaluate(&*node.op, &arguments, &resolved)?));
    }
    if resolved.iter().any(|(ty, _)| ty.bits() == 0) {
        return Ok(Inferred::Dynamic);
    }
    for (ty, shape) in &resolved {
        let bytes = shape.checked_len().and_then(|n| ty.byte_len(n));
        if bytes.is_none_or(|b| b > memory_limit()) {
            return Err(OpError::Invalid(format!(
                "the output {ty}{shape} needs more than the {} bytes of memory that there are",
                memory_limit()
            )));
        }
    }
    Ok(Inferred::Types(resolved))
}

/// The value of a small integer output whose every element inference knows.
fn known_value(ty: &OutputType) -> Option<Tensor> {
    let dims = ty.dims.as_ref()?;
    let values = dims
        .iter()
        .map(|d| d.value().and_then(|v| i64::try_from(v).ok()))
        .collect::<Option<Vec<_>>>()?;
    let shape = ty.shape.to_shape().filter(|s| s.elements() == values.len())?;
    Tensor::from_vec(shape, values).ok()?.cast(ty.element_type).ok()
}

/// The reference evaluation on the host. Fused operators over narrow types are evaluated in `f32`, which their exact
/// evaluation is written for; `types` says what the results must be, and is empty where nobody knows.
///
/// # Errors
/// When the values are not valid, the evaluation panics, or the results are of other types than `types`.
pub(crate) fn evaluate(
    op: &dyn Op,
    inputs: &[Tensor],
    types: &[(ElementType, Shape)],
) -> OpResult<Vec<Tensor>> {
    let narrow = |ty: ElementType| matches!(ty, ElementType::F16 | ElementType::Bf16);
    let widened = fused::contains(op.kind()) && inputs.iter().any(|t| narrow(t.element_type()));
    let arguments: Vec<Tensor> = inputs
        .iter()
        .map(|t| match widened && narrow(t.element_type()) {
            true => t.cast(ElementType::F32),
            false => Ok(t.clone()),
        })
        .collect::<Result<_, _>>()?;
    let result = catch_unwind(AssertUnwindSafe(|| op.evaluate(&arguments)));
    let mut results = result.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_default();
        Err(OpError::Invalid(format!("evaluation panicked: {text}")))
    })?;
    if results.len() < types.len() {
        let (got, expected) = (results.len(), types.len());
        return Err(OpError::Invalid(format!("gave {got} outputs, expected {expected}")));
    }
    for (i, (tensor, (ty, shape))) in results.iter_mut().zip(types).enumerate() {
        if widened && tensor.element_type() == ElementType::F32 && narrow(*ty) {
            *tensor = tensor.cast(*ty)?;
        }
        if tensor.element_type() != *ty || tensor.shape() != shape {
            return Err(OpError::Invalid(format!(
                "output {i} is {}{}, inferred {ty}{shape}",
                tensor.element_type(),
                tensor.shape()
            )));
        }
    }
    Ok(results)
}
