//! The failure grid: what fails, how, with which devices, and when; each cell has one end state.

mod common;

use common::{CPU, CUDA, Rig, infer, wait_for};

/// How a cell ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Compiling fails, with the device's reason.
    NoModel,
    /// Requests run on the accelerator.
    Accelerator,
    /// Requests run on the helper.
    Helper,
    /// Each inference gives the device's error; the model goes on.
    Errors,
    /// Inferences succeed with what the device gives: nothing can tell that it is wrong.
    Wrong,
}

struct Cell {
    what: &'static str,
    how: &'static str,
    with_cpu: bool,
    when: &'static str,
    cuda: String,
    end: End,
}

/// Milliseconds after which a hang counts as one in these tests, and after which nothing but a hang would.
const SHORT: &str = "150";
const LONG: &str = "20000";
/// Inferences after which nothing more is expected to change.
const SETTLED: usize = 25;

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for with_cpu in [false, true] {
        let device_fails = if with_cpu { End::Helper } else { End::NoModel };
        for how in ["ERROR", "PANIC", "HANG", "OUT_OF_MEMORY"] {
            // Without a helper nothing serves meanwhile, and a compile in the foreground has no deadline.
            if how == "HANG" && !with_cpu {
                continue;
            }
            for (when, percent) in [("before", 0), ("during", 50), ("after", 100)] {
                cells.push(Cell {
                    what: "compile",
                    how,
                    with_cpu,
                    when,
                    cuda: format!("SIM_COMPILE_MS:20,SIM_COMPILE_FAULT:{how},SIM_COMPILE_FAULT_PERCENT:{percent}"),
                    end: device_fails,
                });
            }
        }
        for how in ["ERROR", "PANIC", "HANG", "LOST", "NAN", "WRONG"] {
            let inaudible = matches!(how, "NAN" | "WRONG");
            // The first inferences are the warming ones, of which there is none without a helper.
            cells.push(Cell {
                what: if with_cpu { "warm-up" } else { "first inference" },
                how,
                with_cpu,
                when: "before",
                cuda: format!("SIM_COMPILE_MS:20,SIM_INFER_FAULT:{how}"),
                end: match (with_cpu, inaudible) {
                    (true, _) => End::Helper,
                    (false, true) => End::Wrong,
                    (false, false) => End::Errors,
                },
            });
            for (when, after) in [("during", 4), ("after", 12)] {
                cells.push(Cell {
                    what: "inference",
                    how,
                    with_cpu,
                    when,
                    cuda: format!(
                        "SIM_COMPILE_MS:20,SIM_INFER_FAULT:{how},SIM_INFER_FAULT_AFTER:{after}"
                    ),
                    end: match (with_cpu, inaudible) {
                        (_, true) => End::Wrong,
                        (true, false) => End::Helper,
                        (false, false) => End::Errors,
                    },
                });
            }
            cells.push(Cell {
                what: "inference, once",
                how,
                with_cpu,
                when: "after",
                cuda: format!(
                    "SIM_COMPILE_MS:5,SIM_INFER_FAULT:{how},SIM_INFER_FAULT_AFTER:12,SIM_INFER_FAULT_COMPILES:1"
                ),
                end: match (with_cpu, inaudible, how) {
                    (_, true, _) => End::Wrong,
                    // A lost device does not compile again either, until it is found.
                    (true, _, "LOST") => End::Helper,
                    (true, false, _) => End::Accelerator,
                    (false, false, _) => End::Errors,
                },
            });
        }
    }
    cells
}

fn run(cell: &Cell) -> End {
    let rig = Rig::new();
    let device = if cell.with_cpu { "AUTO:CUDA,CPU" } else { "AUTO:CUDA" };
    // Threads of the idle class may wait long on a busy machine.
    let compile_deadline =
        if cell.how == "HANG" && cell.what != "inference, once" { SHORT } else { LONG };
    let options = [
        ("AUTO_VERIFY_SWITCH", "VETO"),
        ("AUTO_REQUIRE_FASTER", "NO"),
        ("AUTO_COMPILE_DEADLINE", compile_deadline),
        ("AUTO_INFER_TIMEOUT", SHORT),
    ];
    let compiled = match rig.compile(device, &options, &cell.cuda, "SIM_INFER_US:200") {
        Ok(compiled) => compiled,
        Err(e) => {
            assert!(e.to_string().contains("CUDA"), "{e}");
            return End::NoModel;
        }
    };
    let mut request = compiled.create_infer_request().expect("memory");
    // Device marks differ, so a veto between two right devices must not be: the marks of the first are close enough.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let (mut last, mut settled) = (None, 0);
    for id in 1000.. {
        last = Some(infer(&mut request, id).map(|(device, _, got)| (device, got == id)));
        let phase = compiled.property("AUTO_PHASE").expect("known");
        let is_settled = matches!(phase.as_str(), "FALLBACK_ONLY" | "DRAINING" | "SWITCHED");
        settled = if is_settled && is_steady(&rig, cell) { settled + 1 } else { 0 };
        if settled == SETTLED {
            break;
        }
        assert!(std::time::Instant::now() < end, "{} {}: {phase}", cell.what, cell.how);
    }
    match last.expect("at least one inference") {
        Err(_) => End::Errors,
        Ok((CUDA, true)) => End::Accelerator,
        Ok((CPU, true)) => End::Helper,
        Ok(_) => End::Wrong,
    }
}

