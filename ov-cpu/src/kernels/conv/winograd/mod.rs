//! Winograd convolution: 3x3, 3x1 and 1x3 kernels of stride 1 with fewer multiplications.
//!
//! F(m, 3) computes m x m outputs from (m + 2) x (m + 2) inputs with (m + 2)² products per pair of
//! channels instead of 9 m² (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
//! 2015). A block of tiles is transformed to V `[(m+2)²][tiles][channels]`, multiplied with the
//! transformed weights U `[(m+2)²]` packed matrices, and transformed back with the epilogue.
//! F(4, 3) uses the points 0, ±√½, ±√2 and infinity, whose rounding errors are several times
//! smaller than those of 0, ±1, ±2.
//!
//! With a dilation of `d`, outputs `d` apart form a convolution of their own, so a tile takes every
//! `d`-th pixel.
#![allow(unsafe_code, reason = "disjoint parts of one output are written through raw pointers")]

mod transform;

use std::ops::Range;
use std::ptr;

use crate::gemm::tile::{MAX_ROWS, Segment, Tile, Tiles};
use crate::gemm::{Epilogue, PackedLayout, Stored, balanced};
use crate::kernels::transpose::tile;
use crate::simd::Isa;
use crate::simd::activation::{Visitor, dispatch};
use crate::simd::lanes::{Simd, instantiate};
use crate::simd::math::Unary;

use super::{ConvArgs, ConvParams, Source};
use transform::{InputBlock, OutputBlock, input_block, kernel_matrix, output_block};

/// The size of a Winograd output tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WinogradTile {
    /// F(2, 3): 2.25 times fewer multiplications, weights grow 1.8 times.
    Two,
    /// F(4, 3): 4 times fewer multiplications, weights grow 4 times.
    Four,
}

impl WinogradTile {
    /// Outputs per dimension.
    #[must_use]
    pub fn outputs(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// Inputs, and products, per dimension.
    #[must_use]
    pub fn inputs(self) -> usize {
        self.outputs() + 2
    }

    /// Outputs down and across a tile for a kernel, which is 3 or 1 long in each dimension.
    pub(crate) fn outputs_of(self, kernel: [usize; 2]) -> [usize; 2] {
        kernel.map(|k| if k == 3 { self.outputs() } else { 1 })
    }

    /// Inputs, and products, down and across a tile.
    pub(crate) fn inputs_of(self, kernel: [usize; 2]) -> [usize; 2] {
        kernel.map(|k| if k == 3 { self.inputs() } else { 1 })
    }
}

/// Tiles along a dimension of `n` outputs where a tile takes `size` of them, `dilation` apart.
pub(crate) fn tiles_along(n: usize, size: usize, dilation: usize) -> usize {
    n.div_ceil(size * dilation) * dilation
}

/// Shape of the transformed weights, which does not depend on spatial sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WinogradWeights {
    tile: WinogradTile,
    /// Height and width of the kernel, 3 or 1.
    kernel: [usize; 2],
    layout: PackedLayout,
}

impl WinogradWeights {
    /// For a `kernel` (height and width, 3 or 1) from `channels` to `outputs` on `isa`.
    #[must_use]
    pub fn new(
        isa: Isa,
        tile: WinogradTile,
        kernel: [usize; 2],
        channels: usize,
        outputs: usize,
    ) -> Self {
        Self { tile, kernel, layout: PackedLayout::new(isa, channels, outputs) }
    }

    /// Elements of the packed weights.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.products() * self.layout.len()
    }

    fn products(&self) -> usize {
        self.tile.inputs_of(self.kernel).iter().product()
    }

    /// Transforms and packs `weights` `[outputs, channels, height, width]` to `out`.
    ///
    /// # Panics
    /// If a slice is shorter than the shape says.
    pub fn pack<T: Stored>(&self, isa: Isa, weights: &[T], out: &mut [f32]) {
        pack(isa, isa, self, weights, out);
    }
}

/// Outputs that are transformed at once.
const PACK_LANES: usize = 16;
/// Channels that are read at once, so that what is read of a filter is in one piece.
const PACK_CHANNELS: usize = 16;

