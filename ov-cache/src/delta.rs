//! Finds the weights of a blob in the model's own files.

use std::{collections::HashMap, ops::Range};

use bytes::Bytes;

/// A part of a blob: bytes of it, or the same bytes in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) range: Range<usize>,
    /// File and offset.
    pub(crate) source: Option<(usize, usize)>,
}

/// Distance of the places of the blob that are looked for. Each equal run that is longer holds at least one.
const GRAIN: usize = 1024;
/// Shorter runs are not worth a reference.
const WORTH: usize = 4096;
/// Bits of the filter before the table.
const FILTER_BITS: u32 = 20;

/// Splits `bytes` into parts, in order, that together are the whole; only `within` is looked for in the files.
///
/// Files are read byte by byte, since their formats align nothing; a filter that fits the second-level cache turns away
/// what is not looked for.
pub(crate) fn parts(bytes: &[u8], within: Range<usize>, files: &[Bytes]) -> Vec<Part> {
    let mut filter = vec![0u64; 1 << (FILTER_BITS - 6)];
    let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut at = within.start;
    while at + GRAIN <= within.end {
        let word = word_at(bytes, at);
        // Runs of one value are everywhere and tell nothing.
        if word != word.rotate_left(8) {
            let bit = slot(word);
            filter[bit >> 6] |= 1 << (bit & 63);
            places.entry(word).or_default().push(at);
        }
        at += GRAIN;
    }
    let mut found: Vec<(usize, usize, usize, usize)> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let mut offset = 0;
        while offset + GRAIN <= file.len() {
            let word = word_at(file, offset);
            let bit = slot(word);
            let known = filter[bit >> 6] >> (bit & 63) & 1 == 1;
            let run = known
                .then(|| places.get(&word))
                .flatten()
                .and_then(|places| longest(bytes, &within, file, offset, places));
            offset += 1;
            if let Some((start, from, len)) = run.filter(|(.., len)| *len >= WORTH) {
                found.push((start, len, index, from));
                offset = offset.max(from + len);
            }
        }
    }
    found.sort_unstable();
    let mut parts = Vec::new();
    let mut done = 0;
    for (start, len, file, offset) in found {
        let (end, skipped) = (start + len, done.max(start) - start);
        if end <= done || end - done.max(start) < WORTH {
            continue;
        }
        let start = start + skipped;
        if start > done {
            parts.push(Part { range: done..start, source: None });
        }
        parts.push(Part { range: start..end, source: Some((file, offset + skipped)) });
        done = end;
    }
    if done < bytes.len() {
        parts.push(Part { range: done..bytes.len(), source: None });
    }
    parts
}

/// The longest run around one of `places` that is equal around `offset` of the file: start, start in the file, length.
fn longest(
    bytes: &[u8],
    within: &Range<usize>,
    file: &[u8],
    offset: usize,
    places: &[usize],
) -> Option<(usize, usize, usize)> {
    const MOST: usize = 8;
    places
        .iter()
        .take(MOST)
        .filter(|at| bytes[**at..**at + 64] == file[offset..offset + 64])
        .map(|at| {
            let back = bytes[within.start..*at]
                .iter()
                .rev()
                .zip(file[..offset].iter().rev())
                .take_while(|(a, b)| a == b)
                .count();
            let on = bytes[*at..within.end]
                .iter()
                .zip(&file[offset..])
                .take_while(|(a, b)| a == b)
                .count();
            (at - back, offset - back, back + on)
        })
        .max_by_key(|(.., len)| *len)
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |word, b| word << 8 | u64::from(*b))
}

fn slot(word: u64) -> usize {
    (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - FILTER_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn what_a_file_holds_is_found_wherever_it_lies() {
        let (a, b, own) = (noise(20_000, 1), noise(7_000, 2), noise(9_000, 3));
        let file = [&noise(13, 4)[..], &b, &noise(77, 5), &a, &[0; 5000]].concat();
        let blob = [&noise(4096, 6)[..], &a, &own, &b, &[0; 3000]].concat();
        let files = [Bytes::from(file.clone())];
        let parts = parts(&blob, 4096..blob.len(), &files);
        let mut at = 0;
        let mut referred = 0;
        for part in &parts {
            assert_eq!(part.range.start, at);
            at = part.range.end;
            if let Some((_, offset)) = part.source {
                assert_eq!(blob[part.range.clone()], file[offset..offset + part.range.len()]);
                referred += part.range.len();
            }
        }
        assert_eq!(at, blob.len());
        assert!(referred >= a.len() + b.len(), "{referred}: {parts:?}");
    }

    #[test]
    fn small_and_empty_things_are_kept() {
        for len in [0, 1, 100, 5000] {
            let blob = noise(len, 1);
            let whole = parts(&blob, 0..len, &[Bytes::new(), Bytes::from(noise(10, 2))]);
            assert_eq!(whole.iter().map(|p| p.range.len()).sum::<usize>(), len);
            assert!(whole.iter().all(|p| p.source.is_none()));
        }
    }
}
