//! The transforms of Winograd convolution, vectors along channels.
#![allow(unsafe_code, reason = "vector loads and stores through raw pointers")]

use std::ops::Range;

use crate::gemm::ResidualPlace;
use crate::simd::bits::Bits;
use crate::simd::lanes::{Simd, instantiate};
use crate::simd::math::Unary;

use super::WinogradTile;

/// Operands of the input transform of a block of tiles.
#[derive(Clone, Debug)]
pub(crate) struct InputBlock {
    pub(crate) input: *const f32,
    pub(crate) pixel_stride: usize,
    pub(crate) size: [usize; 2],
    pub(crate) pad: [usize; 2],
    pub(crate) channels: usize,
    pub(crate) dilation: [usize; 2],
    pub(crate) grid: [usize; 2],
    pub(crate) tiles: Range<usize>,
    /// `channels` zeros.
    pub(crate) zeros: *const f32,
    /// `[products][block][v_stride]`
    pub(crate) v: *mut f32,
    pub(crate) v_stride: usize,
    pub(crate) block: usize,
}

/// Operands of the output transform of a block of tiles and one panel of outputs.
#[derive(Clone, Debug)]
pub(crate) struct OutputBlock {
    /// `[products][block][m_stride]`
    pub(crate) m: *const f32,
    pub(crate) m_stride: usize,
    pub(crate) block: usize,
    pub(crate) size: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pub(crate) grid: [usize; 2],
    pub(crate) tiles: Range<usize>,
    pub(crate) cols: usize,
    pub(crate) bias: *const f32,
    pub(crate) residual: *const f32,
    pub(crate) residual_stride: usize,
    pub(crate) place: ResidualPlace,
    pub(crate) output: *mut f32,
    pub(crate) output_stride: usize,
}

/// Most inputs of a tile per dimension.
const MAX: usize = 6;

const SQRT_2: f32 = std::f32::consts::SQRT_2;
const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// G, whose rows are `[1, s, s²] / Π(s - other points)` for each point `s`, and `[0, 0, 1]`.
pub(crate) fn kernel_matrix(tile: WinogradTile) -> [[f64; 3]; MAX] {
    let root = std::f64::consts::SQRT_2;
    let zero = [0.0; 3];
    let (six, two) = (1.0 / 6.0, 0.5);
    match tile {
        WinogradTile::Two => {
            [[-1.0, 0.0, 0.0], [two; 3], [two, -two, two], [0.0, 0.0, 1.0], zero, zero]
        }
        WinogradTile::Four => [
            [1.0, 0.0, 0.0],
            [-4.0 * six, -2.0 * root * six, -2.0 * six],
            [-4.0 * six, 2.0 * root * six, -2.0 * six],
            [six, root * six, 2.0 * six],
            [six, -root * six, 2.0 * six],
            [0.0, 0.0, 1.0],
        ],
    }
}

/// Bᵀ times a line of inputs.
#[inline(always)]
fn input_line<S: Simd, const N: usize>(s: S, d: [S::F; MAX]) -> [S::F; MAX] {
    let mut t = d;
    if N == 1 {
        return t;
    }
    if N == 4 {
        t[0] = s.sub(d[2], d[0]);
        t[1] = s.add(d[1], d[2]);
        t[2] = s.sub(d[2], d[1]);
        t[3] = s.sub(d[3], d[1]);
        return t;
    }
    let c = s.splat(-2.5);
    t[0] = s.add(s.fma(c, d[2], d[0]), d[4]);
    let even = s.fma(s.splat(-2.0), d[2], d[4]);
    let odd = s.mul(s.splat(SQRT_HALF), s.fma(s.splat(-2.0), d[1], d[3]));
    (t[1], t[2]) = (s.add(even, odd), s.sub(even, odd));
    let even = s.fma(s.splat(-0.5), d[2], d[4]);
    let odd = s.mul(s.splat(SQRT_2), s.fma(s.splat(-0.5), d[1], d[3]));
    (t[3], t[4]) = (s.add(even, odd), s.sub(even, odd));
    t[5] = s.add(s.fma(c, d[3], d[1]), d[5]);
    t
}

