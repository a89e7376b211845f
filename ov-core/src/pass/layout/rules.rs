//! How each operator behaves when its input is channels-last.

use crate::{
    ElementType, Tensor,
    error::Result,
    model::{NodeId, Value},
    op::{
        Attribute, AttributeVisitor, Op, OpResult,
        activation::slope_as_channels,
        convolution::{
            Convolution, ConvolutionBackpropData, GroupConvolution, GroupConvolutionBackpropData,
        },
        gather::Gather,
        normalization::GroupNormalization,
        normalize_axis,
        pooling::{AvgPool, AvgPool1, AvgPool14, MaxPool, MaxPool1, MaxPool8},
        reshape::Reshape,
        transpose::Transpose,
    },
};

use super::{Layout, padded_rank, quantized, tokens, transposed};
use crate::op::fused::{
    convolution::FusedConvolution,
    group_norm::GroupNormLast,
    integer::IntegerConvolution,
    layout::{permute, to_last, to_planar},
    pooling::{PoolLast, PoolMode},
    quantize::IntegerAdd,
};

/// Element-wise operators of any number of inputs that broadcast.
const ELEMENT_WISE: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Ceiling",
    "Clamp",
    "Convert",
    "Cos",
    "Cosh",
    "Divide",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "FakeQuantize",
    "Floor",
    "FloorMod",
    "Gelu",
    "Greater",
    "GreaterEqual",
    "HSigmoid",
    "HSwish",
    "HardSigmoid",
    "IsFinite",
    "IsInf",
    "IsNaN",
    "Less",
    "LessEqual",
    "Log",
    "LogicalAnd",
    "LogicalNot",
    "LogicalOr",
    "LogicalXor",
    "Maximum",
    "Minimum",
    "Mish",
    "Mod",
    "Multiply",
    "Negative",
    "NotEqual",
    "Power",
    "ReLU",
    "Round",
    "Select",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "SoftPlus",
    "SoftSign",
    "Sqrt",
    "SquaredDifference",
    "Subtract",
    "Swish",
    "Tan",
    "Tanh",
];

/// Inputs beyond this many channels are turned once rather than read planar by a convolution.
pub(super) const PLANAR_CHANNELS: usize = 8;

/// Adds the node channels-last; false when it must stay plain.
pub(super) fn apply(layout: &mut Layout<'_>, id: NodeId) -> Result<bool> {
    let node = layout.old.node(id);
    let op = node.op();
    if let Some(conv) = op.downcast::<Convolution>() {
        let fused = FusedConvolution {
            strides: conv.strides.clone(),
            dilations: conv.dilations.clone(),
            pads_begin: conv.pads_begin.clone(),
            pads_end: conv.pads_end.clone(),
            auto_pad: conv.auto_pad,
            ..FusedConvolution::default()
        };
        return convolution(layout, id, fused, false);
    }
    if let Some(conv) = op.downcast::<GroupConvolution>() {
        let fused = FusedConvolution {
            strides: conv.strides.clone(),
            dilations: conv.dilations.clone(),
            pads_begin: conv.pads_begin.clone(),
            pads_end: conv.pads_end.clone(),
            auto_pad: conv.auto_pad,
            ..FusedConvolution::default()
        };
        return convolution(layout, id, fused, true);
    }
    if op.is::<IntegerConvolution>() {
        return quantized::convolution(layout, id);
    }
    if op.is::<IntegerAdd>() {
        return quantized::add(layout, id);
    }
    if let Some(pool) = pool(op) {
        return pooling(layout, id, pool);
    }
    if op.is::<ConvolutionBackpropData>() || op.is::<GroupConvolutionBackpropData>() {
        return transposed::apply(layout, id);
    }
    let Some(&data) = node.inputs().first() else { return Ok(false) };
    let name = op.kind().name;
    if ELEMENT_WISE.contains(&name) {
        return element_wise(layout, id);
    }
    if name == "Concat" {
        return concat(layout, id);
    }
    if op.is::<Reshape>() {
        return tokens::apply(layout, id);
    }
    if !layout.is_last(data) {
        return Ok(false);
    }
    let Some(rank) = layout.shape(data).rank() else { return Ok(false) };
    match name {
        "Transpose" if op.is::<Transpose>() => transpose(layout, id, data, rank),
        "QuantizeLinear" | "DequantizeLinear" | "DynamicQuantizeLinear" => {
            quantized::element_wise(layout, id, data, rank)
        }
        "ShapeOf" => shape_of(layout, id, data, rank),
        "SoftMax" | "LogSoftmax" => turned_attribute(layout, id, data, rank),
        "Split" | "VariadicSplit" => turned_input(layout, id, data, rank, 1),
        "Interpolate" => turned_input(layout, id, data, rank, node.inputs().len() - 1),
        "MVN" => turned_input(layout, id, data, rank, 1),
        "GroupNormalization" => group_norm(layout, id, data, rank),
        "PReLU" => slopes(layout, id, data, rank),
        "Slice" if node.inputs().len() == 5 => turned_input(layout, id, data, rank, 4),
        "Pad" => pad(layout, id, data, rank),
        name if name.starts_with("Reduce") => reduce(layout, id, data, rank),
        _ => Ok(false),
    }
}

