//! AUTO over the template device and a device that never compiles.

use std::sync::Arc;

use ov_auto::AutoPlugin;
use ov_core::{
    Core, ElementType, Model, ModelSource, NodeSupport, PropertyMap, Result, Tensor,
    error::DeviceError,
    op::activation::Relu,
    plugin::{DeviceInfo, DeviceModel, DeviceResolver, Plugin},
    property::{PropertyInfo, info},
    testing::template_device::TemplatePlugin,
};

struct Broken;

impl Plugin for Broken {
    fn name(&self) -> &str {
        "CUDA"
    }

    fn probe(&self) -> Result<Vec<DeviceInfo>, String> {
        Ok(vec![DeviceInfo { id: "0".to_owned(), full_name: "broken".to_owned() }])
    }

    fn properties(&self) -> &'static [PropertyInfo] {
        const { &[info::ENABLE_PROFILING.info()] }
    }

    fn property(&self, _: &str, _: &PropertyMap) -> Result<String> {
        Ok(String::new())
    }

    fn compile_model(
        &self,
        _: &ModelSource,
        _: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Arc<dyn DeviceModel>> {
        Err(DeviceError::Failed { name: "CUDA".to_owned(), source: "out of memory".into() }.into())
    }

    fn query_model(
        &self,
        _: &Model,
        _: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Vec<NodeSupport>> {
        Ok(Vec::new())
    }
}

fn core() -> Core {
    let plugins: [Arc<dyn Plugin>; 3] =
        [AutoPlugin::create(), TemplatePlugin::create(), Arc::new(Broken)];
    Core::with_plugins(plugins).expect("three names")
}

fn model() -> Model {
    let mut model = Model::new("m");
    let x = model.add_parameter("x", ElementType::F32, [2]).expect("valid");
    let y = model.add(Relu {}, &[x], "y").expect("valid");
    model.add_output("y", y);
    model
}

#[test]
fn a_device_that_fails_to_compile_is_passed_over() {
    for device in ["AUTO", "AUTO:CUDA,TEMPLATE", "AUTO:-CUDA", "AUTO:TEMPLATE"] {
        let compiled =
            core().compile_model(model(), device, &PropertyMap::new()).expect("TEMPLATE compiles");
        assert_eq!(compiled.property("EXECUTION_DEVICES").expect("known"), "TEMPLATE", "{device}");
        let x = Tensor::from_vec([2], vec![-1.0f32, 2.0]).expect("fits");
        let y = compiled.create_infer_request().expect("memory").run(&[x]).expect("runs");
        assert_eq!(y[0].as_slice::<f32>().expect("f32"), [0.0, 2.0]);
    }
}

#[test]
fn errors_name_every_device_and_properties_are_not_dropped() {
    let text = |device: &str, name: &str, value: &str| {
        let map = PropertyMap::new().with_text(name, value)?;
        core()
            .compile_model(model(), device, &map)
            .map(|c| c.property("PERF_COUNT").unwrap_or_default())
    };
    let run = |device: &str, name: &str, value: &str| {
        text(device, name, value).unwrap_or_else(|e| e.to_string())
    };
    assert_eq!(run("AUTO", "PERF_COUNT", "YES"), "YES");
    assert_eq!(run("AUTO", "DEVICE_PROPERTIES", "{TEMPLATE:{PERF_COUNT:YES}}"), "YES");
    for (device, name, value, expected) in [
        ("AUTO:CUDA", "PERF_COUNT", "YES", "device CUDA failed: out of memory"),
        ("AUTO:NPU", "PERF_COUNT", "YES", "\"NPU\" is not registered"),
        (
            "AUTO",
            "NUM_STREAMS",
            "2",
            "\"NUM_STREAMS\" is not known to any device that AUTO may choose",
        ),
        ("AUTO", "NUM_STREEMS", "2", "did you mean NUM_STREAMS?"),
        ("AUTO", "DEVICE_PROPERTIES", "{NPU:{PERF_COUNT:YES}}", "NPU"),
        ("AUTO", "CACHE_DIR", "/x", "CACHE_DIR is set, but no model cache is linked"),
    ] {
        let got = run(device, name, value);
        assert!(got.contains(expected), "{device} {name}={value}: {got}");
    }
}
