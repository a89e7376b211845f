//! Writers that are killed, at every step and at random moments: readers see a whole blob or none.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use ov_core::cache::CacheModel;

use crate::{Noise, Store, WEEK, report, same, sized_blob, tier, watched};

const WEIGHTS: usize = 5 << 20;

/// Runs this test program again, as a writer into `dir` that ends itself at the step of that number.
fn writer(dir: &Path, at: &str) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "writers::child", "--nocapture"])
        .env("OV_CACHE_CHILD_DIR", dir)
        .env("OV_CACHE_CHILD_AT", at)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process")
}

/// Not a test: what the processes of the tests below do.
#[test]
fn child() {
    let Some(dir) = std::env::var_os("OV_CACHE_CHILD_DIR") else { return };
    let at = std::env::var("OV_CACHE_CHILD_AT").unwrap_or_default().parse::<usize>();
    let step = AtomicUsize::new(0);
    let cache = watched(WEEK, move |_| {
        if Ok(step.fetch_add(1, Ordering::Relaxed)) == at {
            let id = std::process::id().to_string();
            let killed = Command::new("kill").args(["-9", &id]).status();
            killed.expect("kill is installed");
            std::thread::sleep(Duration::from_secs(60));
        }
        Ok(())
    });
    let store = Store::new();
    let mut request = store.request(b"m");
    request.dir = Path::new(&dir);
    request.model = CacheModel::Bytes(b"m");
    let mut entry = cache.open(&request).expect("a key");
    if entry.load().is_none() {
        entry.publish(sized_blob(7, WEIGHTS));
    }
    cache.finish();
}

/// After a writer's death: nothing or a whole blob, and the next writer stores one and sweeps.
fn recovers(store: &Store) -> bool {
    let good = sized_blob(7, WEIGHTS);
    let found = store.get(b"m");
    let stored = found.is_some();
    match found {
        Some(found) => assert!(same(&found, &good)),
        None => {
            store.put(b"m", &good);
            assert!(same(&store.get(b"m").expect("stored now"), &good));
            let left: Vec<_> = fs::read_dir(store.path().join("v1/tmp"))
                .map(|files| files.flatten().map(|f| f.path()).collect())
                .unwrap_or_default();
            assert!(left.is_empty(), "{left:?}");
        }
    }
    stored
}

#[cfg(unix)]
#[test]
fn killed_at_each_step() {
    use std::os::unix::process::ExitStatusExt as _;
    let (mut count, mut whole) = (0, 0);
    for _ in 0..tier(1, 20) {
        for step in 0.. {
            let store = Store::new();
            let status = writer(store.path(), &step.to_string()).wait().expect("it ends");
            whole += usize::from(recovers(&store));
            if status.signal().is_none() {
                assert!(step >= 9, "it ended by itself after {step} steps");
                break;
            }
            count += 1;
        }
    }
    assert!(whole > 0 && whole < count, "{whole} of {count}");
    report("writers killed (-9) at each step: recovered", count);
}

#[test]
fn killed_at_random_moments() {
    let mut noise = Noise(11);
    let store = Store::new();
    let start = Instant::now();
    writer(store.path(), "none").wait().expect("it ends");
    let usual = start.elapsed();
    let count = tier(25, 500);
    let mut whole = 0;
    for _ in 0..count {
        let store = Store::new();
        let mut child = writer(store.path(), "none");
        std::thread::sleep(usual.mul_f64(noise.below(1300) as f64 / 1000.0));
        if let Err(error) = child.kill() {
            println!("it had ended: {error}");
        }
        child.wait().expect("it ends");
        whole += usize::from(recovers(&store));
    }
    println!("faults: {whole} of them had stored their blob");
    report("writers killed (-9) at random moments: recovered", count);
}
