//! What properties become on machines of several kinds.

use super::*;
use crate::topology::machines::{self, Machine};

fn map(properties: &[(&str, &str)]) -> PropertyMap {
    let mut map = PropertyMap::new();
    for (name, text) in properties {
        map.set_text(name, text).expect("valid");
    }
    map
}

fn resolved(properties: &[(&str, &str)], machine: &Machine) -> CpuConfig {
    CpuConfig::resolve(&map(properties), &machine.topology()).expect("possible")
}

/// The table of OpenVINO on two processors, and what it becomes on others.
#[test]
fn hints_give_streams_and_explicit_values_win() {
    const HINT: &str = "PERFORMANCE_HINT";
    const REQUESTS: &str = "PERFORMANCE_HINT_NUM_REQUESTS";
    const LATENCY: (&str, &str) = (HINT, "LATENCY");
    const THROUGHPUT: (&str, &str) = (HINT, "THROUGHPUT");
    let machines =
        [machines::plain(1), machines::plain(2), machines::plain(8), machines::TWO_SOCKETS];
    // What is asked, streams and threads on 1, 2, 8 and 2x32 processors, and the hint that reads back.
    type Row = (&'static [(&'static str, &'static str)], [(usize, usize); 4], &'static str);
    let rows: &[Row] = &[
        (&[], [(1, 1), (1, 2), (1, 8), (2, 64)], "LATENCY"),
        (&[LATENCY], [(1, 1), (1, 2), (1, 8), (2, 64)], "LATENCY"),
        (&[THROUGHPUT], [(1, 1), (2, 2), (8, 8), (128, 128)], "THROUGHPUT"),
        (
            &[(HINT, "CUMULATIVE_THROUGHPUT")],
            [(1, 1), (2, 2), (8, 8), (128, 128)],
            "CUMULATIVE_THROUGHPUT",
        ),
        (&[LATENCY, ("NUM_STREAMS", "2")], [(1, 1), (2, 2), (2, 8), (2, 64)], "LATENCY"),
        (&[THROUGHPUT, ("NUM_STREAMS", "1")], [(1, 1), (1, 2), (1, 8), (1, 64)], "THROUGHPUT"),
        (&[THROUGHPUT, (REQUESTS, "1")], [(1, 1), (1, 2), (1, 8), (1, 64)], "THROUGHPUT"),
        (&[THROUGHPUT, (REQUESTS, "8")], [(1, 1), (2, 2), (8, 8), (8, 128)], "THROUGHPUT"),
        (&[LATENCY, (REQUESTS, "4")], [(1, 1), (1, 2), (1, 8), (2, 64)], "LATENCY"),
        (&[("NUM_STREAMS", "AUTO")], [(1, 1), (2, 2), (8, 8), (128, 128)], "THROUGHPUT"),
        (&[LATENCY, ("NUM_STREAMS", "AUTO")], [(1, 1), (2, 2), (8, 8), (128, 128)], "THROUGHPUT"),
        (&[("NUM_STREAMS", "NUMA")], [(1, 1), (1, 2), (1, 8), (2, 64)], "LATENCY"),
        (&[THROUGHPUT, ("NUM_STREAMS", "NUMA")], [(1, 1), (1, 2), (1, 8), (2, 64)], "LATENCY"),
        (&[("NUM_STREAMS", "1")], [(1, 1), (1, 2), (1, 8), (1, 32)], "LATENCY"),
        (&[("NUM_STREAMS", "7")], [(1, 1), (2, 2), (7, 8), (7, 64)], "LATENCY"),
        (&[("NUM_STREAMS", "1000")], [(1, 1), (2, 2), (8, 8), (128, 128)], "LATENCY"),
        (&[("NUM_STREAMS", "0")], [(0, 0), (0, 0), (0, 0), (0, 0)], "LATENCY"),
        (&[("INFERENCE_NUM_THREADS", "64")], [(1, 1), (1, 2), (1, 8), (2, 64)], "LATENCY"),
        (&[("INFERENCE_NUM_THREADS", "1")], [(1, 1), (1, 1), (1, 1), (1, 1)], "LATENCY"),
        (&[("INFERENCE_NUM_THREADS", "6")], [(1, 1), (1, 2), (1, 6), (1, 6)], "LATENCY"),
        (
            &[("INFERENCE_NUM_THREADS", "64"), ("NUM_STREAMS", "1")],
            [(1, 1), (1, 2), (1, 8), (1, 64)],
            "LATENCY",
        ),
        (
            &[("INFERENCE_NUM_THREADS", "4"), ("NUM_STREAMS", "100")],
            [(1, 1), (2, 2), (4, 4), (4, 4)],
            "LATENCY",
        ),
        (&[("ENABLE_HYPER_THREADING", "YES")], [(1, 1), (1, 2), (1, 8), (2, 128)], "LATENCY"),
        (
            &[THROUGHPUT, ("ENABLE_HYPER_THREADING", "NO")],
            [(1, 1), (2, 2), (8, 8), (64, 64)],
            "THROUGHPUT",
        ),
    ];
    let machines = machines.map(|m| (m.name, m.topology()));
    for (properties, expected, hint) in rows {
        for ((machine, topology), (streams, threads)) in machines.iter().zip(expected) {
            let what = format!("{properties:?} on {machine}");
            let config = CpuConfig::resolve(&map(properties), topology).expect("possible");
            assert_eq!((config.streams, config.threads), (*streams, *threads), "{what}");
            let read = |name| config.property(name).expect("known");
            assert_eq!(read("PERFORMANCE_HINT"), *hint, "{what}");
            assert_eq!(read("NUM_STREAMS"), streams.to_string(), "{what}");
            assert_eq!(read("INFERENCE_NUM_THREADS"), threads.to_string(), "{what}");
            let requests = (*streams).max(1);
            assert_eq!(read("OPTIMAL_NUMBER_OF_INFER_REQUESTS"), requests.to_string(), "{what}");
            let placed: Vec<usize> =
                config.places.iter().flat_map(|p| &p.processors).copied().collect();
            assert_eq!(config.places.len(), requests, "{what}");
            assert_eq!(placed.len(), (*threads).max(1), "{what}: a processor per thread");
            assert_eq!(ProcessorSet::from_iter(placed.clone()).ids().len(), placed.len(), "{what}");
        }
    }
}

