//! What a measurement says: the JSON line that scripts read, tables for people, files.

use std::{
    collections::HashMap,
    fs,
    io::{BufWriter, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets};
use ov_core::profiling::{NodeProfile, RuntimeNode};
use serde::{Deserialize, Serialize};

use crate::{sampler::Run, stats::Summary};

/// A measurement. The first keys, up to `rss_mb`, are a contract.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) model: String,
    pub(crate) device: String,
    pub(crate) precision: String,
    pub(crate) execution_devices: Vec<String>,
    pub(crate) loaded_from_cache: bool,
    pub(crate) read_ms: f64,
    pub(crate) compile_ms: f64,
    pub(crate) load_ms: f64,
    pub(crate) first_ms: f64,
    pub(crate) min_us: f64,
    pub(crate) median_us: f64,
    pub(crate) mean_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p95_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    pub(crate) n: usize,
    pub(crate) throughput_per_s: f64,
    pub(crate) rss_mb: f64,
    /// `sync`, `async`, `open` or `cold`.
    pub(crate) mode: String,
    /// Requests in flight.
    pub(crate) nireq: usize,
    /// Intended starts a second, of an open loop.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) rate_per_s: Option<f64>,
    /// Inferences a second of the model beside, while this one was measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) beside_per_s: Option<f64>,
    /// Inferences a second of the model beside, while nothing else ran.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) beside_alone_per_s: Option<f64>,
    /// From the start of the process to the first result, of a cold run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) start_to_result_ms: Option<f64>,
    /// Memory that loading made the process write, of a cold run; the request not included.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) import_dirty_mb: Option<f64>,
    /// Parts of a cold run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) steps: Option<Steps>,
    /// Memory that no other process shares, of a cold run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) private_mb: Option<f64>,
    /// Of a cold run with a cache: the processes that compiled, where others found the blob.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) missed: Option<Box<Self>>,
}

/// What a fresh process does until its first result, besides reading, compiling and the first inference.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Steps {
    /// From the start of the process to the program.
    pub(crate) process_ms: f64,
    /// Command line, devices and properties.
    pub(crate) open_ms: f64,
    /// The key of the model in the cache.
    pub(crate) key_ms: f64,
    /// Opening, checking and mapping the blob.
    pub(crate) map_ms: f64,
    /// Binding it.
    pub(crate) bind_ms: f64,
    /// Making the first request.
    pub(crate) request_ms: f64,
    /// Reading or making inputs.
    pub(crate) inputs_ms: f64,
}

impl Report {
    pub(crate) fn set_summary(&mut self, summary: Summary) {
        let Summary { min_us, median_us, mean_us, p90_us, p95_us, p99_us, p999_us, max_us, n } =
            summary;
        (self.min_us, self.median_us, self.mean_us) = (min_us, median_us, mean_us);
        (self.p90_us, self.p95_us, self.p99_us) = (p90_us, p95_us, p99_us);
        (self.p999_us, self.max_us, self.n) = (p999_us, max_us, n);
    }
}

/// One report, with every figure on its own line.
pub(crate) fn describe(report: &Report) -> Table {
    let mut table = bordered(&["", ""]);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("model", report.model.clone());
    row("device", on_devices(report));
    row("precision", report.precision.clone());
    let how = if report.loaded_from_cache { "bound from the cache" } else { "compile or import" };
    if let Some(steps) = &report.steps {
        row("process start", milliseconds(steps.process_ms));
        row("options and devices", milliseconds(steps.open_ms));
    }
    row("read", milliseconds(report.read_ms));
    row(how, milliseconds(report.compile_ms));
    if let Some(steps) = report.steps.as_ref().filter(|_| report.loaded_from_cache) {
        row("  key", milliseconds(steps.key_ms));
        row("  map", milliseconds(steps.map_ms));
        row("  bind", milliseconds(steps.bind_ms));
    }
    if let Some(steps) = &report.steps {
        row("request", milliseconds(steps.request_ms));
        row("inputs", milliseconds(steps.inputs_ms));
    }
    row("load: file to request", milliseconds(report.load_ms));
    row("first inference", milliseconds(report.first_ms));
    if let Some(total) = report.start_to_result_ms {
        row("process start to first result", milliseconds(total));
    }
    let what = match report.mode.as_str() {
        "open" => "latency from intended start",
        "cold" => "process start to first result",
        _ => "latency",
    };
    row(&format!("{what}: min"), time(report.min_us));
    for (name, value) in [
        ("median", report.median_us),
        ("mean", report.mean_us),
        ("p90", report.p90_us),
        ("p95", report.p95_us),
        ("p99", report.p99_us),
        ("p99.9", report.p999_us),
        ("max", report.max_us),
    ] {
        row(name, time(value));
    }
    row("samples", report.n.to_string());
    if report.mode != "cold" {
        row("throughput", format!("{:.1} /s", report.throughput_per_s));
    }
    if let Some(rate) = report.rate_per_s {
        row("intended rate", format!("{rate:.1} /s"));
    }
    row("requests", format!("{} ({})", report.nireq, report.mode));
    if let (Some(beside), Some(alone)) = (report.beside_per_s, report.beside_alone_per_s) {
        let share = 100.0 * beside / alone;
        row("model beside", format!("{beside:.1} /s of {alone:.1} /s alone, {share:.0} %"));
    }
    if let Some(private) = report.private_mb {
        row("memory of its own", format!("{private:.1} MiB"));
    }
    row("peak memory", format!("{:.0} MiB", report.rss_mb));
    align_right(&mut table, 1..2);
    table
}

