//! One time step of a group of sequences: recurrent products and gates, 16 units at a time.
#![allow(unsafe_code, reason = "vector loads and stores at computed offsets")]
#![allow(clippy::needless_range_loop, reason = "indices keep accumulators in registers")]

use std::ops::Range;

use super::{CellKind, GROUP, Rows, UNITS};
use crate::simd::Isa;
use crate::simd::activation::{self, Activation};
use crate::simd::bits::Bits;

/// What a step needs of one direction of a layer.
pub(super) struct Layer<'a> {
    pub(super) hidden: usize,
    pub(super) clip: f32,
    pub(super) activations: [Activation; 3],
    pub(super) packed: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) peepholes: Option<&'a [f32]>,
}

#[inline(always)]
fn act<S: Bits>(s: S, a: Activation, x: S::F) -> S::F {
    match a {
        Activation::Sigmoid => crate::simd::math::sigmoid(s, x),
        Activation::Tanh => crate::simd::math::tanh(s, x),
        _ => {
            // The others are rare, and inlined here they would be most of the code.
            let mut lanes = [0.0; UNITS];
            // SAFETY: a vector has at most 16 lanes.
            unsafe {
                s.store(lanes.as_mut_ptr(), x);
                activation::apply_slice(Isa::PORTABLE, a, &mut lanes);
                s.load(lanes.as_ptr())
            }
        }
    }
}

/// `h w` for `G` gates of one vector of units: `w` at its panel, `hidden` steps of `G * 16`.
///
/// # Safety
/// `hidden` elements must be readable at `h` and the panel in full at `w`.
#[inline(always)]
unsafe fn dot<S: Bits, const G: usize>(
    s: S,
    h: *const f32,
    w: *const f32,
    hidden: usize,
) -> [S::F; G] {
    // Loops over indices: the accumulators would live in memory behind iterators and closures.
    let mut even = [s.zero(); G];
    let mut odd = [s.zero(); G];
    let mut k = 0;
    // SAFETY: steps are below `hidden`.
    unsafe {
        while k + 2 <= hidden {
            let (x, y) = (s.splat(*h.add(k)), s.splat(*h.add(k + 1)));
            let w = w.add(k * G * UNITS);
            for g in 0..G {
                even[g] = s.fma(x, s.load(w.add(g * UNITS)), even[g]);
            }
            for g in 0..G {
                odd[g] = s.fma(y, s.load(w.add((G + g) * UNITS)), odd[g]);
            }
            k += 2;
        }
        if k < hidden {
            let x = s.splat(*h.add(k));
            for g in 0..G {
                even[g] = s.fma(x, s.load(w.add((k * G + g) * UNITS)), even[g]);
            }
        }
    }
    for g in 0..G {
        even[g] = s.add(even[g], odd[g]);
    }
    even
}

/// [`dot`] for all rows of a group, `padded` apart.
///
/// # Safety
/// As for [`dot`], for every row.
#[inline(always)]
unsafe fn dots<S: Bits, const G: usize>(
    s: S,
    h: *const f32,
    padded: usize,
    w: *const f32,
    hidden: usize,
) -> [[S::F; G]; GROUP] {
    let mut acc = [[s.zero(); G]; GROUP];
    // SAFETY: the caller's contract.
    unsafe {
        for k in 0..hidden {
            let mut x = [s.zero(); G];
            for g in 0..G {
                x[g] = s.load(w.add((k * G + g) * UNITS));
            }
            for row in 0..GROUP {
                let v = s.splat(*h.add(row * padded + k));
                for g in 0..G {
                    acc[row][g] = s.fma(v, x[g], acc[row][g]);
                }
            }
        }
    }
    acc
}