instantiate! {
    fn pack<T: Stored>(isa_of_tiles: Isa, to: &WinogradWeights, weights: &[T], out: &mut [f32])
        = pack_body;
}

#[inline(always)]
fn pack_body<S: Simd, T: Stored>(
    _: S,
    isa: Isa,
    to: &WinogradWeights,
    weights: &[T],
    out: &mut [f32],
) {
    const { assert!(size_of::<T>() == 4) };
    let (channels, plane) = (to.layout.k(), to.layout.len());
    let out = &mut out[..to.packed_len()];
    let g = kernel_matrix(to.tile);
    let one = [[1.0, 0.0, 0.0]];
    let rows = |k: usize| if k == 3 { &g[..to.tile.inputs()] } else { &one[..] };
    let [kh, kw] = to.kernel;
    let (down, across, taps) = (rows(kh), rows(kw), kh * kw);
    for panel in to.layout.all_panels().map(|p| to.layout.panel(p)) {
        for first in (0..panel.width).step_by(PACK_LANES) {
            let lanes = PACK_LANES.min(panel.width - first);
            let filters = lanes.min(panel.cols.saturating_sub(first));
            // `[channel][tap][filter]`; what is not a filter stays zero.
            let mut block = [[0.0f32; PACK_LANES]; 9 * PACK_CHANNELS];
            for c0 in (0..channels).step_by(PACK_CHANNELS) {
                let count = PACK_CHANNELS.min(channels - c0);
                let from = ((panel.col + first) * channels + c0) * taps;
                if filters > 0 {
                    let end = from + (filters - 1) * channels * taps + count * taps;
                    let weights = &weights[from..end];
                    let stride = (4 * channels * taps) as isize;
                    for i in (0..count * taps).step_by(16) {
                        let n = 16.min(count * taps - i);
                        let (x, y) = (weights[i..].as_ptr(), block[i..].as_mut_ptr());
                        let y_stride = 4 * PACK_LANES as isize;
                        // SAFETY: `weights` ends after `count * taps` elements, of four bytes, of the last filter, and the rows from i
                        // on are in the block.
                        unsafe {
                            tile::rows(isa, 4, x.cast(), stride, y.cast(), y_stride, n, filters);
                        };
                    }
                }
                for (c, taps) in block.chunks_exact(taps).take(count).enumerate() {
                    let at = panel.offset + (c0 + c) * panel.width + first;
                    transform_filters((down, across), (taps, kw), &mut out[at..], (plane, lanes));
                }
            }
        }
    }
}

/// `G w Gᵀ` of some filters, first along the columns of w. `taps` are rows of `kw`; product `i` is written to
/// `out[i * plane..][..lanes]`.
#[inline(always)]
fn transform_filters(
    (down, across): (&[[f64; 3]], &[[f64; 3]]),
    (taps, kw): (&[[f32; PACK_LANES]], usize),
    out: &mut [f32],
    (plane, lanes): (usize, usize),
) {
    let mut w = [[[0.0f64; PACK_LANES]; 3]; 3];
    for (w, taps) in w.iter_mut().zip(taps.chunks_exact(kw)) {
        for (w, tap) in w.iter_mut().zip(taps) {
            for (w, tap) in w.iter_mut().zip(tap) {
                *w = f64::from(*tap);
            }
        }
    }
    for (i, gi) in down.iter().enumerate() {
        let mut line = [[0.0f64; PACK_LANES]; 3];
        for (j, line) in line.iter_mut().enumerate() {
            for (l, v) in line.iter_mut().enumerate() {
                *v = gi[0] * w[0][j][l] + gi[1] * w[1][j][l] + gi[2] * w[2][j][l];
            }
        }
        for (j, gj) in across.iter().enumerate() {
            let mut u = [0.0f32; PACK_LANES];
            for (l, u) in u.iter_mut().enumerate() {
                *u = (gj[0] * line[0][l] + gj[1] * line[1][l] + gj[2] * line[2][l]) as f32;
            }
            let to = &mut out[(i * across.len() + j) * plane..];
            if lanes == PACK_LANES {
                to[..PACK_LANES].copy_from_slice(&u);
            } else {
                to[..lanes].copy_from_slice(&u[..lanes]);
            }
        }
    }
}

