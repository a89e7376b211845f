//! `ov-bench bench --beside`: another model that keeps the device busy with low priority.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use ov_core::{
    InferRequest,
    property::hint::{self, Priority},
};

use crate::{
    args::Feed,
    commands::Place,
    inputs,
    load::{self, Reference},
    sampler,
};

/// A model that runs again and again on a thread of its own.
#[derive(Debug)]
pub(crate) struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<f64>>,
    /// Inferences a second while nothing else ran.
    pub(crate) alone_per_s: f64,
}

impl Neighbour {
    /// Loads the model on the device of `place`, counts how often it runs alone, and keeps it running.
    ///
    /// # Errors
    /// When the model cannot be loaded or run.
    pub(crate) fn start(place: &Place, name: &str) -> Result<Self> {
        let reference = Reference::parse(name)?;
        let mut properties = place.properties.clone();
        properties.set(hint::MODEL_PRIORITY, &Priority::Low);
        let loaded = load::load(&place.core, &reference, None, &place.device, &properties)?;
        let load::Loaded { compiled, mut request, .. } = loaded;
        let values = inputs::tensors(
            &place.core,
            &reference,
            &compiled,
            &Feed { inputs: None, shape: None },
        )?;
        sampler::set_inputs(&mut request, &values)?;
        request.infer()?;
        let alone_per_s = repeat(&mut request, |since| since.elapsed() >= ALONE)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || repeat(&mut request, |_| stopped.load(Ordering::Relaxed));
        let thread = thread::Builder::new().name("beside".to_owned()).spawn(work)?;
        Ok(Self { stop, thread, alone_per_s })
    }

    /// Stops the model; gives the inferences a second that it did.
    ///
    /// # Errors
    /// When one of them failed.
    pub(crate) fn finish(self) -> Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the thread of the model beside panicked"))?
    }
}

fn repeat(request: &mut InferRequest, done: impl Fn(Instant) -> bool) -> Result<f64> {
    let start = Instant::now();
    let mut count = 0u32;
    while !done(start) {
        request.infer()?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// How long the model runs alone.
const ALONE: Duration = Duration::from_secs(2);
