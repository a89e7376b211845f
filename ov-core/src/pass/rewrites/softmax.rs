//! `exp(x - max(x)) / sum(exp(x - max(x)))` becomes `SoftMax`.

use super::super::{NoMatch, Patch, Rewrite, Rewriter, pattern::Pattern};
use crate::{
    model::{Model, NodeId, Value},
    op::{
        activation::Exp,
        arithmetic::{Divide, Subtract},
        normalize_axes,
        reduction::{ReduceMax, ReduceSum},
        softmax::SoftMax,
    },
};

pub(super) const REWRITE: Rewrite = Rewrite { name: "softmax", roots: &["Divide"], apply };

fn apply(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let (x, axis) = find(cx.model(), root.into()).ok_or(NoMatch::Pattern)?;
    let y = cx.add(SoftMax { axis: axis as i64 }, &[x], root)?;
    Ok(Patch::replace(root, y))
}

fn find(m: &Model, root: Value) -> Option<(Value, usize)> {
    let (numerator, sum) = m.binary::<Divide>(root)?;
    let [of, axes] = m.inputs_of::<ReduceSum>(sum)? else { return None };
    let sum_axis = one_axis(m, *of, *axes)?;
    let (x, largest) = m.binary::<Subtract>(m.unary::<Exp>(numerator)?)?;
    let [from, axes] = m.inputs_of::<ReduceMax>(largest)? else { return None };
    let kept = m.as_op::<ReduceSum>(sum)?.keep_dims && m.as_op::<ReduceMax>(largest)?.keep_dims;
    let same = *of == numerator && *from == x && one_axis(m, x, *axes)? == sum_axis;
    (kept && same).then_some((x, sum_axis))
}

fn one_axis(m: &Model, x: Value, axes: Value) -> Option<usize> {
    match normalize_axes(&m.i64s(axes)?, m.rank(x)?).ok()?.as_slice() {
        [axis] => Some(*axis),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::testing::{Build, rewritten};
    use super::*;

    const TABLE: &[Rewrite] = &[REWRITE];

    fn model(max_axis: i64, sum_axis: i64) -> Model {
        let mut b = Build::new();
        let x = b.input([2, 3]);
        let (max_axis, sum_axis) = (b.i64s(&[max_axis]), b.i64s(&[sum_axis]));
        let largest = b.add(ReduceMax { keep_dims: true }, &[x, max_axis]);
        let d = b.add(Subtract {}, &[x, largest]);
        let e = b.add(Exp {}, &[d]);
        let sum = b.add(ReduceSum { keep_dims: true }, &[e, sum_axis]);
        let y = b.add(Divide::default(), &[e, sum]);
        b.output(y)
    }

    #[test]
    fn becomes_one_operator() {
        expect![[r#"
            model "test"
              %0 = Parameter() {element_type=f32, shape=[2,3]} : f32[2,3] "n0"
              %8 = SoftMax(%0) {axis=1} : f32[2,3] "n7"
              return %8 as "y"
        "#]]
        .assert_eq(&rewritten(&model(-1, 1), TABLE).to_string());
    }

    #[test]
    fn different_axes_stay() {
        assert!(!rewritten(&model(0, 1), TABLE).to_string().contains("SoftMax"));
    }
}
