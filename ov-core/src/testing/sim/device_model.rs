//! A model that the simulated accelerator compiled, and its requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Health, MODEL_PROPERTIES, mark,
    property::{self, InferFault, SimOutput},
};
use crate::{
    error::{CompileError, DeviceError, InferError, PropertyError, Result},
    model::Model,
    plugin::{CancelToken, DeviceModel, PortInfo, SyncRequest},
    property::{PropertyMap, PropertyValue},
    reference,
    tensor::{ElementType, Tensor},
};

/// What the model and its requests share.
#[derive(Debug)]
struct Shared {
    model: Model,
    device: String,
    code: u8,
    compile: u32,
    least: Duration,
    jitter_us: u64,
    fault: InferFault,
    fault_after: u32,
    ignore_cancel: bool,
    output: SimOutput,
    health: Arc<Health>,
    done: AtomicU32,
    random: AtomicU64,
}

pub(super) struct SimModel {
    shared: Arc<Shared>,
    inputs: Vec<PortInfo>,
    outputs: Vec<PortInfo>,
}

impl SimModel {
    pub(super) fn new(
        model: Model,
        (device, code, compile): (&str, u8, u32),
        properties: &PropertyMap,
        health: Arc<Health>,
    ) -> Result<Self> {
        let (inputs, outputs) = (PortInfo::inputs_of(&model), PortInfo::outputs_of(&model));
        let output = properties.get_or(property::OUTPUT, SimOutput::Evaluate)?;
        if output == SimOutput::Mark
            && let Some(open) = outputs.iter().find(|p| p.shape.to_shape().is_none())
        {
            return Err(CompileError::Other {
                device: device.to_owned(),
                model: model.name().to_owned(),
                detail: format!(
                    "marks need static outputs, {:?} is {}",
                    open.name,
                    open.type_text()
                ),
            }
            .into());
        }
        let faulty = match properties.get_or(property::INFER_FAULT_COMPILES, 0)? {
            0 => true,
            compiles => compile < compiles,
        };
        let fault = properties.get_or(property::INFER_FAULT, InferFault::None)?;
        let shared = Arc::new(Shared {
            device: device.to_owned(),
            code,
            compile,
            least: Duration::from_micros(properties.get_or(property::INFER_US, 0)?.into()),
            jitter_us: properties.get_or(property::INFER_JITTER_US, 0)?.into(),
            fault: if faulty { fault } else { InferFault::None },
            fault_after: properties.get_or(property::INFER_FAULT_AFTER, 0)?,
            ignore_cancel: properties.get_or(property::IGNORE_CANCEL, false)?,
            output,
            health,
            done: AtomicU32::new(0),
            random: AtomicU64::new(0x9E37_79B9_7F4A_7C15 ^ u64::from(compile)),
            model,
        });
        Ok(Self { shared, inputs, outputs })
    }
}

impl DeviceModel for SimModel {
    fn inputs(&self) -> &[PortInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[PortInfo] {
        &self.outputs
    }

    fn create_request(&self) -> Result<Box<dyn SyncRequest>> {
        let fresh = |port: &PortInfo| -> Result<Option<Tensor>> {
            let Some(shape) = port.shape.to_shape() else { return Ok(None) };
            Ok(Some(Tensor::zeros(port.element_type, shape)?))
        };
        Ok(Box::new(SimRequest {
            shared: Arc::clone(&self.shared),
            inputs: self.inputs.iter().map(fresh).collect::<Result<_>>()?,
            outputs: self.outputs.iter().map(fresh).collect::<Result<_>>()?,
        }))
    }

    fn property_names(&self) -> &[&'static str] {
        MODEL_PROPERTIES
    }

    fn property(&self, name: &str) -> Result<String> {
        Ok(match name {
            "NETWORK_NAME" => self.shared.model.name().to_owned(),
            "EXECUTION_DEVICES" => self.shared.device.clone(),
            "OPTIMAL_NUMBER_OF_INFER_REQUESTS" => 1.to_text(),
            _ => {
                return Err(PropertyError::Unknown {
                    name: name.to_owned(),
                    device: self.shared.device.clone(),
                    nearest: String::new(),
                }
                .into());
            }
        })
    }
}

struct SimRequest {
    shared: Arc<Shared>,
    inputs: Vec<Option<Tensor>>,
    outputs: Vec<Option<Tensor>>,
}

impl Shared {
    fn failed(&self, detail: &str) -> crate::Error {
        DeviceError::Failed { name: self.device.clone(), source: detail.into() }.into()
    }

