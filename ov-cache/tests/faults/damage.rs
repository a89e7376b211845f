//! Flipped bits, cut and padded files, zeroed and swapped pages, blobs under another's name.

use std::{fs, time::Duration};

use ov_core::{blob::SectionKind, property::cache::CacheVerify};

use crate::{Noise, Store, WEEK, blob, replace, report, same, tier, watched};

#[test]
fn every_bit_of_header_and_table() {
    let (store, good) = (Store::new(), blob(1));
    store.put(b"m", &good);
    let path = store.file();
    let bytes = fs::read(&path).expect("read");
    let end = good.find(SectionKind::Meta).expect("there").offset;
    let step = tier(5, 1);
    let mut count = 0;
    for bit in (0..end * 8).step_by(step) {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        replace(&path, &bad);
        assert!(store.get(b"m").is_none(), "bit {bit}");
        count += 1;
    }
    replace(&path, &bytes);
    assert!(same(&store.get(b"m").expect("whole again"), &good));
    report("bits of header and section table flipped: miss", count);
}

#[test]
fn flips_in_metadata_and_program() {
    let (store, good) = (Store::new(), blob(2));
    store.put(b"m", &good);
    let path = store.file();
    let bytes = fs::read(&path).expect("read");
    let (mut noise, count) = (Noise(20), tier(2000, 20_000));
    for i in 0..count {
        let kind = if i % 4 == 0 { SectionKind::Meta } else { SectionKind::Plan };
        let section = good.find(kind).expect("there");
        let mut bad = bytes.clone();
        for _ in 0..=noise.below(16) {
            bad[section.offset + noise.below(section.len)] ^= 1 << noise.below(8);
        }
        replace(&path, &bad);
        assert!(bad == bytes || store.get(b"m").is_none(), "trial {i}");
    }
    report("random flips in metadata and program: miss", count);
}

#[test]
fn flips_in_weights() {
    let count = tier(500, 7000);
    for verify in [CacheVerify::Full, CacheVerify::Once, CacheVerify::Lazy] {
        let (store, good) = (Store::verifying(verify), blob(3));
        store.put(b"m", &good);
        let path = store.file();
        let bytes = fs::read(&path).expect("read");
        let section = good.find(SectionKind::Weights).expect("there");
        let mut noise = Noise(30);
        for i in 0..count {
            let mut bad = bytes.clone();
            bad[section.offset + noise.below(section.len)] ^= 1 << noise.below(8);
            replace(&path, &bad);
            match store.get(b"m") {
                None => assert_ne!(verify, CacheVerify::Lazy),
                Some(found) => {
                    assert_eq!(verify, CacheVerify::Lazy);
                    let check = found.check.expect("the check has begun");
                    assert!(check.settle().is_err(), "trial {i}");
                    assert!(!path.exists(), "the damaged blob is gone");
                }
            }
        }
        replace(&path, &bytes);
        let found = store.get(b"m").expect("whole again");
        assert!(same(&found, &good));
        found.check.iter().for_each(|check| check.settle().expect("sound"));
    }
    report("random flips in weights (FULL, ONCE, LAZY): found", 3 * count);
}

#[test]
fn flips_behind_a_valid_record_are_found_later() {
    let count = tier(20, 200);
    let mut noise = Noise(40);
    for i in 0..count {
        let (store, good) = (Store::new(), blob(4));
        let section = *good.find(SectionKind::Weights).expect("there");
        let at = section.offset + noise.below(section.len);
        let dir = store.path().to_owned();
        // Between linking the blob and recording that it is sound: what is recorded is the damaged file.
        let cache = watched(WEEK, move |step| {
            if step == "record" {
                let path = crate::blobs(&dir).remove(0);
                let mut bytes = fs::read(&path)?;
                bytes[at] ^= 4;
                replace(&path, &bytes);
            }
            Ok(())
        });
        store.put_with(&*cache, b"m", &good);
        let trusted = store.get_from(&*watched(WEEK, |_| Ok(())), b"m").expect("recorded");
        assert!(trusted.check.is_none() && !same(&trusted, &good), "trial {i}");
        let cache = watched(Duration::ZERO, |_| Ok(()));
        let found = store.get_from(&*cache, b"m").expect("recorded");
        let check = found.check.expect("an old record is checked again");
        while check.settle().is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(store.get(b"m").is_none(), "the damaged blob is gone");
    }
    report("flips behind a valid record: found by the scrub", count);
}

#[test]
fn cut_and_padded() {
    let (store, good) = (Store::new(), blob(5));
    store.put(b"m", &good);
    let path = store.file();
    let bytes = fs::read(&path).expect("read");
    let mut lens: Vec<usize> = (0..8192).step_by(tier(7, 1)).collect();
    for section in good.sections() {
        for at in [section.offset, section.offset + section.len] {
            lens.extend([at - 1, at, at + 1]);
        }
    }
    let pages = (4096..bytes.len()).step_by(4096).flat_map(|at| [at - 1, at, at + 1]);
    lens.extend(pages.step_by(tier(3, 1)));
    lens.extend((1..=4096).step_by(tier(97, 1)).map(|more| bytes.len() + more));
    let mut padded = bytes.clone();
    padded.resize(bytes.len() + 4097, 0);
    let mut count = 0;
    for len in lens.into_iter().filter(|len| *len != bytes.len()) {
        replace(&path, &padded[..len]);
        assert!(store.get(b"m").is_none(), "{len} bytes of {}", bytes.len());
        count += 1;
    }
    report("cut and padded files: miss", count);
}

#[test]
fn zeroed_and_swapped_pages_and_other_names() {
    const PAGE: usize = 4096;
    let (store, good) = (Store::new(), blob(6));
    store.put(b"m", &good);
    let path = store.file();
    let bytes = fs::read(&path).expect("read");
    let pages = bytes.len() / PAGE;
    let (mut noise, mut count) = (Noise(60), 0);
    for i in 0..tier(200, 1000) {
        let (a, b) = (noise.below(pages), noise.below(pages));
        let mut bad = bytes.clone();
        if i % 2 == 0 {
            bad[a * PAGE..(a + 1) * PAGE].fill(0);
        } else {
            bad[a * PAGE..(a + 1) * PAGE].copy_from_slice(&bytes[b * PAGE..(b + 1) * PAGE]);
        }
        if bad == bytes {
            continue;
        }
        replace(&path, &bad);
        assert!(store.get(b"m").is_none(), "pages {a} and {b}");
        count += 1;
    }
    replace(&path, &bytes);
    for i in 0..20u8 {
        let name = [b'n', i];
        store.put(&name, &blob(100 + u64::from(i)));
        let newest = crate::blobs(store.path()).into_iter().find(|p| *p != path);
        let newest = newest.expect("a second blob");
        replace(&newest, &bytes);
        assert!(store.get(&name).is_none(), "another's blob under this name");
        assert!(!newest.exists());
        count += 1;
    }
    report("pages zeroed or swapped, blobs under another key: miss", count);
}