/// Aᵀ times a line of products.
#[inline(always)]
fn output_line<S: Simd, const N: usize>(s: S, m: [S::F; MAX]) -> [S::F; 4] {
    if N == 1 {
        return [m[0]; 4];
    }
    let (sum, difference) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
    if N == 4 {
        return [s.add(m[0], sum), s.add(difference, m[3]), m[0], m[0]];
    }
    let (sum2, difference2) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
    [
        s.add(m[0], s.add(sum, sum2)),
        s.fma(s.splat(SQRT_HALF), difference, s.mul(s.splat(SQRT_2), difference2)),
        s.fma(s.splat(0.5), sum, s.mul(s.splat(2.0), sum2)),
        s.fma(
            s.splat(0.5 * SQRT_HALF),
            difference,
            s.fma(s.splat(2.0 * SQRT_2), difference2, m[5]),
        ),
    ]
}

instantiate! {
    /// Transforms the tiles of a block to V.
    ///
    /// The pointers must be valid for the block.
    pub(crate) fn input_block(tile: WinogradTile, kernel: [usize; 2], x: &InputBlock) = input_body;
    /// Transforms the products of a block to outputs and applies the epilogue.
    ///
    /// The pointers must be valid for the block.
    pub(crate) fn output_block<U: Unary>(
        u: U, tile: WinogradTile, kernel: [usize; 2], y: &OutputBlock,
    ) = output_body;
}

/// Outputs of a tile along a dimension of `N` inputs.
const fn outputs_of(n: usize) -> usize {
    if n == 1 { 1 } else { n - 2 }
}

/// The first pixel of tile `t` along a dimension, where tiles take `size` pixels `dilation` apart.
#[inline(always)]
fn first_of(t: usize, size: usize, dilation: usize) -> usize {
    if dilation == 1 { t * size } else { t / dilation * size * dilation + t % dilation }
}

#[inline(always)]
fn input_body<S: Simd>(s: S, tile: WinogradTile, kernel: [usize; 2], x: &InputBlock) {
    match (tile, kernel) {
        (WinogradTile::Two, [_, 1]) => input_tiles::<S, 4, 1>(s, x),
        (WinogradTile::Two, [1, _]) => input_tiles::<S, 1, 4>(s, x),
        (WinogradTile::Two, _) => input_tiles::<S, 4, 4>(s, x),
        (WinogradTile::Four, [_, 1]) => input_tiles::<S, 6, 1>(s, x),
        (WinogradTile::Four, [1, _]) => input_tiles::<S, 1, 6>(s, x),
        (WinogradTile::Four, _) => input_tiles::<S, 6, 6>(s, x),
    }
}

#[inline(always)]
fn input_tiles<S: Simd, const NY: usize, const NX: usize>(s: S, x: &InputBlock) {
    let ([height, width], [dy, dx]) = (x.size, x.dilation);
    for (at, t) in x.tiles.clone().enumerate() {
        let image = t / (x.grid[0] * x.grid[1]);
        let y0 = first_of(t / x.grid[1] % x.grid[0], outputs_of(NY), dy);
        let x0 = first_of(t % x.grid[1], outputs_of(NX), dx);
        let mut pixels = [[x.zeros; NX]; NY];
        for (i, line) in pixels.iter_mut().enumerate() {
            let py = (y0 + i * dy).wrapping_sub(x.pad[0]);
            for (j, p) in line.iter_mut().enumerate() {
                let px = (x0 + j * dx).wrapping_sub(x.pad[1]);
                if py < height && px < width {
                    let pixel = (image * height + py) * width + px;
                    *p = x.input.wrapping_add(pixel * x.pixel_stride);
                }
            }
        }
        let mut c = 0;
        while c + S::LEN <= x.channels {
            input_vector::<S, NY, NX, true>(s, x, &pixels, at, c, S::LEN);
            c += S::LEN;
        }
        if c < x.channels {
            input_vector::<S, NY, NX, false>(s, x, &pixels, at, c, x.channels - c);
        }
    }
}

/// `n` channels of tile `at` of the block, a whole vector if `FULL`.
#[inline(always)]
fn input_vector<S: Simd, const NY: usize, const NX: usize, const FULL: bool>(
    s: S,
    x: &InputBlock,
    pixels: &[[*const f32; NX]; NY],
    at: usize,
    c: usize,
    n: usize,
) {
    let mut lines = [[s.zero(); MAX]; NY];
    for i in 0..NY {
        let mut d = [s.zero(); MAX];
        for j in 0..NX {
            // SAFETY: every pointer is a pixel of the input or the zeros, both with all channels.
            d[j] = unsafe {
                let p = pixels[i][j].add(c);
                if FULL { s.load(p) } else { s.load_n(p, n) }
            };
        }
        lines[i] = input_line::<S, NX>(s, d);
    }
    for j in 0..NX {
        let mut d = [s.zero(); MAX];
        for i in 0..NY {
            d[i] = lines[i][j];
        }
        let t = input_line::<S, NY>(s, d);
        for i in 0..NY {
            let row = (i * NX + j) * x.block + at;
            // SAFETY: V has rows of `v_stride`, a multiple of 16 that covers `channels`.
            unsafe { s.store(x.v.add(row * x.v_stride + c), t[i]) };
        }
    }
}

