//! Loop and `TensorIterator`: a body run again and again over pieces and carried values.

use super::{
    super::{InferContext, InputInfo, OpError, OpResult, OpRules, OutputType},
    body::{self, KnownOutput, infer_body},
    condition,
    ports::{LoopPorts, pick},
    unite,
};
use crate::{
    io::memory_limit,
    model::Model,
    reference::BodyRunner,
    tensor::{Dimension, ElementType, PartialShape, Shape, Tensor},
};

define_op! {
    /// Runs a body while a condition holds, at most `trip_count` times (input 0: one integer, negative is no limit;
    /// input 1: one truth value, whether to run at all; further inputs by the port maps).
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/infrastructure/loop-5.html>
    pub struct Loop("Loop", 5) {
        /// What an iteration computes.
        body: Model = Model::default(),
        /// Seven integers per input cut into pieces: input, parameter, axis, start, end, stride, part size
        /// (see [`SlicePort`](super::SlicePort)).
        sliced_inputs: Vec<i64> = Vec::new(),
        /// Three integers per carried value: input, parameter, output of the body.
        merged_inputs: Vec<i64> = Vec::new(),
        /// Two integers per input that stays: input, parameter.
        invariant_inputs: Vec<i64> = Vec::new(),
        /// Two integers per output with the last value: output, output of the body.
        body_outputs: Vec<i64> = Vec::new(),
        /// Seven integers per output put together: output, output of the body, axis, start, end, stride, part size
        /// (see [`ConcatPort`](super::ConcatPort)).
        concat_outputs: Vec<i64> = Vec::new(),
        /// Parameter of the body that reads the number of the iteration, or -1.
        current_iteration: i64 = -1,
        /// Output of the body that says whether to go on, or -1 when only the trip count decides.
        condition_output: i64 = -1,
    }
}

define_op! {
    /// Runs a body over the pieces of its sliced inputs.
    /// <https://docs.openvino.ai/2026/documentation/openvino-ir-format/operation-sets/operation-specs/infrastructure/tensor-iterator-1.html>
    pub struct TensorIterator("TensorIterator", 1) {
        /// What an iteration computes.
        body: Model = Model::default(),
        /// As in [`Loop`].
        sliced_inputs: Vec<i64> = Vec::new(),
        /// As in [`Loop`].
        merged_inputs: Vec<i64> = Vec::new(),
        /// As in [`Loop`].
        invariant_inputs: Vec<i64> = Vec::new(),
        /// As in [`Loop`].
        body_outputs: Vec<i64> = Vec::new(),
        /// As in [`Loop`].
        concat_outputs: Vec<i64> = Vec::new(),
    }
}

/// Runs a body once: one tensor per parameter in, one per output out.
pub type RunBody<'a> = &'a mut dyn FnMut(&[Tensor]) -> OpResult<Vec<Tensor>>;

/// What both operators run.
struct Iteration<'a> {
    body: &'a Model,
    ports: LoopPorts,
    current_iteration: Option<usize>,
    condition_output: Option<usize>,
    /// Whether inputs 0 and 1 are trip count and condition.
    is_loop: bool,
}

macro_rules! has_ports {
    ($op:ident) => {
        impl $op {
            /// Evaluates the operator with a body that somebody else runs; of the body itself only the types of its parameters
            /// and outputs are looked at.
            ///
            /// # Errors
            /// When the body fails or the values are not valid.
            pub fn evaluate_with(&self, inputs: &[Tensor], run_body: RunBody<'_>) -> OpResult<Vec<Tensor>> {
                self.iteration()?.evaluate_with(inputs, run_body)
            }

            /// The port maps.
            ///
            /// # Errors
            /// When a list has an incomplete entry or a negative index.
            pub fn ports(&self) -> OpResult<LoopPorts> {
                LoopPorts::read(
                    &self.sliced_inputs,
                    &self.merged_inputs,
                    &self.invariant_inputs,
                    &self.body_outputs,
                    &self.concat_outputs,
                )
            }

            /// Sets the port maps.
            pub(crate) fn set_ports(&mut self, ports: &LoopPorts) {
                [
                    self.sliced_inputs,
                    self.merged_inputs,
                    self.invariant_inputs,
                    self.body_outputs,
                    self.concat_outputs,
                ] = ports.write();
            }
        }
    };
}
has_ports!(Loop);
has_ports!(TensorIterator);

impl Loop {
    fn iteration(&self) -> OpResult<Iteration<'_>> {
        Ok(Iteration {
            body: &self.body,
            ports: self.ports()?,
            current_iteration: usize::try_from(self.current_iteration).ok(),
            condition_output: usize::try_from(self.condition_output).ok(),
            is_loop: true,
        })
    }
}

