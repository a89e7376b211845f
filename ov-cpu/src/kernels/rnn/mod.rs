//! LSTM, GRU and plain recurrent cells over sequences, after the product of the inputs with
//! their weights has been computed for all steps at once.
#![allow(unsafe_code, reason = "vector loads and stores at computed offsets")]

mod cell;
mod pack;

use std::ops::Range;

pub use ov_core::op::fused::recurrent::CellKind;
pub use pack::{pack_recurrent, packed_len};

use crate::kernels::out::Out;
use crate::simd::activation::Activation;
use crate::simd::bits::Bits;
use crate::simd::lanes::instantiate;

/// Distances in elements; the elements of a row are contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceStrides {
    /// Between time steps.
    pub step: usize,
    /// Between sequences of the batch.
    pub batch: usize,
    /// Between directions.
    pub direction: usize,
}

/// How many steps each sequence of a batch has.
#[derive(Clone, Copy, Debug)]
pub enum Lengths<'a> {
    /// As `i32`.
    I32(&'a [i32]),
    /// As `i64`.
    I64(&'a [i64]),
}

impl Lengths<'_> {
    /// The length of a sequence.
    #[must_use]
    pub fn get(self, sequence: usize) -> i64 {
        match self {
            Self::I32(l) => i64::from(l[sequence]),
            Self::I64(l) => l[sequence],
        }
    }
}

/// A recurrent layer; per-direction tensors have the direction outermost.
#[derive(Clone, Copy, Debug)]
pub struct Rnn<'a> {
    /// The cell.
    pub kind: CellKind,
    /// Hidden size.
    pub hidden: usize,
    /// Time steps.
    pub steps: usize,
    /// Sequences.
    pub batch: usize,
    /// For every direction whether it runs backwards: `[false]`, `[true]` or `[false, true]`.
    pub reverse: &'a [bool],
    /// Activations per direction, in the order that [`CellKind`] states.
    pub activations: &'a [[Activation; 3]],
    /// Bound of the gates' sums, or infinity.
    pub clip: f32,
    /// Length of each sequence, or all of them `steps`. Beyond it the output is 0.
    pub lengths: Option<Lengths<'a>>,
    /// Recurrent weights by [`pack_recurrent`], one direction after the other.
    pub packed: &'a [f32],
    /// For [`CellKind::GruLinear`] the recurrent bias of the gate h: `[directions, hidden]`.
    pub recurrent_bias: Option<&'a [f32]>,
    /// For [`CellKind::Lstm`] the peepholes f, i, o: `[directions, 3 * hidden]`.
    pub peepholes: Option<&'a [f32]>,
    /// Layout of the input products, whose rows are `gates * hidden` and hold all other biases.
    pub x: SequenceStrides,
    /// Layout of the output, whose rows are `hidden`.
    pub y: SequenceStrides,
}

/// Start and end states, `[batch, directions, hidden]` each.
#[derive(Debug)]
pub struct States<'a> {
    /// Hidden states before the first step, or zeros.
    pub first_hidden: Option<&'a [f32]>,
    /// Cell states before the first step, or zeros; LSTM only.
    pub first_cell: Option<&'a [f32]>,
    /// Hidden states after the last step.
    pub last_hidden: Option<&'a Out<'a, f32>>,
    /// Cell states after the last step; LSTM only.
    pub last_cell: Option<&'a Out<'a, f32>>,
}

/// Sequences that share one pass over the weights.
const GROUP: usize = 4;

/// Hidden units of a weight panel.
const UNITS: usize = 16;

