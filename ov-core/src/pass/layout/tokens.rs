//! Sequences of tokens `[n, s, c]` and images `[n, c, …]` of the same elements: a sequence is an image channels-last
//! already, so the Transpose and the Reshape between the two are a Reshape.

use crate::{
    Dimension, PartialShape, Tensor,
    error::Result,
    model::{NodeId, Value},
    op::{reshape::Reshape, transpose::Transpose},
};

use super::Layout;

/// Adds the Reshape `id` channels-last; false when it is another one.
pub(super) fn apply(layout: &mut Layout<'_>, id: NodeId) -> Result<bool> {
    let node = layout.old.node(id);
    let &[data, _] = node.inputs() else { return Ok(false) };
    if let Some((tokens, target)) = to_image(layout, data, &node.shape(0)) {
        let tokens = layout.plain(tokens)?;
        return reshape(layout, id, tokens, &target);
    }
    match to_tokens(layout.shape(data), &node.shape(0)) {
        Some(target) if layout.is_last(data) => {
            let last = layout.last(data)?;
            reshape(layout, id, last, &target)
        }
        _ => Ok(false),
    }
}

fn reshape(layout: &mut Layout<'_>, id: NodeId, from: Value, target: &[i64]) -> Result<bool> {
    let target = layout.constant(Tensor::from_i64s(target));
    let op = Reshape { special_zero: true, ..Reshape::default() };
    layout.give_last(id, Box::new(op), &[from, target])?;
    Ok(true)
}

/// The extent of a dimension that is known and not zero.
fn extent(dimension: Dimension) -> Option<i64> {
    dimension.value().filter(|v| *v > 0).and_then(|v| i64::try_from(v).ok())
}

/// The sequence that the turned one `data` comes from, and what it must be reshaped to, when `image` is `[n, c, …]`.
fn to_image(layout: &Layout<'_>, data: Value, image: &PartialShape) -> Option<(Value, Vec<i64>)> {
    let turned = layout.old.node(data.node);
    let &[tokens, order] = turned.inputs() else { return None };
    let order = layout.old.constant(order).filter(|_| turned.op().is::<Transpose>())?;
    if order.to_i64_vec().ok()? != [0, 2, 1] {
        return None;
    }
    let (from, to) = (layout.shape(tokens).dims()?, image.dims()?);
    let (&[batch, length, channels], &[n, c, ref spatial @ ..]) = (from, to) else { return None };
    let spatial: Vec<i64> = spatial.iter().map(|d| extent(*d)).collect::<Option<_>>()?;
    let fits = !spatial.is_empty()
        && batch.same(n)
        && channels.same(c)
        && extent(length) == spatial.iter().try_fold(1i64, |p, d| p.checked_mul(*d));
    let target = std::iter::once(0).chain(spatial).chain([extent(channels)?]);
    fits.then(|| (tokens, target.collect()))
}

/// What an image channels-last must be reshaped to, when `tokens` is `[n, c, s]` and the image `[n, c, …]`.
fn to_tokens(image: &PartialShape, tokens: &PartialShape) -> Option<Vec<i64>> {
    let (&[n, c, ref spatial @ ..], &[batch, channels, length]) = (image.dims()?, tokens.dims()?)
    else {
        return None;
    };
    let extents: Vec<i64> = spatial.iter().map(|d| extent(*d)).collect::<Option<_>>()?;
    let fits = extents.len() > 1
        && batch.same(n)
        && channels.same(c)
        && extent(length) == extents.iter().try_fold(1i64, |p, d| p.checked_mul(*d));
    let target = vec![0, extent(length)?, extent(channels)?];
    fits.then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Model,
        op::{activation::Relu, convolution::Convolution, pooling::MaxPool1},
        pass::testing::{assert_same_on, parameter, random},
    };

    /// Tokens `[2, s, c]` become an image of `spatial`, go through a convolution, and become tokens again.
    fn model(length: usize, channels: usize, spatial: &[i64]) -> Model {
        let mut m = Model::new("tokens");
        let x = parameter(&mut m, "x", &[2, length, channels]);
        let order = m.add_constant(Tensor::from_i64s(&[0, 2, 1]), "order");
        let turned = m.add(Transpose {}, &[x, order], "turned").expect("valid");
        let target = [&[2, channels as i64][..], spatial].concat();
        let target = m.add_constant(Tensor::from_i64s(&target), "target");
        let image = m.add(Reshape::default(), &[turned, target], "image").expect("valid");
        let w = m.add_constant(random([5, channels, 1, 1], 1), "w");
        let (strides, pads) = (vec![1; 2], vec![0; 2]);
        let conv = Convolution {
            strides: strides.clone(),
            dilations: strides,
            pads_begin: pads.clone(),
            pads_end: pads,
            ..Convolution::default()
        };
        let y = m.add(conv, &[image, w], "conv").expect("valid");
        let back = m.add_constant(Tensor::from_i64s(&[2, 5, -1]), "back");
        let y = m.add(Reshape::default(), &[y, back], "flat").expect("valid");
        let y = m.add(Transpose {}, &[y, order], "tokens").expect("valid");
        m.add_output("y", y);
        m
    }

    fn count(m: &Model, name: &str) -> usize {
        m.nodes().filter(|(_, n)| n.op().kind().name == name).count()
    }

    #[test]
    fn a_sequence_is_an_image_without_a_transpose() {
        let before = model(12, 9, &[3, 4]);
        let after = super::super::channels_last(&before).expect("valid");
        assert_eq!(count(&after, "Transpose"), 0, "{after}");
        assert_same_on(&before, &after, &[random([2, 12, 9], 2)]);
    }

    #[test]
    fn other_reshapes_of_what_was_turned_stay() {
        let mut m = Model::new("other");
        let x = parameter(&mut m, "x", &[1, 12, 9]);
        let order = m.add_constant(Tensor::from_i64s(&[0, 2, 1]), "order");
        let turned = m.add(Transpose {}, &[x, order], "turned").expect("valid");
        let target = m.add_constant(Tensor::from_i64s(&[1, 3, 6, 6]), "target");
        let image = m.add(Reshape::default(), &[turned, target], "image").expect("valid");
        let (strides, kernel) = (vec![2; 2], vec![2; 2]);
        let pool = MaxPool1 {
            strides,
            kernel,
            pads_begin: vec![0; 2],
            pads_end: vec![0; 2],
            ..MaxPool1::default()
        };
        let y = m.add(pool, &[image], "pool").expect("valid");
        let target = m.add_constant(Tensor::from_i64s(&[1, 9, 3]), "back");
        let y = m.add(Reshape::default(), &[y, target], "flat").expect("valid");
        let y = m.add(Relu {}, &[y], "relu").expect("valid");
        m.add_output("y", y);
        let after = super::super::channels_last(&m).expect("valid");
        assert!(count(&after, "Transpose") > 1, "{after}");
        assert_same_on(&m, &after, &[random([1, 12, 9], 2)]);
    }
}
