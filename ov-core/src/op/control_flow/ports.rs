//! Port maps of Loop and `TensorIterator`: which input of the operator feeds which parameter of the body, in what pieces.

use super::super::{OpError, OpResult};
use crate::tensor::{Dimension, ElementType, PartialShape, Shape, Tensor};

/// A non-negative index out of a port map.
pub(super) fn index(value: i64) -> OpResult<usize> {
    usize::try_from(value).map_err(|_| OpError::Invalid(format!("port map holds index {value}")))
}

/// Entry `at` of a list that a port map indexes.
pub(super) fn pick<T>(list: &[T], at: i64) -> OpResult<&T> {
    usize::try_from(at).ok().and_then(|i| list.get(i)).ok_or_else(|| {
        OpError::Invalid(format!("port map holds index {at}, there are {} values", list.len()))
    })
}

/// How an axis is cut into one piece per iteration: the range from `start` to `end`, both included (negative ones count
/// from the back), in pieces of `part_size`; a negative `stride` walks from `start` down. A `part_size` of 0 makes pieces
/// of one position without the axis, as ONNX cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Input of the operator.
    pub input: usize,
    /// Parameter of the body.
    pub parameter: usize,
    /// The axis that is cut.
    pub axis: i64,
    /// First position.
    pub start: i64,
    /// Last position.
    pub end: i64,
    /// Step from piece to piece.
    pub stride: i64,
    /// Extent of a piece, 0 to drop the axis.
    pub part_size: i64,
}

/// A value carried from iteration to iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergedPort {
    /// Input of the operator with the first value.
    pub input: usize,
    /// Parameter of the body that reads the value.
    pub parameter: usize,
    /// Output of the body with the next value.
    pub result: usize,
}

/// An output put together from what every iteration gives; `part_size` 0 adds the axis, as ONNX stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcatPort {
    /// Output of the operator.
    pub output: usize,
    /// Output of the body.
    pub result: usize,
    /// Axis along which pieces follow each other.
    pub axis: i64,
    /// Step from piece to piece; negative puts later pieces before earlier ones.
    pub stride: i64,
    /// Extent of a piece, 0 to add the axis.
    pub part_size: i64,
}

/// Every map of a Loop or `TensorIterator`, read from its lists of integers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoopPorts {
    /// Inputs cut into pieces.
    pub sliced: Vec<SlicePort>,
    /// Carried values.
    pub merged: Vec<MergedPort>,
    /// Inputs that every iteration sees whole: (input, parameter).
    pub invariant: Vec<(usize, usize)>,
    /// Outputs with the last iteration's value: (output, output of the body).
    pub last: Vec<(usize, usize)>,
    /// Outputs put together from all iterations.
    pub concat: Vec<ConcatPort>,
}

impl LoopPorts {
    /// Reads the lists; each entry takes as many integers as the attribute's documentation says.
    pub(super) fn read(
        sliced: &[i64],
        merged: &[i64],
        invariant: &[i64],
        body_outputs: &[i64],
        concat: &[i64],
    ) -> OpResult<Self> {
        let whole = |name: &'static str, list: &[i64], n: usize| {
            if list.len().is_multiple_of(n) {
                return Ok(());
            }
            Err(OpError::Attribute {
                name,
                got: format!("{} integers", list.len()),
                expected: format!("{n} integers per entry"),
            })
        };
        whole("sliced_inputs", sliced, 7)?;
        whole("merged_inputs", merged, 3)?;
        whole("invariant_inputs", invariant, 2)?;
        whole("body_outputs", body_outputs, 2)?;
        whole("concat_outputs", concat, 7)?;
        let ports = Self {
            sliced: sliced
                .chunks_exact(7)
                .map(|p| {
                    Ok(SlicePort {
                        input: index(p[0])?,
                        parameter: index(p[1])?,
                        axis: p[2],
                        start: p[3],
                        end: p[4],
                        stride: p[5],
                        part_size: p[6],
                    })
                })
                .collect::<OpResult<_>>()?,
            merged: merged
                .chunks_exact(3)
                .map(|p| {
                    Ok(MergedPort { input: index(p[0])?, parameter: index(p[1])?, result: index(p[2])? })
                })
                .collect::<OpResult<_>>()?,
            invariant: pairs(invariant)?,
            last: pairs(body_outputs)?,
            concat: concat
                .chunks_exact(7)
                .map(|p| {
                    Ok(ConcatPort {
                        output: index(p[0])?,
                        result: index(p[1])?,
                        axis: p[2],
                        stride: p[5],
                        part_size: p[6],
                    })
                })
                .collect::<OpResult<_>>()?,
        };
        let parts = ports.sliced.iter().map(|s| (s.stride, s.part_size));
        for (stride, part) in parts.chain(ports.concat.iter().map(|c| (c.stride, c.part_size))) {
            op_ensure!(stride != 0 && part >= 0, "a port has stride {stride} and part_size {part}");
        }
        Ok(ports)
    }

    /// The lists that [`LoopPorts::read`] takes: sliced, merged and invariant inputs, last and concatenated outputs.
    pub(super) fn write(&self) -> [Vec<i64>; 5] {
        let n = |v: usize| v as i64;
        let slice = |s: &SlicePort| {
            [n(s.input), n(s.parameter), s.axis, s.start, s.end, s.stride, s.part_size]
        };
        // Where the pieces of an output start and end follows from their number.
        let concat =
            |c: &ConcatPort| [n(c.output), n(c.result), c.axis, 0, -1, c.stride, c.part_size];
        [
            self.sliced.iter().flat_map(slice).collect(),
            self.merged.iter().flat_map(|m| [m.input, m.parameter, m.result].map(n)).collect(),
            self.invariant.iter().flat_map(|(i, p)| [n(*i), n(*p)]).collect(),
            self.last.iter().flat_map(|(o, r)| [n(*o), n(*r)]).collect(),
            self.concat.iter().flat_map(concat).collect(),
        ]
    }

    /// Number of outputs of the operator.
    ///
    /// # Errors
    /// [`OpError::Invalid`] unless the maps give every output from 0 on exactly once.
    pub(super) fn output_count(&self) -> OpResult<usize> {
        let given = self.last.iter().map(|l| l.0).chain(self.concat.iter().map(|c| c.output));
        let mut outputs: Vec<usize> = given.collect();
        outputs.sort_unstable();
        op_ensure!(
            outputs.iter().enumerate().all(|(i, o)| i == *o),
            "outputs {outputs:?} are mapped, expected each from 0 on once"
        );
        Ok(outputs.len())
    }
}

