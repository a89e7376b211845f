//! Transposed convolutions become channels-last, with the cut of their output resolved.

use crate::{
    ElementType, Tensor,
    error::Result,
    model::NodeId,
    op::{
        OpResult,
        convolution::{ConvolutionBackpropData, GroupConvolutionBackpropData},
        window::{AutoPad, Window},
    },
};

use super::Layout;
use crate::op::fused::transposed::FusedConvolutionTransposed;

/// Adds the node channels-last; false when it must stay plain.
pub(super) fn apply(layout: &mut Layout<'_>, id: NodeId) -> Result<bool> {
    let node = layout.old.node(id);
    let (x, w) = (node.inputs()[0], node.inputs()[1]);
    let Some(mut filters) = layout.old.constant(w).cloned() else { return Ok(false) };
    let Some(rank) = layout.shape(x).rank().filter(|r| (3..=5).contains(r)) else {
        return Ok(false);
    };
    let float = layout.old.element_type(x) == ElementType::F32;
    if !float || filters.element_type() != ElementType::F32 || filters.is_empty() {
        return Ok(false);
    }
    let wanted = match node.inputs().get(2) {
        None => None,
        Some(v) => match layout.old.constant(*v).map(Tensor::to_i64_vec) {
            Some(Ok(list)) => Some(list),
            _ => return Ok(false),
        },
    };
    let extents: Option<Vec<usize>> =
        (2..rank).map(|axis| layout.shape(x).dim(axis).value().filter(|v| *v > 0)).collect();
    // Without a wanted shape, the cut is the same for all extents.
    let extents = match (&wanted, extents) {
        (_, Some(extents)) => extents,
        (None, None) => vec![1; rank - 2],
        (Some(_), None) => return Ok(false),
    };
    let group = node.op_as::<GroupConvolutionBackpropData>().cloned();
    let plain = node.op_as::<ConvolutionBackpropData>().cloned();
    let groups = if group.is_some() { filters.shape()[0] } else { 1 };
    if group.is_some() {
        let dims = filters.shape().to_vec();
        let mut flat = vec![dims[0] * dims[1]];
        flat.extend_from_slice(&dims[2..]);
        filters = filters.reshape(flat)?;
    }
    let kernel = &filters.shape()[2..];
    let wanted: Option<Vec<usize>> =
        wanted.map(|l| l.iter().map(|v| usize::try_from(*v).unwrap_or(0)).collect());
    let axes: OpResult<Vec<(Window, usize)>> = match (&plain, &group) {
        (Some(op), _) => op.windows(kernel, &extents, wanted.as_deref()),
        (_, Some(op)) => op.windows(kernel, &extents, wanted.as_deref()),
        (None, None) => return Ok(false),
    };
    let Some(fused) = axes.ok().and_then(|axes| explicit(&axes, &extents, groups)) else {
        return Ok(false);
    };
    let x = layout.last(x)?;
    let filters = layout.new.add_constant(filters, layout.old.node(w.node).name().to_owned());
    layout.give_last(id, Box::new(fused), &[x, filters])?;
    Ok(true)
}

/// The operator with explicit attributes; none when the output begins before the first window.
fn explicit(
    axes: &[(Window, usize)],
    extents: &[usize],
    groups: usize,
) -> Option<FusedConvolutionTransposed> {
    let mut op = FusedConvolutionTransposed {
        groups: i64::try_from(groups).ok()?,
        ..FusedConvolutionTransposed::default()
    };
    for ((window, output), extent) in axes.iter().zip(extents) {
        if window.begin < 0 {
            return None;
        }
        let whole =
            extent.checked_sub(1)?.checked_mul(window.stride)?.checked_add(window.span())?;
        let beyond = i64::try_from(*output).ok()? + window.begin - i64::try_from(whole).ok()?;
        op.strides.push(i64::try_from(window.stride).ok()?);
        op.dilations.push(i64::try_from(window.dilation).ok()?);
        op.pads_begin.push(window.begin);
        op.pads_end.push((-beyond).max(0));
        op.output_padding.push(beyond.max(0));
    }
    debug_assert_eq!(op.plain().auto_pad, AutoPad::Explicit);
    Some(op)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;
    use crate::pass::testing::{assert_same_on, parameter, random};

    fn equal(op: ConvolutionBackpropData, wanted: Option<&[i64]>) {
        let what = format!("{op:?} {wanted:?}");
        let mut m = Model::new("transposed");
        let x = parameter(&mut m, "x", &[2, 3, 4, 5]);
        let w = m.add_constant(random([3, 4, 3, 2], 1), "w");
        let mut inputs = vec![x, w];
        if let Some(wanted) = wanted {
            inputs.push(m.add_constant(Tensor::from_i64s(wanted), "shape"));
        }
        let y = m.add(op, &inputs, "y").expect("valid");
        m.add_output("y", y);
        let after = super::super::channels_last(&m).expect("valid");
        assert!(
            after.nodes().any(|(_, n)| n.op().is::<FusedConvolutionTransposed>()),
            "{what}: {after}"
        );
        assert_same_on(&m, &after, &[random([2, 3, 4, 5], 2)]);
    }

    #[test]
    fn cuts_are_resolved() {
        let base = || ConvolutionBackpropData {
            strides: vec![2, 3],
            dilations: vec![1, 2],
            pads_begin: vec![0, 0],
            pads_end: vec![0, 0],
            ..ConvolutionBackpropData::default()
        };
        equal(base(), None);
        equal(
            ConvolutionBackpropData { pads_begin: vec![1, 0], pads_end: vec![0, 2], ..base() },
            None,
        );
        equal(ConvolutionBackpropData { output_padding: vec![1, 2], ..base() }, None);
        for auto_pad in [AutoPad::SameUpper, AutoPad::SameLower, AutoPad::Valid] {
            equal(ConvolutionBackpropData { auto_pad, ..base() }, None);
        }
        equal(base(), Some(&[7, 12]));
        equal(base(), Some(&[11, 17]));
        equal(ConvolutionBackpropData { auto_pad: AutoPad::SameLower, ..base() }, Some(&[8, 13]));
    }
}