/// Several reports, one a line.
pub(crate) fn compare(reports: &[Report]) -> Table {
    let mut table = bordered(&[
        "model",
        "device",
        "precision",
        "load",
        "first",
        "min",
        "p50",
        "p90",
        "p99",
        "max",
        "n",
        "per s",
        "memory",
    ]);
    for report in reports {
        table.add_row([
            report.model.clone(),
            on_devices(report),
            report.precision.clone(),
            milliseconds(report.load_ms),
            milliseconds(report.first_ms),
            time(report.min_us),
            time(report.median_us),
            time(report.p90_us),
            time(report.p99_us),
            time(report.max_us),
            report.n.to_string(),
            format!("{:.1}", report.throughput_per_s),
            format!("{:.0} MiB", report.rss_mb),
        ]);
    }
    align_right(&mut table, 3..13);
    table
}

fn on_devices(report: &Report) -> String {
    let served = report.execution_devices.join(",");
    if served.is_empty() || served == report.device {
        report.device.clone()
    } else {
        format!("{} on {served}", report.device)
    }
}

/// A table with these headings; without any when they are empty.
pub(crate) fn bordered(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_style(TableComponent::HeaderLines, '-')
        .set_style(TableComponent::MiddleHeaderIntersections, ' ');
    if headings.iter().any(|h| !h.is_empty()) {
        table.set_header(headings);
    }
    table
}

/// Numbers are easier to compare when they end at the same column.
pub(crate) fn align_right(table: &mut Table, columns: std::ops::Range<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Microseconds with a fitting unit.
pub(crate) fn time(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e3 => format!("{:.3} ms", us / 1e3),
        us => format!("{us:.2} us"),
    }
}

pub(crate) fn milliseconds(ms: f64) -> String {
    format!("{ms:.2} ms")
}

/// Time of one node, averaged over inferences.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Counter {
    pub(crate) node: String,
    pub(crate) op: String,
    pub(crate) kernel: String,
    pub(crate) layout: String,
    pub(crate) precision: String,
    pub(crate) status: String,
    pub(crate) wall_us: f64,
    pub(crate) cpu_us: f64,
}

/// Sums of the profiles of several inferences.
#[derive(Debug, Default)]
pub(crate) struct Profiles {
    sums: Vec<NodeProfile>,
    count: u32,
}

impl Profiles {
    /// Adds the profile of one inference.
    pub(crate) fn add(&mut self, profile: Vec<NodeProfile>) {
        self.count += 1;
        if self.sums.len() != profile.len() {
            (self.sums, self.count) = (profile, 1);
            return;
        }
        for (sum, node) in self.sums.iter_mut().zip(profile) {
            sum.wall += node.wall;
            sum.cpu += node.cpu;
        }
    }

    /// Averages, slowest first, with what the compiled model says of each node.
    pub(crate) fn counters(self, nodes: &[RuntimeNode]) -> Vec<Counter> {
        let known: HashMap<&str, &RuntimeNode> =
            nodes.iter().map(|node| (node.name.as_str(), node)).collect();
        let mean = |total: Duration| total.as_secs_f64() * 1e6 / f64::from(self.count.max(1));
        let mut counters: Vec<Counter> = self
            .sums
            .iter()
            .map(|sum| {
                let node = known.get(sum.name.as_str());
                let of = |field: fn(&RuntimeNode) -> &String| {
                    node.map(|node| field(node).clone()).unwrap_or_default()
                };
                Counter {
                    node: sum.name.clone(),
                    op: sum.op.clone(),
                    kernel: sum.kernel.clone(),
                    layout: of(|n| &n.layout),
                    precision: of(|n| &n.precision),
                    status: sum.status.to_string(),
                    wall_us: mean(sum.wall),
                    cpu_us: mean(sum.cpu),
                }
            })
            .collect();
        counters.sort_by(|a, b| b.wall_us.total_cmp(&a.wall_us));
        counters
    }
}