fn pairs(list: &[i64]) -> OpResult<Vec<(usize, usize)>> {
    list.chunks_exact(2).map(|p| Ok((index(p[0])?, index(p[1])?))).collect()
}

/// `axis` of a rank counted from the front.
fn axis_of(axis: i64, rank: usize) -> OpResult<usize> {
    super::super::normalize_axis(axis, rank)
}

impl SlicePort {
    fn range(&self, extent: usize) -> (i64, i64) {
        let extent = i64::try_from(extent).unwrap_or(i64::MAX);
        let at = |v: i64| if v < 0 { v.saturating_add(extent) } else { v.min(extent - 1) };
        (at(self.start), at(self.end))
    }

    /// Number of pieces of an axis of this extent.
    fn pieces(&self, extent: usize) -> usize {
        if extent == 0 {
            return 0;
        }
        let (start, end) = self.range(extent);
        let span = if self.stride > 0 { end.saturating_sub(start) } else { start.saturating_sub(end) };
        usize::try_from(span.saturating_add(1) / self.part_size.max(1)).unwrap_or(0)
    }

    /// Number of pieces of a value of this shape, if known.
    pub(super) fn iterations(&self, shape: &PartialShape) -> OpResult<Option<usize>> {
        let Some(rank) = shape.rank() else { return Ok(None) };
        Ok(shape.dim(axis_of(self.axis, rank)?).value().map(|d| self.pieces(d)))
    }

    /// Shape of a piece.
    pub(super) fn piece_shape(&self, shape: &PartialShape) -> OpResult<PartialShape> {
        let Some(dims) = shape.dims() else { return Ok(PartialShape::dynamic()) };
        let axis = axis_of(self.axis, dims.len())?;
        let mut dims = dims.to_vec();
        if self.part_size == 0 {
            dims.remove(axis);
        } else {
            dims[axis] = Dimension::fixed(index(self.part_size)?);
        }
        Ok(PartialShape::new(&dims))
    }

    /// Piece `iteration` of a tensor.
    pub(super) fn piece(&self, tensor: &Tensor, iteration: usize) -> OpResult<Tensor> {
        let axis = axis_of(self.axis, tensor.rank())?;
        let extent = tensor.shape()[axis];
        op_ensure!(iteration < self.pieces(extent), "there is no piece {iteration} of {}", tensor.shape());
        let len = index(self.part_size.max(1))?;
        let first = self.range(extent).0;
        let step = i64::try_from(iteration).ok().and_then(|i| i.checked_mul(self.stride));
        let begin = step.and_then(|s| first.checked_add(s)).map(|b| {
            if self.stride < 0 { b - (self.part_size.max(1) - 1) } else { b }
        });
        let begin = begin.and_then(|b| usize::try_from(b).ok());
        let begin = begin
            .filter(|b| b.checked_add(len).is_some_and(|e| e <= extent))
            .ok_or_else(|| OpError::Invalid(format!("piece {iteration} leaves the axis of {extent}")))?;
        let piece = slice_axis(tensor, axis, begin, len)?;
        if self.part_size > 0 {
            return Ok(piece);
        }
        let mut dims = tensor.shape().to_vec();
        dims.remove(axis);
        Ok(piece.reshape(dims)?)
    }
}

impl ConcatPort {
    /// Shape of the whole from that of a piece.
    pub(super) fn whole_shape(
        &self,
        piece: &PartialShape,
        iterations: Option<usize>,
    ) -> OpResult<PartialShape> {
        let Some(dims) = piece.dims() else { return Ok(PartialShape::dynamic()) };
        let count = iterations.map_or(Dimension::DYNAMIC, Dimension::fixed);
        let mut dims = dims.to_vec();
        if self.part_size == 0 {
            dims.insert(axis_of(self.axis, dims.len() + 1)?, count);
        } else {
            let axis = axis_of(self.axis, dims.len())?;
            dims[axis] = dims[axis].mul(count);
        }
        Ok(PartialShape::new(&dims))
    }

