//! OpenVINO's Fourier transforms, which run over several axes.

use super::fourier::{Spectrum, Way, with_sizes};
use crate::{
    op::{
        InferContext, OpError, OpResult, OpRules, OutputType, normalize_axis, present,
    },
    tensor::{Dimension, ElementType, Tensor},
};

/// The axes of input 1 of a signal that has `rank` axes apart from the parts of its numbers.
fn axes(values: &[i64], rank: usize) -> OpResult<Vec<usize>> {
    let axes = values.iter().map(|a| normalize_axis(*a, rank)).collect::<OpResult<Vec<_>>>()?;
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    sorted.dedup();
    op_ensure!(sorted.len() == axes.len(), "axes {values:?} name an axis twice");
    Ok(axes)
}

/// The lengths of the transforms: those of input 2, the signal's own where it says −1.
fn sizes(inputs: &[Tensor], extents: &[usize]) -> OpResult<Vec<usize>> {
    let Some(wanted) = present(inputs, 2) else { return Ok(extents.to_vec()) };
    let wanted = wanted.to_i64_vec()?;
    op_ensure!(wanted.len() == extents.len(), "{} signal sizes for {} axes", wanted.len(), extents.len());
    wanted
        .iter()
        .zip(extents)
        .map(|(w, e)| {
            if *w == -1 { Ok(*e) } else { usize::try_from(*w).map_err(|_| OpError::Invalid(format!("signal size {w}"))) }
        })
        .collect()
}

/// The shape after transforms of the given sizes along the axes; `last` says what becomes of the last axis in the list
/// when no size is given, and of a size.
fn infer(
    cx: &InferContext<'_>,
    rank_of_parts: usize,
    unsized_last: impl Fn(usize) -> usize,
    sized_last: impl Fn(usize) -> usize,
) -> OpResult<OutputType> {
    cx.expect_inputs(2..=3)?;
    cx.expect_type(0, "a floating-point type", ElementType::is_float)?;
    let mut shape = cx.shape(0);
    if let Some(rank) = shape.rank() {
        let rank = rank.checked_sub(rank_of_parts).ok_or_else(|| OpError::Invalid("a signal of rank 0".to_owned()))?;
        let axes = cx.i64s(1)?.map(|a| axes(&a, rank)).transpose()?;
        let mut sizes: Option<Vec<Dimension>> = axes.as_ref().map(|a| a.iter().map(|a| shape.dim(*a)).collect());
        let mut last_is_sized = false;
        if cx.is_present(2) {
            sizes = sizes.zip(cx.i64s(2)?).map(|(own, wanted)| {
                last_is_sized = wanted.last().is_some_and(|w| *w >= 0);
                let pick = |(own, w): (Dimension, i64)| usize::try_from(w).map_or(own, Dimension::fixed);
                own.into_iter().zip(wanted).map(pick).collect()
            });
        }
        if let Some(last) = sizes.as_mut().and_then(|s| s.last_mut()) {
            *last = if last_is_sized { last.map(&sized_last) } else { last.map(&unsized_last) };
        }
        with_sizes(&mut shape, axes.as_deref(), sizes.as_deref());
    }
    Ok(OutputType::new(cx.element_type(0), shape))
}

fn complex(inputs: &[Tensor], way: Way) -> OpResult<Vec<Tensor>> {
    let mut signal = Spectrum::from_parts(&inputs[0])?;
    let axes = axes(&inputs[1].to_i64_vec()?, signal.shape.len())?;
    let extents: Vec<usize> = axes.iter().map(|a| signal.shape[*a]).collect();
    for (axis, n) in axes.iter().zip(sizes(inputs, &extents)?) {
        signal = signal.transform(*axis, n, n, way)?;
    }
    Ok(vec![signal.to_parts(inputs[0].element_type())?])
}

define_op! {
    /// Fourier transforms of a complex signal `[…, 2]` (input 0) along axes (input 1), of sizes (input 2).
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/signals/dft-7.html>
    pub struct Dft("DFT", 7) {}
}

impl OpRules for Dft {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        Ok(vec![infer(cx, 1, |n| n, |n| n)?])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        complex(inputs, Way::Forward)
    }
}

define_op! {
    /// The inverse of [`Dft`].
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/signals/idft-7.html>
    pub struct Idft("IDFT", 7) {}
}

impl OpRules for Idft {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        Ok(vec![infer(cx, 1, |n| n, |n| n)?])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        complex(inputs, Way::Inverse)
    }
}

define_op! {
    /// Fourier transforms of a real signal (input 0) along axes (input 1), of sizes (input 2); of the last axis listed the
    /// first half of the spectrum is given.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/signals/rdft-9.html>
    pub struct Rdft("RDFT", 9) {}
}

impl OpRules for Rdft {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        let mut out = infer(cx, 0, |n| n / 2 + 1, |n| n / 2 + 1)?;
        if let Some(dims) = out.shape.dims() {
            out.shape = dims.iter().copied().chain([Dimension::fixed(2)]).collect();
        }
        Ok(vec![out])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let mut real = inputs[0].shape().to_vec();
        real.push(1);
        let mut signal = Spectrum::from_parts(&inputs[0].reshape(real)?)?;
        let axes = axes(&inputs[1].to_i64_vec()?, signal.shape.len())?;
        let extents: Vec<usize> = axes.iter().map(|a| signal.shape[*a]).collect();
        for (i, (axis, n)) in axes.iter().zip(sizes(inputs, &extents)?).enumerate().rev() {
            let keep = if i + 1 == axes.len() { n / 2 + 1 } else { n };
            signal = signal.transform(*axis, n, keep, Way::Forward)?;
        }
        Ok(vec![signal.to_parts(inputs[0].element_type())?])
    }
}

define_op! {
    /// The inverse of [`Rdft`]: a real signal from the first half of its spectrum.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/signals/irdft-9.html>
    pub struct Irdft("IRDFT", 9) {}
}

impl OpRules for Irdft {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        let mut out = infer(cx, 1, |n| 2 * n.saturating_sub(1), |n| n)?;
        if let Some((_, dims)) = out.shape.dims().and_then(|d| d.split_last()) {
            out.shape = dims.iter().copied().collect();
        }
        Ok(vec![out])
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let mut signal = Spectrum::from_parts(&inputs[0])?;
        let axes = axes(&inputs[1].to_i64_vec()?, signal.shape.len())?;
        let mut extents: Vec<usize> = axes.iter().map(|a| signal.shape[*a]).collect();
        if let Some(last) = extents.last_mut() {
            *last = 2 * last.saturating_sub(1);
        }
        for (i, (axis, n)) in axes.iter().zip(sizes(inputs, &extents)?).enumerate() {
            let way = if i + 1 == axes.len() { Way::InverseOfHalf } else { Way::Inverse };
            signal = signal.transform(*axis, n, n, way)?;
        }
        let shape = signal.shape.clone();
        Ok(vec![signal.to_reals(inputs[0].element_type(), &shape)?])
    }
}
