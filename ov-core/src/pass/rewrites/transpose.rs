//! Transposes over each other join, transposes that move only extents of 1 become Reshape, and `MatMul` takes over what it
//! can by its flags.

use super::super::{NoMatch, Patch, Rewrite, Rewriter, pattern::Pattern};
use crate::{
    model::{Model, NodeId, Value},
    op::{matmul::MatMul, reshape::Reshape, transpose::Transpose},
};

pub(super) const CHAIN: Rewrite =
    Rewrite { name: "transpose of transpose", roots: &["Transpose"], apply: chain };

pub(super) const TO_RESHAPE: Rewrite =
    Rewrite { name: "transpose as reshape", roots: &["Transpose"], apply: to_reshape };

pub(super) const INTO_MATMUL: Rewrite =
    Rewrite { name: "transpose into matmul", roots: &["MatMul"], apply: into_matmul };

/// The order of axes of the Transpose that makes `value`.
pub(super) fn order(m: &Model, value: Value) -> Option<Vec<usize>> {
    let [x, order] = m.inputs_of::<Transpose>(value)? else { return None };
    let rank = m.rank(*x)?;
    let order = m.i64s(*order)?;
    if order.is_empty() {
        return Some((0..rank).rev().collect());
    }
    order.into_iter().map(|a| usize::try_from(a).ok().filter(|a| *a < rank)).collect()
}

pub(super) fn add_transpose(
    cx: &mut Rewriter<'_>,
    x: Value,
    order: &[usize],
    root: NodeId,
) -> Result<Value, NoMatch> {
    if order.iter().copied().eq(0..order.len()) {
        return Ok(x);
    }
    let order: Vec<i64> = order.iter().map(|a| *a as i64).collect();
    let order = cx.i64s(&order, root);
    cx.add(Transpose {}, &[x, order], root)
}

fn chain(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let outer = order(m, root.into()).ok_or(NoMatch::Pattern)?;
    let inner_value = m.node(root).inputs()[0];
    let inner = order(m, inner_value).ok_or(NoMatch::Pattern)?;
    let x = m.producer(inner_value).inputs()[0];
    let joint: Vec<usize> = outer.iter().map(|a| inner[*a]).collect();
    let y = add_transpose(cx, x, &joint, root)?;
    Ok(Patch::replace(root, y))
}

/// Leading extents of 1 that are put on after a transposition are put on before it, where it meets other operators.
pub(super) const LEADING_ONES: Rewrite =
    Rewrite { name: "leading ones after transpose", roots: &["Reshape"], apply: leading_ones };

fn leading_ones(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let inner = m.node(root).inputs()[0];
    let order = order(m, inner).ok_or(NoMatch::Pattern)?;
    let shape = |v| m.shape(v).to_shape().ok_or(NoMatch::CheckFailed("not static"));
    let (from, to) = (shape(inner)?, shape(root.into())?);
    let ones = to.len().checked_sub(from.len()).filter(|n| *n > 0).ok_or(NoMatch::Pattern)?;
    let leading = to[..ones].iter().all(|d| *d == 1) && to[ones..] == from[..];
    NoMatch::unless(leading, "more than leading ones change")?;
    NoMatch::unless(m.has_single_use(inner), "the transposition is read elsewhere")?;
    let x = m.producer(inner).inputs()[0];
    let target: Vec<i64> =
        std::iter::repeat_n(1, ones).chain(shape(x)?.iter().map(|d| *d as i64)).collect();
    let order: Vec<usize> = (0..ones).chain(order.iter().map(|a| a + ones)).collect();
    let target = cx.i64s(&target, root);
    let widened = cx.add(Reshape::default(), &[x, target], root)?;
    let y = add_transpose(cx, widened, &order, root)?;
    Ok(Patch::replace(root, y))
}

fn to_reshape(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let order = order(m, root.into()).ok_or(NoMatch::Pattern)?;
    let x = m.node(root).inputs()[0];
    let moved = order.iter().filter(|a| m.shape(x).dim(**a).value() != Some(1));
    NoMatch::unless(moved.is_sorted(), "axes change places")?;
    let shape = m.shape(root.into()).to_shape().ok_or(NoMatch::CheckFailed("not static"))?;
    let target: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
    let target = cx.i64s(&target, root);
    let y = cx.add(Reshape::default(), &[x, target], root)?;
    Ok(Patch::replace(root, y))
}

/// Rewrites an operand whose transposition ends in exchanging the last two axes.
fn into_matmul(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let op = m.as_op::<MatMul>(root.into()).ok_or(NoMatch::Pattern)?.clone();
    let (a, b) = m.binary::<MatMul>(root.into()).ok_or(NoMatch::Pattern)?;
    let (from_a, from_b) = (without_exchange(m, a), without_exchange(m, b));
    if from_a.is_none() && from_b.is_none() {
        return Err(NoMatch::Pattern);
    }
    let transposed = MatMul {
        transpose_a: op.transpose_a ^ from_a.is_some(),
        transpose_b: op.transpose_b ^ from_b.is_some(),
    };
    let a = match from_a {
        Some((x, order)) => add_transpose(cx, x, &order, root)?,
        None => a,
    };
    let b = match from_b {
        Some((x, order)) => add_transpose(cx, x, &order, root)?,
        None => b,
    };
    let y = cx.add(transposed, &[a, b], root)?;
    Ok(Patch::replace(root, y))
}

