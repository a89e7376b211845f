//! Products with constants fold into the weights of the convolution or matrix product beside them.

use super::super::{
    NoMatch, Patch, Rewrite, Rewriter,
    pattern::{Pattern, combine},
};
use crate::{
    model::{Model, NodeId, Value},
    op::{
        arithmetic::{Add, Multiply},
        convolution::{
            Convolution, ConvolutionBackpropData, GroupConvolution, GroupConvolutionBackpropData,
        },
        matmul::MatMul,
    },
    tensor::{ElementType, Tensor},
};

/// `conv(x, w) * c` becomes `conv(x, w c)` for `c` per output channel.
pub(super) const AFTER: Rewrite =
    Rewrite { name: "scale after weights", roots: &["Multiply"], apply: after };

/// `conv(x * c, w)` becomes `conv(x, w c)` for `c` per input channel; padding with zeros commutes with scaling.
pub(super) const BEFORE: Rewrite = Rewrite {
    name: "scale before weights",
    roots: &["Convolution", "GroupConvolution", "MatMul"],
    apply: before,
};

/// `(y + b) * c` becomes `y * c + b c` where `y` comes from weights that then take up the product.
pub(super) const DISTRIBUTE: Rewrite =
    Rewrite { name: "scale through a bias", roots: &["Multiply"], apply: distribute };

/// A bias of a convolution gets the shape `[1, c, 1, …]`.
pub(super) const BIAS_SHAPE: Rewrite =
    Rewrite { name: "shape of a bias", roots: &["Add"], apply: bias_shape };

/// How an operator's weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weights {
    /// `[o, i, k…]`
    Convolution,
    /// `[g, o / g, i / g, k…]`
    GroupConvolution,
    /// `[i, o, k…]`
    Backprop,
    /// `[g, i / g, o / g, k…]`
    GroupBackprop,
    /// `[…, k, n]`, or `[…, n, k]` when transposed.
    MatMul { transposed: bool },
}

/// The constant weights of the operator that makes `value`, of a floating-point type, and how they lie.
fn weights(m: &Model, value: Value) -> Option<(Weights, &Tensor)> {
    let node = m.producer(value);
    let op = node.op();
    let layout = if op.is::<Convolution>() {
        Weights::Convolution
    } else if op.is::<GroupConvolution>() {
        Weights::GroupConvolution
    } else if op.is::<ConvolutionBackpropData>() {
        Weights::Backprop
    } else if op.is::<GroupConvolutionBackpropData>() {
        Weights::GroupBackprop
    } else {
        Weights::MatMul { transposed: op.downcast::<MatMul>()?.transpose_b }
    };
    let tensor = m.constant(*node.inputs().get(1)?)?;
    let ranked = !matches!(layout, Weights::MatMul { .. }) || tensor.rank() >= 2;
    (ranked && tensor.element_type().is_float()).then_some((layout, tensor))
}

/// The constant as one value, or one value per extent of `axis`, when it varies along no other axis of a value of `rank`.
fn along(constant: &Tensor, rank: usize, axis: usize) -> Option<Vec<f64>> {
    let offset = rank.checked_sub(constant.rank())?;
    let one_axis = constant.shape().iter().enumerate().all(|(i, d)| *d == 1 || i + offset == axis);
    (one_axis && !constant.is_empty()).then(|| constant.to_f64_vec().ok())?
}

impl Weights {
    /// The axis of the operator's output, of `rank` axes, that holds output channels.
    fn output_axis(self, rank: usize) -> Option<usize> {
        match self {
            Self::MatMul { .. } => rank.checked_sub(1),
            _ => Some(1),
        }
    }

    /// Shape in which one value per output channel multiplies the weights.
    fn output_shape(self, shape: &[usize], channels: usize) -> Option<Vec<usize>> {
        let mut of = vec![1; shape.len()];
        match self {
            Self::Convolution => *of.get_mut(0)? = channels,
            Self::Backprop => *of.get_mut(1)? = channels,
            Self::GroupConvolution => (of[0], of[1]) = (shape[0], channels / shape[0].max(1)),
            Self::GroupBackprop => (of[0], of[2]) = (shape[0], channels / shape[0].max(1)),
            Self::MatMul { transposed } => of[shape.len() - 1 - usize::from(transposed)] = channels,
        }
        Some(of)
    }

