//! Parts of tensors by start, stop and step.

use smallvec::SmallVec;

use super::{
    InferContext, OpEntry, OpError, OpResult, OpRules, OutputType,
    movement::{signed_strides, strided_copy},
    normalize_axis, present,
};
use crate::tensor::{Dimension, PartialShape, Shape, Tensor};

define_op! {
    /// Elements `start, start + step, …` before `stop` along some axes; inputs data, start, stop, step, axes.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/slice-8.html>
    pub struct Slice("Slice", 8) {}
}

/// First index and number of elements of `start..stop` by `step` over `extent`, as numpy cuts.
fn cut_range(start: i64, stop: i64, step: i64, extent: usize) -> OpResult<(usize, usize)> {
    op_ensure!(step != 0, "a slice has step 0");
    let n = i64::try_from(extent).unwrap_or(i64::MAX);
    let from_end = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let (first, last) = (from_end(start).clamp(low, high), from_end(stop).clamp(low, high));
    let distance = if step > 0 { last - first } else { first - last };
    let count = if distance <= 0 { 0 } else { (distance - 1) as u64 / step.unsigned_abs() + 1 };
    Ok((first.max(0) as usize, count as usize))
}

/// A slice of a dimension that may not be known.
fn cut_dim(start: i64, stop: i64, step: i64, extent: Dimension) -> OpResult<Dimension> {
    if let Some(v) = extent.value() {
        return Ok(Dimension::fixed(cut_range(start, stop, step, v)?.1));
    }
    op_ensure!(step != 0, "a slice has step 0");
    let whole = step == 1 && start == 0 && stop >= i64::from(i32::MAX)
        || step == -1 && start >= i64::from(i32::MAX) && stop <= -i64::from(i32::MAX);
    if whole {
        return Ok(extent);
    }
    let at = |v: usize| cut_range(start, stop, step, v).map_or(0, |r| r.1);
    let constant = (start < 0) == (stop < 0) && step > 0;
    if constant && start < 0 {
        let most = cut_range(start, stop, step, usize::MAX >> 1)?.1;
        return Ok(Dimension::bounded(at(extent.min()).min(most), Some(most)));
    }
    let max = extent.max().map(at).or_else(|| constant.then(|| at(usize::MAX >> 1)));
    let (a, b) = (at(extent.min()), max);
    Ok(match b {
        Some(b) => Dimension::bounded(a.min(b), Some(a.max(b))),
        None => Dimension::bounded(0, None),
    })
}

type Bounds = SmallVec<[(usize, i64, i64, i64); 4]>;

/// Axis, start, stop and step of each slice.
fn bounds(rank: usize, start: &[i64], stop: &[i64], step: &[i64], axes: Option<&[i64]>) -> OpResult<Bounds> {
    let n = start.len();
    op_ensure!(
        stop.len() == n && step.len() == n && axes.is_none_or(|a| a.len() == n),
        "start, stop, step and axes of a slice have {n}, {}, {} and {:?} values",
        stop.len(),
        step.len(),
        axes.map(<[_]>::len)
    );
    let mut bounds = Bounds::new();
    for i in 0..n {
        let axis = normalize_axis(axes.map_or(i as i64, |a| a[i]), rank)?;
        op_ensure!(bounds.iter().all(|b| b.0 != axis), "axis {axis} is sliced twice");
        bounds.push((axis, start[i], stop[i], step[i]));
    }
    Ok(bounds)
}

