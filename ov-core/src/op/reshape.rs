//! Operators that change the shape but not the order of elements, give the shape, or repeat elements.

use smallvec::SmallVec;

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType, broadcast_shapes,
    movement::{checked_len, signed_strides, strided_copy},
    normalize_axis, present,
};
use crate::{
    choice,
    tensor::{Dimension, ElementType, PartialShape, Shape, Tensor},
};

/// An integer that is known, or the dimension that stands for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Extent {
    Known(i64),
    Partly(Dimension),
}

impl Extent {
    fn dimension(self) -> Dimension {
        match self {
            Self::Known(v) => usize::try_from(v).map_or(Dimension::DYNAMIC, Dimension::fixed),
            Self::Partly(d) => d,
        }
    }
}

/// The integers of input `index` as far as known.
pub(super) fn extents(cx: &InferContext<'_>, index: usize) -> OpResult<Option<Vec<Extent>>> {
    if let Some(values) = cx.i64s(index)? {
        return Ok(Some(values.into_iter().map(Extent::Known).collect()));
    }
    let as_extent = |d: &Dimension| match d.value().map(i64::try_from) {
        Some(Ok(v)) => Extent::Known(v),
        _ => Extent::Partly(*d),
    };
    Ok(cx.inputs.get(index).and_then(|i| i.dims).map(|dims| dims.iter().map(as_extent).collect()))
}

/// The shape that a shape input asks for, of unknown extents when only its length is known.
pub(super) fn target_shape(cx: &InferContext<'_>, index: usize) -> OpResult<PartialShape> {
    Ok(match extents(cx, index)? {
        Some(e) => {
            if let Some(Extent::Known(v)) = e.iter().find(|e| matches!(e, Extent::Known(v) if *v < 0)) {
                return Err(OpError::Input {
                    index,
                    got: format!("extent {v}"),
                    expected: "no negative extents".to_owned(),
                });
            }
            e.into_iter().map(Extent::dimension).collect()
        }
        None => match cx.shape(index).dims() {
            Some([n]) => n.value().filter(|n| *n <= 64).map_or_else(PartialShape::dynamic, PartialShape::dynamic_rank),
            Some([]) => PartialShape::dynamic_rank(1),
            _ => PartialShape::dynamic(),
        },
    })
}

/// The partly known value of the data input, when output `shape` is of rank 0 or 1.
pub(super) fn carried(cx: &InferContext<'_>, shape: &PartialShape) -> Option<Vec<Dimension>> {
    if shape.rank().is_some_and(|r| r <= 1) { cx.dims(0) } else { None }
}

pub(super) fn usizes(tensor: &Tensor, what: &str) -> OpResult<Vec<usize>> {
    tensor
        .to_i64_vec()?
        .into_iter()
        .map(|v| {
            usize::try_from(v).map_err(|_| OpError::Invalid(format!("{what} {v} is negative")))
        })
        .collect()
}

define_op! {
    /// The same elements in another shape; −1 stands for what is left, 0 for the input's extent with `special_zero`.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/shape/reshape-1.html>
    pub struct Reshape("Reshape", 1) {
        /// Whether 0 takes the extent of the input at that place.
        special_zero: bool = false,
        /// Whether −1 beside an extent of 0 is an error, as ONNX has it, and not 0.
        strict: bool = false,
    }
}

impl Reshape {
    fn resolve(&self, data: &[usize], target: &[i64]) -> OpResult<Shape> {
        let fail = || OpError::Invalid(format!("cannot reshape {data:?} into {target:?}"));
        let mut shape = SmallVec::<[usize; 6]>::new();
        let mut open = None;
        for (i, t) in target.iter().enumerate() {
            shape.push(match *t {
                0 if self.special_zero => *data.get(i).ok_or_else(fail)?,
                -1 if open.is_none() => {
                    open = Some(i);
                    1
                }
                t => usize::try_from(t).map_err(|_| fail())?,
            });
        }
        let total = Shape::new(data).checked_len().ok_or_else(fail)?;
        let known = Shape::new(&shape).checked_len().ok_or_else(fail)?;
        if let Some(open) = open {
            shape[open] = match known {
                0 if total == 0 && !self.strict => 0,
                0 if total == 0 => {
                    return Err(OpError::Invalid(format!(
                        "cannot reshape {data:?} into {target:?}: beside an extent of 0, -1 could be any extent"
                    )));
                }
                0 => return Err(fail()),
                _ => total / known,
            };
        }
        let shape = Shape::new(&shape);
        if shape.checked_len() != Some(total) {
            return Err(fail());
        }
        Ok(shape)
    }

