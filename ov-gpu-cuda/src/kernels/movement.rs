//! Operators that arrange elements anew by strides: views where nothing moves, strided copies elsewhere.

use ov_core::op::{
    Op, OpAttributes, OpKind,
    concat::{Concat, Split, VariadicSplit},
    core::Identity,
    reshape::{Broadcast, Broadcast1, BroadcastMode, Reshape, Squeeze, Squeeze15, Tile, Unsqueeze},
    slice::{Slice, SlicedPart, StridedSlice},
    state::ReadState,
    transpose::{
        DepthMode, DepthToSpace, Reverse, ReverseMode, ShuffleChannels, SpaceToDepth, Transpose,
    },
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Reject, Selecting, Step,
    copy::Copy,
    element::moved_bytes,
    host::{axes_from_front, axis, ensure, from_front, integers, moving_choice, optional_integers},
    parts::{self, Part},
    walk::{broadcast_strides, count, dense_strides},
};

/// The family.
pub(super) const MOVEMENT: Kernel = Kernel { name: "movement", select, bind };

const VIEWS: &[OpKind] =
    &[Reshape::KIND, Squeeze::KIND, Squeeze15::KIND, Unsqueeze::KIND, Identity::KIND];

/// Binds one operator.
type Bind = fn(&Binding<'_>) -> Result<Bound, Reject>;

/// Operators that copy, which inputs they read on the host, and how they are bound.
const COPIES: &[(OpKind, &[usize], Bind)] = &[
    (Transpose::KIND, &[1], transpose),
    (Concat::KIND, &[], concat),
    (Split::KIND, &[1], split),
    (VariadicSplit::KIND, &[1, 2], split),
    (Slice::KIND, &[1, 2, 3, 4], slice),
    (StridedSlice::KIND, &[1, 2, 3], strided_slice),
    (Broadcast1::KIND, &[1, 2], broadcast),
    (Broadcast::KIND, &[1, 2], broadcast),
    (Tile::KIND, &[1], tile),
    (DepthToSpace::KIND, &[], depth_to_space),
    (SpaceToDepth::KIND, &[], space_to_depth),
    (ShuffleChannels::KIND, &[], shuffle_channels),
    (Reverse::KIND, &[1], reverse),
    (ReadState::KIND, &[], read_state),
];

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let kind = node.op.kind();
    if VIEWS.contains(&kind) {
        // The shape is the output's, whatever the second input is.
        let shape = (node.inputs.len() > 1).then_some(1);
        return Some(moving_choice(node, shape.as_slice()));
    }
    COPIES.iter().find(|(k, ..)| *k == kind).map(|(_, host, _)| moving_choice(node, host))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let kind = node.op.kind();
    match COPIES.iter().find(|(k, ..)| *k == kind) {
        Some((.., bind)) => bind(node),
        None => Ok(Bound::Alias(0)),
    }
}

/// The memory of what is read: the length of the flag chooses.
fn read_state(node: &Binding<'_>) -> Result<Bound, Reject> {
    Ok(Bound::Alias(ReadState::chosen(node.inputs[2].shape.elements())))
}

/// The attributes of an operator that a table names.
fn attributes<T: Op>(op: &dyn Op) -> Result<&T, Reject> {
    op.downcast().ok_or_else(|| format!("{} is another operator", op.kind()).into())
}

/// One copy from input 0 to output 0, or an alias when everything stays where it is.
fn single(node: &Binding<'_>, dims: &[usize], from: &[i64], offset: i64) -> Result<Bound, Reject> {
    let dense = dense_strides(dims);
    let len: usize = dims.iter().product();
    let in_place = dims.iter().zip(from).zip(&dense).all(|((d, f), t)| *d == 1 || f == t);
    if in_place && offset == 0 && len == node.inputs[0].shape.elements() {
        return Ok(Bound::Alias(0));
    }
    let copy = Copy {
        size: moved_bytes(node.outputs[0].element_type)?,
        dims: dims.to_vec(),
        from: from.to_vec(),
        to: dense,
        from_offset: offset,
        to_offset: 0,
    };
    let launches = copy.launch(Arg::Input(0), Arg::Output(0))?.into_iter().collect();
    Ok(Bound::Step(Step { launches, ..Step::default() }))
}