impl OpRules for Slice {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(4..=5)?;
        let data = cx.shape(0);
        let Some(rank) = data.rank() else { return Ok(vec![cx.same_as(0)]) };
        let (start, stop, step) = (cx.i64s(1)?, cx.i64s(2)?, cx.i64s(3)?);
        let axes = if cx.is_present(4) { Some(cx.i64s(4)?) } else { None };
        let mut shape = data.clone();
        let mut value = None;
        if let (Some(axes), Some(dims)) = (axes.clone().map_or(Some(None), |a| a.map(Some)), shape.dims_mut()) {
            if let (Some(start), Some(stop), Some(step)) = (&start, &stop, &step) {
                let bounds = bounds(rank, start, stop, step, axes.as_deref())?;
                for (axis, start, stop, step) in &bounds {
                    dims[*axis] = cut_dim(*start, *stop, *step, dims[*axis])?;
                }
                if let (Some(whole), [(_, start, stop, step)]) = (cx.dims(0), bounds.as_slice()) {
                    let (first, count) = cut_range(*start, *stop, *step, whole.len())?;
                    let at = |i: usize| usize::try_from(first as i64 + i as i64 * step).ok();
                    value = (0..count).map(|i| whole.get(at(i)?).copied()).collect();
                }
            } else {
                let count = [1, 2, 3].iter().find_map(|i| cx.shape(*i).dim(0).value());
                let touched: Vec<usize> = match &axes {
                    Some(axes) => axes.iter().map(|a| normalize_axis(*a, rank)).collect::<OpResult<_>>()?,
                    None => (0..count.unwrap_or(rank).min(rank)).collect(),
                };
                for axis in touched {
                    dims[axis] = Dimension::bounded(0, dims[axis].max());
                }
            }
        } else {
            shape = PartialShape::dynamic_rank(rank);
        }
        Ok(vec![OutputType::new(cx.element_type(0), shape).with_dims(value)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let axes = present(inputs, 4).map(Tensor::to_i64_vec).transpose()?;
        let part = Self::part(
            inputs[0].shape(),
            &inputs[1].to_i64_vec()?,
            &inputs[2].to_i64_vec()?,
            &inputs[3].to_i64_vec()?,
            axes.as_deref(),
        )?;
        part.copied(&inputs[0])
    }
}

/// The part of a dense row-major tensor that a slice takes: element `i` is element `offset + Σ i[a] strides[a]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicedPart {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Strides in elements of the tensor; negative ones run backwards.
    pub strides: Vec<isize>,
    /// Its first element.
    pub offset: usize,
}

impl SlicedPart {
    fn copied(&self, data: &Tensor) -> OpResult<Vec<Tensor>> {
        Ok(vec![strided_copy(data, &self.shape, self.offset, &self.strides)?])
    }
}

impl Slice {
    /// What the operator takes of a tensor of `shape` for these values of its inputs.
    ///
    /// # Errors
    /// When the values do not suit the shape.
    pub fn part(
        shape: &Shape,
        start: &[i64],
        stop: &[i64],
        step: &[i64],
        axes: Option<&[i64]>,
    ) -> OpResult<SlicedPart> {
        let mut part =
            SlicedPart { shape: shape.to_vec(), strides: signed_strides(shape).to_vec(), offset: 0 };
        for (axis, start, stop, step) in bounds(shape.rank(), start, stop, step, axes)? {
            let (first, count) = cut_range(start, stop, step, shape[axis])?;
            part.shape[axis] = count;
            part.offset += if count > 0 { first * part.strides[axis].unsigned_abs() } else { 0 };
            part.strides[axis] = if count > 1 { part.strides[axis] * step as isize } else { 0 };
        }
        Ok(part)
    }
}

define_op! {
    /// Slices with masks: inputs data, begin, end, and strides. Masks have one value per element of `begin`.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/movement/strided-slice-1.html>
    pub struct StridedSlice("StridedSlice", 1) {
        /// Where 1, `begin` is ignored and the slice starts at the end it runs from.
        begin_mask: Vec<i64> = Vec::new(),
        /// Where 1, `end` is ignored and the slice runs to the other end.
        end_mask: Vec<i64> = Vec::new(),
        /// Where 1, an axis of extent 1 is inserted.
        new_axis_mask: Vec<i64> = Vec::new(),
        /// Where 1, the axis is dropped and `begin` is the index taken.
        shrink_axis_mask: Vec<i64> = Vec::new(),
        /// Where 1, the axes that the others leave are taken whole.
        ellipsis_mask: Vec<i64> = Vec::new(),
    }
}

enum Part {
    New,
    Take(i64),
    Range(i64, i64, i64),
    Whole,
}

