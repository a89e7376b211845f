//! Full disks, folders that cannot be used, files of others, clocks, files that change while they are mapped.

use std::{
    fs::{self, File},
    io,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use ov_core::{
    blob::SectionKind,
    property::cache::{CacheMode, EncryptionCallbacks},
};

use crate::{Store, WEEK, blob, blobs, replace, report, same, sized_blob, tier, watched};

/// ENOSPC, EDQUOT, EIO, EMFILE, EACCES, EROFS of Linux.
const FAILURES: &[i32] = &[28, 122, 5, 24, 13, 30];

fn left_over(store: &Store) -> usize {
    fs::read_dir(store.path().join("v1/tmp")).map_or(0, Iterator::count)
}

#[test]
fn failures_at_every_step_of_storing() {
    let good = sized_blob(1, 5 << 20);
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&steps);
    let counting = watched(WEEK, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    Store::new().put_with(&*counting, b"m", &good);
    let steps = steps.load(Ordering::Relaxed);
    assert!(steps >= 9, "{steps}");
    let mut count = 0;
    for code in FAILURES {
        for failing in 0..steps {
            let store = Store::new();
            let at = AtomicUsize::new(0);
            let cache = watched(WEEK, move |_| {
                if at.fetch_add(1, Ordering::Relaxed) == failing {
                    return Err(io::Error::from_raw_os_error(*code));
                }
                Ok(())
            });
            store.put_with(&*cache, b"m", &good);
            assert_eq!(left_over(&store), 0, "error {code} at step {failing}");
            // Nothing, or a whole blob when the failing step came after it was linked.
            if let Some(found) = store.get(b"m") {
                assert!(same(&found, &good), "error {code} at step {failing}");
            } else {
                store.put(b"m", &good);
            }
            assert!(same(&store.get(b"m").expect("stored now"), &good));
            count += 1;
        }
    }
    report("failures (full, quota, I/O, handles) at each step: no leftover", count);
}

#[cfg(target_os = "linux")]
#[test]
fn disks_that_are_full_after_so_many_bytes() {
    let good = sized_blob(2, 1 << 20);
    let total = good.bytes().len();
    let mut count = 0;
    for size in (0..total + (256 << 10)).step_by(tier(256 << 10, 64 << 10)) {
        let store = Store::new();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={}", size.max(4096)), "tmpfs"])
            .arg(store.path())
            .output();
        if !mounted.is_ok_and(|o| o.status.success()) {
            println!("faults: no right to mount small disks");
            return;
        }
        let (cache, fits) = (ov_cache::FileCache::create(), size > total + 65536);
        store.put_with(&*cache, b"m", &good);
        let left = left_over(&store);
        let found = store.get(b"m");
        let sound = found.as_ref().is_none_or(|f| same(f, &good));
        let hit = found.is_some();
        drop(found);
        let gone = std::process::Command::new("umount").arg("-l").arg(store.path()).output();
        assert!(gone.is_ok_and(|o| o.status.success()));
        assert!(sound && left == 0 && (hit || !fits), "a disk of {size}: {hit}, {left} left");
        count += 1;
    }
    report("small disks: works from memory, no leftover", count);
}

#[test]
fn things_in_the_place_of_a_blob() {
    let good = blob(3);
    let mut count = 0;
    let others: &[fn(&std::path::Path) -> bool] = &[
        |path| fs::create_dir(path).is_ok(),
        |path| fs::write(path, b"").is_ok(),
        |path| fs::write(path, [0; 10_000]).is_ok(),
        #[cfg(unix)]
        |path| std::os::unix::fs::symlink("/etc/passwd", path).is_ok(),
        #[cfg(unix)]
        |path| std::os::unix::fs::symlink("/nonexistent", path).is_ok(),
        #[cfg(unix)]
        |path| {
            let made = std::process::Command::new("mkfifo").arg(path).status();
            made.is_ok_and(|s| s.success())
        },
    ];
    for (i, put) in others.iter().enumerate() {
        let store = Store::new();
        store.put(b"m", &good);
        let path = store.file();
        fs::remove_file(&path).expect("removed");
        if !put(&path) {
            continue;
        }
        assert!(store.get(b"m").is_none(), "thing {i}");
        if fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
            fs::remove_dir(&path).expect("left alone by the cache");
        }
        store.put(b"m", &good);
        assert!(same(&store.get(b"m").expect("stored again"), &good), "thing {i}");
        count += 1;
    }
    report("folders, links, FIFOs and empty files in a blob's place: miss", count);
}