/// Calls `f(row, unit, lanes, products)` for every row and vector of `units`, which begin at a panel.
///
/// # Safety
/// The rows at `h` must be readable; `packed` must hold the panels of `G` gates.
#[inline(always)]
unsafe fn each<S: Bits, const G: usize>(
    s: S,
    h: *const f32,
    rows: &Rows,
    m: usize,
    packed: &[f32],
    hidden: usize,
    units: Range<usize>,
    mut f: impl FnMut(usize, usize, usize, [S::F; G]),
) {
    let panel = hidden * G * UNITS;
    assert!(packed.len() >= hidden.div_ceil(UNITS) * panel, "weights shorter than packed_len");
    assert!(units.end <= hidden && units.start.is_multiple_of(UNITS), "no such units");
    let mut unit = units.start;
    while unit < units.end {
        let n = S::LEN.min(units.end - unit);
        // SAFETY: the panel of this unit is inside the weights, checked above; a vector of
        // units does not cross panels since 16 is a multiple of its length.
        unsafe {
            let w = packed.as_ptr().add(unit / UNITS * panel + unit % UNITS);
            if m == GROUP {
                let products = dots::<S, G>(s, h, rows.padded, w, hidden);
                for row in 0..GROUP {
                    f(row, unit, n, products[row]);
                }
            } else {
                for row in 0..m {
                    f(row, unit, n, dot::<S, G>(s, h.add(row * rows.padded), w, hidden));
                }
            }
        }
        unit += n;
    }
}

/// The rows and weights that the gates of a step read and write.
#[derive(Clone, Copy)]
struct Step<'a, S: Bits> {
    s: S,
    layer: &'a Layer<'a>,
    rows: &'a Rows,
}

impl<S: Bits> Step<'_, S> {
    /// Units `unit..unit + n` of a gate in a row of `gates * hidden`.
    #[inline(always)]
    fn part(self, x: &[f32], gate: usize, unit: usize, n: usize) -> S::F {
        let x = &x[gate * self.layer.hidden + unit..][..n];
        // SAFETY: the slice has n elements.
        unsafe { self.s.load_n(x.as_ptr(), n) }
    }

    /// # Safety
    /// `p` must be one of the group's scratch arrays, which are padded to whole vectors.
    #[inline(always)]
    unsafe fn load(self, p: *const f32, row: usize, unit: usize) -> S::F {
        // SAFETY: the caller's contract.
        unsafe { self.s.load(p.add(row * self.rows.padded + unit)) }
    }

    /// # Safety
    /// As for [`Self::load`].
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, row: usize, unit: usize, v: S::F) {
        // SAFETY: the caller's contract.
        unsafe { self.s.store(p.add(row * self.rows.padded + unit), v) }
    }

    /// # Safety
    /// As for [`Self::load`].
    #[inline(always)]
    unsafe fn keep(self, row: usize, unit: usize) {
        // SAFETY: the caller's contract.
        unsafe { self.store(self.rows.next, row, unit, self.load(self.rows.h, row, unit)) }
    }

    /// `activation(clip(v))` with the activation of this number.
    #[inline(always)]
    fn gate(self, activation: usize, v: S::F) -> S::F {
        let (s, clip) = (self.s, self.layer.clip);
        let v = s.min(s.splat(clip), s.max(s.splat(-clip), v));
        act(s, self.layer.activations[activation], v)
    }

    /// `v` plus the peephole's weight times the cell state.
    #[inline(always)]
    fn peep(self, gate: usize, unit: usize, n: usize, c: S::F, v: S::F) -> S::F {
        match self.layer.peepholes {
            Some(w) => self.s.fma(self.part(w, gate, unit, n), c, v),
            None => v,
        }
    }

    /// `z h + (1 - z) new` as the next state.
    ///
    /// # Safety
    /// As for [`Self::load`].
    #[inline(always)]
    unsafe fn mix(self, row: usize, unit: usize, z: S::F, new: S::F) {
        let s = self.s;
        // SAFETY: the caller's contract.
        unsafe {
            let h = self.load(self.rows.h, row, unit);
            let v = s.fma(z, h, s.mul(s.sub(s.splat(1.0), z), new));
            self.store(self.rows.next, row, unit, v);
        }
    }
}

