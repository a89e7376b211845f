//! Normalization and Dropout.

use super::{super::{ConvertError, NodeContext}, ConvertResult, OnnxOp};
use crate::{
    model::Value,
    op::{
        OpError,
        arithmetic::{Add, Divide, Multiply, Subtract},
        comparison::Equal,
        convert::Convert,
        normalization::{
            BatchNormInference, Dropout, GroupNormalization, LayerNormalization, Lrn, Mvn, MvnEpsilon, RmsNorm,
        },
        reduction::{ReduceL1, ReduceL2, ReduceMean},
        select::Select,
    },
    tensor::{ElementType, Tensor},
};

#[expect(clippy::needless_pass_by_value, reason = "callers make the text in place")]
fn refuse(name: &'static str, got: impl ToString, expected: &str) -> ConvertError {
    OpError::Attribute { name, got: got.to_string(), expected: expected.to_owned() }.into()
}

/// Inference, and training when the node asks for it (by `training_mode`, or before opset 14 by further outputs).
fn batch_normalization(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let epsilon = f64::from(cx.f32("epsilon", 1e-5)?);
    let [x, scale, bias, mean, variance] = [cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.input(3)?, cx.input(4)?];
    if cx.opset() < 9 && cx.i64("spatial", 1)? == 0 {
        return Err(refuse("spatial", 0, "1 (statistics per activation are not supported)"));
    }
    let training = if cx.opset() >= 14 {
        cx.bool("training_mode", false)?
    } else {
        (1..cx.output_count()).any(|i| cx.wants_output(i))
    };
    if !training {
        return Ok(vec![cx.add(BatchNormInference { epsilon }, &[x, scale, bias, mean, variance])?]);
    }
    let rank = i64::try_from(cx.rank(x)?).unwrap_or(i64::MAX);
    let axes: Vec<i64> = (0..rank).filter(|a| *a != 1).collect();
    let axes = cx.i64s_constant(&axes);
    let statistics = cx.element_type(mean);
    let wide = cx.add(Convert { destination_type: statistics }, &[x])?;
    let batch_mean = cx.add(ReduceMean { keep_dims: false }, &[wide, axes])?;
    let kept_mean = cx.add(ReduceMean { keep_dims: true }, &[wide, axes])?;
    let centred = cx.add(Subtract {}, &[wide, kept_mean])?;
    let square = cx.add(Multiply {}, &[centred, centred])?;
    let batch_variance = cx.add(ReduceMean { keep_dims: false }, &[square, axes])?;
    let y = cx.add(BatchNormInference { epsilon }, &[x, scale, bias, batch_mean, batch_variance])?;
    let momentum = f64::from(cx.f32("momentum", 0.9)?);
    let kept = cx.scalar_like(momentum, mean)?;
    let taken = cx.scalar_like(1.0 - momentum, mean)?;
    let mut outputs = vec![y];
    for (old, new) in [(mean, batch_mean), (variance, batch_variance)] {
        let (old, new) = (cx.add(Multiply {}, &[old, kept])?, cx.add(Multiply {}, &[new, taken])?);
        outputs.push(cx.add(Add {}, &[old, new])?);
    }
    if cx.opset() < 14 {
        outputs.extend([batch_mean, batch_variance]);
    }
    Ok(outputs)
}

/// One group per channel.
fn instance_normalization(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let epsilon = f64::from(cx.f32("epsilon", 1e-5)?);
    let channels =
        cx.shape(inputs[0]).dim(1).value().or_else(|| cx.shape(inputs[1]).dim(0).value()).ok_or_else(|| {
            OpError::Unsupported("an unknown number of channels".to_owned())
        })?;
    let num_groups = i64::try_from(channels.max(1)).unwrap_or(i64::MAX);
    Ok(vec![cx.add(GroupNormalization { num_groups, epsilon }, &inputs)?])
}

/// Before opset 21 scale and bias are one per group.
fn group_normalization(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, mut scale, mut bias) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let epsilon = f64::from(cx.f32("epsilon", 1e-5)?);
    let num_groups = cx.optional_i64("num_groups")?.ok_or_else(|| refuse("num_groups", "missing", "a number"))?;
    if cx.opset() < 21 {
        let channels = cx.shape(x).dim(1).value();
        let per_group = channels
            .zip(usize::try_from(num_groups).ok())
            .filter(|(c, g)| *g > 0 && c % g == 0)
            .map(|(c, g)| c / g)
            .ok_or_else(|| refuse("num_groups", num_groups, "a divisor of the (known) number of channels"))?;
        if per_group > 1 {
            scale = repeat_each(cx, scale, per_group)?;
            bias = repeat_each(cx, bias, per_group)?;
        }
    }
    Ok(vec![cx.add(GroupNormalization { num_groups, epsilon }, &[x, scale, bias])?])
}

