//! Values that a binding knows on the host.

use ov_core::{Tensor, op::normalize_axis};

use super::{
    Binding, BoundInput, Choice, Reject, Selecting,
    element::{element_bytes, moved_bytes},
};

/// The tensor behind input `index`; `None` when the input is left out.
///
/// # Errors
/// When it is computed on the device.
pub(super) fn value<'a>(node: &Binding<'a>, index: usize) -> Result<Option<&'a Tensor>, Reject> {
    match node.inputs.get(index) {
        None => Ok(None),
        Some(BoundInput { value: Some(t), .. }) => Ok((!t.is_absent()).then_some(*t)),
        Some(_) => Err(format!("input {index} is not known before the inference").into()),
    }
}

/// The integers behind input `index`; `None` when the input is left out.
///
/// # Errors
/// When it is computed on the device, or is of another type.
pub(super) fn optional_integers(
    node: &Binding<'_>,
    index: usize,
) -> Result<Option<Vec<i64>>, Reject> {
    let value = value(node, index)?.map(Tensor::to_i64_vec).transpose();
    value.map_err(|e| Reject::from(e.to_string()))
}

/// The integers behind input `index`.
///
/// # Errors
/// When it is left out, computed on the device, or of another type.
pub(super) fn integers(node: &Binding<'_>, index: usize) -> Result<Vec<i64>, Reject> {
    optional_integers(node, index)?.ok_or_else(|| format!("input {index} is missing").into())
}

/// The axis of a shape of `rank` axes that input `index` names, `default` when it is left out.
///
/// # Errors
/// When there is no such axis or the input is not known.
pub(super) fn axis(
    node: &Binding<'_>,
    index: usize,
    default: i64,
    rank: usize,
) -> Result<usize, Reject> {
    let named = optional_integers(node, index)?.and_then(|v| v.first().copied());
    from_front(named.unwrap_or(default), rank)
}

/// An axis counted from the front.
///
/// # Errors
/// When there is no such axis.
pub(super) fn from_front(axis: i64, rank: usize) -> Result<usize, Reject> {
    normalize_axis(axis, rank).map_err(|e| e.to_string().into())
}

/// Several axes counted from the front, each once, ascending.
///
/// # Errors
/// When there is no such axis.
pub(super) fn axes_from_front(axes: &[i64], rank: usize) -> Result<Vec<usize>, Reject> {
    let mut axes = axes.iter().map(|a| from_front(*a, rank)).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    axes.dedup();
    Ok(axes)
}

/// What kernels rely on so that they stay within their operands: shapes that the rules of an operator leave to its
/// evaluation.
///
/// # Errors
/// When it does not hold; the evaluation then says what is wrong.
pub(super) fn ensure(holds: bool, what: &'static str) -> Result<(), Reject> {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// Whether input `index` is there.
pub(super) fn is_present(node: &Binding<'_>, index: usize) -> bool {
    node.inputs.get(index).is_some_and(|i| !i.value.is_some_and(Tensor::is_absent))
}

/// Whether input `index` of a node that is being compiled is there.
pub(super) fn is_given(node: &Selecting<'_>, index: usize) -> bool {
    node.inputs.get(index).is_some_and(|i| !i.constant.is_some_and(Tensor::is_absent))
}

/// As [`choice`], for a node that moves elements without looking at them: of any type of whole bytes.
///
/// # Errors
/// For elements of less than a byte.
pub(super) fn moving_choice(node: &Selecting<'_>, host: &[usize]) -> Result<Choice, Reject> {
    for ty in node.outputs.iter().map(|o| o.element_type) {
        moved_bytes(ty)?;
    }
    let host: Vec<usize> = host.iter().copied().filter(|i| *i < node.inputs.len()).collect();
    Ok(Choice { host, ..Choice::default() })
}

/// A choice for a node whose inputs in `host` the binding reads; the others, and the outputs, are on the device.
///
/// # Errors
/// When their element types have no place there.
pub(super) fn choice(node: &Selecting<'_>, host: &[usize]) -> Result<Choice, Reject> {
    let host: Vec<usize> = host.iter().copied().filter(|i| *i < node.inputs.len()).collect();
    for (index, input) in node.inputs.iter().enumerate() {
        if !host.contains(&index) && is_given(node, index) {
            element_bytes(input.element_type)?;
        }
    }
    for output in node.outputs {
        element_bytes(output.element_type)?;
    }
    Ok(Choice { host, ..Choice::default() })
}
