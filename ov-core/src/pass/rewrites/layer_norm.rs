//! Mean and variance normalization spelled out becomes `MVN`, and with scale and bias per element `LayerNormalization`.

use super::super::{NoMatch, Patch, Rewrite, Rewriter, pattern::Pattern};
use crate::{
    model::{Model, NodeId, Value},
    op::{
        arithmetic::{Add, Divide, Multiply, Power, SquaredDifference, Subtract},
        normalization::{LayerNormalization, Mvn, MvnEpsilon},
        normalize_axes,
        reduction::ReduceMean,
    },
};

pub(super) const CORE: Rewrite = Rewrite {
    name: "mean and variance normalization",
    roots: &["Divide", "Multiply"],
    apply: core,
};

pub(super) const SCALE: Rewrite =
    Rewrite { name: "layer norm", roots: &["Multiply"], apply: scale };

pub(super) const BIAS: Rewrite =
    Rewrite { name: "layer norm with bias", roots: &["Add"], apply: bias };

/// What divides: `sqrt(sum)`, and the other factor.
pub(super) fn normalized(m: &Model, root: Value) -> Option<(Value, Value, Value)> {
    if let Some((x, deviation)) = m.binary::<Divide>(root) {
        return Some((x, root_of(m, deviation)?, deviation));
    }
    let (a, b) = m.binary::<Multiply>(root)?;
    [(a, b), (b, a)].into_iter().find_map(|(x, inverse)| {
        if let Some((one, deviation)) = m.binary::<Divide>(inverse) {
            let sum = root_of(m, deviation)?;
            return (m.scalar(one) == Some(1.0)).then_some((x, sum, inverse));
        }
        let (base, exponent) = m.then_scalar::<Power>(inverse)?;
        if exponent == -0.5 {
            return Some((x, base, inverse));
        }
        (exponent == -1.0).then_some((x, root_of(m, base)?, inverse))
    })
}

fn root_of(m: &Model, value: Value) -> Option<Value> {
    m.unary::<crate::op::activation::Sqrt>(value).or_else(|| {
        let (base, exponent) = m.then_scalar::<Power>(value)?;
        (exponent == 0.5).then_some(base)
    })
}

/// `x` of `x²`.
pub(super) fn squared(m: &Model, value: Value) -> Option<Value> {
    if let Some((a, b)) = m.binary::<Multiply>(value) {
        return (a == b).then_some(a);
    }
    let (x, exponent) = m.then_scalar::<Power>(value)?;
    (exponent == 2.0).then_some(x)
}

/// `x` and the axes of a mean that keeps them.
pub(super) fn mean(m: &Model, value: Value) -> Option<(Value, Vec<usize>)> {
    let op = m.as_op::<ReduceMean>(value)?;
    let [x, axes] = m.inputs_of::<ReduceMean>(value)? else { return None };
    let axes = normalize_axes(&m.i64s(*axes)?, m.rank(*x)?).ok()?;
    op.keep_dims.then_some((*x, axes))
}

/// `x` and the axes of `x - mean(x)`.
fn centred(m: &Model, value: Value) -> Option<(Value, Vec<usize>)> {
    let (x, average) = m.binary::<Subtract>(value)?;
    let (of, axes) = mean(m, average)?;
    (of == x).then_some((x, axes))
}

fn core(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let (x, axes, eps) = find(m, root.into()).ok_or(NoMatch::Pattern)?;
    NoMatch::unless(m.element_type(x).is_float(), "not of a floating-point type")?;
    let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
    let axes = cx.i64s(&axes, root);
    let op = Mvn { normalize_variance: true, eps, eps_mode: MvnEpsilon::InsideSqrt };
    let y = cx.add(op, &[x, axes], root)?;
    Ok(Patch::replace(root, y))
}

