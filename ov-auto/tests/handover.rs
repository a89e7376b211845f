//! Switching from the helper to the accelerator, under load.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use common::{CPU, CUDA, Rig, infer, wait_for};
use ov_core::Tensor;

/// Switches under load; the whole 2,000 with `OV_LONG=1`.
fn switches() -> usize {
    if std::env::var_os("OV_LONG").is_some() { 2000 } else { 150 }
}

#[test]
fn no_request_is_lost_or_mixed_up_over_many_switches() {
    const SUBMITTERS: u16 = 8;
    let (on_cpu, on_cuda) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for _ in 0..switches() {
        let rig = Rig::new();
        let compiled = rig
            .compile(
                "AUTO:CUDA,CPU",
                &[("AUTO_REQUIRE_FASTER", "NO")],
                "SIM_COMPILE_MS:1",
                "SIM_INFER_US:20",
            )
            .expect("the helper compiles");
        thread::scope(|scope| {
            for submitter in 0..SUBMITTERS {
                let (compiled, on_cpu, on_cuda) = (&compiled, &on_cpu, &on_cuda);
                scope.spawn(move || {
                    let mut request = compiled.create_infer_request().expect("memory");
                    let mut has_moved = false;
                    for i in 0u32.. {
                        let id = submitter + SUBMITTERS * (i % 8000) as u16;
                        let (device, _, got) = infer(&mut request, id).expect("runs");
                        assert_eq!(got, id);
                        assert!(device == CUDA || !has_moved, "it went back to the helper");
                        has_moved = device == CUDA;
                        if device == CUDA { on_cuda } else { on_cpu }
                            .fetch_add(1, Ordering::Relaxed);
                        let name = if device == CUDA { "CUDA" } else { "CPU" };
                        assert_eq!(request.execution_device().expect("idle"), name);
                        if has_moved && i >= 50 {
                            break;
                        }
                        // The compiling thread gets what the submitters leave.
                        thread::sleep(Duration::from_micros(50));
                    }
                });
            }
        });
        assert_eq!(compiled.property("EXECUTION_DEVICES").expect("known"), "CUDA");
        wait_for(&compiled, "AUTO_PHASE", "SWITCHED");
        assert_eq!((rig.cuda.compiles(), rig.cpu.compiles()), (1, 1));
    }
    println!(
        "{} switches under {SUBMITTERS} submitters: {} inferences on the helper, {} on the accelerator",
        switches(),
        on_cpu.into_inner(),
        on_cuda.into_inner()
    );
}

#[test]
fn the_helper_serves_at_once_and_shows_in_parentheses() {
    let rig = Rig::new();
    let compiled = rig
        .compile("AUTO:CUDA,CPU", &[], "SIM_COMPILE_MS:200", "SIM_INFER_US:2000")
        .expect("the helper");
    assert_eq!(compiled.property("EXECUTION_DEVICES").expect("known"), "(CPU)");
    assert_eq!(compiled.property("AUTO_PHASE").expect("known"), "SERVING_FALLBACK");
    let mut request = compiled.create_infer_request().expect("memory");
    assert_eq!(infer(&mut request, 7).expect("runs"), (CPU, 0, 7));
    while infer(&mut request, 8).expect("runs").0 == CPU {}
    wait_for(&compiled, "AUTO_PHASE", "SWITCHED");
    assert_eq!(compiled.property("EXECUTION_DEVICES").expect("known"), "CUDA");
}

#[test]
fn the_helper_is_kept_as_long_as_a_request_is_on_it() {
    let rig = Rig::new();
    let compiled = rig.compile("AUTO:CUDA,CPU", &[], "SIM_COMPILE_MS:20", "").expect("the helper");
    let mut idle = compiled.create_infer_request().expect("memory");
    wait_for(&compiled, "EXECUTION_DEVICES", "CUDA");
    assert_eq!(compiled.property("AUTO_PHASE").expect("known"), "DRAINING");
    assert_eq!(infer(&mut idle, 3).expect("runs"), (CUDA, 0, 3));
    wait_for(&compiled, "AUTO_PHASE", "SWITCHED");
}