impl StridedSlice {
    fn parts(&self, rank: usize, begin: &[i64], end: &[i64], strides: Option<&[i64]>) -> OpResult<Vec<Part>> {
        let set = |mask: &[i64], i: usize| mask.get(i).is_some_and(|v| *v != 0);
        let n = begin.len();
        op_ensure!(
            end.len() == n && strides.is_none_or(|s| s.len() == n),
            "begin, end and strides have {n}, {} and {:?} values",
            end.len(),
            strides.map(<[_]>::len)
        );
        let consumed = (0..n)
            .filter(|i| !set(&self.ellipsis_mask, *i) && !set(&self.new_axis_mask, *i))
            .count();
        let rest = rank.checked_sub(consumed).ok_or_else(|| {
            OpError::Invalid(format!("{consumed} axes are sliced, the input has {rank}"))
        })?;
        let mut parts = Vec::new();
        let mut ellipsis = false;
        for i in 0..n {
            let step = strides.map_or(1, |s| s[i]);
            if set(&self.ellipsis_mask, i) {
                op_ensure!(!ellipsis, "two ellipses in one slice");
                ellipsis = true;
                parts.extend((0..rest).map(|_| Part::Whole));
            } else if set(&self.new_axis_mask, i) {
                parts.push(Part::New);
            } else if set(&self.shrink_axis_mask, i) {
                parts.push(Part::Take(begin[i]));
            } else {
                op_ensure!(step != 0, "stride {i} is 0");
                let (first, last) = if step > 0 { (0, i64::MAX) } else { (i64::MAX, i64::MIN) };
                parts.push(Part::Range(
                    if set(&self.begin_mask, i) { first } else { begin[i] },
                    if set(&self.end_mask, i) { last } else { end[i] },
                    step,
                ));
            }
        }
        if !ellipsis {
            parts.extend((0..rest).map(|_| Part::Whole));
        }
        Ok(parts)
    }
}

impl OpRules for StridedSlice {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(3..=4)?;
        let data = cx.shape(0);
        let ty = cx.element_type(0);
        let strides = if cx.is_present(3) { Some(cx.i64s(3)?) } else { None };
        let strides = strides.map_or(Some(None), |s| s.map(Some));
        let (Some(dims), Some(begin), Some(end), Some(strides)) =
            (data.dims(), cx.i64s(1)?, cx.i64s(2)?, strides)
        else {
            let masked = |m: &[i64]| m.iter().any(|v| *v != 0);
            let keeps_rank = !masked(&self.new_axis_mask) && !masked(&self.shrink_axis_mask);
            let shape = data.rank().filter(|_| keeps_rank);
            let shape = shape.map_or_else(PartialShape::dynamic, PartialShape::dynamic_rank);
            return Ok(vec![OutputType::new(ty, shape)]);
        };
        let mut rest = dims.iter().copied();
        let mut out = Vec::new();
        let parts = self.parts(dims.len(), &begin, &end, strides.as_deref())?;
        for part in &parts {
            if let Part::New = part {
                out.push(Dimension::fixed(1));
                continue;
            }
            let dim = rest.next().unwrap_or(Dimension::DYNAMIC);
            match *part {
                Part::Take(i) => {
                    if let Some(v) = dim.value() {
                        normalize_axis(i, v)?;
                    }
                }
                Part::Range(start, stop, step) => out.push(cut_dim(start, stop, step, dim)?),
                Part::Whole | Part::New => out.push(dim),
            }
        }
        let value = match (cx.dims(0), parts.as_slice()) {
            (Some(d), [Part::Take(i)]) => normalize_axis(*i, d.len()).ok().map(|i| vec![d[i]]),
            (Some(d), [Part::Range(start, stop, step)]) => {
                let (first, count) = cut_range(*start, *stop, *step, d.len())?;
                (0..count)
                    .map(|i| d.get(usize::try_from(first as i64 + i as i64 * step).ok()?).copied())
                    .collect()
            }
            _ => None,
        };
        Ok(vec![OutputType::new(ty, PartialShape::new(&out)).with_dims(value)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let steps = present(inputs, 3).map(Tensor::to_i64_vec).transpose()?;
        let (begin, end) = (inputs[1].to_i64_vec()?, inputs[2].to_i64_vec()?);
        self.part(inputs[0].shape(), &begin, &end, steps.as_deref())?.copied(&inputs[0])
    }
}

impl StridedSlice {
    /// What the operator takes of a tensor of `shape` for these values of its inputs.
    ///
    /// # Errors
    /// When the values do not suit the shape.
    pub fn part(
        &self,
        shape: &Shape,
        begin: &[i64],
        end: &[i64],
        strides: Option<&[i64]>,
    ) -> OpResult<SlicedPart> {
        let parts = self.parts(shape.rank(), begin, end, strides)?;
        let own = signed_strides(shape);
        let mut axes = shape.iter().zip(own);
        let mut taken = SlicedPart { shape: Vec::new(), strides: Vec::new(), offset: 0 };
        let mut push = |extent, stride| {
            taken.shape.push(extent);
            taken.strides.push(stride);
        };
        let mut offset = 0;
        for part in parts {
            if let Part::New = part {
                push(1, 0);
                continue;
            }
            let (extent, stride) = axes.next().unwrap_or((&1, 0));
            match part {
                Part::Take(i) => offset += normalize_axis(i, *extent)? * stride.unsigned_abs(),
                Part::Range(start, stop, step) => {
                    let (first, count) = cut_range(start, stop, step, *extent)?;
                    offset += if count > 0 { first * stride.unsigned_abs() } else { 0 };
                    push(count, if count > 1 { stride * step as isize } else { 0 });
                }
                Part::Whole | Part::New => push(*extent, stride),
            }
        }
        taken.offset = offset;
        Ok(taken)
    }
}

/// Operators of this family.
pub const OPS: &[OpEntry] = &[OpEntry::of::<Slice>(), OpEntry::of::<StridedSlice>()];

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(len: i32, start: i64, stop: i64, step: i64) -> OpResult<Vec<i64>> {
        let x = Tensor::from_vec([len as usize], (0..len).collect::<Vec<i32>>())?;
        let one = |v: i64| Tensor::from_i64s(&[v]);
        Ok(Slice {}.evaluate(&[x, one(start), one(stop), one(step)])?[0].to_i64_vec()?)
    }