/// The nodes, slowest first, with their share of the sum.
pub(crate) fn counters_table(counters: &[Counter]) -> Table {
    let mut table = bordered(&["node", "op", "kernel", "layout", "precision", "time", "share"]);
    let total: f64 = counters.iter().map(|c| c.wall_us).sum();
    for c in counters.iter().filter(|c| c.wall_us > 0.0 || c.status == "EXECUTED") {
        table.add_row([
            c.node.clone(),
            c.op.clone(),
            c.kernel.clone(),
            c.layout.clone(),
            c.precision.clone(),
            time(c.wall_us),
            format!("{:.1} %", 100.0 * c.wall_us / total.max(f64::MIN_POSITIVE)),
        ]);
    }
    table.add_row(["sum", "", "", "", "", &time(total), ""]);
    align_right(&mut table, 5..7);
    table
}

/// Writes `report.json`, `samples.csv` and, where there are any, `counters.csv`.
///
/// # Errors
/// When the folder or a file cannot be written.
pub(crate) fn write_files(
    dir: &Path,
    report: &Report,
    run: &Run,
    counters: &[Counter],
) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make folder {}", dir.display()))?;
    let create = |name: &str| {
        let path = dir.join(name);
        let file = fs::File::create(&path);
        file.map(BufWriter::new).with_context(|| format!("cannot write {}", path.display()))
    };
    #[derive(Serialize)]
    struct Full<'a> {
        #[serde(flatten)]
        report: &'a Report,
        command: Vec<String>,
        duration_s: f64,
        counters: &'a [Counter],
    }
    let full =
        Full { report, command: std::env::args().collect(), duration_s: run.duration_s, counters };
    serde_json::to_writer_pretty(create("report.json")?, &full)?;
    let mut samples = create("samples.csv")?;
    writeln!(samples, "index;end_us;latency_us;devices")?;
    let mut spans = run.devices.iter().peekable();
    let mut devices = "";
    for (i, (end, latency)) in run.end_us.iter().zip(&run.latency_us).enumerate() {
        while let Some((_, next)) = spans.next_if(|(first, _)| *first <= i) {
            devices = next;
        }
        writeln!(samples, "{i};{end:.3};{latency:.3};{}", field(devices))?;
    }
    samples.flush()?;
    if counters.is_empty() {
        return Ok(());
    }
    let mut file = create("counters.csv")?;
    writeln!(file, "node;op;kernel;layout;precision;status;wall_us;cpu_us")?;
    for c in counters {
        let (node, op, kernel) = (field(&c.node), field(&c.op), field(&c.kernel));
        let (layout, precision, status) = (&c.layout, &c.precision, &c.status);
        writeln!(
            file,
            "{node};{op};{kernel};{layout};{precision};{status};{:.3};{:.3}",
            c.wall_us, c.cpu_us
        )?;
    }
    Ok(file.flush()?)
}

/// A field of a CSV file, quoted where it must be.
fn field(text: &str) -> String {
    if text.contains([';', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use ov_core::profiling::NodeStatus;

    use super::*;

    #[test]
    fn the_contract_of_keys_holds() {
        let line = serde_json::to_string(&Report::default()).unwrap();
        let expected = "model device precision execution_devices loaded_from_cache read_ms compile_ms load_ms first_ms \
                        min_us median_us mean_us p90_us p95_us p99_us p999_us max_us n throughput_per_s rss_mb";
        let mut from = 0;
        for key in expected.split(' ') {
            let quoted = format!("\"{key}\":");
            let at = line[from..].find(&quoted).unwrap_or_else(|| panic!("{key} in {line}"));
            from += at;
        }
        assert!(!line.contains('\n'));
    }

    #[test]
    fn times_pick_their_unit() {
        for (us, text) in
            [(0.5, "0.50 us"), (999.0, "999.00 us"), (1500.0, "1.500 ms"), (2.5e6, "2.50 s")]
        {
            assert_eq!(time(us), text);
        }
    }

    #[test]
    fn profiles_average_and_sort() {
        let node = |name: &str, us: u64| NodeProfile {
            name: name.to_owned(),
            op: "Relu".to_owned(),
            kernel: "k".to_owned(),
            status: NodeStatus::Executed,
            wall: Duration::from_micros(us),
            cpu: Duration::from_micros(us),
        };
        let mut profiles = Profiles::default();
        profiles.add(vec![node("a", 1), node("b", 10)]);
        profiles.add(vec![node("a", 3), node("b", 20)]);
        let counters = profiles.counters(&[]);
        let shown: Vec<_> = counters.iter().map(|c| (c.node.as_str(), c.wall_us)).collect();
        assert_eq!(shown, [("b", 15.0), ("a", 2.0)]);
    }

    #[test]
    fn csv_fields_are_quoted_where_needed() {
        assert_eq!(field("a b"), "a b");
        assert_eq!(field("a;\"b\""), "\"a;\"\"b\"\"\"");
    }
}