#[test]
fn containers_use_no_more_than_their_quota() {
    for machine in [machines::CONTAINER_V1, machines::CONTAINER_V2] {
        for (properties, expected) in [
            (&[][..], (1, 3)),
            (&[("PERFORMANCE_HINT", "THROUGHPUT")], (3, 3)),
            (&[("INFERENCE_NUM_THREADS", "64")], (1, 3)),
            (&[("NUM_STREAMS", "7")], (3, 3)),
        ] {
            let config = resolved(properties, &machine);
            assert_eq!((config.streams, config.threads), expected, "{properties:?}");
        }
        assert_eq!(resolved(&[], &machine).places[0].processors, [0, 1, 2]);
    }
}

#[test]
fn core_types_are_chosen_and_read_back() {
    const TYPE: &str = "SCHEDULING_CORE_TYPE";
    let (laptop, desktop) = (machines::HYBRID, machines::HYBRID_DESKTOP);
    let throughput = ("PERFORMANCE_HINT", "THROUGHPUT");
    for (machine, properties, processors, effective) in [
        // Twice as many E cores as P cores, or more: both; fewer: P cores.
        (laptop, &[][..], "0,2,4,6,8-15", "ANY_CORE"),
        (desktop, &[], "0,2,4,6,8,10,12,14", "PCORE_ONLY"),
        (machines::BIG_LITTLE, &[], "4-7", "PCORE_ONLY"),
        (desktop, &[(TYPE, "ANY_CORE")], "0,2,4,6,8,10,12,14,16-23", "ANY_CORE"),
        (desktop, &[("INFERENCE_NUM_THREADS", "12")], "0,2,4,6,8,10,12,14,16-19", "ANY_CORE"),
        (desktop, &[("INFERENCE_NUM_THREADS", "20")], "0-8,10,12,14,16-23", "ANY_CORE"),
        (desktop, &[throughput], "0-23", "ANY_CORE"),
        (laptop, &[(TYPE, "PCORE_ONLY")], "0,2,4,6", "PCORE_ONLY"),
        (laptop, &[(TYPE, "PCORE_ONLY"), throughput], "0-7", "PCORE_ONLY"),
        (laptop, &[(TYPE, "ECORE_ONLY")], "8-15", "ECORE_ONLY"),
        (laptop, &[(TYPE, "ECORE_ONLY"), ("INFERENCE_NUM_THREADS", "64")], "8-15", "ECORE_ONLY"),
        (machines::plain(2), &[(TYPE, "ECORE_ONLY")], "0-1", "ANY_CORE"),
        (machines::plain(2), &[(TYPE, "PCORE_ONLY")], "0-1", "PCORE_ONLY"),
        (laptop, &[("CPU_PROCESSORS", "8-9"), (TYPE, "PCORE_ONLY")], "8-9", "ANY_CORE"),
    ] {
        let what = format!("{properties:?} on {}", machine.name);
        let config = resolved(properties, &machine);
        let used: ProcessorSet =
            config.places.iter().flat_map(|p| &p.processors).copied().collect();
        let read = config.property("SCHEDULING_CORE_TYPE").expect("known");
        assert_eq!((used.to_string().as_str(), read.as_str()), (processors, effective), "{what}");
    }
}

