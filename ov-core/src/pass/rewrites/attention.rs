//! `softmax(Q Kᵀ scale + mask) V` spelled out becomes `ScaledDotProductAttention`.

use super::super::{
    NoMatch, Patch, Rewrite, Rewriter,
    pattern::{Pattern, splat},
};
use super::transpose::{add_transpose, without_exchange};
use crate::{
    model::{Model, NodeId, Value},
    op::{
        arithmetic::{Add, Divide, Multiply},
        attention::ScaledDotProductAttention,
        matmul::MatMul,
        normalize_axis,
        select::Select,
        softmax::SoftMax,
    },
    tensor::Tensor,
};

/// Rows that a mask of -inf hides altogether become zeros, where the composition gives NaN.
pub(super) const REWRITE: Rewrite = Rewrite { name: "attention", roots: &["MatMul"], apply };

/// `Q Kᵀ scale + mask`, and the values on the way to it.
struct Scores {
    q: Value,
    k: Value,
    /// Whether `k` lies as `[…, s, e]`.
    by_key: bool,
    scale: f64,
    mask: Option<Value>,
}

fn apply(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let outer = m.as_op::<MatMul>(root.into()).ok_or(NoMatch::Pattern)?;
    let (p, v) = m.binary::<MatMul>(root.into()).ok_or(NoMatch::Pattern)?;
    let axis = m.as_op::<SoftMax>(p).ok_or(NoMatch::Pattern)?.axis;
    let plain = !outer.transpose_a && !outer.transpose_b;
    let rank = m.rank(p).ok_or(NoMatch::CheckFailed("rank not known"))?;
    let last = normalize_axis(axis, rank).is_ok_and(|a| a + 1 == rank);
    NoMatch::unless(last && plain, "the softmax runs over another axis")?;
    NoMatch::unless(m.rank(v) == Some(rank), "the ranks differ")?;
    let sum = m.unary::<SoftMax>(p).ok_or(NoMatch::Pattern)?;
    NoMatch::unless(m.single_use(&[p, sum]), "the probabilities are read elsewhere")?;
    let wide = m.element_type(v).bits() >= 32;
    NoMatch::unless(wide, "16-bit types round every step of the composition")?;
    let Scores { q, mut k, by_key, scale, mask } = find(m, sum).ok_or(NoMatch::Pattern)?;
    let ranks = m.rank(q) == Some(rank) && m.rank(k) == Some(rank);
    NoMatch::unless(ranks, "the ranks differ")?;
    if !by_key {
        let (from, order) =
            without_exchange(m, k).ok_or(NoMatch::CheckFailed("the keys lie by column"))?;
        k = add_transpose(cx, from, &order, root)?;
    }
    let scale = splat(cx.model().element_type(q), 0, scale).ok_or(NoMatch::Pattern)?;
    let mask = match mask {
        Some(mask) => mask,
        None => cx.constant(Tensor::absent(), root),
    };
    let scale = cx.constant(scale, root);
    let y = cx.add(ScaledDotProductAttention { causal: false }, &[q, k, v, mask, scale], root)?;
    Ok(Patch::replace(root, y))
}

fn find(m: &Model, sum: Value) -> Option<Scores> {
    if let Some((a, b)) = m.binary::<Add>(sum) {
        return [(a, b), (b, a)].into_iter().find_map(|(scores, mask)| {
            let narrow = m.broadcasts_into(mask, scores) && m.has_single_use(scores);
            let found = narrow.then(|| product(m, scores))??;
            Some(Scores { mask: Some(mask), ..found })
        });
    }
    if let Some([condition, scores, hidden]) = m.inputs_of::<Select>(sum) {
        let hides = m.scalar(*hidden) == Some(f64::NEG_INFINITY)
            && m.broadcasts_into(*condition, *scores)
            && m.broadcasts_into(*hidden, *scores)
            && m.has_single_use(*scores);
        let found = hides.then(|| product(m, *scores))??;
        return Some(Scores { mask: Some(*condition), ..found });
    }
    product(m, sum)
}

/// `Q Kᵀ scale`, the scale standing after the product, at its operands, or both.
fn product(m: &Model, scores: Value) -> Option<Scores> {
    let (product, mut scale) = unscaled(m, scores);
    let op = m.as_op::<MatMul>(product)?;
    let (a, b) = m.binary::<MatMul>(product)?;
    (!op.transpose_a && (product == scores || m.has_single_use(product))).then_some(())?;
    let (q, of_q) = unscaled(m, a);
    let (k, of_k) = unscaled(m, b);
    scale *= of_q * of_k;
    m.element_type(q).is_float().then_some(Scores {
        q,
        k,
        by_key: op.transpose_b,
        scale,
        mask: None,
    })
}

