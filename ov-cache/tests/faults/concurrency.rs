//! Many processes on one key and on a bounded store, and a holder of the lock that stops.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use crate::{Noise, Store, blob, blobs, report, same, sized_blob, tier};

fn process(dir: &Path, what: &str) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "concurrency::child", "--nocapture"])
        .env("OV_CACHE_CHILD_DIR", dir)
        .env("OV_CACHE_CHILD_DOES", what)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process")
}

const ROUND: usize = 8;
const BOUNDED_KEYS: usize = 20;

/// Not a test: what the processes of the tests below do.
#[test]
fn child() {
    let Some(dir) = std::env::var_os("OV_CACHE_CHILD_DIR") else { return };
    let dir = Path::new(&dir);
    let does = std::env::var("OV_CACHE_CHILD_DOES").unwrap_or_default();
    let mut store = Store::new();
    store.options.wait = Duration::from_secs(30);
    match does.split_once(' ') {
        Some(("together", start)) => {
            let start: u64 = start.parse().expect("a time");
            while now_ms() < start {
                std::hint::spin_loop();
            }
            let cache = ov_cache::FileCache::create();
            let mut request = store.request(b"m");
            request.dir = dir;
            let mut entry = cache.open(&request).expect("a key");
            let good = blob(7);
            match entry.load() {
                Some(found) => assert!(same(&found, &good)),
                None => {
                    // Others find the lock taken while this one compiles.
                    std::thread::sleep(Duration::from_millis(20));
                    println!("\ncompiled");
                    entry.publish(good);
                }
            }
            cache.finish();
        }
        Some(("bounded", seconds)) => {
            let until =
                Instant::now() + Duration::from_secs_f64(seconds.parse().expect("a number"));
            let mut noise = Noise(u64::from(std::process::id()));
            store.options.max_bytes = Some(bound());
            let (mut loads, mut hits) = (0, 0);
            while Instant::now() < until {
                let key = noise.below(BOUNDED_KEYS).min(noise.below(BOUNDED_KEYS)) as u8;
                let (good, name) = (blob(200 + u64::from(key)), [b'k', key]);
                let cache = ov_cache::FileCache::create();
                let mut request = store.request(&name);
                request.dir = dir;
                let mut entry = cache.open(&request).expect("a key");
                match entry.load() {
                    Some(found) => {
                        assert!(same(&found, &good), "key {key}");
                        hits += 1;
                    }
                    None => entry.publish(good),
                }
                cache.finish();
                loads += 1;
            }
            println!("\nloads {loads} hits {hits}");
        }
        Some(("hold", _)) => {
            let cache = ov_cache::FileCache::create();
            let mut request = store.request(b"m");
            request.dir = dir;
            let mut entry = cache.open(&request).expect("a key");
            assert!(entry.load().is_none());
            fs::write(dir.join("held"), b"").expect("written");
            std::thread::sleep(Duration::from_secs(60));
        }
        _ => panic!("{does:?} is nothing to do"),
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    now.as_millis() as u64
}

fn bound() -> u64 {
    5 * blob(0).bytes().len() as u64
}

fn printed(child: Child) -> String {
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn eight_processes_on_one_key_compile_once() {
    let rounds = tier(4, 100);
    for round in 0..rounds {
        let store = Store::new();
        let start = format!("together {}", now_ms() + 150);
        let children: Vec<Child> = (0..ROUND).map(|_| process(store.path(), &start)).collect();
        let texts: Vec<String> = children.into_iter().map(printed).collect();
        let compiled = texts.iter().filter(|t| t.contains("\ncompiled")).count();
        assert_eq!(compiled, 1, "round {round}");
        assert_eq!(blobs(store.path()).len(), 1);
    }
    report("rounds of eight processes on one key: one compile each", rounds);
}

#[test]
fn eight_processes_on_a_bounded_store() {
    let store = Store::new();
    let seconds = tier(3, 60);
    let does = format!("bounded {seconds}");
    let children: Vec<Child> = (0..ROUND).map(|_| process(store.path(), &does)).collect();
    let largest = bound() + blob(0).bytes().len() as u64;
    let until = Instant::now() + Duration::from_secs(seconds as u64);
    let mut looks = 0;
    while Instant::now() < until {
        let held: u64 = ov_cache::list(store.path()).expect("listed").iter().map(|s| s.len).sum();
        assert!(held <= largest, "{held} of {}", bound());
        looks += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut loads, mut hits) = (0, 0);
    for text in children.into_iter().map(printed) {
        let line = text.lines().find(|l| l.starts_with("loads ")).expect("its counts").to_owned();
        let counts: Vec<usize> =
            line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        (loads, hits) = (loads + counts[0], hits + counts[1]);
    }
    assert!(looks > 0 && hits > 0, "{hits} of {loads}");
    let stored = ov_cache::list(store.path()).expect("listed");
    assert!(stored.iter().map(|s| s.len).sum::<u64>() <= largest);
    stored.iter().for_each(|s| assert!(!s.verify().expect("sound")));
    report("loads of eight processes on a store of five blobs: no error", loads);
}

#[cfg(unix)]
#[test]
fn waiting_for_a_holder_that_stops_or_dies_ends() {
    let mut count = 0;
    for i in 0..tier(2, 20) {
        let mut store = Store::new();
        let mut holder = process(store.path(), "hold lock");
        while !store.path().join("held").exists() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let pid = holder.id().to_string();
        let start = Instant::now();
        if i % 2 == 0 {
            let stopped = Command::new("kill").args(["-STOP", &pid]).status();
            assert!(stopped.expect("kill is installed").success());
            store.options.wait = Duration::from_millis(200);
            assert!(store.get(b"m").is_none(), "it compiles for itself");
            assert!(start.elapsed() >= store.options.wait);
            assert!(start.elapsed() < Duration::from_secs(20));
            holder.kill().expect("it stood still");
        } else {
            holder.kill().expect("it slept");
            holder.wait().expect("it ends");
            store.options.wait = Duration::from_secs(30);
            store.put(b"m", &sized_blob(1, 100));
            assert!(start.elapsed() < Duration::from_secs(20), "the lock went with its holder");
            assert_eq!(blobs(store.path()).len(), 1);
        }
        holder.wait().expect("it ends");
        count += 1;
    }
    report("holders of the lock stopped or killed: others go on", count);
}
