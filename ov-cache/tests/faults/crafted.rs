//! Blobs whose hashes are right and whose content is hostile, and blobs of other versions.

use std::fs;

use ov_core::{
    Blob,
    blob::{HEADER_LEN, SectionKind},
};

use crate::{Noise, Store, blob, replace, report, same, tier};

/// Length of a line of the section table.
const ENTRY: usize = 128;

/// Makes the hashes of header and table right again, as somebody would who can write the folder.
fn reseal(bytes: &mut [u8], sections: usize) {
    let table = HEADER_LEN..(HEADER_LEN + sections * ENTRY).min(bytes.len());
    let hash = blake3::derive_key("ov blob table v1", &bytes[table.clone()]);
    bytes[96..128].copy_from_slice(&hash);
    let roots: Vec<u8> = bytes[table].chunks(ENTRY).flat_map(|e| e[64..].to_vec()).collect();
    let roots: Vec<u8> = roots.chunks(64).flat_map(|r| r[..32].to_vec()).collect();
    bytes[128..160].copy_from_slice(&blake3::derive_key("ov blob roots v1", &roots));
    let hash = blake3::derive_key("ov blob header v1", &bytes[..HEADER_LEN - 32]);
    bytes[HEADER_LEN - 32..HEADER_LEN].copy_from_slice(&hash);
}

#[test]
fn resealing_gives_a_sound_blob() {
    let (store, good) = (Store::new(), blob(1));
    store.put(b"m", &good);
    let path = store.file();
    let bytes = fs::read(&path).expect("read");
    let mut again = bytes.clone();
    reseal(&mut again, good.sections().len());
    assert!(again == bytes, "the tests below would test the hashes only");
}

#[test]
fn lies_with_right_hashes_give_no_ranges_outside() {
    let (store, good) = (Store::new(), blob(2));
    store.put(b"m", &good);
    let path = store.file();
    let bytes = fs::read(&path).expect("read");
    let sections = good.sections().len();
    let (mut noise, mut refused) = (Noise(70), 0);
    let values =
        [0, 1, 63, 64, 4096, 1 << 20, 1 << 31, 1 << 40, 1 << 62, u64::MAX - 4095, u64::MAX];
    let count = tier(1500, 5300);
    for i in 0..count {
        let mut bad = bytes.clone();
        for _ in 0..=noise.below(3) {
            let at = if noise.below(4) == 0 {
                8 + 4 * noise.below(13)
            } else {
                HEADER_LEN + ENTRY * noise.below(sections) + 8 * noise.below(8)
            };
            let old = u64::from_le_bytes(bad[at..at + 8].try_into().expect("eight bytes"));
            let value = match noise.below(3) {
                0 => values[noise.below(values.len())],
                1 => old.wrapping_add(values[noise.below(values.len())]),
                _ => bytes.len() as u64 - noise.below(9000) as u64,
            };
            bad[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        reseal(&mut bad, sections);
        if let Ok(blob) = Blob::from_bytes(bad.clone().into()) {
            for s in blob.sections() {
                assert!(s.len <= bad.len() && s.offset <= bad.len() - s.len, "trial {i}");
            }
        }
        replace(&path, &bad);
        match store.get(b"m") {
            None => refused += 1,
            // Another blob than was stored, and a sound one: who can make hashes can make blobs.
            Some(found) => {
                for s in found.blob.sections() {
                    assert!(s.offset + s.len <= bad.len(), "trial {i}");
                }
            }
        }
    }
    assert!(refused > count / 2, "{refused}");
    report("lies under right hashes: refused, or within the file", count);
}

#[test]
fn other_versions_miss_and_stay() {
    let (store, good) = (Store::new(), blob(3));
    store.put(b"m", &good);
    let path = store.file();
    let bytes = fs::read(&path).expect("read");
    let mut count = 0;
    for major in (0..=40).filter(|m| *m != 1).chain([u16::MAX]) {
        let mut other = bytes.clone();
        other[8..10].copy_from_slice(&major.to_le_bytes());
        reseal(&mut other, good.sections().len());
        replace(&path, &other);
        assert!(store.get(b"m").is_none(), "version {major}");
        assert!(path.exists(), "the entry of another version stays");
        count += 1;
    }
    // A later minor version adds sections that old readers may leave out.
    let mut other = bytes.clone();
    other[10..12].copy_from_slice(&9u16.to_le_bytes());
    reseal(&mut other, good.sections().len());
    replace(&path, &other);
    assert!(same(&store.get(b"m").expect("read all the same"), &good));
    report("blobs of other versions: miss, and stay", count + 1);
}

#[test]
fn unsealed_blobs_are_not_taken() {
    let (store, good) = (Store::new(), blob(4));
    store.put(b"m", &good);
    let path = store.file();
    replace(&path, good.bytes());
    assert!(store.get(b"m").is_none());
    assert!(good.find(SectionKind::Weights).is_some());
}
