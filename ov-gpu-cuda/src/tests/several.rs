//! Several GPUs and several requests at once.

use ov_core::property::{
    hint::PerformanceMode,
    streams::{self, Streams},
};

use super::{vertical::mlp, *};
use crate::{
    config::CudaConfig,
    device_model::{CudaModel, compile_blob},
};

#[test]
fn slots_are_taken_from_the_idlest_gpu() {
    let Some(fake) = FakeCuda::new() else { return };
    let Some(compiler) = HostCompiler::get() else { return };
    let api = Api::open(fake.path(), &[]).expect("the driver has every function");
    let driver = Driver::start(api).expect("starts");
    let properties = exact().with(streams::NUM_STREAMS, Streams::Count(2));
    let devices = driver.devices().to_vec();
    let config = CudaConfig::resolve(&properties, &devices[0].about).expect("possible");
    let blob = compile_blob(&mlp(), &config, &devices[0], Some(compiler)).expect("compiles");
    let model = CudaModel::bind(blob, config, devices, Some(compiler)).expect("binds");
    let pool = model.pool();
    let mut lent: Vec<_> = (0..4).map(|_| pool.borrow(None).expect("a slot")).collect();
    let order: Vec<usize> =
        lent.iter_mut().map(|l| l.slot().loaded().context.device().ordinal).collect();
    assert_ne!(order[0], order[1], "{order:?}");
    assert_ne!(order[2], order[3], "{order:?}");
    assert_eq!(fake.get("contexts"), 2);
}

#[test]
fn requests_of_many_threads_get_their_own_results() {
    let Some(machine) = faked() else { return };
    machine.fake().set("delay_us", 200);
    let properties = exact()
        .with(hint::PERFORMANCE_MODE, PerformanceMode::Throughput)
        .with(streams::NUM_STREAMS, Streams::Count(2));
    let compiled = machine.core.compile_model(mlp(), "CUDA", &properties).expect("compiles");
    let count = compiled.property("OPTIMAL_NUMBER_OF_INFER_REQUESTS").expect("a number");
    assert_eq!(count, "4");
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            let compiled = &compiled;
            scope.spawn(move || {
                let mut request = compiled.create_infer_request().expect("memory");
                for round in 0..5 {
                    let x = noise(&[3, 20], 1 + thread * 10 + round);
                    let expected =
                        reference::evaluate(&mlp(), std::slice::from_ref(&x)).expect("runs");
                    request.set_input(0, x).expect("fits");
                    request.start_async().expect("starts");
                    request.wait().expect("runs");
                    let got = request.output(0).expect("there");
                    ov_core::testing::compare(got, &expected[0], 1e-5, 1e-5).expect("its own");
                }
            });
        }
    });
}

#[test]
fn priorities_reach_streams_and_times_come_by_node() {
    let Some(machine) = faked() else { return };
    for (priority, number) in [(hint::Priority::Low, 0), (hint::Priority::High, -5)] {
        let properties = exact()
            .with(hint::MODEL_PRIORITY, priority)
            .with(ov_core::property::info::ENABLE_PROFILING, true);
        let compiled = machine.core.compile_model(mlp(), "CUDA.0", &properties).expect("compiles");
        let mut request = compiled.create_infer_request().expect("memory");
        request.run(&[noise(&[3, 20], 1)]).expect("runs");
        assert_eq!(machine.fake().get("launch_priority"), number, "{priority:?}");
        let times = request.profiling().expect("asked for");
        assert!(!times.is_empty());
        assert!(times.iter().all(|t| !t.kernel.is_empty()));
    }
}
