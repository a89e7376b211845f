//! `SIM`, a simulated accelerator: it goes through the same traits as a real one, takes as long to compile and to infer
//! as it is told, and fails in the ways that real ones do.
//!
//! What it is told are properties ([`property`]). With [`SimOutput::Mark`](property::SimOutput::Mark) each element of
//! each output holds [`mark`] of device, compile and request, so that one pass over the outputs shows whether they
//! come from one inference of the right request on one device.

mod device_model;
pub mod property;

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use device_model::SimModel;
use property::CompileFault;

use crate::{
    error::{CompileError, DeviceError, PropertyError, Result},
    model::Model,
    plugin::{
        CancelToken, DeviceInfo, DeviceModel, DeviceResolver, ModelSource, NodeSupport, Plugin,
    },
    property::{PropertyInfo, PropertyMap, PropertyValue, device, hint, info, streams},
};

/// The name of the device that [`SimPlugin::create`] makes.
pub const NAME: &str = "SIM";

const PROPERTIES: &[PropertyInfo] = &[
    hint::PERFORMANCE_MODE.info(),
    hint::MODEL_PRIORITY.info(),
    streams::COMPILATION_NUM_THREADS.info(),
    streams::OPTIMAL_NUMBER_OF_INFER_REQUESTS.info(),
    device::FULL_NAME.info(),
    device::CAPABILITIES.info(),
    property::COMPILE_MS.info(),
    property::COMPILE_THREADS.info(),
    property::COMPILE_FAULT.info(),
    property::COMPILE_FAULT_PERCENT.info(),
    property::INFER_US.info(),
    property::INFER_JITTER_US.info(),
    property::INFER_FAULT.info(),
    property::INFER_FAULT_AFTER.info(),
    property::INFER_FAULT_COMPILES.info(),
    property::IGNORE_CANCEL.info(),
    property::OUTPUT.info(),
];

/// The plugin.
#[derive(Debug)]
pub struct SimPlugin {
    name: String,
    code: u8,
    health: Arc<Health>,
    compiles: AtomicU32,
}

/// What the models of a device share with it.
#[derive(Debug, Default)]
struct Health {
    released: AtomicBool,
    lost: AtomicBool,
    wake: (Mutex<()>, Condvar),
}

impl Health {
    /// Sleeps until `until`, the device is released, or `cancel` says so; true when the time has passed.
    fn sleep(&self, until: Option<Instant>, cancel: Option<&CancelToken>) -> bool {
        let mut guard = self.wake.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = until.map(|u| u.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return true;
            }
            if self.released.load(Ordering::Acquire) || cancel.is_some_and(CancelToken::is_canceled)
            {
                return false;
            }
            // A cancel wakes nobody, so it is looked for every millisecond.
            let nap = left.unwrap_or(POLL).min(if cancel.is_some() { POLL } else { Duration::MAX });
            guard = self.wake.1.wait_timeout(guard, nap).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

const POLL: Duration = Duration::from_millis(1);

impl SimPlugin {
    /// The device `SIM`, for [`register_plugin!`](crate::register_plugin).
    #[must_use]
    pub fn create() -> Arc<dyn Plugin> {
        Self::named(NAME, 1)
    }

    /// A device of another name, with its code in marks.
    #[must_use]
    pub fn named(name: &str, code: u8) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            code,
            health: Arc::default(),
            compiles: AtomicU32::new(0),
        })
    }

    /// How often it was asked to compile.
    pub fn compiles(&self) -> u32 {
        self.compiles.load(Ordering::Acquire)
    }

    /// Ends every hang, now and from now on, and finds a lost device again.
    pub fn release(&self) {
        self.health.lost.store(false, Ordering::Release);
        self.health.released.store(true, Ordering::Release);
        let _guard = self.health.wake.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.health.wake.1.notify_all();
    }

    fn failed(&self, detail: &str) -> crate::Error {
        DeviceError::Failed { name: self.name.clone(), source: detail.into() }.into()
    }

    /// Takes the time of a compile, and then its fault.
    fn spend(&self, model: &str, properties: &PropertyMap) -> Result<()> {
        let whole = Duration::from_millis(properties.get_or(property::COMPILE_MS, 0)?.into());
        let fault = properties.get_or(property::COMPILE_FAULT, CompileFault::None)?;
        let percent = properties.get_or(property::COMPILE_FAULT_PERCENT, 100)?.min(100);
        let share = if fault == CompileFault::None { 100 } else { percent };
        let end = Instant::now() + whole * share / 100;
        let limit = properties.get_or(streams::COMPILATION_NUM_THREADS, 0)?;
        let burners = match (properties.get_or(property::COMPILE_THREADS, 0)?, limit) {
            (threads, 0) => threads,
            (threads, limit) => threads.min(limit),
        };
        if burners == 0 {
            self.health.sleep(Some(end), None);
        } else {
            thread::scope(|scope| {
                for _ in 0..burners {
                    scope.spawn(|| burn(end));
                }
            });
        }
        match fault {
            CompileFault::None => Ok(()),
            CompileFault::Error => Err(CompileError::Other {
                device: self.name.clone(),
                model: model.to_owned(),
                detail: "a simulated error".to_owned(),
            }
            .into()),
            CompileFault::OutOfMemory => Err(self.failed("out of memory (simulated)")),
            CompileFault::Hang => {
                self.health.sleep(None, None);
                Err(self.failed("it hung (simulated)"))
            }
            #[expect(clippy::panic, reason = "the fault that was asked for")]
            CompileFault::Panic => panic!("a simulated panic"),
        }
    }
}

