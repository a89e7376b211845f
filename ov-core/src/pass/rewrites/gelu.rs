//! GELU spelled out with `Erf` or `Tanh`, in every order of its factors, becomes `Gelu`.

use super::super::{NoMatch, Patch, Rewrite, Rewriter, close, pattern::Pattern};
use super::factors::Product;
use crate::{
    model::{Model, NodeId, Value},
    op::{
        activation::{Erf, Gelu, GeluMode, Tanh},
        arithmetic::Add,
    },
};

pub(super) const REWRITE: Rewrite = Rewrite { name: "gelu", roots: &["Multiply", "Divide"], apply };

fn apply(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let (a, b) = Product::of(m, root.into()).pair(0.5).ok_or(NoMatch::Pattern)?;
    let (x, mode) = [(a, b), (b, a)]
        .into_iter()
        .find_map(|(x, gate)| Some((x, gate_mode(m, x, gate)?)))
        .ok_or(NoMatch::Pattern)?;
    let y = cx.add(Gelu { approximation_mode: mode }, &[x], root)?;
    Ok(Patch::replace(root, y))
}

/// Whether `gate` is `1 + erf(x / √2)` or `1 + tanh(√(2/π) (x + 0.044715 x³))`.
fn gate_mode(m: &Model, x: Value, gate: Value) -> Option<GeluMode> {
    let (function, one) = m.with_scalar::<Add>(gate)?;
    (close(one, 1.0) && m.single_use(&[gate, function])).then_some(())?;
    if let Some(argument) = m.unary::<Erf>(function) {
        let product = Product::of(m, argument);
        let scaled = product.terms.as_slice() == [x] && m.has_single_use(argument);
        return (scaled && close(product.scale, std::f64::consts::FRAC_1_SQRT_2))
            .then_some(GeluMode::Erf);
    }
    let argument = m.unary::<Tanh>(function)?;
    let product = Product::of(m, argument);
    (close(product.scale, std::f64::consts::FRAC_2_PI.sqrt()) && m.has_single_use(argument))
        .then_some(())?;
    let matches = match product.terms.as_slice() {
        [sum] => {
            let cubic = m.other_operand::<Add>(*sum, x)?;
            m.single_use(&[*sum, cubic]) && is_power(m, cubic, x, 3.0)
        }
        [a, b] => [(*a, *b), (*b, *a)].into_iter().any(|(left, sum)| {
            left == x
                && m.with_scalar::<Add>(sum).is_some_and(|(square, one)| {
                    close(one, 1.0) && m.single_use(&[sum, square]) && is_power(m, square, x, 2.0)
                })
        }),
        _ => false,
    };
    matches.then_some(GeluMode::Tanh)
}

/// Whether `value` is `0.044715 x^exponent`.
fn is_power(m: &Model, value: Value, x: Value, exponent: f64) -> bool {
    let product = Product::of(m, value);
    close(product.scale, 0.044_715) && product.power_of(m, x) == Some(exponent)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{Build, rewritten};
    use super::*;
    use crate::op::arithmetic::{Divide, Multiply, Power};

    const TABLE: &[Rewrite] = &[REWRITE];

    fn erf_gate(b: &mut Build, x: Value, divide: bool) -> Value {
        let scaled = if divide {
            let c = b.scalar(std::f64::consts::SQRT_2);
            b.add(Divide::default(), &[x, c])
        } else {
            let c = b.scalar(0.707_106_77);
            b.add(Multiply {}, &[c, x])
        };
        let erf = b.add(Erf {}, &[scaled]);
        let one = b.scalar(1.0);
        b.add(Add {}, &if divide { [erf, one] } else { [one, erf] })
    }

    fn tanh_gate(b: &mut Build, x: Value, form: usize) -> Value {
        let (c, s, one) = (b.scalar(0.044_715), b.scalar(0.797_884_56), b.scalar(1.0));
        let inner = match form {
            0 => {
                let three = b.scalar(3.0);
                let cube = b.add(Power {}, &[x, three]);
                let scaled = b.add(Multiply {}, &[cube, c]);
                let sum = b.add(Add {}, &[x, scaled]);
                b.add(Multiply {}, &[sum, s])
            }
            1 => {
                let square = b.add(Multiply {}, &[x, x]);
                let cube = b.add(Multiply {}, &[square, x]);
                let scaled = b.add(Multiply {}, &[c, cube]);
                let sum = b.add(Add {}, &[scaled, x]);
                b.add(Multiply {}, &[s, sum])
            }
            _ => {
                let square = b.add(Multiply {}, &[x, x]);
                let scaled = b.add(Multiply {}, &[square, c]);
                let sum = b.add(Add {}, &[scaled, one]);
                let p = b.add(Multiply {}, &[x, s]);
                b.add(Multiply {}, &[p, sum])
            }
        };
        let tanh = b.add(Tanh {}, &[inner]);
        b.add(Add {}, &[tanh, one])
    }

    fn product(b: &mut Build, x: Value, gate: Value, order: usize) -> Value {
        let half = b.scalar(0.5);
        let two = b.scalar(2.0);
        let (first, last) = match order {
            0 => (b.add(Multiply {}, &[x, gate]), half),
            1 => (b.add(Multiply {}, &[half, x]), gate),
            2 => (b.add(Multiply {}, &[gate, half]), x),
            _ => {
                let p = b.add(Multiply {}, &[gate, x]);
                return b.add(Divide::default(), &[p, two]);
            }
        };
        b.add(Multiply {}, &[first, last])
    }

    #[test]
    fn every_permutation_matches() {
        for order in 0..4 {
            for form in 0..5 {
                let mut b = Build::new();
                let x = b.input([2, 3]);
                let gate = match form {
                    0 | 1 => erf_gate(&mut b, x, form == 0),
                    _ => tanh_gate(&mut b, x, form - 2),
                };
                let y = product(&mut b, x, gate, order);
                let after = rewritten(&b.output(y), TABLE);
                let y = after.outputs()[0].value;
                let gelu = after.as_op::<Gelu>(y);
                let expected = if form < 2 { GeluMode::Erf } else { GeluMode::Tanh };
                assert_eq!(
                    gelu.map(|g| g.approximation_mode),
                    Some(expected),
                    "order {order} form {form}\n{after}"
                );
                assert_eq!(after.len(), 2);
            }
        }
    }

    #[test]
    fn another_scale_stays() {
        let mut b = Build::new();
        let x = b.input([2, 3]);
        let gate = erf_gate(&mut b, x, true);
        let p = b.add(Multiply {}, &[x, gate]);
        let c = b.scalar(0.6);
        let y = b.add(Multiply {}, &[p, c]);
        let model = b.output(y);
        assert_eq!(rewritten(&model, TABLE).to_string(), model.to_string());
    }
}