/// Where axis `axis` of a plain tensor is when it lies channels-last.
pub(super) fn turned(axis: i64, rank: usize) -> Option<i64> {
    let axis = normalize_axis(axis, rank).ok()?;
    to_last(rank).iter().position(|a| *a == axis).map(|a| a as i64)
}

fn convolution(
    layout: &mut Layout<'_>,
    id: NodeId,
    mut fused: FusedConvolution,
    grouped: bool,
) -> Result<bool> {
    let node = layout.old.node(id);
    let (x, w) = (node.inputs()[0], node.inputs()[1]);
    let Some(mut filters) = layout.old.constant(w).cloned() else { return Ok(false) };
    let rank = layout.shape(x).rank().filter(|r| (3..=5).contains(r));
    let float = |v: Value| layout.old.element_type(v) == ElementType::F32;
    if rank.is_none() || !float(x) || !float(w) || filters.is_empty() {
        return Ok(false);
    }
    if grouped {
        let shape = filters.shape().clone();
        fused.groups = shape[0] as i64;
        let mut dims = vec![shape[0] * shape[1]];
        dims.extend_from_slice(&shape[2..]);
        filters = filters.reshape(dims)?;
    }
    let channels = filters.shape()[1] * fused.groups as usize;
    fused.planar = !layout.has_last(x) && channels <= PLANAR_CHANNELS && fused.groups == 1;
    let x = if fused.planar { layout.plain(x)? } else { layout.last(x)? };
    let filters = layout.new.add_constant(filters, layout.old.node(w.node).name().to_owned());
    layout.give_last(id, Box::new(fused), &[x, filters])?;
    Ok(true)
}

fn pool(op: &dyn Op) -> Option<PoolLast> {
    macro_rules! common {
        ($p:expr, $mode:expr, $dilations:expr) => {
            PoolLast {
                mode: $mode,
                kernel: $p.kernel.clone(),
                strides: $p.strides.clone(),
                dilations: $dilations,
                pads_begin: $p.pads_begin.clone(),
                pads_end: $p.pads_end.clone(),
                rounding_type: $p.rounding_type,
                auto_pad: $p.auto_pad,
            }
        };
    }
    let average =
        |exclude: bool| if exclude { PoolMode::Average } else { PoolMode::AverageWithPad };
    if let Some(p) = op.downcast::<MaxPool>() {
        return Some(common!(p, PoolMode::Max, p.dilations.clone()));
    }
    if let Some(p) = op.downcast::<MaxPool8>() {
        return Some(common!(p, PoolMode::Max, p.dilations.clone()));
    }
    if let Some(p) = op.downcast::<MaxPool1>() {
        return Some(common!(p, PoolMode::Max, Vec::new()));
    }
    if let Some(p) = op.downcast::<AvgPool>() {
        return Some(common!(p, average(p.exclude_pad), p.dilations.clone()));
    }
    if let Some(p) = op.downcast::<AvgPool14>() {
        return Some(common!(p, average(p.exclude_pad), Vec::new()));
    }
    let p = op.downcast::<AvgPool1>()?;
    Some(common!(p, average(p.exclude_pad), Vec::new()))
}