impl TensorIterator {
    fn iteration(&self) -> OpResult<Iteration<'_>> {
        Ok(Iteration {
            body: &self.body,
            ports: self.ports()?,
            current_iteration: None,
            condition_output: None,
            is_loop: false,
        })
    }
}

impl OpRules for Loop {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        cx.expect_inputs(2..=usize::MAX)?;
        cx.expect_type(0, "an integer", ElementType::is_integer)?;
        cx.expect_type(1, "boolean", |t| t == ElementType::Boolean)?;
        self.iteration()?.infer(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        self.iteration()?.evaluate(inputs)
    }
}

impl OpRules for TensorIterator {
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        self.iteration()?.infer(cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        self.iteration()?.evaluate(inputs)
    }
}

/// The trip count as a limit; negative is none.
fn trip_limit(tensor: &Tensor) -> OpResult<Option<usize>> {
    op_ensure!(tensor.len() == 1, "the trip count has shape {}, expected one element", tensor.shape());
    let count = tensor.element_as_i64(0);
    let count = count.ok_or_else(|| OpError::Invalid("the trip count is not an integer".to_owned()))?;
    Ok(usize::try_from(count).ok())
}

/// Iterations of a loop that has no other end: 2^40, half a day of the fastest body.
const MAX_TRIPS: usize = 1 << 40;

/// Passes over a body until the types of carried values settle, outermost and deep inside other bodies.
const PASSES: usize = 4;
/// From this depth of bodies on carried values start with unknown shapes, so that one pass settles them and the work
/// does not grow exponentially with the depth.
const EXACT_DEPTH: usize = 3;

