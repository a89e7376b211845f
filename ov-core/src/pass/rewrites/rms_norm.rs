//! `x / sqrt(mean(x²) + epsilon) * scale` becomes `RMSNorm`.

use super::super::{NoMatch, Patch, Rewrite, Rewriter, pattern::Pattern};
use super::layer_norm::{mean, normalized, squared};
use crate::{
    model::{Model, NodeId, Value},
    op::{
        arithmetic::{Add, Multiply},
        normalization::RmsNorm,
    },
};

pub(super) const REWRITE: Rewrite = Rewrite { name: "rms norm", roots: &["Multiply"], apply };

fn apply(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let (a, b) = m.binary::<Multiply>(root.into()).ok_or(NoMatch::Pattern)?;
    let (line, scale, (x, axes, epsilon)) = [(a, b), (b, a)]
        .into_iter()
        .find_map(|(line, scale)| Some((line, scale, find(m, line)?)))
        .ok_or(NoMatch::Pattern)?;
    let rank = m.rank(x).ok_or(NoMatch::Pattern)?;
    let axis = rank - axes.len().min(rank);
    NoMatch::unless(axes.iter().copied().eq(axis..rank), "not the last axes")?;
    NoMatch::unless(m.has_single_use(line), "read without scale elsewhere")?;
    let small = m.rank(scale).is_some_and(|r| r <= axes.len()) && m.broadcasts_into(scale, x);
    NoMatch::unless(small, "the scale is not one per normalized element")?;
    let op = RmsNorm { axis: -(axes.len() as i64), epsilon };
    let y = cx.add(op, &[x, scale], root)?;
    Ok(Patch::replace(root, y))
}

/// `x`, the axes and epsilon.
fn find(m: &Model, line: Value) -> Option<(Value, Vec<usize>, f64)> {
    let (x, sum, _) = normalized(m, line)?;
    let (average, epsilon) = m.with_scalar::<Add>(sum)?;
    let (square, axes) = mean(m, average)?;
    (squared(m, square)? == x && !axes.is_empty()).then_some((x, axes, epsilon))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{Build, rewritten};
    use super::*;
    use crate::op::{
        activation::Sqrt,
        arithmetic::{Divide, Power},
        reduction::ReduceMean,
    };

    const TABLE: &[Rewrite] = &[REWRITE];

    fn model(form: usize, axis: i64) -> Model {
        let mut b = Build::new();
        let x = b.input([2, 3, 4]);
        let axes = b.i64s(&[axis]);
        let (two, one, eps) = (b.scalar(2.0), b.scalar(1.0), b.scalar(1e-6));
        let square =
            if form == 0 { b.add(Power {}, &[x, two]) } else { b.add(Multiply {}, &[x, x]) };
        let average = b.add(ReduceMean { keep_dims: true }, &[square, axes]);
        let sum = b.add(Add {}, &[average, eps]);
        let deviation = b.add(Sqrt {}, &[sum]);
        let line = if form == 0 {
            b.add(Divide::default(), &[x, deviation])
        } else {
            let inverse = b.add(Divide::default(), &[one, deviation]);
            b.add(Multiply {}, &[x, inverse])
        };
        let w = b.weights([4]);
        let y = b.add(Multiply {}, &if form == 0 { [line, w] } else { [w, line] });
        b.output(y)
    }

    #[test]
    fn both_spellings_become_one_operator() {
        for form in 0..2 {
            let after = rewritten(&model(form, 2), TABLE);
            assert_eq!(after.len(), 3, "{after}");
            assert!(after.to_string().contains("RMSNorm"));
        }
    }

    #[test]
    fn another_axis_stays() {
        assert!(!rewritten(&model(0, 1), TABLE).to_string().contains("RMSNorm"));
    }
}