fn pooling(layout: &mut Layout<'_>, id: NodeId, pool: PoolLast) -> Result<bool> {
    let node = layout.old.node(id);
    let x = node.inputs()[0];
    let indices_used = layout.old.uses(Value { node: id, output: 1 }).count() > 0
        || layout.old.is_output(Value { node: id, output: 1 });
    let rank = layout.shape(x).rank();
    let bytes = matches!(layout.old.element_type(x), ElementType::U8 | ElementType::I8);
    if indices_used
        || !rank.is_some_and(|r| (3..=5).contains(&r))
        || !(layout.old.element_type(x) == ElementType::F32 || bytes && pool.mode == PoolMode::Max)
    {
        return Ok(false);
    }
    let x = layout.last(x)?;
    layout.give_last(id, Box::new(pool), &[x])?;
    Ok(true)
}

fn element_wise(layout: &mut Layout<'_>, id: NodeId) -> Result<bool> {
    let node = layout.old.node(id);
    let output = node.shape(0);
    let Some(rank) = output.rank().filter(|r| *r > 2) else { return Ok(false) };
    if !node.inputs().iter().any(|v| layout.is_last(*v)) {
        return Ok(false);
    }
    for &v in node.inputs() {
        let single = layout.shape(v).to_shape().is_some_and(|s| s.elements() == 1);
        let same_rank = layout.shape(v).rank() == Some(rank);
        let constant = layout
            .old
            .constant(v)
            .is_some_and(|t| t.element_type().bits() >= 8 && t.rank() <= rank);
        if !(same_rank || constant || (single && layout.shape(v).rank().is_some_and(|r| r <= 1))) {
            return Ok(false);
        }
    }
    let inputs = node.inputs().to_vec();
    let inputs = inputs
        .into_iter()
        .map(|v| {
            if layout.shape(v).rank() == Some(rank) {
                return layout.last(v);
            }
            match layout.old.constant(v) {
                Some(tensor) if tensor.len() > 1 => {
                    let tensor = tensor.reshape(padded_rank(tensor.shape(), rank))?;
                    let tensor = permute(&tensor, &to_last(rank))?.to_contiguous();
                    Ok(layout.constant(tensor))
                }
                _ => layout.plain(v),
            }
        })
        .collect::<Result<Vec<_>>>()?;
    layout.give_last(id, layout.old.node(id).op().clone_box(), &inputs)?;
    Ok(true)
}

fn concat(layout: &mut Layout<'_>, id: NodeId) -> Result<bool> {
    let node = layout.old.node(id);
    let turned_inputs = node.inputs().iter().filter(|v| layout.is_last(**v)).count();
    let Some(rank) = node.shape(0).rank().filter(|r| *r > 2) else { return Ok(false) };
    if turned_inputs * 2 < node.inputs().len().max(1) || turned_inputs == 0 {
        return Ok(false);
    }
    let mut op = node.op().clone_box();
    let Some(axis) = axis_attribute(&mut *op, None).and_then(|a| turned(a, rank)) else {
        return Ok(false);
    };
    axis_attribute(&mut *op, Some(axis));
    let inputs = node.inputs().to_vec();
    let inputs = inputs.into_iter().map(|v| layout.last(v)).collect::<Result<Vec<_>>>()?;
    layout.give_last(id, op, &inputs)?;
    Ok(true)
}

