//! Weights of bytes less their zero points, as the packing of every integer kernel reads them.

use std::ops::Range;

use ov_core::{ElementType, Tensor};

use super::{NodeView, Reject};
use crate::ops::integer::Port;

/// Weights less their zero points.
pub(super) struct Centred {
    pub(super) bytes: Tensor,
    /// None: all zero. One: of all. Else one per output.
    zeros: Vec<i32>,
    /// Added to a byte modulo 256 and taken from the number then: 128 where bytes are signed.
    flip: u8,
}

#[inline(always)]
fn number(byte: u8, flip: u8) -> i32 {
    i32::from(byte ^ flip) - i32::from(flip)
}

impl Centred {
    /// The weights of a node whose ports are [`Port`]'s.
    pub(super) fn new(view: &NodeView<'_>) -> Result<Self, Reject> {
        let zeros = match view.inputs.get(Port::W_ZERO).and_then(|i| i.constant) {
            Some(z) if !z.is_absent() => {
                let zeros = z.to_i64_vec().map_err(|e| e.to_string())?;
                zeros.into_iter().map(|z| z as i32).collect()
            }
            _ => Vec::new(),
        };
        Self::of(view.constant(Port::W)?, zeros)
    }

    /// These weights with these zero points: none, one, or one per output.
    pub(super) fn of(weights: &Tensor, mut zeros: Vec<i32>) -> Result<Self, Reject> {
        let flip = match weights.element_type() {
            ElementType::I8 => 128,
            ElementType::U8 => 0,
            other => return Err(format!("takes weights of bytes, not of {other}").into()),
        };
        if zeros.iter().all(|z| *z == 0) {
            zeros.clear();
        }
        Ok(Self { bytes: weights.to_contiguous(), zeros, flip })
    }

    fn zero(&self, output: usize) -> i32 {
        match &self.zeros[..] {
            [] => 0,
            [zero] => *zero,
            zeros => zeros[output],
        }
    }

    /// Reads weight number `at`, which belongs to `output`.
    pub(super) fn reader(&self) -> impl Fn(usize, usize) -> i32 + '_ {
        let (bytes, zeros, flip) = (self.bytes.unaligned_bytes(), &self.zeros[..], self.flip);
        move |at, output| {
            let zero = match zeros {
                [] => 0,
                [zero] => *zero,
                zeros => zeros[output],
            };
            number(bytes[at], flip) - zero
        }
    }

    /// The weights from number `at` on, which belong to `outputs` in turn.
    pub(super) fn row(&self, at: usize, outputs: Range<usize>, line: &mut [i32]) {
        let bytes = &self.bytes.unaligned_bytes()[at..][..line.len()];
        for (y, byte) in line.iter_mut().zip(bytes) {
            *y = number(*byte, self.flip);
        }
        match &self.zeros[..] {
            [] => {}
            [zero] => line.iter_mut().for_each(|y| *y -= zero),
            zeros => line.iter_mut().zip(&zeros[outputs]).for_each(|(y, zero)| *y -= zero),
        }
    }

    /// Whether some weight does not fit s8, so that columns are shifted. The weights of each of `outputs` lie together.
    pub(super) fn shifted(&self, outputs: usize) -> Result<bool, Reject> {
        self.check_zeros(outputs)?;
        let each = (self.bytes.len() / outputs.max(1)).max(1);
        Ok(!self.as_they_are()
            && self.bytes.unaligned_bytes().chunks(each).enumerate().any(|(output, bytes)| {
                let numbers = bytes.iter().map(|b| number(*b, self.flip));
                let zero = self.zero(output);
                let range = (zero, zero);
                let (low, high) = numbers.fold(range, |(low, high), v| (low.min(v), high.max(v)));
                i8::try_from(low - zero).is_err() || i8::try_from(high - zero).is_err()
            }))
    }

    /// [`Centred::shifted`] of matrices `[groups, rows, outputs / groups]`.
    pub(super) fn shifted_rows(&self, outputs: usize, groups: usize) -> Result<bool, Reject> {
        self.check_zeros(outputs)?;
        let width = outputs / groups.max(1);
        let matrix = self.bytes.len() / groups.max(1);
        let mut line = vec![0; width];
        let mut unfit = |at: usize| {
            let first = at / matrix.max(1) * width;
            self.row(at, first..first + width, &mut line);
            line.iter().fold(0, |unfit, v| unfit | (v + 128) & !255) != 0
        };
        Ok(!self.as_they_are() && width > 0 && (0..self.bytes.len()).step_by(width).any(&mut unfit))
    }

    fn as_they_are(&self) -> bool {
        self.flip != 0 && self.zeros.is_empty()
    }

    fn check_zeros(&self, outputs: usize) -> Result<(), Reject> {
        if self.zeros.len() > 1 && self.zeros.len() != outputs {
            return Err("takes one zero point of weights, or one per output".into());
        }
        Ok(())
    }
}
