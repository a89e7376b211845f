//! The normalization of groups that exporters spell by instances: groups become channels, are normalized one by one, and
//! channels again, then come a factor and an addend per channel. All of it becomes one `GroupNormalization`.

use super::super::{NoMatch, Patch, Rewrite, Rewriter, pattern::Pattern};
use crate::{
    model::{Model, NodeId, Value},
    op::{
        arithmetic::{Add, Multiply},
        normalization::GroupNormalization,
        reshape::Reshape,
    },
    tensor::Tensor,
};

/// The reshapes around a normalization of groups as channels.
pub(super) const RESHAPED: Rewrite =
    Rewrite { name: "group norm", roots: &["Reshape"], apply: reshaped };
/// A factor per channel after it.
pub(super) const SCALE: Rewrite =
    Rewrite { name: "group norm scale", roots: &["Multiply"], apply: scale };
/// An addend per channel after it.
pub(super) const BIAS: Rewrite = Rewrite { name: "group norm bias", roots: &["Add"], apply: bias };

fn reshaped(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let [normalized, _] = *m.inputs_of::<Reshape>(root.into()).ok_or(NoMatch::Pattern)? else {
        return Err(NoMatch::Pattern);
    };
    let (groups, inputs) = parts(m, normalized)?;
    let [x, _] = *m.inputs_of::<Reshape>(inputs[0]).ok_or(NoMatch::Pattern)? else {
        return Err(NoMatch::Pattern);
    };
    NoMatch::unless(m.same_shape(x, root.into()), "not the shape from before")?;
    let (outer, inner) = (m.shape(x), m.shape(inputs[0]));
    let (Some(rank), Some(3..)) = (outer.rank(), inner.rank()) else {
        return Err(NoMatch::CheckFailed("rank not known"));
    };
    NoMatch::unless(rank >= 2, "no channels")?;
    let (channels, instances) = (outer.dim(1).value(), inner.dim(1).value());
    let (Some(channels), Some(instances)) = (channels, instances) else {
        return Err(NoMatch::CheckFailed("channels not known"));
    };
    // The batch stays, so each instance is whole channels.
    let whole = outer.dim(0).same(inner.dim(0)) && instances > 0 && channels % instances == 0;
    NoMatch::unless(whole, "the reshape does not make channels of groups")?;
    let op = GroupNormalization { epsilon: groups.epsilon, num_groups: groups.num_groups };
    let spread = |v: Value| -> Result<Tensor, NoMatch> {
        let per_instance = m.constant(v).ok_or(NoMatch::CheckFailed("not constant"))?;
        let values = per_instance.to_f64_vec()?;
        let each = channels / instances;
        let values: Vec<f64> = values.iter().flat_map(|v| std::iter::repeat_n(*v, each)).collect();
        Ok(Tensor::from_vec([channels], values)?.cast(m.element_type(x))?)
    };
    let (scale, bias) = (spread(inputs[1])?, spread(inputs[2])?);
    let (scale, bias) = (cx.constant(scale, root), cx.constant(bias, root));
    let y = cx.add(op, &[x, scale, bias], root)?;
    Ok(Patch::replace(root, y))
}

/// A normalization that only one node reads, and its inputs.
fn parts(m: &Model, value: Value) -> Result<(GroupNormalization, [Value; 3]), NoMatch> {
    let op = m.as_op::<GroupNormalization>(value).ok_or(NoMatch::Pattern)?.clone();
    let inputs = m.inputs_of::<GroupNormalization>(value).ok_or(NoMatch::Pattern)?;
    let inputs = inputs.try_into().map_err(|_| NoMatch::Pattern)?;
    NoMatch::unless(m.has_single_use(value), "read elsewhere")?;
    Ok((op, inputs))
}

/// The normalization in one operand of `root`, its constant scale and bias, and the other operand with one number per
/// channel.
struct Affine {
    op: GroupNormalization,
    x: Value,
    scale: Vec<f64>,
    bias: Vec<f64>,
    factor: Vec<f64>,
}

fn affine(m: &Model, y: Value, other: &Tensor) -> Result<Affine, NoMatch> {
    let (op, [x, scale, bias]) = parts(m, y)?;
    let values = |v| -> Result<Vec<f64>, NoMatch> {
        Ok(m.constant(v).ok_or(NoMatch::CheckFailed("not constant"))?.to_f64_vec()?)
    };
    let (scale, bias) = (values(scale)?, values(bias)?);
    let rank = m.rank(x).ok_or(NoMatch::CheckFailed("rank not known"))?;
    let mut shape = vec![1; rank - other.rank()];
    shape.extend_from_slice(other.shape());
    let channels = scale.len();
    let per_channel = shape.iter().enumerate().all(|(i, d)| *d == 1 || (i == 1 && *d == channels));
    NoMatch::unless(per_channel, "not one number per channel")?;
    let mut factor = other.to_f64_vec()?;
    if factor.len() == 1 {
        factor = vec![factor[0]; channels];
    }
    Ok(Affine { op, x, scale, bias, factor })
}

