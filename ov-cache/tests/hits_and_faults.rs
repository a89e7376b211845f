//! The cache under the template device: hits, misses, damage, folders that cannot be used.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ov_cache::FileCache;
use ov_core::{
    Core, ElementType, Model, PropertyMap, Tensor,
    op::activation::Elu,
    property::{cache, hint},
    testing::template_device::TemplatePlugin,
};

fn core() -> Core {
    Core::with_plugins([TemplatePlugin::create()])
        .expect("one plugin")
        .with_cache(FileCache::create())
}

fn model(alpha: f64) -> Model {
    let mut model = Model::new("m");
    let x = model.add_parameter("x", ElementType::F32, [2]).expect("valid");
    let y = model.add(Elu { alpha }, &[x], "y").expect("valid");
    model.add_output("y", y);
    model
}

fn properties(dir: &Path) -> PropertyMap {
    PropertyMap::new().with(cache::CACHE_DIR, dir.to_owned())
}

/// Compiles, runs, and says whether the cache had it.
fn load(alpha: f64, dir: &Path) -> bool {
    let compiled =
        core().compile_model(model(alpha), "TEMPLATE", &properties(dir)).expect("compiles");
    let x = Tensor::from_vec([2], vec![1.0f32, -1.0]).expect("fits");
    let y = compiled.create_infer_request().expect("memory").run(&[x]).expect("runs");
    let expected = (alpha * (-1.0f64).exp_m1()) as f32;
    assert!((y[0].as_slice::<f32>().expect("f32")[1] - expected).abs() < 1e-6);
    compiled.loaded_from_cache()
}

fn blobs(dir: &Path) -> Vec<PathBuf> {
    ov_cache::list(dir).expect("listed").into_iter().map(|s| s.path).collect()
}

fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).expect("removed");
    fs::write(path, bytes).expect("written");
}

#[test]
fn the_second_load_hits_and_other_content_misses() {
    let dir = tempfile::tempdir().expect("temporary folder");
    for (alpha, hit) in [(0.5, false), (0.5, true), (0.25, false), (0.25, true), (0.5, true)] {
        assert_eq!(load(alpha, dir.path()), hit, "{alpha}");
    }
    let found = blobs(dir.path());
    assert_eq!(found.len(), 2, "{found:?}");
    let left = fs::read_dir(dir.path().join("v1/tmp")).expect("there").count();
    assert_eq!(left, 0, "no temporary file stays");
    assert!(found.iter().all(|f| fs::metadata(f).expect("there").permissions().readonly()));
    let map = properties(dir.path()).with(hint::PERFORMANCE_MODE, hint::PerformanceMode::Latency);
    let compiled = core().compile_model(model(0.5), "TEMPLATE", &map).expect("compiles");
    assert!(compiled.loaded_from_cache(), "the template device does not resolve the hint");
}

#[test]
fn damaged_blobs_are_compiled_again() {
    let dir = tempfile::tempdir().expect("temporary folder");
    load(0.5, dir.path());
    let path = blobs(dir.path()).remove(0);
    let good = fs::read(&path).expect("read");
    let mut cases: Vec<Vec<u8>> =
        [0, 1, 4095, 4096, good.len() - 1].iter().map(|len| good[..*len].to_vec()).collect();
    // A blob of another version of the format is left alone.
    let version = 8..12;
    for at in (0..512).filter(|at| !version.contains(at)).chain((4064..good.len()).step_by(7)) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        cases.push(bad);
    }
    cases.push([&good[..], &[0]].concat());
    for (i, bad) in cases.iter().enumerate() {
        replace(&path, bad);
        assert!(!load(0.5, dir.path()), "case {i}");
        assert!(load(0.5, dir.path()), "case {i} was mended");
    }
    load(0.25, dir.path());
    let other = blobs(dir.path()).into_iter().find(|p| *p != path).expect("a second blob");
    replace(&path, &fs::read(&other).expect("read"));
    assert!(!load(0.5, dir.path()), "a blob under another's key");
}

#[test]
fn folders_that_cannot_be_used_cost_the_cache_only() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let file = dir.path().join("file");
    fs::write(&file, b"x").expect("written");
    assert!(!load(0.5, &file));
    assert!(!load(0.5, &file.join("below")));
    let deep = dir.path().join("a/b/c");
    assert!(!load(0.5, &deep));
    assert!(load(0.5, &deep));
}

#[test]
fn a_changed_weights_file_misses() {
    let xml = r#"<net name="m" version="11"><layers>
        <layer id="0" name="c" type="Const" version="opset1"><data element_type="f32" shape="1" offset="0" size="4"/>
          <output><port id="0"/></output></layer>
        <layer id="1" name="y" type="Result" version="opset1"><input><port id="0"/></input></layer>
      </layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>"#;
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("m.xml");
    fs::write(&path, xml).expect("written");
    let store = dir.path().join("cache");
    for (value, hit) in [(1.0f32, false), (1.0, true), (2.0, false), (1.0, true)] {
        let weights = path.with_extension("bin");
        if weights.exists() {
            fs::remove_file(&weights).expect("removed");
        }
        fs::write(&weights, value.to_le_bytes()).expect("written");
        let compiled = core()
            .compile_model(path.as_path(), "TEMPLATE", &properties(&store))
            .expect("compiles");
        assert_eq!(compiled.loaded_from_cache(), hit, "{value}");
        let y = compiled.create_infer_request().expect("memory").run(&[]).expect("runs");
        assert_eq!(y[0].as_slice::<f32>().expect("f32"), [value]);
    }
}
