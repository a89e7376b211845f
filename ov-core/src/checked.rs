//! A compiled model whose weights are still being checked: results come out only while no damage is known.

use std::{io::Write, sync::Arc};

use crate::{
    blob::Blob,
    cache::WeightCheck,
    error::Result,
    plugin::{CancelToken, DeviceModel, PortInfo, SyncRequest},
    profiling::{NodeProfile, RuntimeNode},
    tensor::Tensor,
};

/// A model with the check of its weights.
pub(crate) struct CheckedModel {
    pub(crate) model: Arc<dyn DeviceModel>,
    pub(crate) check: Arc<WeightCheck>,
}

impl DeviceModel for CheckedModel {
    fn inputs(&self) -> &[PortInfo] {
        self.model.inputs()
    }

    fn outputs(&self) -> &[PortInfo] {
        self.model.outputs()
    }

    fn create_request(&self) -> Result<Box<dyn SyncRequest>> {
        let request = self.model.create_request()?;
        Ok(Box::new(CheckedRequest { request, check: Arc::clone(&self.check) }))
    }

    fn blob(&self) -> Option<&Blob> {
        self.model.blob()
    }

    fn export(&self, to: &mut dyn Write) -> Result<()> {
        self.check.settle()?;
        self.model.export(to)
    }

    fn property_names(&self) -> &[&'static str] {
        self.model.property_names()
    }

    fn property(&self, name: &str) -> Result<String> {
        self.model.property(name)
    }

    fn runtime_nodes(&self) -> Vec<RuntimeNode> {
        self.model.runtime_nodes()
    }
}

struct CheckedRequest {
    request: Box<dyn SyncRequest>,
    check: Arc<WeightCheck>,
}

impl SyncRequest for CheckedRequest {
    fn set_input(&mut self, index: usize, tensor: Tensor) -> Result<()> {
        self.request.set_input(index, tensor)
    }

    fn input(&self, index: usize) -> Option<&Tensor> {
        self.request.input(index)
    }

    fn input_mut(&mut self, index: usize) -> Option<&mut Tensor> {
        self.request.input_mut(index)
    }

    fn set_output(&mut self, index: usize, tensor: Tensor) -> Result<()> {
        self.request.set_output(index, tensor)
    }

    fn output(&self, index: usize) -> Option<&Tensor> {
        self.request.output(index)
    }

    fn infer(&mut self, cancel: &CancelToken) -> Result<()> {
        self.request.infer(cancel)?;
        self.check.settle()
    }

    fn execution_device(&self) -> Option<&str> {
        self.request.execution_device()
    }

    fn profiling(&self) -> Vec<NodeProfile> {
        self.request.profiling()
    }

    fn state_names(&self) -> Vec<String> {
        self.request.state_names()
    }

    fn state(&self, name: &str) -> Result<Tensor> {
        self.request.state(name)
    }

    fn set_state(&mut self, name: &str, value: &Tensor) -> Result<()> {
        self.request.set_state(name, value)
    }

    fn reset_states(&mut self) {
        self.request.reset_states();
    }
}