impl Iteration<'_> {
    /// Number of iterations, if known before running.
    fn iterations(&self, cx: &InferContext<'_>, results: &[KnownOutput]) -> OpResult<Option<usize>> {
        let mut sliced = None;
        for port in &self.ports.sliced {
            cx.input(port.input)?;
            let Some(n) = port.iterations(&cx.shape(port.input))? else { return Ok(None) };
            sliced = Some(sliced.map_or(n, |s: usize| s.min(n)));
        }
        if !self.is_loop {
            return Ok(sliced);
        }
        let Some(starts) = cx.value(1).map(condition).transpose()? else { return Ok(None) };
        if !starts {
            return Ok(Some(0));
        }
        let goes_on = match self.condition_output {
            None => true,
            Some(c) => {
                let result = pick(results, c as i64)?;
                let known = result.value.as_ref().map(condition).transpose()? == Some(true);
                known || self.passes_through(c)
            }
        };
        let Some(trip) = cx.value(0).filter(|_| goes_on) else { return Ok(None) };
        let count = match (trip_limit(trip)?, sliced) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        // Nothing but the count ends this loop, so one that would run for years is refused.
        op_ensure!(
            count.is_none_or(|n| n <= MAX_TRIPS),
            "the loop makes {} iterations, more than the limit of {MAX_TRIPS}",
            count.unwrap_or_default()
        );
        Ok(count)
    }

    /// Whether output `result` of the body is a carried value that the body does not change.
    fn passes_through(&self, result: usize) -> bool {
        let Some(output) = self.body.outputs().get(result) else { return false };
        self.ports.merged.iter().any(|m| {
            m.result == result
                && self.body.parameters().get(m.parameter) == Some(&output.value.node)
        })
    }

    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        let count = self.ports.output_count()?;
        let mut parameters: Vec<Option<OutputType>> = vec![None; self.body.parameters().len()];
        let slots = parameters.len();
        let mut set = |at: usize, ty: OutputType| {
            let slot = parameters.get_mut(at).ok_or_else(|| {
                OpError::Invalid(format!("port map names parameter {at} of {slots}"))
            })?;
            *slot = Some(ty);
            OpResult::Ok(())
        };
        for p in &self.ports.sliced {
            let input = cx.input(p.input)?;
            set(p.parameter, OutputType::new(input.element_type, p.piece_shape(input.shape)?))?;
        }
        for p in &self.ports.merged {
            let input = cx.input(p.input)?;
            let shape = if body::depth() < EXACT_DEPTH {
                input.shape.clone()
            } else {
                PartialShape::dynamic()
            };
            set(p.parameter, OutputType::new(input.element_type, shape))?;
        }
        for (input, parameter) in &self.ports.invariant {
            set(*parameter, cx.input(*input)?.into())?;
        }
        if let Some(parameter) = self.current_iteration {
            let declared = self.body.parameters().get(parameter).map(|id| self.body.node(*id).shape(0));
            let rank = declared.and_then(|s| s.rank()).unwrap_or(0).min(1);
            let shape = PartialShape::from(Shape::new(&[1][..rank]));
            set(parameter, OutputType::new(ElementType::I64, shape))?;
        }
        let mut parameters = parameters
            .into_iter()
            .enumerate()
            .map(|(i, p)| p.ok_or_else(|| OpError::Invalid(format!("no port feeds parameter {i}"))))
            .collect::<OpResult<Vec<_>>>()?;
        let results = self.settle(cx, &mut parameters)?;
        let iterations = self.iterations(cx, &results)?;
        let mut outputs = vec![OutputType::new(ElementType::Dynamic, PartialShape::dynamic()); count];
        for (output, result) in &self.ports.last {
            let ty = &pick(&results, *result as i64)?.ty;
            let carried = self.ports.merged.iter().find(|m| m.result == *result);
            let mut ty = match (iterations, carried) {
                (Some(0), Some(m)) => OutputType::from(cx.input(m.input)?),
                (None, Some(m)) => unite(&cx.input(m.input)?.into(), ty),
                _ => ty.clone(),
            };
            ty.dims = None;
            outputs[*output] = ty;
        }
        for port in &self.ports.concat {
            let ty = &pick(&results, port.result as i64)?.ty;
            outputs[port.output] =
                OutputType::new(ty.element_type, port.whole_shape(&ty.shape, iterations)?);
        }
        Ok(outputs)
    }

    /// Infers the body until carried values keep their types; `parameters` become the settled ones.
    fn settle(
        &self,
        cx: &InferContext<'_>,
        parameters: &mut [OutputType],
    ) -> OpResult<Vec<KnownOutput>> {
        for pass in 0.. {
            let results = {
                let mut infos: Vec<InputInfo<'_>> = parameters
                    .iter()
                    .map(|p| InputInfo {
                        element_type: p.element_type,
                        shape: &p.shape,
                        value: None,
                        dims: p.dims.as_deref(),
                    })
                    .collect();
                for (input, parameter) in &self.ports.invariant {
                    infos[*parameter].value = cx.value(*input);
                }
                infer_body(self.body, &infos)?
            };
            let mut settled = true;
            for m in &self.ports.merged {
                let next = &pick(&results, m.result as i64)?.ty;
                let now = &mut parameters[m.parameter];
                let mut wider = widen(now, next);
                if pass + 2 >= PASSES && wider != *now {
                    wider.shape = PartialShape::dynamic();
                }
                settled &= wider == *now;
                *now = wider;
            }
            if settled || pass >= PASSES {
                return Ok(results);
            }
        }
        unreachable!("the loop returns after a bounded number of passes")
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        let runner = BodyRunner::new(self.body)?;
        self.evaluate_with(inputs, &mut |arguments| runner.run(arguments))
    }

    fn evaluate_with(&self, inputs: &[Tensor], run_body: RunBody<'_>) -> OpResult<Vec<Tensor>> {
        let count = self.ports.output_count()?;
        let mut limit: Option<usize> = None;
        for port in &self.ports.sliced {
            let shape = PartialShape::from(pick(inputs, port.input as i64)?.shape());
            let n = port.iterations(&shape)?.unwrap_or(0);
            limit = Some(limit.map_or(n, |l| l.min(n)));
        }
        let mut goes_on = true;
        if self.is_loop {
            limit = match (limit, trip_limit(pick(inputs, 0)?)?) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            goes_on = condition(pick(inputs, 1)?)?;
        }
        let mut carried: Vec<Tensor> = self
            .ports
            .merged
            .iter()
            .map(|m| pick(inputs, m.input as i64).cloned())
            .collect::<OpResult<_>>()?;
        let mut arguments = vec![Tensor::absent(); self.body.parameters().len()];
        for (input, parameter) in &self.ports.invariant {
            *slot(&mut arguments, *parameter)? = pick(inputs, *input as i64)?.clone();
        }
        let mut pieces: Vec<Vec<Tensor>> = vec![Vec::new(); self.ports.concat.len()];
        let mut last: Vec<Option<Tensor>> = vec![None; self.ports.last.len()];
        let (mut iteration, mut gathered) = (0, 0usize);
        while goes_on && limit.is_none_or(|l| iteration < l) {
            for port in &self.ports.sliced {
                let piece = port.piece(&inputs[port.input], iteration)?;
                *slot(&mut arguments, port.parameter)? = piece;
            }
            for (m, value) in self.ports.merged.iter().zip(&mut carried) {
                let value = std::mem::replace(value, Tensor::absent());
                *slot(&mut arguments, m.parameter)? = value;
            }
            if let Some(parameter) = self.current_iteration {
                *slot(&mut arguments, parameter)? = self.iteration_number(parameter, iteration)?;
            }
            let results = run_body(&arguments)?;
            for (m, value) in self.ports.merged.iter().zip(&mut carried) {
                *value = pick(&results, m.result as i64)?.clone();
            }
            for (port, list) in self.ports.concat.iter().zip(&mut pieces) {
                let piece = pick(&results, port.result as i64)?;
                gathered = gathered.saturating_add(piece.byte_len().max(size_of::<Tensor>()));
                op_ensure!(
                    gathered <= memory_limit() / 2,
                    "the outputs of {iteration} iterations need {gathered} bytes, more than the limit of {}",
                    memory_limit() / 2
                );
                list.push(piece.clone());
            }
            for ((_, result), value) in self.ports.last.iter().zip(&mut last) {
                *value = Some(pick(&results, *result as i64)?.clone());
            }
            if let Some(c) = self.condition_output {
                goes_on = condition(pick(&results, c as i64)?)?;
            }
            iteration += 1;
        }
        let mut outputs = vec![Tensor::absent(); count];
        for ((output, result), value) in self.ports.last.iter().zip(last) {
            let first = self.ports.merged.iter().position(|m| m.result == *result);
            outputs[*output] = value.or_else(|| first.map(|i| carried[i].clone())).ok_or_else(|| {
                OpError::Invalid(format!("no iteration ran to give output {output}"))
            })?;
        }
        for (port, list) in self.ports.concat.iter().zip(pieces) {
            let empty = if list.is_empty() { self.empty_piece(port.result, inputs)? } else { Default::default() };
            outputs[port.output] = port.whole(list, &empty)?;
        }
        Ok(outputs)
    }

    /// The number of the iteration in the form that the body declares: a scalar or one element.
    fn iteration_number(&self, parameter: usize, iteration: usize) -> OpResult<Tensor> {
        let node = self.body.node(*pick(self.body.parameters(), parameter as i64)?);
        let number = Tensor::scalar(i64::try_from(iteration).unwrap_or(i64::MAX));
        let number = match node.element_type(0) {
            ElementType::Dynamic => number,
            ty => number.cast(ty)?,
        };
        Ok(if node.shape(0).rank() == Some(1) { number.reshape([1])? } else { number })
    }

    /// Type and shape (unknown extents 0) of a piece that no iteration gave.
    fn empty_piece(&self, result: usize, inputs: &[Tensor]) -> OpResult<(ElementType, Shape)> {
        let shapes: Vec<PartialShape> = inputs.iter().map(|t| t.shape().into()).collect();
        let infos: Vec<InputInfo<'_>> = inputs
            .iter()
            .zip(&shapes)
            .map(|(t, shape)| InputInfo { element_type: t.element_type(), shape, value: None, dims: None })
            .collect();
        let types = self.infer(&InferContext { inputs: &infos })?;
        let port = self.ports.concat.iter().find(|p| p.result == result);
        let Some(port) = port else { return Ok(Default::default()) };
        let ty = pick(&types, port.output as i64)?;
        let mut dims: Vec<usize> =
            ty.shape.dims().unwrap_or_default().iter().map(|d| d.value().unwrap_or(0)).collect();
        if port.part_size == 0 && !dims.is_empty() {
            dims.remove(super::super::normalize_axis(port.axis, dims.len())?);
        }
        Ok((ty.element_type, dims.into()))
    }
}

fn slot(arguments: &mut [Tensor], at: usize) -> OpResult<&mut Tensor> {
    let len = arguments.len();
    arguments
        .get_mut(at)
        .ok_or_else(|| OpError::Invalid(format!("port map names parameter {at} of {len}")))
}

impl From<InputInfo<'_>> for OutputType {
    fn from(info: InputInfo<'_>) -> Self {
        Self::new(info.element_type, info.shape.clone()).with_dims(info.dims.map(<[_]>::to_vec))
    }
}

/// The smallest type made of known and wholly unknown extents that covers both; no value.
pub(crate) fn widen(now: &OutputType, next: &OutputType) -> OutputType {
    let element_type = match (now.element_type, next.element_type) {
        (a, b) if a == b => a,
        (ElementType::Dynamic, b) => b,
        (a, ElementType::Dynamic) => a,
        _ => ElementType::Dynamic,
    };
    let shape = match (now.shape.dims(), next.shape.dims()) {
        (Some(a), Some(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .map(|(a, b)| if a.same(*b) || a == b { *a } else { Dimension::DYNAMIC })
            .collect(),
        _ => PartialShape::dynamic(),
    };
    OutputType::new(element_type, shape)
}
