//! A convolution bound to its sizes, and its execution.
#![allow(unsafe_code, reason = "disjoint parts of one output are written through raw pointers")]

use std::ops::Range;
use std::ptr;

use crate::gemm::tile::{MAX_ROWS, Segment, Tile, Tiles};
use crate::gemm::{Epilogue, Finish};
use crate::simd::Isa;

use super::gather::{Planes, interleave};
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
    /// Whether every output pixel reads the input pixel of the same number.
    dense: bool,
    /// Pixels of an output row beyond a multiple of those that are computed as one.
    cut: usize,
    /// Tiles per output row, or 0 where tiles run across rows.
    row_tiles: usize,
    tiles: usize,
    tiles_per_item: usize,
    panels_per_item: usize,
    /// Input lines that a work item turns channels-last first, for a planar input.
    lines_per_item: usize,
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

/// Most tiles that a table of rows is made for at once.
const MAX_TILES: usize = 16;
/// Pointers of a table, so that it stays in L1.
const MAX_POINTERS: usize = 2048;
/// Elements of a planar input that a work item turns at most, if one row of tiles needs no more.
const MAX_TURNED: usize = 96 * 1024;
/// Packed weights up to this many elements are read whole by every work item.
const SMALL_WEIGHTS: usize = 64 * 1024;
/// Work items that a plan aims at, so that a few threads can share it evenly.
const ITEMS: usize = 48;
/// The same for a planar input, where more items turn more lines twice.
const PLANAR_ITEMS: usize = 24;
/// Below this many tiles, items are halves of the panels, so that threads get equal shares.
const FEW_TILES: usize = 64;

impl Conv {
    /// Binds a convolution.
    ///
    /// # Panics
    /// If groups do not divide the channels.
    #[must_use]
    pub fn new(isa: Isa, p: &ConvParams) -> Self {
        let weights = p.weights(isa);
        let (joined, mut across) = (weights.pixels(), p.kernel);
        let (mut output, mut stride) = (p.output, p.stride);
        across[2] += (joined - 1) * p.stride[2];
        stride[2] *= joined;
        output[2] = output[2].div_ceil(joined);
        let offsets = [0, 1, 2].map(|d| {
            (0..across[d]).map(|k| (k * p.dilation[d]) as isize - p.pad[d] as isize).collect()
        });
        let geometry = Geometry { input: p.input, output, stride, offsets };
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
        // One channel lies the same either way.
        let source = match source {
            Source::Planar if channels == 1 => Source::ChannelsLast { pixel_stride: 1 },
            other => other,
        };
        let layout = weights.layout();
        let max_rows = Tiles::of(isa, layout.k()).of_width(layout.width()).len();
        let [d, h, w] = geometry.output;
        let pixels = batch * d * h * w;
        let joined = weights.pixels();
        let scattered = output.step != [1; 3] || joined > 1;
        let aligned = scattered || (geometry.taps() > 1 && w >= max_rows / 2);
        // The last pixels of a row, where they are fewer than are computed as one, are a tile of their own.
        let cut = output.size[2] % joined;
        let whole = w - usize::from(cut > 0);
        let row_tiles = if aligned { whole.div_ceil(max_rows) + usize::from(cut > 0) } else { 0 };
        let tiles = if aligned { batch * d * h * row_tiles } else { pixels.div_ceil(max_rows) };
        let panels = layout.panels().max(1);
        let planar = source == Source::Planar;
        let panels_per_item = match layout.len() <= SMALL_WEIGHTS {
            _ if planar => panels,
            true if tiles >= FEW_TILES => panels,
            true => panels.div_ceil(2),
            false => 1,
        };
        let panel_items = layout.panels().div_ceil(panels_per_item) * weights.packed_groups();
        let even = tiles * panel_items / ITEMS;
        let dense = geometry.is_identity();
        let mut conv = Self {
            isa,
            weights,
            geometry,
            source,
            batch,
            channels,
            outputs,
            output,
            dense,
            cut,
            row_tiles,
            tiles,
            tiles_per_item: even.clamp(1, MAX_TILES),
            panels_per_item,
            lines_per_item: 0,
        };
        if planar {
            conv.share_lines();
        } else {
            let room = MAX_POINTERS / (conv.geometry.taps() * max_rows).max(1);
            conv.tiles_per_item = conv.tiles_per_item.min(room.max(1));
        }
        conv
    }