/// Input 0 seen as `dims`, its axes in the order `order`.
fn permuted(node: &Binding<'_>, dims: &[usize], order: &[usize]) -> Result<Bound, Reject> {
    let strides = dense_strides(dims);
    let pick = |axis: &usize| dims.get(*axis).zip(strides.get(*axis));
    let picked: Option<Vec<(&usize, &i64)>> = order.iter().map(pick).collect();
    let picked = picked.ok_or_else(|| Reject::from(format!("order {order:?} of {dims:?}")))?;
    let (dims, strides): (Vec<usize>, Vec<i64>) = picked.into_iter().map(|(d, s)| (*d, *s)).unzip();
    single(node, &dims, &strides, 0)
}

fn transpose(node: &Binding<'_>) -> Result<Bound, Reject> {
    let shape = node.inputs[0].shape;
    let order = integers(node, 1)?;
    let order: Vec<usize> = if order.is_empty() {
        (0..shape.rank()).rev().collect()
    } else {
        order.iter().map(|a| from_front(*a, shape.rank())).collect::<Result<_, _>>()?
    };
    permuted(node, shape, &order)
}

/// The part of `len` places along an axis of `whole` that starts at place `at`: rows, elements of a row, and from row to
/// row and the first one within the whole.
fn part(whole: &[usize], axis: usize, at: usize, len: usize) -> (usize, usize, usize, usize) {
    let inner: usize = whole[axis + 1..].iter().product();
    (whole[..axis].iter().product(), len * inner, whole[axis] * inner, at * inner)
}

fn concat(node: &Binding<'_>) -> Result<Bound, Reject> {
    let whole = node.outputs[0].shape;
    let axis = from_front(attributes::<Concat>(node.op)?.axis, whole.rank())?;
    if node.inputs.len() == 1 {
        return Ok(Bound::Alias(0));
    }
    count(whole.elements())?;
    let mut at = 0;
    let parts = node.inputs.iter().enumerate().map(|(index, input)| {
        let (rows, run, stride, first) = part(whole, axis, at, input.shape[axis]);
        at += input.shape[axis];
        let (from, to) = (Arg::Input(index), Arg::Output(0));
        Part { from, to, rows, run, strides: [run, stride], first: [0, first] }
    });
    let launches = parts::launches(moved_bytes(node.outputs[0].element_type)?, parts.collect())?;
    Ok(Bound::Step(Step { launches, ..Step::default() }))
}

fn split(node: &Binding<'_>) -> Result<Bound, Reject> {
    let whole = node.inputs[0].shape;
    let axis = axis(node, 1, 0, whole.rank())?;
    count(whole.elements())?;
    let mut at = 0;
    let parts = node.outputs.iter().enumerate().map(|(index, output)| {
        let (rows, run, stride, first) = part(whole, axis, at, output.shape[axis]);
        at += output.shape[axis];
        let (from, to) = (Arg::Input(0), Arg::Output(index));
        Part { from, to, rows, run, strides: [stride, run], first: [first, 0] }
    });
    let launches = parts::launches(moved_bytes(node.inputs[0].element_type)?, parts.collect())?;
    Ok(Bound::Step(Step { launches, ..Step::default() }))
}

fn sliced(node: &Binding<'_>, part: &SlicedPart) -> Result<Bound, Reject> {
    let strides: Vec<i64> = part.strides.iter().map(|s| *s as i64).collect();
    single(node, &part.shape, &strides, part.offset as i64)
}

fn slice(node: &Binding<'_>) -> Result<Bound, Reject> {
    let axes = optional_integers(node, 4)?;
    let (start, stop, step) = (integers(node, 1)?, integers(node, 2)?, integers(node, 3)?);
    let part = Slice::part(node.inputs[0].shape, &start, &stop, &step, axes.as_deref())
        .map_err(|e| Reject::from(e.to_string()))?;
    sliced(node, &part)
}

fn strided_slice(node: &Binding<'_>) -> Result<Bound, Reject> {
    let op = attributes::<StridedSlice>(node.op)?;
    let (begin, end, steps) = (integers(node, 1)?, integers(node, 2)?, optional_integers(node, 3)?);
    let part = op
        .part(node.inputs[0].shape, &begin, &end, steps.as_deref())
        .map_err(|e| Reject::from(e.to_string()))?;
    sliced(node, &part)
}

