//! Runs an executable on a slot: the parts of a plan one after the other, stage by stage.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ov_core::{
    CancelToken, ElementType, Shape, Tensor,
    error::{InferError, Result},
    op::{OpError, OpResult, control_flow},
};

use crate::{
    plan::{
        BuildError, Executable, Given, GivenFrom, HostInput, HostPart, KeptFrom, Part, Plan,
        evaluate,
    },
    slot::{HostValues, Slot, unexpected},
    states::DeviceStates,
};

/// Times of the nodes of an inference, by their index in the program.
pub(crate) type Times = Vec<(usize, Duration)>;

/// What an inference is run with.
pub(crate) struct Call<'a> {
    pub(crate) slot: &'a mut Slot,
    pub(crate) cancel: &'a CancelToken,
    /// Filled with times when the slot takes them.
    pub(crate) times: Option<&'a mut Times>,
}

/// The host's values of a program, kept from one inference to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    made: Vec<Option<Tensor>>,
    /// The plan of the last inference, so that the same shapes need no look-up.
    last: Option<Arc<Plan>>,
}

impl Memory {
    fn plan(
        &mut self,
        exe: &Executable,
        inputs: &[Tensor],
        states: &DeviceStates,
    ) -> Result<Arc<Plan>> {
        let types = || inputs.iter().map(|t| (t.element_type(), t.shape())).chain(states.types());
        if let Some(plan) = &self.last
            && plan.inputs.iter().map(|(ty, shape)| (*ty, shape)).eq(types())
        {
            return Ok(Arc::clone(plan));
        }
        let signature: Vec<(ElementType, Shape)> =
            types().map(|(ty, shape)| (ty, shape.clone())).collect();
        let plan = exe.plan(&signature).map_err(infer_error)?;
        self.last = Some(Arc::clone(&plan));
        Ok(plan)
    }

    /// One inference. `inputs` are contiguous tensors of the types of the program's inputs, without those of variables, whose
    /// values `states` holds before and, if all goes well, after it. `outputs` are written in place where type and shape fit
    /// and the memory is free, else replaced; those that are `fixed` are the caller's memory and are never replaced.
    ///
    /// # Errors
    /// When an operator refuses shapes or values, a fixed output does not fit, memory is short, the device fails, or the
    /// inference was cancelled.
    pub(crate) fn run(
        &mut self,
        exe: &Executable,
        call: &mut Call<'_>,
        inputs: &[Tensor],
        states: &mut DeviceStates,
        outputs: &mut [Tensor],
        fixed: &[bool],
    ) -> Result<()> {
        states.begin();
        let mut plan = self.plan(exe, inputs, states)?;
        self.made.resize(exe.program.values.len(), None);
        loop {
            for given in &plan.given {
                prepare(exe, given, outputs, fixed)?;
            }
            states.ready(&plan.state_uses, call.slot)?;
            let instance = call.slot.prepare(&plan, states)?;
            for (index, part) in plan.parts.iter().enumerate() {
                call.cancel.check()?;
                match part {
                    Part::Graph(_) => {
                        let hidden = states.hidden();
                        let mut values = HostValues { inputs, hidden, made: &mut self.made };
                        let times = call.times.as_deref_mut();
                        call.slot.run(instance, index, &mut values, outputs, times)?;
                    }
                    Part::Host(step) => {
                        let results = self.host(exe, call, step, inputs, states.hidden())?;
                        self.keep(exe, step, results);
                    }
                }
            }
            for given in &plan.given {
                if let GivenFrom::Host(source) = given.from {
                    let hidden = states.hidden();
                    let values = HostValues { inputs, hidden, made: &mut self.made };
                    fill(&mut outputs[given.output], values.get(source)?, &given.shape)?;
                }
            }
            for kept in &plan.kept {
                let value = match &kept.from {
                    KeptFrom::Held(value) => Some(value.clone()),
                    KeptFrom::Host(source) => {
                        let hidden = states.hidden();
                        let values = HostValues { inputs, hidden, made: &mut self.made };
                        let value = values.get(*source)?.to_owned_tensor();
                        Some(value.reshape(kept.shape.clone())?)
                    }
                    KeptFrom::Same | KeptFrom::Written => None,
                };
                states.note(kept, value);
            }
            let Some(tail) = &plan.tail else { break };
            call.cancel.check()?;
            let results = self.host(exe, call, &tail.step, inputs, states.hidden())?;
            let types: Vec<(ElementType, Shape)> =
                results.iter().map(|t| (t.element_type(), t.shape().clone())).collect();
            self.keep(exe, &tail.step, results);
            let next = exe.plan_after(tail, &types).map_err(infer_error)?;
            plan = next;
        }
        states.advance();
        Ok(())
    }

    fn keep(&mut self, exe: &Executable, step: &HostPart, results: Vec<Tensor>) {
        for (value, tensor) in exe.node(step.node).outputs.iter().zip(results) {
            self.made[*value as usize] = Some(tensor);
        }
    }

