//! `ov-bench bench`: latency and throughput of one model, or of every built-in one.

use std::{
    ffi::OsString,
    io::IsTerminal as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use ov_core::{
    CompiledModel,
    property::{hint, info, streams},
};

use crate::{
    args::{Api, BenchArgs, Hint},
    commands::{Place, beside::Neighbour},
    devices, inputs,
    load::{self, Reference},
    plot, process,
    properties::Extra,
    report::{self, Profiles, Report, Steps},
    sampler::{self, Limit, Run},
    stats::Summary,
    zoo,
};

/// Measures, and prints the report.
///
/// # Errors
/// When the model cannot be loaded or run.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    match (&args.model, args.cold) {
        (None, _) => sweep(args),
        (Some(model), Some(count)) if args.cold_start_ns.is_none() => cold(args, model, count),
        (Some(model), _) => measure(args, model),
    }
}

fn measure(args: &BenchArgs, name: &str) -> Result<()> {
    let reference = Reference::parse(name)?;
    let extra = Extra { nireq: args.nireq, counters: args.counters };
    let place = Place::of(&args.target, extra)?;
    let shape = args.feed.shape.as_deref();
    let dirty_before = args.memory.then(process::dirty_mb);
    let before_load = Instant::now();
    let before_load_ns = process::wall_clock_ns();
    let loaded = load::load(&place.core, &reference, shape, &place.device, &place.properties)?;
    let load::Loaded { compiled, mut request, read_ms, compile_ms, load_ms } = loaded;
    let import_dirty_mb = dirty_before.map(|before| process::dirty_mb() - before);
    let inputs = inputs::tensors(&place.core, &reference, &compiled, &args.feed)?;
    sampler::set_inputs(&mut request, &inputs)?;
    let start = Instant::now();
    request.infer()?;
    let first = start.elapsed();
    let mut report = Report {
        model: name.to_owned(),
        device: place.device.clone(),
        loaded_from_cache: compiled.loaded_from_cache(),
        read_ms,
        compile_ms,
        load_ms,
        first_ms: first.as_secs_f64() * 1e3,
        import_dirty_mb,
        ..Report::default()
    };
    if let Some(start_ns) = args.cold_start_ns {
        let total = before_load.elapsed();
        let between = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
        let before_ms = between(start_ns, before_load_ns);
        let total_ms = total.as_secs_f64() * 1e3;
        report.start_to_result_ms = Some(before_ms + total_ms);
        let times = compiled.load_times();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        report.steps = Some(Steps {
            process_ms: between(start_ns, process::began_ns()),
            open_ms: between(process::began_ns(), before_load_ns),
            key_ms: ms(times.key),
            map_ms: ms(times.map),
            bind_ms: ms(times.bind),
            request_ms: report.load_ms - report.read_ms - report.compile_ms,
            inputs_ms: total_ms - report.load_ms - report.first_ms,
        });
        describe_model(&mut report, &compiled);
        report.rss_mb = process::peak_rss_mb();
        report.private_mb = Some(process::private_mb());
        say!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    let mut once = first;
    for _ in 0..WARM_UP {
        let start = Instant::now();
        request.infer()?;
        once = start.elapsed();
    }
    let limit = match args.niter {
        Some(n) => Limit::Count(n),
        None => Limit::Time(Duration::from_secs_f64(args.time.unwrap_or(MODEL_SECONDS))),
    };
    let api = args.api.unwrap_or(match args.target.hint {
        None | Some(Hint::Latency) => Api::Sync,
        Some(_) => Api::Async,
    });
    let watch = args.plot.is_some().then_some(&compiled);
    let mut requests = vec![request];
    if api == Api::Async || args.rate.is_some() {
        let first = requests.remove(0);
        let count = args.nireq.unwrap_or_else(|| optimal_requests(&compiled));
        requests = sampler::requests(&compiled, first, count as usize, &inputs)?;
        for request in &mut requests {
            request.infer()?;
        }
    }
    let neighbour =
        args.beside.as_ref().map(|model| Neighbour::start(&place, model)).transpose()?;
    let (run, mode) = match (args.rate, api) {
        (Some(rate), _) => (sampler::open_loop(&mut requests, rate, limit, watch)?, "open"),
        (None, Api::Async) => (sampler::closed_async(&mut requests, limit, once, watch)?, "async"),
        (None, Api::Sync) => (sampler::closed_sync(&mut requests[0], limit, once, watch)?, "sync"),
    };
    if let Some(neighbour) = neighbour {
        report.beside_alone_per_s = Some(neighbour.alone_per_s);
        report.beside_per_s = Some(neighbour.finish()?);
    }
    report.set_summary(Summary::of(&run.latency_us));
    report.throughput_per_s = run.throughput();
    report.nireq = requests.len();
    mode.clone_into(&mut report.mode);
    report.rate_per_s = args.rate;
    report.rss_mb = process::peak_rss_mb();
    describe_model(&mut report, &compiled);
    let counters = if args.counters {
        let mut profiles = Profiles::default();
        for _ in 0..PROFILED {
            requests[0].infer()?;
            profiles.add(requests[0].profiling()?);
        }
        profiles.counters(&compiled.runtime_nodes())
    } else {
        Vec::new()
    };
    if let Some(dir) = &args.report {
        report::write_files(dir, &report, &run, &counters)?;
    }
    if let Some(path) = &args.plot {
        plot::write(path, &format!("{name} on {}", place.device), &run)?;
    }
    if args.json {
        say!("{}", serde_json::to_string(&report)?);
    } else {
        say!("{}", report::describe(&report));
        if !counters.is_empty() {
            say!("{}", report::counters_table(&counters));
        }
        warn_of_few(&run);
    }
    Ok(())
}

/// Adds what the compiled model says of itself.
fn describe_model(report: &mut Report, compiled: &CompiledModel) {
    let precision = compiled.property(hint::INFERENCE_PRECISION.name());
    report.precision = precision.unwrap_or_else(|_| "device".to_owned());
    report.execution_devices = compiled.get(info::EXECUTION_DEVICES).unwrap_or_default();
}

fn optimal_requests(compiled: &CompiledModel) -> u32 {
    compiled.get(streams::OPTIMAL_NUMBER_OF_INFER_REQUESTS).unwrap_or(1).max(1)
}

/// Percentiles need enough samples beyond them: ten for 99 % confidence.
fn warn_of_few(run: &Run) {
    let n = run.latency_us.len();
    if n < ENOUGH_FOR_P99 {
        eprintln!("note: {n} samples; p99 means something from {ENOUGH_FOR_P99} on, see --time");
    }
}

/// Fresh processes, each timed from its start to its first result.
fn cold(args: &BenchArgs, model: &str, count: u32) -> Result<()> {
    Reference::parse(model)?;
    let bar = progress(u64::from(count), args.json);
    let mut reports = Vec::new();
    for _ in 0..count {
        let mut arguments = own_arguments();
        arguments.push("--cold-start-ns".into());
        arguments.push(process::wall_clock_ns().to_string().into());
        reports.push(child(&arguments)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (hits, misses): (Vec<Report>, Vec<Report>) =
        reports.into_iter().partition(|r| r.loaded_from_cache);
    let summarise = |group: &[Report]| (!group.is_empty()).then(|| summarise_cold(group));
    match (summarise(&misses), summarise(&hits)) {
        (missed, Some(mut report)) if args.json => {
            report.missed = missed.map(Box::new);
            say!("{}", serde_json::to_string(&report)?);
        }
        (Some(report), None) if args.json => say!("{}", serde_json::to_string(&report)?),
        (missed, found) => {
            for report in missed.iter().chain(&found) {
                say!("{}", report::describe(report));
            }
        }
    }
    Ok(())
}

/// Medians of the steps, and the distribution of the whole.
fn summarise_cold(reports: &[Report]) -> Report {
    let median = |field: fn(&Report) -> f64| {
        let values: Vec<f64> = reports.iter().map(field).collect();
        Summary::of(&values).median_us
    };
    let totals: Vec<f64> =
        reports.iter().filter_map(|r| r.start_to_result_ms).map(|ms| ms * 1e3).collect();
    let summary = Summary::of(&totals);
    let step = |field: fn(&Steps) -> f64| {
        let values: Vec<f64> = reports.iter().filter_map(|r| r.steps.as_ref()).map(field).collect();
        Summary::of(&values).median_us
    };
    let steps = Steps {
        process_ms: step(|s| s.process_ms),
        open_ms: step(|s| s.open_ms),
        key_ms: step(|s| s.key_ms),
        map_ms: step(|s| s.map_ms),
        bind_ms: step(|s| s.bind_ms),
        request_ms: step(|s| s.request_ms),
        inputs_ms: step(|s| s.inputs_ms),
    };
    let mut report = Report {
        steps: reports[0].steps.is_some().then_some(steps),
        read_ms: median(|r| r.read_ms),
        compile_ms: median(|r| r.compile_ms),
        load_ms: median(|r| r.load_ms),
        first_ms: median(|r| r.first_ms),
        rss_mb: median(|r| r.rss_mb),
        private_mb: Some(median(|r| r.private_mb.unwrap_or_default())),
        start_to_result_ms: Some(summary.median_us / 1e3),
        throughput_per_s: 1e6 / summary.mean_us.max(f64::MIN_POSITIVE),
        mode: "cold".to_owned(),
        nireq: 1,
        ..reports[0].clone()
    };
    report.set_summary(summary);
    report
}

/// Every built-in model on every usable device, each in a process of its own: memory and start-up are those of one.
fn sweep(args: &BenchArgs) -> Result<()> {
    let core = devices::core()?;
    let chosen = match &args.target.device {
        Some(device) => vec![device.clone()],
        None => core.available_devices(),
    };
    for status in core.devices() {
        if let (Err(reason), None) = (&status.devices, &args.target.device) {
            eprintln!("note: {} is not usable: {reason}", status.name);
        }
    }
    if chosen.is_empty() {
        devices::default_device(&core)?;
    }
    let bar = progress((chosen.len() * zoo::ZOO.len()) as u64, args.json);
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    for device in &chosen {
        for entry in zoo::ZOO {
            bar.set_message(format!("{} on {device}", entry.name));
            let mut arguments = own_arguments();
            arguments.extend(["--model".into(), format!("zoo:{}", entry.name).into()]);
            if args.target.device.is_none() {
                arguments.extend(["--device".into(), device.into()]);
            }
            if args.time.is_none() && args.niter.is_none() && args.cold.is_none() {
                arguments.extend(["--time".into(), SWEEP_SECONDS.to_string().into()]);
            }
            if !args.json {
                arguments.push("--json".into());
            }
            match child(&arguments) {
                Ok(report) if args.json => say!("{}", serde_json::to_string(&report)?),
                Ok(report) => reports.push(report),
                Err(e) => failures.push(format!("zoo:{} on {device}: {e:#}", entry.name)),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if !args.json {
        say!("{}", report::compare(&reports));
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
}

/// The arguments of this process.
fn own_arguments() -> Vec<OsString> {
    std::env::args_os().skip(1).collect()
}

/// Runs this program again and reads the last line of JSON that it prints.
fn child(arguments: &[OsString]) -> Result<Report> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cannot start a process")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().rev().find(|line| line.starts_with("error:"));
        let reason = line
            .and_then(|line| line.strip_prefix("error: "))
            .map_or_else(|| format!("the process ended with {}", output.status), str::to_owned);
        bail!("{reason}");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find(|line| line.starts_with('{'));
    Ok(serde_json::from_str(line.context("the process printed no report")?)?)
}

/// A bar on a terminal, nothing in a pipe.
fn progress(len: u64, silent: bool) -> ProgressBar {
    if silent || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    ProgressBar::new(len)
}

/// Seconds for one model.
const MODEL_SECONDS: f64 = 10.0;

/// Seconds for each of many models.
const SWEEP_SECONDS: f64 = 3.0;

/// Inferences between the first and the measured ones.
const WARM_UP: usize = 3;

/// Inferences whose node times are averaged.
const PROFILED: usize = 20;

/// measuring rule: 10 exceedances at 99 % confidence.
const ENOUGH_FOR_P99: usize = 2010;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cold_reports_keep_the_median_of_each_step() {
        let report = |total: f64, read: f64| Report {
            read_ms: read,
            start_to_result_ms: Some(total),
            ..Report::default()
        };
        let summary = summarise_cold(&[report(30.0, 1.0), report(10.0, 9.0), report(20.0, 2.0)]);
        assert_eq!(summary.read_ms, 2.0);
        assert_eq!(summary.start_to_result_ms, Some(20.0));
        assert_eq!((summary.min_us, summary.max_us, summary.n), (10_000.0, 30_000.0, 3));
    }
}