    fn partial(&self, data: &PartialShape, target: &[Extent]) -> OpResult<PartialShape> {
        let all_known: Option<Vec<i64>> = target
            .iter()
            .map(|t| if let Extent::Known(v) = t { Some(*v) } else { None })
            .collect();
        if let (Some(data), Some(target)) = (data.to_shape(), &all_known) {
            return Ok(self.resolve(&data, target)?.into());
        }
        let mut left: Option<Vec<Option<Dimension>>> =
            data.dims().map(|d| d.iter().copied().map(Some).collect());
        let mut out: SmallVec<[Dimension; 6]> = SmallVec::new();
        let mut open = None;
        for (i, t) in target.iter().enumerate() {
            let dim = match *t {
                Extent::Known(0) if self.special_zero => {
                    let dim = data.dim(i);
                    if let Some(slot) = left.as_mut().and_then(|l| l.get_mut(i)) {
                        *slot = None;
                    }
                    if data.rank().is_some_and(|r| i >= r) {
                        return Err(OpError::Invalid(format!(
                            "place {i} of the new shape is 0, the input {data} has no such axis"
                        )));
                    }
                    out.push(dim);
                    continue;
                }
                Extent::Known(-1) if open.is_none() => {
                    open = Some(i);
                    Dimension::DYNAMIC
                }
                Extent::Known(v) => Dimension::fixed(usize::try_from(v).map_err(|_| {
                    OpError::Invalid(format!("place {i} of the new shape is {v}"))
                })?),
                Extent::Partly(d) => {
                    let slot = left
                        .as_mut()
                        .and_then(|l| l.iter_mut().find(|s| s.is_some_and(|s| s.same(d))));
                    if let Some(slot) = slot {
                        *slot = None;
                    } else if d.symbol().is_none() && open.is_none() {
                        open = Some(i);
                    } else {
                        left = None;
                    }
                    d
                }
            };
            out.push(dim);
        }
        let opens = target.iter().filter(|t| matches!(t, Extent::Partly(d) if d.symbol().is_none())).count()
            + usize::from(all_known.is_none() && target.contains(&Extent::Known(-1)));
        if let (Some(open), Some(left), true) = (open, left, opens <= 1) {
            let matched = |i: usize| {
                matches!(target[i], Extent::Known(0)) && self.special_zero
                    || matches!(target[i], Extent::Partly(d) if d.symbol().is_some())
            };
            let divisor = (0..out.len())
                .filter(|i| *i != open && !matched(*i))
                .try_fold(1usize, |a, i| a.checked_mul(out[i].value()?));
            let rest = left.into_iter().flatten().fold(Dimension::fixed(1), Dimension::mul);
            if let Some(divisor) = divisor.filter(|d| *d > 0) {
                out[open] = if divisor == 1 {
                    rest
                } else if let Some(rest) = rest.value() {
                    Dimension::fixed(rest / divisor)
                } else {
                    fold_open(data, target, self.special_zero, divisor)
                };
            }
        }
        Ok(PartialShape::new(&out))
    }
}

/// The open extent when the unmatched input dimensions are one unknown and known ones of the divisor's product.
fn fold_open(data: &PartialShape, target: &[Extent], special_zero: bool, divisor: usize) -> Dimension {
    let copied = |i: usize| special_zero && target.get(i) == Some(&Extent::Known(0));
    let mut unknown = None;
    let mut known = 1usize;
    for (_, d) in data.dims().unwrap_or_default().iter().enumerate().filter(|(i, _)| !copied(*i)) {
        if target.iter().any(|t| matches!(t, Extent::Partly(p) if p.same(*d))) && !d.is_static() {
            continue;
        }
        match d.value() {
            Some(v) => known = known.saturating_mul(v),
            None if unknown.is_none() => unknown = Some(*d),
            None => return Dimension::DYNAMIC,
        }
    }
    match unknown {
        Some(d) if known == divisor => d,
        Some(d) if known.is_multiple_of(divisor) => d.mul(Dimension::fixed(known / divisor)),
        _ => Dimension::DYNAMIC,
    }
}

