//! Models whose files change: in place, by name, with their size and times restored, behind everybody's back.

use std::{
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use ov_core::{
    Core, ModelSource, PropertyMap,
    property::cache::{self, CacheMode, CacheVerify},
    testing::template_device::TemplatePlugin,
};

use crate::{WEEK, report, tier, watched};

const XML: &str = r#"<net name="m" version="11"><layers>
    <layer id="0" name="c" type="Const" version="opset1"><data element_type="f32" shape="2500" offset="0" size="10000"/>
      <output><port id="0"/></output></layer>
    <layer id="1" name="y" type="Result" version="opset1"><input><port id="0"/></input></layer>
  </layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>"#;

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().expect("temporary folder") };
        fs::write(files.xml(), XML).expect("written");
        fs::write(files.bin(), Self::weights(0.0)).expect("written");
        files
    }

    fn xml(&self) -> PathBuf {
        self.dir.path().join("m.xml")
    }

    fn bin(&self) -> PathBuf {
        self.dir.path().join("m.bin")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// Values that lead from `value` on, so that no two weights are the same.
    fn weights(value: f32) -> Vec<u8> {
        (0..2500).flat_map(|i| (value + i as f32 / 4096.0).to_le_bytes()).collect()
    }

    fn load(&self, properties: &PropertyMap) -> (bool, f32) {
        self.load_with(WEEK, properties)
    }

    fn load_with(&self, scrub_after: Duration, properties: &PropertyMap) -> (bool, f32) {
        let core = Core::with_plugins([TemplatePlugin::create()])
            .expect("one plugin")
            .with_cache(watched(scrub_after, |_| Ok(())));
        let map = properties.clone().with(cache::CACHE_DIR, self.cache());
        let compiled = core.compile_model(self.xml(), "TEMPLATE", &map).expect("compiles");
        let y = compiled.create_infer_request().expect("memory").run(&[]).expect("runs");
        (compiled.loaded_from_cache(), y[0].as_slice::<f32>().expect("f32")[0])
    }
}

fn overwrite(path: &Path, bytes: &[u8]) {
    let mut file = File::options().write(true).open(path).expect("opened");
    file.seek(SeekFrom::Start(0)).expect("sought");
    file.write_all(bytes).expect("written");
}

#[test]
fn weights_that_change_are_noticed() {
    let count = tier(60, 200);
    let mut hits = 0;
    for mode in [CacheMode::OptimizeSpeed, CacheMode::OptimizeSize] {
        let files = Files::new();
        let properties = PropertyMap::new().with(cache::CACHE_MODE, mode);
        files.load(&properties);
        for i in 1..=count / 2 {
            let (value, path) = (i as f32, files.bin());
            let times = fs::metadata(&path).expect("there").modified().expect("known");
            match i % 4 {
                // In place, with size and time of change restored, at once after it was hashed.
                0 | 1 => {
                    overwrite(&path, &Files::weights(value));
                    let file = File::options().write(true).open(&path).expect("opened");
                    file.set_modified(times).expect("set");
                }
                // Another file under the name, with its size and time.
                2 => {
                    let other = files.dir.path().join("other");
                    fs::write(&other, Files::weights(value)).expect("written");
                    let file = File::options().write(true).open(&other).expect("opened");
                    file.set_modified(times).expect("set");
                    fs::rename(&other, &path).expect("renamed");
                }
                // Through another name of the same file.
                _ => {
                    let link = files.dir.path().join("link");
                    fs::hard_link(&path, &link).expect("linked");
                    overwrite(&link, &Files::weights(value));
                    fs::remove_file(&link).expect("removed");
                }
            }
            assert_eq!(files.load(&properties), (false, value), "{mode}, change {i}");
            let (hit, again) = files.load(&properties);
            assert_eq!(again, value, "{mode}, change {i}");
            hits += usize::from(hit);
        }
    }
    assert!(hits > count * 3 / 4, "{hits} of {count}");
    report("weights changed (in place, renamed, linked, times restored): noticed", count);
}

#[test]
fn the_graph_that_changes_is_noticed() {
    let files = Files::new();
    let none = PropertyMap::new();
    assert_eq!(files.load(&none), (false, 0.0));
    assert_eq!(files.load(&none), (true, 0.0));
    let times = fs::metadata(files.xml()).expect("there").modified().expect("known");
    overwrite(&files.xml(), XML.replace("name=\"c\"", "name=\"d\"").as_bytes());
    File::options()
        .write(true)
        .open(files.xml())
        .expect("opened")
        .set_modified(times)
        .expect("set");
    assert!(!files.load(&none).0);
    overwrite(&files.xml(), XML.as_bytes());
    assert_eq!(files.load(&none), (true, 0.0), "the old content has its blob");
}

