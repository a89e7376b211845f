//! Reshape, Squeeze and Unsqueeze over each other become one Reshape with a constant shape.

use super::super::{NoMatch, Patch, Rewrite, Rewriter, pattern::Pattern};
use crate::{
    model::{Model, NodeId, Value},
    op::reshape::Reshape,
};

/// Canonicalises to a Reshape whose shape is a constant: known extents, 0 where the input's extent is certainly the
/// same, and at most one −1.
pub(super) const REWRITE: Rewrite =
    Rewrite { name: "constant reshape", roots: &["Reshape", "Squeeze", "Unsqueeze"], apply };

fn apply(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let node = m.node(root);
    let mut x = node.inputs()[0];
    let mut chained = false;
    while REWRITE.roots.contains(&m.producer(x).op().kind().name) {
        x = m.producer(x).inputs()[0];
        chained = true;
    }
    let constant = node.inputs().get(1).is_some_and(|s| m.constant(*s).is_some());
    if !chained && constant && node.op().is::<Reshape>() {
        return Err(NoMatch::Pattern);
    }
    let (target, special_zero) = target(m, x, root.into())
        .ok_or(NoMatch::CheckFailed("more than one extent is not known"))?;
    let shape = cx.i64s(&target, root);
    let y = cx.add(Reshape { special_zero, ..Reshape::default() }, &[x, shape], root)?;
    Ok(Patch::replace(root, y))
}

/// A constant shape that always gives the shape of `value` from `x`, and whether a 0 in it copies an extent of `x`.
fn target(m: &Model, x: Value, value: Value) -> Option<(Vec<i64>, bool)> {
    let (from, to) = (m.shape(x), m.shape(value));
    let dims = to.dims()?;
    if to.is_static() {
        let fixed = dims.iter().map(|d| i64::try_from(d.value()?).ok()).collect::<Option<_>>()?;
        return Some((fixed, false));
    }
    // With an extent of 0, neither 0 nor −1 means what it should.
    if dims.iter().any(|d| d.value() == Some(0)) {
        return None;
    }
    let mut target = Vec::with_capacity(dims.len());
    let (mut copies, mut open) = (0, None);
    for (i, d) in dims.iter().enumerate() {
        target.push(match d.value() {
            Some(v) => i64::try_from(v).ok()?,
            None if from.dims().is_some_and(|f| f.get(i).is_some_and(|f| f.same(*d))) => {
                copies += 1;
                0
            }
            None if open.is_none() => {
                open = Some(i);
                -1
            }
            None => return None,
        });
    }
    if copies == 1 && open.is_none() {
        target.iter_mut().filter(|t| **t == 0).for_each(|t| *t = -1);
        copies = 0;
    }
    // If a copied extent is 0, −1 cannot be found.
    (copies == 0 || open.is_none()).then_some((target, copies > 0))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::testing::{Build, rewritten};
    use super::*;
    use crate::{
        op::{
            concat::Concat,
            gather::Gather,
            reshape::{ShapeOf, Squeeze, Unsqueeze},
        },
        tensor::{Dimension, PartialShape},
    };

    const TABLE: &[Rewrite] = &[REWRITE];

    #[test]
    fn chains_become_one_reshape() {
        let mut b = Build::new();
        let x = b.input([2, 1, 6]);
        let one = b.i64s(&[1]);
        let v = b.add(Squeeze {}, &[x, one]);
        let shape = b.i64s(&[0, 3, -1]);
        let v = b.add(Reshape { special_zero: true, ..Reshape::default() }, &[v, shape]);
        let zero = b.i64s(&[0]);
        let v = b.add(Unsqueeze {}, &[v, zero]);
        expect![[r#"
            model "test"
              %0 = Parameter() {element_type=f32, shape=[2,1,6]} : f32[2,1,6] "n0"
              %11 = Constant() {value=i64[4] [1.0, 2.0, 3.0, 2.0]} : i64[4] "n6"
              %12 = Reshape(%0, %11) {special_zero=false, strict=false} : f32[1,2,3,2] "n6"
              return %12 as "y"
        "#]]
        .assert_eq(&rewritten(&b.output(v), TABLE).to_string());
    }

    #[test]
    fn a_shape_computed_from_the_input_becomes_constant() {
        let mut b = Build::new();
        let x = b.input(PartialShape::new(&[Dimension::DYNAMIC, Dimension::fixed(6)]));
        let shape = b.add(ShapeOf::default(), &[x]);
        let (index, axis) = (b.i64s(&[0]), b.i64s(&[0]));
        let batch = b.add(Gather::default(), &[shape, index, axis]);
        let rest = b.i64s(&[2, 3]);
        let target = b.add(Concat { axis: 0 }, &[batch, rest]);
        let v = b.add(Reshape::default(), &[x, target]);
        expect![[r#"
            model "test"
              %0 = Parameter() {element_type=f32, shape=[?,6]} : f32[?,6] "n0"
              %8 = Constant() {value=i64[3] [-1.0, 2.0, 3.0]} : i64[3] "n7"
              %9 = Reshape(%0, %8) {special_zero=false, strict=false} : f32[?,2,3] "n7"
              return %9 as "y"
        "#]]
        .assert_eq(&rewritten(&b.output(v), TABLE).to_string());
    }

    #[test]
    fn two_unknown_extents_stay() {
        let mut b = Build::new();
        let x = b.input(PartialShape::dynamic_rank(2));
        let axis = b.i64s(&[1]);
        let v = b.add(Unsqueeze {}, &[x, axis]);
        let model = b.output(v);
        assert_eq!(rewritten(&model, TABLE).to_string(), model.to_string());
    }
}