fn transpose(layout: &mut Layout<'_>, id: NodeId, data: Value, rank: usize) -> Result<bool> {
    let node = layout.old.node(id);
    let Some(order) = layout.old.constant(node.inputs()[1]).and_then(|t| t.to_i64_vec().ok())
    else {
        return Ok(false);
    };
    let order: Vec<usize> = if order.is_empty() {
        (0..rank).rev().collect()
    } else {
        order.iter().filter_map(|a| usize::try_from(*a).ok()).collect()
    };
    if order.len() != rank {
        return Ok(false);
    }
    let back = to_planar(rank);
    let axes: Vec<usize> = order.iter().map(|a| back[*a]).collect();
    let last = layout.last(data)?;
    let value = layout.transpose(last, &axes)?;
    layout.forms.entry(id.into()).or_default().plain = Some(value);
    Ok(true)
}

fn shape_of(layout: &mut Layout<'_>, id: NodeId, data: Value, rank: usize) -> Result<bool> {
    let last = layout.last(data)?;
    let name = layout.old.node(id).name().to_owned();
    let shape = layout.new.add_node(layout.old.node(id).op().clone_box(), &[last], name)?;
    let order: Vec<i64> = to_planar(rank).iter().map(|a| *a as i64).collect();
    let order = layout.constant(Tensor::from_i64s(&order));
    let axis = layout.constant(Tensor::scalar(0i64));
    layout.give_plain(id, Box::new(Gather::default()), &[shape.into(), order, axis])?;
    Ok(true)
}

/// An operator with an `axis` attribute.
fn turned_attribute(layout: &mut Layout<'_>, id: NodeId, data: Value, rank: usize) -> Result<bool> {
    let mut op = layout.old.node(id).op().clone_box();
    let Some(axis) = axis_attribute(&mut *op, None).and_then(|a| turned(a, rank)) else {
        return Ok(false);
    };
    axis_attribute(&mut *op, Some(axis));
    let last = layout.last(data)?;
    layout.give_last(id, op, &[last])?;
    Ok(true)
}

/// An operator whose input `axes` is a constant list of axes.
fn turned_input(
    layout: &mut Layout<'_>,
    id: NodeId,
    data: Value,
    rank: usize,
    axes: usize,
) -> Result<bool> {
    let node = layout.old.node(id);
    let Some(list) =
        node.inputs().get(axes).filter(|_| axes > 0).and_then(|v| layout.old.constant(*v))
    else {
        return Ok(false);
    };
    let Some(turned_axes) = list
        .to_i64_vec()
        .ok()
        .and_then(|l| l.into_iter().map(|a| turned(a, rank)).collect::<Option<Vec<_>>>())
    else {
        return Ok(false);
    };
    let list = Tensor::from_vec(list.shape().clone(), turned_axes)?.cast(list.element_type())?;
    let op = node.op().clone_box();
    let inputs = node.inputs().to_vec();
    let mut new_inputs = vec![layout.last(data)?];
    for (i, v) in inputs.iter().enumerate().skip(1) {
        new_inputs.push(if i == axes {
            layout.constant(list.clone())
        } else {
            layout.plain(*v)?
        });
    }
    layout.give_last(id, op, &new_inputs)?;
    Ok(true)
}

fn pad(layout: &mut Layout<'_>, id: NodeId, data: Value, rank: usize) -> Result<bool> {
    let node = layout.old.node(id);
    let order = to_last(rank);
    let mut lists = Vec::new();
    for v in &node.inputs()[1..3] {
        let Some(pads) =
            layout.old.constant(*v).and_then(|t| t.to_i64_vec().ok()).filter(|p| p.len() == rank)
        else {
            return Ok(false);
        };
        lists.push(Tensor::from_i64s(&order.iter().map(|a| pads[*a]).collect::<Vec<_>>()));
    }
    let op = node.op().clone_box();
    let value = node.inputs().get(3).copied();
    let mut inputs = vec![layout.last(data)?];
    for list in lists {
        inputs.push(layout.constant(list));
    }
    if let Some(value) = value {
        inputs.push(layout.plain(value)?);
    }
    layout.give_last(id, op, &inputs)?;
    Ok(true)
}