#[test]
fn a_hit_reads_no_model() {
    let files = Files::new();
    let core = Core::with_plugins([TemplatePlugin::create()])
        .expect("one plugin")
        .with_cache(watched(WEEK, |_| Ok(())));
    let map = PropertyMap::new().with(cache::CACHE_DIR, files.cache());
    core.compile_model(files.xml(), "TEMPLATE", &map).expect("compiles");
    core.finish_caching();
    let source = ModelSource::file(files.xml(), || unreachable!("a hit reads no model"));
    let hit = core.compile_model(source, "TEMPLATE", &map).expect("hits");
    assert!(hit.loaded_from_cache());
    let shaped = ModelSource::file(files.xml(), {
        let (core, path) = (core.clone(), files.xml());
        move || core.read_model(&path)
    });
    let variant = core.compile_model(shaped.with_variant("x[1]"), "TEMPLATE", &map);
    assert!(!variant.expect("compiles").loaded_from_cache(), "a variant has a key of its own");
}

#[test]
fn a_change_without_a_trace_is_found_by_the_scrub() {
    let files = Files::new();
    let none = PropertyMap::new();
    files.load(&none);
    assert!(files.load(&none).0);
    // What a store through a writable map does: other bytes under the same identity. The record is made to say so.
    let records = files.cache().join("v1/ident");
    let record =
        fs::read_dir(&records).expect("there").next().expect("one").expect("listed").path();
    let before = fs::read(&record).expect("read");
    fs::write(files.bin(), Files::weights(9.0)).expect("written");
    fs::remove_file(&record).expect("removed");
    assert_eq!(files.load(&none), (false, 9.0));
    files.load(&none);
    let now = fs::read(&record).expect("made again");
    // The new identity of the files with the old key: the key follows the magic number.
    let mut lie = now.clone();
    lie[8..40].copy_from_slice(&before[8..40]);
    let content = lie.len() - 32;
    let hash = blake3::derive_key("ov-cache identity record v1", &lie[..content]);
    lie[content..].copy_from_slice(&hash);
    fs::remove_file(&record).expect("removed");
    fs::write(&record, &lie).expect("written");
    assert_eq!(files.load(&none), (true, 0.0), "the record is believed");
    files.load_with(Duration::ZERO, &none);
    let mut patience = 5000;
    while record.exists() && fs::read(&record).is_ok_and(|r| r == lie) && patience > 0 {
        std::thread::sleep(Duration::from_millis(1));
        patience -= 1;
    }
    assert_eq!(files.load(&none).1, 9.0, "the scrub has removed the record");
}

#[test]
fn full_verification_hashes_the_model_every_time() {
    let files = Files::new();
    let full = PropertyMap::new().with(cache::CACHE_VERIFY, CacheVerify::Full);
    assert_eq!(files.load(&full), (false, 0.0));
    assert_eq!(files.load(&full), (true, 0.0));
    fs::write(files.bin(), Files::weights(2.0)).expect("written");
    assert_eq!(files.load(&full), (false, 2.0));
}

#[test]
fn small_blobs_leave_the_weights_in_the_model() {
    let files = Files::new();
    // The template device keeps its constants in the program, so a blob of its is no smaller; what counts is that it
    // comes back, and does not when the model's file is gone.
    let small = PropertyMap::new().with(cache::CACHE_MODE, CacheMode::OptimizeSize);
    assert_eq!(files.load(&small), (false, 0.0));
    assert_eq!(files.load(&small), (true, 0.0));
    let stored = ov_cache::list(&files.cache()).expect("listed").remove(0);
    assert!(stored.verify().expect("an envelope"), "it is wrapped");
}

#[test]
fn weights_that_the_model_holds_are_not_stored_again() {
    use ov_core::{blob::SectionKind, cache::CacheModel};
    let (mut store, good) = (crate::Store::new(), crate::sized_blob(5, 1 << 20));
    store.options.mode = CacheMode::OptimizeSize;
    let dir = tempfile::tempdir().expect("temporary folder");
    let model = dir.path().join("model");
    let weights = good.section(SectionKind::Weights).expect("there");
    let content = [&[7; 77][..], &weights].concat();
    fs::write(&model, &content).expect("written");
    let load = |publish: bool| {
        let mut request = store.request(b"");
        request.model = CacheModel::File(&model);
        let cache = ov_cache::FileCache::create();
        let mut entry = cache.open(&request).expect("a key");
        let found = entry.load();
        if publish && found.is_none() {
            entry.publish(good.clone());
            cache.finish();
        }
        found
    };
    assert!(load(true).is_none());
    let stored = ov_cache::list(store.path()).expect("listed").remove(0);
    assert!(stored.len < 100_000, "{} of {}", stored.len, good.bytes().len());
    assert!(crate::same(&load(false).expect("stored"), &good));
    let mut count = 0;
    for at in (0..content.len()).step_by(content.len() / 50) {
        let mut bad = content.clone();
        bad[at] ^= 1;
        fs::write(&model, &bad).expect("written");
        assert!(load(false).is_none(), "byte {at}");
        count += 1;
    }
    report("small blobs with a changed model: miss", count);
}
