//! The device as users see it, on a driver library without a GPU, or with `OV_CUDA_HARDWARE=1` on this machine's.

mod blobs;
mod conformance;
mod encoders;
mod failures;
mod models;
mod plans;
mod quantized;
mod several;
mod states;
mod vertical;

use std::sync::Arc;

use ov_core::{
    Core, ElementType, Model, PropertyMap, Shape, Tensor, model::Value, property::hint, reference,
};

use crate::{
    CudaPlugin,
    driver::{Api, Driver},
    testing::{FakeCuda, HostCompiler, on_hardware},
};

/// A core with this device only, on a driver of its own. The core goes first: it calls the driver until it is dropped.
pub(crate) struct Machine {
    pub(crate) core: Core,
    fake: Option<FakeCuda>,
}

impl Machine {
    /// The driver's knobs and counters.
    pub(crate) fn fake(&self) -> &FakeCuda {
        self.fake.as_ref().expect("tests that turn knobs ask for a driver that has them")
    }

    /// What went wrong in the first kernel that failed, where the driver can tell.
    pub(crate) fn message(&self) -> String {
        self.fake.as_ref().map_or_else(String::new, FakeCuda::message)
    }
}

/// A machine whose driver has knobs; `None`, with a line that says so, without a C++ compiler and where tests run on
/// hardware.
pub(crate) fn faked() -> Option<Machine> {
    if on_hardware() {
        println!("SKIPPED: needs a driver that can be made to fail");
        return None;
    }
    let fake = FakeCuda::new()?;
    let api = Api::open(fake.path(), &[]).expect("the driver has every function");
    let driver = Driver::start(api).expect("the driver starts");
    let plugin = CudaPlugin::with(driver, Some(HostCompiler::get()?));
    let core = Core::with_plugins([Arc::new(plugin) as _]).expect("one plugin");
    Some(Machine { core, fake: Some(fake) })
}

/// A machine that runs models: this one's GPUs where tests run on hardware, else [`faked`].
pub(crate) fn machine() -> Option<Machine> {
    if !on_hardware() {
        return faked();
    }
    let core = Core::with_plugins([CudaPlugin::create()]).expect("one plugin");
    Some(Machine { core, fake: None })
}

/// Properties that ask for storage in `f32`.
pub(crate) fn exact() -> PropertyMap {
    PropertyMap::new().with(hint::INFERENCE_PRECISION, ElementType::F32)
}

/// Numbers between -1 and 1 that repeat with the seed.
pub(crate) fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let numbers = (0..shape.iter().product()).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    });
    Tensor::from_vec(shape, numbers.collect::<Vec<f32>>()).expect("fits")
}

/// An `f32` input of `model`.
pub(crate) fn parameter(model: &mut Model, name: &str, shape: &[usize]) -> Value {
    model.add_parameter(name, ElementType::F32, Shape::new(shape)).expect("valid")
}

/// Runs a model on a device and compares every output with the reference, twice, so that a second launch of the same
/// graphs is seen. Gives the kernels that ran.
#[track_caller]
pub(crate) fn check(
    machine: &Machine,
    model: &Model,
    inputs: &[Tensor],
    properties: &PropertyMap,
    tolerance: f64,
) -> Vec<String> {
    let expected = reference::evaluate(model, inputs).expect("the reference runs");
    let compiled = machine.core.compile_model(model.clone(), "CUDA", properties).expect("compiles");
    let mut request = compiled.create_infer_request().expect("memory");
    for round in 0..2 {
        for (i, tensor) in inputs.iter().enumerate() {
            request.set_input(i, tensor.clone()).expect("fits");
        }
        request.infer().unwrap_or_else(|e| panic!("{e}; {}", machine.message()));
        for (i, expected) in expected.iter().enumerate() {
            let got = request.output(i).expect("there");
            if let Err(e) = ov_core::testing::compare(got, expected, tolerance, tolerance) {
                panic!("round {round}, output {i}: {e}");
            }
        }
    }
    compiled.runtime_nodes().into_iter().map(|n| n.kernel).collect()
}
