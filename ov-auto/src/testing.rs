//! A device model, and a request of it, that tests look into.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use ov_core::{
    CancelToken, Result, Tensor,
    plugin::{DeviceModel, PortInfo, SyncRequest},
};

/// Has no inputs, computes nothing and gives the same output always.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    /// Counts how often a request was given a thread, on whichever thread that happened.
    pub(crate) adopted: Arc<AtomicUsize>,
    pub(crate) output: Option<Tensor>,
}

impl DeviceModel for Fake {
    fn inputs(&self) -> &[PortInfo] {
        &[]
    }

    fn outputs(&self) -> &[PortInfo] {
        &[]
    }

    fn create_request(&self) -> Result<Box<dyn SyncRequest>> {
        Ok(Box::new(self.clone()))
    }

    fn property_names(&self) -> &[&'static str] {
        &[]
    }

    fn property(&self, _: &str) -> Result<String> {
        Ok(String::new())
    }
}

impl SyncRequest for Fake {
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
        self.output.as_ref()
    }

    fn infer(&mut self, _: &CancelToken) -> Result<()> {
        Ok(())
    }

    fn adopt_thread(&mut self) {
        self.adopted.fetch_add(1, Ordering::Relaxed);
    }
}