impl Rnn<'_> {
    /// Work items: groups of four sequences of each direction.
    #[must_use]
    pub fn items(&self) -> usize {
        self.reverse.len() * self.batch.div_ceil(GROUP)
    }

    /// Floats of scratch per thread.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        Self::scratch_len_of(self.hidden)
    }

    /// Floats of scratch per thread for states of this extent.
    #[must_use]
    pub fn scratch_len_of(hidden: usize) -> usize {
        5 * GROUP * hidden.next_multiple_of(UNITS)
    }

    /// Whether [`rnn_shared_f32`] takes it: one sequence in one direction, units in whole panels, one product per step.
    #[must_use]
    pub fn can_share(&self) -> bool {
        self.batch == 1
            && self.reverse.len() == 1
            && self.lengths.is_none()
            && self.kind != CellKind::Gru
            && self.hidden.is_multiple_of(UNITS)
    }

    /// The units that thread `part` of `parts` computes.
    #[must_use]
    pub fn units(&self, part: usize, parts: usize) -> Range<usize> {
        let panels = self.hidden / UNITS;
        panels * part / parts * UNITS..panels * (part + 1) / parts * UNITS
    }

    fn direction(&self, d: usize) -> cell::Layer<'_> {
        let (hidden, packed_len) = (self.hidden, packed_len(self.kind, self.hidden));
        cell::Layer {
            hidden,
            clip: self.clip,
            activations: self.activations[d],
            packed: &self.packed[d * packed_len..(d + 1) * packed_len],
            bias: self.recurrent_bias.map(|b| &b[d * hidden..(d + 1) * hidden]),
            peepholes: self.peepholes.map(|p| &p[d * 3 * hidden..(d + 1) * 3 * hidden]),
        }
    }

    fn length(&self, sequence: usize) -> usize {
        self.lengths
            .map_or(self.steps, |l| usize::try_from(l.get(sequence)).unwrap_or(0).min(self.steps))
    }
}

/// Rows of a group: state, next state, cell state and two temporaries, `padded` apart.
struct Rows {
    h: *mut f32,
    next: *mut f32,
    c: *mut f32,
    z: *mut f32,
    reset: *mut f32,
    padded: usize,
}

#[inline(always)]
fn body<S: Bits>(
    s: S,
    r: &Rnn<'_>,
    x: &[f32],
    states: &States<'_>,
    y: Option<&Out<'_, f32>>,
    scratch: &mut [f32],
    range: Range<usize>,
) {
    let (hidden, padded) = (r.hidden, r.hidden.next_multiple_of(UNITS));
    let groups = r.batch.div_ceil(GROUP);
    let gates = r.kind.gates();
    for item in range {
        let (d, first) = (item / groups, item % groups * GROUP);
        let m = GROUP.min(r.batch - first);
        let state_at = |row: usize| ((first + row) * r.reverse.len() + d) * hidden;
        scratch[..5 * GROUP * padded].fill(0.0);
        for row in 0..m {
            let at = state_at(row);
            if let Some(h) = states.first_hidden {
                scratch[row * padded..][..hidden].copy_from_slice(&h[at..at + hidden]);
            }
            if let Some(c) = states.first_cell {
                scratch[(2 * GROUP + row) * padded..][..hidden]
                    .copy_from_slice(&c[at..at + hidden]);
            }
        }
        let base = scratch.as_mut_ptr();
        // SAFETY: the scratch has 5 * GROUP rows, as the fill above checked.
        let part = |k: usize| unsafe { base.add(k * GROUP * padded) };
        let mut rows =
            Rows { h: part(0), next: part(1), c: part(2), z: part(3), reset: part(4), padded };
        let lengths: [usize; GROUP] =
            std::array::from_fn(|row| if row < m { r.length(first + row) } else { 0 });
        for step in 0..lengths.iter().copied().max().unwrap_or(0) {
            let time = |row: usize| {
                if r.reverse[d] { lengths[row].saturating_sub(step + 1) } else { step }
            };
            let inputs: [Option<&[f32]>; GROUP] = std::array::from_fn(|row| {
                (step < lengths[row]).then(|| {
                    let at = time(row) * r.x.step + (first + row) * r.x.batch + d * r.x.direction;
                    &x[at..at + gates * hidden]
                })
            });
            let layer = r.direction(d);
            cell::step(s, r.kind, &layer, &rows, m, &inputs, 0..hidden);
            std::mem::swap(&mut rows.h, &mut rows.next);
            let Some(y) = y else { continue };
            for row in (0..m).filter(|row| step < lengths[*row]) {
                let at = time(row) * r.y.step + (first + row) * r.y.batch + d * r.y.direction;
                // SAFETY: the output row belongs to this item; the state has `hidden` elements.
                unsafe {
                    let h = std::slice::from_raw_parts(rows.h.add(row * padded), hidden);
                    y.slice(at..at + hidden).copy_from_slice(h);
                }
            }
        }
        for row in 0..m {
            if let Some(y) = y {
                for t in lengths[row]..r.steps {
                    let at = t * r.y.step + (first + row) * r.y.batch + d * r.y.direction;
                    // SAFETY: the output row belongs to this item.
                    unsafe { y.slice(at..at + hidden) }.fill(0.0);
                }
            }
            let at = state_at(row);
            for (to, from) in [(states.last_hidden, rows.h), (states.last_cell, rows.c)] {
                if let Some(to) = to {
                    // SAFETY: the state row belongs to this item; scratch rows are padded.
                    unsafe {
                        let from = std::slice::from_raw_parts(from.add(row * padded), hidden);
                        to.slice(at..at + hidden).copy_from_slice(from);
                    }
                }
            }
        }
    }
}

