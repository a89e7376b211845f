//! One registry of teams per process: models on the same cores share their threads and take turns.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use ov_core::{
    error::{DeviceError, Result},
    property::{ProcessorSet, hint::Priority},
};

use crate::{DEVICE_NAME, config::CpuConfig, team::Team};

#[derive(Debug, PartialEq, Eq, Clone)]
struct Key {
    stream: usize,
    threads: usize,
    spin: Duration,
    bind: Vec<ProcessorSet>,
    /// A model of one class does not wait for the threads of another.
    priority: Priority,
}

static TEAMS: Mutex<Vec<(Key, Weak<Team>)>> = Mutex::new(Vec::new());

/// The team of stream number `stream`.
///
/// # Errors
/// When the system refuses a thread.
pub(crate) fn of_stream(config: &CpuConfig, stream: usize) -> Result<Arc<Team>> {
    let threads = config.places[stream].processors.len();
    let bind = config.bindings(stream);
    let key = Key { stream, threads, spin: config.spin(), bind, priority: config.priority };
    let mut teams = TEAMS.lock().unwrap_or_else(PoisonError::into_inner);
    teams.retain(|(_, team)| team.strong_count() > 0);
    if let Some(team) = teams.iter().find(|(k, _)| *k == key).and_then(|(_, t)| t.upgrade()) {
        return Ok(team);
    }
    let team = Team::new(threads, key.spin, &key.bind)
        .map_err(|e| DeviceError::Failed { name: DEVICE_NAME.to_owned(), source: Box::new(e) })?;
    let team = Arc::new(team);
    teams.push((key, Arc::downgrade(&team)));
    Ok(team)
}
