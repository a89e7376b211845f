//! Tensors made of little: ranges, identity matrices, one-hot vectors, masks, positions of elements.

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType,
    movement::{FILL, checked_len, gather_axes, take_blocks},
    normalize_axis, present,
    reshape::{Extent, extents, target_shape, usizes},
    topk::ascending,
};
use crate::{
    choice, dispatch_numeric,
    tensor::{Dimension, Element, ElementType, PartialShape, Tensor, TensorBuffer},
};

define_op! {
    /// `start, start + step, …` before `stop`.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/generation/range-4.html>
    pub struct Range("Range", 4) {
        /// Element type of the output.
        output_type: ElementType = ElementType::I64,
    }
}

/// One value that is exact for integers and floats.
#[derive(Clone, Copy, Debug)]
enum Number {
    Int(i128),
    Real(f64),
}

fn number(t: &Tensor) -> OpResult<Number> {
    op_ensure!(t.len() == 1, "a scalar is wanted, got shape {}", t.shape());
    if t.element_type().is_float() {
        return Ok(Number::Real(t.to_f64_vec()?[0]));
    }
    let value = t.to_i64_vec()?[0];
    Ok(Number::Int(if t.element_type() == ElementType::U64 { i128::from(value as u64) } else { i128::from(value) }))
}

impl Number {
    fn real(self) -> f64 {
        match self {
            Self::Int(v) => v as f64,
            Self::Real(v) => v,
        }
    }
}

fn range_len(start: Number, stop: Number, step: Number) -> OpResult<usize> {
    let len = if let (Number::Int(a), Number::Int(b), Number::Int(s)) = (start, stop, step) {
        op_ensure!(s != 0, "the step of a range is 0");
        let distance = if s > 0 { b - a } else { a - b };
        if distance <= 0 { 0 } else { (distance - 1) / s.abs() + 1 }
    } else {
        let len = ((stop.real() - start.real()) / step.real()).ceil();
        op_ensure!(len.is_finite(), "range from {start:?} to {stop:?} by {step:?} has no end");
        len.max(0.0) as i128
    };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    checked_len(&[len])
}

impl OpRules for Range {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=3)?;
        let all: Option<Vec<Number>> =
            (0..3).map(|i| cx.value(i).map(number)).collect::<Option<OpResult<_>>>().transpose()?;
        let len = match all.as_deref() {
            Some([start, stop, step]) => Dimension::fixed(range_len(*start, *stop, *step)?),
            _ => {
                let first = |i| Ok::<_, OpError>(match cx.element_type(i).is_integer() {
                    true => extents(cx, i)?.and_then(|e| e.first().copied()),
                    false => None,
                });
                match (first(0)?, first(1)?, first(2)?) {
                    (Some(Extent::Known(0)), Some(Extent::Partly(d)), Some(Extent::Known(1))) => d,
                    _ => Dimension::DYNAMIC,
                }
            }
        };
        let dims = match (all.as_deref(), len.value()) {
            (Some([Number::Int(start), _, Number::Int(step)]), Some(n)) if n <= 64 => (0..n)
                .map(|i| usize::try_from(start + i as i128 * step).ok().map(Dimension::fixed))
                .collect(),
            _ => None,
        };
        let dims = dims.filter(|_| self.output_type.is_integer());
        Ok(vec![OutputType::new(self.output_type, PartialShape::new(&[len])).with_dims(dims)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (start, stop, step) = (number(&inputs[0])?, number(&inputs[1])?, number(&inputs[2])?);
        let len = range_len(start, stop, step)?;
        let ty = self.output_type;
        let out = dispatch_numeric!(ty, T => {
            let values: Vec<T> = match (start, step) {
                (Number::Int(a), Number::Int(s)) => {
                    (0..len).map(|i| T::from_i64((a + i as i128 * s) as i64)).collect()
                }
                _ => (0..len).map(|i| T::from_f64(start.real() + i as f64 * step.real())).collect(),
            };
            Tensor::from_vec([len], values)
        }, else return Err(OpError::Unsupported(format!("element type {ty}"))))?;
        Ok(vec![out])
    }
}

