//! Activations as attributes of fused operators, and their exact values.

use crate::{
    Tensor,
    op::{
        Op, OpAttributes, OpError, OpResult,
        activation::{
            Clamp, Elu, Gelu, GeluMode, HSigmoid, HSwish, HardSigmoid, Mish, PRelu, Relu, Sigmoid,
            SoftPlus, Swish, Tanh,
        },
    },
};

/// A function applied to every element of a result.
///
/// NaN stays NaN in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// `x`
    #[default]
    None,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, low), high)`
    Clamp(f32, f32),
    /// `x` where `x >= 0`, else `slope * x`
    LeakyRelu(f32),
    /// `x / (1 + e^-x)`
    Silu,
    /// `x / (1 + e^(-beta x))`
    Swish(f32),
    /// `x * min(max(x / 6 + 1/2, 0), 1)`
    HardSwish,
    /// `min(max(alpha x + beta, 0), 1)`
    HardSigmoid(f32, f32),
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `tanh(x)`
    Tanh,
    /// `x/2 (1 + erf(x / √2))`
    GeluErf,
    /// `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`
    GeluTanh,
    /// `x` where `x >= 0`, else `alpha (e^x - 1)`
    Elu(f32),
    /// `x tanh(ln(1 + e^x))`
    Mish,
    /// `ln(1 + e^x)`
    Softplus,
    /// `scale max(x, 0) + shift`
    ScaledRelu(f32, f32),
    /// `scale x min(max(x / 6 + 1/2, 0), 1) + shift`
    ScaledHardSwish(f32, f32),
}

impl Activation {
    /// A stable number and the parameters (unused ones 0), for blobs.
    #[must_use]
    pub fn to_parts(self) -> (u32, [f32; 2]) {
        match self {
            Self::None => (0, [0.0; 2]),
            Self::Relu => (1, [0.0; 2]),
            Self::Clamp(low, high) => (2, [low, high]),
            Self::LeakyRelu(slope) => (3, [slope, 0.0]),
            Self::Silu => (4, [0.0; 2]),
            Self::Swish(beta) => (5, [beta, 0.0]),
            Self::HardSwish => (6, [0.0; 2]),
            Self::HardSigmoid(alpha, beta) => (7, [alpha, beta]),
            Self::Sigmoid => (8, [0.0; 2]),
            Self::Tanh => (9, [0.0; 2]),
            Self::GeluErf => (10, [0.0; 2]),
            Self::GeluTanh => (11, [0.0; 2]),
            Self::Elu(alpha) => (12, [alpha, 0.0]),
            Self::Mish => (13, [0.0; 2]),
            Self::Softplus => (14, [0.0; 2]),
            Self::ScaledRelu(scale, shift) => (15, [scale, shift]),
            Self::ScaledHardSwish(scale, shift) => (16, [scale, shift]),
        }
    }

    /// The inverse of [`to_parts`](Self::to_parts); `None` for an unknown number.
    #[must_use]
    pub fn from_parts(id: u32, p: [f32; 2]) -> Option<Self> {
        Some(match id {
            0 => Self::None,
            1 => Self::Relu,
            2 => Self::Clamp(p[0], p[1]),
            3 => Self::LeakyRelu(p[0]),
            4 => Self::Silu,
            5 => Self::Swish(p[0]),
            6 => Self::HardSwish,
            7 => Self::HardSigmoid(p[0], p[1]),
            8 => Self::Sigmoid,
            9 => Self::Tanh,
            10 => Self::GeluErf,
            11 => Self::GeluTanh,
            12 => Self::Elu(p[0]),
            13 => Self::Mish,
            14 => Self::Softplus,
            15 => Self::ScaledRelu(p[0], p[1]),
            16 => Self::ScaledHardSwish(p[0], p[1]),
            _ => return None,
        })
    }

    /// The activation followed by `scale y + shift`, where that is an activation too.
    #[must_use]
    pub fn then(self, scale: f32, shift: f32) -> Option<Self> {
        let after = |s: f32, b: f32| (s * scale, b.mul_add(scale, shift));
        Some(match self {
            Self::Relu => Self::ScaledRelu(scale, shift),
            Self::HardSwish => Self::ScaledHardSwish(scale, shift),
            Self::ScaledRelu(s, b) => {
                let (s, b) = after(s, b);
                Self::ScaledRelu(s, b)
            }
            Self::ScaledHardSwish(s, b) => {
                let (s, b) = after(s, b);
                Self::ScaledHardSwish(s, b)
            }
            _ => return None,
        })
    }

    /// `(low, high)` if the activation is a clamp, with infinities where it has no bound.
    #[must_use]
    pub fn as_clamp(self) -> Option<(f32, f32)> {
        match self {
            Self::None => Some((f32::NEG_INFINITY, f32::INFINITY)),
            Self::Relu => Some((0.0, f32::INFINITY)),
            Self::Clamp(low, high) => Some((low, high)),
            _ => None,
        }
    }
}

/// The activation that the attributes `activation` and `activation_params` describe.
///
/// # Errors
/// [`OpError::Attribute`] when the number is not known.
pub fn from_attributes(id: i64, params: &[f64]) -> OpResult<Activation> {
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
pub fn to_attributes(activation: Activation) -> (i64, Vec<f64>) {
    let (id, params) = activation.to_parts();
    (i64::from(id), params.iter().map(|p| f64::from(*p)).collect())
}

/// The activation that an operator with this many inputs is; `scalar` gives the constant number behind an input.
pub fn of_operator(
    op: &dyn Op,
    inputs: usize,
    scalar: &dyn Fn(usize) -> Option<f32>,
) -> Option<Activation> {
    let simple = [
        (Relu::KIND, Activation::Relu),
        (Sigmoid::KIND, Activation::Sigmoid),
        (Tanh::KIND, Activation::Tanh),
        (HSwish::KIND, Activation::HardSwish),
        (HSigmoid::KIND, Activation::HardSigmoid(1.0 / 6.0, 0.5)),
        (Mish::KIND, Activation::Mish),
        (SoftPlus::KIND, Activation::Softplus),
    ];
    if let Some((_, found)) = simple.iter().find(|(kind, _)| *kind == op.kind()) {
        return Some(*found);
    }
    Some(if let Some(clamp) = op.downcast::<Clamp>() {
        Activation::Clamp(clamp.min as f32, clamp.max as f32)
    } else if op.is::<Swish>() {
        match inputs {
            1 => Activation::Silu,
            _ => match scalar(1)? {
                1.0 => Activation::Silu,
                beta => Activation::Swish(beta),
            },
        }
    } else if op.is::<HardSigmoid>() {
        Activation::HardSigmoid(scalar(1)?, scalar(2)?)
    } else if let Some(gelu) = op.downcast::<Gelu>() {
        match gelu.approximation_mode {
            GeluMode::Erf => Activation::GeluErf,
            GeluMode::Tanh => Activation::GeluTanh,
        }
    } else if let Some(elu) = op.downcast::<Elu>() {
        Activation::Elu(elu.alpha as f32)
    } else if op.is::<PRelu>() {
        Activation::LeakyRelu(scalar(1)?)
    } else {
        return None;
    })
}

/// The exact value of an activation.
pub fn exact(activation: Activation, x: f64) -> f64 {
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
            0.5 * x * (1.0 + crate::op::activation::erf(x * std::f64::consts::FRAC_1_SQRT_2))
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
pub fn finish(
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
