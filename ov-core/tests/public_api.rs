//! The API as users see it, against the template device and devices that misbehave on purpose.

use std::{
    error::Error as _,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ov_core::{
    Blob, Core, Element, ElementType, Error, InferRequest, Model, ModelSource, NodeSupport,
    PartialShape, PortInfo, PropertyMap, Result, Tensor,
    blob::SectionKind,
    cache::{CacheEntry, CacheProvider, CacheRequest, CachedBlob},
    error::{BlobError, DeviceError, InferError, PropertyError},
    op::activation::Elu,
    plugin::{CancelToken, DeviceInfo, DeviceModel, DeviceResolver, Plugin, SyncRequest},
    property::{PropertyInfo, cache, hint, info},
    tensor::TensorBuffer,
    testing::template_device::TemplatePlugin,
};

fn model(shape: impl Into<PartialShape>) -> Model {
    let mut model = Model::new("halve");
    let x = model.add_parameter("x", ElementType::F32, shape).expect("valid");
    let y = model.add(Elu { alpha: 0.5 }, &[x], "y").expect("valid");
    model.add_output("y", y);
    model
}

fn core() -> Core {
    Core::with_plugins([TemplatePlugin::create()]).expect("one plugin")
}

fn request(shape: impl Into<PartialShape>) -> InferRequest {
    let compiled =
        core().compile_model(model(shape), "TEMPLATE", &PropertyMap::new()).expect("compiles");
    compiled.create_infer_request().expect("memory")
}

fn vector<T: Element>(values: Vec<T>) -> Tensor
where
    Vec<T>: TensorBuffer,
{
    Tensor::from_vec([values.len()], values).expect("fits")
}

fn text<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn inference_by_index_and_name() {
    let mut r = request([2]);
    r.set_input("x", vector(vec![1.0f32, -1.0])).expect("fits");
    r.infer().expect("runs");
    let y = r.output(0).expect("there").as_slice::<f32>().expect("f32").to_vec();
    assert!((y[0] - 1.0).abs() < 1e-6 && (y[1] - 0.5 * (-1.0f32).exp_m1()).abs() < 1e-6, "{y:?}");
    r.input_mut(0).expect("there").as_mut_slice::<f32>().expect("f32").fill(3.0);
    r.infer().expect("runs");
    assert_eq!(r.tensor("y").expect("there"), &vector(vec![3.0f32, 3.0]));
}

#[test]
fn wrong_tensors_are_refused_where_they_are_set() {
    let mut r = request([2]);
    for (port, tensor, expected) in [
        ("z", vector(vec![1.0f32, 2.0]), "model has no input \"z\"; it has 0 \"x\""),
        ("x", vector(vec![1i32, 2]), "input \"x\" expects f32[2], got i32[2]"),
        ("x", vector(vec![1.0f32]), "input \"x\" expects f32[2], got f32[1]"),
        ("x", Tensor::scalar(1.0f32), "input \"x\" expects f32[2], got f32[]"),
    ] {
        assert_eq!(text(r.set_input(port, tensor)), expected);
    }
    assert_eq!(
        text(r.set_input(1, vector(vec![1.0f32, 2.0]))),
        "model has no input 1; it has 0 \"x\""
    );
    assert_eq!(text(r.output("q")), "model has no output \"q\"; it has 0 \"y\"");
    let shared = vector(vec![0.0f32; 2]);
    assert!(text(r.set_output(0, shared.clone())).contains("read-only or shared"));
    assert_eq!(shared.len(), 2);
    r.infer().expect("still usable");
}

#[test]
fn strided_inputs_are_read_as_they_say() {
    let mut r = request([2]);
    let strided = vector(vec![1.0f32, 2.0, 3.0, 4.0]).with_strides([2usize], &[2]).expect("fits");
    r.set_input(0, strided).expect("fits");
    r.infer().expect("runs");
    assert_eq!(r.output(0).expect("there"), &vector(vec![1.0f32, 3.0]));
}

#[test]
fn dynamic_inputs_must_be_set_and_dynamic_outputs_follow() {
    let mut r = request(PartialShape::dynamic_rank(1));
    assert_eq!(text(r.infer()), "input \"x\" has no tensor: set it before infer (f32[?])");
    assert!(matches!(r.output(0), Err(Error::Infer(e)) if matches!(*e, InferError::NotSet { .. })));
    for len in [3, 0, 5] {
        r.set_input(0, vector(vec![2.0f32; len])).expect("fits");
        r.infer().expect("runs");
        assert_eq!(r.output(0).expect("there").len(), len);
    }
    r.set_output(0, vector(vec![0.0f32; 4])).expect("admitted");
    assert_eq!(text(r.infer()), "output \"y\" expects f32[4], got f32[5]");
    r.set_input(0, vector(vec![7.0f32; 4])).expect("fits");
    r.infer().expect("usable again");
}

#[test]
fn results_are_written_into_the_callers_memory() {
    let mut r = request([2]);
    let mine = vector(vec![0.0f32; 2]);
    let address = mine.as_ptr();
    r.set_output("y", mine).expect("writable");
    r.set_input("x", vector(vec![4.0f32, 5.0])).expect("fits");
    for _ in 0..2 {
        r.infer().expect("runs");
        assert_eq!(r.output("y").expect("there").as_ptr(), address);
        assert_eq!(r.output("y").expect("there"), &vector(vec![4.0f32, 5.0]));
    }
}

#[test]
fn a_kept_output_is_not_overwritten() {
    let mut r = request([1]);
    r.set_input(0, vector(vec![1.0f32])).expect("fits");
    r.infer().expect("runs");
    let kept = r.output(0).expect("there").clone();
    r.set_input(0, vector(vec![2.0f32])).expect("fits");
    r.infer().expect("runs");
    assert_eq!((kept, r.output(0).expect("there")), (vector(vec![1.0f32]), &vector(vec![2.0f32])));
}

#[test]
fn property_errors_say_what_is_meant() {
    let core = core();
    let set = |name: &str, value: &str| {
        let map = PropertyMap::new().with_text(name, value)?;
        core.compile_model(model([1]), "TEMPLATE", &map).map(|_| ())
    };
    for (name, value, expected) in [
        (
            "PERF_CUONT",
            "YES",
            "property \"PERF_CUONT\" is not known to TEMPLATE; did you mean PERF_COUNT?",
        ),
        ("NUM_STREAMS", "2", "property \"NUM_STREAMS\" is not known to TEMPLATE"),
        (
            "PERF_COUNT",
            "maybe",
            "property PERF_COUNT of any device cannot be \"maybe\", expected YES or NO",
        ),
        ("FULL_DEVICE_NAME", "x", "property FULL_DEVICE_NAME of TEMPLATE is read-only"),
        (
            "CACHE_DIR",
            "/tmp/x",
            "CACHE_DIR is set, but no model cache is linked; depend on ov-cache and name it once: `use ov_cache as _;`",
        ),
        ("CACHE_DIR", "", "no error"),
    ] {
        assert_eq!(text(set(name, value)), expected);
    }
    assert_eq!(core.property("TEMPLATE", "PERF_COUNT").expect("known"), "NO");
    core.set_properties("TEMPLATE", &PropertyMap::new().with(info::ENABLE_PROFILING, true))
        .expect("known");
    assert!(core.get("TEMPLATE", info::ENABLE_PROFILING).expect("known"));
    let unknown = PropertyMap::new().with_text("SPEED", "9").expect("kept");
    assert!(
        text(core.set_global_properties(&unknown)).contains("not known to any registered device")
    );
    core.set_global_properties(
        &PropertyMap::new().with(hint::PERFORMANCE_MODE, hint::PerformanceMode::Throughput),
    )
    .expect("known");
    assert_eq!(core.property("TEMPLATE", "PERFORMANCE_HINT").expect("known"), "THROUGHPUT");
    assert!(
        core.property("TEMPLATE", "SUPPORTED_PROPERTIES").expect("known").contains("PERF_COUNT:RW")
    );
    let compiled =
        core.compile_model(model([1]), "TEMPLATE", &PropertyMap::new()).expect("compiles");
    assert_eq!(compiled.property("NETWORK_NAME").expect("known"), "halve");
    assert_eq!(compiled.property("LOADED_FROM_CACHE").expect("known"), "NO");
    assert!(text(compiled.property("NETWORK_NAMES")).contains("did you mean NETWORK_NAME?"));
    let mut request = compiled.create_infer_request().expect("memory");
    request.infer().expect("runs");
    assert_eq!(request.profiling().expect("idle").len(), 1, "the device's PERF_COUNT holds");
}

/// A device whose probe finds nothing, or whose requests do as they are told.
struct Stub {
    name: &'static str,
    unusable: Option<&'static str>,
    behave: Arc<Behaviour>,
}

#[derive(Default)]
struct Behaviour {
    /// Inference waits until this is true or it is cancelled.
    open: Mutex<bool>,
    opened: Condvar,
    panics: AtomicBool,
    running: AtomicBool,
}

impl Behaviour {
    fn open(&self) {
        *self.open.lock().expect("not poisoned") = true;
        self.opened.notify_all();
    }
}

impl Plugin for Stub {
    fn name(&self) -> &str {
        self.name
    }

    fn probe(&self) -> Result<Vec<DeviceInfo>, String> {
        let device = |id: &str| DeviceInfo { id: id.to_owned(), full_name: "stub".to_owned() };
        self.unusable.map_or_else(|| Ok(vec![device("0"), device("1")]), |why| Err(why.to_owned()))
    }

    fn properties(&self) -> &'static [PropertyInfo] {
        const { &[ov_core::property::device::ID.info()] }
    }

    fn property(&self, _: &str, _: &PropertyMap) -> Result<String> {
        Ok("0".to_owned())
    }

    fn compile_model(
        &self,
        model: &ModelSource,
        properties: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Arc<dyn DeviceModel>> {
        assert!(!self.behave.panics.load(Ordering::Relaxed), "compile of the stub");
        let model = model.model()?;
        Ok(Arc::new(StubModel {
            inputs: PortInfo::inputs_of(model),
            outputs: PortInfo::outputs_of(model),
            id: properties.text("DEVICE_ID").unwrap_or("none").to_owned(),
            behave: Arc::clone(&self.behave),
        }))
    }

    fn query_model(
        &self,
        _: &Model,
        _: &PropertyMap,
        _: &Arc<dyn DeviceResolver>,
    ) -> Result<Vec<NodeSupport>> {
        Ok(Vec::new())
    }
}

struct StubModel {
    inputs: Vec<PortInfo>,
    outputs: Vec<PortInfo>,
    id: String,
    behave: Arc<Behaviour>,
}

impl DeviceModel for StubModel {
    fn inputs(&self) -> &[PortInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[PortInfo] {
        &self.outputs
    }

    fn create_request(&self) -> Result<Box<dyn SyncRequest>> {
        Ok(Box::new(StubRequest { tensor: vector(vec![0.0f32]), behave: Arc::clone(&self.behave) }))
    }

    fn property_names(&self) -> &'static [&'static str] {
        &["DEVICE_ID"]
    }

    fn property(&self, _: &str) -> Result<String> {
        Ok(self.id.clone())
    }
}

struct StubRequest {
    tensor: Tensor,
    behave: Arc<Behaviour>,
}

impl SyncRequest for StubRequest {
    fn set_input(&mut self, _: usize, tensor: Tensor) -> Result<()> {
        self.tensor = tensor;
        Ok(())
    }

    fn input(&self, _: usize) -> Option<&Tensor> {
        Some(&self.tensor)
    }

    fn input_mut(&mut self, _: usize) -> Option<&mut Tensor> {
        Some(&mut self.tensor)
    }

    fn set_output(&mut self, _: usize, _: Tensor) -> Result<()> {
        Ok(())
    }

    fn output(&self, _: usize) -> Option<&Tensor> {
        Some(&self.tensor)
    }

    fn infer(&mut self, cancel: &CancelToken) -> Result<()> {
        assert!(!self.behave.panics.load(Ordering::Relaxed), "inference of the stub");
        self.behave.running.store(true, Ordering::Release);
        let mut open = self.behave.open.lock().expect("not poisoned");
        while !*open {
            cancel.check()?;
            open = self
                .behave
                .opened
                .wait_timeout(open, Duration::from_millis(1))
                .expect("not poisoned")
                .0;
        }
        Ok(())
    }
}

fn stub() -> (InferRequest, Arc<Behaviour>) {
    let behave = Arc::new(Behaviour::default());
    let plugin = Arc::new(Stub { name: "STUB", unusable: None, behave: Arc::clone(&behave) });
    let core = Core::with_plugins([plugin as Arc<dyn Plugin>]).expect("one plugin");
    let compiled = core.compile_model(model([1]), "STUB.1", &PropertyMap::new()).expect("compiles");
    assert_eq!(compiled.device(), "STUB.1");
    assert_eq!(compiled.property("DEVICE_ID").expect("known"), "1");
    (compiled.create_infer_request().expect("memory"), behave)
}

#[test]
fn a_running_request_is_busy_until_it_ends() {
    let (mut r, behave) = stub();
    assert!(!r.wait_for(Duration::ZERO).expect("idle"), "nothing was started");
    r.wait().expect("nothing to wait for");
    r.start_async().expect("idle");
    assert!(!r.wait_for(Duration::ZERO).expect("runs"));
    let busy = "infer request is busy: wait for it, or use another request";
    assert_eq!(text(r.start_async()), busy);
    assert_eq!(text(r.infer()), busy);
    assert_eq!(text(r.set_input(0, vector(vec![1.0f32]))), busy);
    assert_eq!(text(r.output(0)), busy);
    assert!(r.is_busy());
    behave.open();
    r.wait().expect("runs");
    assert!(r.wait_for(Duration::ZERO).expect("idle"));
    r.output(0).expect("idle");
    r.infer().expect("usable");
}

#[test]
fn cancelling_ends_a_run_and_leaves_the_request_usable() {
    let (mut r, behave) = stub();
    r.cancel();
    r.start_async().expect("cancelling an idle request does nothing");
    while !behave.running.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    r.cancel();
    assert_eq!(text(r.wait()), "inference was canceled");
    behave.open();
    r.infer().expect("usable");
    let token = r.cancel_token();
    *behave.open.lock().expect("not poisoned") = false;
    behave.running.store(false, Ordering::Release);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !behave.running.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            token.cancel();
        });
        assert_eq!(text(r.infer()), "inference was canceled");
    });
}