define_op! {
    /// Ones on a diagonal; inputs rows, columns, diagonal, and extents of a batch.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/generation/eye-9.html>
    pub struct Eye("Eye", 9) {
        /// Element type of the output.
        output_type: ElementType = ElementType::F32,
    }
}

impl OpRules for Eye {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=4)?;
        let extent = |i| cx.dims(i).and_then(|d| d.first().copied()).unwrap_or(Dimension::DYNAMIC);
        let batch = if cx.len() > 3 { target_shape(cx, 3)? } else { PartialShape::new(&[]) };
        let shape = batch.dims().map_or_else(PartialShape::dynamic, |b| {
            b.iter().copied().chain([extent(0), extent(1)]).collect()
        });
        Ok(vec![OutputType::new(self.output_type, shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let mut shape = present(inputs, 3).map(|b| usizes(b, "extent")).transpose()?.unwrap_or_default();
        for input in &inputs[..2] {
            match usizes(input, "extent")?.as_slice() {
                [v] => shape.push(*v),
                other => return Err(OpError::Invalid(format!("rows or columns are {other:?}"))),
            }
        }
        let diagonal = inputs[2].to_i64_vec()?.first().copied().unwrap_or(0);
        let len = checked_len(&shape)?;
        let (rows, columns) = (shape[shape.len() - 2], shape[shape.len() - 1]);
        let one = Tensor::scalar(1u8).cast(self.output_type)?;
        let starts: Vec<usize> = (0..len)
            .map(|i| {
                let (row, column) = (i / columns % rows, i % columns);
                if (column as i64).checked_sub(row as i64) == Some(diagonal) { 0 } else { FILL }
            })
            .collect();
        Ok(vec![take_blocks(&one, &shape, 1, &starts)?])
    }
}

choice! {
    /// What negative indices of `OneHot` mean.
    pub enum NegativeIndices {
        /// No element.
        Ignore = "ignore_negative",
        /// They count from the end.
        Normalize = "normalize",
    }
}

define_op! {
    /// `on` where the position along a new axis equals the index, else `off`; inputs indices, depth, on, off.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/sequence/one-hot-1.html>
    pub struct OneHot1("OneHot", 1) {
        /// Place of the new axis.
        axis: i64 = -1,
    }
}

define_op! {
    /// `on` where the position along a new axis equals the index, else `off`; inputs indices, depth, on, off.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/sequence/one-hot-16.html>
    pub struct OneHot("OneHot", 16) {
        /// Place of the new axis.
        axis: i64 = -1,
        /// What negative indices mean.
        negative_indices_mode: NegativeIndices = NegativeIndices::Ignore,
    }
}

impl OpRules for OneHot {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(4..=4)?;
        let ty = cx.common_type([2, 3])?;
        let Some(mut dims) = cx.shape(0).dims().map(<[_]>::to_vec) else {
            return Ok(vec![OutputType::new(ty, PartialShape::dynamic())]);
        };
        let depth = cx.value(1).map(Tensor::to_i64_vec).transpose()?;
        let depth = match depth.as_deref() {
            Some([d]) => Dimension::fixed(usize::try_from(*d).map_err(|_| OpError::Invalid(format!("depth is {d}")))?),
            _ => cx.dims(1).and_then(|d| d.first().copied()).unwrap_or(Dimension::DYNAMIC),
        };
        dims.insert(normalize_axis(self.axis, dims.len() + 1)?, depth);
        Ok(vec![OutputType::new(ty, PartialShape::new(&dims))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let mut shape = inputs[0].shape().to_vec();
        let axis = normalize_axis(self.axis, shape.len() + 1)?;
        let depth = inputs[1].to_i64_vec()?;
        let depth = match depth.as_slice() {
            [d] => usize::try_from(*d).ok(),
            _ => None,
        }
        .ok_or_else(|| OpError::Invalid(format!("depth is {depth:?}")))?;
        let inner: usize = shape[axis..].iter().product();
        shape.insert(axis, depth);
        let len = checked_len(&shape)?;
        let normalize = self.negative_indices_mode == NegativeIndices::Normalize;
        let mut starts = vec![1usize; len];
        for (i, index) in inputs[0].to_i64_vec()?.into_iter().enumerate() {
            let index = if index < 0 && normalize { index.saturating_add(depth as i64) } else { index };
            if let Some(index) = usize::try_from(index).ok().filter(|i| *i < depth) {
                starts[((i / inner) * depth + index) * inner + i % inner] = 0;
            }
        }
        op_ensure!(
            inputs[2].len() == 1 && inputs[3].len() == 1,
            "on and off values have shapes {} and {}, expected scalars",
            inputs[2].shape(),
            inputs[3].shape()
        );
        let values = super::movement::join(&[&inputs[2].reshape([1])?, &inputs[3].reshape([1])?], 0)?;
        Ok(vec![take_blocks(&values, &shape, 1, &starts)?])
    }
}

impl OpRules for OneHot1 {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        OneHot { axis: self.axis, ..OneHot::default() }.infer(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        OneHot { axis: self.axis, ..OneHot::default() }.evaluate(inputs)
    }
}

define_op! {
    /// Coordinates of the elements that are not zero, one row per axis.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/condition/non-zero-3.html>
    pub struct NonZero("NonZero", 3) {
        /// Element type of the output.
        output_type: ElementType = ElementType::I64,
    }
}

impl OpRules for NonZero {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=1)?;
        let data = cx.shape(0);
        let rank = data.rank().map_or(Dimension::DYNAMIC, Dimension::fixed);
        let most = data.dims().map(|d| d.iter().copied().fold(Dimension::fixed(1), Dimension::mul));
        let count = Dimension::bounded(0, most.and_then(Dimension::max));
        Ok(vec![OutputType::new(self.output_type, PartialShape::new(&[rank, count]))])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let found = nonzero_positions(&inputs[0])?;
        let shape = inputs[0].shape();
        let mut rows = Vec::with_capacity(found.len().saturating_mul(shape.rank()));
        for (extent, stride) in shape.iter().zip(shape.strides()) {
            rows.extend(found.iter().map(|i| (i / stride % extent) as i64));
        }
        let out = Tensor::from_vec([shape.rank(), found.len()], rows)?;
        Ok(vec![out.cast(self.output_type)?])
    }
}

