//! Whether a candidate that has compiled is fit to take over: it works, it agrees, it is faster.

use std::time::{Duration, Instant};

use ov_core::{
    CancelToken, ElementType, Result, Tensor,
    plugin::{CompiledDevice, SyncRequest},
    property::auto::VerifySwitch,
};

use crate::options::Options;

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

/// Inferences after the first, which pays for whatever the device does late.
const RUNS: usize = 3;
/// A candidate has to be faster by so much.
const FASTER: f64 = 0.9;
/// Results may differ by this share of the largest value: devices compute in different precisions.
const TOLERANCE: f64 = 0.05;

/// Runs a candidate on what was read last, or on zeros; `pace` is that of what serves now.
///
/// # Errors
/// Those of the candidate.
pub(crate) fn judge(
    target: &CompiledDevice,
    sample: Option<&Sample>,
    pace: Option<Duration>,
    options: &Options,
) -> Result<Verdict> {
    let mut request = target.model.create_request()?;
    for (i, input) in sample.iter().flat_map(|s| s.inputs.iter().enumerate()) {
        if let Some(input) = input {
            request.set_input(i, input.clone())?;
        }
    }
    if (0..target.model.inputs().len()).any(|i| request.input(i).is_none()) {
        tracing::debug!(device = target.device, "open shapes and no inference to learn from");
        return Ok(Verdict::Fit);
    }
    let cancel = CancelToken::new();
    request.infer(&cancel)?;
    let difference = sample.and_then(|s| difference(&*request, s));
    if let Some(difference) = difference.filter(|_| options.verify != VerifySwitch::Off) {
        if options.verify == VerifySwitch::Veto {
            return Ok(Verdict::Unfit(difference));
        }
        tracing::warn!(device = target.device, difference, "results differ between devices");
    }
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let start = Instant::now();
        request.infer(&cancel)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(match pace {
        Some(pace) if options.require_faster && times[RUNS / 2] > pace.mul_f64(FASTER) => {
            Verdict::Unfit(format!(
                "it takes {:?}, the device that serves {pace:?}",
                times[RUNS / 2]
            ))
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

    struct Given(Tensor);

    impl SyncRequest for Given {
        fn set_input(&mut self, _: usize, _: Tensor) -> Result<()> {
            Ok(())
        }
        fn input(&self, _: usize) -> Option<&Tensor> {
            None
        }
        fn input_mut(&mut self, _: usize) -> Option<&mut Tensor> {
            None
        }
        fn set_output(&mut self, _: usize, _: Tensor) -> Result<()> {
            Ok(())
        }
        fn output(&self, _: usize) -> Option<&Tensor> {
            Some(&self.0)
        }
        fn infer(&mut self, _: &CancelToken) -> Result<()> {
            Ok(())
        }
    }

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
            let found = difference(&Given(tensor(got)), &sample);
            assert_eq!(found.is_some(), differs, "{expected:?} {got:?}: {found:?}");
        }
    }
}
