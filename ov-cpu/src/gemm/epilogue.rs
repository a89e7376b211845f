//! What happens to a result on its way to memory.
#![allow(unsafe_code, reason = "strided stores through raw pointers")]

use std::{mem::MaybeUninit, ptr};

use crate::gemm::tile::{MAX_COLS, MAX_ROWS, Tile, TileFn};
use crate::simd::Isa;
use crate::simd::activation::{Activation, Visitor, dispatch};
use crate::simd::bits::Bits;
use crate::simd::lanes::instantiate;
use crate::simd::math::Unary;

/// Whether the residual is added before or after the activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResidualPlace {
    /// `act(x + bias + residual)`
    #[default]
    BeforeActivation,
    /// `act(x + bias) + residual`
    AfterActivation,
}

/// A matrix of the result's shape that is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residual {
    /// Element (0, 0). It may be the result itself.
    pub data: *const f32,
    /// Elements from one row to the next.
    pub stride: usize,
    /// The order of addition and activation.
    pub place: ResidualPlace,
}

/// Operations on a result while it is still in registers or L1: bias, residual, activation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Epilogue<'a> {
    /// One value per column.
    pub bias: Option<&'a [f32]>,
    /// Added element by element.
    pub residual: Option<Residual>,
    /// Applied to every element.
    pub activation: Activation,
}

/// An [`Epilogue`] that was split into what the tile does and what is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish {
    isa: Isa,
    bias: *const f32,
    residual: *const f32,
    residual_stride: usize,
    place: ResidualPlace,
    activation: Activation,
    clamp: Option<(f32, f32)>,
    row_step: usize,
}

impl Finish {
    pub(crate) fn new(isa: Isa, e: &Epilogue<'_>) -> Self {
        let (residual, residual_stride, place) = match e.residual {
            Some(r) => (r.data, r.stride, r.place),
            None => (ptr::null(), 0, ResidualPlace::BeforeActivation),
        };
        let after = place == ResidualPlace::AfterActivation && e.activation != Activation::None;
        Self {
            isa,
            bias: e.bias.map_or(ptr::null(), <[f32]>::as_ptr),
            residual,
            residual_stride,
            place,
            activation: e.activation,
            clamp: e.activation.as_clamp().filter(|_| !after),
            row_step: 1,
        }
    }

    /// Takes every `step`-th row of the residual for the rows of a tile.
    pub(crate) fn with_row_step(self, step: usize) -> Self {
        Self { row_step: step, ..self }
    }

    /// Runs `kernel` for the `rows` rows of `tile` from `row` and the columns from `col`, whose
    /// `c`, `c_stride` and `cols` say where the result goes, and finishes the result.
    ///
    /// # Safety
    /// As [`TileFn`]; bias and residual must cover the rows and columns.
    #[inline]
    pub(crate) unsafe fn run(
        &self,
        kernel: TileFn,
        tile: &mut Tile,
        rows: usize,
        row: usize,
        col: usize,
    ) {
        // SAFETY: bias and residual have an element for each row and column, by the caller.
        let (bias, residual) = unsafe {
            (
                if self.bias.is_null() { self.bias } else { self.bias.add(col) },
                if self.residual.is_null() {
                    self.residual
                } else {
                    self.residual.add(row * self.residual_stride + col)
                },
            )
        };
        let residual_stride = self.residual_stride * self.row_step;
        if let Some((low, high)) = self.clamp {
            (tile.bias, tile.residual, tile.residual_stride) = (bias, residual, residual_stride);
            (tile.low, tile.high) = (low, high);
            // SAFETY: passed on from the caller.
            unsafe { kernel(tile) };
            return;
        }
        let mut raw = MaybeUninit::<Buffer>::uninit();
        let raw = raw.as_mut_ptr().cast::<f32>();
        let (c, c_stride) = (tile.c, tile.c_stride);
        (tile.c, tile.c_stride) = (raw, MAX_COLS);
        // SAFETY: passed on from the caller; the buffer has room for the largest tile.
        unsafe { kernel(tile) };
        (tile.c, tile.c_stride) = (c, c_stride);
        let store = Store {
            isa: self.isa,
            args: StoreArgs {
                raw,
                rows,
                cols: tile.cols,
                bias,
                residual,
                residual_stride,
                after: self.place == ResidualPlace::AfterActivation,
                c,
                c_stride,
            },
        };
        dispatch(self.activation, store);
    }
}

/// Room for the largest tile; only what the kernel stored is read.
#[repr(align(64))]
struct Buffer(#[expect(dead_code, reason = "read through a pointer")] [f32; MAX_ROWS * MAX_COLS]);

#[derive(Clone, Copy)]
struct StoreArgs {
    raw: *const f32,
    rows: usize,
    cols: usize,
    bias: *const f32,
    residual: *const f32,
    residual_stride: usize,
    after: bool,
    c: *mut f32,
    c_stride: usize,
}

struct Store {
    isa: Isa,
    args: StoreArgs,
}

impl Visitor for Store {
    #[inline(always)]
    fn visit<U: Unary>(self, u: U) {
        store(self.isa, u, &self.args);
    }
}

instantiate! {
    fn store<U: Unary>(u: U, args: &StoreArgs) = store_body;
}

#[inline(always)]
fn store_body<S: Bits, U: Unary>(s: S, u: U, t: &StoreArgs) {
    for r in 0..t.rows {
        let mut j = 0;
        // Whole vectors go without a mask: masked loads do not forward from the stores before them.
        while j + S::LEN <= t.cols {
            store_vector::<S, U, true>(s, u, t, r, j, S::LEN);
            j += S::LEN;
        }
        if j < t.cols {
            store_vector::<S, U, false>(s, u, t, r, j, t.cols - j);
        }
    }
}

#[inline(always)]
fn store_vector<S: Bits, U: Unary, const FULL: bool>(
    s: S,
    u: U,
    t: &StoreArgs,
    r: usize,
    j: usize,
    n: usize,
) {
    // SAFETY: `Finish::run` fills `raw` for rows and cols; its caller vouches for bias, residual and result; `FULL`
    // means that `n` is the whole vector.
    unsafe {
        let load = |p: *const f32| if FULL { s.load(p) } else { s.load_n(p, n) };
        let mut x = load(t.raw.add(r * MAX_COLS + j));
        if !t.bias.is_null() {
            x = s.add(x, load(t.bias.add(j)));
        }
        let has_residual = !t.residual.is_null();
        let p = t.residual.wrapping_add(r * t.residual_stride + j);
        if has_residual && !t.after {
            x = s.add(x, load(p));
        }
        x = u.eval(s, x);
        if has_residual && t.after {
            x = s.add(x, load(p));
        }
        let c = t.c.add(r * t.c_stride + j);
        if FULL { s.store(c, x) } else { s.store_n(c, x, n) }
    }
}
