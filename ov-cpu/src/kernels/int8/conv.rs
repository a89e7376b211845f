//! Convolution of bytes as an implicit matrix product; a matrix product is one with a single tap.
#![allow(unsafe_code, reason = "disjoint parts of one output are written through raw pointers")]

use std::ops::Range;

use crate::gemm::int8::tile::{ByteTile, ByteTiles};
use crate::gemm::int8::{ByteFinish, ByteLayout, Sums, sum_bytes};
use crate::gemm::tile::{MAX_COLS, MAX_ROWS};
use crate::kernels::conv::{ConvParams, Source};
use crate::simd::Isa;

/// Packed weights of a convolution: a matrix `[taps * channels, outputs]` per group. Rows are ordered tap by tap for a
/// channels-last input and channel by channel for a planar one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BytePacking {
    groups: usize,
    /// Channels and outputs of a group.
    channels: usize,
    outputs: usize,
    taps: usize,
    planar: bool,
    layout: ByteLayout,
}

impl BytePacking {
    /// The packing for `channels` and `outputs` of all groups.
    ///
    /// # Panics
    /// If groups do not divide the channels.
    pub(crate) fn new(
        isa: Isa,
        channels: usize,
        outputs: usize,
        groups: usize,
        taps: usize,
        planar: bool,
    ) -> Self {
        assert!(
            groups > 0 && channels.is_multiple_of(groups) && outputs.is_multiple_of(groups),
            "{groups} groups do not divide {channels} channels and {outputs} outputs"
        );
        let (channels, outputs) = (channels / groups, outputs / groups);
        let layout = ByteLayout::new(isa, taps * channels, outputs);
        Self { groups, channels, outputs, taps, planar, layout }
    }

    /// Bytes of the packed weights.
    pub(crate) fn len(&self) -> usize {
        self.groups * self.layout.len()
    }

    /// Packs `weight(output, channel of its group, tap)`, weights less their zero points; see [`ByteLayout::pack`].
    pub(crate) fn pack(
        &self,
        weight: impl Fn(usize, usize, usize) -> i32,
        out: &mut [i8],
        sums: &mut [i32],
        shifts: &mut [i32],
    ) {
        let c = self.channels;
        self.each_group(out, sums, shifts, |g, out, sums, shifts| {
            let column = |j: usize, column: &mut [i32]| {
                let output = g * self.outputs + j;
                for channel in 0..c {
                    for tap in 0..self.taps {
                        let at =
                            if self.planar { channel * self.taps + tap } else { tap * c + channel };
                        column[at] = weight(output, channel, tap);
                    }
                }
            };
            self.layout.pack(column, out, sums, shifts);
        });
    }

    /// Packs matrices `[channels, outputs]` of one tap: `row(group, channel, outputs, …)` writes the weights of these
    /// outputs; see [`ByteLayout::pack_rows`].
    pub(crate) fn pack_rows(
        &self,
        row: impl Fn(usize, usize, Range<usize>, &mut [i32]),
        out: &mut [i8],
        sums: &mut [i32],
        shifts: &mut [i32],
    ) {
        debug_assert_eq!(self.taps, 1);
        self.each_group(out, sums, shifts, |g, out, sums, shifts| {
            self.layout.pack_rows(|k, columns, line| row(g, k, columns, line), out, sums, shifts);
        });
    }

    /// Calls `pack` with each group and what is written for it.
    fn each_group(
        &self,
        out: &mut [i8],
        sums: &mut [i32],
        shifts: &mut [i32],
        pack: impl Fn(usize, &mut [i8], &mut [i32], &mut [i32]),
    ) {
        for g in 0..self.groups {
            let columns = g * self.outputs..(g + 1) * self.outputs;
            let shifts =
                if shifts.is_empty() { &mut shifts[..] } else { &mut shifts[columns.clone()] };
            let out = &mut out[g * self.layout.len()..][..self.layout.len()];
            pack(g, out, &mut sums[columns], shifts);
        }
    }
}

/// A convolution of bytes bound to its sizes. Binding allocates, running does not.
#[derive(Clone, Debug)]
pub(crate) struct ByteConv {
    isa: Isa,
    tiles: &'static ByteTiles,
    packing: BytePacking,
    p: ConvParams,
    /// Whether rows are gathered into scratch instead of read in place.
    gathers: bool,
    /// Flipped in every byte that is read: the sign bit where the input is signed.
    flip: u8,
    /// Whether output pixel i reads input pixel i and nothing else.
    in_place: bool,
    max_rows: usize,
    tile_count: usize,
    tiles_per_item: usize,
    panels_per_item: usize,
}