fn with(
    cx: &mut Rewriter<'_>,
    root: NodeId,
    op: GroupNormalization,
    x: Value,
    [scale, bias]: [Vec<f64>; 2],
) -> Result<Patch, NoMatch> {
    let ty = cx.model().element_type(x);
    let tensor = |v: Vec<f64>| Tensor::from_vec([v.len()], v)?.cast(ty);
    let (scale, bias) = (tensor(scale)?, tensor(bias)?);
    let (scale, bias) = (cx.constant(scale, root), cx.constant(bias, root));
    let y = cx.add(op, &[x, scale, bias], root)?;
    Ok(Patch::replace(root, y))
}

fn scale(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let (y, factor) = m.with_narrow_constant::<Multiply>(root.into()).ok_or(NoMatch::Pattern)?;
    let Affine { op, x, scale, bias, factor } = affine(m, y, factor)?;
    let times = |v: Vec<f64>| v.iter().zip(&factor).map(|(v, f)| v * f).collect();
    with(cx, root, op, x, [times(scale), times(bias)])
}

fn bias(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let (y, addend) = m.with_narrow_constant::<Add>(root.into()).ok_or(NoMatch::Pattern)?;
    let Affine { op, x, scale, bias, factor } = affine(m, y, addend)?;
    let bias = bias.iter().zip(&factor).map(|(b, a)| b + a).collect();
    with(cx, root, op, x, [scale, bias])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::testing::{Build, rewritten};
    use super::*;

    const TABLE: &[Rewrite] = &[RESHAPED, SCALE, BIAS];

    fn model(target: &[i64], back: &[i64], per_channel: [usize; 3]) -> Model {
        let mut b = Build::new();
        let x = b.input([2, 4, 3, 2]);
        let (target, back) = (b.i64s(target), b.i64s(back));
        let groups = b.add(Reshape { special_zero: true, ..Reshape::default() }, &[x, target]);
        let (ones, zeros) = (b.weights([2]), b.weights([2]));
        let op = GroupNormalization { num_groups: 2, epsilon: 1e-5 };
        let y = b.add(op, &[groups, ones, zeros]);
        let y = b.add(Reshape { special_zero: true, ..Reshape::default() }, &[y, back]);
        let (factor, addend) = (b.weights(per_channel), b.weights(per_channel));
        let y = b.add(Multiply {}, &[y, factor]);
        let y = b.add(Add {}, &[y, addend]);
        b.output(y)
    }

    #[test]
    fn becomes_one_operator() {
        let after = rewritten(&model(&[0, 2, -1], &[2, 4, 3, 2], [4, 1, 1]), TABLE);
        expect![[r#"
            model "test"
              %0 = Parameter() {element_type=f32, shape=[2,4,3,2]} : f32[2,4,3,2] "n0"
              %18 = Constant() {value=f32[4] [-1.27272629737854, -1.2300071716308594, -3.1643826961517334, -2.8428280353546143]} : f32[4] "n11"
              %19 = Constant() {value=f32[4] [2.44138503074646, 2.0546274185180664, 0.9979932308197021, -0.8273437023162842]} : f32[4] "n11"
              %20 = GroupNormalization(%0, %18, %19) {num_groups=2, epsilon=0.00001} : f32[2,4,3,2] "n11"
              return %20 as "y"
        "#]].assert_eq(&after.to_string());
    }

    #[test]
    fn what_is_not_one_number_per_channel_stays() {
        let after = rewritten(&model(&[0, 2, -1], &[2, 4, 3, 2], [1, 3, 1]), TABLE).to_string();
        assert!(after.contains("Multiply") && !after.contains("Reshape"), "{after}");
    }

    #[test]
    fn groups_across_images_stay() {
        let mut b = Build::new();
        let x = b.input([2, 4, 6]);
        let (target, back) = (b.i64s(&[1, 2, -1]), b.i64s(&[2, 4, 6]));
        let groups = b.add(Reshape::default(), &[x, target]);
        let (scale, bias) = (b.weights([2]), b.weights([2]));
        let op = GroupNormalization { num_groups: 2, epsilon: 1e-5 };
        let y = b.add(op, &[groups, scale, bias]);
        let y = b.add(Reshape::default(), &[y, back]);
        let after = rewritten(&b.output(y), TABLE).to_string();
        assert_eq!(after.matches("Reshape").count(), 2, "{after}");
    }
}