    /// Shape in which one value per input channel multiplies the weights.
    fn input_shape(self, shape: &[usize], channels: usize) -> Option<Vec<usize>> {
        let mut of = vec![1; shape.len()];
        match self {
            Self::Convolution => *of.get_mut(1)? = channels,
            Self::GroupConvolution => (of[0], of[2]) = (shape[0], channels / shape[0].max(1)),
            Self::MatMul { transposed } => {
                of[shape.len() - 1 - usize::from(!transposed)] = channels;
            }
            Self::Backprop | Self::GroupBackprop => return None,
        }
        Some(of)
    }
}

/// The weights times a scale of `shape`, which has 1 where the scale is the same along an axis.
fn scaled(tensor: &Tensor, scale: Vec<f64>, shape: Option<Vec<usize>>) -> Option<Tensor> {
    let shape = if scale.len() == 1 { vec![1; tensor.rank()] } else { shape? };
    let fits = tensor.shape().iter().zip(&shape).all(|(d, s)| *s == 1 || s == d);
    if !fits || shape.iter().product::<usize>() != scale.len() {
        return None;
    }
    if tensor.element_type() == ElementType::F32 {
        return scaled_f32(tensor, &scale, &shape);
    }
    combine(tensor, &Tensor::from_vec(shape, scale).ok()?, &Multiply {})
}

/// [`scaled`] of `f32`: each product is computed in `f64`, as [`combine`] does, without copies of that width.
fn scaled_f32(tensor: &Tensor, scale: &[f64], shape: &[usize]) -> Option<Tensor> {
    let weights = tensor.to_contiguous();
    let weights = weights.unaligned_bytes().as_chunks::<4>().0;
    let axis = shape.iter().rposition(|d| *d > 1).unwrap_or(0);
    let (outer, inner) = tensor.shape().split_at(axis.min(tensor.rank()));
    let (count, inner) = match inner {
        [_, rest @ ..] => (shape[axis], rest.iter().product::<usize>()),
        [] => (1, 1),
    };
    let inner = if count == 1 { weights.len() } else { inner };
    let mut product = Vec::with_capacity(weights.len());
    for (row, weights) in weights.chunks_exact((count * inner).max(1)).enumerate() {
        // Where the row's scales begin: its position along the outer axes on which the scale varies.
        let (mut row, mut from, mut step) = (row, 0, count);
        for (extent, scales) in outer.iter().zip(shape).rev() {
            from += if *scales > 1 { row % extent * step } else { 0 };
            (row, step) = (row / extent, step * scales);
        }
        let times = |w: &[u8; 4], s: f64| (f64::from(f32::from_ne_bytes(*w)) * s) as f32;
        let scale = &scale[from..from + count];
        if inner == 1 {
            product.extend(weights.iter().zip(scale).map(|(w, s)| times(w, *s)));
        } else {
            for (weights, s) in weights.chunks_exact(inner.max(1)).zip(scale) {
                product.extend(weights.iter().map(|w| times(w, *s)));
            }
        }
    }
    Tensor::from_vec(tensor.shape().clone(), product).ok()
}

fn after(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let (y, constant) = m.with_narrow_constant::<Multiply>(root.into()).ok_or(NoMatch::Pattern)?;
    let (layout, tensor) = weights(m, y).ok_or(NoMatch::Pattern)?;
    NoMatch::unless(m.has_single_use(y), "the product is read elsewhere")?;
    let rank = m.rank(y).ok_or(NoMatch::CheckFailed("rank not known"))?;
    let axis = layout.output_axis(rank).ok_or(NoMatch::Pattern)?;
    let scale = along(constant, rank, axis).ok_or(NoMatch::CheckFailed("not per channel"))?;
    let channels = scale.len();
    let tensor = scaled(tensor, scale, layout.output_shape(tensor.shape(), channels))
        .ok_or(NoMatch::CheckFailed("the scale does not fit the weights"))?;
    let new = with_weights(cx, y.node, tensor, None, root)?;
    Ok(Patch::replace(root, new))
}

