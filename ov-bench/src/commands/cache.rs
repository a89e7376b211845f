//! `ov-bench cache`: what a cache folder holds, whether it is sound, and making it smaller.

use anyhow::Result;

use crate::args::CacheCommand;

/// Lists, checks or evicts.
///
/// # Errors
/// When the folder cannot be read or a blob is damaged.
#[cfg(not(feature = "cache"))]
pub(crate) fn run(_: &CacheCommand) -> Result<()> {
    anyhow::bail!("this program was built without the model cache: build with the feature cache")
}

/// Lists, checks or evicts.
///
/// # Errors
/// When the folder cannot be read or a blob is damaged.
#[cfg(feature = "cache")]
pub(crate) fn run(command: &CacheCommand) -> Result<()> {
    with_cache::run(command)
}

#[cfg(feature = "cache")]
mod with_cache {
    use std::{path::Path, time::SystemTime};

    use anyhow::{Context as _, Result, bail};
    use ov_cache::{Description, Stored};
    use serde::Serialize;

    use crate::{
        args::CacheCommand,
        report::{align_right, bordered},
    };

    pub(super) fn run(command: &CacheCommand) -> Result<()> {
        match command {
            CacheCommand::Ls { cache_dir, json } => list(cache_dir, *json),
            CacheCommand::Verify { cache_dir } => verify(cache_dir),
            CacheCommand::Prune { cache_dir, max_bytes, dry_run } => {
                prune(cache_dir, *max_bytes as u64, *dry_run)
            }
        }
    }

    fn stored(dir: &Path) -> Result<Vec<Stored>> {
        if !dir.is_dir() {
            bail!("there is no folder {}", dir.display());
        }
        ov_cache::list(dir).with_context(|| format!("cannot read {}", dir.display()))
    }

    #[derive(Serialize)]
    struct Line<'a> {
        key: &'a str,
        model: &'a str,
        device: &'a str,
        target: &'a str,
        build: &'a str,
        bytes: u64,
        last_use_s: u64,
        state: &'a str,
    }

    fn list(dir: &Path, json: bool) -> Result<()> {
        let mut table = bordered(&["key", "model", "device", "size", "last use", "state"]);
        for blob in stored(dir)? {
            let (description, state) = match blob.describe() {
                Ok(d) if d.wrapped => (d, "wrapped".to_owned()),
                Ok(d) => (d, "plain".to_owned()),
                Err(error) => (Description::default(), error.to_string()),
            };
            let age = SystemTime::now().duration_since(blob.last_use).unwrap_or_default();
            if json {
                let since = blob.last_use.duration_since(SystemTime::UNIX_EPOCH);
                let line = Line {
                    key: &blob.key,
                    model: &description.model,
                    device: &description.device,
                    target: &description.target,
                    build: &description.build,
                    bytes: blob.len,
                    last_use_s: since.map_or(0, |d| d.as_secs()),
                    state: &state,
                };
                say!("{}", serde_json::to_string(&line)?);
                continue;
            }
            table.add_row([
                blob.key.get(..12).unwrap_or(&blob.key).to_owned(),
                description.model,
                format!("{} {}", description.device, description.target),
                format!("{:.1} MB", blob.len as f64 / 1e6),
                format!("{} h ago", age.as_secs() / 3600),
                state,
            ]);
        }
        if !json {
            align_right(&mut table, 3..5);
            say!("{table}");
        }
        Ok(())
    }

    fn verify(dir: &Path) -> Result<()> {
        let (mut sound, mut wrapped, mut damaged) = (0, 0, Vec::new());
        for blob in stored(dir)? {
            match blob.verify() {
                Ok(false) => sound += 1,
                Ok(true) => wrapped += 1,
                Err(error) => damaged.push(format!("{}: {error}", blob.path.display())),
            }
        }
        say!("{sound} sound, {wrapped} wrapped, {} damaged", damaged.len());
        if damaged.is_empty() {
            return Ok(());
        }
        bail!("{}; the next load compiles anew", damaged.join("; "))
    }

    fn prune(dir: &Path, max_bytes: u64, dry_run: bool) -> Result<()> {
        stored(dir)?;
        let removed = ov_cache::prune(dir, max_bytes, dry_run)
            .with_context(|| format!("cannot prune {}", dir.display()))?;
        let bytes: u64 = removed.iter().map(|s| s.len).sum();
        let verb = if dry_run { "would remove" } else { "removed" };
        say!("{verb} {} blobs, {:.1} MB", removed.len(), bytes as f64 / 1e6);
        Ok(())
    }
}