    /// Chooses the tiles of a work item of a planar input: whole output rows, so many that neighbouring items do not
    /// turn the same lines again and again.
    fn share_lines(&mut self) {
        let row = self.row_tiles.max(1);
        let rows = (self.tiles / row / PLANAR_ITEMS).max(1);
        for rows in (1..=rows).rev() {
            self.tiles_per_item = row * rows;
            self.lines_per_item = (0..self.tile_items())
                .map(|i| self.lines(self.item_tiles(i)).len())
                .max()
                .unwrap_or(0);
            if self.turned_len() <= MAX_TURNED {
                break;
            }
        }
    }

    fn turned_len(&self) -> usize {
        self.lines_per_item * self.geometry.input[2] * self.weights.group_channels()
    }

    fn item_tiles(&self, chunk: usize) -> Range<usize> {
        let first = chunk * self.tiles_per_item;
        first..self.tiles.min(first + self.tiles_per_item)
    }

    /// Input lines, counted over depths and images, that the pixels of `tiles` read.
    fn lines(&self, tiles: Range<usize>) -> Range<usize> {
        if tiles.is_empty() {
            return 0..0;
        }
        let (first, _) = self.tile(tiles.start);
        let (last, height) = self.tile(tiles.end - 1);
        self.geometry.lines(first..last + height)
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
        let segments = self.tiles_per_item.min(MAX_TILES) * self.geometry.taps();
        let table = (segments * size_of::<Segment>() + segments * MAX_ROWS * 8) / 4;
        self.bias_len() + self.zeros_len() + self.turned_len().next_multiple_of(16) + table
    }

    fn bias_len(&self) -> usize {
        let joined = self.weights.pixels();
        if joined > 1 { (joined * self.outputs).next_multiple_of(16) } else { 0 }
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
                let (start, i) = (t / per_row * w, t % per_row);
                let last = usize::from(self.cut > 0);
                if self.cut > 0 && i + 1 == per_row {
                    return (start + w - 1, 1);
                }
                (start, w - last, per_row - last, i)
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
        let joined = self.weights.pixels();
        let (wide_bias, scratch) = scratch.split_at_mut(self.bias_len());
        let mut epilogue = args.epilogue;
        if let Some(bias) = epilogue.bias.filter(|_| joined > 1) {
            for part in wide_bias[..joined * self.outputs].chunks_exact_mut(self.outputs) {
                part.copy_from_slice(&bias[..self.outputs]);
            }
            epilogue.bias = Some(wide_bias);
        }
        let finish = Finish::new(self.isa, &epilogue).with_row_step(self.output.step[2] * joined);
        let (zeros, scratch) = scratch.split_at_mut(self.zeros_len());
        zeros.fill(0.0);
        let (turned, table) = scratch.split_at_mut(self.turned_len().next_multiple_of(16));
        let (tile_items, panel_items) = (self.tile_items(), self.panel_items());
        for item in items {
            let (group, panel, chunk) = (
                item / (tile_items * panel_items),
                item / tile_items % panel_items,
                item % tile_items,
            );
            let tiles = self.item_tiles(chunk);
            let first = panel * self.panels_per_item;
            let panels = first..self.weights.layout().panels().min(first + self.panels_per_item);
            let channels = self.weights.group_channels();
            let pixels = match self.source {
                Source::ChannelsLast { pixel_stride } => {
                    let base = args.input.wrapping_add(group * channels);
                    Pixels { base, pixel_stride, channels, zeros: zeros.as_ptr() }
                }
                Source::Planar => {
                    let base = self.turn_lines(args.input, group, tiles.clone(), turned);
                    Pixels { base, pixel_stride: channels, channels, zeros: zeros.as_ptr() }
                }
            };
            for start in tiles.clone().step_by(MAX_TILES) {
                let tiles = start..tiles.end.min(start + MAX_TILES);
                // SAFETY: passed on from the caller.
                unsafe {
                    self.run_tiles(args, &finish, group, panels.clone(), tiles, &pixels, table);
                };
            }
        }
    }

