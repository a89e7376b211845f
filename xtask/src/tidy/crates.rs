//! Which crate of the workspace may depend on which: a star around ov-core.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;

/// Every crate of the workspace with the crates of the workspace that it may depend on.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("ov-core", &[]),
    ("ov-cpu", &["ov-core"]),
    ("ov-gpu-cuda", &["ov-core"]),
    ("ov-auto", &["ov-core"]),
    ("ov-cache", &["ov-core"]),
    ("ov-bench", &["ov-core", "ov-cpu", "ov-gpu-cuda", "ov-auto", "ov-cache"]),
    ("xtask", &[]),
];

/// Checks `cargo metadata --no-deps`; dependencies of every kind count, those of tests included.
///
/// # Errors
/// When the metadata is not as cargo documents it.
pub(super) fn check(metadata: &Value) -> Result<Vec<Finding>> {
    let packages = metadata["packages"].as_array().context("metadata without packages")?;
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package without name")?;
        let manifest = format!("{name}/Cargo.toml");
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(known, _)| *known == name) else {
            findings.push(Finding::error(&manifest, 0, "is not one of the seven crates"));
            continue;
        };
        for dependency in package["dependencies"].as_array().context("no dependencies")? {
            let on = dependency["name"].as_str().context("a dependency without name")?;
            let ours = MAY_DEPEND_ON.iter().any(|(known, _)| *known == on);
            if ours && !allowed.contains(&on) {
                let message = format!("{name} may not depend on {on}: {}", reason(name));
                findings.push(Finding::error(&manifest, 0, message));
            }
        }
    }
    Ok(findings)
}

fn reason(name: &str) -> &'static str {
    match name {
        "ov-core" => "it names no other crate of the workspace",
        "xtask" => "it must start when the rest does not build",
        "ov-bench" => "tasks run it, not the other way round",
        _ => "it depends on ov-core only and finds devices by name through the registry",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, dependency: &str) -> usize {
        let json = format!(
            r#"{{"packages": [{{"name": "{name}", "dependencies": [
                {{"name": "rayon", "kind": null}}, {{"name": "{dependency}", "kind": "dev"}}]}}]}}"#
        );
        check(&serde_json::from_str(&json).unwrap()).unwrap().len()
    }

    #[test]
    fn sideways_and_upward_edges_fail() {
        for (name, dependency) in [
            ("ov-core", "ov-cpu"),
            ("ov-core", "xtask"),
            ("ov-cpu", "ov-cache"),
            ("ov-auto", "ov-cpu"),
            ("ov-cache", "ov-bench"),
            ("xtask", "ov-core"),
            ("ov-bench", "xtask"),
            ("ov-shiny", "rayon"),
        ] {
            assert_eq!(findings(name, dependency), 1, "{name} -> {dependency}");
        }
    }

    #[test]
    fn the_star_passes() {
        for (name, allowed) in MAY_DEPEND_ON {
            for dependency in *allowed {
                assert_eq!(findings(name, dependency), 0, "{name} -> {dependency}");
            }
        }
    }

    #[test]
    fn strange_metadata_is_an_error() {
        assert!(check(&Value::Null).is_err());
    }
}