/// The value without multiplications by scalars that only it goes through.
fn unscaled(m: &Model, mut value: Value) -> (Value, f64) {
    let mut scale = 1.0;
    loop {
        let (next, factor) =
            match (m.with_scalar::<Multiply>(value), m.then_scalar::<Divide>(value)) {
                (Some((x, s)), _) => (x, s),
                (_, Some((x, s))) => (x, 1.0 / s),
                _ => return (value, scale),
            };
        if !m.has_single_use(value) {
            return (value, scale);
        }
        (value, scale) = (next, scale * factor);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::testing::{Build, rewritten};
    use super::*;
    use crate::op::transpose::Transpose;

    const TABLE: &[Rewrite] = &[super::super::transpose::INTO_MATMUL, REWRITE];

    fn heads(b: &mut Build, x: Value, order: &[i64]) -> Value {
        let order = b.i64s(order);
        b.add(Transpose {}, &[x, order])
    }

    fn attend(b: &mut Build, scores: Value, v: Value) -> Value {
        let p = b.add(SoftMax { axis: -1 }, &[scores]);
        b.add(MatMul::default(), &[p, v])
    }

    #[test]
    fn a_scale_and_a_mask_after_the_product() {
        let mut b = Build::new();
        let (q, k, v) = (b.input([2, 3, 2, 4]), b.input([2, 5, 2, 4]), b.input([2, 2, 5, 4]));
        let mask = b.input([2, 1, 1, 5]);
        let q = heads(&mut b, q, &[0, 2, 1, 3]);
        let k = heads(&mut b, k, &[0, 2, 3, 1]);
        let scores = b.add(MatMul::default(), &[q, k]);
        let two = b.scalar(2.0);
        let scores = b.add(Divide::default(), &[scores, two]);
        let scores = b.add(Add {}, &[mask, scores]);
        let y = attend(&mut b, scores, v);
        expect![[r#"
            model "test"
              %0 = Parameter() {element_type=f32, shape=[2,3,2,4]} : f32[2,3,2,4] "n0"
              %1 = Parameter() {element_type=f32, shape=[2,5,2,4]} : f32[2,5,2,4] "n1"
              %2 = Parameter() {element_type=f32, shape=[2,2,5,4]} : f32[2,2,5,4] "n2"
              %3 = Parameter() {element_type=f32, shape=[2,1,1,5]} : f32[2,1,1,5] "n3"
              %4 = Constant() {value=i64[4] [0.0, 2.0, 1.0, 3.0]} : i64[4] "n4"
              %5 = Transpose(%0, %4) : f32[2,2,3,4] "n5"
              %14 = Constant() {value=i64[4] [0.0, 2.0, 1.0, 3.0]} : i64[4] "n8"
              %15 = Transpose(%1, %14) : f32[2,2,5,4] "n8"
              %17 = Constant() {value=f32[] [0.5]} : f32[] "n13"
              %18 = ScaledDotProductAttention(%5, %15, %2, %3, %17) {causal=false} : f32[2,2,3,4] "n13"
              return %18 as "y"
        "#]].assert_eq(&rewritten(&b.output(y), TABLE).to_string());
    }

    #[test]
    fn scales_at_both_operands() {
        let mut b = Build::new();
        let (q, k, v) = (b.input([2, 3, 4]), b.input([2, 5, 4]), b.input([2, 5, 4]));
        let s = b.scalar(0.7);
        let q = b.add(Multiply {}, &[q, s]);
        let k = heads(&mut b, k, &[0, 2, 1]);
        let k = b.add(Multiply {}, &[k, s]);
        let scores = b.add(MatMul::default(), &[q, k]);
        let y = attend(&mut b, scores, v);
        let after = rewritten(&b.output(y), TABLE);
        let y = after.outputs()[0].value;
        let inputs = after.inputs_of::<ScaledDotProductAttention>(y).expect("fused");
        assert!(after.is_scalar(inputs[4], 0.49));
        assert_eq!(after.len(), 6, "{after}");
    }

    #[test]
    fn a_choice_of_minus_infinity_is_a_mask() {
        let mut b = Build::new();
        let (q, k, v) = (b.input([2, 3, 4]), b.input([2, 3, 4]), b.input([2, 3, 4]));
        let causal: Vec<bool> = (0..9).map(|i| i % 3 <= i / 3).collect();
        let keep = b.constant(Tensor::from_bools([1, 3, 3], &causal).expect("fits"));
        let hidden = b.scalar(f64::NEG_INFINITY);
        let scores = b.add(MatMul { transpose_b: true, ..MatMul::default() }, &[q, k]);
        let scores = b.add(Select::default(), &[keep, scores, hidden]);
        let y = attend(&mut b, scores, v);
        let after = rewritten(&b.output(y), TABLE);
        assert!(after.to_string().contains("ScaledDotProductAttention"), "{after}");
    }

    #[test]
    fn probabilities_that_are_given_out_and_other_axes_stay() {
        for (axis, give) in [(-1, true), (1, false)] {
            let mut b = Build::new();
            let (q, k, v) = (b.input([2, 3, 4]), b.input([2, 3, 4]), b.input([2, 3, 4]));
            let scores = b.add(MatMul { transpose_b: true, ..MatMul::default() }, &[q, k]);
            let p = b.add(SoftMax { axis }, &[scores]);
            let y = b.add(MatMul::default(), &[p, v]);
            if give {
                b.give(p);
            }
            let after = rewritten(&b.output(y), TABLE).to_string();
            assert!(!after.contains("ScaledDotProductAttention"), "{after}");
        }
    }
}