    unsafe fn run_tiles(
        &self,
        args: &ConvArgs<'_>,
        finish: &Finish,
        group: usize,
        panels: Range<usize>,
        tiles: Range<usize>,
        pixels: &Pixels,
        scratch: &mut [f32],
    ) {
        let layout = self.weights.layout();
        let mut table = Table::new();
        // SAFETY: the scratch was checked by `run`.
        unsafe { self.point_rows(pixels, tiles, scratch, &mut table) };
        let weights = &args.weights[group * layout.len()..(group + 1) * layout.len()];
        for p in panels {
            let panel = layout.panel(p);
            let kernels = Tiles::of(self.isa, layout.k()).of_width(panel.width);
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
                    c_stride: self.output.pixel_stride
                        * self.output.step[2]
                        * self.weights.pixels(),
                    cols: panel.cols,
                    ..Tile::EMPTY
                };
                if self.cut > 0 && (t.pixel + 1).is_multiple_of(self.geometry.output[2]) {
                    tile.cols = self.cut * self.outputs;
                }
                // SAFETY: the table points to pixels of the input, turned or as they were; output, bias and residual
                // are valid by the caller of `run`.
                unsafe { finish.run(kernels[t.height - 1], &mut tile, t.height, pixel, col) };
            }
        }
    }

    fn output_pixel(&self, p: usize) -> usize {
        let joined = self.weights.pixels();
        if joined > 1 {
            let w = self.geometry.output[2];
            return p / w * self.output.size[2] + p % w * joined;
        }
        if self.output.step == [1; 3] {
            return p;
        }
        let (image, q) = self.geometry.position(p);
        (0..3).fold(image, |at, d| {
            at * self.output.size[d] + q[d] * self.output.step[d] + self.output.first[d]
        })
    }

    /// Turns the input lines that `tiles` read channels-last, and gives where line 0 of the first image would be.
    fn turn_lines(
        &self,
        input: *const f32,
        group: usize,
        tiles: Range<usize>,
        turned: &mut [f32],
    ) -> *const f32 {
        let [depth, height, width] = self.geometry.input;
        let plane = depth * height * width;
        let channels = self.weights.group_channels();
        let planes = Planes {
            base: input.wrapping_add(group * channels * plane),
            channels,
            plane,
            image_stride: self.channels * plane,
            width,
        };
        let lines = self.lines(tiles);
        interleave(self.isa, &planes, lines.start, lines.len(), turned);
        turned.as_ptr().wrapping_sub(lines.start * width * channels)
    }

    unsafe fn point_rows(
        &self,
        pixels: &Pixels,
        tiles: Range<usize>,
        scratch: &mut [f32],
        table: &mut Table,
    ) {
        let taps = self.geometry.taps();
        let mut segments = scratch.as_mut_ptr().cast::<Segment>();
        // SAFETY: the scratch has room for all segments and, behind them, all pointers, and is
        // aligned for both.
        unsafe {
            let mut pointers = segments.add(tiles.len() * taps).cast::<*const f32>();
            for t in tiles {
                let (pixel, height) = self.tile(t);
                let n = if self.dense {
                    segments.write(Segment { start: 0, len: pixels.channels });
                    for r in 0..height {
                        let at = (pixel + r) * pixels.pixel_stride;
                        pointers.add(r).write(pixels.base.wrapping_add(at));
                    }
                    1
                } else {
                    write_rows(&self.geometry, pixels, pixel, height, segments, pointers)
                };
                table.push(TileRows { pixel, height, segments, n_segments: n, pointers });
                segments = segments.add(taps);
                pointers = pointers.add(taps * height);
            }
        }
    }
}

/// The rows of a tile.
#[derive(Clone, Copy)]
struct TileRows {
    pixel: usize,
    height: usize,
    segments: *const Segment,
    n_segments: usize,
    pointers: *const *const f32,
}

impl TileRows {
    const EMPTY: Self =
        Self { pixel: 0, height: 0, segments: ptr::null(), n_segments: 0, pointers: ptr::null() };
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
