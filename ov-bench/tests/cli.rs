//! The built program as users and scripts call it: exit status, streams, results.

use std::{
    path::Path,
    process::{Command, Output},
};

fn ov_bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ov-bench"))
        .args(arguments)
        .env_remove("OV_LOG")
        .output()
        .expect("the program starts")
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("the program was not killed")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The one line that a failure prints.
fn failure(arguments: &[&str]) -> String {
    let output = ov_bench(arguments);
    let error = text(&output.stderr);
    assert_eq!(status(&output), 1, "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", text(&output.stdout));
    let lines: Vec<&str> = error.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{arguments:?}: {error}");
    lines[0].to_owned()
}

#[test]
fn wrong_arguments_end_with_status_2() {
    for arguments in [
        &["bnech"][..],
        &["bench", "--time", "-1"],
        &["bench", "--hint", "fast"],
        &["infer"],
        &["compile", "-m", "zoo:resnet50"],
        &["query", "--markdown", "--json"],
        &["zoo", "write", "resnet50"],
        &["cache", "ls"],
        &["roundtrip"],
    ] {
        let output = ov_bench(arguments);
        assert_eq!(status(&output), 2, "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_is_a_result_with_an_example() {
    for command in
        ["bench", "infer", "compile", "query", "conformance", "roundtrip", "cache", "zoo"]
    {
        let output = ov_bench(&[command, "--help"]);
        assert_eq!(status(&output), 0);
        assert!(text(&output.stdout).contains(&format!("Example: ov-bench {command}")));
    }
}

#[test]
fn failures_say_in_one_line_what_and_how_to_mend_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let junk = folder.path().join("junk.onnx");
    std::fs::write(&junk, "PK\x03\x04 not a model").expect("written");
    let junk = junk.to_str().expect("a plain path");
    let empty = folder.path().to_str().expect("a plain path");
    for (arguments, expected) in [
        (&["bench", "-m", "nowhere.onnx"][..], "nowhere.onnx"),
        (&["infer", "-m", "nowhere.onnx"], "zoo:NAME"),
        (&["infer", "-m", "zoo:nope"], "ppocr-v2-cls"),
        (&["zoo", "write", "nope", "x.onnx"], "minilm"),
        (&["query", "-d", "NOPE"], "not registered"),
        (&["conformance", "--dir", "/nowhere"], "/nowhere"),
        (&["conformance", "--dir", empty], "no case"),
        #[cfg(feature = "cpu")]
        (&["infer", "-m", junk, "-d", "CPU"], "ZIP archive"),
        #[cfg(feature = "cpu")]
        (&["infer", "-m", "zoo:ppocr-v2-cls", "-d", "CPU", "--set", "NUM_STREMS=1"], "NUM_STREAMS"),
        #[cfg(feature = "cpu")]
        (&["infer", "-m", "zoo:ppocr-v2-cls", "-d", "CPU", "--shape", "y[1]"], "inputs are x"),
        #[cfg(feature = "cpu")]
        (&["infer", "-m", "zoo:ppocr-v2-cls", "-d", "CPU", "--inputs", empty], "0.npy or x.npy"),
    ] {
        let line = failure(arguments);
        assert!(line.contains(expected), "{arguments:?}: {line}");
    }
    assert!(Path::new(junk).exists());
}

#[test]
fn built_in_models_are_written_as_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("m.onnx");
    let output = ov_bench(&["zoo", "write", "mobilenet_v2", file.to_str().expect("plain")]);
    assert_eq!(status(&output), 0, "{}", text(&output.stderr));
    assert!(file.metadata().expect("written").len() > 13_000_000);
    assert!(text(&ov_bench(&["zoo", "list"]).stdout).contains("silero-vad-v6"));
}

#[test]
fn the_property_page_is_a_table_without_values_of_this_machine() {
    let output = ov_bench(&["query", "--markdown"]);
    assert_eq!(status(&output), 0, "{}", text(&output.stderr));
    let page = text(&output.stdout);
    assert!(page.contains("| `PERFORMANCE_HINT` | RW | compile |"), "{page}");
}

#[cfg(feature = "cpu")]
mod on_the_cpu {
    use std::fs;

    use ov_core::frontend::onnx::proto::{
        GraphProto, ModelProto, NodeProto, OperatorSetId, TensorProto, TensorType, TypeKind,
        TypeProto, ValueInfoProto,
    };
    use prost::Message as _;

    use super::*;

    const MODEL: &[&str] = &["-m", "zoo:ppocr-v2-cls", "-d", "CPU"];

