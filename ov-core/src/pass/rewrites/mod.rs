//! The rewrites, one per file, in the order in which they are tried.

mod arithmetic;
mod attention;
mod batch_norm;
mod convert;
mod factors;
mod gelu;
mod group_norm;
mod hard_swish;
mod identity;
mod inline_if;
mod layer_norm;
mod reshape;
mod rms_norm;
mod scale_weights;
mod softmax;
mod swish;
mod transpose;

use super::Rewrite;

/// Rewrites that leave one spelling of everything that has several.
pub const CANONICAL: &[Rewrite] = &[
    inline_if::REWRITE,
    identity::REWRITE,
    convert::REWRITE,
    transpose::CHAIN,
    // Before reshapes join, so that what becomes a reshape joins too.
    transpose::TO_RESHAPE,
    transpose::LEADING_ONES,
    transpose::INTO_MATMUL,
    reshape::REWRITE,
    arithmetic::CONSTANT_LAST,
    arithmetic::NEUTRAL,
    arithmetic::QUOTIENT,
    arithmetic::DIFFERENCE,
    arithmetic::POWER,
    batch_norm::REWRITE,
];

/// Rewrites that replace compositions with one operator.
pub const FUSIONS: &[Rewrite] = &[
    swish::REWRITE,
    hard_swish::REWRITE,
    gelu::REWRITE,
    softmax::REWRITE,
    layer_norm::CORE,
    layer_norm::SCALE,
    layer_norm::BIAS,
    rms_norm::REWRITE,
    group_norm::RESHAPED,
    group_norm::SCALE,
    group_norm::BIAS,
    attention::REWRITE,
    // After the activations, whose constants they would join with neighbouring ones.
    arithmetic::CHAIN,
    scale_weights::AFTER,
    scale_weights::BEFORE,
    scale_weights::DISTRIBUTE,
    scale_weights::BIAS_SHAPE,
];