fn find(m: &Model, root: Value) -> Option<(Value, Vec<usize>, f64)> {
    let (difference, sum, _) = normalized(m, root)?;
    let (x, axes) = centred(m, difference)?;
    let (variance, eps) = m.with_scalar::<Add>(sum)?;
    let (square, variance_axes) = mean(m, variance)?;
    let same = match squared(m, square) {
        Some(d) => d == difference || centred(m, d) == Some((x, axes.clone())),
        None => {
            let (a, b) = m.binary::<SquaredDifference>(square)?;
            a == x && mean(m, b) == Some((x, axes.clone()))
        }
    };
    (same && axes == variance_axes && eps >= 0.0).then_some((x, axes, eps))
}

/// First of the axes, when they are the last ones.
fn suffix(axes: &[usize], rank: usize) -> Option<usize> {
    let first = rank.checked_sub(axes.len())?;
    (!axes.is_empty() && axes.iter().copied().eq(first..rank)).then_some(first)
}

fn scale(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let root_value = Value::from(root);
    let (normalized, _) = m.with_constant::<Multiply>(root_value).ok_or(NoMatch::Pattern)?;
    let factor = m.other_operand::<Multiply>(root_value, normalized).ok_or(NoMatch::Pattern)?;
    let op = m.as_op::<Mvn>(normalized).ok_or(NoMatch::Pattern)?;
    let [x, axes] = *m.inputs_of::<Mvn>(normalized).ok_or(NoMatch::Pattern)? else {
        return Err(NoMatch::Pattern);
    };
    let rank = m.rank(x).ok_or(NoMatch::CheckFailed("rank not known"))?;
    let axes = m.i64s(axes).and_then(|a| normalize_axes(&a, rank).ok()).ok_or(NoMatch::Pattern)?;
    let axis = suffix(&axes, rank).ok_or(NoMatch::CheckFailed("not the last axes"))?;
    let plain = op.normalize_variance && op.eps_mode == MvnEpsilon::InsideSqrt;
    NoMatch::unless(plain, "another normalization")?;
    NoMatch::unless(m.has_single_use(normalized), "read without scale elsewhere")?;
    let fits = parameter_fits(m, factor, x, axis);
    NoMatch::unless(fits, "the scale is not one per normalized element")?;
    let op = LayerNormalization {
        axis: axis as i64 - rank as i64,
        epsilon: op.eps,
        ..LayerNormalization::default()
    };
    let y = cx.add(op, &[x, factor], root)?;
    Ok(Patch::replace(root, y))
}

/// Whether a constant has exactly the extents of `x` from `axis` on.
fn parameter_fits(m: &Model, parameter: Value, x: Value, axis: usize) -> bool {
    let (Some(p), Some(x)) = (m.shape(parameter).dims(), m.shape(x).dims()) else { return false };
    p.len() == x.len() - axis && p.iter().zip(&x[axis..]).all(|(p, x)| p.same(*x))
}