impl OpRules for Reshape {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        let shape = match extents(cx, 1)? {
            Some(target) => self.partial(&cx.shape(0), &target)?,
            None => target_shape(cx, 1)?,
        };
        let dims = carried(cx, &shape);
        Ok(vec![OutputType::new(cx.element_type(0), shape).with_dims(dims)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = self.resolve(inputs[0].shape(), &inputs[1].to_i64_vec()?)?;
        Ok(vec![inputs[0].reshape(shape)?])
    }
}

fn squeezed(shape: &[usize], axes: Option<&[i64]>, skip: bool) -> OpResult<Vec<usize>> {
    let mut drop = vec![false; shape.len()];
    match axes {
        None | Some([]) => {
            for (d, s) in drop.iter_mut().zip(shape) {
                *d = *s == 1;
            }
        }
        Some(axes) => {
            for axis in axes {
                let axis = normalize_axis(*axis, shape.len())?;
                op_ensure!(skip || shape[axis] == 1, "axis {axis} of {shape:?} is not of extent 1");
                drop[axis] = shape[axis] == 1;
            }
        }
    }
    Ok(shape.iter().zip(drop).filter(|(_, d)| !d).map(|(s, _)| *s).collect())
}

fn infer_squeeze(cx: &InferContext<'_>, skip: bool) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(1..=2)?;
    let data = cx.shape(0);
    let axes = if cx.len() > 1 { cx.i64s(1)? } else { Some(Vec::new()) };
    let shape = match (data.dims(), axes) {
        (Some(dims), Some(axes)) if axes.is_empty() => {
            if dims.iter().any(|d| !d.is_static() && d.admits(1)) {
                PartialShape::dynamic()
            } else {
                dims.iter().copied().filter(|d| d.value() != Some(1)).collect()
            }
        }
        (Some(dims), Some(axes)) => {
            let mut dropped = vec![false; dims.len()];
            let mut unsure = false;
            for axis in axes {
                let axis = normalize_axis(axis, dims.len())?;
                if dims[axis].admits(1) {
                    dropped[axis] = true;
                    unsure |= skip && !dims[axis].is_static();
                } else {
                    op_ensure!(skip, "axis {axis} of {data} is not of extent 1");
                }
            }
            if unsure {
                PartialShape::dynamic()
            } else {
                dims.iter().zip(dropped).filter(|(_, d)| !d).map(|(d, _)| *d).collect()
            }
        }
        (Some(dims), None) => match cx.shape(1).dims() {
            Some([n]) if !skip => n
                .value()
                .and_then(|n| dims.len().checked_sub(n))
                .map_or_else(PartialShape::dynamic, PartialShape::dynamic_rank),
            _ => PartialShape::dynamic(),
        },
        _ => PartialShape::dynamic(),
    };
    let dims = carried(cx, &shape);
    Ok(vec![OutputType::new(cx.element_type(0), shape).with_dims(dims)])
}

fn evaluate_squeeze(inputs: &[Tensor], skip: bool) -> OpResult<Vec<Tensor>> {
    let axes = present(inputs, 1).map(Tensor::to_i64_vec).transpose()?;
    let shape = squeezed(inputs[0].shape(), axes.as_deref(), skip)?;
    Ok(vec![inputs[0].reshape(shape)?])
}

define_op! {
    /// Drops axes of extent 1: those given, or all.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/shape/squeeze-1.html>
    pub struct Squeeze("Squeeze", 1) {}
}

impl OpRules for Squeeze {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_squeeze(cx, false)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        evaluate_squeeze(inputs, false)
    }
}

define_op! {
    /// Drops axes of extent 1; others are an error, or stay with `allow_axis_skip`.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/shape/squeeze-15.html>
    pub struct Squeeze15("Squeeze", 15) {
        /// Whether given axes of another extent stay.
        allow_axis_skip: bool = false,
    }
}

impl OpRules for Squeeze15 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_squeeze(cx, self.allow_axis_skip)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        evaluate_squeeze(inputs, self.allow_axis_skip)
    }
}

define_op! {
    /// Inserts axes of extent 1 at the given places of the output.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/shape/unsqueeze-1.html>
    pub struct Unsqueeze("Unsqueeze", 1) {}
}

fn unsqueezed<T: Copy>(dims: &[T], axes: &[i64], one: T) -> OpResult<Vec<T>> {
    let rank = dims.len() + axes.len();
    op_ensure!(rank <= 64, "rank {rank} is more than 64");
    let mut inserted = vec![false; rank];
    for axis in axes {
        let axis = normalize_axis(*axis, rank)?;
        op_ensure!(!inserted[axis], "axis {axis} is given twice");
        inserted[axis] = true;
    }
    let mut rest = dims.iter();
    Ok(inserted.iter().map(|i| if *i { one } else { rest.next().copied().unwrap_or(one) }).collect())
}

