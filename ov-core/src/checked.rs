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

    fn state_names(&self) -> Vec<String> {
        self.model.state_names()
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

    fn adopt_thread(&mut self) {
        self.request.adopt_thread();
    }

    fn execution_device(&self) -> Option<&str> {
        self.request.execution_device()
    }

    fn profiling(&self) -> Vec<NodeProfile> {
        self.request.profiling()
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Inner(Arc<AtomicUsize>);

    impl SyncRequest for Inner {
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
            None
        }

        fn infer(&mut self, _: &CancelToken) -> Result<()> {
            Ok(())
        }

        fn adopt_thread(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_device_hears_of_a_thread_of_its_own() {
        let adopted = Arc::new(AtomicUsize::new(0));
        let check = Arc::new(WeightCheck::new(false));
        let mut request = CheckedRequest { request: Box::new(Inner(Arc::clone(&adopted))), check };
        request.adopt_thread();
        assert_eq!(adopted.load(Ordering::Relaxed), 1);
        request.infer(&CancelToken::new()).expect("no damage is known");
        request.check.end(Err("damage".to_owned()));
        request.infer(&CancelToken::new()).expect_err("damage is known");
    }
}
