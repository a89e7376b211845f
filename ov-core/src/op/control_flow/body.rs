//! Types of a body's outputs for given inputs, without changing the body.

use std::cell::Cell;

use super::super::{InferContext, InputInfo, OpError, OpResult, OutputType};
use crate::{
    model::{Model, Value},
    tensor::Tensor,
};

/// What is known about one output of a body.
#[derive(Clone, Debug)]
pub struct KnownOutput {
    /// Its type.
    pub ty: OutputType,
    /// Its value, when it is a constant or follows from shapes.
    pub value: Option<Tensor>,
}

/// Integers and truth values of up to this many elements are computed while types are inferred.
const MAX_KNOWN_ELEMENTS: usize = 64;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// How many bodies inside each other are under inference on this thread.
pub(super) fn depth() -> usize {
    DEPTH.get()
}

struct Nested;

impl Nested {
    fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// The outputs of `body` when its parameters have the types (and values, if known) of `inputs`. The types that the
/// body's own nodes hold are not used, so a body serves other shapes than those it was built with.
///
/// # Errors
/// When the number of inputs is wrong or an operator refuses its inputs.
pub fn infer_body(body: &Model, inputs: &[InputInfo<'_>]) -> OpResult<Vec<KnownOutput>> {
    let _nested = Nested::enter();
    if inputs.len() != body.parameters().len() {
        return Err(OpError::Invalid(format!(
            "body {:?} has {} parameters, {} are mapped",
            body.name(),
            body.parameters().len(),
            inputs.len()
        )));
    }
    let fail = |detail: String| OpError::Invalid(format!("in body {:?}: {detail}", body.name()));
    let order = body.topological_order().map_err(|e| fail(e.to_string()))?;
    let slots = order.iter().map(|id| id.index() + 1).max().unwrap_or(0);
    let mut known: Vec<Vec<KnownOutput>> = vec![Vec::new(); slots];
    for (id, input) in body.parameters().iter().zip(inputs) {
        let declared = &body.node(*id).outputs()[0];
        let mut ty = OutputType::new(input.element_type, input.shape.clone())
            .with_dims(input.dims.map(<[_]>::to_vec));
        if ty.element_type == crate::ElementType::Dynamic {
            ty.element_type = declared.element_type;
        }
        if ty.shape.rank().is_none() {
            ty.shape = declared.shape.clone();
        }
        known[id.index()] = vec![KnownOutput { ty, value: input.value.cloned() }];
    }
    for id in order {
        if !known[id.index()].is_empty() {
            continue;
        }
        let node = body.node(id);
        if let Some(value) = node.constant() {
            let ty = node.outputs()[0].clone();
            known[id.index()] = vec![KnownOutput { ty, value: Some(value.clone()) }];
            continue;
        }
        let arguments: Vec<&KnownOutput> = node
            .inputs()
            .iter()
            .map(|v| find(&known, *v))
            .collect::<Option<_>>()
            .ok_or_else(|| fail(format!("{:?} reads a missing value", node.name())))?;
        let infos: Vec<InputInfo<'_>> = arguments
            .iter()
            .map(|k| InputInfo {
                element_type: k.ty.element_type,
                shape: &k.ty.shape,
                value: k.value.as_ref(),
                dims: k.ty.dims.as_deref(),
            })
            .collect();
        let types = node
            .op()
            .infer(&InferContext { inputs: &infos })
            .map_err(|e| fail(format!("{} {:?}: {e}", node.op().kind(), node.name())))?;
        let values = small_values(&arguments, &types, node.op());
        known[id.index()] = types
            .into_iter()
            .enumerate()
            .map(|(i, ty)| KnownOutput { ty, value: values.as_ref().and_then(|v| v.get(i).cloned()) })
            .collect();
    }
    body.outputs()
        .iter()
        .map(|o| {
            find(&known, o.value)
                .cloned()
                .ok_or_else(|| fail(format!("output {:?} reads a missing value", o.name)))
        })
        .collect()
}

fn find(known: &[Vec<KnownOutput>], value: Value) -> Option<&KnownOutput> {
    known.get(value.node.index())?.get(value.output as usize)
}

/// The outputs as values when they are small integers that follow from known values: arithmetic on shapes.
fn small_values(
    arguments: &[&KnownOutput],
    types: &[OutputType],
    op: &dyn super::super::Op,
) -> Option<Vec<Tensor>> {
    let small = |t: &OutputType| {
        (t.element_type.is_integer() || t.element_type == crate::ElementType::Boolean)
            && t.shape.to_shape().is_some_and(|s| s.elements() <= MAX_KNOWN_ELEMENTS)
    };
    let has_body = op.is::<super::If>() || op.is::<super::Loop>() || op.is::<super::TensorIterator>();
    if arguments.is_empty() || has_body || !types.iter().all(small) {
        return None;
    }
    let values: Vec<Tensor> = arguments.iter().map(|k| k.value.clone()).collect::<Option<_>>()?;
    op.evaluate(&values).ok()
}
