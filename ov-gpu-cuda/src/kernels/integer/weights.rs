//! Weights of bytes less their zero points, as the integer kernels read them.

use ov_core::{ElementType, Tensor, op::fused::integer::Port};

use super::super::{Pack, Reject, Selecting, host::is_given, linear::constant};

/// Weights less their zero points, as they lie in the model.
pub(super) struct Weights {
    bytes: Tensor,
    /// None: all zero. One: of all. Else one per output.
    zeros: Vec<i32>,
    signed: bool,
    /// How the outputs run through the weights.
    order: Order,
    outputs: usize,
}

/// Where the output of a weight stands among its indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// First: the weights of an output lie together.
    OutputsFirst,
    /// Last.
    OutputsLast,
}

/// What is known of the weights of each output.
pub(super) struct Columns {
    /// Their sums.
    pub(super) sums: Vec<i32>,
    /// What to take from them so that they fit `i8`; none where they all do.
    pub(super) shifts: Option<Vec<i32>>,
}

impl Weights {
    /// The weights of a node whose ports are [`Port`]'s.
    ///
    /// # Errors
    /// When they, or their zero points, are not constant, or there is another number of zero points.
    pub(super) fn of(node: &Selecting<'_>, outputs: usize, order: Order) -> Result<Self, Reject> {
        let bytes = constant(node, Port::W, "weights")?;
        let signed = match bytes.element_type() {
            ElementType::I8 => true,
            ElementType::U8 => false,
            other => return Err(format!("takes weights of bytes, not of {other}").into()),
        };
        let mut zeros = Vec::new();
        if is_given(node, Port::W_ZERO) {
            let given = constant(node, Port::W_ZERO, "zero points of weights")?;
            let given = given.to_i64_vec().map_err(|e| e.to_string())?;
            zeros.extend(given.into_iter().map(|z| z as i32));
        }
        if zeros.len() > 1 && zeros.len() != outputs {
            return Err("takes one zero point of weights, or one per output".into());
        }
        if zeros.iter().all(|z| *z == 0) {
            zeros.clear();
        }
        Ok(Self { bytes: bytes.to_contiguous(), zeros, signed, order, outputs })
    }

    /// Weight number `at`, which belongs to `output`.
    fn read(&self, at: usize, output: usize) -> i32 {
        let byte = self.bytes.unaligned_bytes()[at];
        let number = if self.signed { i32::from(byte.cast_signed()) } else { i32::from(byte) };
        let zero = match &self.zeros[..] {
            [] => 0,
            [zero] => *zero,
            zeros => zeros[output],
        };
        number - zero
    }

    /// Sums and shifts of the weights of each output.
    pub(super) fn columns(&self) -> Columns {
        let outputs = self.outputs;
        let each = (self.bytes.len() / outputs.max(1)).max(1);
        let (mut sums, mut ranges) = (vec![0; outputs], vec![(0, 0); outputs]);
        let mut add = |at: usize, output: usize| {
            let v = self.read(at, output);
            sums[output] += v;
            let (low, high): &mut (i32, i32) = &mut ranges[output];
            (*low, *high) = (v.min(*low), v.max(*high));
        };
        for at in 0..self.bytes.len() {
            match self.order {
                Order::OutputsFirst => add(at, at / each),
                Order::OutputsLast => add(at, at % outputs),
            }
        }
        // A byte less a zero point of its type spans at most 255 steps, so that some shift makes it fit.
        let shift = |(low, high): &(i32, i32)| (low + 128).min(0) + (high - 127).max(0);
        let shifts: Vec<i32> = ranges.iter().map(shift).collect();
        Columns { sums, shifts: shifts.iter().any(|s| *s != 0).then_some(shifts) }
    }

    /// Rows of `k` bytes, one per output, less `shifts`; weight `(output, column)` from where `from` says.
    pub(super) fn pack_rows(
        self,
        k: usize,
        shifts: Option<Vec<i32>>,
        from: impl Fn(usize, usize) -> usize + Send + 'static,
    ) -> Pack {
        let (n, row) = (self.outputs, row_len(k));
        let fill = move |bytes: &mut [u8]| {
            for_each_square(n, k, |output, column| {
                let shift = shifts.as_ref().map_or(0, |s| s[output]);
                let v = self.read(from(output, column), output) - shift;
                bytes[output * row + column] = (v as i8).cast_unsigned();
            });
        };
        Pack { len: n * row, fill: Box::new(fill) }
    }

    /// Rows of an `i16` per output, one per tap, as depthwise convolutions read them.
    pub(super) fn pack_taps(self, taps: usize) -> Pack {
        let (n, row) = (self.outputs, tap_len(self.outputs));
        let fill = move |bytes: &mut [u8]| {
            for_each_square(n, taps, |output, tap| {
                let v = self.read(output * taps + tap, output) as i16;
                bytes[(tap * row + output) * 2..][..2].copy_from_slice(&v.to_le_bytes());
            });
        };
        Pack { len: taps * row * 2, fill: Box::new(fill) }
    }
}

/// Bytes of a row of `k` packed weights: whole copies of 16.
pub(super) fn row_len(k: usize) -> usize {
    k.next_multiple_of(16)
}

/// Elements of a row of `i16`, one per output: whole loads of 16 bytes.
pub(super) fn tap_len(outputs: usize) -> usize {
    outputs.next_multiple_of(8)
}

/// Numbers, one per output.
pub(super) fn pack_i32(values: Vec<i32>) -> Pack {
    let len = values.len() * 4;
    let fill = move |bytes: &mut [u8]| {
        for (to, v) in bytes.chunks_exact_mut(4).zip(&values) {
            to.copy_from_slice(&v.to_le_bytes());
        }
    };
    Pack { len, fill: Box::new(fill) }
}

/// Calls `f` with every place of a matrix, in squares, so that neither its rows nor its columns leave the cache from one
/// element to the next.
fn for_each_square(rows: usize, columns: usize, mut f: impl FnMut(usize, usize)) {
    const SIDE: usize = 32;
    for first_row in (0..rows).step_by(SIDE) {
        for first_column in (0..columns).step_by(SIDE) {
            for row in first_row..rows.min(first_row + SIDE) {
                for column in first_column..columns.min(first_column + SIDE) {
                    f(row, column);
                }
            }
        }
    }
}