fn nonzero_positions(data: &Tensor) -> OpResult<Vec<usize>> {
    let data = data.to_contiguous();
    if let Ok(texts) = data.as_strings() {
        return Ok((0..texts.len()).filter(|i| !texts[*i].is_empty()).collect());
    }
    let data = if data.element_type() == ElementType::Boolean { data.reinterpret(ElementType::U8)? } else { data };
    dispatch_numeric!(data.element_type(), T => {
        let zero = T::from_i64(0);
        Ok(data.as_slice::<T>()?.iter().enumerate().filter(|(_, v)| **v != zero).map(|(i, _)| i).collect())
    }, else if let Some(parts) = complex_parts(&data)? {
        let parts = parts.to_f64_vec()?;
        Ok((0..data.len()).filter(|i| parts[2 * i] != 0.0 || parts[2 * i + 1] != 0.0).collect())
    } else {
        let values = data.to_f64_vec()?;
        Ok((0..values.len()).filter(|i| values[*i] != 0.0).collect())
    })
}

/// Real and imaginary parts of complex numbers, `[elements, 2]`.
fn complex_parts(data: &Tensor) -> OpResult<Option<Tensor>> {
    let part = match data.element_type() {
        ElementType::Complex64 => ElementType::F32,
        ElementType::Complex128 => ElementType::F64,
        _ => return Ok(None),
    };
    Ok(Some(Tensor::from_bytes(part, [data.len(), 2], data.to_contiguous().bytes())?))
}

