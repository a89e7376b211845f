//! The compiled model of AUTO: what it answers follows what serves.

use std::sync::Arc;

use ov_core::{
    Blob, CancelToken, Error, PortInfo, Result,
    error::{InferError, PropertyError},
    plugin::{CompiledDevice, DeviceModel, SyncRequest},
    profiling::RuntimeNode,
    property::auto,
};

use crate::{
    DEVICE_NAME,
    executor::Executor,
    fleet::Fleet,
    handover::Handover,
    priority::Hold,
    request::{AutoRequest, Route},
    warming::Sample,
};

/// How requests reach devices.
pub(crate) enum Way {
    /// One device, whose own requests are handed out.
    Direct(CompiledDevice),
    /// One device at a time.
    Handover(Arc<Owner>),
    /// All devices.
    Fleet(Arc<Fleet>),
}

/// Ends the handover when the model and its requests are gone.
pub(crate) struct Owner(pub(crate) Arc<Handover>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Route for Owner {
    fn is_current(&self, executor: &Executor) -> bool {
        self.0.switch.epoch() == executor.epoch
    }

    fn current(&self, cancel: &CancelToken) -> Option<Arc<Executor>> {
        self.0.current(cancel)
    }

    fn replace(
        &self,
        executor: &Arc<Executor>,
        error: &Error,
        cancel: &CancelToken,
    ) -> Option<Arc<Executor>> {
        self.0.replace(executor, error, cancel)
    }

    fn infer_timeout(&self) -> Option<std::time::Duration> {
        self.0.options.infer_timeout
    }

    fn is_timing(&self) -> bool {
        self.0.is_timing()
    }

    fn claims_sample(&self) -> bool {
        self.0.claims_sample()
    }

    fn leave_sample(&self, sample: Sample) {
        self.0.leave_sample(sample);
    }
}

/// The model.
pub(crate) struct AutoModel {
    way: Way,
    inputs: Vec<PortInfo>,
    outputs: Vec<PortInfo>,
    names: Vec<&'static str>,
    _hold: Vec<Hold>,
}

impl AutoModel {
    pub(crate) fn new(way: Way, hold: Vec<Hold>) -> Result<Self> {
        let target = match &way {
            Way::Direct(target) => target.clone(),
            Way::Handover(owner) => {
                let current = owner.0.current(&CancelToken::new()).ok_or_else(nothing_serves)?;
                current.target.clone()
            }
            Way::Fleet(fleet) => fleet.members[0].executor.target.clone(),
        };
        let mut names = target.model.property_names().to_vec();
        if !matches!(way, Way::Direct(_)) {
            names.push(auto::PHASE.name());
        }
        let (inputs, outputs) = (target.model.inputs().to_vec(), target.model.outputs().to_vec());
        Ok(Self { way, inputs, outputs, names, _hold: hold })
    }

    /// Asks the model of whatever serves now.
    fn serving<T>(&self, ask: impl FnOnce(&dyn DeviceModel) -> T) -> Result<T> {
        Ok(match &self.way {
            Way::Direct(target) => ask(&*target.model),
            Way::Handover(owner) => {
                let current = owner.0.current(&CancelToken::new()).ok_or_else(nothing_serves)?;
                ask(&*current.target.model)
            }
            Way::Fleet(fleet) => ask(&*fleet.members[0].executor.target.model),
        })
    }

    fn execution_devices(&self) -> String {
        match &self.way {
            Way::Direct(target) => target.device.clone(),
            Way::Handover(owner) => owner.0.serving_device(),
            Way::Fleet(fleet) => {
                let works = fleet.members.iter().filter(|m| m.works());
                works.map(|m| m.executor.target.device.as_str()).collect::<Vec<_>>().join(",")
            }
        }
    }
}

#[cold]
fn nothing_serves() -> Error {
    InferError::Other {
        device: DEVICE_NAME.to_owned(),
        detail: "every device has failed: compile the model again".to_owned(),
    }
    .into()
}

impl DeviceModel for AutoModel {
    fn inputs(&self) -> &[PortInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[PortInfo] {
        &self.outputs
    }

    fn create_request(&self) -> Result<Box<dyn SyncRequest>> {
        let (route, executor): (Arc<dyn Route>, _) = match &self.way {
            Way::Direct(target) => return target.model.create_request(),
            Way::Handover(owner) => (Arc::clone(owner) as _, owner.0.current(&CancelToken::new())),
            Way::Fleet(fleet) => (Arc::clone(fleet) as _, fleet.next()),
        };
        Ok(Box::new(AutoRequest::new(route, executor.ok_or_else(nothing_serves)?)?))
    }

    fn blob(&self) -> Option<&Blob> {
        match &self.way {
            Way::Direct(target) => target.model.blob(),
            Way::Handover(_) | Way::Fleet(_) => None,
        }
    }

    fn property_names(&self) -> &[&'static str] {
        &self.names
    }

    fn property(&self, name: &str) -> Result<String> {
        match (name, &self.way) {
            ("EXECUTION_DEVICES", _) => Ok(self.execution_devices()),
            ("AUTO_PHASE", Way::Handover(owner)) => Ok(owner.0.phase().to_owned()),
            ("AUTO_PHASE", Way::Fleet(_)) => Ok("CUMULATIVE".to_owned()),
            ("OPTIMAL_NUMBER_OF_INFER_REQUESTS", Way::Fleet(fleet)) => {
                let slots = fleet.members.iter().filter(|m| m.works()).map(|m| m.slots);
                Ok(slots.sum::<usize>().to_string())
            }
            _ if self.names.contains(&name) => self.serving(|model| model.property(name))?,
            _ => Err(PropertyError::Unknown {
                name: name.to_owned(),
                device: DEVICE_NAME.to_owned(),
                nearest: String::new(),
            }
            .into()),
        }
    }

    fn state_names(&self) -> Vec<String> {
        self.serving(|model| model.state_names()).unwrap_or_default()
    }

    fn runtime_nodes(&self) -> Vec<RuntimeNode> {
        self.serving(|model| model.runtime_nodes()).unwrap_or_default()
    }
}
