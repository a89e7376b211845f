//! Activations as attributes of fused operators, and their exact values.

use ov_core::{
    Tensor,
    op::{OpError, OpResult},
};

use crate::simd::activation::Activation;

/// The activation that the attributes `activation` and `activation_params` describe.
///
/// # Errors
/// [`OpError::Attribute`] when the number is not known.
pub(crate) fn from_attributes(id: i64, params: &[f64]) -> OpResult<Activation> {
    let param = |i: usize| params.get(i).map_or(0.0, |p| *p as f32);
    u32::try_from(id)
        .ok()
        .and_then(|id| Activation::from_parts(id, [param(0), param(1)]))
        .ok_or_else(|| OpError::Attribute {
            name: "activation",
            got: id.to_string(),
            expected: "a known activation".to_owned(),
        })
}

/// The attributes of an activation.
pub(crate) fn to_attributes(activation: Activation) -> (i64, Vec<f64>) {
    let (id, params) = activation.to_parts();
    (i64::from(id), params.iter().map(|p| f64::from(*p)).collect())
}

/// The exact value of an activation.
pub(crate) fn exact(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Clamp(low, high) => x.max(f64::from(low)).min(f64::from(high)),
        Activation::LeakyRelu(slope) => {
            if x < 0.0 {
                x * f64::from(slope)
            } else {
                x
            }
        }
        Activation::Silu => x * sigmoid(x),
        Activation::Swish(beta) => x * sigmoid(x * f64::from(beta)),
        Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Activation::HardSigmoid(a, b) => (f64::from(a) * x + f64::from(b)).clamp(0.0, 1.0),
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::GeluErf => {
            0.5 * x * (1.0 + ov_core::op::activation::erf(x * std::f64::consts::FRAC_1_SQRT_2))
        }
        Activation::GeluTanh => {
            0.5 * x
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
        }
        Activation::Elu(alpha) => {
            if x < 0.0 {
                f64::from(alpha) * x.exp_m1()
            } else {
                x
            }
        }
        Activation::Mish => x * softplus(x).tanh(),
        Activation::Softplus => softplus(x),
        Activation::ScaledRelu(scale, shift) => f64::from(scale) * x.max(0.0) + f64::from(shift),
        Activation::ScaledHardSwish(scale, shift) => {
            f64::from(scale) * exact(Activation::HardSwish, x) + f64::from(shift)
        }
    }
}

/// `act(x + bias + residual)` or `act(x + bias) + residual` over the last axis, in `f64`.
///
/// # Errors
/// When a tensor is not `f32`.
pub(crate) fn finish(
    x: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    activation: Activation,
    residual_after: bool,
) -> OpResult<Tensor> {
    let x = x.to_contiguous();
    let values = x.as_slice::<f32>()?;
    let channels = x.shape().last().copied().unwrap_or(1).max(1);
    let bias = bias.map(Tensor::to_contiguous);
    let bias = bias.as_ref().map(|b| b.as_slice::<f32>()).transpose()?;
    let residual = residual.map(Tensor::to_contiguous);
    let residual = residual.as_ref().map(|r| r.as_slice::<f32>()).transpose()?;
    let result = values
        .iter()
        .enumerate()
        .map(|(i, v)| {
            let sum = f64::from(*v) + bias.map_or(0.0, |b| f64::from(b[i % channels]));
            let extra = residual.map_or(0.0, |r| f64::from(r[i]));
            (if residual_after {
                exact(activation, sum) + extra
            } else {
                exact(activation, sum + extra)
            }) as f32
        })
        .collect::<Vec<f32>>();
    Ok(Tensor::from_vec(x.shape().clone(), result)?)
}