fn group_norm(layout: &mut Layout<'_>, id: NodeId, data: Value, rank: usize) -> Result<bool> {
    let node = layout.old.node(id);
    let Some(GroupNormalization { num_groups, epsilon }) = node.op_as().cloned() else {
        return Ok(false);
    };
    if rank < 3 {
        return Ok(false);
    }
    let (scale, bias) = (node.inputs()[1], node.inputs()[2]);
    let inputs = [layout.last(data)?, layout.plain(scale)?, layout.plain(bias)?];
    layout.give_last(id, Box::new(GroupNormLast { num_groups, epsilon }), &inputs)?;
    Ok(true)
}

/// `PReLU`, whose slopes get the rank of the data, so that they broadcast as in numpy.
fn slopes(layout: &mut Layout<'_>, id: NodeId, data: Value, rank: usize) -> Result<bool> {
    let slope = layout.old.node(id).inputs()[1];
    let (Some(tensor), Some(extents)) =
        (layout.old.constant(slope).cloned(), layout.shape(data).to_shape())
    else {
        return Ok(false);
    };
    if tensor.element_type().bits() < 8 || rank < 3 {
        return Ok(false);
    }
    let shape = padded_rank(&slope_as_channels(tensor.shape(), &extents), rank);
    let turned = permute(&tensor.reshape(shape)?, &to_last(rank))?.to_contiguous();
    let inputs = [layout.last(data)?, layout.constant(turned)];
    layout.give_last(id, layout.old.node(id).op().clone_box(), &inputs)?;
    Ok(true)
}

fn reduce(layout: &mut Layout<'_>, id: NodeId, data: Value, rank: usize) -> Result<bool> {
    let node = layout.old.node(id);
    let mut op = node.op().clone_box();
    let Some(keep_dims) = keep_dims(&mut *op) else { return Ok(false) };
    let Some(axes) = node
        .inputs()
        .get(1)
        .and_then(|v| layout.old.constant(*v))
        .and_then(|t| t.to_i64_vec().ok())
    else {
        return Ok(false);
    };
    let Some(axes) = axes.into_iter().map(|a| turned(a, rank)).collect::<Option<Vec<_>>>() else {
        return Ok(false);
    };
    let channel = rank as i64 - 1;
    let spatial_left = (1..channel).any(|a| !axes.contains(&a));
    // Without the reduced axes, the rest is in the plain order only if channels or all spatial axes are gone.
    if !keep_dims && spatial_left && !axes.contains(&channel) {
        return Ok(false);
    }
    let last = layout.last(data)?;
    let axes = layout.constant(Tensor::from_i64s(&axes));
    if keep_dims {
        layout.give_last(id, op, &[last, axes])?;
    } else {
        layout.give_plain(id, op, &[last, axes])?;
    }
    Ok(true)
}

struct AxisAttribute {
    set: Option<i64>,
    found: Option<i64>,
}

impl AttributeVisitor for AxisAttribute {
    fn visit(&mut self, name: &'static str, attribute: Attribute<'_>) -> OpResult<()> {
        if let (true, Attribute::I64(v)) = (name == "axis", attribute) {
            self.found = Some(*v);
            if let Some(new) = self.set {
                *v = new;
            }
        }
        Ok(())
    }
}

/// The `axis` attribute of an operator, replaced when `set` is given.
pub(super) fn axis_attribute(op: &mut dyn Op, set: Option<i64>) -> Option<i64> {
    let mut visitor = AxisAttribute { set, found: None };
    op.visit_attributes(&mut visitor).ok()?;
    visitor.found
}

struct KeepDims(Option<bool>);

impl AttributeVisitor for KeepDims {
    fn visit(&mut self, name: &'static str, attribute: Attribute<'_>) -> OpResult<()> {
        if let (true, Attribute::Bool(v)) = (name == "keep_dims", attribute) {
            self.0 = Some(*v);
        }
        Ok(())
    }
}

fn keep_dims(op: &mut dyn Op) -> Option<bool> {
    let mut visitor = KeepDims(None);
    op.visit_attributes(&mut visitor).ok()?;
    visitor.0
}
