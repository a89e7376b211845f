//! A convolution bound to its sizes, and its execution.
#![allow(unsafe_code, reason = "disjoint parts of one output are written through raw pointers")]

use std::ops::Range;
use std::ptr;

use crate::gemm::tile::{MAX_ROWS, Segment, Tile, Tiles};
use crate::gemm::{Epilogue, Finish};
use crate::simd::Isa;

use super::gather::{Planes, gather};
use super::rows::{Geometry, Pixels, write_rows};
use super::{ConvParams, ConvWeights, Source};

/// A convolution bound to its sizes. Binding allocates, running does not.
#[derive(Clone, Debug)]
pub struct Conv {
    isa: Isa,
    weights: ConvWeights,
    geometry: Geometry,
    source: Source,
    batch: usize,
    channels: usize,
    outputs: usize,
    output: OutputMap,
    /// Tiles per output row, or 0 where tiles run across rows.
    row_tiles: usize,
    tiles: usize,
    tiles_per_item: usize,
    panels_per_item: usize,
}

/// Where output pixels are stored: position `q` of the convolution goes to
/// `q * step + first` of an output of `size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutputMap {
    pub(crate) pixel_stride: usize,
    pub(crate) size: [usize; 3],
    pub(crate) step: [usize; 3],
    pub(crate) first: [usize; 3],
}

/// Operands of [`Conv::run`].
#[derive(Clone, Copy, Debug)]
pub struct ConvArgs<'a> {
    /// The input, as the plan's [`Source`] says.
    pub input: *const f32,
    /// Weights packed by the plan's [`ConvWeights`].
    pub weights: &'a [f32],
    /// The output, channels-last.
    pub output: *mut f32,
    /// Applied to the result; a residual has a row per output pixel.
    pub epilogue: Epilogue<'a>,
}

/// Most tiles of a work item.
const MAX_TILES: usize = 16;
/// Pointers of a work item, so that its table stays in L1.
const MAX_POINTERS: usize = 2048;
/// Elements gathered per work item.
const MAX_GATHERED: usize = 32 * 1024;
/// Packed weights up to this many elements are read whole by every work item.
const SMALL_WEIGHTS: usize = 64 * 1024;
/// Work items that a plan aims at, so that a few threads can share it evenly.
const ITEMS: usize = 48;

impl Conv {
    /// Binds a convolution.
    ///
    /// # Panics
    /// If groups do not divide the channels.
    #[must_use]
    pub fn new(isa: Isa, p: &ConvParams) -> Self {
        let weights = ConvWeights::new(isa, p.channels, p.outputs, p.groups, p.taps(), p.source);
        let offsets = [0, 1, 2].map(|d| {
            (0..p.kernel[d]).map(|k| (k * p.dilation[d]) as isize - p.pad[d] as isize).collect()
        });
        let geometry = Geometry { input: p.input, output: p.output, stride: p.stride, offsets };
        let output = OutputMap {
            pixel_stride: p.output_stride,
            size: p.output,
            step: [1; 3],
            first: [0; 3],
        };
        Self::from_parts(isa, weights, geometry, p.source, p.batch, p.channels, p.outputs, output)
    }

    pub(crate) fn from_parts(
        isa: Isa,
        weights: ConvWeights,
        geometry: Geometry,
        source: Source,
        batch: usize,
        channels: usize,
        outputs: usize,
        output: OutputMap,
    ) -> Self {
        let layout = weights.layout();
        let max_rows = Tiles::of(isa).of_width(layout.width()).len();
        let [d, h, w] = geometry.output;
        let pixels = batch * d * h * w;
        let scattered = output.step != [1; 3];
        let aligned = scattered || (geometry.taps() > 1 && w >= max_rows / 2);
        let row_tiles = if aligned { w.div_ceil(max_rows) } else { 0 };
        let tiles = if aligned { batch * d * h * row_tiles } else { pixels.div_ceil(max_rows) };
        let small = layout.len() <= SMALL_WEIGHTS;
        let panels_per_item = if small { layout.panels().max(1) } else { 1 };
        let panel_items = layout.panels().div_ceil(panels_per_item) * weights.packed_groups();
        let room = match source {
            Source::Planar => MAX_GATHERED / (layout.k() * max_rows).max(1),
            Source::ChannelsLast { .. } => MAX_POINTERS / (geometry.taps() * max_rows).max(1),
        };
        let even = tiles * panel_items / ITEMS;
        let tiles_per_item = room.min(even).clamp(1, MAX_TILES);
        Self {
            isa,
            weights,
            geometry,
            source,
            batch,
            channels,
            outputs,
            output,
            row_tiles,
            tiles,
            tiles_per_item,
            panels_per_item,
        }
    }