#[test]
fn callbacks_run_and_their_errors_come_out_of_wait() {
    let (mut r, behave) = stub();
    behave.open();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    r.set_callback(move |result| {
        assert!(result.is_ok());
        match counter.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(()),
            1 => Err(InferError::Canceled.into()),
            _ => panic!("third call"),
        }
    })
    .expect("idle");
    r.start_async().expect("idle");
    r.wait().expect("runs");
    r.start_async().expect("idle");
    assert_eq!(text(r.wait()), "inference was canceled");
    r.start_async().expect("idle");
    assert_eq!(text(r.wait()), "inference on the callback panicked: third call");
    r.infer().expect("infer calls no callback");
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[test]
fn panics_of_a_device_become_errors() {
    let (mut r, behave) = stub();
    behave.open();
    behave.panics.store(true, Ordering::Relaxed);
    assert_eq!(text(r.infer()), "inference on STUB.1 panicked: inference of the stub");
    r.start_async().expect("idle");
    assert!(text(r.wait()).contains("panicked"));
    behave.panics.store(false, Ordering::Relaxed);
    r.infer().expect("usable");
    behave.panics.store(true, Ordering::Relaxed);
    let plugin = Arc::new(Stub { name: "STUB", unusable: None, behave });
    let core = Core::with_plugins([plugin as Arc<dyn Plugin>]).expect("one plugin");
    let error = core.compile_model(model([1]), "STUB", &PropertyMap::new()).expect_err("panics");
    assert_eq!(error.to_string(), "device STUB failed: it panicked: compile of the stub");
    assert!(matches!(&error, Error::Device(d) if d.source().is_some()));
}

