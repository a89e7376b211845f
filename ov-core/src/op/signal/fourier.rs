//! The discrete Fourier transform along one axis.

use rustfft::{FftPlanner, num_complex::Complex};

use super::{from_f64s, known_length, length};
use crate::{
    op::{
        InferContext, OpError, OpResult, OpRules, OutputType, movement::checked_len, normalize_axis,
        present,
    },
    tensor::{Dimension, ElementType, PartialShape, Tensor},
};

/// Complex numbers in row-major order.
#[derive(Clone, Debug)]
pub(super) struct Spectrum {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<Complex<f64>>,
}

impl Spectrum {
    /// Reads a tensor whose last axis holds the real part, or the real and the imaginary part.
    pub(super) fn from_parts(tensor: &Tensor) -> OpResult<Self> {
        let Some((parts, shape)) = tensor.shape().split_last() else {
            return Err(OpError::Invalid("a signal has rank 0".to_owned()));
        };
        let numbers = tensor.to_f64_vec()?;
        let values = match parts {
            1 => numbers.into_iter().map(|re| Complex::new(re, 0.0)).collect(),
            2 => numbers.chunks_exact(2).map(|c| Complex::new(c[0], c[1])).collect(),
            _ => {
                return Err(OpError::Invalid(format!(
                    "the last extent of signal {} is {parts}, expected 1 (real) or 2 (complex)",
                    tensor.shape()
                )));
            }
        };
        Ok(Self { shape: shape.to_vec(), values })
    }

    /// The tensor with real and imaginary parts on a last axis of their own.
    pub(super) fn to_parts(&self, ty: ElementType) -> OpResult<Tensor> {
        let parts: Vec<f64> = self.values.iter().flat_map(|c| [c.re, c.im]).collect();
        from_f64s(ty, [self.shape.as_slice(), &[2]].concat(), &parts)
    }

    /// The tensor of the real parts, of shape `shape`.
    pub(super) fn to_reals(&self, ty: ElementType, shape: &[usize]) -> OpResult<Tensor> {
        let parts: Vec<f64> = self.values.iter().map(|c| c.re).collect();
        from_f64s(ty, shape, &parts)
    }

    /// The transform of length `n` along `axis`, of which the first `keep` values stay; shorter input is padded with
    /// zeros and longer is cut. The inverse divides by `n`.
    pub(super) fn transform(&self, axis: usize, n: usize, keep: usize, way: Way) -> OpResult<Self> {
        let mut shape = self.shape.clone();
        let extent = shape[axis];
        shape[axis] = keep;
        checked_len(&shape)?;
        let (outer, inner): (usize, usize) =
            (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
        let mut values = vec![Complex::default(); outer * keep * inner];
        if values.is_empty() {
            return Ok(Self { shape, values });
        }
        op_ensure!(n > 0 && extent > 0, "a transform of length {n} of {extent} values");
        checked_len(&[n, 4])?;
        let mut planner = FftPlanner::new();
        let plan = if way == Way::Forward { planner.plan_fft_forward(n) } else { planner.plan_fft_inverse(n) };
        let scale = if way == Way::Forward { 1.0 } else { 1.0 / n as f64 };
        let mut line = vec![Complex::default(); n];
        let mut scratch = vec![Complex::default(); plan.get_inplace_scratch_len()];
        let read = extent.min(if way == Way::InverseOfHalf { n / 2 + 1 } else { n });
        for o in 0..outer {
            for i in 0..inner {
                line.fill(Complex::default());
                for k in 0..read {
                    line[k] = self.values[(o * extent + k) * inner + i];
                }
                if way == Way::InverseOfHalf {
                    line[0].im = 0.0;
                    for k in n / 2 + 1..n {
                        line[k] = line[n - k].conj();
                    }
                    if n.is_multiple_of(2) {
                        line[n / 2].im = 0.0;
                    }
                }
                plan.process_with_scratch(&mut line, &mut scratch);
                for k in 0..keep {
                    values[(o * keep + k) * inner + i] = line[k] * scale;
                }
            }
        }
        Ok(Self { shape, values })
    }
}

/// Which transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Forward,
    Inverse,
    /// The inverse of the first half of a spectrum whose signal is real.
    InverseOfHalf,
}