/// Computes until `end`.
fn burn(end: Instant) {
    let mut x = 1.0f64;
    while Instant::now() < end {
        for _ in 0..1000 {
            x = std::hint::black_box(x * 1.000_000_1 + 1e-9);
        }
    }
}

/// The mark of a device, of one of its compiles and of a request: exact in f32 for requests below 65,536.
#[must_use]
pub fn mark(code: u8, compile: u32, request: u16) -> f32 {
    let low = u32::from(code % 16) + 16 * (compile % 16);
    (u32::from(request) * 256 + low) as f32
}

/// Device code, compile and request of a mark.
#[must_use]
pub fn unmark(mark: f32) -> (u8, u32, u16) {
    let bits = mark as u32;
    ((bits % 16) as u8, bits / 16 % 16, (bits / 256) as u16)
}

impl Plugin for SimPlugin {
    fn name(&self) -> &str {
        &self.name
    }

    fn probe(&self) -> Result<Vec<DeviceInfo>, String> {
        Ok(vec![DeviceInfo { id: String::new(), full_name: "simulated accelerator".to_owned() }])
    }

    fn properties(&self) -> &'static [PropertyInfo] {
        PROPERTIES
    }

    fn property(&self, name: &str, _: &PropertyMap) -> Result<String> {
        Ok(match name {
            "PERFORMANCE_HINT" => hint::PerformanceMode::Latency.to_text(),
            "MODEL_PRIORITY" => hint::Priority::Medium.to_text(),
            "FULL_DEVICE_NAME" => "simulated accelerator".to_owned(),
            "OPTIMIZATION_CAPABILITIES" => "FP32".to_owned(),
            "OPTIMAL_NUMBER_OF_INFER_REQUESTS" => 1.to_text(),
            "SIM_COMPILE_FAULT" | "SIM_INFER_FAULT" => "NONE".to_owned(),
            "SIM_COMPILE_FAULT_PERCENT" => 100.to_text(),
            "SIM_IGNORE_CANCEL" => false.to_text(),
            "SIM_OUTPUT" => property::SimOutput::Evaluate.to_text(),
            _ if PROPERTIES.iter().any(|p| p.name == name) => 0.to_text(),
            _ => return Err(self.unknown(name)),
        })
    }

    fn compile_model(
        &self,
        model: &ModelSource,
        properties: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Arc<dyn DeviceModel>> {
        let compile = self.compiles.fetch_add(1, Ordering::AcqRel);
        let model = model.model()?;
        if self.health.lost.load(Ordering::Acquire) {
            return Err(self.failed("it is lost (simulated)"));
        }
        self.spend(model.name(), properties)?;
        Ok(Arc::new(SimModel::new(
            model.clone(),
            (&self.name, self.code, compile),
            properties,
            Arc::clone(&self.health),
        )?))
    }

    fn query_model(
        &self,
        model: &Model,
        _: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Vec<NodeSupport>> {
        let support = |id| {
            let node = model.node(id);
            NodeSupport {
                node: id,
                name: node.name().to_owned(),
                op: node.op().kind().to_string(),
                kernel: Ok("simulated".to_owned()),
            }
        };
        Ok(model.topological_order()?.into_iter().map(support).collect())
    }
}

impl SimPlugin {
    fn unknown(&self, name: &str) -> crate::Error {
        PropertyError::Unknown {
            name: name.to_owned(),
            device: self.name.clone(),
            nearest: String::new(),
        }
        .into()
    }
}

/// What a compiled model answers.
const MODEL_PROPERTIES: &[&str] = &[
    info::MODEL_NAME.name(),
    info::EXECUTION_DEVICES.name(),
    streams::OPTIMAL_NUMBER_OF_INFER_REQUESTS.name(),
];

#[cfg(test)]
mod tests {
    use super::{mark, unmark};

    #[test]
    fn marks_are_exact() {
        for (code, compile, request) in [(0, 0, 0), (15, 15, u16::MAX), (3, 7, 1000)] {
            assert_eq!(unmark(mark(code, compile, request)), (code, compile, request));
        }
    }
}
