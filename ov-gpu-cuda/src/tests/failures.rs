//! What goes wrong with drivers, memory and GPUs ends in errors that say so.

use ov_core::{
    error::{DeviceError, Error},
    property::streams::{self, Streams},
};

use super::{vertical::mlp, *};
use crate::{
    compile::{Compiler, Target},
    config::CudaConfig,
    device_model::{CudaModel, compile_blob},
    driver::{DeviceMemory, GraphBuilder, KernelNode, Module},
    plugin::begin,
};

/// A driver that does not export some functions.
fn without(hidden: &[&str]) -> Option<(Result<Api, String>, FakeCuda)> {
    let fake = FakeCuda::new()?;
    Some((Api::open(fake.path(), hidden).map_err(|e| e.to_string()), fake))
}

fn input() -> Tensor {
    noise(&[3, 20], 9)
}

#[test]
fn a_driver_without_gpus_or_that_does_not_start_is_a_reason() {
    for (knob, value, said) in [
        ("devices", 0, "no GPU"),
        ("init", 3, "forked"),
        ("init", 100, "CUDA_VISIBLE_DEVICES"),
        ("init", 802, "fabric"),
        ("init", 803, "restart the system"),
        ("init", 804, "compatibility"),
        ("init", 999, "does not start (cuInit gave 999"),
        ("driver_version", 11_080, "knows CUDA 11.8, 12.0 is needed"),
    ] {
        let Some(fake) = FakeCuda::new() else { return };
        fake.set(knob, value);
        let api = Api::open(fake.path(), &[]).expect("the driver has every function");
        let reason = begin(api).expect_err("does not start");
        assert!(reason.contains(said), "{knob} {value}: {reason}");
    }
}

#[test]
fn a_missing_library_and_a_missing_function_are_reasons() {
    let missing = Api::open("/nowhere/libcuda.so.1".as_ref(), &[]).expect_err("is not there");
    assert!(missing.to_string().contains("install the NVIDIA driver"), "{missing}");
    let Some((api, _fake)) = without(&["cuGraphLaunch"]) else { return };
    let reason = api.expect_err("is needed");
    assert!(reason.contains("cuGraphLaunch") && reason.contains("newer"), "{reason}");
}

#[test]
fn functions_of_newer_drivers_are_not_needed() {
    let hidden = [
        "cuGraphAddDependencies_v2",
        "cuGraphAddEventRecordNode",
        "cuFuncGetParamInfo",
        "cuGraphUpload",
        "cuDeviceGetUuid_v2",
        "cuDeviceGetPCIBusId",
        "cuCtxGetStreamPriorityRange",
        "cuGetErrorName",
        "cuGetErrorString",
    ];
    let Some((api, fake)) = without(&hidden) else { return };
    let driver = Driver::start(api.expect("these are optional")).expect("starts");
    let Some(compiler) = HostCompiler::get() else { return };
    let plugin = CudaPlugin::with(driver, Some(compiler));
    let core = Core::with_plugins([Arc::new(plugin) as _]).expect("one plugin");
    let machine = Machine { core, fake: Some(fake) };
    check(&machine, &mlp(), &[input()], &exact(), 1e-5);
    assert_eq!(machine.fake().get("programmatic_edges"), 0);
}

#[test]
fn arguments_are_compared_with_what_kernels_declare() {
    let Some(fake) = FakeCuda::new() else { return };
    let api = Api::open(fake.path(), &[]).expect("the driver has every function");
    let driver = Driver::start(api).expect("starts");
    let context = driver.devices()[0].context().expect("starts");
    let body = "OV_KERNEL f(float* y, int n) { ov_grid_wait(); y[ov_thread_x()] = (float)n; }\n";
    let source = crate::kernels::Source { body: body.into(), defines: Vec::new() };
    let compiler = HostCompiler::get().expect("checked before");
    let image = compiler.compile(&source, Target::cubin((9, 0))).expect("compiles").bytes;
    let module = Arc::new(Module::load(&context, &image, true).expect("loads"));
    let function = module.function("f").expect("is there");
    let memory = DeviceMemory::new(&context, 128).expect("fits");
    let address = memory.address().to_ne_bytes().to_vec();
    let mut builder = GraphBuilder::new(&context).expect("memory");
    let mut add = |args: &[Vec<u8>]| {
        let node =
            KernelNode { function: &function, grid: [1, 1, 1], block: [32, 1, 1], shared: 0, args };
        builder.kernel(node).map_err(|e| e.to_string())
    };
    for args in [vec![address.clone()], vec![address.clone(), vec![0; 8]], vec![vec![0; 4]; 3]] {
        let error = add(&args).expect_err("does not fit");
        assert!(error.contains("[8, 4]"), "{error}");
    }
    add(&[address, vec![0; 4]]).expect("fits");
}

#[test]
fn running_out_of_memory_while_compiling_is_said_and_frees_everything() {
    let Some(machine) = faked() else { return };
    let mut failed = 0;
    for nth in 1.. {
        machine.fake().set("fail_allocation", machine.fake().get("allocation_calls") + nth);
        match machine.core.compile_model(mlp(), "CUDA.0", &exact()) {
            Ok(_) => break,
            Err(e) => {
                assert!(e.to_string().contains("memory of the GPU is full"), "{nth}: {e}");
                failed += 1;
            }
        }
        assert_eq!(machine.fake().get("allocations"), 0, "{nth}");
        assert!(nth < 100, "never enough");
    }
    assert!(failed >= 2, "weights and arena at least");
}

