//! Every spelling of `min(max(x + 3, 0), 6) / 6` becomes `HSigmoid`, and its product with `x` becomes `HSwish`.

use super::super::{NoMatch, Patch, Rewrite, Rewriter, close, pattern::Pattern};
use super::factors::Product;
use crate::{
    model::{Model, NodeId, Value},
    op::{
        activation::{Clamp, HSigmoid, HSwish, HardSigmoid},
        arithmetic::Add,
    },
};

pub(super) const REWRITE: Rewrite =
    Rewrite { name: "hard swish", roots: &["Multiply", "Divide", "HardSigmoid", "Clamp"], apply };

fn apply(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    if let Some(x) = hard_sigmoid(m, root.into()) {
        let y = cx.add(HSigmoid {}, &[x], root)?;
        return Ok(Patch::replace(root, y));
    }
    let product = Product::of(m, root.into());
    let x = match product.terms.as_slice() {
        // clamp(x + 3, 0, 6) / 6
        [c] if close(product.scale, 1.0 / 6.0) && m.has_single_use(*c) => {
            let x = shifted_clamp(m, *c).ok_or(NoMatch::Pattern)?;
            let y = cx.add(HSigmoid {}, &[x], root)?;
            return Ok(Patch::replace(root, y));
        }
        [a, b] => [(*a, *b), (*b, *a)].into_iter().find_map(|(x, gate)| {
            let argument = if close(product.scale, 1.0 / 6.0) {
                shifted_clamp(m, gate)
            } else if close(product.scale, 1.0) {
                m.unary::<HSigmoid>(gate).or_else(|| hard_sigmoid(m, gate))
            } else {
                None
            };
            (argument? == x && m.has_single_use(gate)).then_some(x)
        }),
        _ => None,
    };
    let y = cx.add(HSwish {}, &[x.ok_or(NoMatch::Pattern)?], root)?;
    Ok(Patch::replace(root, y))
}

/// `x` of `clamp(x + 3, 0, 6)`.
fn shifted_clamp(m: &Model, value: Value) -> Option<Value> {
    let clamp = m.as_op::<Clamp>(value)?;
    let sum = m.unary::<Clamp>(value)?;
    (clamp.min == 0.0 && close(clamp.max, 6.0) && m.has_single_use(sum)).then_some(())?;
    let (x, three) = m.with_scalar::<Add>(sum)?;
    close(three, 3.0).then_some(x)
}

/// `x` of `HardSigmoid(x, 1/6, 1/2)` or of `clamp(x / 6 + 1/2, 0, 1)`.
fn hard_sigmoid(m: &Model, value: Value) -> Option<Value> {
    if let Some([x, alpha, beta]) = m.inputs_of::<HardSigmoid>(value) {
        return (m.is_scalar(*alpha, 1.0 / 6.0) && m.is_scalar(*beta, 0.5)).then_some(*x);
    }
    let clamp = m.as_op::<Clamp>(value)?;
    let sum = m.unary::<Clamp>(value)?;
    (clamp.min == 0.0 && clamp.max == 1.0 && m.has_single_use(sum)).then_some(())?;
    let (scaled, half) = m.with_scalar::<Add>(sum)?;
    let product = Product::of(m, scaled);
    let sixth = close(product.scale, 1.0 / 6.0) && close(half, 0.5) && m.has_single_use(scaled);
    match product.terms.as_slice() {
        [x] if sixth => Some(*x),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::testing::{Build, rewritten};
    use super::*;
    use crate::op::arithmetic::{Divide, Multiply};

    const TABLE: &[Rewrite] = &[REWRITE];

    fn clamp_of(b: &mut Build, x: Value) -> Value {
        let three = b.scalar(3.0);
        let sum = b.add(Add {}, &[x, three]);
        b.add(Clamp { min: 0.0, max: 6.0 }, &[sum])
    }

    #[test]
    fn every_order_of_the_factors_becomes_one_operator() {
        let spellings: [fn(&mut Build, Value, Value) -> Value; 5] = [
            |b, x, c| {
                let six = b.scalar(6.0);
                let p = b.add(Multiply {}, &[x, c]);
                b.add(Divide::default(), &[p, six])
            },
            |b, x, c| {
                let six = b.scalar(6.0);
                let q = b.add(Divide::default(), &[c, six]);
                b.add(Multiply {}, &[q, x])
            },
            |b, x, c| {
                let sixth = b.scalar(1.0 / 6.0);
                let p = b.add(Multiply {}, &[c, x]);
                b.add(Multiply {}, &[sixth, p])
            },
            |b, x, c| {
                let sixth = b.scalar(0.166_666_67);
                let p = b.add(Multiply {}, &[x, sixth]);
                b.add(Multiply {}, &[p, c])
            },
            |b, x, _| {
                let (alpha, beta) = (b.scalar(1.0 / 6.0), b.scalar(0.5));
                let gate = b.add(HardSigmoid {}, &[x, alpha, beta]);
                b.add(Multiply {}, &[x, gate])
            },
        ];
        for (i, spelling) in spellings.iter().enumerate() {
            let mut b = Build::new();
            let x = b.input([2, 3]);
            let c = clamp_of(&mut b, x);
            let y = spelling(&mut b, x, c);
            let model = b.output(y);
            let after = rewritten(&model, TABLE);
            let y = after.outputs()[0].value;
            assert_eq!(after.unary::<HSwish>(y), Some(x), "spelling {i}\n{after}");
            assert_eq!(after.len(), 2, "spelling {i}\n{after}");
        }
    }

    #[test]
    fn the_gate_alone_becomes_hsigmoid() {
        let mut b = Build::new();
        let x = b.input([2, 3]);
        let c = clamp_of(&mut b, x);
        let six = b.scalar(6.0);
        let y = b.add(Divide::default(), &[c, six]);
        expect![[r#"
            model "test"
              %0 = Parameter() {element_type=f32, shape=[2,3]} : f32[2,3] "n0"
              %6 = HSigmoid(%0) : f32[2,3] "n5"
              return %6 as "y"
        "#]]
        .assert_eq(&rewritten(&b.output(y), TABLE).to_string());
    }

    #[test]
    fn other_slopes_and_other_bounds_stay() {
        let mut b = Build::new();
        let x = b.input([2, 3]);
        let (alpha, beta) = (b.scalar(0.2), b.scalar(0.5));
        let gate = b.add(HardSigmoid {}, &[x, alpha, beta]);
        let y = b.add(Multiply {}, &[x, gate]);
        assert!(!rewritten(&b.output(y), TABLE).to_string().contains("HSwish"));
        let mut b = Build::new();
        let x = b.input([2, 3]);
        let (three, six) = (b.scalar(3.0), b.scalar(6.0));
        let sum = b.add(Add {}, &[x, three]);
        let c = b.add(Clamp { min: 0.0, max: 5.0 }, &[sum]);
        let p = b.add(Multiply {}, &[x, c]);
        let y = b.add(Divide::default(), &[p, six]);
        assert!(!rewritten(&b.output(y), TABLE).to_string().contains("HSwish"));
    }
}
