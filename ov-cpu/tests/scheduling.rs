//! Streams, threads and processors of compiled models on the machine that runs the tests.
#![cfg(test)]

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use ov_core::{
    AsyncInferQueue, Blob, CompiledModel, Core, ElementType, Error, Model, PropertyMap,
    QueueOptions, Result, Tensor,
    cache::{CacheEntry, CacheProvider, CacheRequest, CachedBlob},
    error::DeviceError,
    op::activation::Relu,
    property::{ProcessorSet, device, hint, streams},
};
use ov_cpu::{CpuPlugin, affinity};

/// Reservations hold for the whole process, so these tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn core() -> Core {
    Core::with_plugins([CpuPlugin::create()]).expect("one plugin")
}

fn model() -> Result<Model> {
    let mut model = Model::new("m");
    let x = model.add_parameter("x", ElementType::F32, [2])?;
    let y = model.add(Relu {}, &[x], "y")?;
    model.add_output("y", y);
    Ok(model)
}

fn compile(properties: &[(&str, &str)]) -> Result<CompiledModel> {
    let mut map = PropertyMap::new();
    for (name, text) in properties {
        map.set_text(name, text)?;
    }
    core().compile_model(model()?, "CPU", &map)
}

/// Holds one blob and counts how often it was refused.
#[derive(Default)]
struct Cache {
    blob: Mutex<Option<Blob>>,
    rejected: AtomicUsize,
}

struct Provider(Arc<Cache>);

impl CacheProvider for Provider {
    fn open(&self, _: &CacheRequest<'_>) -> Option<Box<dyn CacheEntry>> {
        Some(Box::new(Self(Arc::clone(&self.0))))
    }
}

impl CacheEntry for Provider {
    fn load(&mut self) -> Option<CachedBlob> {
        self.0.blob.lock().expect("not poisoned").clone().map(CachedBlob::from)
    }

    fn reject(&mut self, _: &Error) {
        self.0.rejected.fetch_add(1, Ordering::Relaxed);
    }

    fn publish(self: Box<Self>, blob: Blob) {
        *self.0.blob.lock().expect("not poisoned") = Some(blob);
    }
}

fn input(id: u16) -> [Tensor; 1] {
    [Tensor::from_vec([2], vec![f32::from(id), -1.0]).expect("two")]
}

#[test]
fn a_reserving_model_shuts_out_others_until_it_is_dropped() {
    let _turn = turn();
    let reserve = [("ENABLE_CPU_RESERVATION", "YES")];
    let first = compile(&reserve).expect("everything is free");
    assert!(first.get(hint::ENABLE_CPU_PINNING).expect("known"));
    let free = affinity::allowed_processors().len()
        > first.get(hint::CPU_PROCESSORS).expect("known").ids().len();
    for properties in [&[][..], &reserve] {
        let Err(error) = compile(properties) else {
            assert!(free, "siblings or a quota leave some processors");
            continue;
        };
        assert!(error.to_string().starts_with("No CPU resources available"), "{error}");
        assert!(matches!(error, Error::Device(e) if matches!(*e, DeviceError::Reserved { .. })));
    }
    let mut request = first.create_infer_request().expect("memory");
    drop(first);
    request.run(&input(3)).expect("a request keeps its model");
    drop(request);
    compile(&reserve).expect("everything is free again");
}

#[test]
fn a_cached_blob_is_not_to_blame_for_reserved_processors() {
    let _turn = turn();
    let cache = Arc::new(Cache::default());
    let core = core().with_cache(Arc::new(Provider(Arc::clone(&cache))));
    let properties = PropertyMap::new()
        .with(ov_core::property::cache::CACHE_DIR, "anywhere".into())
        .with(hint::ENABLE_CPU_RESERVATION, true)
        .with(hint::ENABLE_HYPER_THREADING, true);
    let compile = || core.compile_model(model()?, "CPU", &properties);
    drop(compile().expect("everything is free"));
    let held = compile().expect("everything is free again");
    assert!(held.loaded_from_cache());
    if let Err(error) = compile() {
        assert!(matches!(error, Error::Device(_)), "{error}");
    }
    assert_eq!(cache.rejected.load(Ordering::Relaxed), 0);
    drop(held);
    assert!(compile().expect("everything is free again").loaded_from_cache());
}

