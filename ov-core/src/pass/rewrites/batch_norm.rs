//! `BatchNormInference` with constant statistics becomes a product and a sum per channel, which fold into weights.

use super::super::{NoMatch, Patch, Rewrite, Rewriter, pattern::Pattern};
use crate::{
    model::NodeId,
    op::{
        arithmetic::{Add, Multiply},
        normalization::{BatchNormInference, BatchNormInference1},
    },
    tensor::Tensor,
};

pub(super) const REWRITE: Rewrite =
    Rewrite { name: "batch norm", roots: &["BatchNormInference"], apply };

fn apply(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let node = m.node(root);
    let &[a, b, c, mean, variance] = node.inputs() else { return Err(NoMatch::Pattern) };
    let (x, gamma, beta, epsilon) = if let Some(op) = node.op_as::<BatchNormInference>() {
        (a, b, c, op.epsilon)
    } else {
        let op = node.op_as::<BatchNormInference1>().ok_or(NoMatch::Pattern)?;
        (c, a, b, op.epsilon)
    };
    let rank = m.rank(x).filter(|r| *r >= 2).ok_or(NoMatch::CheckFailed("rank not known"))?;
    let values = |v| {
        let tensor = m.constant(v).ok_or(NoMatch::CheckFailed("statistics are not constant"))?;
        Ok::<_, NoMatch>(tensor.to_f64_vec()?)
    };
    let (gamma, beta, mean, variance) =
        (values(gamma)?, values(beta)?, values(mean)?, values(variance)?);
    let scale: Vec<f64> =
        gamma.iter().zip(&variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
    let shift: Vec<f64> = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
    NoMatch::unless(scale.iter().chain(&shift).all(|v| v.is_finite()), "not finite")?;
    let mut shape = vec![1; rank];
    shape[1] = scale.len();
    let ty = m.element_type(x);
    let scale = Tensor::from_vec(shape.clone(), scale)?.cast(ty)?;
    let shift = Tensor::from_vec(shape, shift)?.cast(ty)?;
    let (scale, shift) = (cx.constant(scale, root), cx.constant(shift, root));
    let product = cx.add(Multiply {}, &[x, scale], root)?;
    let sum = cx.add(Add {}, &[product, shift], root)?;
    Ok(Patch::replace(root, sum))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::testing::{Build, positive, rewritten};
    use super::*;

    const TABLE: &[Rewrite] = &[REWRITE];

    #[test]
    fn becomes_a_product_and_a_sum() {
        let mut b = Build::new();
        let x = b.input([2, 3, 4]);
        let (gamma, beta, mean) = (b.weights([3]), b.weights([3]), b.weights([3]));
        let variance = b.constant(positive([3], 9));
        let y = b.add(BatchNormInference { epsilon: 1e-3 }, &[x, gamma, beta, mean, variance]);
        let z = b.add(BatchNormInference1 { epsilon: 1e-3 }, &[gamma, beta, x, mean, variance]);
        b.give(z);
        expect![[r#"
            model "test"
              %0 = Parameter() {element_type=f32, shape=[2,3,4]} : f32[2,3,4] "n0"
              %7 = Constant() {value=f32[1,3,1] [-0.14246220886707306, 0.3065926432609558, 1.4544892311096191]} : f32[1,3,1] "n5"
              %8 = Constant() {value=f32[1,3,1] [-2.005432605743408, 0.6832168698310852, -0.23843123018741608]} : f32[1,3,1] "n5"
              %9 = Multiply(%0, %7) : f32[2,3,4] "n5"
              %10 = Add(%9, %8) : f32[2,3,4] "n5"
              %11 = Constant() {value=f32[1,3,1] [-0.14246220886707306, 0.3065926432609558, 1.4544892311096191]} : f32[1,3,1] "n6"
              %12 = Constant() {value=f32[1,3,1] [-2.005432605743408, 0.6832168698310852, -0.23843123018741608]} : f32[1,3,1] "n6"
              %13 = Multiply(%0, %11) : f32[2,3,4] "n6"
              %14 = Add(%13, %12) : f32[2,3,4] "n6"
              return %14 as "y0"
              return %10 as "y"
        "#]].assert_eq(&rewritten(&b.output(y), TABLE).to_string());
    }

    #[test]
    fn statistics_from_outside_stay() {
        let mut b = Build::new();
        let (x, mean) = (b.input([2, 3, 4]), b.input([3]));
        let (gamma, beta) = (b.weights([3]), b.weights([3]));
        let variance = b.constant(positive([3], 9));
        let y = b.add(BatchNormInference::default(), &[x, gamma, beta, mean, variance]);
        assert!(rewritten(&b.output(y), TABLE).to_string().contains("BatchNorm"));
    }
}
