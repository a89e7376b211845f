//! Padding with a constant: rows are copied between runs of the value.

use std::ops::Range;

use ov_core::op::{
    OpAttributes, OpError, OpResult,
    pad::{Pad, Pad1, PadMode},
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, cost, view};
use crate::kernels::out::Out;

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] =
    &[KernelEntry { name: "pad_constant", ops: &[Pad::KIND, Pad1::KIND], select, bind }];

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    let mode = match (view.op.downcast::<Pad>(), view.op.downcast::<Pad1>()) {
        (Some(p), _) => p.pad_mode,
        (_, Some(p)) => p.pad_mode,
        _ => return Err("takes Pad".into()),
    };
    if mode != PadMode::Constant {
        return Err("takes constant mode".into());
    }
    if !matches!(view.outputs[0].element_type.bits(), 8 | 16 | 32 | 64) {
        return Err("takes elements of 1, 2, 4 or 8 bytes".into());
    }
    Ok(Choice::default())
}

fn pads(cx: &BindContext<'_>, index: usize) -> OpResult<Vec<i64>> {
    let value = cx.inputs.get(index).and_then(|i| i.value).ok_or_else(|| {
        OpError::Invalid(format!("input {index} is not known before the inference"))
    })?;
    Ok(value.to_i64_vec()?)
}

/// One axis before the last that is padded.
#[derive(Clone, Copy, Debug)]
struct Axis {
    from: usize,
    to: usize,
    begin: i64,
}

impl Axis {
    /// The position in the input that output position `at` shows.
    fn source(&self, at: usize) -> Option<usize> {
        usize::try_from(at as i64 - self.begin).ok().filter(|i| *i < self.from)
    }
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    let (from, to) = (cx.inputs[0].shape, cx.outputs[0].shape);
    let (begin, end) = (pads(cx, 1)?, pads(cx, 2)?);
    if begin.len() != from.rank() || to.rank() != from.rank() {
        return Err(OpError::Input {
            index: 1,
            got: format!("{} pads", begin.len()),
            expected: format!("{}, one per axis", from.rank()),
        });
    }
    if begin.iter().chain(&end).all(|p| *p == 0) {
        return Ok(Bound::Alias(0));
    }
    // Axes behind the last padded one are one run of bytes with it.
    let last = (0..from.rank()).rev().find(|a| begin[*a] != 0 || from[*a] != to[*a]).unwrap_or(0);
    let size = cx.outputs[0].element_type.bits() / 8;
    let unit = from[last + 1..].iter().product::<usize>() * size;
    let axis = |a: usize| Axis { from: from[a], to: to[a], begin: begin[a] };
    let step = PadStep {
        size,
        unit,
        outer: (0..last).map(axis).collect(),
        row: axis(last),
        rows: to[..last].iter().product(),
    };
    Bound::step(step)
}

#[derive(Debug)]
struct PadStep {
    /// Bytes of an element.
    size: usize,
    /// Bytes of one position of the last padded axis.
    unit: usize,
    outer: Vec<Axis>,
    row: Axis,
    rows: usize,
}

impl PadStep {
    /// The row of the input that output row `row` shows.
    fn source_row(&self, mut row: usize) -> Option<usize> {
        let (mut source, mut stride) = (0, 1);
        for axis in self.outer.iter().rev() {
            source += axis.source(row % axis.to)? * stride;
            stride *= axis.from;
            row /= axis.to;
        }
        Some(source)
    }
}

fn fill(bytes: &mut [u8], value: &[u8]) {
    if value.iter().all(|b| *b == value[0]) {
        bytes.fill(value[0]);
        return;
    }
    for element in bytes.chunks_exact_mut(value.len()) {
        element.copy_from_slice(value);
    }
}

impl Step for PadStep {
    fn items(&self) -> usize {
        self.rows.max(1)
    }

    fn cost_ns(&self) -> f64 {
        let bytes = self.rows * self.row.to * self.unit;
        cost::ns(0.0, 2.0 * bytes as f64) + 10.0 * self.rows as f64
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let (data, out): (&[u8], Out<'_, u8>) = (io.input(0), io.output(0));
        let zero = [0; 8];
        let value = if io.input_count() > 3 { io.input::<u8>(3) } else { &zero[..] };
        let value = value.get(..self.size).unwrap_or(&zero[..self.size]);
        let (from, to) = (self.row.from as i64, self.row.to as i64);
        // Positions of a row that show the input.
        let first = self.row.begin.clamp(0, to);
        let last = (self.row.begin + from).clamp(first, to);
        let [first, last] = [first, last].map(|p| p as usize * self.unit);
        let skipped = (-self.row.begin).max(0) as usize * self.unit;
        let len = self.row.to * self.unit;
        for row in range.start..range.end.min(self.rows) {
            let bytes = view::item(&out, row * len, len);
            match self.source_row(row) {
                Some(source) => {
                    let start = source * self.row.from * self.unit + skipped;
                    fill(&mut bytes[..first], value);
                    if last > first {
                        bytes[first..last].copy_from_slice(&data[start..start + last - first]);
                    }
                    fill(&mut bytes[last..], value);
                }
                None => fill(bytes, value),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{
        Model, Tensor,
        op::pad::{Pad, PadMode},
    };

    use crate::nodes::testing::{check, noise, parameter};

    #[test]
    fn pads_give_what_the_reference_gives() {
        let cases: &[(&[usize], &[i64], &[i64])] = &[
            (&[5], &[2], &[3]),
            (&[2, 3, 4], &[0, 1, 0], &[1, 0, 2]),
            (&[1, 7, 5, 3], &[0, 2, 3, 0], &[0, 1, 0, 0]),
            (&[3, 4, 1], &[0, 3, 0], &[0, -2, 0]),
            (&[4, 6], &[-1, 2], &[2, -3]),
            (&[2, 5], &[-3, 0], &[1, 0]),
            (&[3, 2], &[0, -2], &[0, 4]),
            (&[2, 0, 3], &[0, 1, 0], &[0, 0, 0]),
        ];
        for value in [0.0f32, -1.5] {
            for (shape, begin, end) in cases {
                let mut m = Model::new("pad");
                let x = parameter(&mut m, "x", shape);
                let n = shape.len();
                let tensor = |v: &[i64]| Tensor::from_vec([n], v.to_vec()).expect("a list");
                let begins = m.add_constant(tensor(begin), "begin");
                let ends = m.add_constant(tensor(end), "end");
                let scalar = Tensor::from_vec([0usize; 0], vec![value]).expect("a scalar");
                let value_input = m.add_constant(scalar, "value");
                let op = Pad { pad_mode: PadMode::Constant };
                let y = m.add(op, &[x, begins, ends, value_input], "pad").expect("valid");
                m.add_output("y", y);
                let what = format!("{shape:?} {begin:?} {end:?}");
                check(&what, &m, &[noise(shape, 1)], "pad_constant", 0.0);
            }
        }
    }
}
