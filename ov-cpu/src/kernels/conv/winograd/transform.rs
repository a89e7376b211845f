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
    pub(crate) fn input_block(tile: WinogradTile, x: &InputBlock) = input_body;
    /// Transforms the products of a block to outputs and applies the epilogue.
    ///
    /// The pointers must be valid for the block.
    pub(crate) fn output_block<U: Unary>(u: U, tile: WinogradTile, y: &OutputBlock) = output_body;
}

#[inline(always)]
fn input_body<S: Simd>(s: S, tile: WinogradTile, x: &InputBlock) {
    match tile {
        WinogradTile::Two => input_tiles::<S, 4>(s, x),
        WinogradTile::Four => input_tiles::<S, 6>(s, x),
    }
}

#[inline(always)]
fn input_tiles<S: Simd, const N: usize>(s: S, x: &InputBlock) {
    let [height, width] = x.size;
    for (at, t) in x.tiles.clone().enumerate() {
        let image = t / (x.grid[0] * x.grid[1]);
        let (ty, tx) = (t / x.grid[1] % x.grid[0], t % x.grid[1]);
        let mut pixels = [[x.zeros; N]; N];
        for (i, line) in pixels.iter_mut().enumerate() {
            let py = (ty * (N - 2) + i).wrapping_sub(x.pad[0]);
            for (j, p) in line.iter_mut().enumerate() {
                let px = (tx * (N - 2) + j).wrapping_sub(x.pad[1]);
                if py < height && px < width {
                    let pixel = (image * height + py) * width + px;
                    *p = x.input.wrapping_add(pixel * x.pixel_stride);
                }
            }
        }
        let mut c = 0;
        while c < x.channels {
            let n = S::LEN.min(x.channels - c);
            let mut lines = [[s.zero(); MAX]; N];
            for i in 0..N {
                let p = &pixels[i];
                // SAFETY: every pointer is a pixel of the input or the zeros, both with all
                // channels.
                let load = |j: usize| unsafe { s.load_n(p[j.min(N - 1)].add(c), n) };
                let d = if N == 4 {
                    [load(0), load(1), load(2), load(3), s.zero(), s.zero()]
                } else {
                    [load(0), load(1), load(2), load(3), load(4), load(5)]
                };
                lines[i] = input_line::<S, N>(s, d);
            }
            for j in 0..N {
                let l = &lines;
                let d = if N == 4 {
                    [l[0][j], l[1][j], l[2][j], l[3][j], s.zero(), s.zero()]
                } else {
                    [l[0][j], l[1][j], l[2][j], l[3][j], l[4 % N][j], l[5 % N][j]]
                };
                let t = input_line::<S, N>(s, d);
                for i in 0..N {
                    let row = (i * N + j) * x.block + at;
                    // SAFETY: V has rows of `v_stride`, a multiple of 16 that covers `channels`.
                    unsafe { s.store(x.v.add(row * x.v_stride + c), t[i]) };
                }
            }
            c += n;
        }
    }
}

#[inline(always)]
fn output_body<S: Bits, U: Unary>(s: S, u: U, tile: WinogradTile, y: &OutputBlock) {
    match tile {
        WinogradTile::Two => output_tiles::<S, U, 4>(s, u, y),
        WinogradTile::Four => output_tiles::<S, U, 6>(s, u, y),
    }
}

#[inline(always)]
fn output_tiles<S: Bits, U: Unary, const N: usize>(s: S, u: U, y: &OutputBlock) {
    let [height, width] = y.size;
    let size = N - 2;
    for (at, t) in y.tiles.clone().enumerate() {
        let image = t / (y.grid[0] * y.grid[1]);
        let (oy, ox) = (t / y.grid[1] % y.grid[0] * size, t % y.grid[1] * size);
        let mut c = 0;
        while c < y.cols {
            let n = S::LEN.min(y.cols - c);
            // SAFETY: M has whole vectors in every row; the first `n` lanes of bias, residual
            // and output exist for every pixel inside the output.
            unsafe {
                let bias = if y.bias.is_null() { s.zero() } else { s.load_n(y.bias.add(c), n) };
                let mut lines = [[s.zero(); MAX]; 4];
                for j in 0..N {
                    let m = y.m.add((j * y.block + at) * y.m_stride + c);
                    let step = N * y.block * y.m_stride;
                    let mut d = [s.zero(); MAX];
                    for i in 0..N {
                        d[i] = s.load(m.add(i * step));
                    }
                    let t = output_line::<S, N>(s, d);
                    for i in 0..size {
                        lines[i][j] = t[i];
                    }
                }
                for i in 0..size.min(height - oy) {
                    let t = output_line::<S, N>(s, lines[i]);
                    for j in 0..size.min(width - ox) {
                        let pixel = (image * height + oy + i) * width + ox + j;
                        let mut v = s.add(t[j], bias);
                        if y.residual.is_null() {
                            v = u.eval(s, v);
                        } else {
                            let r = s.load_n(y.residual.add(pixel * y.residual_stride + c), n);
                            v = match y.place {
                                ResidualPlace::BeforeActivation => u.eval(s, s.add(v, r)),
                                ResidualPlace::AfterActivation => s.add(u.eval(s, v), r),
                            };
                        }
                        s.store_n(y.output.add(pixel * y.output_stride + c), v, n);
                    }
                }
            }
            c += n;
        }
    }
}
