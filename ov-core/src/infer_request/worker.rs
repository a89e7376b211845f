//! The thread on which a request runs its asynchronous inferences.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    task::Waker,
    thread,
};

use super::{Callback, Running, panicked, run};
use crate::{
    error::{Error, InferError, Result},
    plugin::{CancelToken, SyncRequest},
};

/// A thread that runs one job at a time.
pub(super) struct Worker {
    pub(super) jobs: SyncSender<Job>,
    pub(super) done: Receiver<Done>,
    bell: Arc<Bell>,
}

/// An inference to run.
pub(super) struct Job {
    pub(super) request: Running,
    pub(super) cancel: CancelToken,
    pub(super) callback: Option<Callback>,
    pub(super) device: Arc<str>,
}

/// An inference that has ended.
pub(super) struct Done {
    pub(super) request: Running,
    pub(super) callback: Option<Callback>,
    pub(super) result: Result<()>,
}

/// Wakes the task that waits for a job.
#[derive(Default)]
struct Bell(Mutex<Option<Waker>>);

impl Bell {
    fn ring(&self) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Rings when the thread ends, however it does.
struct LastRing(Arc<Bell>);

impl Drop for LastRing {
    fn drop(&mut self) {
        self.0.ring();
    }
}

impl Worker {
    /// Starts the thread; it ends when the worker is dropped.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let (jobs, incoming) = sync_channel(1);
        let (finished, done) = sync_channel(1);
        let bell = Arc::new(Bell::default());
        let last = LastRing(Arc::clone(&bell));
        thread::Builder::new()
            .name("ov-request".to_owned())
            .spawn(move || serve(&incoming, finished, &last.0))?;
        Ok(Self { jobs, done, bell })
    }

    /// Lets `waker` be woken when the job has ended; it takes the place of one from before. Look at `done` after this,
    /// not before: a job may end at any time.
    pub(super) fn wake_when_done(&self, waker: &Waker) {
        let mut place = self.bell.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *place {
            Some(held) => held.clone_from(waker),
            None => *place = Some(waker.clone()),
        }
    }

    /// Forgets the waker.
    pub(super) fn wake_nobody(&self) {
        *self.bell.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the sender is gone before the last ring")]
fn serve(incoming: &Receiver<Job>, finished: SyncSender<Done>, bell: &Bell) {
    let mut adopted = false;
    while let Ok(Job { mut request, cancel, mut callback, device }) = incoming.recv() {
        if !std::mem::replace(&mut adopted, true) {
            adopt_thread(&mut *request);
        }
        let mut result = run(&mut *request, &cancel, &device);
        if let Some(callback) = &mut callback {
            let told = match &result {
                Ok(()) => Ok(()),
                Err(e) => Err(e),
            };
            let answer = catch_unwind(AssertUnwindSafe(|| callback(told)))
                .unwrap_or_else(|p| Err(panicked("the callback", &*p)));
            result = result.and(answer);
        }
        if finished.send(Done { request, callback, result }).is_err() {
            return;
        }
        bell.ring();
    }
}

/// Lets a request have the calling thread for itself. A panic of the device is left to the inference to show.
pub(super) fn adopt_thread(request: &mut dyn SyncRequest) {
    if catch_unwind(AssertUnwindSafe(|| request.adopt_thread())).is_err() {
        tracing::warn!("the device panicked when a request got a thread of its own");
    }
}

/// The error of a request whose thread is gone.
#[cold]
pub(super) fn worker_ended(device: &str) -> Error {
    InferError::Other {
        device: device.to_owned(),
        detail: "the thread of the request has ended".to_owned(),
    }
    .into()
}
