//! `x * sigmoid(beta x)` becomes `Swish`.

use super::super::{
    NoMatch, Patch, Rewrite, Rewriter,
    pattern::{Pattern, splat},
};
use super::factors::Product;
use crate::{
    model::{Model, NodeId, Value},
    op::{
        activation::{Sigmoid, Swish},
        arithmetic::Multiply,
    },
};

pub(super) const REWRITE: Rewrite = Rewrite { name: "swish", roots: &["Multiply"], apply };

fn apply(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let (x, beta, gate) = find(cx.model(), root.into()).ok_or(NoMatch::Pattern)?;
    NoMatch::unless(cx.model().has_single_use(gate), "the sigmoid is read elsewhere")?;
    let swish = if beta == 1.0 {
        cx.add(Swish {}, &[x], root)?
    } else {
        let beta = splat(cx.model().element_type(x), 0, beta).ok_or(NoMatch::Pattern)?;
        let beta = cx.constant(beta, root);
        cx.add(Swish {}, &[x, beta], root)?
    };
    Ok(Patch::replace(root, swish))
}

/// `x`, `beta` and the value of the sigmoid.
fn find(m: &Model, root: Value) -> Option<(Value, f64, Value)> {
    let (a, b) = m.binary::<Multiply>(root)?;
    [(a, b), (b, a)].into_iter().find_map(|(x, gate)| {
        let argument = m.unary::<Sigmoid>(gate)?;
        if argument == x {
            return Some((x, 1.0, gate));
        }
        let product = Product::of(m, argument);
        (product.terms.as_slice() == [x] && m.has_single_use(argument)).then_some((
            x,
            product.scale,
            gate,
        ))
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::testing::{Build, rewritten};
    use super::*;

    const TABLE: &[Rewrite] = &[REWRITE];

    #[test]
    fn either_order_and_a_scaled_gate() {
        for swapped in [false, true] {
            let mut b = Build::new();
            let x = b.input([2, 3]);
            let gate = b.add(Sigmoid {}, &[x]);
            let y = b.add(Multiply {}, &if swapped { [gate, x] } else { [x, gate] });
            expect![[r#"
                model "test"
                  %0 = Parameter() {element_type=f32, shape=[2,3]} : f32[2,3] "n0"
                  %3 = Swish(%0) : f32[2,3] "n2"
                  return %3 as "y"
            "#]]
            .assert_eq(&rewritten(&b.output(y), TABLE).to_string());
        }
        let mut b = Build::new();
        let x = b.input([2, 3]);
        let beta = b.scalar(1.702);
        let scaled = b.add(Multiply {}, &[x, beta]);
        let gate = b.add(Sigmoid {}, &[scaled]);
        let y = b.add(Multiply {}, &[x, gate]);
        let after = rewritten(&b.output(y), TABLE);
        let y = after.outputs()[0].value;
        assert!(after.is_scalar(after.inputs_of::<Swish>(y).expect("fused")[1], 1.702));
    }

    #[test]
    fn leaves_a_gate_of_another_value_or_with_another_reader() {
        let mut b = Build::new();
        let (x, z) = (b.input([2, 3]), b.input([2, 3]));
        let gate = b.add(Sigmoid {}, &[z]);
        let y = b.add(Multiply {}, &[x, gate]);
        assert!(!rewritten(&b.output(y), TABLE).to_string().contains("Swish"));
        let mut b = Build::new();
        let x = b.input([2, 3]);
        let gate = b.add(Sigmoid {}, &[x]);
        let y = b.add(Multiply {}, &[x, gate]);
        b.give(gate);
        assert!(!rewritten(&b.output(y), TABLE).to_string().contains("Swish"));
    }
}
