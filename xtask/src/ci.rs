//! `cargo xtask ci`: the stages that a change must pass, cheapest first.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xshell::cmd;

use crate::workspace::{Workspace, expect_no_more, take_flag};
use crate::{docs_tables, sanitize, spills, test, tidy, usage_error};

struct Stage {
    name: &'static str,
    about: &'static str,
    run: fn(&Workspace) -> Result<()>,
}

const STAGES: &[Stage] = &[
    Stage { name: "fmt", about: "source is formatted", run: format },
    Stage { name: "tidy", about: "rules that clippy cannot check", run: |w| tidy::run(w, &[]) },
    Stage { name: "clippy", about: "lints, all targets and features", run: clippy },
    Stage { name: "features", about: "each feature alone, and none", run: single_features },
    Stage { name: "test", about: "tests and doctests", run: |w| test::run(w, &[]) },
    Stage { name: "doc", about: "documentation builds without warnings", run: documentation },
    Stage {
        name: "sanitize",
        about: "tests of the CPU kernels under AddressSanitizer",
        run: sanitize::kernels,
    },
    Stage { name: "docs-tables", about: "generated tables are current", run: docs_tables::check },
    Stage {
        name: "smoke-bench",
        about: "an embedded model runs and is measured",
        run: smoke_bench,
    },
    Stage {
        name: "spills",
        about: "inner loops of the hottest kernels stay in registers",
        run: spills::check,
    },
];

/// Stages that take longer than all others together, so they run only when they are named.
const ON_DEMAND: &[&str] = &["sanitize"];

/// Crates whose features are checked one by one.
const FEATURED: &[&str] = &["ov-core", "ov-cpu", "ov-gpu-cuda", "ov-auto", "ov-cache", "ov-bench"];

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut arguments = arguments.to_vec();
    if take_flag(&mut arguments, "--list") {
        expect_no_more(&arguments)?;
        STAGES.iter().for_each(|stage| println!("{:<12} {}", stage.name, stage.about));
        return Ok(());
    }
    let stages = choose(&arguments)?;
    let mut times = Vec::new();
    for stage in stages {
        eprintln!("== {}: {}", stage.name, stage.about);
        let start = Instant::now();
        let result = (stage.run)(workspace);
        let line = format!("{:<12} {:>7.1} s", stage.name, start.elapsed().as_secs_f64());
        eprintln!("== {line} {}", if result.is_ok() { "ok" } else { "FAILED" });
        times.push(line);
        result.with_context(|| {
            format!("stage {0} failed; run it alone with `cargo xtask ci {0}`", stage.name)
        })?;
    }
    println!("{}\nci passed", times.join("\n"));
    Ok(())
}

/// The named stages in their usual order; when none is named, all but those on demand.
fn choose(names: &[String]) -> Result<Vec<&'static Stage>> {
    if let Some(unknown) = names.iter().find(|name| STAGES.iter().all(|s| s.name != **name)) {
        let known: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
        return usage_error(format!("no stage \"{unknown}\", expected {}", known.join(", ")));
    }
    let chosen = |stage: &&Stage| {
        let named = names.iter().any(|name| name == stage.name);
        named || (names.is_empty() && !ON_DEMAND.contains(&stage.name))
    };
    Ok(STAGES.iter().filter(chosen).collect())
}

fn format(workspace: &Workspace) -> Result<()> {
    Ok(cmd!(workspace.sh, "cargo fmt --all --check").quiet().run()?)
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let command = cmd!(
        workspace.sh,
        "cargo clippy --quiet --locked --workspace --all-targets --all-features -- -D warnings"
    );
    Ok(command.quiet().run()?)
}

/// Checks every library and program with no feature and with each one alone.
fn single_features(workspace: &Workspace) -> Result<()> {
    let metadata = workspace.metadata(false)?;
    for package in FEATURED {
        let features = features_of(&metadata, package)?;
        for feature in std::iter::once("").chain(features.iter().map(String::as_str)) {
            let chosen = format!("--features={feature}");
            cmd!(workspace.sh, "cargo clippy --quiet --locked -p {package} --no-default-features")
                .arg(chosen)
                .args(["--", "-D", "warnings"])
                .quiet()
                .run()
                .with_context(|| format!("{package} does not build with features [{feature}]"))?;
        }
    }
    Ok(())
}