fn bias(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let root_value = Value::from(root);
    let (y, _) = m.with_constant::<Add>(root_value).ok_or(NoMatch::Pattern)?;
    let shift = m.other_operand::<Add>(root_value, y).ok_or(NoMatch::Pattern)?;
    let op = m.as_op::<LayerNormalization>(y).ok_or(NoMatch::Pattern)?.clone();
    let [x, factor] = *m.inputs_of::<LayerNormalization>(y).ok_or(NoMatch::Pattern)? else {
        return Err(NoMatch::CheckFailed("there is a bias already"));
    };
    NoMatch::unless(m.has_single_use(y) && !op.statistics, "read without bias elsewhere")?;
    let rank = m.rank(x).ok_or(NoMatch::Pattern)?;
    let axis = crate::op::normalize_axis(op.axis, rank).map_err(|_| NoMatch::Pattern)?;
    NoMatch::unless(parameter_fits(m, shift, x, axis), "not one per normalized element")?;
    let new = cx.add(op, &[x, factor, shift], root)?;
    Ok(Patch::replace(root, new))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::testing::{Build, rewritten};
    use super::*;
    use crate::op::activation::Sqrt;

    const TABLE: &[Rewrite] = &[CORE, SCALE, BIAS];

    fn layer_norm(b: &mut Build, x: Value, form: usize, axes: &[i64]) -> Value {
        let axes = b.i64s(axes);
        let keep = ReduceMean { keep_dims: true };
        let average = b.add(keep.clone(), &[x, axes]);
        let d = b.add(Subtract {}, &[x, average]);
        let two = b.scalar(2.0);
        let square = match form {
            0 => b.add(Power {}, &[d, two]),
            1 => {
                let again = b.add(Subtract {}, &[x, average]);
                b.add(Multiply {}, &[again, again])
            }
            _ => b.add(SquaredDifference {}, &[x, average]),
        };
        let variance = b.add(keep, &[square, axes]);
        let eps = b.scalar(1e-5);
        let sum = b.add(Add {}, &if form == 0 { [variance, eps] } else { [eps, variance] });
        match form {
            0 => {
                let deviation = b.add(Sqrt {}, &[sum]);
                b.add(Divide::default(), &[d, deviation])
            }
            1 => {
                let one = b.scalar(1.0);
                let deviation = b.add(Sqrt {}, &[sum]);
                let inverse = b.add(Divide::default(), &[one, deviation]);
                b.add(Multiply {}, &[d, inverse])
            }
            _ => {
                let half = b.scalar(-0.5);
                let inverse = b.add(Power {}, &[sum, half]);
                b.add(Multiply {}, &[inverse, d])
            }
        }
    }

    #[test]
    fn every_spelling_becomes_one_operator() {
        for form in 0..3 {
            let mut b = Build::new();
            let x = b.input([2, 3, 4]);
            let y = layer_norm(&mut b, x, form, &[-1]);
            let (gamma, beta) = (b.weights([4]), b.weights([4]));
            let y = b.add(Multiply {}, &[y, gamma]);
            let y = b.add(Add {}, &[beta, y]);
            let after = rewritten(&b.output(y), TABLE);
            if form == 0 {
                expect![[r#"
                    model "test"
                      %0 = Parameter() {element_type=f32, shape=[2,3,4]} : f32[2,3,4] "n0"
                      %11 = Constant() {value=f32[4] [1.39984130859375, -1.012709140777588, 0.38637304306030273, 1.8014614582061768]} : f32[4] "n11"
                      %12 = Constant() {value=f32[4] [1.4074788093566895, 0.5798642635345459, -0.4361889362335205, 0.8489382266998291]} : f32[4] "n12"
                      %18 = LayerNormalization(%0, %11, %12) {axis=-1, epsilon=0.000009999999747378752, statistics=false, statistics_type=f32} : f32[2,3,4] "n14"
                      return %18 as "y"
                "#]].assert_eq(&after.to_string());
            }
            let inputs = after.inputs_of::<LayerNormalization>(after.outputs()[0].value);
            assert_eq!(inputs.map(<[_]>::len), Some(3), "form {form}\n{after}");
            assert_eq!(after.len(), 4);
        }
    }

    #[test]
    fn other_axes_are_mean_and_variance_normalization() {
        let mut b = Build::new();
        let x = b.input([2, 3, 4]);
        let y = layer_norm(&mut b, x, 0, &[1]);
        let gamma = b.weights([3, 1]);
        let y = b.add(Multiply {}, &[y, gamma]);
        let after = rewritten(&b.output(y), TABLE).to_string();
        assert!(after.contains("MVN") && after.contains("Multiply"), "{after}");
    }

    #[test]
    fn a_mean_over_other_axes_than_the_variance_stays() {
        let mut b = Build::new();
        let x = b.input([2, 3, 4]);
        let (last, middle) = (b.i64s(&[2]), b.i64s(&[1]));
        let keep = ReduceMean { keep_dims: true };
        let average = b.add(keep.clone(), &[x, last]);
        let d = b.add(Subtract {}, &[x, average]);
        let square = b.add(Multiply {}, &[d, d]);
        let variance = b.add(keep, &[square, middle]);
        let eps = b.scalar(1e-5);
        let sum = b.add(Add {}, &[variance, eps]);
        let deviation = b.add(Sqrt {}, &[sum]);
        let y = b.add(Divide::default(), &[d, deviation]);
        assert!(!rewritten(&b.output(y), TABLE).to_string().contains("MVN"));
    }
}
