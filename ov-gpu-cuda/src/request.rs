//! A request: tensors of its own, and a slot for as long as an inference takes.

use std::sync::Arc;

use ov_core::{
    ElementType, Tensor,
    error::{InferError, Result},
    model::Variable,
    plugin::{CancelToken, PortInfo, SyncRequest},
    profiling::{NodeProfile, NodeStatus},
};

use crate::{
    plan::Executable,
    pool::{Pool, Seat},
    runner::{Call, Memory, Times},
    states::DeviceStates,
};

/// One inference at a time.
#[derive(Debug)]
pub(crate) struct CudaRequest {
    exe: Arc<Executable>,
    pool: Arc<Pool>,
    memory: Memory,
    ports: Vec<PortInfo>,
    output_ports: Vec<PortInfo>,
    inputs: Vec<Tensor>,
    /// Inputs that have a tensor.
    set: Vec<bool>,
    outputs: Vec<Tensor>,
    states: DeviceStates,
    /// Where it ran last, if its states may lie there.
    seat: Option<Seat>,
    /// Outputs whose memory is the caller's.
    owned_by_caller: Vec<bool>,
    ran: bool,
    times: Option<Times>,
}

impl CudaRequest {
    pub(crate) fn new(
        exe: Arc<Executable>,
        pool: Arc<Pool>,
        inputs: &[PortInfo],
        outputs: &[PortInfo],
        variables: &[Variable],
        profile: bool,
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
        let (input_tensors, output_tensors) = (zeros(inputs)?, zeros(outputs)?);
        let set = input_tensors.iter().map(|t| !t.is_absent()).collect();
        let states = DeviceStates::new(variables, &exe.states)?;
        Ok(Self {
            exe,
            pool,
            memory: Memory::default(),
            set,
            ports: inputs.to_vec(),
            output_ports: outputs.to_vec(),
            inputs: input_tensors,
            owned_by_caller: vec![false; output_tensors.len()],
            states,
            seat: None,
            outputs: output_tensors,
            ran: false,
            times: profile.then(Vec::new),
        })
    }
}

/// Whether a port can start with zeros: sequences, maps and optionals cannot.
fn has_default(port: &PortInfo) -> bool {
    port.element_type.bits() > 0 || port.element_type == ElementType::String
}

impl SyncRequest for CudaRequest {
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

    fn infer(&mut self, cancel: &CancelToken) -> Result<()> {
        if let Some(index) = self.set.iter().position(|set| !set) {
            let port = &self.ports[index];
            return Err(
                InferError::NotSet { port: port.name.clone(), expected: port.type_text() }.into()
            );
        }
        if let Some(times) = &mut self.times {
            times.clear();
        }
        let mut lent = self.pool.borrow(self.seat)?;
        if !self.states.is_empty() {
            self.seat = lent.seat();
        }
        let mut call = Call { slot: lent.slot(), cancel, times: self.times.as_mut() };
        self.memory.run(
            &self.exe,
            &mut call,
            &self.inputs,
            &mut self.states,
            &mut self.outputs,
            &self.owned_by_caller,
        )?;
        drop(lent);
        self.ran = true;
        Ok(())
    }

    fn state(&self, name: &str) -> Result<Tensor> {
        self.states.value(name)
    }

    fn set_state(&mut self, name: &str, value: &Tensor) -> Result<()> {
        self.states.set(name, value)
    }

    fn reset_states(&mut self) {
        self.states.reset();
    }

    fn profiling(&self) -> Vec<NodeProfile> {
        let program = &self.exe.program;
        let times = self.times.as_deref().unwrap_or_default();
        times
            .iter()
            .map(|(node, wall)| {
                let node = &program.nodes[*node];
                NodeProfile {
                    name: node.name.clone(),
                    op: node.op.kind().to_string(),
                    kernel: ov_core::program::Kernel::name(node.kernel).to_owned(),
                    status: NodeStatus::Executed,
                    wall: *wall,
                    cpu: *wall,
                }
            })
            .collect()
    }
}