/// Operands of [`ByteConv::run`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteArgs<'a> {
    /// The input, as the plan's [`Source`] says.
    pub(crate) input: *const u8,
    /// The packed weights.
    pub(crate) weights: &'a [i8],
    /// What happens to the sums; its zero point of the rows is the padding, after the flip of signed bytes.
    pub(crate) finish: ByteFinish,
}

/// Most tiles of a work item.
const MAX_TILES: usize = 16;
/// Bytes that a work item gathers or points to.
const ITEM_BYTES: usize = 96 * 1024;
/// Bytes behind the gathered rows that a move of whole words may clobber.
const SLACK: usize = 8;
/// Work items per thread that a plan aims at.
const ITEMS: usize = 8;

impl ByteConv {
    /// Binds a convolution; `signed` says whether the input is i8.
    ///
    /// # Panics
    /// If groups do not divide the channels.
    pub(crate) fn new(isa: Isa, p: &ConvParams, signed: bool, threads: usize) -> Self {
        let planar = p.source == Source::Planar;
        let packing = BytePacking::new(isa, p.channels, p.outputs, p.groups, p.taps(), planar);
        let panels = packing.layout.panels();
        let tiles = ByteTiles::of(isa);
        let max_rows = tiles.of_width(panels.width()).len();
        let tile_count = p.pixels().div_ceil(max_rows);
        let gathers = planar || signed || !packing.channels.is_multiple_of(4);
        let row = if gathers { packing.layout.row_len() } else { p.taps() * 8 };
        let room = ITEM_BYTES / (row * max_rows).max(1);
        let wanted = (ITEMS * threads).max(1);
        let tiles_per_item = room.min(tile_count / wanted).clamp(1, MAX_TILES);
        let tile_items = tile_count.div_ceil(tiles_per_item).max(1) * packing.groups;
        let parts = if threads > 1 { wanted.div_ceil(tile_items) } else { 1 };
        let panels_per_item = panels.panels().div_ceil(parts).max(1);
        Self {
            isa,
            tiles,
            packing,
            p: *p,
            gathers,
            flip: if signed { 0x80 } else { 0 },
            in_place: p.taps() == 1 && p.stride == [1; 3] && p.pad == [0; 3] && p.input == p.output,
            max_rows,
            tile_count,
            tiles_per_item,
            panels_per_item,
        }
    }

    /// Work items; any ranges that cover them once compute the output.
    pub(crate) fn work_items(&self) -> usize {
        self.tile_items() * self.panel_items() * self.packing.groups
    }

    fn tile_items(&self) -> usize {
        self.tile_count.div_ceil(self.tiles_per_item)
    }

    fn panel_items(&self) -> usize {
        self.packing.layout.panels().panels().div_ceil(self.panels_per_item)
    }

    /// Bytes of a row of padding.
    fn padding_len(&self) -> usize {
        self.packing.channels.next_multiple_of(64)
    }

    fn pointers_per_tile(&self) -> usize {
        self.max_rows * if self.gathers { 1 } else { self.p.taps() }
    }

    /// Bytes of scratch per thread, aligned to 64.
    pub(crate) fn scratch_len(&self) -> usize {
        let rows = self.tiles_per_item * self.max_rows;
        let gathered = if self.gathers { rows * self.packing.layout.row_len() + SLACK } else { 0 };
        self.padding_len() + self.tiles_per_item * self.pointers_per_tile() * 8 + gathered
    }

    /// First pixel and height of tile `t`.
    fn tile(&self, t: usize) -> (usize, usize) {
        let pixels = self.p.pixels();
        let (low, extra) = (pixels / self.tile_count, pixels % self.tile_count);
        (t * low + t.min(extra), low + usize::from(t < extra))
    }

    /// Computes the work `items`.
    ///
    /// # Safety
    /// The input must be readable and the pointers of `finish` valid for the sizes of the plan, and no other thread may
    /// run the same items or access their output meanwhile. The output must not overlap the input.
    ///
    /// # Panics
    /// If weights or scratch are too short, the scratch is misaligned, or `items` is out of bounds.
    pub(crate) unsafe fn run(&self, args: &ByteArgs<'_>, items: Range<usize>, scratch: &mut [u8]) {
        assert!(items.end <= self.work_items(), "work items {items:?} of {}", self.work_items());
        assert!(args.weights.len() >= self.packing.len(), "packed weights are too short");
        assert!(scratch.len() >= self.scratch_len(), "scratch is too short");
        assert!(scratch.as_ptr().cast::<*const u8>().is_aligned(), "scratch is misaligned");
        let (padding, rest) = scratch.split_at_mut(self.padding_len());
        padding.fill(args.finish.row_zero as u8);
        let (tile_items, panel_items) = (self.tile_items(), self.panel_items());
        for item in items {
            let (group, panel, chunk) = (
                item / (tile_items * panel_items),
                item / tile_items % panel_items,
                item % tile_items,
            );
            let first = chunk * self.tiles_per_item;
            let tiles = first..self.tile_count.min(first + self.tiles_per_item);
            let first = panel * self.panels_per_item;
            let count = self.packing.layout.panels().panels();
            let panels = first..count.min(first + self.panels_per_item);
            // SAFETY: passed on from the caller.
            unsafe { self.run_item(args, group, panels, tiles, padding, rest) };
        }
    }

