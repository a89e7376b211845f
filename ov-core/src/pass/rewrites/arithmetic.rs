//! One spelling of arithmetic with constants: constants last, no neutral elements, products for quotients.

use super::super::{
    NoMatch, Patch, Rewrite, Rewriter,
    pattern::{Pattern, combine, splat, uniform},
};
use crate::{
    model::{Model, NodeId, Value},
    op::{
        activation::{Negative, Sqrt},
        arithmetic::{Add, Divide, Multiply, Power, Subtract},
    },
    tensor::{ElementType, Tensor},
};

pub(super) const CONSTANT_LAST: Rewrite = Rewrite {
    name: "constant last",
    roots: &["Add", "Multiply", "Maximum", "Minimum"],
    apply: constant_last,
};

pub(super) const NEUTRAL: Rewrite = Rewrite {
    name: "neutral element",
    roots: &["Add", "Subtract", "Multiply", "Divide", "Power"],
    apply: neutral,
};

/// Dividing by a constant that is no power of two becomes multiplying by its reciprocal, which differs by at most one
/// unit in the last place (both roundings are half a unit); half precision, where that is visible, is left alone.
pub(super) const QUOTIENT: Rewrite =
    Rewrite { name: "quotient by a constant", roots: &["Divide"], apply: quotient };

pub(super) const DIFFERENCE: Rewrite =
    Rewrite { name: "difference with a constant", roots: &["Subtract"], apply: difference };

/// Squares and roots. `sqrt(-inf)` is NaN where `(-inf)^0.5` is infinite: roots of negative numbers carry no meaning.
pub(super) const POWER: Rewrite =
    Rewrite { name: "power with a small exponent", roots: &["Power"], apply: power };

pub(super) const CHAIN: Rewrite =
    Rewrite { name: "chain of constants", roots: &["Add", "Multiply"], apply: chain };

fn constant_last(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let &[a, b] = m.node(root).inputs() else { return Err(NoMatch::Pattern) };
    if m.constant(a).is_none() || m.constant(b).is_some() {
        return Err(NoMatch::Pattern);
    }
    let op = m.node(root).op().clone_box();
    let swapped = cx.add_boxed(op, &[b, a], root)?;
    Ok(Patch::replace(root, swapped))
}

fn neutral(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let &[x, c] = m.node(root).inputs() else { return Err(NoMatch::Pattern) };
    let sum = matches!(m.node(root).op().kind().name, "Add" | "Subtract");
    let value = m.constant(c).and_then(uniform).ok_or(NoMatch::Pattern)?;
    if value != f64::from(u8::from(!sum)) {
        return Err(NoMatch::Pattern);
    }
    let same = m.broadcasts_into(c, x) && m.element_type(x) == m.element_type(root.into());
    NoMatch::unless(same, "the constant broadens the shape")?;
    Ok(Patch::replace(root, x))
}

fn quotient(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let (x, c) = m.binary::<Divide>(root.into()).ok_or(NoMatch::Pattern)?;
    let divisor = m.constant(c).filter(|_| m.constant(x).is_none()).ok_or(NoMatch::Pattern)?;
    let ty = divisor.element_type();
    NoMatch::unless(ty.is_float(), "integer quotients round")?;
    NoMatch::unless(divisor.len() <= FEW, "the divisor is large")?;
    let values = divisor.to_f64_vec()?;
    let exact = values.iter().all(|v| v.abs().log2().fract() == 0.0);
    let wide = matches!(ty, ElementType::F32 | ElementType::F64);
    NoMatch::unless(exact || wide, "the reciprocal is not exact in half precision")?;
    let normal = values.iter().all(|v| (1e-30..1e30).contains(&v.abs()));
    NoMatch::unless(normal, "the divisor or its reciprocal is out of the normal range")?;
    let reciprocals: Vec<f64> = values.iter().map(|v| 1.0 / v).collect();
    let tensor = Tensor::from_vec(divisor.shape().clone(), reciprocals)?.cast(ty)?;
    let factor = cx.constant(tensor, root);
    let y = cx.add(Multiply {}, &[x, factor], root)?;
    Ok(Patch::replace(root, y))
}

fn difference(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let (a, b) = m.binary::<Subtract>(root.into()).ok_or(NoMatch::Pattern)?;
    let ty = m.element_type(root.into());
    NoMatch::unless(ty.is_float(), "integers may wrap or be unsigned")?;
    if m.constant(b).is_none() && m.scalar(a) == Some(0.0) && m.broadcasts_into(a, b) {
        let y = cx.add(Negative {}, &[b], root)?;
        return Ok(Patch::replace(root, y));
    }
    let c = m.constant(b).filter(|c| m.constant(a).is_none() && c.len() <= FEW);
    let minus_one = splat(ElementType::F64, 0, -1.0).ok_or(NoMatch::Pattern)?;
    let negated = c.and_then(|c| combine(c, &minus_one, &Multiply {})).ok_or(NoMatch::Pattern)?;
    let negated = cx.constant(negated, root);
    let y = cx.add(Add {}, &[a, negated], root)?;
    Ok(Patch::replace(root, y))
}