impl OpRules for Unsqueeze {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        let data = cx.shape(0);
        let shape = match (data.dims(), cx.i64s(1)?) {
            (Some(dims), Some(axes)) => {
                unsqueezed(dims, &axes, Dimension::fixed(1))?.into_iter().collect()
            }
            (Some(dims), None) => match cx.shape(1).to_shape() {
                Some(s) if s.elements() <= 64 => PartialShape::dynamic_rank(dims.len() + s.elements()),
                _ => PartialShape::dynamic(),
            },
            _ => PartialShape::dynamic(),
        };
        let dims = carried(cx, &shape);
        Ok(vec![OutputType::new(cx.element_type(0), shape).with_dims(dims)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = unsqueezed(inputs[0].shape(), &inputs[1].to_i64_vec()?, 1)?;
        Ok(vec![inputs[0].reshape(shape)?])
    }
}

fn infer_shape_of(cx: &InferContext<'_>, ty: ElementType) -> OpResult<Vec<OutputType>> {
    cx.expect_inputs(1..=1)?;
    let shape = cx.shape(0);
    let len = shape.rank().map_or(Dimension::DYNAMIC, Dimension::fixed);
    Ok(vec![OutputType::new(ty, PartialShape::new(&[len])).with_dims(shape.dims().map(<[_]>::to_vec))])
}

fn evaluate_shape_of(inputs: &[Tensor], ty: ElementType) -> OpResult<Vec<Tensor>> {
    let shape: Vec<i64> = inputs[0].shape().iter().map(|d| *d as i64).collect();
    Ok(vec![Tensor::from_i64s(&shape).cast(ty)?])
}

define_op! {
    /// The shape as `i64`.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/shape/shape-of-1.html>
    pub struct ShapeOf1("ShapeOf", 1) {}
}

impl OpRules for ShapeOf1 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_shape_of(cx, ElementType::I64)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        evaluate_shape_of(inputs, ElementType::I64)
    }
}

define_op! {
    /// The shape.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/shape/shape-of-3.html>
    pub struct ShapeOf("ShapeOf", 3) {
        /// `i64` or `i32`.
        output_type: ElementType = ElementType::I64,
    }
}

impl OpRules for ShapeOf {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        infer_shape_of(cx, self.output_type)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        evaluate_shape_of(inputs, self.output_type)
    }
}

choice! {
    /// How the shapes of a broadcast relate.
    pub enum BroadcastMode {
        /// The data broadcasts to the target shape.
        Numpy = "numpy",
        /// `axes_mapping` says which output axis each data axis becomes.
        Explicit = "explicit",
        /// Data and target shape broadcast to each other.
        Bidirectional = "bidirectional",
    }
}

define_op! {
    /// Repeats along axes of extent 1 up to a shape, numpy or explicit.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/broadcast-1.html>
    pub struct Broadcast1("Broadcast", 1) {
        /// How the shapes relate.
        mode: BroadcastMode = BroadcastMode::Numpy,
    }
}

define_op! {
    /// Repeats along axes of extent 1 up to a shape.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/broadcast-3.html>
    pub struct Broadcast("Broadcast", 3) {
        /// How the shapes relate.
        mode: BroadcastMode = BroadcastMode::Numpy,
    }
}

fn broadcast_strides(
    data: &Tensor,
    target: &[usize],
    mapping: Option<&[i64]>,
) -> OpResult<SmallVec<[isize; 8]>> {
    let fail =
        || OpError::Invalid(format!("shape {} does not broadcast to {target:?}", data.shape()));
    let own = signed_strides(data.shape());
    let mut strides: SmallVec<[isize; 8]> = SmallVec::from_elem(0, target.len());
    for (i, d) in data.shape().iter().enumerate() {
        let at = match mapping {
            Some(m) => normalize_axis(*m.get(i).ok_or_else(fail)?, target.len())?,
            None => (i + target.len()).checked_sub(data.rank()).ok_or_else(fail)?,
        };
        if *d == target[at] {
            strides[at] = own[i];
        } else if *d != 1 {
            return Err(fail());
        }
    }
    Ok(strides)
}

