//! Worker processes that are fed cases, watched, and started again after a crash or a hang.

use std::{
    io::{BufRead as _, BufReader, IsTerminal as _, Write as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use indicatif::ProgressBar;

use super::worker::Outcome;

/// How cases are run.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) dir: PathBuf,
    pub(super) device: String,
    /// Properties to compile with.
    pub(super) set: Vec<(String, String)>,
    /// For one case.
    pub(super) timeout: Duration,
    /// Processes side by side.
    pub(super) jobs: usize,
}

/// The outcome of every case, in order.
///
/// # Errors
/// When workers cannot be started.
pub(super) fn run(settings: &Settings, names: &[String]) -> Result<Vec<Result<(), String>>> {
    let outcomes: Mutex<Vec<Option<Result<(), String>>>> = Mutex::new(vec![None; names.len()]);
    let next = AtomicUsize::new(0);
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(names.len() as u64)
    } else {
        ProgressBar::hidden()
    };
    thread::scope(|scope| {
        let feed = || -> Result<()> {
            let mut worker = None;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(name) = names.get(index) else { return Ok(()) };
                let ready = match worker.take() {
                    Some(worker) => worker,
                    None => Worker::start(settings)?,
                };
                let (outcome, left) = ready.run(name, settings.timeout);
                worker = left;
                outcomes.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(outcome);
                bar.inc(1);
            }
        };
        let feeders: Vec<_> = (0..settings.jobs).map(|_| scope.spawn(feed)).collect();
        feeders.into_iter().try_for_each(|feeder| {
            feeder.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a feeding thread panicked")))
        })
    })?;
    bar.finish_and_clear();
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(outcomes
        .into_iter()
        .map(|o| o.unwrap_or_else(|| Err("it was not run".to_owned())))
        .collect())
}

struct Worker {
    process: Child,
    lines: Receiver<String>,
}

impl Worker {
    fn start(settings: &Settings) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.args(["conformance-worker", "--device", &settings.device, "--dir"]);
        command.arg(&settings.dir);
        for (key, value) in &settings.set {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self::spawn(&mut command)
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        let mut process = command.spawn().context("cannot start a worker process")?;
        let output = process.stdout.take().context("a worker has no output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process, lines })
    }

    /// The outcome of a case, and the worker if it can take another.
    fn run(mut self, name: &str, timeout: Duration) -> (Result<(), String>, Option<Self>) {
        let sent = match &mut self.process.stdin {
            Some(input) => writeln!(input, "{name}").and_then(|()| input.flush()),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        if sent.is_err() {
            return (Err(self.ended()), None);
        }
        match self.lines.recv_timeout(timeout) {
            Ok(line) => match serde_json::from_str::<Outcome>(&line) {
                Ok(Outcome { case, reason }) if case == name => {
                    (reason.map_or(Ok(()), Err), Some(self))
                }
                _ => (Err(format!("the worker printed {line:?}")), None),
            },
            Err(RecvTimeoutError::Timeout) => {
                (Err(format!("timed out after {} s", timeout.as_secs_f64())), None)
            }
            Err(RecvTimeoutError::Disconnected) => (Err(self.ended()), None),
        }
    }

    fn ended(&mut self) -> String {
        self.process.wait().map_or_else(|e| e.to_string(), crashed)
    }
}

impl Drop for Worker {
    /// Ends the process: at once, as it may hang.
    fn drop(&mut self) {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        debug_assert!(ended.is_ok(), "{ended:?}");
    }
}

fn crashed(status: ExitStatus) -> String {
    format!("the process crashed: {status}")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Worker {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        Worker::spawn(&mut command).expect("sh starts")
    }

    #[test]
    fn every_end_of_a_case_is_told_apart() {
        let second = Duration::from_secs(20);
        let pass = r#"while read n; do echo "{\"case\":\"$n\",\"reason\":null}"; done"#;
        let (outcome, worker) = shell(pass).run("a", second);
        assert_eq!(outcome, Ok(()));
        assert_eq!(worker.unwrap().run("b", second).0, Ok(()));

        let fail = r#"read n; echo "{\"case\":\"$n\",\"reason\":\"why\"}"; read n"#;
        assert_eq!(shell(fail).run("a", second).0, Err("why".to_owned()));

        for (script, timeout, expected) in [
            ("read n; kill -SEGV $$", second, "signal"),
            ("read n; exit 3", second, "exit status: 3"),
            ("read n; sleep 60", Duration::from_millis(200), "timed out"),
            ("read n; echo nonsense; sleep 60", second, "printed \"nonsense\""),
        ] {
            let (outcome, worker) = shell(script).run("a", timeout);
            let reason = outcome.unwrap_err();
            assert!(reason.contains(expected), "{reason}");
            assert!(worker.is_none());
        }
    }
}
