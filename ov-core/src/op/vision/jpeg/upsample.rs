//! Samples of a component for every pixel: linear between the centres of samples where there are half as many, as the
//! specification of `ImageDecoder` says, repeated otherwise.

use super::{Component, Frame};

/// The samples of `plane` (rows of eight times the component's blocks), one per pixel of the frame.
pub(super) fn plane(plane: &[u8], c: &Component, frame: &Frame) -> Option<Vec<u8>> {
    if !frame.h_max.is_multiple_of(c.h) || !frame.v_max.is_multiple_of(c.v) {
        return None;
    }
    let (h, v) = (frame.h_max / c.h, frame.v_max / c.v);
    let rows = |y: usize| &plane[y * c.stride * 8..][..c.width];
    let mut out = Vec::with_capacity(frame.width * frame.height);
    for y in 0..frame.height {
        let row = rows(y / v);
        let start = out.len();
        // The row of samples next nearest to this row of pixels.
        let next = if y % 2 == 0 { (y / 2).saturating_sub(1) } else { (y / 2 + 1).min(c.height - 1) };
        match (h, v) {
            (2, 1) if c.width > 2 => out.extend(wide(row)),
            (2, 2) if c.width > 2 => {
                let sums: Vec<u32> =
                    row.iter().zip(rows(next)).map(|(a, b)| u32::from(*a) * 3 + u32::from(*b)).collect();
                out.extend(wide_sums(&sums));
            }
            (1, 2) => {
                let round = if y % 2 == 0 { 1 } else { 2 };
                let mix = |(a, b): (&u8, &u8)| ((u32::from(*a) * 3 + u32::from(*b) + round) >> 2) as u8;
                out.extend(row.iter().zip(rows(next)).map(mix));
            }
            _ => out.extend((0..frame.width).map(|x| row[x / h])),
        }
        out.truncate(start + frame.width);
    }
    Some(out)
}

/// Twice as many samples of a row: a quarter of the neighbour, halves rounded down and up by turns.
fn wide(row: &[u8]) -> impl Iterator<Item = u8> {
    let at = |i: usize| u32::from(row[i]);
    let last = row.len() - 1;
    (0..row.len()).flat_map(move |i| {
        let left = if i == 0 { at(i) } else { (at(i) * 3 + at(i - 1) + 1) >> 2 };
        let right = if i == last { at(i) } else { (at(i) * 3 + at(i + 1) + 2) >> 2 };
        [left as u8, right as u8]
    })
}

/// The same of sums that are four times the samples.
fn wide_sums(sums: &[u32]) -> impl Iterator<Item = u8> {
    let last = sums.len() - 1;
    (0..sums.len()).flat_map(move |i| {
        let neighbour = |j: Option<usize>| j.filter(|j| *j <= last).map_or(sums[i], |j| sums[j]);
        let left = (sums[i] * 3 + neighbour(i.checked_sub(1)) + 8) >> 4;
        let right = (sums[i] * 3 + neighbour(Some(i + 1)) + 7) >> 4;
        [left as u8, right as u8]
    })
}
