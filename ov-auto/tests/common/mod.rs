//! Two simulated devices under AUTO: `CUDA`, the accelerator, and `CPU`, the helper.
#![allow(dead_code, reason = "each test uses its part")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ov_auto::AutoPlugin;
use ov_core::{
    CompiledModel, Core, ElementType, InferRequest, Model, PropertyMap, Result, Tensor,
    op::activation::Relu,
    plugin::Plugin,
    testing::sim::{SimPlugin, unmark},
};

/// Codes in marks.
pub(crate) const CUDA: u8 = 1;
pub(crate) const CPU: u8 = 2;

pub(crate) struct Rig {
    pub(crate) core: Core,
    pub(crate) cuda: Arc<SimPlugin>,
    pub(crate) cpu: Arc<SimPlugin>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let (cuda, cpu) = (SimPlugin::named("CUDA", CUDA), SimPlugin::named("CPU", CPU));
        let plugins: [Arc<dyn Plugin>; 3] =
            [AutoPlugin::create(), Arc::clone(&cuda) as _, Arc::clone(&cpu) as _];
        let core = Core::with_plugins(plugins).expect("three names");
        Self { core, cuda, cpu }
    }

    /// Compiles with AUTO's properties and those of the accelerator and the helper.
    pub(crate) fn compile(
        &self,
        device: &str,
        auto: &[(&str, &str)],
        cuda: &str,
        cpu: &str,
    ) -> Result<CompiledModel> {
        let single = format!("{{CUDA:{{SIM_OUTPUT:MARK,{cuda}}},CPU:{{SIM_OUTPUT:MARK,{cpu}}}}}");
        let mut map = PropertyMap::new().with_text("DEVICE_PROPERTIES", &single)?;
        for (name, text) in auto {
            map.set_text(name, text)?;
        }
        self.core.compile_model(model(), device, &map)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.cuda.release();
        self.cpu.release();
    }
}

pub(crate) fn model() -> Model {
    let mut model = Model::new("m");
    let x = model.add_parameter("x", ElementType::F32, [8]).expect("valid");
    let y = model.add(Relu {}, &[x], "y").expect("valid");
    model.add_output("y", y);
    model
}

/// Runs an inference and gives the device, compile and request that its outputs show, all elements alike.
pub(crate) fn infer(request: &mut InferRequest, id: u16) -> Result<(u8, u32, u16)> {
    request.set_input(0, Tensor::from_vec([8], vec![f32::from(id); 8])?)?;
    request.infer()?;
    let output = request.output(0)?;
    let values = output.as_slice::<f32>()?;
    assert!(
        values.iter().all(|v| v.to_bits() == values[0].to_bits()),
        "a mixed output: {values:?}"
    );
    Ok(unmark(values[0]))
}

/// Waits until a property has a value.
pub(crate) fn wait_for(compiled: &CompiledModel, property: &str, value: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let now = compiled.property(property).expect("known");
        if now == value {
            return;
        }
        assert!(Instant::now() < end, "{property} is {now}, expected {value}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