    unsafe fn run_item(
        &self,
        args: &ByteArgs<'_>,
        group: usize,
        panels: Range<usize>,
        tiles: Range<usize>,
        padding: &[u8],
        scratch: &mut [u8],
    ) {
        let layout = self.packing.layout;
        let (per_tile, row_len) = (self.pointers_per_tile(), layout.row_len());
        let (pointers, gathered) =
            scratch.split_at_mut(self.tiles_per_item * per_tile * size_of::<*const u8>());
        let pointers = pointers.as_mut_ptr().cast::<*const u8>();
        let gathered = gathered.as_mut_ptr();
        let mut row_sums = [[0i32; MAX_ROWS]; MAX_TILES];
        let shifted = !args.finish.shifts.is_null();
        let (segments, groups_of_four) = if self.gathers {
            (1, row_len / 4)
        } else {
            (self.p.taps(), self.packing.channels / 4)
        };
        for (i, t) in tiles.clone().enumerate() {
            let (pixel, height) = self.tile(t);
            // SAFETY: the scratch has room for the pointers of all tiles of an item; the rows that they point to are
            // in the input, the padding or the scratch.
            unsafe {
                let pointers = pointers.add(i * per_tile);
                if self.gathers {
                    let rows = gathered.add(i * self.max_rows * row_len);
                    for r in 0..height {
                        let row = rows.add(r * row_len);
                        self.gather(args, group, pixel + r, row);
                        pointers.add(r).write(row.cast_const());
                    }
                } else {
                    self.point(args.input, group, pixel, height, padding, pointers);
                }
                if shifted {
                    for at in 0..segments * height {
                        let sum = sum_bytes(self.isa, *pointers.add(at), groups_of_four * 4);
                        row_sums[i][at % height] += sum;
                    }
                }
            }
        }
        let weights = &args.weights[group * layout.len()..][..layout.len()];
        let mut sums = Sums([0; MAX_ROWS * MAX_COLS]);
        for p in panels {
            let panel = layout.panels().panel(p);
            let kernels = self.tiles.of_width(panel.width);
            let b = &weights[panel.offset * 4..][..layout.row_len() * panel.width];
            for (i, t) in tiles.clone().enumerate() {
                let (pixel, height) = self.tile(t);
                let tile = ByteTile {
                    a: pointers.wrapping_add(i * per_tile),
                    segments,
                    groups: groups_of_four,
                    b: b.as_ptr(),
                    sums: sums.0.as_mut_ptr(),
                };
                let col = group * self.packing.outputs + panel.col;
                // SAFETY: the pointers were just written and the panel is whole; the output is valid by the caller.
                unsafe {
                    kernels[height - 1](&tile);
                    let sums_of_rows = row_sums[i].as_ptr();
                    args.finish.store(&sums, height, panel.cols, pixel, col, sums_of_rows);
                }
            }
        }
    }

    /// Image and `[z, y, x]` of output pixel `q`.
    fn position(&self, q: usize) -> (usize, [usize; 3]) {
        let [d, h, w] = self.p.output;
        (q / (d * h * w), [q / (h * w) % d, q / w % h, q % w])
    }

    /// Input coordinate of tap `k` in dimension `d` at output coordinate `q`, if it is inside.
    #[inline(always)]
    fn inside(&self, d: usize, q: usize, k: usize) -> Option<usize> {
        let at = (q * self.p.stride[d] + k * self.p.dilation[d]).checked_sub(self.p.pad[d])?;
        (at < self.p.input[d]).then_some(at)
    }

