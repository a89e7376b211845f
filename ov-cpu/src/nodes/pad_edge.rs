//! Padding with elements of the data itself: the nearest, mirrored or continued.

use std::ops::Range;

use ov_core::op::{
    Op, OpAttributes, OpError, OpResult,
    pad::{Pad, Pad1, PadMode},
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, cost, movement};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] =
    &[KernelEntry { name: "pad_edge", ops: &[Pad::KIND, Pad1::KIND], select, bind }];

fn mode(op: &dyn Op) -> Option<PadMode> {
    let first = op.downcast::<Pad1>().map(|p| p.pad_mode);
    first.or_else(|| op.downcast::<Pad>().map(|p| p.pad_mode))
}

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    let mode = mode(view.op).ok_or("takes Pad of opsets 1 and 12")?;
    if mode == PadMode::Constant {
        return Err("takes no constant mode".into());
    }
    view.constant(1)?;
    view.constant(2)?;
    movement::select_bytes(view)
}

/// Where each position along an axis comes from.
fn sources(mode: PadMode, extent: usize, begin: i64, len: usize) -> OpResult<Vec<u32>> {
    let n = i64::try_from(extent).ok().filter(|n| *n <= i64::from(u32::MAX));
    let n = n.ok_or_else(|| OpError::Unsupported(format!("padding an axis of {extent}")))?;
    if n == 0 && len > 0 {
        return Err(OpError::Invalid("an axis of extent 0 has nothing to pad with".to_owned()));
    }
    Ok((0..len as i64)
        .map(|i| {
            let at = i - begin;
            let source = match mode {
                _ if (0..n).contains(&at) => at,
                PadMode::Constant | PadMode::Edge => at.clamp(0, n - 1),
                PadMode::Wrap => at.rem_euclid(n),
                PadMode::Reflect if n == 1 => 0,
                PadMode::Reflect => {
                    let r = at.rem_euclid(2 * (n - 1));
                    r.min(2 * (n - 1) - r)
                }
                PadMode::Symmetric => {
                    let r = at.rem_euclid(2 * n);
                    r.min(2 * n - 1 - r)
                }
            };
            source as u32
        })
        .collect())
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    let (from, to) = (cx.inputs[0].shape, cx.outputs[0].shape);
    let mode = mode(cx.op).ok_or_else(|| OpError::Unsupported(cx.op.kind().to_string()))?;
    let (begin, end) = (movement::known(cx, 1)?, movement::known(cx, 2)?);
    if begin.len() != from.rank() || end.len() != from.rank() {
        return Err(OpError::Invalid(format!("pads {begin:?} and {end:?} do not suit {from}")));
    }
    let moved = |a: &usize| begin[*a] != 0 || end[*a] != 0;
    let Some(last) = (0..from.rank()).rev().find(moved) else { return Ok(Bound::Alias(0)) };
    let size = movement::size_of(cx.inputs[0].element_type);
    let block = from[last + 1..].iter().product::<usize>() * size;
    let outer = (0..last)
        .map(|a| {
            let stride = from[a + 1..=last].iter().product::<usize>() * block;
            Ok((sources(mode, from[a], begin[a], to[a])?, stride))
        })
        .collect::<OpResult<Vec<_>>>()?;
    let row = sources(mode, from[last], begin[last], to[last])?;
    // The run of positions that lie in the input.
    let first = usize::try_from(begin[last]).unwrap_or(0).min(to[last]);
    let skipped = usize::try_from(begin[last].saturating_neg()).unwrap_or(0).min(from[last]);
    let run = (from[last] - skipped).min(to[last] - first);
    Bound::step(PadStep {
        rows: to[..last].iter().product(),
        outer,
        row,
        first,
        run,
        block,
        elements: to.elements(),
        size,
    })
}

#[derive(Debug)]
struct PadStep {
    rows: usize,
    /// Of each axis before the last padded one: where its positions come from, and the bytes from one to the next.
    outer: Vec<(Vec<u32>, usize)>,
    /// Where the positions along the last padded axis come from.
    row: Vec<u32>,
    /// First position of a row that lies in the input, and how many follow each other.
    first: usize,
    run: usize,
    /// Bytes of a position.
    block: usize,
    elements: usize,
    size: usize,
}

impl PadStep {
    /// First byte of the input row that an output row comes from.
    fn row_source(&self, mut row: usize) -> usize {
        let mut at = 0;
        for (sources, stride) in self.outer.iter().rev() {
            let source = sources[row % sources.len()];
            row /= sources.len();
            at += source as usize * stride;
        }
        at
    }
}

impl Step for PadStep {
    fn items(&self) -> usize {
        self.rows
    }

    fn cost_ns(&self) -> f64 {
        let ends = (self.row.len() - self.run) * self.rows;
        cost::ns(0.0, 2.0 * (self.elements * self.size) as f64) + (2 * ends + 5 * self.rows) as f64
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        let (data, out) = (io.input::<u8>(0), io.output::<u8>(0));
        let len = self.row.len() * self.block;
        for row in range {
            let to = super::view::item(&out, row * len, len);
            let from = self.row_source(row);
            let block = |source: u32| &data[from + source as usize * self.block..][..self.block];
            let end = self.first + self.run;
            for at in (0..self.first).chain(end..self.row.len()) {
                let to = &mut to[at * self.block..(at + 1) * self.block];
                to.copy_from_slice(block(self.row[at]));
            }
            if self.run > 0 {
                let start = from + self.row[self.first] as usize * self.block;
                to[self.first * self.block..end * self.block]
                    .copy_from_slice(&data[start..start + self.run * self.block]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{Model, Tensor};

    use super::*;
    use crate::nodes::testing::{check, noise, parameter};

    fn run(shape: &[usize], begin: &[i64], end: &[i64], pad_mode: PadMode) {
        let mut m = Model::new("pad");
        let x = parameter(&mut m, "x", shape);
        let mut inputs = vec![x];
        inputs.push(m.add_constant(Tensor::from_i64s(begin), "begin"));
        inputs.push(m.add_constant(Tensor::from_i64s(end), "end"));
        let y = m.add(Pad { pad_mode }, &inputs, "pad").expect("valid");
        m.add_output("y", y);
        let what = format!("{pad_mode} {shape:?} {begin:?} {end:?}");
        check(&what, &m, &[noise(shape, 1)], "pad_edge", 0.0);
    }

    #[test]
    fn padding_gives_what_the_reference_gives() {
        for mode in [PadMode::Edge, PadMode::Reflect, PadMode::Symmetric, PadMode::Wrap] {
            run(&[6], &[4], &[3], mode);
            run(&[1, 1, 9], &[0, 0, 4], &[0, 0, 4], mode);
            run(&[3, 4, 2], &[2, 1, 0], &[1, 0, 0], mode);
            run(&[4, 5], &[-1, 2], &[2, -2], mode);
            run(&[3, 1], &[0, 2], &[0, 1], mode);
        }
    }
}
