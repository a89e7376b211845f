//! The command line: a contract that scripts rely on; added to freely, never changed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures, runs, inspects and checks models on the devices of ov.
#[derive(Debug, Parser)]
#[command(name = "ov-bench", version, arg_required_else_help = true)]
#[command(after_help = "Example: ov-bench bench --model resnet50.onnx --device CPU --time 5")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure latency and throughput; without a model, of every built-in one on every device
    #[command(after_help = "Example: ov-bench bench -m zoo:resnet50 -d CPU --hint latency -t 10")]
    Bench(Box<BenchArgs>),
    /// Run one inference; write its outputs or compare them with expected ones
    #[command(after_help = "Example: ov-bench infer -m net.onnx --inputs in --expected out")]
    Infer(Box<InferArgs>),
    /// Write the compiled form of a model, which bench and infer take as a model
    #[command(after_help = "Example: ov-bench compile -m net.onnx -d CPU -o net.blob")]
    Compile(Box<CompileArgs>),
    /// Show devices, properties and, with a model, the kernel of every node
    #[command(after_help = "Example: ov-bench query -d CPU -m net.onnx")]
    Query(Box<QueryArgs>),
    /// Run folders of conformance cases, each isolated from the others
    #[command(after_help = "Example: ov-bench conformance --dir target/conformance/onnx -d CPU")]
    Conformance(ConformanceArgs),
    /// List, check or evict the blobs of a model cache
    #[command(after_help = "Example: ov-bench cache ls --cache-dir ~/.cache/ov")]
    Cache(CacheArgs),
    /// Export each model of a folder, import it in another process, and compare outputs bit for bit
    #[command(after_help = "Example: ov-bench roundtrip --dir target/models/zoo --filter bert")]
    Roundtrip(RoundtripArgs),
    /// List built-in models, or write one as a file
    #[command(after_help = "Example: ov-bench zoo write resnet50 resnet50.onnx")]
    Zoo(ZooArgs),
    #[command(hide = true)]
    ConformanceWorker(WorkerArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hint {
    Latency,
    Throughput,
    CumulativeThroughput,
    /// No hint is set
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Api {
    Sync,
    Async,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    F32,
    Bf16,
    F16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExecutionMode {
    Performance,
    Accuracy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Priority {
    Low,
    Medium,
    High,
}

/// Which model, on which device, how compiled.
#[derive(Clone, Debug, Args)]
pub(crate) struct Target {
    /// CPU, CUDA, CUDA.1, AUTO, AUTO:CUDA,CPU, AUTO:-CPU … [default: AUTO]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// [default: latency]
    #[arg(long, value_enum)]
    pub(crate) hint: Option<Hint>,
    /// Execution streams: a number, AUTO or NUMA [default: from the hint]
    #[arg(long, value_name = "N")]
    pub(crate) nstreams: Option<String>,
    /// Threads of an inference [default: from the hint]
    #[arg(long, value_name = "N")]
    pub(crate) nthreads: Option<u32>,
    /// Precision of the arithmetic [default: the device's choice]
    #[arg(long, value_enum)]
    pub(crate) infer_precision: Option<Precision>,
    #[arg(long, value_enum)]
    pub(crate) execution_mode: Option<ExecutionMode>,
    #[arg(long, value_enum)]
    pub(crate) model_priority: Option<Priority>,
    /// Folder of the model cache
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Any property by its OpenVINO name; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Properties by device: {"CPU": {"`NUM_STREAMS"`: "1"}}
    #[arg(long, value_name = "FILE.json")]
    pub(crate) config: Option<PathBuf>,
}

/// Where input values come from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Feed {
    /// Folder with `<index>.npy` or `<name>.npy` for each input [default: seeded values]
    #[arg(long, value_name = "DIR")]
    pub(crate) inputs: Option<PathBuf>,
    /// Fixes dynamic dimensions: `"x[1,3,224,224],mask[1,128]"`
    #[arg(long, value_name = "SHAPES")]
    pub(crate) shape: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArgs {
    /// ONNX, OpenVINO IR (.xml), a compiled blob, or zoo:NAME
    #[arg(short, long, value_name = "FILE|zoo:NAME")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) feed: Feed,
    /// [default: sync with latency, else async]
    #[arg(long, value_enum)]
    pub(crate) api: Option<Api>,
    /// Requests in flight [default: the device's optimum]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) nireq: Option<u32>,
    /// Seconds to measure [default: 10; 3 each without a model]
    #[arg(short, long, value_name = "S", value_parser = positive)]
    pub(crate) time: Option<f64>,
    /// Inferences to measure, instead of a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) niter: Option<u64>,
    /// Open loop: requests a second on a fixed schedule, latency from the intended start
    #[arg(long, value_name = "R", value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// Keeps this model busy on the same device meanwhile, with `MODEL_PRIORITY` LOW
    #[arg(long, value_name = "FILE|zoo:NAME", conflicts_with = "cold")]
    pub(crate) beside: Option<String>,
    /// Fresh processes, each timed from its start to its first result
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) cold: Option<u32>,
    /// One line of JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Time, kernel, layout and precision of every node
    #[arg(long)]
    pub(crate) counters: bool,
    /// Folder for report.json, samples.csv and, with --counters, counters.csv
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// Latency distribution, and latency over time by device
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Nanoseconds since 1970 at which the parent started this process.
    #[arg(long, hide = true)]
    pub(crate) cold_start_ns: Option<u64>,
    /// Of a cold run: how much memory loading writes, which takes time to find out.
    #[arg(long, hide = true)]
    pub(crate) memory: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InferArgs {
    /// ONNX, OpenVINO IR (.xml), a compiled blob, or zoo:NAME
    #[arg(short, long, value_name = "FILE|zoo:NAME")]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) feed: Feed,
    /// Folder for the outputs as `<index>.npy`
    #[arg(long, value_name = "DIR")]
    pub(crate) outputs: Option<PathBuf>,
    /// Folder with `<index>.npy` or `<name>.npy` to compare with; status 1 outside the tolerance
    #[arg(long, value_name = "DIR")]
    pub(crate) expected: Option<PathBuf>,
    /// Tolerance relative to each expected value
    #[arg(long, value_name = "R", default_value_t = 1e-3, value_parser = not_negative)]
    pub(crate) rtol: f64,
    /// Tolerance relative to the largest expected value of the output
    #[arg(long, value_name = "A", default_value_t = 1e-4, value_parser = not_negative)]
    pub(crate) atol: f64,
    /// Without --outputs and --expected: one line of JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CompileArgs {
    /// ONNX, OpenVINO IR (.xml) or zoo:NAME
    #[arg(short, long, value_name = "FILE|zoo:NAME")]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Fixes dynamic dimensions: `"x[1,3,224,224],mask[1,128]"`
    #[arg(long, value_name = "SHAPES")]
    pub(crate) shape: Option<String>,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct QueryArgs {
    /// With a model: the kernel of every node, or why there is none
    #[arg(short, long, value_name = "FILE|zoo:NAME")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Fixes dynamic dimensions: `"x[1,3,224,224],mask[1,128]"`
    #[arg(long, value_name = "SHAPES")]
    pub(crate) shape: Option<String>,
    /// One line of JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Every property of every linked device, as the documentation has it
    #[arg(long, conflicts_with_all = ["json", "model"])]
    pub(crate) markdown: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ConformanceArgs {
    /// Folder with cases: model.onnx or model.xml, `test_data_set`_*, tol
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// [default: CPU]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// Only cases whose name contains this
    #[arg(long, value_name = "S", default_value = "")]
    pub(crate) filter: String,
    /// One line of JSON per case
    #[arg(long)]
    pub(crate) json: bool,
    /// Name and reason of every case that failed
    #[arg(long)]
    pub(crate) list_failures: bool,
    /// File with `NAME: REASON` per line: exactly these of the cases run must fail
    #[arg(long, value_name = "FILE")]
    pub(crate) known_failures: Option<PathBuf>,
    /// Seconds that a case may take
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = positive)]
    pub(crate) timeout: f64,
    /// Processes that run cases side by side [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) jobs: Option<u32>,
    /// Any property by its OpenVINO name; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WorkerArgs {
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[arg(long)]
    pub(crate) device: String,
    #[arg(long, value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RoundtripArgs {
    /// Folder with NAME.onnx or NAME.xml and, if the shapes need it, `NAME.inputs/INDEX.npy`
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Only models whose name contains this
    #[arg(long, value_name = "S", default_value = "")]
    pub(crate) filter: String,
    #[arg(short, long, value_name = "NAME", default_value = "CPU")]
    pub(crate) device: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List blobs: model, device, size, last use
    #[command(after_help = "Example: ov-bench cache ls --cache-dir ~/.cache/ov")]
    Ls {
        #[arg(long, value_name = "DIR")]
        cache_dir: PathBuf,
        /// One line of JSON per blob
        #[arg(long)]
        json: bool,
    },
    /// Compare every checksum; status 1 when a blob is damaged
    #[command(after_help = "Example: ov-bench cache verify --cache-dir ~/.cache/ov")]
    Verify {
        #[arg(long, value_name = "DIR")]
        cache_dir: PathBuf,
    },
    /// Remove the blobs used longest ago
    #[command(after_help = "Example: ov-bench cache prune --cache-dir ~/.cache/ov --max-bytes 1e9")]
    Prune {
        #[arg(long, value_name = "DIR")]
        cache_dir: PathBuf,
        /// Bytes that may stay [default: 0]
        #[arg(long, value_name = "B", default_value_t = 0.0, value_parser = not_negative)]
        max_bytes: f64,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ZooArgs {
    #[command(subcommand)]
    pub(crate) command: ZooCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ZooCommand {
    /// List the built-in models
    #[command(after_help = "Example: ov-bench zoo list")]
    List,
    /// Write one as an ONNX file
    #[command(after_help = "Example: ov-bench zoo write minilm minilm.onnx")]
    Write { name: String, file: PathBuf },
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, as NUM_STREAMS=1".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    number(text).filter(|v| *v > 0.0).ok_or_else(|| "expected a number above 0".to_owned())
}

fn not_negative(text: &str) -> Result<f64, String> {
    number(text).filter(|v| *v >= 0.0).ok_or_else(|| "expected a number of at least 0".to_owned())
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|v: &f64| v.is_finite())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_shown_command_has_an_example() {
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let start = format!("Example: ov-bench {}", command.get_name());
            assert!(help.starts_with(&start), "{}: {help}", command.get_name());
        }
    }

    #[test]
    fn the_documented_spellings_parse() {
        for line in [
            "ov-bench bench",
            "ov-bench bench --model resnet50.onnx --device CPU --hint latency --time 10",
            "ov-bench bench -m zoo:resnet50 -d AUTO:CUDA,CPU --cache-dir c --cold 20",
            "ov-bench bench -m m --hint cumulative-throughput --api async --nireq 4 --nstreams AUTO",
            "ov-bench bench -m m --infer-precision bf16 --execution-mode accuracy --model-priority low",
            "ov-bench bench -m m --set A=b --set C=d=e --config f.json --inputs i --niter 5 --rate 2.5",
            "ov-bench bench -m m --json --counters --report r --plot p.svg --shape x[1,3],y[2]",
            "ov-bench infer -m M -d D --inputs I --outputs O --expected E --rtol 1e-3 --atol 0",
            "ov-bench compile -m M -d D -o FILE",
            "ov-bench query -d D -m M --json",
            "ov-bench query --markdown",
            "ov-bench conformance --dir D -d CPU --filter S --json --list-failures",
            "ov-bench roundtrip --dir D --filter S",
            "ov-bench cache ls --cache-dir D --json",
            "ov-bench cache verify --cache-dir D",
            "ov-bench cache prune --cache-dir D --max-bytes 1000000 --dry-run",
            "ov-bench zoo list",
            "ov-bench zoo write NAME FILE",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
        for line in [
            "ov-bench",
            "ov-bench bnech",
            "ov-bench bench --time 0",
            "ov-bench bench --time nan",
            "ov-bench bench --set A",
            "ov-bench bench --nireq 0",
            "ov-bench infer",
            "ov-bench infer -m m --atol -1",
            "ov-bench compile -m m",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
