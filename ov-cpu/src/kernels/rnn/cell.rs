//! One time step of a group of sequences: recurrent products and gates, 16 units at a time.
#![allow(unsafe_code, reason = "vector loads and stores at computed offsets")]

use super::{CellKind, GROUP, Rows, UNITS};
use crate::simd::activation::{self, Activation, Visitor};
use crate::simd::bits::Bits;
use crate::simd::math::Unary;

/// What a step needs of one direction of a layer.
pub(super) struct Layer<'a> {
    pub(super) hidden: usize,
    pub(super) clip: f32,
    pub(super) activations: [Activation; 3],
    pub(super) packed: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) peepholes: Option<&'a [f32]>,
}

struct Eval<'a, S: Bits> {
    s: S,
    x: &'a mut S::F,
}

impl<S: Bits> Visitor for Eval<'_, S> {
    #[inline(always)]
    fn visit<U: Unary>(self, u: U) {
        *self.x = u.eval(self.s, *self.x);
    }
}

#[inline(always)]
fn act<S: Bits>(s: S, a: Activation, x: S::F) -> S::F {
    let mut r = x;
    match a {
        Activation::Sigmoid => crate::simd::math::sigmoid(s, x),
        Activation::Tanh => crate::simd::math::tanh(s, x),
        _ => {
            activation::dispatch(a, Eval { s, x: &mut r });
            r
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
    let mut acc = [[s.zero(); G]; 2];
    let mut k = 0;
    // SAFETY: steps are below `hidden`.
    unsafe {
        while k + 2 <= hidden {
            for (j, acc) in acc.iter_mut().enumerate() {
                let x = s.splat(*h.add(k + j));
                for (g, a) in acc.iter_mut().enumerate() {
                    *a = s.fma(x, s.load(w.add(((k + j) * G + g) * UNITS)), *a);
                }
            }
            k += 2;
        }
        if k < hidden {
            let x = s.splat(*h.add(k));
            for (g, a) in acc[0].iter_mut().enumerate() {
                *a = s.fma(x, s.load(w.add((k * G + g) * UNITS)), *a);
            }
        }
    }
    std::array::from_fn(|g| s.add(acc[0][g], acc[1][g]))
}

/// [`dot`] for the first `m` of the group's rows, `padded` apart.
///
/// # Safety
/// As for [`dot`], for every row.
#[inline(always)]
unsafe fn dots<S: Bits, const G: usize>(
    s: S,
    h: *const f32,
    padded: usize,
    m: usize,
    w: *const f32,
    hidden: usize,
) -> [[S::F; G]; GROUP] {
    let mut acc = [[s.zero(); G]; GROUP];
    // SAFETY: the caller's contract.
    unsafe {
        if m < GROUP {
            for (row, acc) in acc.iter_mut().enumerate().take(m) {
                *acc = dot::<S, G>(s, h.add(row * padded), w, hidden);
            }
            return acc;
        }
        for k in 0..hidden {
            let mut x = [s.zero(); G];
            for (g, x) in x.iter_mut().enumerate() {
                *x = s.load(w.add((k * G + g) * UNITS));
            }
            for (row, acc) in acc.iter_mut().enumerate() {
                let v = s.splat(*h.add(row * padded + k));
                for g in 0..G {
                    acc[g] = s.fma(v, x[g], acc[g]);
                }
            }
        }
    }
    acc
}

/// Calls `f(row, unit, lanes, products)` for every row and vector of units.
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
    mut f: impl FnMut(usize, usize, usize, [S::F; G]),
) {
    let panel = hidden * G * UNITS;
    assert!(packed.len() >= hidden.div_ceil(UNITS) * panel, "weights shorter than packed_len");
    let mut unit = 0;
    while unit < hidden {
        let n = S::LEN.min(hidden - unit);
        // SAFETY: the panel of this unit is inside the weights, checked above; a vector of
        // units does not cross panels since 16 is a multiple of its length.
        let products = unsafe {
            let w = packed.as_ptr().add(unit / UNITS * panel + unit % UNITS);
            dots::<S, G>(s, h, rows.padded, m, w, hidden)
        };
        for (row, p) in products.into_iter().enumerate().take(m) {
            f(row, unit, n, p);
        }
        unit += n;
    }
}

/// Computes the next states of `m` rows; rows without input keep theirs.
#[inline(always)]
pub(super) fn step<S: Bits>(
    s: S,
    kind: CellKind,
    layer: &Layer<'_>,
    rows: &Rows,
    m: usize,
    inputs: &[Option<&[f32]>; GROUP],
) {
    let hidden = layer.hidden;
    let [f, g, o] = layer.activations;
    let (low, high) = (s.splat(-layer.clip), s.splat(layer.clip));
    let clip = |v: S::F| s.min(high, s.max(low, v));
    // SAFETY: units below `hidden` have n elements in every slice, sliced here.
    let part = |x: &[f32], gate: usize, unit: usize, n: usize| unsafe {
        s.load_n(x[gate * hidden + unit..][..n].as_ptr(), n)
    };
    // SAFETY: scratch rows are padded to whole vectors, so every unit has a vector of room.
    let load =
        |p: *const f32, row: usize, unit: usize| unsafe { s.load(p.add(row * rows.padded + unit)) };
    // SAFETY: as for the loads.
    let store = |p: *mut f32, row: usize, unit: usize, v| unsafe {
        s.store(p.add(row * rows.padded + unit), v)
    };
    let keep = |row: usize, unit: usize| store(rows.next, row, unit, load(rows.h, row, unit));
    let one = s.splat(1.0);
    // SAFETY: the states are in scratch rows of padded length.
    unsafe {
        match kind {
            CellKind::Lstm => {
                each::<S, 4>(s, rows.h, rows, m, layer.packed, hidden, |row, u, n, p| {
                    let Some(x) = inputs[row] else { return keep(row, u) };
                    let c = load(rows.c, row, u);
                    let peep = |gate, c, v| match layer.peepholes {
                        Some(w) => s.fma(part(w, gate, u, n), c, v),
                        None => v,
                    };
                    let sum = |gate: usize| s.add(part(x, gate, u, n), p[gate]);
                    let i = act(s, f, clip(peep(0, c, sum(0))));
                    let forget = act(s, f, clip(peep(2, c, sum(2))));
                    let new = act(s, g, clip(sum(3)));
                    let c = s.fma(forget, c, s.mul(i, new));
                    let out = act(s, f, clip(peep(1, c, sum(1))));
                    store(rows.c, row, u, c);
                    store(rows.next, row, u, s.mul(out, act(s, o, c)));
                })
            }
            CellKind::GruLinear => {
                each::<S, 3>(s, rows.h, rows, m, layer.packed, hidden, |row, u, n, p| {
                    let Some(x) = inputs[row] else { return keep(row, u) };
                    let z = act(s, f, clip(s.add(part(x, 0, u, n), p[0])));
                    let r = act(s, f, clip(s.add(part(x, 1, u, n), p[1])));
                    let rec = layer.bias.map_or(p[2], |b| s.add(p[2], part(b, 0, u, n)));
                    let new = act(s, g, clip(s.fma(r, rec, part(x, 2, u, n))));
                    let h = load(rows.h, row, u);
                    store(rows.next, row, u, s.fma(z, h, s.mul(s.sub(one, z), new)));
                })
            }
            CellKind::Gru => {
                let (first, second) = layer.packed.split_at(2 * hidden * rows.padded);
                each::<S, 2>(s, rows.h, rows, m, first, hidden, |row, u, n, p| {
                    let Some(x) = inputs[row] else { return };
                    let z = act(s, f, clip(s.add(part(x, 0, u, n), p[0])));
                    let r = act(s, f, clip(s.add(part(x, 1, u, n), p[1])));
                    store(rows.z, row, u, z);
                    store(rows.reset, row, u, s.mul(r, load(rows.h, row, u)));
                });
                each::<S, 1>(s, rows.reset, rows, m, second, hidden, |row, u, n, p| {
                    let Some(x) = inputs[row] else { return keep(row, u) };
                    let z = load(rows.z, row, u);
                    let new = act(s, g, clip(s.add(part(x, 2, u, n), p[0])));
                    let h = load(rows.h, row, u);
                    store(rows.next, row, u, s.fma(z, h, s.mul(s.sub(one, z), new)));
                });
            }
            CellKind::Plain => {
                each::<S, 1>(s, rows.h, rows, m, layer.packed, hidden, |row, u, n, p| {
                    let Some(x) = inputs[row] else { return keep(row, u) };
                    store(rows.next, row, u, act(s, f, clip(s.add(part(x, 0, u, n), p[0]))));
                })
            }
        }
    }
}