/// Whether nothing more is to come: a device that keeps failing has been tried as often as it is.
fn is_steady(rig: &Rig, cell: &Cell) -> bool {
    match (cell.with_cpu, cell.end, cell.what) {
        (true, End::Helper, "inference") if cell.how != "LOST" => rig.cuda.compiles() >= 2,
        (true, End::Accelerator, _) => rig.cuda.compiles() >= 2,
        _ => true,
    }
}

#[test]
fn every_cell_of_the_failure_grid_has_its_end_state() {
    let cells = cells();
    let wrong: Vec<String> = cells
        .iter()
        .filter_map(|cell| {
            let got = run(cell);
            (got != cell.end).then(|| {
                let Cell { what, how, with_cpu, when, end, .. } = cell;
                format!("{what} {how} {when}, CPU {with_cpu}: {got:?}, expected {end:?}")
            })
        })
        .collect();
    println!("{} cells of the failure grid", cells.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_failed_request_runs_again_from_its_inputs() {
    let rig = Rig::new();
    let compiled = rig
        .compile(
            "AUTO:CUDA,CPU",
            &[("ENABLE_STARTUP_FALLBACK", "NO")],
            "SIM_INFER_FAULT:ERROR,SIM_INFER_FAULT_AFTER:3,SIM_INFER_FAULT_COMPILES:1",
            "",
        )
        .expect("compiles");
    let mut request = compiled.create_infer_request().expect("memory");
    for id in 0..3 {
        assert_eq!(infer(&mut request, id).expect("runs"), (CUDA, 0, id));
    }
    assert_eq!(infer(&mut request, 3).expect("runs again on the CPU"), (CPU, 0, 3));
    assert_eq!(request.execution_device().expect("idle"), "CPU");
    // After a rest the accelerator is compiled again and takes over.
    wait_for(&compiled, "EXECUTION_DEVICES", "CUDA");
    assert_eq!(infer(&mut request, 4).expect("runs"), (CUDA, 1, 4));
}

#[test]
fn without_run_time_fallback_errors_come_out() {
    let rig = Rig::new();
    let off = [("ENABLE_RUNTIME_FALLBACK", "NO"), ("ENABLE_STARTUP_FALLBACK", "NO")];
    let compiled =
        rig.compile("AUTO:CUDA,CPU", &off, "SIM_INFER_FAULT:ERROR", "").expect("compiles");
    let mut request = compiled.create_infer_request().expect("memory");
    let error = infer(&mut request, 1).expect_err("the device fails");
    assert_eq!(error.to_string(), "device CUDA failed: a simulated error");
    assert_eq!(rig.cpu.compiles(), 0);
}

#[test]
fn a_late_completion_is_not_seen() {
    let rig = Rig::new();
    let options = [("AUTO_INFER_TIMEOUT", "60"), ("ENABLE_STARTUP_FALLBACK", "NO")];
    let cuda = "SIM_INFER_US:200000,SIM_IGNORE_CANCEL:YES";
    let compiled = rig.compile("AUTO:CUDA,CPU", &options, cuda, "").expect("compiles");
    let mut request = compiled.create_infer_request().expect("memory");
    for id in 0..20 {
        let (device, _, got) = infer(&mut request, id).expect("the CPU takes over");
        assert_eq!((device, got), (CPU, id));
    }
}

#[test]
fn cancelling_ends_a_wait_for_another_device() {
    let rig = Rig::new();
    let cpu = "SIM_COMPILE_MS:5000";
    let off = [("ENABLE_STARTUP_FALLBACK", "NO")];
    let compiled =
        rig.compile("AUTO:CUDA,CPU", &off, "SIM_INFER_FAULT:ERROR", cpu).expect("compiles");
    let mut request = compiled.create_infer_request().expect("memory");
    request.start_async().expect("starts");
    std::thread::sleep(std::time::Duration::from_millis(30));
    let start = std::time::Instant::now();
    request.cancel();
    let error = request.wait().expect_err("canceled");
    assert_eq!(error.to_string(), "inference was canceled");
    assert!(start.elapsed() < std::time::Duration::from_secs(2));
}