#[test]
fn dropping_a_running_request_cancels_it() {
    let (mut r, behave) = stub();
    r.start_async().expect("idle");
    drop(r);
    assert!(!*behave.open.lock().expect("not poisoned"));
}

#[test]
fn device_strings_are_strict() {
    let broken = Stub {
        name: "CUDA",
        unusable: Some("driver library libcuda.so.1 is not installed"),
        behave: Arc::default(),
    };
    let numbered = Stub { name: "GPU", unusable: None, behave: Arc::default() };
    let plugins: [Arc<dyn Plugin>; 3] =
        [TemplatePlugin::create(), Arc::new(broken), Arc::new(numbered)];
    let core = Core::with_plugins(plugins).expect("three names");
    for (device, expected) in [
        (
            "CPU",
            "device \"CPU\" is not registered (registered: CUDA, GPU, TEMPLATE). If the program depends on ov-cpu, name it once: `use ov_cpu as _;`",
        ),
        (
            "TEMPLAT",
            "device \"TEMPLAT\" is not registered (registered: CUDA, GPU, TEMPLATE). Did you mean TEMPLATE?",
        ),
        (
            "template",
            "device \"template\" is not registered (registered: CUDA, GPU, TEMPLATE). Did you mean TEMPLATE?",
        ),
        (
            "CUDA",
            "device CUDA is linked but not usable: driver library libcuda.so.1 is not installed",
        ),
        (
            "GPU.7",
            "device GPU.7 is linked but not usable: there is no such device; there are GPU.0, GPU.1",
        ),
        (
            "TEMPLATE.0",
            "device string \"TEMPLATE.0\" is not valid: TEMPLATE has no numbers: write TEMPLATE",
        ),
        (
            "TEMPLATE:CPU",
            "device string \"TEMPLATE:CPU\" is not valid: TEMPLATE runs on no other devices: write TEMPLATE",
        ),
        ("GPU.0", "no error"),
    ] {
        assert_eq!(text(core.compile_model(model([1]), device, &PropertyMap::new())), expected);
    }
    assert!(
        text(core.compile_model(model([1]), "", &PropertyMap::new())).contains("no device name")
    );
    assert_eq!(core.available_devices(), ["GPU.0", "GPU.1", "TEMPLATE"]);
    let twice = Core::with_plugins([TemplatePlugin::create(), TemplatePlugin::create()]);
    assert!(matches!(twice, Err(Error::Device(e)) if matches!(*e, DeviceError::Duplicate { .. })));
}

