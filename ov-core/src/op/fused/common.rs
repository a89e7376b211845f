//! What fused operators have in common: the activation at their end, and the geometry of convolutions.

use crate::{
    PartialShape, Shape,
    op::{
        Op, OpError, OpResult,
        convolution::{Convolution, GroupConvolution},
        window::Window,
    },
};

use super::{
    convolution::FusedConvolution,
    integer::{IntegerConvolution, IntegerProduct},
    matmul::FullyConnected,
    transposed::FusedConvolutionTransposed,
};
use super::activation::Activation;

/// The operator with another activation at its end, if it is one that has an activation.
pub fn with_finish(
    op: &dyn Op,
    activation: Activation,
    residual_after: bool,
) -> Option<Box<dyn Op>> {
    macro_rules! first_of {
        ($($ty:ty),*) => {
            $(if let Some(op) = op.downcast::<$ty>() {
                let mut op = <$ty>::clone(op);
                op.set_activation(activation);
                op.residual_after = residual_after;
                return Some(Box::new(op));
            })*
        };
    }
    first_of!(
        FusedConvolution,
        FusedConvolutionTransposed,
        FullyConnected,
        IntegerConvolution,
        IntegerProduct
    );
    None
}

/// Gives an operator with the attributes `activation` and `activation_params` typed access to them.
macro_rules! has_activation {
    ($op:ident) => {
        impl $op {
            /// The activation.
            ///
            /// # Errors
            /// When the number is not known.
            pub fn activation(&self) -> OpResult<Activation> {
                $crate::op::fused::activation::from_attributes(self.activation, &self.activation_params)
            }

            /// Sets the activation.
            pub fn set_activation(&mut self, activation: Activation) {
                (self.activation, self.activation_params) =
                    $crate::op::fused::activation::to_attributes(activation);
            }
        }
    };
}
pub(super) use has_activation;

/// A convolution as its kernels see it, whatever the element type.
pub trait Convolving {
    /// Number of groups of channels.
    fn groups(&self) -> i64;

    /// Whether x is planar although the result is channels-last.
    fn planar(&self) -> bool;

    /// The operator that this one computes on planar tensors of one group.
    fn ungrouped(&self) -> Convolution;

    /// The windows over an input of these spatial extents, padding resolved.
    ///
    /// # Errors
    /// When an attribute is not valid.
    fn windows(&self, kernel: &[usize], input: &[usize]) -> OpResult<Vec<Window>> {
        let Convolution { strides, dilations, pads_begin, pads_end, auto_pad } = self.ungrouped();
        let windows =
            Window::from_attributes(kernel, &strides, &dilations, &pads_begin, &pads_end)?;
        Ok(windows.into_iter().zip(input).map(|(w, e)| w.padded(auto_pad, *e)).collect())
    }

    /// The same convolution on planar tensors, and the shape of its filters.
    ///
    /// # Errors
    /// When the groups do not divide the filters.
    fn plain(&self, filters: &PartialShape) -> OpResult<(Box<dyn Op>, PartialShape)> {
        let op = self.ungrouped();
        if self.groups() == 1 {
            return Ok((Box::new(op), filters.clone()));
        }
        let filters = grouped(filters, self.groups())?;
        let Convolution { strides, dilations, pads_begin, pads_end, auto_pad } = op;
        let op = GroupConvolution { strides, dilations, pads_begin, pads_end, auto_pad };
        Ok((Box::new(op), filters))
    }
}

macro_rules! convolving {
    ($op:ident) => {
        impl $crate::op::fused::common::Convolving for $op {
            fn groups(&self) -> i64 {
                self.groups
            }

            fn planar(&self) -> bool {
                self.planar
            }

            fn ungrouped(&self) -> Convolution {
                Convolution {
                    strides: self.strides.clone(),
                    dilations: self.dilations.clone(),
                    pads_begin: self.pads_begin.clone(),
                    pads_end: self.pads_end.clone(),
                    auto_pad: self.auto_pad,
                }
            }
        }
    };
}
pub(super) use convolving;

/// Filters `[o, …]` as `[groups, o / groups, …]`.
///
/// # Errors
/// When the groups do not divide the filters.
pub(super) fn grouped(filters: &PartialShape, groups: i64) -> OpResult<PartialShape> {
    let count = usize::try_from(groups).ok().filter(|g| *g > 0);
    let shape = filters.to_shape().filter(|s| s.rank() > 2);
    let (count, shape) =
        count.zip(shape).filter(|(g, s)| s[0].is_multiple_of(*g)).ok_or_else(|| {
            OpError::Input {
                index: 1,
                got: filters.to_string(),
                expected: format!("filters for {groups} groups"),
            }
        })?;
    let mut dims = vec![count, shape[0] / count];
    dims.extend_from_slice(&shape[1..]);
    Ok(Shape::from(dims).into())
}
