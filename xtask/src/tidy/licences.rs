//! Licences of every crate in the build, against the list in `deny.toml`.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Finding;

/// Checks each package of `cargo metadata`.
///
/// # Errors
/// When the metadata or `deny.toml` cannot be read.
pub(super) fn check(metadata: &Value, deny_toml: &str) -> Result<Vec<Finding>> {
    let allowed = allow_list(deny_toml)?;
    let packages = metadata["packages"].as_array().context("metadata without packages")?;
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package without name")?;
        let problem = match package["license"].as_str() {
            None => "names no licence".to_owned(),
            Some(licence) if is_allowed(licence, &allowed)? => continue,
            Some(licence) => format!("is licensed \"{licence}\", which deny.toml does not allow"),
        };
        findings.push(Finding::error("Cargo.lock", 0, format!("{name} {problem}")));
    }
    Ok(findings)
}

/// The strings of `allow = […]` under `[licenses]`.
fn allow_list(deny_toml: &str) -> Result<Vec<&str>> {
    let section = deny_toml.split("\n[").find_map(|part| part.strip_prefix("licenses]"));
    let list = section
        .and_then(|section| section.split_once("allow = ["))
        .and_then(|(_, rest)| rest.split_once(']'))
        .context("deny.toml has no `allow = […]` under [licenses]")?;
    Ok(list.0.split('"').skip(1).step_by(2).collect())
}

/// Evaluates an SPDX expression: `AND`, `OR`, `WITH`, parentheses; `/` is the old way to write `OR`.
fn is_allowed(expression: &str, allowed: &[&str]) -> Result<bool> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (value, rest) = any_of(&words, allowed)?;
    if !rest.is_empty() {
        bail!("licence expression \"{expression}\" has \"{}\" left over", rest.join(" "));
    }
    Ok(value)
}

fn any_of<'a>(words: &'a [&'a str], allowed: &[&str]) -> Result<(bool, &'a [&'a str])> {
    let (mut value, mut rest) = all_of(words, allowed)?;
    while let ["OR", more @ ..] = rest {
        let (next, after) = all_of(more, allowed)?;
        (value, rest) = (value || next, after);
    }
    Ok((value, rest))
}

fn all_of<'a>(words: &'a [&'a str], allowed: &[&str]) -> Result<(bool, &'a [&'a str])> {
    let (mut value, mut rest) = one(words, allowed)?;
    while let ["AND", more @ ..] = rest {
        let (next, after) = one(more, allowed)?;
        (value, rest) = (value && next, after);
    }
    Ok((value, rest))
}

fn one<'a>(words: &'a [&'a str], allowed: &[&str]) -> Result<(bool, &'a [&'a str])> {
    match words {
        ["(", inner @ ..] => match any_of(inner, allowed)? {
            (value, [")", rest @ ..]) => Ok((value, rest)),
            _ => bail!("a parenthesis in a licence expression is not closed"),
        },
        [licence, "WITH", exception, rest @ ..] => {
            Ok((allowed.contains(&format!("{licence} WITH {exception}").as_str()), rest))
        }
        [licence, rest @ ..] if !matches!(*licence, "AND" | "OR" | "WITH" | ")") => {
            Ok((allowed.contains(licence), rest))
        }
        _ => bail!("a licence expression ends early"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = "[graph]\n\n[licenses]\nallow = [\n  \"MIT\",\n  \"Zlib\",\n  \
        \"Apache-2.0 WITH LLVM-exception\",\n]\n[bans]\nallow = [\"GPL-3.0\"]\n";

    #[test]
    fn reads_the_list_of_the_licence_section() {
        let expected = ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"];
        assert_eq!(allow_list(DENY).unwrap(), expected);
        assert!(allow_list("[bans]\nallow = [\"MIT\"]\n").is_err());
    }

    #[test]
    fn evaluates_expressions() {
        let allowed = allow_list(DENY).unwrap();
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("MIT/Apache-2.0", true),
            ("MIT AND GPL-3.0", false),
            ("GPL-3.0 OR MIT AND Zlib", true),
            ("(GPL-3.0 OR MIT) AND Zlib", true),
            ("(MIT OR Zlib) AND GPL-3.0", false),
            ("Apache-2.0", false),
            ("Apache-2.0 WITH LLVM-exception", true),
        ] {
            assert_eq!(is_allowed(expression, &allowed).unwrap(), expected, "{expression}");
        }
        for broken in ["", "MIT OR", "(MIT", "MIT Zlib", "AND"] {
            assert!(is_allowed(broken, &allowed).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn names_the_crate_and_its_licence() {
        let metadata = serde_json::json!({"packages": [
            {"name": "good", "license": "MIT"},
            {"name": "bad", "license": "AGPL-3.0"},
            {"name": "silent", "license": null},
        ]});
        let found = check(&metadata, DENY).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].message.contains("bad") && found[0].message.contains("AGPL-3.0"));
        assert!(found[1].message.contains("silent"));
    }
}