#[test]
fn inputs_and_the_callers_memory_move_with_the_request() {
    let rig = Rig::new();
    let compiled = rig.compile("AUTO:CUDA,CPU", &[], "SIM_COMPILE_MS:20", "").expect("the helper");
    let mut request = compiled.create_infer_request().expect("memory");
    request
        .set_output(0, Tensor::zeros(ov_core::ElementType::F32, [8]).expect("small"))
        .expect("fits");
    let address = request.output(0).expect("set").bytes().as_ptr();
    assert_eq!(infer(&mut request, 5).expect("runs").0, CPU);
    assert_eq!(request.output(0).expect("set").bytes().as_ptr(), address);
    wait_for(&compiled, "EXECUTION_DEVICES", "CUDA");
    request.infer().expect("the input is still set");
    let output = request.output(0).expect("set");
    assert_eq!(output.bytes().as_ptr(), address);
    assert_eq!(output.as_slice::<f32>().expect("f32")[0], ov_core::testing::sim::mark(CUDA, 0, 5));
}

#[test]
fn a_device_that_is_not_faster_is_not_used() {
    let rig = Rig::new();
    let compiled = rig
        .compile("AUTO:CUDA,CPU", &[], "SIM_COMPILE_MS:50,SIM_INFER_US:3000", "SIM_INFER_US:300")
        .expect("the helper");
    let mut request = compiled.create_infer_request().expect("memory");
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while compiled.property("AUTO_PHASE").expect("known") != "FALLBACK_ONLY" {
        assert_eq!(infer(&mut request, 1).expect("runs").0, CPU);
        assert!(std::time::Instant::now() < end);
    }
    assert_eq!(compiled.property("EXECUTION_DEVICES").expect("known"), "CPU");
}

#[test]
fn without_start_up_fallback_the_first_compiles_alone() {
    let rig = Rig::new();
    let off = [("ENABLE_STARTUP_FALLBACK", "NO")];
    let compiled = rig.compile("AUTO:CUDA,CPU", &off, "SIM_COMPILE_MS:20", "").expect("compiles");
    assert_eq!(compiled.property("EXECUTION_DEVICES").expect("known"), "CUDA");
    assert_eq!((rig.cuda.compiles(), rig.cpu.compiles()), (1, 0));
}

#[test]
fn dropping_the_model_in_any_state_returns_at_once() {
    let cases = [
        ("SIM_COMPILE_MS:10000", "", 0),
        ("SIM_COMPILE_FAULT:HANG", "", 0),
        ("SIM_COMPILE_MS:5,SIM_INFER_FAULT:HANG", "", 30),
        ("SIM_COMPILE_MS:5", "", 0),
        ("SIM_COMPILE_MS:5", "", 20),
    ];
    for round in 0..switches() / 10 {
        let (cuda, cpu, wait_ms) = cases[round % cases.len()];
        let rig = Rig::new();
        let compiled = rig.compile("AUTO:CUDA,CPU", &[], cuda, cpu).expect("the helper");
        let mut request = compiled.create_infer_request().expect("memory");
        infer(&mut request, 1).expect("runs");
        thread::sleep(Duration::from_millis(wait_ms));
        let start = std::time::Instant::now();
        drop((request, compiled));
        assert!(start.elapsed() < Duration::from_secs(2), "{cuda}");
    }
}

#[test]
fn all_devices_serve_for_cumulative_throughput() {
    let rig = Rig::new();
    let cumulative = [("PERFORMANCE_HINT", "CUMULATIVE_THROUGHPUT")];
    let compiled = rig
        .compile("AUTO:CUDA,CPU", &cumulative, "", "SIM_INFER_FAULT:ERROR,SIM_INFER_FAULT_AFTER:1")
        .expect("both compile");
    assert_eq!(compiled.property("EXECUTION_DEVICES").expect("known"), "CUDA,CPU");
    assert_eq!(compiled.property("OPTIMAL_NUMBER_OF_INFER_REQUESTS").expect("known"), "2");
    let mut requests: Vec<_> =
        (0..2).map(|_| compiled.create_infer_request().expect("memory")).collect();
    let devices: Vec<u8> = requests.iter_mut().map(|r| infer(r, 1).expect("runs").0).collect();
    assert_eq!(devices, [CUDA, CPU]);
    assert_eq!(infer(&mut requests[1], 2).expect("moves"), (CUDA, 0, 2), "the CPU is left out");
    assert_eq!(compiled.property("EXECUTION_DEVICES").expect("known"), "CUDA");
    let rig = Arc::new(rig);
    let turns = [("PERFORMANCE_HINT", "CUMULATIVE_THROUGHPUT"), ("SCHEDULE_POLICY", "ROUND_ROBIN")];
    let compiled = rig.compile("AUTO:CUDA,CPU", &turns, "", "").expect("both compile");
    let devices: Vec<u8> = (0..4)
        .map(|_| infer(&mut compiled.create_infer_request().expect("memory"), 1).expect("runs").0)
        .collect();
    assert_eq!(devices, [CUDA, CPU, CUDA, CPU]);
}