#[test]
fn what_does_not_fit_costs_streams_before_it_costs_the_model() {
    let Some(machine) = faked() else { return };
    let properties = exact().with(streams::NUM_STREAMS, Streams::Count(4));
    let one = machine.core.compile_model(mlp(), "CUDA.0", &exact()).expect("fits");
    let calls = machine.fake().get("allocation_calls");
    drop(one);
    machine.fake().set("fail_allocation", calls * 2 + 2);
    let compiled = machine.core.compile_model(mlp(), "CUDA.0", &properties).expect("one fits");
    let text = compiled.property("OPTIMAL_NUMBER_OF_INFER_REQUESTS").expect("a number");
    let count: usize = text.parse().expect("a number");
    assert!((1..4).contains(&count), "{count}");
}

#[test]
fn a_gpu_without_room_leaves_the_work_to_the_others() {
    let Some(machine) = faked() else { return };
    let one = machine.core.compile_model(mlp(), "CUDA.0", &exact()).expect("fits");
    let calls = machine.fake().get("allocation_calls");
    drop(one);
    machine.fake().set("fail_allocation", machine.fake().get("allocation_calls") + calls + 1);
    let compiled = machine.core.compile_model(mlp(), "CUDA", &exact()).expect("one GPU has room");
    assert_eq!(compiled.property("EXECUTION_DEVICES").expect("known"), "CUDA.0");
    let mut request = compiled.create_infer_request().expect("memory");
    request.run(&[input()]).expect("runs");
}

#[test]
fn a_gpu_that_does_not_answer_is_given_up() {
    use std::time::Duration;

    use ov_core::{CancelToken, plugin::DeviceModel};

    let Some(fake) = FakeCuda::new() else { return };
    let Some(compiler) = HostCompiler::get() else { return };
    let api = Api::open(fake.path(), &[]).expect("the driver has every function");
    let driver = Driver::start(api).expect("starts");
    let device = &driver.devices()[..1];
    for performance in [hint::PerformanceMode::Latency, hint::PerformanceMode::Throughput] {
        let properties = exact().with(hint::PERFORMANCE_MODE, performance);
        let mut config = CudaConfig::resolve(&properties, &device[0].about).expect("possible");
        config.patience = Duration::from_millis(100);
        let blob = compile_blob(&mlp(), &config, &device[0], Some(compiler)).expect("compiles");
        let model = CudaModel::bind(blob, config, device.to_vec(), Some(compiler)).expect("binds");
        let mut request = model.create_request().expect("memory");
        request.set_input(0, input()).expect("fits");
        request.infer(&CancelToken::default()).expect("runs");
        if performance == hint::PerformanceMode::Latency {
            continue;
        }
        // Longer than fifty times what it took.
        fake.set("delay_us", 2_000_000_000);
        let error = request.infer(&CancelToken::default()).expect_err("hangs").to_string();
        assert!(error.contains("702") && error.contains("launches"), "{error}");
        let error = request.infer(&CancelToken::default()).expect_err("is lost").to_string();
        assert!(error.contains("corrupted"), "{error}");
        assert!(device[0].is_lost());
    }
    // Its thread still sleeps in the library.
    std::mem::forget(fake);
}

#[test]
fn a_lost_gpu_fails_what_runs_there_for_good_and_nothing_else() {
    for code in [700, 719] {
        let Some(machine) = faked() else { return };
        let compiled = machine.core.compile_model(mlp(), "CUDA.0", &exact()).expect("compiles");
        let mut request = compiled.create_infer_request().expect("memory");
        let expected = request.run(&[input()]).expect("runs");
        machine.fake().set("fail_code", code);
        machine.fake().set("fail_device", 0);
        machine.fake().set("fail_launch", machine.fake().get("launches") + 1);
        let error = request.run(&[input()]).expect_err("the GPU fails");
        assert!(
            matches!(&error, Error::Device(e) if matches!(**e, DeviceError::Failed { .. })),
            "{error:?}"
        );
        assert!(error.to_string().contains(&format!("gave {code}")), "{error}");
        machine.fake().set("fail_launch", 0);
        let error = request.run(&[input()]).expect_err("it stays lost");
        assert!(error.to_string().contains("corrupted"), "{error}");
        assert!(machine.core.compile_model(mlp(), "CUDA.0", &exact()).is_err());
        let other = machine.core.compile_model(mlp(), "CUDA.1", &exact()).expect("compiles");
        let mut request = other.create_infer_request().expect("memory");
        assert_eq!(request.run(&[input()]).expect("runs"), expected);
    }
}

#[test]
fn with_several_gpus_the_others_go_on() {
    let Some(machine) = faked() else { return };
    let compiled = machine.core.compile_model(mlp(), "CUDA", &exact()).expect("compiles");
    assert_eq!(compiled.property("EXECUTION_DEVICES").expect("known"), "CUDA.0,CUDA.1");
    let mut request = compiled.create_infer_request().expect("memory");
    let expected = request.run(&[input()]).expect("runs");
    machine.fake().set("fail_code", 719);
    machine.fake().set("fail_device", 0);
    machine.fake().set("fail_launch", machine.fake().get("launches") + 1);
    let mut failures = 0;
    for _ in 0..6 {
        match request.run(&[input()]) {
            Ok(got) => assert_eq!(got, expected),
            Err(_) => failures += 1,
        }
    }
    assert!(failures <= 1, "{failures} failures, although one GPU works");
}