#[test]
fn exported_models_give_the_same_bits_and_compiling_is_deterministic() {
    let core = core();
    let none = PropertyMap::new();
    let compiled = core.compile_model(model([3]), "TEMPLATE", &none).expect("compiles");
    let again = core.compile_model(model([3]), "TEMPLATE", &none).expect("compiles");
    assert_eq!(compiled.blob().expect("a blob").bytes(), again.blob().expect("a blob").bytes());
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("model.ovb");
    compiled.export_to(&path).expect("written");
    assert_eq!(
        std::fs::read_dir(dir.path()).expect("listed").count(),
        1,
        "no temporary file stays"
    );
    let imported = core.import_model_from(&path, "TEMPLATE", &none).expect("sound");
    let as_model =
        core.compile_model(path.as_path(), "TEMPLATE", &none).expect("a blob is imported");
    let x = vector(vec![1.5f32, -0.3, f32::NAN]);
    let run = |m: &ov_core::CompiledModel| {
        m.create_infer_request().expect("memory").run(std::slice::from_ref(&x)).expect("runs")
    };
    assert_eq!(run(&compiled), run(&imported));
    assert_eq!(run(&compiled), run(&as_model));
    assert_eq!(imported.inputs(), compiled.inputs());

    let good = std::fs::read(&path).expect("read");
    for len in [0, 10, 4095, 4096, good.len() - 1] {
        std::fs::write(&path, &good[..len]).expect("written");
        let error = core.import_model_from(&path, "TEMPLATE", &none).expect_err("cut");
        assert!(matches!(error, Error::Blob(_)), "{len}: {error}");
    }
    let blob = Blob::from_bytes(good.clone().into()).expect("sound");
    let plan = blob.find(SectionKind::Plan).expect("there");
    for at in plan.offset..plan.offset + plan.len {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        let blob = Blob::from_bytes(bad.into()).expect("the structure is sound");
        drop(core.import_model(blob, "TEMPLATE", &none));
    }
    let stub: Arc<dyn Plugin> =
        Arc::new(Stub { name: "STUB", unusable: None, behave: Arc::default() });
    let other = Core::with_plugins([stub]).expect("one plugin");
    let error = other.import_model(blob, "STUB", &none).expect_err("other device");
    assert!(
        matches!(&error, Error::Blob(b) if matches!(**b, BlobError::Incompatible { .. })),
        "{error}"
    );
}

