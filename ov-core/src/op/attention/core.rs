//! One head of attention in `f64`, and masks that broadcast.

use super::super::{
    OpError, OpResult,
    softmax::{rounding, softmax_rounded},
};
use crate::tensor::{ElementType, Shape, Tensor};

/// Extents and factors of one head: `q: [l, e]`, `k: [s, e]`, `v: [s, ev]`.
pub(super) struct Problem {
    pub(super) l: usize,
    pub(super) s: usize,
    pub(super) e: usize,
    pub(super) ev: usize,
    pub(super) scale: f64,
    pub(super) softcap: f64,
    /// Whether a score of 0 without a value takes part in the softmax.
    pub(super) smooth: bool,
    /// Type of the values.
    pub(super) element_type: ElementType,
}

/// `y = softmax(softcap(q kᵀ scale) + bias) v`; rows whose every bias is -inf are zeros. `scores` are stored at the stage
/// that the mode names: 0 raw, 1 after the softcap, 2 with the bias, 3 probabilities.
pub(super) fn attend(
    p: &Problem,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    bias: &dyn Fn(usize, usize) -> f64,
    y: &mut [f64],
    mut scores: Option<(i64, &mut [f64])>,
) {
    let mut row = vec![0.0; p.s];
    let rounding = rounding(p.element_type);
    let round = rounding.unwrap_or(|x| x);
    // In 16 bits the specification's function scales both factors and rounds them.
    let factor = round(p.scale.abs().sqrt());
    for i in 0..p.l {
        let query = &q[i * p.e..][..p.e];
        for (j, score) in row.iter_mut().enumerate() {
            let key = &k[j * p.e..][..p.e];
            *score = if rounding.is_some() && p.scale > 0.0 {
                let products = query.iter().zip(key).map(|(a, b)| round(a * factor) * round(b * factor));
                round(products.sum())
            } else {
                round(query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() * p.scale)
            };
        }
        let mut keep = |mode: i64, row: &[f64]| {
            if let Some((wanted, out)) = &mut scores
                && *wanted == mode {
                    out[i * p.s..][..p.s].copy_from_slice(row);
                }
        };
        keep(0, &row);
        if p.softcap > 0.0 {
            row.iter_mut().for_each(|x| *x = round(p.softcap * round(round(*x / p.softcap).tanh())));
        }
        keep(1, &row);
        let mut masked = true;
        for (j, score) in row.iter_mut().enumerate() {
            let bias = bias(i, j);
            masked &= bias == f64::NEG_INFINITY;
            *score = round(*score + bias);
        }
        keep(2, &row);
        if masked {
            row.fill(0.0);
        } else {
            match rounding {
                Some(round) if !p.smooth => softmax_rounded(&mut row, p.element_type, round),
                _ => softmax(&mut row, p.smooth),
            }
        }
        keep(3, &row);
        let out = &mut y[i * p.ev..][..p.ev];
        out.fill(0.0);
        for (j, weight) in row.iter().enumerate() {
            if masked {
                break;
            }
            for (o, v) in out.iter_mut().zip(&v[j * p.ev..][..p.ev]) {
                *o += weight * v;
            }
        }
    }
}

fn softmax(row: &mut [f64], smooth: bool) {
    let start = if smooth { 0.0 } else { f64::NEG_INFINITY };
    let max = row.iter().copied().fold(start, f64::max);
    if max == f64::NEG_INFINITY && row.iter().all(|x| !x.is_nan()) {
        row.fill(0.0);
        return;
    }
    let mut sum = if smooth { (-max).exp() } else { 0.0 };
    for x in row.iter_mut() {
        *x = (*x - max).exp();
        sum += *x;
    }
    row.iter_mut().for_each(|x| *x /= sum);
}

/// A mask read with broadcasting: false or -inf hides a key.
pub(super) struct Bias {
    values: Vec<f64>,
    boolean: bool,
    /// Offset of each batch (all axes but the last two).
    offsets: Vec<usize>,
    strides: [usize; 2],
    /// Extent of the last axis.
    len: usize,
}

impl Bias {
    /// `mask` broadcast to `shape`. With `pads`, a last axis shorter than that of `shape` hides the rest; without, an
    /// extent of 1 is repeated.
    pub(super) fn new(mask: &Tensor, shape: &[usize], pads: bool) -> OpResult<Self> {
        let fits = || {
            OpError::Invalid(format!("mask of shape {} does not broadcast to {shape:?}", mask.shape()))
        };
        let extra = shape.len().checked_sub(mask.rank()).ok_or_else(fits)?;
        let mut dims = vec![1; extra];
        dims.extend(&mask.shape()[..]);
        let last = shape.len() - 1;
        let pads = pads && mask.rank() > 0 && dims[last] < shape[last];
        for (i, (d, s)) in dims.iter().zip(shape).enumerate() {
            if !(*d == *s || *d == 1 || (pads && i == last)) {
                return Err(fits());
            }
        }
        let len = if pads { dims[last] } else { shape[last] };
        let strides = Shape::new(&dims).strides();
        let stride = |axis: usize| if dims[axis] == 1 { 0 } else { strides[axis] };
        let batch = &shape[..last - 1];
        let count: usize = batch.iter().product();
        let mut offsets = Vec::with_capacity(count);
        for flat in 0..count {
            let (mut rest, mut offset) = (flat, 0);
            for axis in (0..batch.len()).rev() {
                offset += rest % batch[axis] * stride(axis);
                rest /= batch[axis];
            }
            offsets.push(offset);
        }
        let last_stride = if pads { 1 } else { stride(last) };
        Ok(Self {
            values: mask.to_f64_vec()?,
            boolean: mask.element_type() == ElementType::Boolean,
            offsets,
            strides: [stride(last - 1), last_stride],
            len,
        })
    }

    /// What is added to the score of query `i` and key `j` in batch `b`.
    pub(super) fn at(&self, b: usize, i: usize, j: usize) -> f64 {
        if j >= self.len {
            return f64::NEG_INFINITY;
        }
        let value = self.values[self.offsets[b] + i * self.strides[0] + j * self.strides[1]];
        match (self.boolean, value == 0.0) {
            (false, _) => value,
            (true, true) => f64::NEG_INFINITY,
            (true, false) => 0.0,
        }
    }
}

/// The broadcast of three shapes, and for each element of it the flat index into each of them.
pub(super) fn broadcast_offsets(shapes: &[Shape; 3]) -> OpResult<(Shape, Vec<[usize; 3]>)> {
    let rank = shapes.iter().map(Shape::rank).max().unwrap_or(0);
    let dim = |s: &Shape, axis: usize| (axis + s.rank()).checked_sub(rank).map_or(1, |a| s[a]);
    let mut whole = Vec::with_capacity(rank);
    for axis in 0..rank {
        let extents = shapes.iter().map(|s| dim(s, axis)).filter(|d| *d != 1);
        let extent = extents.clone().next().unwrap_or(1);
        op_ensure!(extents.clone().all(|d| d == extent), "batches {shapes:?} do not broadcast");
        whole.push(extent);
    }
    let whole = Shape::from(whole);
    let offsets = (0..whole.elements())
        .map(|flat| {
            let mut at = [0; 3];
            for (at, shape) in at.iter_mut().zip(shapes) {
                let (mut rest, mut stride) = (flat, 1);
                for axis in (0..rank).rev() {
                    let extent = dim(shape, axis);
                    *at += if extent == 1 { 0 } else { rest % whole[axis] * stride };
                    stride *= extent;
                    rest /= whole[axis];
                }
            }
            at
        })
        .collect();
    Ok((whole, offsets))
}