define_op! {
    /// The upper or lower triangle of matrices, zeros elsewhere; inputs data and the diagonal, as ONNX's `Trilu`.
    /// <https://onnx.ai/onnx/operators/onnx__Trilu.html>
    pub struct Trilu("Trilu", 0) {
        /// Whether the upper triangle stays.
        upper: bool = true,
    }
}

impl OpRules for Trilu {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=2)?;
        cx.expect_rank(0, 2..=usize::MAX)?;
        Ok(vec![cx.same_as(0)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let shape = inputs[0].shape();
        op_ensure!(shape.rank() >= 2, "input has rank {}, expected 2 or more", shape.rank());
        let k = present(inputs, 1).map(Tensor::to_i64_vec).transpose()?;
        let k = k.and_then(|k| k.first().copied()).unwrap_or(0);
        let (rows, columns) = (shape[shape.rank() - 2], shape[shape.rank() - 1]);
        let starts: Vec<usize> = (0..inputs[0].len())
            .map(|i| {
                let edge = ((i / columns % rows) as i64).saturating_add(k);
                let column = (i % columns) as i64;
                let keep = if self.upper { column >= edge } else { column <= edge };
                if keep { i } else { FILL }
            })
            .collect();
        Ok(vec![take_blocks(&inputs[0], shape, 1, &starts)?])
    }
}

define_op! {
    /// Distinct elements, or slices along the axis that the second input gives; their first places, the place of each
    /// input among them, and how often they occur.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/unique-10.html>
    pub struct Unique("Unique", 10) {
        /// Whether the distinct ones are sorted; else in order of first appearance.
        sorted: bool = true,
        /// Element type of the two index outputs.
        index_element_type: ElementType = ElementType::I64,
        /// Element type of the counts.
        count_element_type: ElementType = ElementType::I64,
    }
}

impl OpRules for Unique {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=2)?;
        let data = cx.shape(0);
        let total = data.dims().map(|d| d.iter().copied().fold(Dimension::fixed(1), Dimension::mul));
        let total = total.unwrap_or(Dimension::DYNAMIC);
        let (all, shape) = if cx.is_present(1) {
            match (data.rank(), cx.i64s(1)?) {
                (Some(rank), Some(axis)) => {
                    let axis = normalize_axis(axis.first().copied().unwrap_or(0), rank)?;
                    let mut shape = data.clone();
                    if let Some(dims) = shape.dims_mut() {
                        dims[axis] = Dimension::bounded(dims[axis].min().min(1), dims[axis].max());
                    }
                    (data.dim(axis), shape)
                }
                (rank, _) => (
                    Dimension::DYNAMIC,
                    rank.map_or_else(PartialShape::dynamic, PartialShape::dynamic_rank),
                ),
            }
        } else {
            (total, PartialShape::new(&[Dimension::bounded(total.min().min(1), total.max())]))
        };
        let found = PartialShape::new(&[Dimension::bounded(all.min().min(1), all.max())]);
        Ok(vec![
            OutputType::new(cx.element_type(0), shape),
            OutputType::new(self.index_element_type, found.clone()),
            OutputType::new(self.index_element_type, PartialShape::new(&[all])),
            OutputType::new(self.count_element_type, found),
        ])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (data, axis) = match present(inputs, 1) {
            Some(axis) => {
                let axis = axis.to_i64_vec()?.first().copied().unwrap_or(0);
                (inputs[0].to_contiguous(), normalize_axis(axis, inputs[0].rank())?)
            }
            None => (inputs[0].reshape([inputs[0].len()])?, 0),
        };
        let n = data.shape()[axis];
        let classes = slice_classes(&data, axis)?;
        let mut first: Vec<usize> = Vec::new();
        let mut place_of_class = vec![usize::MAX; n];
        let mut counts: Vec<i64> = Vec::new();
        let mut visit = |class: usize, member: usize| {
            if place_of_class[class] == usize::MAX {
                place_of_class[class] = first.len();
                first.push(member);
                counts.push(0);
            }
            let place = place_of_class[class];
            counts[place] += 1;
            first[place] = first[place].min(member);
        };
        if self.sorted {
            let mut members: Vec<usize> = (0..n).collect();
            members.sort_by_key(|m| classes[*m]);
            members.into_iter().for_each(|m| visit(classes[m], m));
        } else {
            (0..n).for_each(|m| visit(classes[m], m));
        }
        let inverse: Vec<i64> = classes.iter().map(|c| place_of_class[*c] as i64).collect();
        let maps: Vec<Vec<usize>> = (0..data.rank())
            .map(|a| if a == axis { first.clone() } else { (0..data.shape()[a]).collect() })
            .collect();
        let unique = gather_axes(&data, &maps, None)?;
        let first: Vec<i64> = first.iter().map(|f| *f as i64).collect();
        Ok(vec![
            unique,
            Tensor::from_i64s(&first).cast(self.index_element_type)?,
            Tensor::from_i64s(&inverse).cast(self.index_element_type)?,
            Tensor::from_i64s(&counts).cast(self.count_element_type)?,
        ])
    }
}

