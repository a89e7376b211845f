//! `ov-bench`: measures, runs, inspects and checks models on the devices of ov.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "a command-line program")]

#[macro_use]
mod output;

mod args;
mod commands;
mod devices;
mod inputs;
mod load;
mod npy;
mod plot;
mod process;
mod properties;
mod report;
mod rng;
mod roles;
mod sampler;
mod stats;
mod zoo;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};

/// Warnings to standard error; `OV_LOG` says more. Filters by text are made only when it is set: they cost half a
/// millisecond.
fn start_logging() {
    use tracing_subscriber::{EnvFilter, filter::LevelFilter};
    let output = tracing_subscriber::fmt().with_writer(std::io::stderr);
    if std::env::var_os("OV_LOG").is_none() {
        return output.with_max_level(LevelFilter::WARN).init();
    }
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .with_env_var("OV_LOG")
        .from_env_lossy();
    output.with_env_filter(filter).init();
}

fn main() -> ExitCode {
    process::began();
    let cli = Cli::parse();
    start_logging();
    let result = match &cli.command {
        Command::Bench(args) => commands::bench::run(args),
        Command::Infer(args) => commands::infer::run(args),
        Command::Compile(args) => commands::compile::run(args),
        Command::Query(args) => commands::query::run(args),
        Command::Conformance(args) => commands::conformance::run(args),
        Command::ConformanceWorker(args) => commands::conformance::worker::run(args),
        Command::Cache(args) => commands::cache::run(&args.command),
        Command::Roundtrip(args) => commands::roundtrip::run(args),
        Command::Zoo(args) => commands::zoo::run(&args.command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", told(&error).replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, without those that it already quotes.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}