#[cfg(unix)]
#[test]
fn files_of_others_or_open_to_others_are_not_taken() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    let good = blob(4);
    let mut count = 0;
    for mode in [0o666, 0o464, 0o446, 0o777] {
        let store = Store::new();
        store.put(b"m", &good);
        let path = store.file();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        assert!(store.get(b"m").is_none(), "mode {mode:o}");
        count += 1;
    }
    let store = Store::new();
    store.put(b"m", &good);
    let path = store.file();
    if fs::metadata(&path).expect("there").uid() == 0 && chown(&path, Some(65_534), None).is_ok() {
        assert!(store.get(b"m").is_none(), "a blob of another user");
        assert!(path.exists(), "what is not ours is not removed");
        count += 1;
    }
    report("blobs of others or writable by others: miss", count);
}

#[test]
fn folders_that_cannot_be_written() {
    let good = blob(5);
    let dir = tempfile::tempdir().expect("temporary folder");
    let file = dir.path().join("file");
    fs::write(&file, b"x").expect("written");
    let mut count = 0;
    for place in [file.clone(), file.join("below"), "/proc/self/none".into(), "/sys".into()] {
        let request = |cache: &dyn ov_core::cache::CacheProvider| {
            let store = Store::new();
            let mut request = store.request(b"m");
            request.dir = &place;
            let mut entry = cache.open(&request).expect("a key");
            assert!(entry.load().is_none());
            entry.publish(good.clone());
            cache.finish();
        };
        request(&*ov_cache::FileCache::create());
        count += 1;
    }
    report("folders that cannot be written: works from memory", count);
}

#[cfg(target_os = "linux")]
#[test]
fn a_read_only_mount_serves_what_it_has() {
    let (store, good) = (Store::new(), blob(6));
    store.put(b"m", &good);
    let mount = |options: &str| {
        let output = std::process::Command::new("mount")
            .args(["-o", options])
            .args([store.path(), store.path()])
            .output();
        output.is_ok_and(|o| o.status.success())
    };
    if !mount("bind") {
        println!("faults: no right to mount folders");
        return;
    }
    let read_only = mount("remount,ro,bind");
    let found = read_only.then(|| store.get(b"m"));
    let other = read_only.then(|| {
        let cache = ov_cache::FileCache::create();
        store.put_with(&*cache, b"n", &good);
        store.get(b"n").is_none()
    });
    let gone = std::process::Command::new("umount").arg("-l").arg(store.path()).output();
    assert!(gone.is_ok_and(|o| o.status.success()));
    assert!(read_only);
    assert!(found.flatten().is_some_and(|f| same(&f, &good)), "lookups still work");
    assert_eq!(other, Some(true), "nothing is stored");
    report("read-only mount: hits, stores nothing", 2);
}

#[test]
fn blobs_that_change_while_they_are_mapped() {
    let good = blob(7);
    let mut count = 0;
    for i in 0..tier(10, 40) {
        let store = Store::new();
        store.put(b"m", &good);
        let (path, held) = (store.file(), store.get(b"m").expect("stored"));
        let weights = held.blob.section(SectionKind::Weights).expect("there");
        match i % 3 {
            0 => fs::remove_file(&path).expect("removed"),
            1 => replace(&path, b"another"),
            _ => {
                let other = store.path().join("other");
                fs::write(&other, vec![7; 1 << 20]).expect("written");
                fs::rename(&other, &path).expect("renamed over");
            }
        }
        assert_eq!(Some(weights), good.section(SectionKind::Weights), "trial {i}");
        assert!(store.get(b"m").is_none());
        count += 1;
    }
    report("blobs removed or replaced while mapped: the map stays", count);
}

