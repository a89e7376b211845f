//! Whether a candidate that has compiled is fit to take over: it works, it agrees, it is faster.

use std::time::{Duration, Instant};

use ov_core::{
    CancelToken, ElementType, Result, Tensor,
    plugin::{CompiledDevice, SyncRequest},
    property::auto::VerifySwitch,
};

/// What an inference read and gave.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) inputs: Vec<Option<Tensor>>,
    pub(crate) outputs: Vec<Option<Tensor>>,
}

impl Sample {
    /// Copies of what a request holds.
    pub(crate) fn of(request: &dyn SyncRequest, inputs: usize, outputs: usize) -> Self {
        let copy = |tensor: Option<&Tensor>| tensor.map(Tensor::to_owned_tensor);
        Self {
            inputs: (0..inputs).map(|i| copy(request.input(i))).collect(),
            outputs: (0..outputs).map(|i| copy(request.output(i))).collect(),
        }
    }
}

/// The result of warming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fit,
    Unfit(String),
}

/// Inferences after the first that are timed.
const RUNS: usize = 3;
/// A candidate has to be faster by so much.
const FASTER: f64 = 0.9;
/// Results may differ by this share of the largest value: devices compute in different precisions.
const TOLERANCE: f64 = 0.05;

/// A request of a candidate with what was read last, or with zeros; nothing where shapes are open and there was no
/// inference to learn them from.
///
/// # Errors
/// Those of the candidate.
pub(crate) fn prepare(
    target: &CompiledDevice,
    sample: Option<&Sample>,
) -> Result<Option<Box<dyn SyncRequest>>> {
    let mut request = target.model.create_request()?;
    for (i, input) in sample.iter().flat_map(|s| s.inputs.iter().enumerate()) {
        if let Some(input) = input {
            request.set_input(i, input.clone())?;
        }
    }
    let is_ready = (0..target.model.inputs().len()).all(|i| request.input(i).is_some());
    Ok(is_ready.then_some(request))
}

/// A candidate after its first inference.
pub(crate) enum Warmed {
    Unfit(String),
    Ready(Box<dyn SyncRequest>),
}

/// The first inference, and whether it gives what the sample says. It pays for whatever the device does late, and
/// belongs on a background thread.
///
/// # Errors
/// Those of the candidate.
pub(crate) fn first(
    mut request: Box<dyn SyncRequest>,
    device: &str,
    sample: Option<&Sample>,
    verify: VerifySwitch,
) -> Result<Warmed> {
    request.infer(&CancelToken::new())?;
    let difference = sample.and_then(|s| difference(&*request, s));
    if let Some(difference) = difference.filter(|_| verify != VerifySwitch::Off) {
        if verify == VerifySwitch::Veto {
            return Ok(Warmed::Unfit(difference));
        }
        tracing::warn!(device, difference, "results differ between devices");
    }
    Ok(Warmed::Ready(request))
}

/// Times a warm candidate against `pace`, that of what serves now. This belongs on a thread like those that will wait
/// for the device: one of the idle class is told late of what ended in time while the processor serves.
///
/// # Errors
/// Those of the candidate.
pub(crate) fn judge(request: &mut dyn SyncRequest, pace: Option<Duration>) -> Result<Verdict> {
    let cancel = CancelToken::new();
    let mut times = [Duration::ZERO; RUNS];
    for time in &mut times {
        let start = Instant::now();
        request.infer(&cancel)?;
        *time = start.elapsed();
    }
    times.sort_unstable();
    let median = times[RUNS / 2];
    Ok(match pace {
        Some(pace) if median > pace.mul_f64(FASTER) => {
            Verdict::Unfit(format!("it takes {median:?}, the device that serves {pace:?}"))
        }
        _ => Verdict::Fit,
    })
}

/// Where results differ by more than precision explains.
fn difference(request: &dyn SyncRequest, sample: &Sample) -> Option<String> {
    sample.outputs.iter().enumerate().find_map(|(i, expected)| {
        let (expected, got) = (expected.as_ref()?, request.output(i)?);
        if expected.shape() != got.shape() {
            return Some(format!("output {i} is {}, expected {}", got.shape(), expected.shape()));
        }
        if !is_compared(expected.element_type()) {
            return None;
        }
        let (expected, got) = (expected.to_f64_vec().ok()?, got.to_contiguous().to_f64_vec().ok()?);
        let largest =
            expected.iter().filter(|v| v.is_finite()).fold(0.0, |m: f64, v| m.max(v.abs()));
        let limit = TOLERANCE * largest + f64::from(f32::EPSILON);
        let differs = |(e, g): (&f64, &f64)| {
            e.is_nan() != g.is_nan()
                || e != g && !e.is_nan() && ((e - g).abs() > limit || e.is_infinite())
        };
        let at = expected.iter().zip(&got).position(differs)?;
        Some(format!("output {i} at {at} is {}, expected {}", got[at], expected[at]))
    })
}

/// Integers may be indices that a last bit turns over.
fn is_compared(ty: ElementType) -> bool {
    ty.is_float()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fake;

    #[test]
    fn precision_is_no_difference_but_nan_and_other_values_are() {
        let tensor = |values: [f32; 2]| Tensor::from_vec([2], values.to_vec()).expect("fits");
        for (expected, got, differs) in [
            ([1.0, 100.0], [1.0, 100.0], false),
            ([1.0, 100.0], [3.0, 98.0], false),
            ([1.0, 100.0], [1.0, 110.0], true),
            ([1.0, 100.0], [f32::NAN, 100.0], true),
            ([f32::NAN, 1.0], [f32::NAN, 1.0], false),
            ([f32::INFINITY, 1.0], [f32::INFINITY, 1.0], false),
            ([f32::INFINITY, 1.0], [1.0, 1.0], true),
            ([0.0, 0.0], [0.0, 0.0], false),
        ] {
            let sample = Sample { inputs: Vec::new(), outputs: vec![Some(tensor(expected))] };
            let given = Fake { output: Some(tensor(got)), ..Fake::default() };
            let found = difference(&given, &sample);
            assert_eq!(found.is_some(), differs, "{expected:?} {got:?}: {found:?}");
        }
    }
}