    /// The packing of the weights.
    #[must_use]
    pub fn weights(&self) -> ConvWeights {
        self.weights
    }

    /// Work items; any ranges that cover them once compute the output. Neighbours share weights.
    #[must_use]
    pub fn work_items(&self) -> usize {
        self.tile_items() * self.panel_items() * self.weights.packed_groups()
    }

    fn tile_items(&self) -> usize {
        self.tiles.div_ceil(self.tiles_per_item)
    }

    fn panel_items(&self) -> usize {
        self.weights.layout().panels().div_ceil(self.panels_per_item)
    }

    /// Elements of scratch per thread; it must be aligned to 8 bytes.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        match self.source {
            Source::Planar => self.tiles_per_item * MAX_ROWS * self.weights.layout().k(),
            Source::ChannelsLast { .. } => {
                let segments = self.tiles_per_item * self.geometry.taps();
                self.zeros_len() + (segments * size_of::<Segment>() + segments * MAX_ROWS * 8) / 4
            }
        }
    }

    fn zeros_len(&self) -> usize {
        self.weights.group_channels().next_multiple_of(16)
    }

    /// First pixel and height of tile `t`.
    fn tile(&self, t: usize) -> (usize, usize) {
        let (start, len, pieces, i) = match self.row_tiles {
            0 => {
                let pixels = self.batch * self.geometry.output.iter().product::<usize>();
                (0, pixels, self.tiles, t)
            }
            per_row => {
                let w = self.geometry.output[2];
                (t / per_row * w, w, per_row, t % per_row)
            }
        };
        let (low, extra) = (len / pieces, len % pieces);
        (start + i * low + i.min(extra), low + usize::from(i < extra))
    }

    /// Computes the work `items`.
    ///
    /// # Safety
    /// The input must be readable and the output writable for the sizes of the plan, the residual
    /// readable for the output's pixels, and no other thread may run the same items or access
    /// their output meanwhile. The output must not overlap the input.
    ///
    /// # Panics
    /// If the weights, the bias or the scratch are too short, the scratch is misaligned, or
    /// `items` is out of bounds.
    pub unsafe fn run(&self, args: &ConvArgs<'_>, items: Range<usize>, scratch: &mut [f32]) {
        assert!(items.end <= self.work_items(), "work items {items:?} of {}", self.work_items());
        assert!(args.weights.len() >= self.weights.packed_len(), "packed weights are too short");
        assert!(scratch.len() >= self.scratch_len(), "scratch is too short");
        assert!(scratch.as_ptr().cast::<*const f32>().is_aligned(), "scratch is misaligned");
        assert!(args.epilogue.bias.is_none_or(|b| b.len() >= self.outputs), "bias is too short");
        let finish = Finish::new(self.isa, &args.epilogue).with_row_step(self.output.step[2]);
        if self.source != Source::Planar {
            scratch[..self.zeros_len()].fill(0.0);
        }
        let (tile_items, panel_items) = (self.tile_items(), self.panel_items());
        for item in items {
            let (group, panel, chunk) = (
                item / (tile_items * panel_items),
                item / tile_items % panel_items,
                item % tile_items,
            );
            let first = chunk * self.tiles_per_item;
            let tiles = first..self.tiles.min(first + self.tiles_per_item);
            let first = panel * self.panels_per_item;
            let panels = first..self.weights.layout().panels().min(first + self.panels_per_item);
            // SAFETY: passed on from the caller.
            unsafe { self.run_item(args, &finish, group, panels, tiles, scratch) };
        }
    }

    unsafe fn run_item(
        &self,
        args: &ConvArgs<'_>,
        finish: &Finish,
        group: usize,
        panels: Range<usize>,
        tiles: Range<usize>,
        scratch: &mut [f32],
    ) {
        let layout = self.weights.layout();
        let mut table = Table::new();
        match self.source {
            Source::Planar => self.gather_rows(args.input, group, tiles, scratch, &mut table),
            // SAFETY: the scratch was checked by `run`.
            Source::ChannelsLast { pixel_stride } => unsafe {
                self.point_rows(args.input, pixel_stride, group, tiles, scratch, &mut table);
            },
        }
        let weights = &args.weights[group * layout.len()..(group + 1) * layout.len()];
        for p in panels {
            let panel = layout.panel(p);
            let kernels = Tiles::of(self.isa).of_width(panel.width);
            let col = group * layout.n() + panel.col;
            let b = &weights[panel.offset..panel.offset + layout.k() * panel.width];
            for t in &table.tiles[..table.len] {
                let pixel = self.output_pixel(t.pixel);
                let mut tile = Tile {
                    a: t.pointers,
                    segments: t.segments,
                    n_segments: t.n_segments,
                    b: b.as_ptr(),
                    c: args.output.wrapping_add(pixel * self.output.pixel_stride + col),
                    c_stride: self.output.pixel_stride * self.output.step[2],
                    cols: panel.cols,
                    ..Tile::EMPTY
                };
                if t.single.is_null() {
                    // SAFETY: the table points to pixels of the input; output, bias and residual
                    // are valid by the caller of `run`.
                    unsafe { finish.run(kernels[t.height - 1], &mut tile, t.height, pixel, col) };
                    continue;
                }
                let segment = Segment { start: 0, len: layout.k() };
                let mut pointers = [ptr::null(); MAX_ROWS];
                for (r, a) in pointers.iter_mut().enumerate() {
                    *a = t.single.wrapping_add(r * layout.k());
                }
                (tile.a, tile.segments, tile.n_segments) =
                    (pointers.as_ptr(), &raw const segment, 1);
                // SAFETY: as above, with rows in the scratch.
                unsafe { finish.run(kernels[t.height - 1], &mut tile, t.height, pixel, col) };
            }
        }
    }

    fn output_pixel(&self, p: usize) -> usize {
        if self.output.step == [1; 3] {
            return p;
        }
        let (image, q) = self.geometry.position(p);
        (0..3).fold(image, |at, d| {
            at * self.output.size[d] + q[d] * self.output.step[d] + self.output.first[d]
        })
    }

    fn gather_rows(
        &self,
        input: *const f32,
        group: usize,
        tiles: Range<usize>,
        scratch: &mut [f32],
        table: &mut Table,
    ) {
        let plane: usize = self.geometry.input.iter().product();
        let channels = self.weights.group_channels();
        let planes = Planes {
            base: input.wrapping_add(group * channels * plane),
            channels,
            image_stride: self.channels * plane,
        };
        let mut rest = scratch;
        for t in tiles {
            let (pixel, height) = self.tile(t);
            let (rows, after) = rest.split_at_mut(height * self.weights.layout().k());
            rest = after;
            gather(self.isa, &self.geometry, &planes, pixel, height, rows);
            table.push(TileRows { pixel, height, single: rows.as_ptr(), ..TileRows::EMPTY });
        }
    }

    unsafe fn point_rows(
        &self,
        input: *const f32,
        pixel_stride: usize,
        group: usize,
        tiles: Range<usize>,
        scratch: &mut [f32],
        table: &mut Table,
    ) {
        let (zeros, rest) = scratch.split_at_mut(self.zeros_len());
        let channels = self.weights.group_channels();
        let base = input.wrapping_add(group * channels);
        let pixels = Pixels { base, pixel_stride, channels, zeros: zeros.as_ptr() };
        let taps = self.geometry.taps();
        let mut segments = rest.as_mut_ptr().cast::<Segment>();
        // SAFETY: the scratch has room for all segments and, behind them, all pointers, and is
        // aligned for both; `zeros_len` is even.
        unsafe {
            let mut pointers = segments.add(self.tiles_per_item * taps).cast::<*const f32>();
            for t in tiles {
                let (pixel, height) = self.tile(t);
                let n = write_rows(&self.geometry, &pixels, pixel, height, segments, pointers);
                let rows = TileRows {
                    pixel,
                    height,
                    segments,
                    n_segments: n,
                    pointers,
                    single: ptr::null(),
                };
                table.push(rows);
                segments = segments.add(taps);
                pointers = pointers.add(taps * height);
            }
        }
    }
}

/// The rows of a tile: a table of pointers, or consecutive gathered rows.
#[derive(Clone, Copy)]
struct TileRows {
    pixel: usize,
    height: usize,
    segments: *const Segment,
    n_segments: usize,
    pointers: *const *const f32,
    single: *const f32,
}

impl TileRows {
    const EMPTY: Self = Self {
        pixel: 0,
        height: 0,
        segments: ptr::null(),
        n_segments: 0,
        pointers: ptr::null(),
        single: ptr::null(),
    };
}

struct Table {
    tiles: [TileRows; MAX_TILES],
    len: usize,
}

impl Table {
    fn new() -> Self {
        Self { tiles: [TileRows::EMPTY; MAX_TILES], len: 0 }
    }

    fn push(&mut self, t: TileRows) {
        self.tiles[self.len] = t;
        self.len += 1;
    }
}
