//! Scans: coefficients from bits, sequential and progressive. ITU-T T.81, annexes F and G.

use super::{
    Frame, ZIGZAG,
    huffman::{Bits, Table},
};

/// The parameters of a scan.
#[derive(Debug)]
pub(super) struct Scan {
    /// Components, with their tables for the first and the other coefficients.
    pub(super) members: Vec<(usize, (usize, usize))>,
    /// Coefficients from and to.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Lowest bit of the scan before, and of this one.
    pub(super) high: u8,
    pub(super) low: u8,
    /// Units between restarts.
    pub(super) restart: usize,
}

/// What carries over from block to block.
#[derive(Debug, Default)]
struct State {
    predictions: [i32; 4],
    /// Blocks left that have no more coefficients.
    ended: u32,
}

type Tables = [Option<Table>; 4];

impl Scan {
    /// Reads the scan into the frame; gives the bytes after it.
    pub(super) fn read<'b>(
        &self,
        frame: &mut Frame,
        dc: &Tables,
        ac: &Tables,
        data: &'b [u8],
    ) -> Option<&'b [u8]> {
        let valid = if frame.is_progressive {
            self.start <= self.end
                && self.end < 64
                && (self.start > 0 || self.end == 0)
                && (self.start == 0 || self.members.len() == 1)
                && self.low < 14
        } else {
            true
        };
        if !valid || self.members.is_empty() {
            return None;
        }
        let (units_x, units_y) = match &self.members[..] {
            [(only, _)] => {
                let c = &frame.components[*only];
                (c.width.div_ceil(8), c.height.div_ceil(8))
            }
            _ => (frame.width.div_ceil(8 * frame.h_max), frame.height.div_ceil(8 * frame.v_max)),
        };
        let mut bits = Bits::new(data);
        let mut state = State::default();
        for unit in 0..units_x * units_y {
            if self.restart > 0 && unit > 0 && unit.is_multiple_of(self.restart) {
                bits = Bits::new(match bits.rest() {
                    [0xFF, 0xD0..=0xD7, rest @ ..] => rest,
                    _ => return None,
                });
                state = State::default();
            }
            let (x, y) = (unit % units_x, unit / units_x);
            for (member, (index, tables)) in self.members.iter().enumerate() {
                let c = &mut frame.components[*index];
                let (h, v) = if self.members.len() == 1 { (1, 1) } else { (c.h, c.v) };
                for (row, column) in (0..v).flat_map(|r| (0..h).map(move |k| (r, k))) {
                    let at = ((y * v + row) * c.stride + x * h + column) * 64;
                    let block = c.blocks.get_mut(at..at + 64)?;
                    let (dc, ac) = (dc.get(tables.0)?.as_ref(), ac.get(tables.1)?.as_ref());
                    if !frame.is_progressive {
                        sequential(&mut bits, block, &mut state.predictions[member], dc?, ac?)?;
                    } else if self.start == 0 {
                        self.first_coefficient(&mut bits, block, &mut state.predictions[member], dc)?;
                    } else if self.high == 0 {
                        self.coefficients(&mut bits, block, &mut state.ended, ac?)?;
                    } else {
                        self.refine(&mut bits, block, &mut state.ended, ac?)?;
                    }
                }
            }
        }
        Some(bits.rest())
    }

    fn first_coefficient(
        &self,
        bits: &mut Bits<'_>,
        block: &mut [i16],
        prediction: &mut i32,
        table: Option<&Table>,
    ) -> Option<()> {
        if self.high > 0 {
            block[0] |= (bits.take(1)? << self.low) as i16;
            return Some(());
        }
        let size = bits.code(table?)?;
        *prediction = prediction.wrapping_add(bits.number(size)?);
        block[0] = (*prediction << self.low) as i16;
        Some(())
    }

    fn coefficients(
        &self,
        bits: &mut Bits<'_>,
        block: &mut [i16],
        ended: &mut u32,
        table: &Table,
    ) -> Option<()> {
        if *ended > 0 {
            *ended -= 1;
            return Some(());
        }
        let mut k = self.start;
        while k <= self.end {
            let code = bits.code(table)?;
            let (run, size) = (code >> 4, code & 15);
            match (run, size) {
                (15, 0) => k += 16,
                (_, 0) => {
                    *ended = (1 << run) - 1 + bits.take(u32::from(run))?;
                    break;
                }
                _ => {
                    k += usize::from(run);
                    let place = ZIGZAG.get(k).filter(|_| k <= self.end)?;
                    block[usize::from(*place)] = (bits.number(size)? << self.low) as i16;
                    k += 1;
                }
            }
        }
        Some(())
    }

    fn refine(
        &self,
        bits: &mut Bits<'_>,
        block: &mut [i16],
        ended: &mut u32,
        table: &Table,
    ) -> Option<()> {
        let step = 1i16 << self.low;
        // One more bit of a coefficient that is not zero.
        let correct = |bits: &mut Bits<'_>, value: &mut i16| -> Option<()> {
            if bits.take(1)? == 1 && *value & step == 0 {
                *value = value.wrapping_add(if *value >= 0 { step } else { -step });
            }
            Some(())
        };
        let mut k = self.start;
        if *ended == 0 {
            while k <= self.end {
                let code = bits.code(table)?;
                let (mut run, size) = (code >> 4, code & 15);
                let mut fresh = 0;
                match (run, size) {
                    (15, 0) => {}
                    (_, 0) => {
                        *ended = (1 << run) + bits.take(u32::from(run))?;
                        break;
                    }
                    (_, 1) => fresh = if bits.take(1)? == 1 { step } else { -step },
                    _ => return None,
                }
                while k <= self.end {
                    let value = &mut block[usize::from(ZIGZAG[k])];
                    k += 1;
                    if *value != 0 {
                        correct(bits, value)?;
                    } else if run == 0 {
                        *value = fresh;
                        break;
                    } else {
                        run -= 1;
                    }
                }
            }
        }
        if *ended > 0 {
            for place in &ZIGZAG[k.min(self.end + 1)..=self.end] {
                let value = &mut block[usize::from(*place)];
                if *value != 0 {
                    correct(bits, value)?;
                }
            }
            *ended -= 1;
        }
        Some(())
    }
}

fn sequential(
    bits: &mut Bits<'_>,
    block: &mut [i16],
    prediction: &mut i32,
    dc: &Table,
    ac: &Table,
) -> Option<()> {
    let size = bits.code(dc)?;
    *prediction = prediction.wrapping_add(bits.number(size)?);
    block[0] = *prediction as i16;
    let mut k = 1;
    while k < 64 {
        let code = bits.code(ac)?;
        let (run, size) = (code >> 4, code & 15);
        match (run, size) {
            (15, 0) => k += 16,
            (_, 0) => break,
            _ => {
                k += usize::from(run);
                block[usize::from(*ZIGZAG.get(k)?)] = bits.number(size)? as i16;
                k += 1;
            }
        }
    }
    Some(())
}