    /// Puts the pieces of all iterations together; `empty` is the type of a piece for when there is none.
    pub(super) fn whole(&self, mut pieces: Vec<Tensor>, empty: &(ElementType, Shape)) -> OpResult<Tensor> {
        if self.stride < 0 {
            pieces.reverse();
        }
        let piece = pieces.first().map_or(&empty.1, |p| p.shape());
        let mut dims = piece.to_vec();
        let axis = if self.part_size == 0 {
            let axis = axis_of(self.axis, dims.len() + 1)?;
            dims.insert(axis, 1);
            axis
        } else {
            axis_of(self.axis, dims.len())?
        };
        if pieces.is_empty() {
            dims[axis] = 0;
            return Ok(Tensor::zeros(empty.0, dims)?);
        }
        let pieces = pieces
            .into_iter()
            .map(|p| if self.part_size == 0 {
                op_ensure!(p.rank() + 1 == dims.len(), "iterations give shapes {piece_shape} and {}", p.shape(), piece_shape = Shape::new(&dims));
                let mut with_axis = p.shape().to_vec();
                with_axis.insert(axis, 1);
                Ok(p.reshape(with_axis)?)
            } else { Ok(p) })
            .collect::<OpResult<Vec<_>>>()?;
        concat_axis(&pieces, axis)
    }
}

/// Elements before and after an axis.
fn around(shape: &Shape, axis: usize) -> (usize, usize) {
    let product = |d: &[usize]| d.iter().product::<usize>();
    (product(&shape[..axis]), product(&shape[axis + 1..]))
}

fn byte_size(tensor: &Tensor) -> OpResult<usize> {
    let bits = tensor.element_type().bits();
    if bits >= 8 {
        return Ok(bits / 8);
    }
    Err(OpError::Unsupported(format!("cutting a tensor of type {}", tensor.element_type())))
}

/// Positions `begin..begin + len` of an axis.
pub(crate) fn slice_axis(tensor: &Tensor, axis: usize, begin: usize, len: usize) -> OpResult<Tensor> {
    let tensor = tensor.to_contiguous();
    let extent = tensor.shape()[axis];
    let (outer, inner) = around(tensor.shape(), axis);
    let mut dims = tensor.shape().to_vec();
    dims[axis] = len;
    if let Ok(texts) = tensor.as_strings() {
        let at = |o: usize| (o * extent + begin) * inner;
        let cut = (0..outer).flat_map(|o| texts[at(o)..at(o) + len * inner].to_vec()).collect();
        return Ok(Tensor::from_strings(dims, cut)?);
    }
    let size = byte_size(&tensor)?;
    let bytes = tensor.bytes();
    let mut cut = Vec::with_capacity(outer * len * inner * size);
    for o in 0..outer {
        let at = (o * extent + begin) * inner * size;
        cut.extend_from_slice(&bytes[at..at + len * inner * size]);
    }
    Ok(Tensor::from_bytes(tensor.element_type(), dims, &cut)?)
}

/// Tensors one after the other along an axis; the first gives the type.
///
/// # Errors
/// When types or the other extents differ.
pub(crate) fn concat_axis(pieces: &[Tensor], axis: usize) -> OpResult<Tensor> {
    let first = &pieces[0];
    let mut dims = first.shape().to_vec();
    dims[axis] = 0;
    for piece in pieces {
        let mut others = piece.shape().to_vec();
        op_ensure!(
            piece.element_type() == first.element_type() && others.len() == dims.len(),
            "iterations give {}{} and {}{}",
            first.element_type(),
            first.shape(),
            piece.element_type(),
            piece.shape()
        );
        dims[axis] += std::mem::replace(&mut others[axis], dims[axis]);
        let total = dims[axis];
        others[axis] = total;
        op_ensure!(others == dims, "iterations give shapes {} and {}", first.shape(), piece.shape());
    }
    let (outer, inner) = around(first.shape(), axis);
    let pieces: Vec<Tensor> = pieces.iter().map(Tensor::to_contiguous).collect();
    if first.as_strings().is_ok() {
        let mut texts = Vec::new();
        for o in 0..outer {
            for piece in &pieces {
                let len = piece.shape()[axis] * inner;
                texts.extend_from_slice(&piece.as_strings()?[o * len..(o + 1) * len]);
            }
        }
        return Ok(Tensor::from_strings(dims, texts)?);
    }
    let size = byte_size(first)?;
    let mut whole = Tensor::zeros(first.element_type(), dims)?;
    let out = whole.bytes_mut()?;
    let mut at = 0;
    for o in 0..outer {
        for piece in &pieces {
            let len = piece.shape()[axis] * inner * size;
            out[at..at + len].copy_from_slice(&piece.bytes()[o * len..(o + 1) * len]);
            at += len;
        }
    }
    Ok(whole)
}