/// A number per slice along `axis`: equal for equal slices, ordered as the slices are.
fn slice_classes(data: &Tensor, axis: usize) -> OpResult<Vec<usize>> {
    fn ranked(n: usize, compare: impl Fn(usize, usize) -> std::cmp::Ordering) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| compare(*a, *b));
        let mut classes = vec![0; n];
        let mut class = 0;
        for pair in order.windows(2) {
            class += usize::from(compare(pair[0], pair[1]).is_ne());
            classes[pair[1]] = class;
        }
        classes
    }
    let shape = data.shape();
    let n = shape[axis];
    let outer: usize = shape[..axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    let place = |s: usize, j: usize| ((j / inner) * n + s) * inner + j % inner;
    let members = outer * inner;
    if let Ok(texts) = data.as_strings() {
        let key = |s: usize| (0..members).map(move |j| &texts[place(s, j)]);
        return Ok(ranked(n, |a, b| key(a).cmp(key(b))));
    }
    if let Some(parts) = complex_parts(data)? {
        // Real parts first, then imaginary ones: two numbers in place of one.
        let parts = parts.reshape([&shape[..], &[2]].concat())?;
        return slice_classes(&parts, axis);
    }
    let data = if data.element_type() == ElementType::Boolean { data.reinterpret(ElementType::U8)? } else { data.clone() };
    fn typed<T: Element>(data: &Tensor, n: usize, members: usize, place: impl Fn(usize, usize) -> usize) -> OpResult<Vec<usize>>
    where
        Vec<T>: TensorBuffer,
    {
        let values = data.as_slice::<T>()?;
        Ok(ranked(n, |a, b| {
            (0..members)
                .map(|j| ascending(values[place(a, j)], values[place(b, j)]))
                .find(|o| o.is_ne())
                .unwrap_or(std::cmp::Ordering::Equal)
        }))
    }
    let ty = data.element_type();
    dispatch_numeric!(ty, T => typed::<T>(&data, n, members, place), else {
        Err(OpError::Unsupported(format!("element type {ty}")))
    })
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[
    OpEntry::of::<Range>(),
    OpEntry::of::<Eye>(),
    OpEntry::of::<OneHot1>(),
    OpEntry::of::<OneHot>(),
    OpEntry::of::<NonZero>(),
    OpEntry::of::<Trilu>(),
    OpEntry::of::<Unique>(),
];