    /// Evaluates a node on the host; control flow runs its bodies on the device.
    fn host(
        &mut self,
        exe: &Executable,
        call: &mut Call<'_>,
        step: &HostPart,
        inputs: &[Tensor],
        hidden: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        let start = Instant::now();
        let node = exe.node(step.node);
        let values = HostValues { inputs, hidden, made: &mut self.made };
        let arguments = step
            .inputs
            .iter()
            .map(|input| match input {
                HostInput::Held(value) => Ok(value.clone()),
                HostInput::Found(source, shape) => {
                    let value = values.get(*source)?;
                    if value.shape() == shape {
                        return Ok(value.clone());
                    }
                    Ok(value.to_contiguous().reshape(shape.clone())?)
                }
            })
            .collect::<Result<Vec<_>>>()?;
        let bodies = &exe.bodies[step.node];
        let results = if bodies.is_empty() {
            evaluate(&*node.op, &arguments, &step.outputs)
        } else {
            let mut run_body = |index: usize, arguments: &[Tensor]| {
                let body = bodies.get(index).ok_or_else(|| {
                    OpError::Invalid(format!("the program holds no body {index}"))
                })?;
                run_body(body, call, arguments)
            };
            control_flow::run(&*node.op, &arguments, &mut run_body)
        };
        call.cancel.check()?;
        let results = results.map_err(|source| InferError::Op {
            op: node.op.kind().to_string(),
            node: node.name.clone(),
            source,
        })?;
        if results.len() < node.outputs.len() {
            return Err(unexpected(format!("{:?} gave {} outputs", node.name, results.len())));
        }
        if let Some(times) = call.times.as_deref_mut() {
            times.push((step.node, start.elapsed()));
        }
        Ok(results.iter().map(Tensor::to_contiguous).collect())
    }
}

/// Runs a body on values that an operator computed, after checking them against the body's inputs.
fn run_body(body: &Executable, call: &mut Call<'_>, arguments: &[Tensor]) -> OpResult<Vec<Tensor>> {
    let program = &body.program;
    if arguments.len() != program.inputs.len() {
        let (got, expected) = (arguments.len(), program.inputs.len());
        return Err(OpError::Invalid(format!("{got} values given to a body of {expected} inputs")));
    }
    for (port, tensor) in program.inputs.iter().zip(arguments) {
        let desc = &program.values[port.value as usize];
        let fits = [tensor.element_type(), ElementType::Dynamic].contains(&desc.element_type);
        if !fits || !desc.shape.admits(tensor.shape()) {
            return Err(OpError::Invalid(format!(
                "body input {:?} is {}{}, expected {}{}",
                port.name,
                tensor.element_type(),
                tensor.shape(),
                desc.element_type,
                desc.shape
            )));
        }
    }
    let inputs: Vec<Tensor> = arguments.iter().map(Tensor::to_contiguous).collect();
    let mut outputs = vec![Tensor::absent(); program.outputs.len()];
    // The times of a body belong to the node that runs it.
    let mut call = Call { slot: call.slot, cancel: call.cancel, times: None };
    Memory::default()
        .run(body, &mut call, &inputs, &mut DeviceStates::none(), &mut outputs, &[])
        .map_err(|e| OpError::Invalid(e.to_string()))?;
    Ok(outputs)
}

/// Makes the tensor of an output ready to be written.
fn prepare(exe: &Executable, given: &Given, outputs: &mut [Tensor], fixed: &[bool]) -> Result<()> {
    let tensor = &mut outputs[given.output];
    let fits = tensor.element_type() == given.element_type && *tensor.shape() == given.shape;
    if fixed.get(given.output) == Some(&true) {
        if !fits {
            return Err(InferError::Mismatch {
                direction: "output",
                port: exe.program.outputs[given.output].name.clone(),
                expected: format!("{}{}", tensor.element_type(), tensor.shape()),
                got: format!("{}{}", given.element_type, given.shape),
            }
            .into());
        }
    } else if let GivenFrom::Held(value) = &given.from {
        *tensor = value.clone();
        return Ok(());
    } else if given.element_type.bits() > 0 && (!fits || !tensor.is_writable()) {
        *tensor = Tensor::zeros(given.element_type, given.shape.clone())?;
    }
    if let GivenFrom::Held(value) = &given.from {
        fill(tensor, value, &given.shape)?;
    }
    Ok(())
}

/// Copies a value into the memory of an output; texts and sequences are shared.
fn fill(output: &mut Tensor, value: &Tensor, shape: &Shape) -> Result<()> {
    if value.element_type().bits() == 0 {
        *output =
            if value.shape() == shape { value.clone() } else { value.reshape(shape.clone())? };
        return Ok(());
    }
    output.bytes_mut()?.copy_from_slice(value.to_contiguous().unaligned_bytes());
    Ok(())
}

fn infer_error(error: BuildError) -> InferError {
    InferError::Op { op: error.op, node: error.node, source: error.source }
}