#[test]
fn threads_of_requests_are_bound_to_their_streams_processors() {
    let _turn = turn();
    let pinned = [("ENABLE_CPU_PINNING", "YES"), ("INFERENCE_NUM_THREADS", "1")];
    let model = compile(&pinned).expect("possible");
    let expected = model.get(hint::CPU_PROCESSORS).expect("known");
    assert_eq!(expected.ids().len(), 1);
    let before = affinity::allowed_processors();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = |seen: &Mutex<Vec<ProcessorSet>>| {
        let here = affinity::allowed_processors().into_iter().collect();
        seen.lock().expect("not poisoned").push(here);
    };
    let mut request = model.create_infer_request().expect("memory");
    let log = Arc::clone(&seen);
    request
        .set_callback(move |_| {
            note(&log);
            Ok(())
        })
        .expect("idle");
    request.start_async().expect("idle");
    request.wait().expect("runs");
    let log = Arc::clone(&seen);
    let queue = AsyncInferQueue::new(&model, QueueOptions::default(), move |_, ()| {
        note(&log);
        Ok(())
    })
    .expect("requests");
    queue.start_async(&input(1), ()).expect("starts");
    queue.wait_all().expect("runs");
    request.infer().expect("runs");
    assert_eq!(affinity::allowed_processors(), before, "the caller's thread is left alone");
    if cfg!(target_os = "linux") {
        assert_eq!(*seen.lock().expect("not poisoned"), [expected.clone(), expected]);
    }
}

#[test]
fn models_without_streams_run_on_the_calling_thread() {
    let _turn = turn();
    let model = compile(&[("NUM_STREAMS", "0")]).expect("possible");
    assert_eq!(model.property("NUM_STREAMS").expect("known"), "0");
    assert_eq!(model.get(streams::INFERENCE_NUM_THREADS).expect("known"), 0);
    assert_eq!(model.get(streams::OPTIMAL_NUMBER_OF_INFER_REQUESTS).expect("known"), 1);
    let results = model.create_infer_request().expect("memory").run(&input(7)).expect("runs");
    assert_eq!(results[0].as_slice::<f32>().expect("f32"), [7.0, 0.0]);
}

#[test]
fn facts_about_the_device_have_their_types() {
    let _turn = turn();
    let core = core();
    let (least, most) = core.get("CPU", streams::RANGE_FOR_STREAMS).expect("known");
    assert_eq!(least, 1);
    let requests = core.get("CPU", streams::RANGE_FOR_ASYNC_INFER_REQUESTS).expect("known");
    assert_eq!(requests, (1, most, 1));
    let able = core.get("CPU", device::CAPABILITIES).expect("known");
    assert!(able.contains(&"FP32".to_owned()), "{able:?}");
    let text = most.to_string();
    let model = compile(&[("NUM_STREAMS", &text)]).expect("possible");
    assert_eq!(model.property("NUM_STREAMS").expect("known"), text, "it is not clamped");
    let more = compile(&[("NUM_STREAMS", &(most + 1).to_string())]).expect("possible");
    assert_eq!(more.property("NUM_STREAMS").expect("known"), text, "and is the most");
}

#[test]
fn a_queue_keeps_every_stream_busy() {
    let _turn = turn();
    let model = compile(&[("PERFORMANCE_HINT", "THROUGHPUT")]).expect("possible");
    let results = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&results);
    let options = QueueOptions { requests: 0, ordered: true };
    let queue = AsyncInferQueue::new(&model, options, move |request, id: u16| {
        let request = request.map_err(|_| ov_core::error::InferError::Busy)?;
        let value = request.output(0)?.as_slice::<f32>()?[0];
        log.lock().expect("not poisoned").push((id, value));
        Ok(())
    })
    .expect("requests");
    let streams = model.get(streams::OPTIMAL_NUMBER_OF_INFER_REQUESTS).expect("known");
    assert_eq!(queue.len(), streams as usize);
    for id in 0..50 {
        queue.start_async(&input(id), id).expect("starts");
    }
    queue.wait_all().expect("all succeed");
    let expected: Vec<(u16, f32)> = (0..50).map(|id| (id, f32::from(id))).collect();
    assert_eq!(*results.lock().expect("not poisoned"), expected);
}