#[test]
fn queries_name_a_kernel_per_node() {
    let support = core().query_model(&model([1]), "TEMPLATE", &PropertyMap::new()).expect("valid");
    let ops: Vec<(&str, bool)> =
        support.iter().map(|s| (s.op.as_str(), s.kernel.is_ok())).collect();
    assert_eq!(ops, [("Parameter", true), ("Elu", true)]);
}

#[test]
fn missing_and_damaged_model_files_are_typed_errors() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("model.onnx");
    let compile = || text(core().compile_model(path.as_path(), "TEMPLATE", &PropertyMap::new()));
    assert!(compile().starts_with("cannot read"), "{}", compile());
    for (content, expected) in
        [(&b""[..], "it is empty"), (b"\x08\x07\x3A\xFF", "is damaged"), (b"<html>", "web page")]
    {
        std::fs::write(&path, content).expect("written");
        assert!(compile().contains(expected), "{}", compile());
    }
}

/// A cache in memory that may hold a bad blob.
#[derive(Default)]
struct MemoryCache {
    blobs: Mutex<std::collections::HashMap<Vec<u8>, Blob>>,
    rejected: AtomicUsize,
}

struct Provider(Arc<MemoryCache>);

struct Entry(Arc<MemoryCache>, Vec<u8>);

