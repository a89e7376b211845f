//! Tree ensembles, shared out over groups of trees and over rows.

use std::ops::Range;

use ov_core::{
    ElementType,
    op::{
        OpAttributes, OpError, OpResult,
        ml::{Aggregate, TreeEnsemble},
    },
};

use super::{BindContext, Bound, Choice, Io, KernelEntry, NodeView, Reject, Step, view};
use crate::kernels::trees::{Split, Trees};

/// Kernels of this family.
pub(super) const KERNELS: &[KernelEntry] =
    &[KernelEntry { name: "tree_ensemble", ops: &[TreeEnsemble::KIND], select, bind }];

fn select(view: &NodeView<'_>) -> Result<Choice, Reject> {
    match view.inputs[0].element_type {
        ElementType::F32 | ElementType::F64 => Ok(Choice::default()),
        other => Err(format!("takes f32 and f64, not {other}").into()),
    }
}

fn bind(cx: &BindContext<'_>) -> OpResult<Bound> {
    let op: &TreeEnsemble =
        cx.op.downcast().ok_or_else(|| OpError::Unsupported(cx.op.kind().to_string()))?;
    let (rows, groups) = (cx.outputs[0].shape[0], cx.outputs[0].shape[1]);
    Bound::step(TreeStep {
        wide: cx.inputs[0].element_type == ElementType::F64,
        aggregate: op.aggregate,
        group: op.trees_of_group(),
        rows,
        groups,
        features: cx.inputs[0].shape[1],
        targets: cx.outputs[0].shape[2],
    })
}

/// Items are pairs of a group of trees and a row, the rows of a group next to each other: its trees stay in the cache.
#[derive(Debug)]
struct TreeStep {
    wide: bool,
    aggregate: Aggregate,
    group: usize,
    rows: usize,
    groups: usize,
    features: usize,
    targets: usize,
}

impl TreeStep {
    fn of<T: Split + bytemuck::Pod>(&self, io: &Io<'_>, range: Range<usize>) {
        let trees = Trees::<T> {
            nodes: io.input(1),
            roots: io.input(2),
            offsets: io.input(3),
            targets: io.input(4),
            weights: io.input(5),
            members: io.input(6),
        };
        let (x, out) = (io.input::<T>(0), io.output::<f64>(0));
        for item in range {
            let (group, row) = (item / self.rows, item % self.rows);
            let x = &x[row * self.features..(row + 1) * self.features];
            let sums = view::item(&out, (row * self.groups + group) * self.targets, self.targets);
            let first = group * self.group;
            let last = (first + self.group).min(trees.roots.len());
            trees.run(x, first..last, self.aggregate, sums);
        }
    }
}

impl Step for TreeStep {
    fn items(&self) -> usize {
        self.rows * self.groups
    }

    fn cost_ns(&self) -> f64 {
        // A walk of a dozen nodes, each a miss that overlaps with others.
        50.0 + self.items() as f64 * self.group as f64 * 60.0
    }

    fn run(&self, io: &Io<'_>, range: Range<usize>, _: &mut [u8]) -> OpResult<()> {
        if self.wide {
            self.of::<f64>(io, range);
        } else {
            self.of::<f32>(io, range);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ov_core::{
        Model, Tensor,
        op::ml::{LEAF, NAN_LEFT},
    };

    use super::*;
    use crate::nodes::testing::{check, noise, parameter};

    /// Trees of every mode, with sets, NaN and leaves of none to three entries, in preorder.
    fn ensemble(trees: usize, wide: bool) -> [Tensor; 6] {
        let mut seed = 7u32;
        let mut next = |limit: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % limit
        };
        let words = if wide { 5 } else { 4 };
        let (mut nodes, mut roots, mut offsets) = (Vec::<u32>::new(), Vec::new(), vec![0u32]);
        let (mut targets, mut weights) = (Vec::<u32>::new(), Vec::<f64>::new());
        for _ in 0..trees {
            let (start, size) = (nodes.len() / words, next(9));
            if size == 0 {
                roots.push(LEAF | (offsets.len() - 1) as u32);
                offsets.push(targets.len() as u32);
                continue;
            }
            roots.push(start as u32);
            for i in 0..size {
                let mode = next(4) as u32;
                let split = next(400) as f64 / 100.0 - 2.0;
                match (mode, wide) {
                    (3, _) => nodes.extend(&[0, 0][..words - 3]),
                    (_, true) => {
                        nodes.extend([split.to_bits() as u32, (split.to_bits() >> 32) as u32]);
                    }
                    _ => nodes.push((split as f32).to_bits()),
                }
                let nan = if next(2) == 0 { NAN_LEFT } else { 0 };
                nodes.push(next(3) as u32 | mode << 24 | nan);
                for _ in 0..2 {
                    let left = size - i - 1;
                    if left > 0 && next(4) > 0 {
                        nodes.push(next(left) as u32);
                        continue;
                    }
                    nodes.push(LEAF | (offsets.len() - 1) as u32);
                    for _ in 0..next(4) {
                        targets.push(next(3) as u32);
                        weights.push(next(100) as f64 / 7.0 - 6.0);
                    }
                    offsets.push(targets.len() as u32);
                }
            }
        }
        let u32s = |v: Vec<u32>| Tensor::from_vec([v.len()], v).expect("fits");
        let members = [0.5, -1.0, f64::NAN];
        let ty = if wide { ElementType::F64 } else { ElementType::F32 };
        let numbers = |v: &[f64]| {
            Tensor::from_f64s::<f64>([v.len()], v).expect("fits").cast(ty).expect("native")
        };
        [
            u32s(nodes.clone()).reshape([nodes.len() / words, words]).expect("fits"),
            u32s(roots),
            u32s(offsets),
            u32s(targets),
            numbers(&weights),
            numbers(&members),
        ]
    }

    #[test]
    fn walks_reach_the_leaves_of_the_reference() {
        for (trees, rows, wide) in [
            (0, 3, false),
            (1, 1, false),
            (5, 0, false),
            (13, 2, false),
            (64, 1, true),
            (131, 5, false),
            (131, 3, true),
        ] {
            for aggregate in [Aggregate::Sum, Aggregate::Min, Aggregate::Max] {
                let mut model = Model::new("trees");
                let x = parameter(&mut model, "x", &[rows, 3]);
                let mut inputs = vec![x];
                let mut rows_of = noise(&[rows, 3], 3);
                if let Some(v) = rows_of.as_mut_slice::<f32>().expect("f32").get_mut(1) {
                    *v = f32::NAN;
                }
                if wide {
                    let to = ov_core::op::convert::Convert { destination_type: ElementType::F64 };
                    inputs[0] = model.add(to, &[x], "wide").expect("valid");
                }
                inputs.extend(ensemble(trees, wide).map(|t| model.add_constant(t, "table")));
                let op = TreeEnsemble { targets: 3, group: 4, features: 3, aggregate };
                let y = model.add(op, &inputs, "y").expect("valid");
                model.add_output("y", y);
                check(
                    &format!("{trees} trees, {rows} rows"),
                    &model,
                    &[rows_of],
                    "tree_ensemble",
                    1e-12,
                );
            }
        }
    }
}