define_op! {
    /// The discrete Fourier transform of a signal (input 0, `[…, 1]` real or `[…, 2]` complex) of a length (input 1) along
    /// an axis (input 2, default: the last but one). <https://onnx.ai/onnx/operators/onnx__DFT.html>
    pub struct FourierTransform("FourierTransform", 0) {
        /// Whether it is the inverse transform.
        inverse: bool = false,
        /// Whether only the first half of the spectrum of a real signal is given (read, by the inverse).
        onesided: bool = false,
    }
}

impl FourierTransform {
    fn is_to_real(&self) -> bool {
        self.inverse && self.onesided
    }

    fn default_length(&self, extent: usize) -> usize {
        if self.is_to_real() { 2 * extent.saturating_sub(1) } else { extent }
    }

    fn kept(&self, n: usize) -> usize {
        if self.onesided && !self.inverse { n / 2 + 1 } else { n }
    }
}

/// An axis of a signal counted from the front; the last one holds the parts of the numbers.
fn signal_axis(axis: i64, rank: usize) -> OpResult<usize> {
    let axis = normalize_axis(axis, rank)?;
    op_ensure!(axis + 1 < rank, "axis {axis} of rank {rank} holds real and imaginary parts");
    Ok(axis)
}

impl OpRules for FourierTransform {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(1..=3)?;
        cx.expect_rank(0, 2..=usize::MAX)?;
        cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
        let mut shape = cx.shape(0);
        if let Some(dims) = shape.dims_mut() {
            let rank = dims.len();
            let axis = if cx.is_present(2) {
                cx.i64s(2)?.map(|a| signal_axis(a.first().copied().unwrap_or(0), rank)).transpose()?
            } else {
                Some(rank - 2)
            };
            dims[rank - 1] = Dimension::fixed(if self.is_to_real() { 1 } else { 2 });
            match axis {
                Some(axis) => {
                    let n = if cx.is_present(1) {
                        known_length(cx, 1)
                    } else {
                        dims[axis].map(|d| self.default_length(d))
                    };
                    dims[axis] = n.map(|n| self.kept(n));
                }
                None => dims[..rank - 1].fill(Dimension::DYNAMIC),
            }
        }
        Ok(vec![OutputType::new(cx.element_type(0), shape)])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let (rank, ty) = (inputs[0].rank(), inputs[0].element_type());
        let axis = match present(inputs, 2) {
            Some(axis) => axis.element_as_i64(0).unwrap_or(-2),
            None => -2,
        };
        let axis = signal_axis(axis, rank)?;
        let signal = Spectrum::from_parts(&inputs[0])?;
        let n = match present(inputs, 1) {
            Some(n) => length(n, "the length of a transform")?,
            None => self.default_length(signal.shape[axis]),
        };
        let way = match (self.inverse, self.onesided) {
            (false, _) => Way::Forward,
            (true, false) => Way::Inverse,
            (true, true) => Way::InverseOfHalf,
        };
        let out = signal.transform(axis, n, self.kept(n), way)?;
        if self.is_to_real() {
            let shape = [out.shape.as_slice(), &[1]].concat();
            return Ok(vec![out.to_reals(ty, &shape)?]);
        }
        Ok(vec![out.to_parts(ty)?])
    }
}

/// Puts `sizes` in place of the extents of `axes`; what is not known leaves the extents open.
pub(super) fn with_sizes(
    shape: &mut PartialShape,
    axes: Option<&[usize]>,
    sizes: Option<&[Dimension]>,
) {
    let Some(dims) = shape.dims_mut() else { return };
    let Some(axes) = axes else { return dims.fill(Dimension::DYNAMIC) };
    for (i, axis) in axes.iter().enumerate() {
        if let Some(dim) = dims.get_mut(*axis) {
            *dim = sizes.and_then(|s| s.get(i)).copied().unwrap_or(Dimension::DYNAMIC);
        }
    }
}