fn before(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let product = m.node(root).inputs()[0];
    let (x, constant) = m.with_narrow_constant::<Multiply>(product).ok_or(NoMatch::Pattern)?;
    let (layout, tensor) = weights(m, root.into()).ok_or(NoMatch::Pattern)?;
    NoMatch::unless(m.has_single_use(product), "the product is read elsewhere")?;
    let rank = m.rank(x).filter(|r| *r >= 2).ok_or(NoMatch::CheckFailed("rank not known"))?;
    let transposed = m.as_op::<MatMul>(root.into()).is_some_and(|op| op.transpose_a);
    let axis = match layout {
        Weights::MatMul { .. } => rank - 1 - usize::from(transposed),
        _ => 1,
    };
    let scale = along(constant, rank, axis).ok_or(NoMatch::CheckFailed("not per channel"))?;
    let channels = scale.len();
    let tensor = scaled(tensor, scale, layout.input_shape(tensor.shape(), channels))
        .ok_or(NoMatch::CheckFailed("the scale does not fit the weights"))?;
    let new = with_weights(cx, root, tensor, Some(x), root)?;
    Ok(Patch::replace(root, new))
}

/// The operator again with other weights, and another first input if one is given.
fn with_weights(
    cx: &mut Rewriter<'_>,
    id: NodeId,
    weights: Tensor,
    x: Option<Value>,
    root: NodeId,
) -> Result<NodeId, NoMatch> {
    let mut inputs = cx.model().node(id).inputs().to_vec();
    let like = inputs[1].node;
    inputs[1] = cx.constant(weights, like);
    if let Some(x) = x {
        inputs[0] = x;
    }
    let op = cx.model().node(id).op().clone_box();
    cx.add_boxed(op, &inputs, root)
}

fn distribute(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let (sum, c) = m.with_narrow_constant::<Multiply>(root.into()).ok_or(NoMatch::Pattern)?;
    let (y, bias) = m.with_narrow_constant::<Add>(sum).ok_or(NoMatch::Pattern)?;
    let takes = weights(m, y).is_some() || m.with_constant::<Multiply>(y).is_some();
    NoMatch::unless(takes, "nothing takes up the product")?;
    NoMatch::unless(m.single_use(&[sum, y]), "the sum is read elsewhere")?;
    let joint = combine(bias, c, &Multiply {}).ok_or(NoMatch::Pattern)?;
    NoMatch::unless(joint.len() <= bias.len().max(c.len()), "the constants broaden each other")?;
    let c = c.clone();
    let (c, joint) = (cx.constant(c, root), cx.constant(joint, root));
    let product = cx.add(Multiply {}, &[y, c], root)?;
    let new = cx.add(Add {}, &[product, joint], root)?;
    Ok(Patch::replace(root, new))
}