impl CacheProvider for Provider {
    fn open(&self, request: &CacheRequest<'_>) -> Option<Box<dyn CacheEntry>> {
        Some(Box::new(Entry(Arc::clone(&self.0), request.key.to_vec())))
    }
}

impl CacheEntry for Entry {
    fn load(&mut self) -> Option<CachedBlob> {
        self.0.blobs.lock().expect("not poisoned").get(&self.1).cloned().map(CachedBlob::from)
    }

    fn reject(&mut self, _: &Error) {
        self.0.rejected.fetch_add(1, Ordering::Relaxed);
    }

    fn publish(self: Box<Self>, blob: Blob) {
        self.0.blobs.lock().expect("not poisoned").insert(self.1, blob);
    }
}

#[test]
fn a_cache_hit_binds_and_a_bad_blob_is_compiled_again() {
    let store = Arc::new(MemoryCache::default());
    let core = core().with_cache(Arc::new(Provider(Arc::clone(&store))));
    let map = PropertyMap::new().with(cache::CACHE_DIR, "anywhere".into());
    let compile = || core.compile_model(model([1]), "TEMPLATE", &map).expect("compiles");
    let without =
        core.compile_model(model([1]), "TEMPLATE", &PropertyMap::new()).expect("compiles");
    assert!(!without.loaded_from_cache() && store.blobs.lock().expect("not poisoned").is_empty());
    assert!(!compile().loaded_from_cache());
    assert_eq!(compile().property("LOADED_FROM_CACHE").expect("known"), "YES");
    let mut writer = ov_core::blob::BlobWriter::new("TEMPLATE", "any", "0");
    writer.reserve(SectionKind::Meta, 0).expect("first");
    let bad = writer.allocate().and_then(ov_core::blob::BlobBuffer::finish).expect("sound");
    store.blobs.lock().expect("not poisoned").values_mut().for_each(|b| *b = bad.clone());
    assert!(!compile().loaded_from_cache());
    assert_eq!(store.rejected.load(Ordering::Relaxed), 1);
    assert!(compile().loaded_from_cache(), "the good blob took the bad one's place");
}

#[test]
fn missing_property_is_an_error_of_its_own_kind() {
    let error = core().property("TEMPLATE", "NOPE").expect_err("unknown");
    assert!(matches!(error, Error::Property(e) if matches!(*e, PropertyError::Unknown { .. })));
}