    #[test]
    fn slices_cut_as_numpy_does() {
        for (len, start, stop, step, expected) in [
            (5, 1, 4, 1, &[1i64, 2, 3][..]),
            (5, 0, i64::MAX, 2, &[0, 2, 4]),
            (5, -2, i64::MAX, 1, &[3, 4]),
            (5, -1, i64::MIN, -2, &[4, 2, 0]),
            (5, i64::MAX, -4, -1, &[4, 3, 2]),
            (5, 3, 1, 1, &[]),
            (5, i64::MIN, i64::MAX, i64::MAX, &[0]),
            (5, 4, 0, i64::MIN, &[4]),
            (0, 0, 5, 1, &[]),
            (0, -1, i64::MIN, -1, &[]),
        ] {
            assert_eq!(slice(len, start, stop, step).expect("valid"), expected, "{start} {stop} {step}");
        }
        assert!(slice(5, 0, 1, 0).is_err());
    }

    #[test]
    fn bounds_hold_for_unknown_extents() {
        for (start, stop, step) in
            [(0, 3, 1), (1, i64::MAX, 1), (-3, -1, 1), (-1, i64::MIN, -1), (2, -2, 1), (-4, 3, 1), (5, 1, -2)]
        {
            let dim = cut_dim(start, stop, step, Dimension::DYNAMIC).expect("valid");
            for extent in 0..9 {
                let count = cut_range(start, stop, step, extent).expect("valid").1;
                assert!(dim.admits(count), "{start}:{stop}:{step} of {extent} is {count}, not in {dim}");
            }
        }
    }

    #[test]
    fn masks_insert_drop_and_open_axes() {
        let x = Tensor::from_vec([2, 3, 2], (0..12).collect::<Vec<i32>>()).expect("fits");
        let op = StridedSlice {
            begin_mask: vec![1],
            end_mask: vec![1, 0, 0, 1],
            new_axis_mask: vec![0, 0, 1],
            shrink_axis_mask: vec![0, 1],
            ..StridedSlice::default()
        };
        let inputs = [
            x.clone(),
            Tensor::from_i64s(&[9, -1, 0, 1]),
            Tensor::from_i64s(&[0, 0, 0, 0]),
            Tensor::from_i64s(&[1, 1, 1, 1]),
        ];
        let y = op.evaluate(&inputs).expect("valid");
        assert_eq!(y[0].shape().to_vec(), [2, 1, 1]);
        assert_eq!(y[0].to_i64_vec().expect("i32"), [5, 11]);
        let ellipsis = StridedSlice {
            ellipsis_mask: vec![1],
            shrink_axis_mask: vec![0, 1],
            ..StridedSlice::default()
        };
        let inputs = [x, Tensor::from_i64s(&[0, 1]), Tensor::from_i64s(&[0, 0])];
        let y = ellipsis.evaluate(&inputs).expect("valid");
        assert_eq!(y[0].to_i64_vec().expect("i32"), [1, 3, 5, 7, 9, 11]);
    }
}
