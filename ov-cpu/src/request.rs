//! A request: tensors of its own and a runner.

use std::sync::Arc;

use ov_core::{
    ElementType, Tensor,
    error::{InferError, Result},
    plugin::{CancelToken, PortInfo, SyncRequest},
    profiling::{NodeProfile, NodeStatus},
    property::ProcessorSet,
    states::States,
};

use crate::{
    affinity,
    plan::Runner,
    priority::{Control, Place},
};

/// One inference at a time on one stream.
#[derive(Debug)]
pub(crate) struct CpuRequest {
    runner: Runner,
    place: Arc<Place>,
    seat: Seat,
    ports: Vec<PortInfo>,
    output_ports: Vec<PortInfo>,
    /// Tensors of the inputs, then of the hidden ones.
    inputs: Vec<Tensor>,
    /// Inputs that have a tensor; the marker of an absent optional counts as one once it was set.
    set: Vec<bool>,
    /// Tensors of the outputs, then of the hidden ones.
    outputs: Vec<Tensor>,
    states: States,
    /// Outputs whose memory is the caller's.
    owned_by_caller: Vec<bool>,
    ran: bool,
}

/// A request's part of a stream.
#[derive(Debug)]
pub(crate) struct Seat {
    /// The processors of the stream's first thread, when it shall be bound.
    pub(crate) bind: Option<ProcessorSet>,
    /// Counts the stream's requests.
    pub(crate) _user: Arc<()>,
}

impl CpuRequest {
    pub(crate) fn new(
        mut runner: Runner,
        place: Arc<Place>,
        seat: Seat,
        inputs: &[PortInfo],
        outputs: &[PortInfo],
        states: States,
    ) -> Result<Self> {
        let zeros = |ports: &[PortInfo]| {
            ports
                .iter()
                .map(|p| match p.shape.to_shape().filter(|_| has_default(p)) {
                    Some(shape) => Tensor::zeros(p.element_type, shape).map_err(InferError::Tensor),
                    None => Ok(Tensor::absent()),
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let (mut input_tensors, mut output_tensors) = (zeros(inputs)?, zeros(outputs)?);
        input_tensors.extend_from_slice(states.initial());
        output_tensors.resize(outputs.len() + states.len(), Tensor::absent());
        if !input_tensors.iter().any(Tensor::is_absent) {
            runner.prepare(&input_tensors)?;
        }
        let set = input_tensors.iter().map(|t| !t.is_absent()).collect();
        Ok(Self {
            runner,
            place,
            seat,
            set,
            ports: inputs.to_vec(),
            output_ports: outputs.to_vec(),
            inputs: input_tensors,
            owned_by_caller: vec![false; output_tensors.len()],
            states,
            outputs: output_tensors,
            ran: false,
        })
    }
}

/// Whether a port can start with zeros: sequences, maps and optionals cannot.
fn has_default(port: &PortInfo) -> bool {
    port.element_type.bits() > 0 || port.element_type == ElementType::String
}

impl SyncRequest for CpuRequest {
    fn set_input(&mut self, index: usize, tensor: Tensor) -> Result<()> {
        self.inputs[index] = tensor.to_contiguous();
        self.set[index] = true;
        Ok(())
    }

    fn input(&self, index: usize) -> Option<&Tensor> {
        self.inputs.get(index).filter(|_| self.set[index])
    }

    fn input_mut(&mut self, index: usize) -> Option<&mut Tensor> {
        self.inputs.get_mut(index).filter(|_| self.set[index])
    }

    fn set_output(&mut self, index: usize, tensor: Tensor) -> Result<()> {
        self.outputs[index] = tensor;
        self.owned_by_caller[index] = true;
        Ok(())
    }

    fn output(&self, index: usize) -> Option<&Tensor> {
        self.outputs
            .get(index)
            .filter(|t| self.ran || (!t.is_absent() && self.output_ports[index].shape.is_static()))
    }

    fn adopt_thread(&mut self) {
        if let Some(processors) = &self.seat.bind {
            affinity::bind_to(processors.ids());
        }
    }

    fn infer(&mut self, cancel: &CancelToken) -> Result<()> {
        if let Some(index) = self.set.iter().position(|set| !set) {
            let port = &self.ports[index];
            return Err(
                InferError::NotSet { port: port.name.clone(), expected: port.type_text() }.into()
            );
        }
        let control = Control::new(cancel).with_turn(self.place.turn());
        self.runner.run(&self.inputs, &mut self.outputs, &self.owned_by_caller, &control)?;
        self.ran = true;
        let (inputs, outputs) = (self.ports.len(), self.output_ports.len());
        self.states.advance(&mut self.inputs[inputs..], &mut self.outputs[outputs..]);
        Ok(())
    }

    fn state(&self, name: &str) -> Result<Tensor> {
        self.states.value(&self.inputs[self.ports.len()..], name)
    }

    fn set_state(&mut self, name: &str, value: &Tensor) -> Result<()> {
        self.states.set(&mut self.inputs[self.ports.len()..], name, value)
    }

    fn reset_states(&mut self) {
        self.states.reset(&mut self.inputs[self.ports.len()..]);
    }

    fn profiling(&self) -> Vec<NodeProfile> {
        let program = self.runner.executable().program();
        self.runner
            .profile()
            .iter()
            .map(|step| {
                let node = &program.nodes[step.node];
                NodeProfile {
                    name: node.name.clone(),
                    op: node.op.kind().to_string(),
                    kernel: node.kernel.name.to_owned(),
                    status: NodeStatus::Executed,
                    wall: step.duration,
                    cpu: step.duration,
                }
            })
            .collect()
    }
}