/// The features of a package in name order, `default` left out.
fn features_of(metadata: &Value, package: &str) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("metadata without packages")?;
    let found = packages
        .iter()
        .find(|candidate| candidate["name"] == package)
        .with_context(|| format!("no package {package} in the workspace"))?;
    let features = found["features"].as_object().context("a package without features")?;
    Ok(features.keys().filter(|name| *name != "default").cloned().collect())
}

fn documentation(workspace: &Workspace) -> Result<()> {
    let command =
        cmd!(workspace.sh, "cargo doc --quiet --locked --workspace --no-deps --all-features");
    Ok(command.env("RUSTDOCFLAGS", "-D warnings").quiet().run()?)
}

/// The model that the smoke bench measures: in the repository, so nothing is downloaded.
const SMOKE_MODEL: &str = "zoo:ppocr-v2-cls";

/// Runs the unoptimised ov-bench for a moment and checks its report; speed is not judged.
fn smoke_bench(workspace: &Workspace) -> Result<()> {
    let program = workspace.dev_ov_bench()?;
    cmd!(workspace.sh, "{program} bench --help")
        .quiet()
        .ignore_stdout()
        .run()
        .context("ov-bench has no bench command")?;
    let report =
        cmd!(workspace.sh, "{program} bench --model {SMOKE_MODEL} --device CPU --time 1 --json")
            .quiet()
            .read()?;
    check_report(&report)
}

/// A report is one line of JSON with plausible figures.
fn check_report(report: &str) -> Result<()> {
    let value: Value = serde_json::from_str(report)
        .with_context(|| format!("expected one line of JSON from ov-bench, got \"{report}\""))?;
    let number = |key: &str| {
        value[key].as_f64().with_context(|| format!("the report has no number \"{key}\": {report}"))
    };
    ensure!(number("n")? >= 1.0, "the report counts no inference: {report}");
    let ordered = ["min_us", "median_us", "p90_us", "p95_us", "p99_us", "p999_us", "max_us"];
    let mut last = 0.0;
    for key in ordered {
        let figure = number(key)?;
        ensure!(figure > 0.0 && figure >= last, "{key} is {figure} after {last}: {report}");
        last = figure;
    }
    for key in ["load_ms", "first_ms", "throughput_per_s", "rss_mb"] {
        ensure!(number(key)? > 0.0, "{key} is not above zero: {report}");
    }
    if !value["device"].as_str().is_some_and(|device| device.contains("CPU")) {
        bail!("expected device CPU: {report}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"model":"m","device":"CPU","load_ms":3.0,"first_ms":1.0,"min_us":10,
        "median_us":11,"p90_us":12,"p95_us":12,"p99_us":13,"p999_us":14,"max_us":15,"n":90,
        "throughput_per_s":9e4,"rss_mb":20}"#;

    #[test]
    fn accepts_a_plausible_report() {
        check_report(REPORT).unwrap();
    }

    #[test]
    fn rejects_reports_that_cannot_be_true() {
        for (from, to) in [
            ("\"n\":90", "\"n\":0"),
            ("\"p90_us\":12", "\"p90_us\":9"),
            ("\"min_us\":10", "\"min_us\":0"),
            ("\"load_ms\":3.0,", ""),
            ("\"rss_mb\":20", "\"rss_mb\":\"20\""),
            ("\"CPU\"", "\"GPU\""),
            ("}", ""),
        ] {
            assert!(REPORT.contains(from));
            assert!(check_report(&REPORT.replace(from, to)).is_err(), "{from} -> {to}");
        }
        assert!(check_report("").is_err());
    }

    #[test]
    fn stages_keep_their_order() {
        let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let chosen = choose(&names(&["test", "fmt"])).unwrap();
        assert_eq!(chosen.iter().map(|s| s.name).collect::<Vec<_>>(), ["fmt", "test"]);
        assert_eq!(choose(&[]).unwrap().len(), STAGES.len() - ON_DEMAND.len());
        assert!(choose(&names(&["fmt", "nope"])).is_err());
    }

    #[test]
    fn default_is_no_single_feature() {
        let metadata = serde_json::json!({"packages": [{"name": "a", "features":
            {"default": ["x"], "y": [], "x": []}}]});
        assert_eq!(features_of(&metadata, "a").unwrap(), ["x", "y"]);
        assert!(features_of(&metadata, "b").is_err());
    }
}