#[test]
fn threads_are_bound_where_something_was_asked_or_there_are_several_nodes() {
    let one = machines::plain(8);
    for (machine, properties, expected) in [
        (one, &[][..], &[][..]),
        (one, &[("INFERENCE_NUM_THREADS", "2"), ("ENABLE_CPU_PINNING", "YES")], &["0", "1"]),
        (one, &[("INFERENCE_NUM_THREADS", "2"), ("ENABLE_CPU_RESERVATION", "YES")], &["0", "1"]),
        (
            one,
            &[
                ("INFERENCE_NUM_THREADS", "2"),
                ("ENABLE_CPU_RESERVATION", "YES"),
                ("ENABLE_CPU_PINNING", "NO"),
            ],
            &[],
        ),
        (one, &[("CPU_PROCESSORS", "3,6")], &["3,6", "3,6"]),
        (machines::SMT_OFF, &[("INFERENCE_NUM_THREADS", "2")], &["0-15", "0-15"]),
    ] {
        let bindings = resolved(properties, &machine).bindings(0);
        let texts: Vec<String> = bindings.iter().map(ToString::to_string).collect();
        assert_eq!(texts, expected, "{properties:?} on {}", machine.name);
    }
}

#[test]
fn processors_that_are_not_there_are_refused() {
    let map = map(&[("CPU_PROCESSORS", "1,8")]);
    let error = CpuConfig::resolve(&map, &machines::plain(8).topology()).expect_err("no 8");
    assert_eq!(
        error.to_string(),
        "property CPU_PROCESSORS of CPU cannot be \"1,8\", expected processors among 0-7, which this process may use"
    );
    let config = resolved(&[("CPU_PROCESSORS", "2-4")], &machines::plain(8));
    assert_eq!(config.property("CPU_PROCESSORS").expect("known"), "2-4");
    assert_eq!((config.streams, config.threads), (1, 3));
}

#[test]
fn bf16_is_used_where_the_processor_has_it_and_accuracy_does_not_forbid_it() {
    let isa = Isa::detect();
    let narrow = if isa.has_bf16() { ElementType::Bf16 } else { ElementType::F32 };
    for (properties, expected) in [
        (&[][..], narrow),
        (&[("EXECUTION_MODE_HINT", "ACCURACY")], ElementType::F32),
        (&[("INFERENCE_PRECISION_HINT", "f32")], ElementType::F32),
        (&[("INFERENCE_PRECISION_HINT", "f16")], ElementType::F32),
        (&[("INFERENCE_PRECISION_HINT", "bf16"), ("EXECUTION_MODE_HINT", "ACCURACY")], narrow),
    ] {
        let mut map = PropertyMap::new();
        for (name, text) in properties {
            map.set_text(name, text).expect("valid");
        }
        let config = CpuConfig::resolve(&map, &machines::plain(2).topology()).expect("possible");
        assert_eq!(config.precision, expected, "{properties:?}");
        assert_eq!(config.options().bf16, expected == ElementType::Bf16);
    }
    assert_eq!(
        effective_precision(ElementType::Bf16, ExecutionMode::Performance, Isa::PORTABLE),
        ElementType::F32
    );
}

#[test]
fn precisions_that_no_kernel_has_are_refused() {
    let map = PropertyMap::new().with_text("INFERENCE_PRECISION_HINT", "i8").expect("a type");
    let error =
        CpuConfig::resolve(&map, &machines::plain(2).topology()).expect_err("refused").to_string();
    assert!(error.contains("i8") && error.contains("f32"), "{error}");
}
