//! From sums to results: zero points, scale, bias, residual, activation and the type of the output.
#![allow(unsafe_code, reason = "strided stores through raw pointers")]

use crate::gemm::ResidualPlace;
use crate::gemm::tile::{MAX_COLS, MAX_ROWS};
use crate::simd::Isa;
use crate::simd::activation::{Activation, Visitor, dispatch};
use crate::simd::bytes::Bytes;
use crate::simd::lanes::instantiate;
use crate::simd::math::Unary;

/// Where results go, and how they are rounded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// As they are.
    F32(*mut f32),
    /// `saturate(round(y scale) + zero)`
    U8 {
        /// The first element.
        c: *mut u8,
        /// Steps per unit.
        scale: f32,
        /// The zero point.
        zero: f32,
    },
    /// The same in i8.
    I8 {
        /// The first element.
        c: *mut i8,
        /// Steps per unit.
        scale: f32,
        /// The zero point.
        zero: f32,
    },
}

impl Target {
    /// The target `n` elements on.
    fn add(self, n: usize) -> Self {
        match self {
            Self::F32(c) => Self::F32(c.wrapping_add(n)),
            Self::U8 { c, scale, zero } => Self::U8 { c: c.wrapping_add(n), scale, zero },
            Self::I8 { c, scale, zero } => Self::I8 { c: c.wrapping_add(n), scale, zero },
        }
    }
}

/// What happens to sums on their way to memory, for a whole output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteFinish {
    pub(crate) isa: Isa,
    /// Zero point of the rows, as the kernel reads them.
    pub(crate) row_zero: i32,
    /// Sum of each column's weights less their zero points, or null where sums are centred already.
    pub(crate) column_sums: *const i32,
    /// What was taken from the weights of each column, or null.
    pub(crate) shifts: *const i32,
    /// Whether the sums are (integer) f32.
    pub(crate) floats: bool,
    /// One scale, or one per column.
    pub(crate) scale: *const f32,
    /// 1 if there is a scale per column, else 0.
    pub(crate) scale_step: usize,
    /// One value per column, or null.
    pub(crate) bias: *const f32,
    /// A matrix of the output's shape, or null.
    pub(crate) residual: *const f32,
    /// The order of addition and activation.
    pub(crate) place: ResidualPlace,
    pub(crate) activation: Activation,
    /// Elements from one row of output and residual to the next.
    pub(crate) stride: usize,
    pub(crate) target: Target,
}

/// A buffer for the sums of a tile.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Sums(pub(crate) [i32; MAX_ROWS * MAX_COLS]);

impl ByteFinish {
    /// Stores the results of `rows` rows from `row` and `cols` columns from `col`. `row_sums` holds the sum of each
    /// row's bytes where there are shifts.
    ///
    /// # Safety
    /// Every pointer must be valid for the given rows and columns.
    #[inline]
    pub(crate) unsafe fn store(
        &self,
        sums: &Sums,
        rows: usize,
        cols: usize,
        row: usize,
        col: usize,
        row_sums: *const i32,
    ) {
        let at = row * self.stride + col;
        let from = |p: *const f32, n: usize| if p.is_null() { p } else { p.wrapping_add(n) };
        let columns = |p: *const i32| if p.is_null() { p } else { p.wrapping_add(col) };
        let part = Self {
            column_sums: columns(self.column_sums),
            shifts: columns(self.shifts),
            scale: from(self.scale, col * self.scale_step),
            bias: from(self.bias, col),
            residual: from(self.residual, at),
            target: self.target.add(at),
            ..*self
        };
        let part = Part { finish: &part, sums: sums.0.as_ptr(), row_sums, rows, cols };
        dispatch(self.activation, part);
    }
}

struct Part<'a> {
    finish: &'a ByteFinish,
    sums: *const i32,
    row_sums: *const i32,
    rows: usize,
    cols: usize,
}

impl Visitor for Part<'_> {
    #[inline(always)]
    fn visit<U: Unary>(self, u: U) {
        store(self.finish.isa, u, &self);
    }
}

instantiate! {
    fn store<U: Unary>(u: U, part: &Part<'_>) = store_body;
}

#[inline(always)]
fn store_body<S: Bytes, U: Unary>(s: S, u: U, part: &Part<'_>) {
    let t = part.finish;
    let mut j = 0;
    while j < part.cols {
        let n = S::LEN.min(part.cols - j);
        // SAFETY: `ByteFinish::store` gives pointers that are valid for the rows and columns, by its caller.
        unsafe {
            let mut offset = s.splat_i32(0);
            if !t.column_sums.is_null() {
                let sums = s.load_i32(t.column_sums.add(j), n);
                offset = s.mul_i32(sums, s.splat_i32(t.row_zero.wrapping_neg()));
            }
            let shifts = (!t.shifts.is_null()).then(|| s.load_i32(t.shifts.add(j), n));
            let scale =
                if t.scale_step == 0 { s.splat(*t.scale) } else { s.load_n(t.scale.add(j), n) };
            let bias = if t.bias.is_null() { s.zero() } else { s.load_n(t.bias.add(j), n) };
            for r in 0..part.rows {
                let p = part.sums.add(r * MAX_COLS + j);
                let mut x = if t.floats {
                    s.load(p.cast())
                } else {
                    let mut sum = s.add_i32(s.load_i32(p, S::LEN), offset);
                    if let Some(shifts) = shifts {
                        let row = s.splat_i32(*part.row_sums.add(r));
                        sum = s.add_i32(sum, s.mul_i32(shifts, row));
                    }
                    s.to_f32(sum)
                };
                // Rounded twice, as the operators of the model are: what is quantized next shows the difference.
                x = s.add(s.mul(x, scale), bias);
                let after = t.place == ResidualPlace::AfterActivation;
                let residual =
                    (!t.residual.is_null()).then(|| s.load_n(t.residual.add(r * t.stride + j), n));
                if let (Some(residual), false) = (residual, after) {
                    x = s.add(x, residual);
                }
                x = u.eval(s, x);
                if let (Some(residual), true) = (residual, after) {
                    x = s.add(x, residual);
                }
                let at = r * t.stride + j;
                match t.target {
                    Target::F32(c) => s.store_n(c.add(at), x, n),
                    Target::U8 { c, scale, zero } => {
                        let q = s.add(s.round(s.mul(x, s.splat(scale))), s.splat(zero));
                        let q = s.min(s.splat(255.0), s.max(s.zero(), q));
                        s.store_byte(c.add(at), q, n);
                    }
                    Target::I8 { c, scale, zero } => {
                        let q = s.add(s.round(s.mul(x, s.splat(scale))), s.splat(zero));
                        let q = s.min(s.splat(127.0), s.max(s.splat(-128.0), q));
                        s.store_byte(c.add(at).cast(), q, n);
                    }
                }
            }
        }
        j += n;
    }
}