    fn latency(&self) -> Duration {
        if self.jitter_us == 0 {
            return self.least;
        }
        // splitmix64: https://prng.di.unimi.it/splitmix64.c
        let mut z = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        self.least + Duration::from_micros((z ^ (z >> 31)) % (self.jitter_us + 1))
    }

    /// The fault of the inference that starts now.
    fn fault(&self) -> InferFault {
        let done = self.done.fetch_add(1, Ordering::AcqRel);
        if done < self.fault_after { InferFault::None } else { self.fault }
    }
}

impl SyncRequest for SimRequest {
    fn set_input(&mut self, index: usize, tensor: Tensor) -> Result<()> {
        self.inputs[index] = Some(tensor);
        Ok(())
    }

    fn input(&self, index: usize) -> Option<&Tensor> {
        self.inputs[index].as_ref()
    }

    fn input_mut(&mut self, index: usize) -> Option<&mut Tensor> {
        self.inputs[index].as_mut()
    }

    fn set_output(&mut self, index: usize, tensor: Tensor) -> Result<()> {
        self.outputs[index] = Some(tensor);
        Ok(())
    }

    fn output(&self, index: usize) -> Option<&Tensor> {
        self.outputs[index].as_ref()
    }

    fn infer(&mut self, cancel: &CancelToken) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let cancel = (!shared.ignore_cancel).then_some(cancel);
        cancel.map_or(Ok(()), CancelToken::check)?;
        if shared.health.lost.load(Ordering::Acquire) {
            return Err(shared.failed("it is lost (simulated)"));
        }
        let start = Instant::now();
        let fault = shared.fault();
        match fault {
            InferFault::Error => return Err(shared.failed("a simulated error")),
            #[expect(clippy::panic, reason = "the fault that was asked for")]
            InferFault::Panic => panic!("a simulated panic"),
            InferFault::Hang => {
                shared.health.sleep(None, cancel);
                cancel.map_or(Ok(()), CancelToken::check)?;
            }
            InferFault::Lost => {
                shared.health.lost.store(true, Ordering::Release);
                return Err(shared.failed("it is lost (simulated)"));
            }
            InferFault::None | InferFault::Nan | InferFault::Wrong => {}
        }
        match shared.output {
            SimOutput::Mark => self.write_marks(fault)?,
            SimOutput::Evaluate => self.evaluate(fault)?,
        }
        let latency = shared.latency();
        if !latency.is_zero() {
            shared.health.sleep(Some(start + latency), cancel);
        }
        cancel.map_or(Ok(()), CancelToken::check)
    }
}

impl SimRequest {
    /// Writes the mark of the request that the first element of the first input names.
    fn write_marks(&mut self, fault: InferFault) -> Result<()> {
        let first = self.inputs.first().and_then(Option::as_ref);
        let request = match first.map(Tensor::to_f64_vec).transpose()?.as_deref() {
            Some([first, ..]) => *first as u16,
            _ => 0,
        };
        let value = match fault {
            InferFault::Nan => f32::NAN,
            InferFault::Wrong => -mark(self.shared.code, self.shared.compile, request) - 1.0,
            _ => mark(self.shared.code, self.shared.compile, request),
        };
        for output in self.outputs.iter_mut().flatten() {
            if !output.is_writable() {
                *output = Tensor::zeros(output.element_type(), output.shape().clone())?;
            }
            if output.element_type() == ElementType::F32 {
                output.view_mut::<f32>()?.fill(value);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, fault: InferFault) -> Result<()> {
        let inputs: Vec<Tensor> = self.inputs.iter().flatten().cloned().collect();
        let results = reference::evaluate(&self.shared.model, &inputs)?;
        for (place, result) in self.outputs.iter_mut().zip(results) {
            let mut result = result.to_owned_tensor();
            if result.element_type() == ElementType::F32 && fault != InferFault::None {
                let spoil =
                    |v: &mut f32| *v = if fault == InferFault::Nan { f32::NAN } else { *v + 1.0 };
                result.view_mut::<f32>()?.iter_mut().for_each(spoil);
            }
            let Some(lent) = place else {
                *place = Some(result);
                continue;
            };
            if !lent.is_writable() {
                *lent = result;
            } else if lent.shape() == result.shape() {
                lent.bytes_mut()?.copy_from_slice(result.bytes());
            } else {
                return Err(InferError::Other {
                    device: self.shared.device.clone(),
                    detail: format!(
                        "a result of {} for an output of {}",
                        result.shape(),
                        lent.shape()
                    ),
                }
                .into());
            }
        }
        Ok(())
    }
}