fn broadcast(node: &Binding<'_>) -> Result<Bound, Reject> {
    let mode = match (node.op.downcast::<Broadcast>(), node.op.downcast::<Broadcast1>()) {
        (Some(op), _) => op.mode,
        (_, Some(op)) => op.mode,
        _ => return Err("is another operator".into()),
    };
    let (from, to) = (node.inputs[0].shape, node.outputs[0].shape);
    let mapping = match mode {
        BroadcastMode::Explicit => optional_integers(node, 2)?,
        BroadcastMode::Numpy | BroadcastMode::Bidirectional => None,
    };
    let strides = match mapping {
        None => broadcast_strides(from, to)?,
        Some(mapping) => {
            ensure(mapping.len() == from.rank(), "takes one axis per axis of the data")?;
            let own = dense_strides(from);
            let mut strides = vec![0; to.rank()];
            for (place, axis) in mapping.iter().enumerate().take(from.rank()) {
                if from[place] != 1 {
                    let axis = from_front(*axis, to.rank())?;
                    ensure(to[axis] == from[place], "takes axes of the same extent")?;
                    strides[axis] = own[place];
                }
            }
            strides
        }
    };
    single(node, to, &strides, 0)
}

fn tile(node: &Binding<'_>) -> Result<Bound, Reject> {
    let (from, to) = (node.inputs[0].shape, node.outputs[0].shape);
    let own = dense_strides(from);
    let lead = to.rank() - from.rank().min(to.rank());
    let (mut dims, mut strides) = (Vec::new(), Vec::new());
    for (i, len) in to.iter().enumerate() {
        let (extent, stride) = i.checked_sub(lead).map_or((1, 0), |i| (from[i], own[i]));
        dims.extend([len.checked_div(extent).unwrap_or(0), extent]);
        strides.extend([0, stride]);
    }
    single(node, &dims, &strides, 0)
}

/// Extent of a block as a dimension.
fn block(size: i64) -> Result<usize, Reject> {
    usize::try_from(size).ok().filter(|b| *b > 0).ok_or_else(|| format!("block size {size}").into())
}

fn depth_to_space(node: &Binding<'_>) -> Result<Bound, Reject> {
    let op = attributes::<DepthToSpace>(node.op)?;
    let shape = node.inputs[0].shape;
    let (spatial, block) = (shape.rank() - 2, block(op.block_size)?);
    let depth = node.outputs[0].shape[1];
    // The channels are the depth and one place within the block per spatial axis.
    let (depth_axis, block_axis) =
        if op.mode == DepthMode::BlocksFirst { (spatial + 1, 1) } else { (1, 2) };
    let mut dims = vec![shape[0]];
    dims.extend(std::iter::repeat_n(block, spatial));
    dims.insert(depth_axis, depth);
    dims.extend(&shape[2..]);
    let mut order = vec![0, depth_axis];
    order.extend((0..spatial).flat_map(|i| [spatial + 2 + i, block_axis + i]));
    permuted(node, &dims, &order)
}

fn space_to_depth(node: &Binding<'_>) -> Result<Bound, Reject> {
    let op = attributes::<SpaceToDepth>(node.op)?;
    let shape = node.inputs[0].shape;
    let (spatial, block) = (shape.rank() - 2, block(op.block_size)?);
    let mut dims = vec![shape[0], shape[1]];
    dims.extend(shape[2..].iter().flat_map(|d| [d / block, block]));
    let inside = (0..spatial).map(|i| 3 + 2 * i);
    let mut order = vec![0];
    if op.mode == DepthMode::BlocksFirst {
        order.extend(inside);
        order.push(1);
    } else {
        order.push(1);
        order.extend(inside);
    }
    order.extend((0..spatial).map(|i| 2 + 2 * i));
    permuted(node, &dims, &order)
}

fn shuffle_channels(node: &Binding<'_>) -> Result<Bound, Reject> {
    let op = attributes::<ShuffleChannels>(node.op)?;
    let shape = node.inputs[0].shape;
    let axis = from_front(op.axis, shape.rank())?;
    let group = usize::try_from(op.group).ok().filter(|g| *g > 0 && shape[axis].is_multiple_of(*g));
    let group = group.ok_or_else(|| Reject::from(format!("{} groups of {shape}", op.group)))?;
    let (outer, inner) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
    permuted(node, &[outer, group, shape[axis] / group, inner], &[0, 2, 1, 3])
}

fn reverse(node: &Binding<'_>) -> Result<Bound, Reject> {
    let op = attributes::<Reverse>(node.op)?;
    let shape = node.inputs[0].shape;
    let values = integers(node, 1)?;
    let axes = match op.mode {
        ReverseMode::Index => axes_from_front(&values, shape.rank())?,
        ReverseMode::Mask => {
            (0..shape.rank().min(values.len())).filter(|i| values[*i] != 0).collect()
        }
    };
    let mut strides = dense_strides(shape);
    let mut offset = 0;
    for axis in axes {
        offset += (shape[axis] as i64 - 1).max(0) * strides[axis];
        strides[axis] = -strides[axis];
    }
    single(node, shape, &strides, offset)
}