fn power(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let (x, exponent) = m.then_scalar::<Power>(root.into()).ok_or(NoMatch::Pattern)?;
    NoMatch::unless(m.element_type(x).is_float(), "not of a floating-point type")?;
    let y = if exponent == 2.0 {
        cx.add(Multiply {}, &[x, x], root)?
    } else if exponent == 0.5 {
        cx.add(Sqrt {}, &[x], root)?
    } else {
        return Err(NoMatch::Pattern);
    };
    Ok(Patch::replace(root, y))
}

fn chain(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let product = m.node(root).op().is::<Multiply>();
    let found = if product {
        nested::<Multiply>(m, root.into(), &Multiply {})
    } else {
        nested::<Add>(m, root.into(), &Add {})
    };
    let (x, inner, constant) = found.ok_or(NoMatch::Pattern)?;
    NoMatch::unless(m.has_single_use(inner), "the inner value is read elsewhere")?;
    let op = m.node(root).op().clone_box();
    let constant = cx.constant(constant, root);
    let y = cx.add_boxed(op, &[x, constant], root)?;
    Ok(Patch::replace(root, y))
}

/// `x`, the inner value and the joint constant of `(x op c1) op c2`.
fn nested<T: crate::op::Op>(
    m: &Model,
    root: Value,
    op: &dyn crate::op::Op,
) -> Option<(Value, Value, Tensor)> {
    let (inner, c2) = m.with_narrow_constant::<T>(root)?;
    let (x, c1) = m.with_narrow_constant::<T>(inner)?;
    let joint = (c1.element_type().is_float()).then(|| combine(c1, c2, op))??;
    (joint.len() <= c1.len().max(c2.len())).then_some((x, inner, joint))
}

/// Elements up to which a constant is rewritten.
const FEW: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::testing::{Build, rewritten};
    use super::*;

    const TABLE: &[Rewrite] = &[CONSTANT_LAST, NEUTRAL, QUOTIENT, DIFFERENCE, POWER, CHAIN];

    #[test]
    fn neutral_elements_go_and_constants_join() {
        let mut b = Build::new();
        let x = b.input([2, 3]);
        let (zero, one, two, four) = (b.scalar(0.0), b.scalar(1.0), b.scalar(2.0), b.scalar(4.0));
        let v = b.add(Add {}, &[zero, x]);
        let v = b.add(Multiply {}, &[v, one]);
        let v = b.add(Divide::default(), &[v, four]);
        let v = b.add(Multiply {}, &[two, v]);
        let v = b.add(Subtract {}, &[v, one]);
        let v = b.add(Power {}, &[v, two]);
        let v = b.add(Subtract {}, &[zero, v]);
        expect![[r#"
            model "test"
              %0 = Parameter() {element_type=f32, shape=[2,3]} : f32[2,3] "n0"
              %16 = Constant() {value=f32[] [-1.0]} : f32[] "n9"
              %20 = Constant() {value=f32[] [0.5]} : f32[] "n8"
              %21 = Multiply(%0, %20) : f32[2,3] "n8"
              %17 = Add(%21, %16) : f32[2,3] "n9"
              %18 = Multiply(%17, %17) : f32[2,3] "n10"
              %19 = Negative(%18) : f32[2,3] "n11"
              return %19 as "y"
        "#]]
        .assert_eq(&rewritten(&b.output(v), TABLE).to_string());
    }

    #[test]
    fn a_neutral_element_that_broadens_the_shape_stays() {
        let mut b = Build::new();
        let x = b.input([1, 3]);
        let zeros = b.constant(Tensor::zeros(ElementType::F32, [2, 1]).expect("small"));
        let v = b.add(Add {}, &[x, zeros]);
        assert!(rewritten(&b.output(v), TABLE).to_string().contains("Add"));
    }

    #[test]
    fn zero_and_huge_divisors_stay() {
        for divisor in [0.0, 1e38, f64::INFINITY] {
            let mut b = Build::new();
            let x = b.input([2, 3]);
            let c = b.scalar(divisor);
            let v = b.add(Divide::default(), &[x, c]);
            assert!(rewritten(&b.output(v), TABLE).to_string().contains("Divide"), "{divisor}");
        }
    }

    #[test]
    fn integer_quotients_stay() {
        let mut b = Build::new();
        let (c, d) = (b.i64s(&[7, -7]), b.i64s(&[2]));
        let v = b.add(Divide::default(), &[c, d]);
        assert!(rewritten(&b.output(v), TABLE).to_string().contains("Divide"));
    }
}