/// Computes the next states of `m` rows in some units; rows without input keep theirs.
#[inline(always)]
pub(super) fn step<S: Bits>(
    s: S,
    kind: CellKind,
    layer: &Layer<'_>,
    rows: &Rows,
    m: usize,
    inputs: &[Option<&[f32]>; GROUP],
    units: Range<usize>,
) {
    let hidden = layer.hidden;
    let t = Step { s, layer, rows };
    // SAFETY: the states are in scratch rows of padded length.
    unsafe {
        match kind {
            CellKind::Lstm => each::<S, 4>(
                s,
                rows.h,
                rows,
                m,
                layer.packed,
                hidden,
                units,
                #[inline(always)]
                |row, u, n, p| {
                    let Some(x) = inputs[row] else { return t.keep(row, u) };
                    let c = t.load(rows.c, row, u);
                    let forget = t.gate(0, t.peep(0, u, n, c, s.add(t.part(x, 0, u, n), p[0])));
                    let i = t.gate(0, t.peep(1, u, n, c, s.add(t.part(x, 1, u, n), p[1])));
                    let new = t.gate(1, s.add(t.part(x, 2, u, n), p[2]));
                    let c = s.fma(forget, c, s.mul(i, new));
                    let out = t.gate(0, t.peep(2, u, n, c, s.add(t.part(x, 3, u, n), p[3])));
                    t.store(rows.c, row, u, c);
                    let h = s.mul(out, act(s, layer.activations[2], c));
                    t.store(rows.next, row, u, h);
                },
            ),
            CellKind::GruLinear => each::<S, 3>(
                s,
                rows.h,
                rows,
                m,
                layer.packed,
                hidden,
                units,
                #[inline(always)]
                |row, u, n, p| {
                    let Some(x) = inputs[row] else { return t.keep(row, u) };
                    let z = t.gate(0, s.add(t.part(x, 0, u, n), p[0]));
                    let r = t.gate(0, s.add(t.part(x, 1, u, n), p[1]));
                    let product = match layer.bias {
                        Some(b) => s.add(p[2], t.part(b, 0, u, n)),
                        None => p[2],
                    };
                    let new = t.gate(1, s.fma(r, product, t.part(x, 2, u, n)));
                    t.mix(row, u, z, new);
                },
            ),
            CellKind::Gru => {
                let (first, second) = layer.packed.split_at(2 * hidden * rows.padded);
                each::<S, 2>(
                    s,
                    rows.h,
                    rows,
                    m,
                    first,
                    hidden,
                    units.clone(),
                    #[inline(always)]
                    |row, u, n, p| {
                        let Some(x) = inputs[row] else { return };
                        let z = t.gate(0, s.add(t.part(x, 0, u, n), p[0]));
                        let r = t.gate(0, s.add(t.part(x, 1, u, n), p[1]));
                        t.store(rows.z, row, u, z);
                        t.store(rows.reset, row, u, s.mul(r, t.load(rows.h, row, u)));
                    },
                );
                each::<S, 1>(
                    s,
                    rows.reset,
                    rows,
                    m,
                    second,
                    hidden,
                    units,
                    #[inline(always)]
                    |row, u, n, p| {
                        let Some(x) = inputs[row] else { return t.keep(row, u) };
                        let new = t.gate(1, s.add(t.part(x, 2, u, n), p[0]));
                        t.mix(row, u, t.load(rows.z, row, u), new);
                    },
                );
            }
            CellKind::Plain => each::<S, 1>(
                s,
                rows.h,
                rows,
                m,
                layer.packed,
                hidden,
                units,
                #[inline(always)]
                |row, u, n, p| {
                    let Some(x) = inputs[row] else { return t.keep(row, u) };
                    t.store(rows.next, row, u, t.gate(0, s.add(t.part(x, 0, u, n), p[0])));
                },
            ),
        }
    }
}