instantiate! {
    /// Runs the items `range` of [`Rnn::items`]: `x` holds the products of the inputs with
    /// their weights plus biases, `y` gets the hidden states of all steps.
    ///
    /// # Panics
    /// If a slice is shorter than its shape or [`Rnn::scratch_len`].
    pub fn rnn_f32(
        r: &Rnn<'_>, x: &[f32], states: &States<'_>, y: Option<&Out<'_, f32>>,
        scratch: &mut [f32], range: Range<usize>,
    ) = body;
}

/// `units` of every step. The rows of `y` are the hidden states, so that all threads see them.
#[inline(always)]
fn shared_body<S: Bits>(
    s: S,
    r: &Rnn<'_>,
    x: &[f32],
    states: &States<'_>,
    y: &Out<'_, f32>,
    scratch: &mut [f32],
    units: Range<usize>,
    wait: &dyn Fn() -> bool,
) -> bool {
    assert!(r.can_share(), "more than one sequence, direction or product");
    let (hidden, gates) = (r.hidden, r.kind.gates());
    let (zeros, c) = scratch[..2 * hidden].split_at_mut(hidden);
    zeros.fill(0.0);
    match states.first_cell {
        Some(first) => c.copy_from_slice(&first[..hidden]),
        None => c.fill(0.0),
    }
    let first = states.first_hidden.map_or(&*zeros, |h| &h[..hidden]);
    let layer = r.direction(0);
    let none = std::ptr::null_mut();
    let mut rows = Rows {
        h: first.as_ptr().cast_mut(),
        next: none,
        c: c.as_mut_ptr(),
        z: none,
        reset: none,
        padded: hidden,
    };
    for step in 0..r.steps {
        let time = if r.reverse[0] { r.steps - 1 - step } else { step };
        let at = time * r.x.step;
        let inputs = [Some(&x[at..at + gates * hidden]), None, None, None];
        rows.next = y.at(time * r.y.step, hidden);
        cell::step(s, r.kind, &layer, &rows, 1, &inputs, units.clone());
        rows.h = rows.next;
        if !wait() {
            return false;
        }
    }
    for (to, from) in [(states.last_hidden, rows.h), (states.last_cell, rows.c)] {
        if let Some(to) = to {
            // SAFETY: the units belong to this thread; both rows hold `hidden` elements.
            unsafe {
                let from = std::slice::from_raw_parts(from.add(units.start), units.len());
                to.slice(units.clone()).copy_from_slice(from);
            }
        }
    }
    true
}

instantiate! {
    /// [`rnn_f32`] for a layer that [`Rnn::can_share`], by several threads at once: each computes its
    /// `units` ([`Rnn::units`]) of every step, and `wait` returns when all threads have called it.
    /// Ends early, with false, when `wait` gives false.
    ///
    /// # Panics
    /// If a slice is shorter than its shape or [`Rnn::scratch_len`], or the layer cannot be shared.
    pub fn rnn_shared_f32(
        r: &Rnn<'_>, x: &[f32], states: &States<'_>, y: &Out<'_, f32>, scratch: &mut [f32],
        units: Range<usize>, wait: &dyn Fn() -> bool,
    ) -> bool = shared_body;
}

#[cfg(test)]
mod tests;