#[inline(always)]
fn output_body<S: Bits, U: Unary>(
    s: S,
    u: U,
    tile: WinogradTile,
    kernel: [usize; 2],
    y: &OutputBlock,
) {
    match (tile, kernel) {
        (WinogradTile::Two, [_, 1]) => output_tiles::<S, U, 4, 1>(s, u, y),
        (WinogradTile::Two, [1, _]) => output_tiles::<S, U, 1, 4>(s, u, y),
        (WinogradTile::Two, _) => output_tiles::<S, U, 4, 4>(s, u, y),
        (WinogradTile::Four, [_, 1]) => output_tiles::<S, U, 6, 1>(s, u, y),
        (WinogradTile::Four, [1, _]) => output_tiles::<S, U, 1, 6>(s, u, y),
        (WinogradTile::Four, _) => output_tiles::<S, U, 6, 6>(s, u, y),
    }
}

#[inline(always)]
fn output_tiles<S: Bits, U: Unary, const NY: usize, const NX: usize>(s: S, u: U, y: &OutputBlock) {
    let ([height, width], [dy, dx]) = (y.size, y.dilation);
    for (at, t) in y.tiles.clone().enumerate() {
        let image = t / (y.grid[0] * y.grid[1]);
        let oy = first_of(t / y.grid[1] % y.grid[0], outputs_of(NY), dy);
        let ox = first_of(t % y.grid[1], outputs_of(NX), dx);
        let rows = outputs_of(NY).min(height.saturating_sub(oy).div_ceil(dy));
        let columns = outputs_of(NX).min(width.saturating_sub(ox).div_ceil(dx));
        if rows * columns == 0 {
            continue;
        }
        let place = Place { at, image, oy, ox, rows, columns };
        let mut c = 0;
        while c + S::LEN <= y.cols {
            output_vector::<S, U, NY, NX, true>(s, u, y, place, c, S::LEN);
            c += S::LEN;
        }
        if c < y.cols {
            output_vector::<S, U, NY, NX, false>(s, u, y, place, c, y.cols - c);
        }
    }
}

/// Where a tile is in the block and in the output.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    image: usize,
    oy: usize,
    ox: usize,
    rows: usize,
    columns: usize,
}

/// `n` outputs of a tile, a whole vector if `FULL`.
#[inline(always)]
fn output_vector<S: Bits, U: Unary, const NY: usize, const NX: usize, const FULL: bool>(
    s: S,
    u: U,
    y: &OutputBlock,
    p: Place,
    c: usize,
    n: usize,
) {
    let ([height, width], [dy, dx]) = (y.size, y.dilation);
    // SAFETY: M has whole vectors in every row; the first `n` lanes of bias, residual and output exist for every pixel
    // inside the output; `FULL` means that `n` is the whole vector.
    unsafe {
        let load = |p: *const f32| if FULL { s.load(p) } else { s.load_n(p, n) };
        let bias = if y.bias.is_null() { s.zero() } else { load(y.bias.add(c)) };
        let mut lines = [[s.zero(); MAX]; 4];
        for j in 0..NX {
            let m = y.m.add((j * y.block + p.at) * y.m_stride + c);
            let step = NX * y.block * y.m_stride;
            let mut d = [s.zero(); MAX];
            for i in 0..NY {
                d[i] = s.load(m.add(i * step));
            }
            let t = output_line::<S, NY>(s, d);
            for i in 0..outputs_of(NY) {
                lines[i][j] = t[i];
            }
        }
        for i in 0..p.rows {
            let t = output_line::<S, NX>(s, lines[i]);
            for j in 0..p.columns {
                let pixel = (p.image * height + p.oy + i * dy) * width + p.ox + j * dx;
                let mut v = s.add(t[j], bias);
                if y.residual.is_null() {
                    v = u.eval(s, v);
                } else {
                    let r = load(y.residual.add(pixel * y.residual_stride + c));
                    v = match y.place {
                        ResidualPlace::BeforeActivation => u.eval(s, s.add(v, r)),
                        ResidualPlace::AfterActivation => s.add(u.eval(s, v), r),
                    };
                }
                let out = y.output.add(pixel * y.output_stride + c);
                if FULL { s.store(out, v) } else { s.store_n(out, v, n) }
            }
        }
    }
}