#[test]
fn clocks_that_jump() {
    let year = Duration::from_secs(365 * 24 * 3600);
    let mut count = 0;
    for i in 0..tier(9, 30) {
        let mut store = Store::new();
        let good: Vec<_> = (0..4).map(|seed| blob(80 + seed)).collect();
        store.put(b"0", &good[0]);
        store.put(b"1", &good[1]);
        store.put(b"2", &good[2]);
        let now = SystemTime::now();
        let times = [now - year, now + year, now];
        let turned = [times[i % 3], times[(i + 1) % 3], times[(i + 2) % 3]];
        let mut keys = Vec::new();
        for (name, time) in [b"0", b"1", b"2"].iter().zip(turned) {
            let found = store.get(*name).expect("stored");
            let key: String = found.blob.header().key.iter().map(|b| format!("{b:02x}")).collect();
            let used = store.path().join("v1/use").join(&key);
            File::options()
                .append(true)
                .open(used)
                .expect("noted")
                .set_modified(time)
                .expect("set");
            keys.push((key, time));
        }
        // Room for three: the one that says it will be used in a year goes first, then the oldest.
        store.options.max_bytes = Some(3 * good[0].bytes().len() as u64 + 1000);
        store.put(b"3", &good[3]);
        let left = blobs(store.path());
        let is_left = |time: SystemTime| {
            let key = &keys.iter().find(|(_, t)| *t == time).expect("one of three").0;
            left.iter().any(|p| p.to_string_lossy().contains(key.as_str()))
        };
        assert!(!is_left(now + year) && is_left(now), "{left:?}");
        for (name, good) in [b"0", b"1", b"2", b"3"].iter().zip(&good) {
            assert!(store.get(*name).is_none_or(|found| same(&found, good)));
        }
        count += 1;
    }
    report("clocks a year back or ahead: no wrong hit, order kept", count);
}

#[test]
fn a_blob_above_the_bound_is_not_stored() {
    let mut store = Store::new();
    store.options.max_bytes = Some(10_000);
    store.put(b"m", &blob(9));
    assert!(blobs(store.path()).is_empty() && store.get(b"m").is_none());
}

/// A cipher for tests: each byte is turned by a key and its position.
fn cipher(key: u8) -> EncryptionCallbacks {
    let turn = move |bytes: &[u8]| {
        Ok(bytes
            .iter()
            .zip((key..=255).cycle())
            .map(|(b, k)| b ^ k.rotate_left(3) ^ 0x5A)
            .collect())
    };
    EncryptionCallbacks::new(turn, turn)
}

#[test]
fn encrypted_blobs_show_nothing_and_refuse_every_flip() {
    let mut store = Store::new();
    store.options.encryption = Some(cipher(3));
    let good = blob(10);
    store.put(b"m", &good);
    let path = store.file();
    let bytes = fs::read(&path).expect("read");
    let weights = good.section(SectionKind::Weights).expect("there");
    let plan = good.section(SectionKind::Plan).expect("there");
    for secret in [&plan[..32], &weights[..64], b"TEST"] {
        assert!(!bytes.windows(secret.len()).any(|w| w == secret), "it can be read");
    }
    assert!(same(&store.get(b"m").expect("stored"), &good));
    let (mut noise, count) = (crate::Noise(90), tier(200, 2000));
    for i in 0..count {
        let mut bad = bytes.clone();
        bad[noise.below(bytes.len())] ^= 1 << noise.below(8);
        replace(&path, &bad);
        assert!(store.get(b"m").is_none(), "trial {i}");
    }
    for len in (0..bytes.len()).step_by(9973) {
        replace(&path, &bytes[..len]);
        assert!(store.get(b"m").is_none(), "cut to {len}");
    }
    replace(&path, &bytes);
    store.options.encryption = Some(cipher(4));
    assert!(store.get(b"m").is_none(), "another key");
    report("flips in encrypted blobs: miss", count);
}

#[test]
fn plain_and_small_blobs_have_keys_of_their_own() {
    let mut store = Store::new();
    let good = blob(11);
    store.put(b"m", &good);
    store.options.mode = CacheMode::OptimizeSize;
    store.put(b"m", &good);
    assert!(same(&store.get(b"m").expect("stored"), &good));
    assert_eq!(blobs(store.path()).len(), 2);
}