impl OpRules for Broadcast {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=3)?;
        let target = target_shape(cx, 1)?;
        let data = cx.shape(0);
        let shape = match self.mode {
            BroadcastMode::Bidirectional => broadcast_shapes(&data, &target)?,
            BroadcastMode::Explicit => target,
            BroadcastMode::Numpy => {
                if data.rank().is_some() && target.rank().is_some() {
                    broadcast_shapes(&data, &target)?;
                }
                target
            }
        };
        let dims = match (cx.dims(0), shape.dims()) {
            (Some(d), Some([n])) if d.len() == 1 => {
                n.value().filter(|n| *n <= 64).map(|n| vec![d[0]; n])
            }
            _ => None,
        };
        Ok(vec![OutputType::new(cx.element_type(0), shape).with_dims(dims)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let data = &inputs[0];
        let mut target = usizes(&inputs[1], "extent")?;
        let mapping = match self.mode {
            BroadcastMode::Explicit => present(inputs, 2).map(Tensor::to_i64_vec).transpose()?,
            BroadcastMode::Numpy => None,
            BroadcastMode::Bidirectional => {
                let both = broadcast_shapes(
                    &PartialShape::from(data.shape()),
                    &PartialShape::from(Shape::new(&target)),
                )?;
                target = both.to_shape().map(|s| s.to_vec()).unwrap_or_default();
                None
            }
        };
        let strides = broadcast_strides(data, &target, mapping.as_deref())?;
        Ok(vec![strided_copy(data, &target, 0, &strides)?])
    }
}

impl OpRules for Broadcast1 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        Broadcast { mode: self.mode }.infer(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        Broadcast { mode: self.mode }.evaluate(inputs)
    }
}

define_op! {
    /// Repeats the whole tensor along each axis.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/tile-1.html>
    pub struct Tile("Tile", 1) {}
}

impl OpRules for Tile {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=2)?;
        let (data, repeats) = (cx.shape(0), extents(cx, 1)?);
        let shape = match (data.dims(), repeats) {
            (Some(dims), Some(repeats)) => {
                let rank = dims.len().max(repeats.len());
                let one = Dimension::fixed(1);
                (0..rank)
                    .map(|i| {
                        let d = (i + dims.len()).checked_sub(rank).map_or(one, |i| dims[i]);
                        let r = (i + repeats.len())
                            .checked_sub(rank)
                            .map_or(one, |i| repeats[i].dimension());
                        d.mul(r)
                    })
                    .collect()
            }
            (Some(dims), None) => match cx.shape(1).dims() {
                Some([n]) if n.value().is_some_and(|n| n <= 64) => {
                    PartialShape::dynamic_rank(dims.len().max(n.min()))
                }
                _ => PartialShape::dynamic(),
            },
            _ => PartialShape::dynamic(),
        };
        let dims = match (cx.dims(0), &shape.rank(), cx.i64s(1)?) {
            (Some(d), Some(1), Some(r)) if r.len() == 1 && (0..=64).contains(&r[0]) => {
                Some(d.repeat(r[0] as usize)).filter(|d| d.len() <= 64)
            }
            _ => None,
        };
        Ok(vec![OutputType::new(cx.element_type(0), shape).with_dims(dims)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let repeats = usizes(&inputs[1], "repeat count")?;
        let data = &inputs[0];
        let rank = data.rank().max(repeats.len());
        let own = signed_strides(data.shape());
        let (mut split, mut strides, mut shape) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..rank {
            let (extent, stride) = (i + data.rank())
                .checked_sub(rank)
                .map_or((1, 0), |i| (data.shape()[i], own[i]));
            let times = (i + repeats.len()).checked_sub(rank).map_or(1, |i| repeats[i]);
            split.extend([times, extent]);
            strides.extend([0, stride]);
            shape.push(times.saturating_mul(extent));
        }
        checked_len(&shape)?;
        Ok(vec![strided_copy(data, &split, 0, &strides)?.reshape(shape)?])
    }
}


/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<Reshape>(),
    OpEntry::of::<Squeeze>(),
    OpEntry::of::<Squeeze15>(),
    OpEntry::of::<Unsqueeze>(),
    OpEntry::of::<ShapeOf1>(),
    OpEntry::of::<ShapeOf>(),
    OpEntry::of::<Broadcast1>(),
    OpEntry::of::<Broadcast>(),
    OpEntry::of::<Tile>(),
];

#[cfg(test)]
#[path = "reshape_tests.rs"]
mod tests;