/// The transposition's input and its order before the last two axes are exchanged, when that order is a better one:
/// none at all, or one that leaves the last axis in place so that rows are copied whole.
pub(super) fn without_exchange(m: &Model, value: Value) -> Option<(Value, Vec<usize>)> {
    let mut order = order(m, value)?;
    let last = order.len().checked_sub(1).filter(|l| *l > 0)?;
    let moved = order[last] != last;
    order.swap(last - 1, last);
    let better = order.iter().copied().eq(0..=last) || (moved && order[last] == last);
    better.then(|| (m.producer(value).inputs()[0], order))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::testing::{Build, rewritten};
    use super::*;

    const TABLE: &[Rewrite] = &[CHAIN, TO_RESHAPE, LEADING_ONES, INTO_MATMUL];

    fn transpose(b: &mut Build, x: Value, order: &[i64]) -> Value {
        let order = b.i64s(order);
        b.add(Transpose {}, &[x, order])
    }

    #[test]
    fn joined_orders_cancel() {
        let mut b = Build::new();
        let x = b.input([2, 3, 4]);
        let v = transpose(&mut b, x, &[1, 2, 0]);
        let v = transpose(&mut b, v, &[2, 0, 1]);
        assert_eq!(rewritten(&b.output(v), TABLE).outputs()[0].value, x);
        let mut b = Build::new();
        let x = b.input([2, 3, 4]);
        let v = transpose(&mut b, x, &[]);
        let v = transpose(&mut b, v, &[1, 0, 2]);
        expect![[r#"
            model "test"
              %0 = Parameter() {element_type=f32, shape=[2,3,4]} : f32[2,3,4] "n0"
              %5 = Constant() {value=i64[3] [1.0, 2.0, 0.0]} : i64[3] "n4"
              %6 = Transpose(%0, %5) : f32[3,4,2] "n4"
              return %6 as "y"
        "#]]
        .assert_eq(&rewritten(&b.output(v), TABLE).to_string());
    }

    #[test]
    fn moving_an_extent_of_one_is_a_reshape() {
        let mut b = Build::new();
        let x = b.input([2, 1, 4]);
        let v = transpose(&mut b, x, &[1, 0, 2]);
        let after = rewritten(&b.output(v), TABLE);
        assert!(after.as_op::<Reshape>(after.outputs()[0].value).is_some(), "{after}");
    }

    #[test]
    fn matmul_takes_over_the_exchange_of_the_last_axes() {
        let mut b = Build::new();
        let (x, y) = (b.input([2, 3, 4, 5]), b.input([2, 6, 3, 5]));
        let k = transpose(&mut b, y, &[0, 2, 3, 1]);
        let v = b.add(MatMul::default(), &[x, k]);
        expect![[r#"
            model "test"
              %0 = Parameter() {element_type=f32, shape=[2,3,4,5]} : f32[2,3,4,5] "n0"
              %1 = Parameter() {element_type=f32, shape=[2,6,3,5]} : f32[2,6,3,5] "n1"
              %5 = Constant() {value=i64[4] [0.0, 2.0, 1.0, 3.0]} : i64[4] "n4"
              %6 = Transpose(%1, %5) : f32[2,3,6,5] "n4"
              %7 = MatMul(%0, %6) {transpose_a=false, transpose_b=true} : f32[2,3,4,6] "n4"
              return %7 as "y"
        "#]]
        .assert_eq(&rewritten(&b.output(v), TABLE).to_string());
    }

    #[test]
    fn leading_ones_move_before_the_transposition() {
        let mut b = Build::new();
        let x = b.input([3, 2, 4]);
        let v = transpose(&mut b, x, &[1, 2, 0]);
        let shape = b.i64s(&[1, 2, 4, 3]);
        let v = b.add(Reshape::default(), &[v, shape]);
        let after = rewritten(&b.output(v), TABLE);
        assert_eq!(order(&after, after.outputs()[0].value), Some(vec![0, 2, 3, 1]), "{after}");
    }

    #[test]
    fn a_reshape_that_splits_an_axis_stays_behind() {
        let mut b = Build::new();
        let x = b.input([3, 2, 4]);
        let v = transpose(&mut b, x, &[1, 2, 0]);
        let shape = b.i64s(&[1, 2, 2, 2, 3]);
        let v = b.add(Reshape::default(), &[v, shape]);
        let model = b.output(v);
        assert_eq!(rewritten(&model, TABLE).to_string(), model.to_string());
    }

    #[test]
    fn an_order_that_is_no_exchange_stays() {
        let mut b = Build::new();
        let (x, y) = (b.input([3, 2, 4]), b.input([3, 4, 5]));
        let k = transpose(&mut b, y, &[1, 0, 2]);
        let k = b.add(crate::op::activation::Relu {}, &[k]);
        let x = transpose(&mut b, x, &[1, 2, 0]);
        let x = b.add(crate::op::activation::Relu {}, &[x]);
        b.give(x);
        let model = b.output(k);
        assert_eq!(rewritten(&model, TABLE).to_string(), model.to_string());
    }
}
