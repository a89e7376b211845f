//! Operators that give their input on unchanged go.

use super::super::{NoMatch, Patch, Rewrite, Rewriter, pattern::Pattern};
use crate::{
    model::{Model, NodeId, Value},
    op::{
        activation::Clamp,
        pad::Pad,
        slice::{Slice, StridedSlice},
        transpose::Transpose,
    },
};

pub(super) const REWRITE: Rewrite = Rewrite {
    name: "identity",
    roots: &[
        "Identity",
        "Convert",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Broadcast",
        "Tile",
        "Concat",
        "Split",
        "VariadicSplit",
        "Transpose",
        "Pad",
        "Slice",
        "StridedSlice",
        "Clamp",
    ],
    apply,
};

fn apply(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let node = m.node(root);
    let x = *node.inputs().first().ok_or(NoMatch::Pattern)?;
    if m.element_type(x) != m.element_type(root.into()) || node.outputs().len() != 1 {
        return Err(NoMatch::Pattern);
    }
    let keeps = match node.op().kind().name {
        "Identity" | "Convert" => true,
        // These keep the order of elements, so the shape decides.
        "Reshape" | "Squeeze" | "Unsqueeze" | "Split" | "VariadicSplit" => true,
        // An extent of 0 comes from any number of repetitions.
        "Broadcast" | "Tile" => {
            m.shape(x).dims().is_some_and(|dims| dims.iter().all(|d| d.min() > 0))
        }
        "Concat" => node.inputs().len() == 1,
        "Transpose" => keeps_order(m, root.into()).unwrap_or(false),
        "Pad" => {
            node.op().is::<Pad>()
                && (1..3).all(|i| {
                    m.i64s(node.inputs()[i]).is_some_and(|pads| pads.iter().all(|p| *p == 0))
                })
        }
        "Slice" => node.op().is::<Slice>() && steps_forward(m, node.inputs().get(3)),
        "StridedSlice" => node.op().is::<StridedSlice>() && steps_forward(m, node.inputs().get(3)),
        "Clamp" => node
            .op_as::<Clamp>()
            .is_some_and(|c| c.min == f64::NEG_INFINITY && c.max == f64::INFINITY),
        _ => false,
    };
    if !keeps {
        return Err(NoMatch::Pattern);
    }
    NoMatch::unless(m.same_shape(x, root.into()), "the shape is not certain to stay")?;
    Ok(Patch::replace(root, x))
}

/// Whether no two axes of an extent other than 1 change places.
fn keeps_order(m: &Model, value: Value) -> Option<bool> {
    let [x, _] = m.inputs_of::<Transpose>(value)? else { return None };
    let order = super::transpose::order(m, value)?;
    let moved = order.into_iter().filter(|a| m.shape(*x).dim(*a).value() != Some(1));
    Some(moved.is_sorted())
}

/// Whether every step is certainly positive; then a slice of the same shape takes everything.
fn steps_forward(m: &Model, steps: Option<&Value>) -> bool {
    steps.is_none_or(|s| m.i64s(*s).is_some_and(|s| s.iter().all(|s| *s > 0)))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{Build, rewritten};
    use super::*;
    use crate::op::{
        concat::Concat,
        convert::Convert,
        core::Identity,
        reshape::{Broadcast, Reshape, Tile},
    };

    const TABLE: &[Rewrite] = &[REWRITE];

    #[test]
    fn operators_without_effect_go() {
        let mut b = Build::new();
        let x = b.input([2, 1, 3]);
        let v = b.add(Identity {}, &[x]);
        let v = b.add(Convert::default(), &[v]);
        let shape = b.i64s(&[2, 1, -1]);
        let v = b.add(Reshape::default(), &[v, shape]);
        let shape = b.i64s(&[2, 1, 3]);
        let v = b.add(Broadcast::default(), &[v, shape]);
        let ones = b.i64s(&[1, 1, 1]);
        let v = b.add(Tile {}, &[v, ones]);
        let v = b.add(Concat { axis: 1 }, &[v]);
        let order = b.i64s(&[0, 1, 2]);
        let v = b.add(Transpose {}, &[v, order]);
        let (zeros, fill) = (b.i64s(&[0, 0, 0]), b.scalar(0.0));
        let v = b.add(Pad::default(), &[v, zeros, zeros, fill]);
        let (start, stop, step) = (b.i64s(&[0]), b.i64s(&[i64::MAX]), b.i64s(&[1]));
        let v = b.add(Slice {}, &[v, start, stop, step]);
        let v = b.add(Clamp::default(), &[v]);
        let after = rewritten(&b.output(v), TABLE);
        assert_eq!(after.outputs()[0].value, x, "{after}");
    }

    #[test]
    fn reversal_a_changed_order_and_a_shift_stay() {
        let mut b = Build::new();
        let x = b.input([3, 3]);
        let (start, stop, step) = (b.i64s(&[-1]), b.i64s(&[-4]), b.i64s(&[-1]));
        let v = b.add(Slice {}, &[x, start, stop, step]);
        let order = b.i64s(&[1, 0]);
        let v = b.add(Transpose {}, &[v, order]);
        let (before, behind, fill) = (b.i64s(&[1, 0]), b.i64s(&[-1, 0]), b.scalar(0.0));
        let v = b.add(Pad::default(), &[v, before, behind, fill]);
        let model = b.output(v);
        assert_eq!(rewritten(&model, TABLE).len(), model.len());
    }
}