fn bias_shape(cx: &mut Rewriter<'_>, root: NodeId) -> Result<Patch, NoMatch> {
    let m = cx.model();
    let (y, bias) = m.with_narrow_constant::<Add>(root.into()).ok_or(NoMatch::Pattern)?;
    let (layout, _) = weights(m, y).ok_or(NoMatch::Pattern)?;
    let rank = m.rank(y).ok_or(NoMatch::Pattern)?;
    if matches!(layout, Weights::MatMul { .. }) || bias.rank() == rank || bias.len() == 1 {
        return Err(NoMatch::Pattern);
    }
    along(bias, rank, 1).ok_or(NoMatch::CheckFailed("not per channel"))?;
    let mut shape = vec![1; rank];
    shape[1] = bias.len();
    let bias = bias.reshape(shape)?;
    let bias = cx.constant(bias, root);
    let new = cx.add(Add {}, &[y, bias], root)?;
    Ok(Patch::replace(root, new))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::testing::{Build, rewritten};
    use super::*;
    use crate::tensor::{Dimension, PartialShape};

    const TABLE: &[Rewrite] =
        &[super::super::arithmetic::CHAIN, AFTER, BEFORE, DISTRIBUTE, BIAS_SHAPE];

    fn ones() -> Vec<i64> {
        vec![1, 1]
    }

    fn padded() -> Convolution {
        Convolution {
            strides: ones(),
            dilations: ones(),
            pads_begin: ones(),
            pads_end: ones(),
            ..Convolution::default()
        }
    }

    #[test]
    fn bias_scale_and_shift_fold_into_a_convolution() {
        let mut b = Build::new();
        let x = b.input([1, 2, 5, 4]);
        let w = b.weights([3, 2, 3, 3]);
        let y = b.add(padded(), &[x, w]);
        let (bias, scale, shift) =
            (b.weights([3, 1, 1]), b.weights([1, 3, 1, 1]), b.weights([1, 3, 1, 1]));
        let y = b.add(Add {}, &[y, bias]);
        let y = b.add(Multiply {}, &[scale, y]);
        let y = b.add(Add {}, &[y, shift]);
        expect![[r#"
            model "test"
              %0 = Parameter() {element_type=f32, shape=[1,2,5,4]} : f32[1,2,5,4] "n0"
              %15 = Constant() {value=f32[1,3,1,1] [-2.1585304737091064, 2.902700901031494, 2.013101816177368]} : f32[1,3,1,1] "n8"
              %17 = Constant() {value=f32[3,2,3,3] [-0.22964175045490265, 0.2712307870388031, 1.630139946937561, 1.5619789361953735, -0.13047702610492706, -0.9288243651390076, 0.4659753441810608, -0.29365041851997375, -0.2966778874397278, -0.33557650446891785, -1.3444511890411377, 1.1954764127731323, 1.096943974494934, 2.130887031555176, -0.34639185667037964, 1.6900509595870972]…} : f32[3,2,3,3] "n1"
              %18 = Convolution(%0, %17) {strides=[1, 1], dilations=[1, 1], pads_begin=[1, 1], pads_end=[1, 1], auto_pad=explicit} : f32[1,3,5,4] "n7"
              %16 = Add(%18, %15) : f32[1,3,5,4] "n8"
              return %16 as "y"
        "#]].assert_eq(&rewritten(&b.output(y), TABLE).to_string());
    }

    #[test]
    fn unknown_extents_do_not_hinder() {
        let mut b = Build::new();
        let dims =
            [Dimension::DYNAMIC, Dimension::fixed(2), Dimension::DYNAMIC, Dimension::DYNAMIC];
        let x = b.input(PartialShape::new(&dims));
        let w = b.weights([3, 2, 3, 3]);
        let y = b.add(padded(), &[x, w]);
        let (scale, shift) = (b.weights([1, 3, 1, 1]), b.weights([1, 3, 1, 1]));
        let y = b.add(Multiply {}, &[y, scale]);
        let y = b.add(Add {}, &[y, shift]);
        let after = rewritten(&b.output(y), TABLE);
        assert!(!after.to_string().contains("Multiply"), "{after}");
    }

    #[test]
    fn every_layout_of_weights_takes_a_scale_per_output_channel() {
        type Case = (fn() -> Box<dyn crate::op::Op>, &'static [usize]);
        let cases: [Case; 4] = [
            (|| Box::new(padded()), &[4, 4, 3, 3]),
            (
                || {
                    Box::new(GroupConvolution {
                        strides: ones(),
                        dilations: ones(),
                        pads_begin: ones(),
                        pads_end: ones(),
                        ..GroupConvolution::default()
                    })
                },
                &[2, 2, 2, 3, 3],
            ),
            (
                || {
                    Box::new(ConvolutionBackpropData {
                        strides: ones(),
                        dilations: ones(),
                        pads_begin: ones(),
                        pads_end: ones(),
                        output_padding: vec![0, 0],
                        ..ConvolutionBackpropData::default()
                    })
                },
                &[4, 4, 3, 3],
            ),
            (
                || {
                    Box::new(GroupConvolutionBackpropData {
                        strides: ones(),
                        dilations: ones(),
                        pads_begin: ones(),
                        pads_end: ones(),
                        output_padding: vec![0, 0],
                        ..GroupConvolutionBackpropData::default()
                    })
                },
                &[2, 2, 2, 3, 3],
            ),
        ];
        for (op, shape) in cases {
            let mut b = Build::new();
            let x = b.input([1, 4, 3, 3]);
            let w = b.weights(shape);
            let y = b.add_boxed(op(), &[x, w]);
            let scale = b.weights([4, 1, 1]);
            let y = b.add(Multiply {}, &[y, scale]);
            let after = rewritten(&b.output(y), TABLE);
            assert_eq!(after.len(), 3, "{after}");
        }
    }

    #[test]
    fn products_in_f32_are_those_of_the_operator() {
        let shapes: [(&[usize], &[usize]); 9] = [
            (&[3, 4, 5], &[1, 1, 1]),
            (&[3, 4, 5], &[3, 1, 1]),
            (&[3, 4, 5], &[1, 4, 1]),
            (&[3, 4, 5], &[1, 1, 5]),
            (&[3, 4, 5], &[3, 4, 1]),
            (&[3, 4, 5], &[3, 1, 5]),
            (&[3, 0, 5], &[3, 1, 1]),
            (&[2, 3, 2, 2, 3], &[2, 1, 2, 1, 1]),
            (&[6], &[6]),
        ];
        for (of, by) in shapes {
            let values = |shape: &[usize], step: f64| -> Vec<f64> {
                (0..shape.iter().product::<usize>()).map(|i| i as f64 * step - 1.3).collect()
            };
            let tensor = Tensor::from_vec(of.to_vec(), values(of, 0.37)).expect("fits");
            let tensor = tensor.cast(ElementType::F32).expect("a type of numbers");
            let scale = values(by, 0.71);
            let expected = Tensor::from_vec(by.to_vec(), scale.clone()).expect("fits");
            let expected = combine(&tensor, &expected, &Multiply {}).expect("fits");
            let found = scaled(&tensor, scale, Some(by.to_vec())).expect("fits");
            assert_eq!(found.shape(), expected.shape(), "{of:?} {by:?}");
            assert_eq!(found.bytes(), expected.bytes(), "{of:?} {by:?}");
        }
        let tensor = Tensor::from_vec([2, 3], vec![1f32; 6]).expect("fits");
        assert!(scaled(&tensor, vec![1.0; 4], Some(vec![4, 1])).is_none());
    }

    #[test]
    fn matmul_takes_scales_on_both_sides() {
        for transpose_b in [false, true] {
            let mut b = Build::new();
            let x = b.input([2, 3, 4]);
            let (k, n) = (b.weights([4]), b.weights([1, 5]));
            let w = b.weights(if transpose_b { [5, 4] } else { [4, 5] });
            let x = b.add(Multiply {}, &[x, k]);
            let y = b.add(MatMul { transpose_b, ..MatMul::default() }, &[x, w]);
            let y = b.add(Multiply {}, &[y, n]);
            let after = rewritten(&b.output(y), TABLE);
            assert_eq!(after.len(), 3, "{after}");
        }
    }

    #[test]
    fn an_input_scale_folds_into_convolutions() {
        let mut b = Build::new();
        let x = b.input([1, 4, 3, 3]);
        let scale = b.weights([4, 1, 1]);
        let x = b.add(Multiply {}, &[x, scale]);
        let w = b.weights([2, 2, 2, 3, 3]);
        let op = GroupConvolution {
            strides: ones(),
            dilations: ones(),
            pads_begin: ones(),
            pads_end: ones(),
            ..GroupConvolution::default()
        };
        let y = b.add(op, &[x, w]);
        assert_eq!(rewritten(&b.output(y), TABLE).len(), 3);
    }

    #[test]
    fn a_scale_along_another_axis_or_with_another_reader_stays() {
        let mut b = Build::new();
        let x = b.input([1, 2, 5, 4]);
        let w = b.weights([3, 2, 3, 3]);
        let y = b.add(padded(), &[x, w]);
        let scale = b.weights([4]);
        let y = b.add(Multiply {}, &[y, scale]);
        assert!(rewritten(&b.output(y), TABLE).to_string().contains("Multiply"));
        let mut b = Build::new();
        let x = b.input([1, 2, 5, 4]);
        let w = b.weights([3, 2, 3, 3]);
        let conv = b.add(padded(), &[x, w]);
        let scale = b.weights([3, 1, 1]);
        let y = b.add(Multiply {}, &[conv, scale]);
        b.give(conv);
        assert!(rewritten(&b.output(y), TABLE).to_string().contains("Multiply"));
    }
}