/// A Winograd convolution bound to its sizes.
#[derive(Clone, Copy, Debug)]
pub struct Winograd {
    isa: Isa,
    params: ConvParams,
    pixel_stride: usize,
    weights: WinogradWeights,
    /// Tiles down and across an image.
    grid: [usize; 2],
    /// Tiles of a block.
    block: usize,
    panels_per_item: usize,
}

/// Bytes of V and M together, so that they stay in L2 beside the weights.
const BLOCK_BYTES: usize = 448 * 1024;
/// Most tiles of a block of 36 products each.
const MAX_BLOCK: usize = 48;
/// Work items that a plan aims at.
const ITEMS: usize = 8;

impl Winograd {
    /// Whether the algorithm computes such a convolution.
    #[must_use]
    pub fn supports(p: &ConvParams) -> bool {
        let [_, kh, kw] = p.kernel;
        matches!(p.source, Source::ChannelsLast { .. })
            && p.groups == 1
            && p.stride == [1; 3]
            && (p.input[0], p.kernel[0], p.pad[0], p.output[0]) == (1, 1, 0, 1)
            && matches!([kh, kw], [3 | 1, 3] | [3, 1])
    }

    /// Binds a convolution, if the algorithm [`supports`](Self::supports) it.
    #[must_use]
    pub fn new(isa: Isa, tile: WinogradTile, p: &ConvParams) -> Option<Self> {
        let Source::ChannelsLast { pixel_stride } = p.source else { return None };
        if !Self::supports(p) {
            return None;
        }
        let kernel = [p.kernel[1], p.kernel[2]];
        let weights = WinogradWeights::new(isa, tile, kernel, p.channels, p.outputs);
        let layout = weights.layout;
        let size = tile.outputs_of(kernel);
        let grid = [0, 1].map(|d| tiles_along(p.output[d + 1], size[d], p.dilation[d + 1]));
        let tiles = p.batch * grid[0] * grid[1];
        let per_tile = 4 * weights.products() * (p.channels + layout.width());
        let rows = Tiles::of(isa, layout.k()).of_width(layout.width()).len();
        let most = MAX_BLOCK * 36 / weights.products();
        let room = (BLOCK_BYTES / per_tile / rows * rows).clamp(rows, most.max(rows));
        let blocks = tiles.div_ceil(room).max(1);
        let block = tiles.div_ceil(blocks).max(1);
        let groups = ITEMS.div_ceil(blocks).clamp(1, layout.panels().div_ceil(2).max(1));
        let panels_per_item = layout.panels().div_ceil(groups).max(1);
        Some(Self { isa, params: *p, pixel_stride, weights, grid, block, panels_per_item })
    }

    /// The packing of the weights.
    #[must_use]
    pub fn weights(&self) -> WinogradWeights {
        self.weights
    }

    fn tiles(&self) -> usize {
        self.params.batch * self.grid[0] * self.grid[1]
    }

    fn panel_items(&self) -> usize {
        self.weights.layout.panels().div_ceil(self.panels_per_item)
    }

    /// Work items; any ranges that cover them once compute the output. Neighbours share input.
    #[must_use]
    pub fn work_items(&self) -> usize {
        self.tiles().div_ceil(self.block) * self.panel_items()
    }

    fn channel_stride(&self) -> usize {
        self.params.channels.next_multiple_of(16)
    }