/// Every element of a constant of rank 1 `count` times.
fn repeat_each(cx: &mut NodeContext<'_, '_>, value: Value, count: usize) -> Result<Value, ConvertError> {
    let tensor = cx.constant_value(value).ok_or_else(|| {
        OpError::Unsupported("scale and bias per group that are computed at run time".to_owned())
    })?;
    let ty = tensor.element_type();
    let values: Vec<f64> =
        tensor.to_f64_vec()?.into_iter().flat_map(|v| std::iter::repeat_n(v, count)).collect();
    let repeated = Tensor::from_vec([values.len()], values)?.cast(ty)?;
    Ok(cx.constant(repeated))
}

fn layer_normalization(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let mut inputs = vec![cx.input(0)?, cx.input(1)?];
    inputs.extend(cx.optional_input(2));
    let statistics_type =
        cx.optional_element_type("stash_type")?.filter(|t| *t != ElementType::Dynamic).unwrap_or(ElementType::F32);
    let op = LayerNormalization {
        axis: cx.i64("axis", -1)?,
        epsilon: f64::from(cx.f32("epsilon", 1e-5)?),
        statistics: cx.wants_output(1) || cx.wants_output(2),
        statistics_type,
    };
    cx.add_multi(op, &inputs)
}

fn rms_normalization(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let op = RmsNorm { axis: cx.i64("axis", -1)?, epsilon: f64::from(cx.f32("epsilon", 1e-5)?) };
    Ok(vec![cx.add(op, &[x, scale])?])
}

/// `x / norm`, and 0 where the norm is 0.
fn lp_normalization(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let axis = cx.i64("axis", -1)?;
    let axes = cx.i64s_constant(&[axis]);
    let norm = match cx.i64("p", 2)? {
        1 => cx.add(ReduceL1 { keep_dims: true }, &[x, axes])?,
        2 => cx.add(ReduceL2 { keep_dims: true }, &[x, axes])?,
        p => return Err(refuse("p", p, "1 or 2")),
    };
    let (zero, one) = (cx.scalar_like(0.0, x)?, cx.scalar_like(1.0, x)?);
    let is_zero = cx.add(Equal {}, &[norm, zero])?;
    let divisor = cx.add(Select {}, &[is_zero, one, norm])?;
    Ok(vec![cx.add(Divide::default(), &[x, divisor])?])
}

fn mean_variance_normalization(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let axes = cx.i64s("axes", &[0, 2, 3])?;
    let axes = cx.i64s_constant(&axes);
    let op = Mvn { normalize_variance: true, eps: 1e-9, eps_mode: MvnEpsilon::OutsideSqrt };
    Ok(vec![cx.add(op, &[x, axes])?])
}

fn lrn(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let op = Lrn {
        alpha: f64::from(cx.f32("alpha", 1e-4)?),
        beta: f64::from(cx.f32("beta", 0.75)?),
        bias: f64::from(cx.f32("bias", 1.0)?),
        size: cx.optional_i64("size")?.ok_or_else(|| refuse("size", "missing", "a number"))?,
    };
    let axes = cx.i64s_constant(&[1]);
    Ok(vec![cx.add(op, &[x, axes])?])
}

/// Inference passes the data on; the mask is that of dropout, with a ratio of 0 outside training.
fn dropout(cx: &mut NodeContext<'_, '_>) -> ConvertResult {
    let x = cx.input(0)?;
    let off = |t: Tensor| t.element_as_f64(0) == Some(0.0);
    let inference = match (cx.optional_input(1), cx.optional_input(2)) {
        (_, None) => true,
        (ratio, Some(training)) => {
            cx.constant_value(training).is_some_and(off)
                || ratio.and_then(|r| cx.constant_value(r)).is_some_and(off)
        }
    };
    if inference && !cx.wants_output(1) {
        return Ok(vec![x]);
    }
    let inputs = if inference { vec![x] } else { cx.all_inputs() };
    let mut outputs = cx.add_multi(Dropout { seed: cx.i64("seed", 0)?, seeded: cx.has_attribute("seed") }, &inputs)?;
    if cx.opset() < 10 {
        let to = cx.element_type(x);
        outputs[1] = cx.add(Convert { destination_type: to }, &[outputs[1]])?;
    }
    if inference {
        outputs[0] = x;
    }
    Ok(outputs)
}

/// Operators of this family.
pub(super) const OPS: &[OnnxOp] = &[
    ("", "BatchNormalization", 7, batch_normalization),
    ("", "InstanceNormalization", 6, instance_normalization),
    ("", "GroupNormalization", 18, group_normalization),
    ("", "LayerNormalization", 17, layer_normalization),
    ("", "RMSNormalization", 23, rms_normalization),
    ("", "LpNormalization", 1, lp_normalization),
    ("", "MeanVarianceNormalization", 9, mean_variance_normalization),
    ("", "LRN", 1, lrn),
    ("", "Dropout", 7, dropout),
];
