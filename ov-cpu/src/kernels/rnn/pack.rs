//! Recurrent weights in the order in which a step reads them.

use super::{CellKind, UNITS};

/// How many gates each panel of a cell holds, panel sets in order.
pub(super) fn sets(kind: CellKind) -> &'static [usize] {
    match kind {
        CellKind::Lstm => &[4],
        CellKind::Gru => &[2, 1],
        CellKind::GruLinear => &[3],
        CellKind::Plain => &[1],
    }
}

/// Floats of one direction's packed recurrent weights.
#[must_use]
pub fn packed_len(kind: CellKind, hidden: usize) -> usize {
    kind.gates() * hidden * hidden.next_multiple_of(UNITS)
}

/// Packs one direction's `weights: [gates * hidden, hidden]` (row = unit that is computed) as
/// panels of 16 units: `[panel][hidden][gate][16]`, units padded with zeros. A GRU that resets
/// before the product has the panels of z and r first, then those of h.
///
/// # Panics
/// If a slice is shorter than its shape.
pub fn pack_recurrent(kind: CellKind, hidden: usize, weights: &[f32], packed: &mut [f32]) {
    let panels = hidden.div_ceil(UNITS);
    let (mut at, mut first_gate) = (0, 0);
    for gates in sets(kind) {
        for p in 0..panels {
            for k in 0..hidden {
                for g in 0..*gates {
                    for u in 0..UNITS {
                        let unit = p * UNITS + u;
                        let row = (first_gate + g) * hidden + unit;
                        packed[at] = if unit < hidden { weights[row * hidden + k] } else { 0.0 };
                        at += 1;
                    }
                }
            }
        }
        first_gate += gates;
    }
}