    /// Writes `[taps][height]` pointers.
    unsafe fn point(
        &self,
        input: *const u8,
        group: usize,
        pixel: usize,
        height: usize,
        padding: &[u8],
        pointers: *mut *const u8,
    ) {
        let Source::ChannelsLast { pixel_stride } = self.p.source else { return };
        let base = input.wrapping_add(group * self.packing.channels);
        let [kd, kh, kw] = self.p.kernel;
        let [id, ih, iw] = self.p.input;
        if self.in_place {
            for r in 0..height {
                // SAFETY: the caller gives room for a pointer per row.
                unsafe { pointers.add(r).write(base.wrapping_add((pixel + r) * pixel_stride)) };
            }
            return;
        }
        let (mut image, mut q) = self.position(pixel);
        for r in 0..height {
            let mut at = r;
            for kz in 0..kd {
                let z = self.inside(0, q[0], kz);
                for ky in 0..kh {
                    let line = z
                        .zip(self.inside(1, q[1], ky))
                        .map(|(z, y)| ((image * id + z) * ih + y) * iw);
                    for kx in 0..kw {
                        let p = match line.zip(self.inside(2, q[2], kx)) {
                            Some((line, x)) => base.wrapping_add((line + x) * pixel_stride),
                            None => padding.as_ptr(),
                        };
                        // SAFETY: the caller gives room for a pointer per tap and row.
                        unsafe { pointers.add(at).write(p) };
                        at += height;
                    }
                }
            }
            q[2] += 1;
            for d in (1..3).rev() {
                if q[d] == self.p.output[d] {
                    (q[d], q[d - 1]) = (0, q[d - 1] + 1);
                }
            }
            if q[0] == self.p.output[0] {
                (q[0], image) = (0, image + 1);
            }
        }
    }

    /// Copies the bytes under one output pixel to `row`, whose end is zero. A word behind the row is clobbered.
    unsafe fn gather(&self, args: &ByteArgs<'_>, group: usize, pixel: usize, start: *mut u8) {
        let (image, q) = self.position(pixel);
        let [kd, kh, kw] = self.p.kernel;
        let [id, ih, iw] = self.p.input;
        let (c, zero) = (self.packing.channels, args.finish.row_zero as u8);
        let used = self.p.taps() * c;
        let input_len = self.p.batch * self.p.channels * id * ih * iw;
        let (mut at, flip) = (0, u64::from_ne_bytes([self.flip; 8]));
        let mut copy = |p: Option<*const u8>, len: usize| {
            // Whole words are moved where input and scratch have them; what follows a run overwrites its excess.
            let words = len.div_ceil(8);
            let run = start.wrapping_add(at);
            at += len;
            let Some(p) = p else {
                // SAFETY: the runs of a row fit it.
                unsafe { run.write_bytes(zero, len) };
                return;
            };
            let whole = p.addr() - args.input.addr() + words * 8 <= input_len;
            // SAFETY: the run lies inside the input, and so do whole words as just checked; the caller gives room for
            // a word behind the row.
            unsafe {
                if whole {
                    for i in 0..words {
                        let word = p.add(i * 8).cast::<u64>().read_unaligned();
                        run.add(i * 8).cast::<u64>().write_unaligned(word ^ flip);
                    }
                } else {
                    for i in 0..len {
                        run.add(i).write(p.add(i).read() ^ self.flip);
                    }
                }
            }
        };
        let whole = self.p.dilation[2] == 1
            && self.inside(2, q[2], 0).is_some()
            && self.inside(2, q[2], kw.saturating_sub(1)).is_some();
        match self.p.source {
            Source::Planar => {
                let plane = id * ih * iw;
                let base = args.input.wrapping_add((image * self.p.channels + group * c) * plane);
                for channel in 0..c {
                    for kz in 0..kd {
                        let z = self.inside(0, q[0], kz);
                        for ky in 0..kh {
                            let line = z.zip(self.inside(1, q[1], ky)).map(|(z, y)| {
                                base.wrapping_add(channel * plane + (z * ih + y) * iw)
                            });
                            if whole || line.is_none() {
                                let x = self.inside(2, q[2], 0);
                                copy(line.zip(x).map(|(line, x)| line.wrapping_add(x)), kw);
                                continue;
                            }
                            for kx in 0..kw {
                                let x = line.zip(self.inside(2, q[2], kx));
                                copy(x.map(|(line, x)| line.wrapping_add(x)), 1);
                            }
                        }
                    }
                }
            }
            Source::ChannelsLast { pixel_stride } => {
                let base = args.input.wrapping_add(group * c);
                let whole = whole && pixel_stride == c;
                for kz in 0..kd {
                    let z = self.inside(0, q[0], kz);
                    for ky in 0..kh {
                        let line = z
                            .zip(self.inside(1, q[1], ky))
                            .map(|(z, y)| ((image * id + z) * ih + y) * iw);
                        let pixel =
                            |line: usize, x: usize| base.wrapping_add((line + x) * pixel_stride);
                        if whole || line.is_none() {
                            let x = self.inside(2, q[2], 0);
                            copy(line.zip(x).map(|(line, x)| pixel(line, x)), kw * c);
                            continue;
                        }
                        for kx in 0..kw {
                            let x = line.zip(self.inside(2, q[2], kx));
                            copy(x.map(|(line, x)| pixel(line, x)), c);
                        }
                    }
                }
            }
        }
        // SAFETY: the row has `row_len` bytes, of which the runs filled `used`.
        unsafe { start.add(used).write_bytes(0, self.packing.layout.row_len() - used) };
    }
}