    /// Elements of scratch per thread.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        let products = self.weights.products();
        self.channel_stride() * (1 + products * self.block)
            + products * self.block * self.weights.layout.width()
    }

    /// Computes the work `items`.
    ///
    /// # Safety
    /// As [`Conv::run`](super::Conv::run).
    ///
    /// # Panics
    /// If the weights, the bias or the scratch are too short, or `items` is out of bounds.
    pub unsafe fn run(&self, args: &ConvArgs<'_>, items: Range<usize>, scratch: &mut [f32]) {
        assert!(items.end <= self.work_items(), "work items {items:?} of {}", self.work_items());
        assert!(args.weights.len() >= self.weights.packed_len(), "packed weights are too short");
        assert!(scratch.len() >= self.scratch_len(), "scratch is too short");
        let outputs = self.params.outputs;
        assert!(args.epilogue.bias.is_none_or(|b| b.len() >= outputs), "bias is too short");
        let (zeros, rest) = scratch.split_at_mut(self.channel_stride());
        let (v, m) =
            rest.split_at_mut(self.channel_stride() * self.weights.products() * self.block);
        zeros.fill(0.0);
        let mut transformed = None;
        for item in items {
            let (block, group) = (item / self.panel_items(), item % self.panel_items());
            let first = block * self.block;
            let tiles = first..self.tiles().min(first + self.block);
            if transformed != Some(block) {
                let input = InputBlock {
                    input: args.input,
                    pixel_stride: self.pixel_stride,
                    size: [self.params.input[1], self.params.input[2]],
                    pad: [self.params.pad[1], self.params.pad[2]],
                    channels: self.params.channels,
                    dilation: [self.params.dilation[1], self.params.dilation[2]],
                    grid: self.grid,
                    tiles: tiles.clone(),
                    zeros: zeros.as_ptr(),
                    v: v.as_mut_ptr(),
                    v_stride: self.channel_stride(),
                    block: self.block,
                };
                input_block(self.isa, self.weights.tile, self.weights.kernel, &input);
                transformed = Some(block);
            }
            let first = group * self.panels_per_item;
            for p in first..self.weights.layout.panels().min(first + self.panels_per_item) {
                // SAFETY: the scratch was divided above; the rest is passed on from the caller.
                unsafe { self.run_panel(args, p, tiles.clone(), v, m) };
            }
        }
    }

    unsafe fn run_panel(
        &self,
        args: &ConvArgs<'_>,
        p: usize,
        tiles: Range<usize>,
        v: &[f32],
        m: &mut [f32],
    ) {
        let layout = self.weights.layout;
        let panel = layout.panel(p);
        let kernels = Tiles::of(self.isa, layout.k()).of_width(panel.width);
        let segment = Segment { start: 0, len: layout.k() };
        for x in 0..self.weights.products() {
            let start = x * layout.len() + panel.offset;
            let u = &args.weights[start..start + layout.k() * panel.width];
            for (row, height) in balanced(0..tiles.len(), kernels.len()) {
                let mut pointers = [ptr::null(); MAX_ROWS];
                for (r, a) in pointers.iter_mut().enumerate().take(height) {
                    *a = v[(x * self.block + row + r) * self.channel_stride()..].as_ptr();
                }
                let c =
                    &mut m[(x * self.block + row) * layout.width()..][..height * layout.width()];
                let tile = Tile {
                    a: pointers.as_ptr(),
                    segments: &raw const segment,
                    n_segments: 1,
                    b: u.as_ptr(),
                    c: c.as_mut_ptr(),
                    c_stride: layout.width(),
                    cols: panel.width,
                    ..Tile::EMPTY
                };
                // SAFETY: rows of V have all channels; the panel and the rows of M are whole.
                unsafe { kernels[height - 1](&tile) };
            }
        }
        let Epilogue { bias, residual, activation } = args.epilogue;
        let at =
            |data: *const f32| if data.is_null() { data } else { data.wrapping_add(panel.col) };
        let output = OutputBlock {
            m: m.as_ptr(),
            m_stride: layout.width(),
            block: self.block,
            size: [self.params.output[1], self.params.output[2]],
            dilation: [self.params.dilation[1], self.params.dilation[2]],
            grid: self.grid,
            tiles,
            cols: panel.cols,
            bias: at(bias.map_or(ptr::null(), <[f32]>::as_ptr)),
            residual: at(residual.map_or(ptr::null(), |r| r.data)),
            residual_stride: residual.map_or(0, |r| r.stride),
            place: residual.map_or_else(Default::default, |r| r.place),
            output: args.output.wrapping_add(panel.col),
            output_stride: self.params.output_stride,
        };
        dispatch(activation, Finish(self.isa, self.weights.tile, self.weights.kernel, &output));
    }
}

struct Finish<'a>(Isa, WinogradTile, [usize; 2], &'a OutputBlock);

impl Visitor for Finish<'_> {
    #[inline(always)]
    fn visit<U: Unary>(self, u: U) {
        output_block(self.0, u, self.1, self.2, self.3);
    }
}

#[cfg(test)]
mod tests;