    fn with<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&[command], MODEL, more].concat()
    }

    fn succeed(arguments: &[&str]) -> String {
        let output = ov_bench(arguments);
        assert_eq!(status(&output), 0, "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    #[test]
    fn infer_judges_against_expected_outputs() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().to_str().expect("a plain path");
        succeed(&with("infer", &["--outputs", dir]));
        assert!(succeed(&with("infer", &["--expected", dir])).contains("ok"));

        let file = folder.path().join("0.npy");
        let mut bytes = fs::read(&file).expect("written");
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&2.0f32.to_le_bytes());
        fs::write(&file, bytes).expect("written");
        let output = ov_bench(&with("infer", &["--expected", dir]));
        assert_eq!(status(&output), 1);
        let error = text(&output.stderr);
        assert!(error.starts_with("error: outputs outside the tolerance"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(text(&output.stdout).contains("1 of 2"));
        succeed(&with("infer", &["--expected", dir, "--atol", "2"]));
        fs::remove_file(&file).expect("removed");
        assert!(failure(&with("infer", &["--expected", dir])).contains("0.npy"));
    }

    #[test]
    fn bench_prints_one_line_of_json_with_figures() {
        for more in [
            &["--json", "--niter", "5"][..],
            &["--json", "--niter", "5", "--api", "async", "--nireq", "2"],
            &["--json", "--niter", "5", "--rate", "50"],
        ] {
            let printed = succeed(&with("bench", more));
            assert_eq!(printed.lines().count(), 1, "{printed}");
            let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
            assert_eq!(report["n"], 5, "{printed}");
            assert_eq!(report["device"], "CPU");
            for key in ["load_ms", "first_ms", "min_us", "throughput_per_s", "rss_mb"] {
                assert!(report[key].as_f64().is_some_and(|v| v > 0.0), "{key}: {printed}");
            }
        }
    }

    #[test]
    fn cold_runs_count_processes() {
        let printed = succeed(&with("bench", &["--cold", "2", "--json"]));
        let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
        assert_eq!((&report["n"], &report["mode"]), (&2.into(), &"cold".into()));
        let whole = report["start_to_result_ms"].as_f64().expect("a number");
        assert!(whole >= report["load_ms"].as_f64().expect("a number"), "{printed}");
    }

    #[cfg(feature = "cache")]
    #[test]
    fn cold_runs_with_a_cache_tell_misses_from_hits() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().to_str().expect("a plain path");
        let printed = succeed(&with("bench", &["--cold", "3", "--json", "--cache-dir", dir]));
        assert_eq!(printed.lines().count(), 1, "{printed}");
        let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
        assert_eq!((&report["loaded_from_cache"], &report["n"]), (&true.into(), &2.into()));
        assert_eq!(report["missed"]["n"], 1, "{printed}");
        for step in ["process_ms", "open_ms", "key_ms", "map_ms", "bind_ms", "request_ms"] {
            assert!(
                report["steps"][step].as_f64().is_some_and(|ms| ms >= 0.0),
                "{step}: {printed}"
            );
        }
        let listed = succeed(&["cache", "ls", "--cache-dir", dir, "--json"]);
        let line: serde_json::Value = serde_json::from_str(&listed).expect("one line of JSON");
        assert_eq!((&line["device"], &line["state"]), (&"CPU".into(), &"plain".into()));
        assert!(succeed(&["cache", "ls", "--cache-dir", dir]).contains("CPU"));
        let sound = succeed(&["cache", "verify", "--cache-dir", dir]);
        assert_eq!(sound.trim(), "1 sound, 0 wrapped, 0 damaged");
        let would = succeed(&["cache", "prune", "--cache-dir", dir, "--dry-run"]);
        assert!(would.starts_with("would remove 1 blobs"), "{would}");
        let removed = succeed(&["cache", "prune", "--cache-dir", dir, "--max-bytes", "0"]);
        assert!(removed.starts_with("removed 1 blobs"), "{removed}");
        assert!(succeed(&["cache", "ls", "--cache-dir", dir, "--json"]).is_empty());
    }

    #[test]
    fn models_come_back_from_files_bit_for_bit() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().to_str().expect("a plain path");
        let path = folder.path().join("mobilenet_v2.onnx");
        succeed(&["zoo", "write", "mobilenet_v2", path.to_str().expect("a plain path")]);
        let printed = succeed(&["roundtrip", "--dir", dir]);
        assert!(printed.contains("same bits"), "{printed}");
        assert_eq!(printed.lines().last(), Some("PASS 1 / 1"));
    }

    #[test]
    fn reports_and_plots_are_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().to_str().expect("a plain path");
        let plot = folder.path().join("p.svg");
        let plot = plot.to_str().expect("a plain path");
        let more = ["--niter", "3", "--counters", "--report", dir, "--plot", plot];
        let printed = succeed(&with("bench", &more));
        assert!(printed.contains("Convolution"), "{printed}");
        let samples = fs::read_to_string(folder.path().join("samples.csv")).expect("written");
        assert_eq!(samples.lines().count(), 4);
        for file in ["report.json", "counters.csv", "p.svg"] {
            assert!(folder.path().join(file).exists(), "{file}");
        }
    }

    #[test]
    fn a_compiled_blob_is_a_model_with_the_same_outputs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).to_str().expect("plain").to_owned();
        let (blob, direct, bound) = (path("m.blob"), path("direct"), path("bound"));
        succeed(&with("compile", &["-o", &blob]));
        succeed(&with("infer", &["--outputs", &direct]));
        succeed(&["infer", "-m", &blob, "-d", "CPU", "--outputs", &bound]);
        let read = |dir: &str| fs::read(Path::new(dir).join("0.npy")).expect("written");
        assert_eq!(read(&direct), read(&bound));
    }

    #[test]
    fn query_names_the_kernel_of_every_node() {
        let printed = succeed(&with("query", &["--json"]));
        let all: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
        let nodes = all["nodes"].as_array().expect("nodes");
        assert!(nodes.len() > 50);
        assert!(nodes.iter().all(|node| node["kernel"].is_string()), "{printed}");
    }

    /// A case whose model rectifies two numbers.
    fn write_case(folder: &Path, expected: [f32; 2]) {
        let tensor = |values: [f32; 2]| TensorProto {
            dims: vec![2],
            data_type: F32,
            float_data: values.to_vec(),
            ..TensorProto::default()
        };
        let port = |name: &str| ValueInfoProto {
            name: name.to_owned(),
            r#type: Some(TypeProto {
                value: Some(TypeKind::Tensor(TensorType { elem_type: F32, shape: None })),
            }),
        };
        let node = NodeProto {
            input: vec!["x".to_owned()],
            output: vec!["y".to_owned()],
            op_type: "Relu".to_owned(),
            ..NodeProto::default()
        };
        let graph = GraphProto {
            node: vec![node],
            input: vec![port("x")],
            output: vec![port("y")],
            ..GraphProto::default()
        };
        let model = ModelProto {
            ir_version: Some(8),
            graph: Some(graph),
            opset_import: vec![OperatorSetId { domain: String::new(), version: 17 }],
            ..ModelProto::default()
        };
        let set = folder.join("test_data_set_0");
        fs::create_dir_all(&set).expect("made");
        for (path, bytes) in [
            (folder.join("model.onnx"), model.encode_to_vec()),
            (set.join("input_0.pb"), tensor([-1.0, 2.0]).encode_to_vec()),
            (set.join("output_0.pb"), tensor(expected).encode_to_vec()),
        ] {
            fs::write(path, bytes).expect("written");
        }
    }

    #[test]
    fn a_broken_case_leaves_the_others_running() {
        let folder = tempfile::tempdir().expect("a folder");
        let case = |name: &str| folder.path().join(name);
        write_case(&case("a_damaged"), [0.0, 2.0]);
        fs::write(case("a_damaged/model.onnx"), b"\xff\xff").expect("written");
        write_case(&case("b_good"), [0.0, 2.0]);
        write_case(&case("c_wrong"), [0.0, 3.0]);
        let dir = folder.path().to_str().expect("a plain path");
        let run = |more: &[&str]| {
            let output = ov_bench(&[&["conformance", "--dir", dir, "-d", "CPU"], more].concat());
            (status(&output), text(&output.stdout))
        };
        let (ended, printed) = run(&["--list-failures"]);
        assert_eq!(ended, 1);
        assert!(printed.contains("FAIL a_damaged: compile: "), "{printed}");
        assert!(printed.contains("FAIL c_wrong: output 0: 1 elements"), "{printed}");
        assert_eq!(printed.lines().last(), Some("PASS 1 / 3"));
        assert_eq!(run(&["--filter", "good"]), (0, "PASS 1 / 1\n".to_owned()));
        let (ended, printed) = run(&["--timeout", "0.000001", "--list-failures"]);
        assert_eq!((ended, printed.matches("timed out").count()), (1, 3), "{printed}");
    }

    /// Number of the element type in ONNX.
    const F32: i32 = 1;
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    use std::process::Stdio;
    let mut program = Command::new(env!("CARGO_BIN_EXE_ov-bench"))
        .args(["query", "--markdown"])
        .env_remove("OV_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(program.stdout.take());
    let output = program.wait_with_output().expect("the program ends");
    assert_eq!((status(&output), text(&output.stderr)), (0, String::new()));
}
