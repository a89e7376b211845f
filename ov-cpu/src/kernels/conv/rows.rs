//! Pointers from the rows of a tile to the input pixels of every tap.
#![allow(unsafe_code, reason = "tables of pointers in caller-given scratch")]

use std::ops::Range;

use crate::gemm::tile::{MAX_ROWS, Segment};

/// Where taps fall on the input.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    pub(crate) input: [usize; 3],
    pub(crate) output: [usize; 3],
    pub(crate) stride: [usize; 3],
    /// Input position of each tap relative to `output position * stride`, ascending.
    pub(crate) offsets: [Vec<isize>; 3],
}

impl Geometry {
    pub(crate) fn taps(&self) -> usize {
        self.offsets.iter().map(Vec::len).product()
    }

    /// Whether output pixel `p` reads input pixel `p` and nothing else, for every `p`.
    pub(crate) fn is_identity(&self) -> bool {
        self.input == self.output
            && self.stride == [1; 3]
            && self.offsets.iter().all(|o| o.len() == 1 && o[0] == 0)
    }

    /// The input lines, counted over depths and images, between the first and the last that output `pixels` read.
    pub(crate) fn lines(&self, pixels: Range<usize>) -> Range<usize> {
        if pixels.is_empty() {
            return 0..0;
        }
        let ends = [pixels.start, pixels.end - 1];
        // Rows between the ends lie between their lines, except where an end is at the border of an image.
        let whole = ends.map(|p| self.position(p).1[0]);
        let images = ends.map(|p| self.position(p).0);
        let spans = images[0] != images[1] || whole[0] != whole[1];
        let rows = if spans {
            [0, self.output[1].saturating_sub(1)]
        } else {
            ends.map(|p| self.position(p).1[1])
        };
        let reach = |d: usize, low: usize, high: usize| {
            let first = self.offsets[d].first().map_or(0, |o| (low * self.stride[d]) as isize + o);
            let last = self.offsets[d].last().map_or(-1, |o| (high * self.stride[d]) as isize + o);
            (first.max(0) as usize, (last + 1).clamp(0, self.input[d] as isize) as usize)
        };
        let (y0, y1) = reach(1, rows[0], rows[1]);
        let (z0, z1) =
            if images[0] == images[1] { reach(0, whole[0], whole[1]) } else { (0, self.input[0]) };
        if z0 >= z1 || y0 >= y1 {
            return 0..0;
        }
        let line =
            |image: usize, z: usize, y: usize| (image * self.input[0] + z) * self.input[1] + y;
        line(images[0], z0, y0)..line(images[1], z1 - 1, y1 - 1) + 1
    }

    /// Image and `[z, y, x]` of output pixel `p`.
    pub(crate) fn position(&self, p: usize) -> (usize, [usize; 3]) {
        let [d, h, w] = self.output;
        (p / (d * h * w), [p / (h * w) % d, p / w % h, p % w])
    }

    /// Input coordinate of tap offset `o` in dimension `d`, if it is inside.
    #[inline]
    fn at(&self, d: usize, position: usize, o: isize) -> Option<usize> {
        let i = (position * self.stride[d]) as isize + o;
        (i >= 0 && (i as usize) < self.input[d]).then_some(i as usize)
    }
}

/// The input that rows point to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pixels {
    /// First channel of the group in the first pixel.
    pub(crate) base: *const f32,
    pub(crate) pixel_stride: usize,
    /// Channels of the group.
    pub(crate) channels: usize,
    /// `channels` zeros.
    pub(crate) zeros: *const f32,
}

/// Writes the segments and row pointers of a tile of `height` pixels from pixel `p`, and returns
/// the number of segments. Taps that no row reaches are left out, and taps that are neighbours in
/// memory for all rows become one segment.
///
/// # Safety
/// `segments` must have room for all taps and `pointers` for all taps times `height`.
pub(crate) unsafe fn write_rows(
    g: &Geometry,
    x: &Pixels,
    p: usize,
    height: usize,
    segments: *mut Segment,
    pointers: *mut *const f32,
) -> usize {
    let mut positions = [(0, [0; 3]); MAX_ROWS];
    let (mut image, mut position) = g.position(p);
    for row in &mut positions[..height] {
        *row = (image, position);
        position[2] += 1;
        for d in (1..3).rev() {
            if position[d] == g.output[d] {
                (position[d], position[d - 1]) = (0, position[d - 1] + 1);
            }
        }
        if position[0] == g.output[0] {
            (position[0], image) = (0, image + 1);
        }
    }
    let positions = &positions[..height];
    let taps_x = &g.offsets[2];
    let consecutive = x.pixel_stride == x.channels && taps_x.windows(2).all(|w| w[1] == w[0] + 1);
    let whole = consecutive
        && taps_x.first().zip(taps_x.last()).is_some_and(|(first, last)| {
            positions
                .iter()
                .all(|(_, q)| g.at(2, q[2], *first).is_some() && g.at(2, q[2], *last).is_some())
        });
    let (mut n, mut tap) = (0, 0);
    for oz in &g.offsets[0] {
        for oy in &g.offsets[1] {
            let mut lines = [None; MAX_ROWS];
            let (mut any, mut all) = (false, true);
            for (line, (image, q)) in lines.iter_mut().zip(positions) {
                *line = g
                    .at(0, q[0], *oz)
                    .zip(g.at(1, q[1], *oy))
                    .map(|(z, y)| ((image * g.input[0] + z) * g.input[1] + y) * g.input[2]);
                any |= line.is_some();
                all &= line.is_some();
            }
            let pixel = |line: Option<usize>, q: &[usize; 3], ox: isize| {
                line.zip(g.at(2, q[2], ox))
                    .map_or(x.zeros, |(line, i)| x.base.wrapping_add((line + i) * x.pixel_stride))
            };
            if !any {
                tap += taps_x.len();
                continue;
            }
            let step = if whole && all { taps_x.len() } else { 1 };
            for (i, ox) in taps_x.iter().enumerate().step_by(step) {
                if step == 1 && !positions.iter().any(|(_, q)| g.at(2, q[2], *ox).is_some()) {
                    continue;
                }
                // SAFETY: at most one segment per tap is written.
                unsafe {
                    let start = (tap + i) * x.channels;
                    segments.add(n).write(Segment { start, len: step * x.channels });
                    for (r, ((_, q), line)) in positions.iter().zip(lines).enumerate() {
                        pointers.add(n * height + r).write(pixel(line, q, *ox));
                    }
                }
                n += 1;
            }
            tap += taps_x.len();
        }
    }
    n
}
